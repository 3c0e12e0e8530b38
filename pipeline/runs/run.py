"""One run: parse a config, check its graph, execute and record it.

The command line and Python use the same functions.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf, open_dict

from pipeline.base.events import Event
from pipeline.config.origins import find_origins
from pipeline.config.read import RunConfig, compose_config, read_config, read_own_names
from pipeline.config.values import set_values
from pipeline.errors import ConfigError, RunInterrupted, TrackingError
from pipeline.graph.check import CheckedGraph
from pipeline.latents.reference import Reference, open_reference
from pipeline.record.artifacts import GRAPH, list_files, open_folder, write_text
from pipeline.record.note import NOTE
from pipeline.record.queries import FinishedRun
from pipeline.record.recorder import Recorder, RunFacts, write_inputs
from pipeline.record.tracker import TrackedRun, Tracker
from pipeline.runs.console import Progress, format_plan
from pipeline.runs.export import export_workflow, find_original
from pipeline.runs.facts import collect_key_facts, collect_run_facts, select_process_facts
from pipeline.runs.keeping import Keeper
from pipeline.runs.process import open_session, open_tracker
from pipeline.runs.result import RunResult

if TYPE_CHECKING:
    from pipeline.engine.comfyui.seed_batch import SeedBatch
    from pipeline.engine.executor import Execution, IsReadLater
    from pipeline.engine.identity import Identity
    from pipeline.engine.session import Session

log = logging.getLogger(__name__)


def run(
    config: DictConfig | Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    folder: Path | str | None = None,
    values: Mapping[str, Any] | None = None,
) -> RunResult:
    """Run a graph: that of a composed `config`, or that of conf/ with `overrides`.

    `values` are settings by dotted path that are taken literally, so that a text needs no quotes; they are applied
    after the overrides. `folder` is the output folder, by default a new one below outputs/runs/. Models and outputs
    stay loaded for the next run in this process.

    Raises ConfigError, ComfyUIError, NodeError, OutputError or TrackingError, each of which is a PipelineError, and
    ValueError if `config` is given together with `overrides` or `values`.

    Example:
        result = run(overrides=["sampler.steps=8", "seed=42"], values={"positive.text": "it's (sunny:1.2)"})
        result.latent  # a tensor
    """
    if config is not None and (overrides or values):
        raise ValueError("run: give a composed config, or overrides and values, not both")
    now = datetime.now()
    hydra = None
    if config is None:
        config = compose_config(overrides)
        set_overrides = set_values(config, values or {})
        with open_dict(config):
            hydra = config.pop("hydra")
            hydra.overrides.task = [*hydra.overrides.task, *set_overrides]
    path = Path(folder or now.strftime("outputs/runs/%Y-%m-%d/%H-%M-%S-%f"))
    return run_config(config, path.absolute(), hydra)


def run_config(
    config: DictConfig | Mapping[str, Any], folder: Path, hydra: Any = None, waits: bool = True
) -> RunResult:
    """Run a composed config into `folder`; `hydra` is its hydra node, which has the overrides and the choices.

    If `waits` is false, the record in MLflow is complete only when `RunResult.wait` returns.
    """
    parsed = read_config(config, hydra)
    if parsed.has_wrong_settings:
        raise ConfigError(parsed.problems)
    warn_of_unread([parsed])
    tracker = None if parsed.run.dry_run else open_tracker(parsed.tracking)  # it starts while ComfyUI starts
    session = open_session(parsed)
    checked = session.check(parsed.graph, parsed.run.outputs, parsed.problems)
    if parsed.run.dry_run:
        print(_describe_plan(config, hydra, checked))
        return RunResult(checked)
    name = parsed.run.name or " ".join(_list_overrides(hydra))
    reference = find_reference(parsed, tracker)
    identity = identify(session, parsed, checked, reference=reference)
    job = CheckedRun(name, config, hydra, parsed, checked, identity, reference)
    return run_checked(job, folder, session, tracker, waits=waits)


@dataclass(frozen=True)
class CheckedRun:
    """A config without problems, ready to run.

    name: the name of its record.
    reference: what its latents are compared with.
    tags: tags of its record in addition to those of every run.
    """

    name: str
    config: DictConfig | Mapping[str, Any]
    hydra: Any
    read: RunConfig
    checked: CheckedGraph
    identity: Identity
    reference: Reference | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


def warn_of_unread(configs: Iterable[RunConfig]) -> None:
    """Log a warning for each variable that a file of conf/ declares and nothing reads."""
    for name in dict.fromkeys(name for parsed in configs for name in parsed.unread if name not in read_own_names()):
        log.warning("%s: is read by nothing, so it has no effect", name)


def find_reference(parsed: RunConfig, tracker: Tracker | None) -> Reference | None:
    """Return the reference that `run.reference` names, or None if it is not set. Raises ConfigError."""
    text = parsed.run.reference
    return None if text is None else open_reference(text, tracker.store if tracker else None)


def identify(
    session: Session,
    parsed: RunConfig,
    checked: CheckedGraph,
    batched: bool = False,
    reference: Reference | None = None,
) -> Identity:
    """Return the identity of a run: what its results follow from.

    It depends on `batched`, because a latent that is sampled in a batch differs in its last digits, and on `reference`,
    because the distances to it are results too.
    """
    settings: dict[str, Any] = {"save_pt": parsed.run.save_pt}
    if batched:
        settings["batched"] = True
    if reference:
        settings["reference"] = reference.digest
    return session.identify(checked, settings, collect_key_facts(parsed, checked, session))


@dataclass(frozen=True)
class InSweep:
    """What a run of a sweep needs to know about the sweep.

    is_read_later: tells by content key whether later runs will read an output. None: the outputs of this run are
        retained for the next one.
    record: the sweep's own record, above that of the run.
    batch: the seeds that are sampled together with that of this run.
    """

    is_read_later: IsReadLater | None = None
    record: TrackedRun | None = None
    batch: SeedBatch | None = None


def run_checked(
    job: CheckedRun,
    folder: Path,
    session: Session,
    tracker: Tracker | None,
    sweep: InSweep | None = None,
    waits: bool = True,
) -> RunResult:
    """Run a job with `session` into `folder`, and record it with `tracker` if there is one.

    If `waits`, the record in MLflow is complete on return, except that of a run below the record of a sweep.
    """
    session.set_output_folder(open_folder(folder).resolve())
    session.use_cache(job.read.run.cache)
    facts = _collect_facts(job, session)
    session.note_surroundings(select_process_facts(facts.all_facts))
    batch = sweep.batch if sweep else None
    facts = dataclasses.replace(facts, tags={**facts.tags, **job.tags})
    recorder = Recorder(folder, facts, tracker)
    if sweep:
        recorder.parent = sweep.record
    progress = Progress(below_another=sweep is not None)

    def listen(event: Event) -> None:
        recorder.listen(event)
        progress(event)

    began = time.perf_counter()
    try:
        recorder.start()
        embedded = {"extra_pnginfo": {"workflow": facts.workflow}}
        is_read_later = sweep.is_read_later if sweep else None
        execution = session.run(job.checked, listen, is_read_later, extra_data=embedded, batch=batch)
        if execution.batch:
            recorder.tags |= execution.batch.list_tags(int(job.checked.graph[execution.batch.node].inputs["seed"]))
        keeper = Keeper(recorder, job.reference, job.read.run.save_pt)
        try:
            keeper.keep(execution, job.checked)
        except TrackingError as error:
            raise TrackingError(f"{error}\nThe results are kept: {recorder.folder}") from error
    except BaseException as error:
        progress.close()
        status = "FAILED" if isinstance(error, Exception) and not isinstance(error, RunInterrupted) else "KILLED"
        with tracking_errors_logged():
            recorder.finish(status, time.perf_counter() - began, f"{type(error).__name__}: {error}")
            if not sweep:
                recorder.wait()
        raise
    try:
        recorder.finish("FINISHED", time.perf_counter() - began, learnt=execution.facts)
    except TrackingError as error:
        raise TrackingError(f"{error}\nThe results are kept: {recorder.folder}") from error
    result = RunResult(
        checked=job.checked,
        latents=keeper.latents,
        outputs=_name_outputs(execution, job.checked),
        executed=execution.executed,
        cached=execution.cached,
        seconds=execution.seconds,
        metrics=recorder.metrics,
        facts={**facts.all_facts, **recorder.learnt},
        folder=recorder.folder,
        files=tuple(recorder.files),
        pending=recorder.run,
    )
    if not waits or (sweep and sweep.record):
        return result
    return dataclasses.replace(result, mlflow=result.wait(), pending=None)


def link_run(
    job: CheckedRun,
    found: FinishedRun,
    folder: Path,
    session: Session,
    tracker: Tracker,
    parent: TrackedRun | None,
) -> RunResult:
    """Take over the results of the run `found` instead of running `job`: copy them into `folder`, and record it.

    Config, prompt, workflow, picture of the graph, params and description are those of the job: two configs may come to
    the same result, such as two strengths of a bypassed LoRA. Raises OutputError or TrackingError.
    """
    facts = _collect_facts(job, session)
    files = [*write_inputs(open_folder(folder), facts), write_text(folder, GRAPH, facts.draw(job.checked.order))]
    own = [path.name for path in files]
    note = facts.tags[NOTE]
    mlflow = tracker.link(job.name, found.run_id, folder, time.time(), parent, facts.params, note, own).wait()
    return RunResult(
        checked=job.checked,
        metrics=found.metrics,
        folder=folder,
        files=tuple(list_files(folder)),
        mlflow=mlflow,
        linked=found.run_id,
    )


def _collect_facts(job: CheckedRun, session: Session) -> RunFacts:
    workflow = export_workflow(job.checked, job.read.values, session, find_original(job.hydra))
    overrides = _list_overrides(job.hydra)
    return collect_run_facts(job.name, job.config, overrides, job.read, job.checked, session, job.identity, workflow)


@contextlib.contextmanager
def tracking_errors_logged() -> Iterator[None]:
    """Log a TrackingError instead of raising it, because the error of the run itself must be raised."""
    try:
        yield
    except TrackingError as error:
        log.error("%s", error)


def _name_outputs(execution: Execution, checked: CheckedGraph) -> dict[str, dict[str, Any]]:
    return {
        name: {
            spec.name: _copy(values[0] if len(values) == 1 else values)
            for spec, values in zip(checked.signatures[name].outputs, outputs.outputs, strict=False)
        }
        for name, outputs in execution.outputs.items()
    }


def _copy(value: Any) -> Any:
    """Return a copy of a container, so that the caller may change it; its content is shared with the cache."""
    return value.copy() if isinstance(value, dict | list) else value


def _describe_plan(config: DictConfig | Mapping[str, Any], hydra: Any, checked: CheckedGraph) -> str:
    paths = [f"{name}.{key}" for name, node in checked.graph.items() for key in node.inputs]
    tree = config if isinstance(config, DictConfig) else OmegaConf.create(dict(config))
    return format_plan(checked, find_origins(tree, hydra, paths))


def _list_overrides(hydra: Any) -> list[str]:
    return list(hydra.overrides.task) if hydra is not None else []
