"""A sweep: its jobs are checked together, planned, and run one by one as planned."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from pipeline.config.read import RunConfig
from pipeline.errors import ConfigError, Problem, shorten_list
from pipeline.graph.check import CheckedGraph
from pipeline.latents.reference import Reference
from pipeline.record.queries import FinishedRun, RunStore
from pipeline.record.tracker import TrackedRun, Tracker, TrackingSettings
from pipeline.runs.process import open_session, open_tracker
from pipeline.runs.run import (
    CheckedRun,
    InSweep,
    RunResult,
    find_reference,
    identify,
    link_run,
    run_checked,
    warn_of_unread,
)
from pipeline.sweep.batches import BatchedSampler, explain_unbatched, find_batched
from pipeline.sweep.plan import Cell, Plan, PlannedCell, plan_cells

if TYPE_CHECKING:
    from pipeline.engine.session import Session

log = logging.getLogger(__name__)

NAMED = 3  # the most jobs that a problem names, and the most reasons; the others are only counted
EXPLAINED = 5  # the most jobs for which it is explained why no earlier run is taken over
OLDER = "which do not say all that a result follows from"


@dataclass(frozen=True)
class SweepJob:
    """A job and its settings. `name` distinguishes it from the others of its sweep: `steps=8 seed=3`."""

    number: int
    name: str
    config: DictConfig
    read: RunConfig


@dataclass(frozen=True)
class Sweep:
    """Jobs without mistakes, in Hydra's order, and the plan by which they run.

    session: runs the jobs.
    trackers: records the jobs; by the tracking settings of a job, None without tracking.
    runs: the checked run of each job.
    found: the recorded runs of the jobs whose results exist already, by place in `jobs`.
    keys: the content keys of the nodes of all other jobs, by place in `jobs`.
    plan: the order in which these other jobs run, and what they reuse.

    Example:
        sweep = check_sweep(jobs)
        results = [sweep.run(place, folder / str(place)) for place in range(len(sweep.order))]
    """

    session: Session
    trackers: Mapping[TrackingSettings, Tracker | None]
    jobs: Sequence[SweepJob]
    runs: Sequence[CheckedRun]
    found: Mapping[int, FinishedRun]
    keys: Mapping[int, Mapping[str, str]]
    plan: Plan

    @property
    def tracker(self) -> Tracker | None:
        """The tracker that records the sweep as a whole, None without tracking."""
        return self.trackers[self.jobs[0].read.tracking]

    @functools.cached_property
    def order(self) -> tuple[int, ...]:
        """The places in `jobs`, in the order of execution: first those of the jobs that need not run."""
        return (*self.found, *(planned.index for planned in self.plan.cells))

    def run(self, place: int, folder: Path, record: TrackedRun | None = None) -> RunResult:
        """Run the job at `place` in the order of execution; its files go to `folder` and its record below `record`.

        If its result is recorded already, link to that. Raises what `run_checked` raises.
        """
        index = self.order[place]
        tracker = self.trackers[self.jobs[index].read.tracking]
        if index in self.found:
            assert tracker, "only a tracker finds runs"
            return link_run(self.runs[index], self.found[index], folder, self.session, tracker, record)
        # After the last job nothing is released: an optimiser's next jobs, which are planned separately, may reuse it.
        planned = place - len(self.found)
        later = functools.partial(self.plan.is_read_after, planned) if place + 1 < len(self.jobs) else None
        place_in_sweep = InSweep(later, record, self.plan.cells[planned].batch)
        return run_checked(self.runs[index], folder, self.session, tracker, place_in_sweep)

    def describe(self, expected: Mapping[int, float | None]) -> str:
        """Return the plan as a table: the jobs in the order of execution, what they run and what they reuse.

        `expected` has the seconds that each job is expected to take, where they are known, by place in `jobs`.
        """
        width = max((len(job.name) for job in self.jobs), default=0)
        lines = []
        for index, description in [*self._describe_found(), *self._describe_planned()]:
            job, seconds = self.jobs[index], expected.get(index)
            duration = "" if seconds is None else f"about {seconds:.1f} s"
            lines.append(f"#{job.number:<4}{job.name:<{width}}  {duration:<14}{description}")
        counts = self.count_nodes()
        total = f"{len(self.jobs)} jobs: {counts['nodes_run']} nodes run, {counts['nodes_reused']} are known by then"
        recorded = f"; {len(self.found)} jobs are recorded already" if self.found else ""
        times = [expected.get(index) for index in self.keys]
        total_duration = f"; about {sum(filter(None, times)):.0f} s" if times and None not in times else ""
        return "\n".join([*lines, total + recorded + total_duration])

    def _describe_found(self) -> Iterator[tuple[int, str]]:
        for index, run in self.found.items():
            yield index, f"recorded: run {run.run_id}"

    def _describe_planned(self) -> Iterator[tuple[int, str]]:
        for planned in self.plan.cells:
            reused = f"; known: {', '.join(planned.reuses)}" if planned.reuses else ""
            yield planned.index, f"runs: {', '.join(planned.runs) or 'nothing'}{_describe_batch(planned)}{reused}"

    def count_nodes(self) -> dict[str, int]:
        """Return how many nodes run and how many are reused, over all jobs that have to run."""
        return {
            "nodes_run": sum(len(planned.runs) for planned in self.plan.cells),
            "nodes_reused": sum(len(planned.reuses) for planned in self.plan.cells),
        }


def _describe_batch(planned: PlannedCell) -> str:
    batch = planned.batch
    return f" ({batch.describe()})" if batch and batch.node in planned.runs and len(batch.seeds) > 1 else ""


def check_sweep(jobs: Sequence[SweepJob]) -> Sweep:
    """Check all jobs, find the results that are recorded already, and plan the rest. No model is loaded.

    Wrong settings are found before ComfyUI is started, everything else before the first job runs. Raises ConfigError
    with the problems of all jobs, and TrackingError.
    """
    _check_settings(jobs)
    warn_of_unread(job.read for job in jobs)
    # The processes that write to MLflow start up while ComfyUI starts.
    trackers = {settings: open_tracker(settings) for settings in dict.fromkeys(job.read.tracking for job in jobs)}
    tracker = trackers[jobs[0].read.tracking]
    for job in jobs:  # one session for all jobs; it finds the tiny model if any job names that
        session = open_session(job.read)
    graphs = _check_graphs(jobs, session)
    keys = {index: session.make_keys(checked) for index, checked in graphs.items()}
    batched = _find_batched(jobs, graphs, keys)
    for index, sampler in batched.items():
        keys[index] = session.make_keys(graphs[index], sampler.node)
    references = _find_references(jobs, tracker)
    runs = [
        _prepare(job, session, graphs[index], index in batched, references[job.read.run.reference])
        for index, job in enumerate(jobs)
    ]
    found = _find_finished(jobs, runs, tracker.store) if tracker else {}
    keys = {index: known for index, known in keys.items() if index not in found}
    plan = plan_cells({index: Cell(graphs[index], known, batched.get(index)) for index, known in keys.items()})
    return Sweep(session, trackers, jobs, runs, found, keys, plan)


def _check_settings(jobs: Sequence[SweepJob]) -> None:
    found: dict[Problem, list[SweepJob]] = {}
    for job in jobs:
        if job.read.has_wrong_settings:
            _collect(found, job.read.problems, job)
        elif job.read.comfyui != jobs[0].read.comfyui:
            _collect(found, [ONE_COMFYUI], job)
    _raise_if_any(found, len(jobs))


def _check_graphs(jobs: Sequence[SweepJob], session: Session) -> dict[int, CheckedGraph]:
    found: dict[Problem, list[SweepJob]] = {}
    graphs = {}
    for index, job in enumerate(jobs):
        try:
            graphs[index] = session.check(job.read.graph, job.read.run.outputs, job.read.problems)
        except ConfigError as error:
            _collect(found, error.problems, job)
    _raise_if_any(found, len(jobs))
    return graphs


def _find_batched(
    jobs: Sequence[SweepJob], graphs: Mapping[int, CheckedGraph], keys: Mapping[int, Mapping[str, str]]
) -> dict[int, BatchedSampler]:
    sizes = {index: job.read.run.batch_seeds for index, job in enumerate(jobs) if job.read.run.batch_seeds > 1}
    for reason in explain_unbatched({index: graphs[index] for index in sizes}):
        log.info("%s: seeds are sampled one by one, not in batches", reason)
    return find_batched(graphs, keys, sizes)


def _find_references(jobs: Sequence[SweepJob], tracker: Tracker | None) -> dict[str | None, Reference | None]:
    """Return the references with which the jobs are compared, by the text of `run.reference`."""
    reads = {job.read.run.reference: job.read for job in jobs}
    return {text: find_reference(read, tracker) for text, read in reads.items()}


def _prepare(
    job: SweepJob, session: Session, checked: CheckedGraph, batched: bool, reference: Reference | None
) -> CheckedRun:
    identity = identify(session, job.read, checked, batched, reference)
    name = job.read.run.name or job.name
    return CheckedRun(name, job.config, job.config.hydra, job.read, checked, identity, reference)


def _find_finished(jobs: Sequence[SweepJob], runs: Sequence[CheckedRun], store: RunStore) -> dict[int, FinishedRun]:
    """Return the recorded runs of the jobs that need not run, by the places of the jobs."""
    resumable = [index for index, job in enumerate(jobs) if job.read.run.resume]
    if not resumable:
        return {}
    finished = store.find_finished([(runs[index].identity.key, runs[index].identity.all_files) for index in resumable])
    found = {index: run for index, run in zip(resumable, finished, strict=True) if run}
    _explain_missing({index: runs[index] for index in resumable if index not in found}, store)
    return found


def _explain_missing(runs: Mapping[int, CheckedRun], store: RunStore) -> None:
    """Log why jobs run again although runs of their settings are recorded, once for each reason.

    Only the first few jobs are looked at: what has changed for one job of a sweep has changed for most.
    """
    reasons: dict[str, None] = {}
    older = 0
    for run in list(runs.values())[:EXPLAINED]:
        identity = run.identity
        found, count = store.explain_missing(run.name, identity.cell, identity.facts, identity.all_files)
        reasons |= dict.fromkeys(reason.partition(": ")[2] for reason in found)
        older += count > 0
    if reasons:
        text = shorten_list(list(reasons), NAMED, "; ")
        log.info("earlier runs of these settings are not taken over: %s", text)
    if older:
        log.info("run again: earlier runs of these settings have records of an older latentgrid, %s", OLDER)


ONE_COMFYUI = Problem(
    "comfyui_settings",
    "comfyui",
    "differs between jobs, but one process runs one ComfyUI with one set of settings. Make a sweep for each setting",
)


def _collect(found: dict[Problem, list[SweepJob]], problems: Sequence[Problem], job: SweepJob) -> None:
    for problem in problems:
        found.setdefault(problem, []).append(job)


def _raise_if_any(found: dict[Problem, list[SweepJob]], count: int) -> None:
    """Raise ConfigError, if there are problems, with one for each cause that names the jobs that have it."""
    if found:
        raise ConfigError(
            Problem(one.code, one.where, f"{one.message}{_name_jobs(jobs, count)}") for one, jobs in found.items()
        )


def _name_jobs(jobs: Sequence[SweepJob], count: int) -> str:
    if len(jobs) == count:
        return f" (all {count} jobs)" if count > 1 else ""
    names = shorten_list([f"#{job.number} {job.name}" for job in jobs], NAMED)
    return f" ({len(jobs)} of {count} jobs: {names})"
