"""Run recorded runs again, each from its record alone, and compare the results with the recorded ones.

The graph is that of `prompt.json`, which has all defaults of that time. The settings are those of `config.yaml`. The
present conf/ only says where MLflow is. The place of ComfyUI and of models on this machine can be given as well.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import secrets
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf, open_dict

from pipeline.base.cache_folder import cache_folder
from pipeline.base.file_hashes import FileHashes
from pipeline.base.file_state import hash_file
from pipeline.config.read import RunConfig, read_config
from pipeline.errors import ConfigError, PipelineError, Problem, RecordError
from pipeline.graph.api_format import find_literals, read_api_format, unwrap_literals, write_api_format
from pipeline.graph.check import CheckedGraph
from pipeline.graph.model import Graph
from pipeline.latents.distance import Comparison, Tolerance, Verdict, compare_latents, find_worst
from pipeline.latents.reference import Reference, read_latents
from pipeline.record.artifacts import CONFIG, GRAPH, PROMPT, WORKFLOW
from pipeline.record.differences import Difference, find_differences, join_facts, list_facts
from pipeline.record.fact_table import KINDS, rank_fact
from pipeline.record.provenance import RecordedRun
from pipeline.record.tracker import NewRun, Tracker, TrackingSettings
from pipeline.runs.facts import collect_run_facts
from pipeline.runs.process import open_session, open_tracker
from pipeline.runs.result import RunResult
from pipeline.runs.run import CheckedRun, InSweep, identify, run_checked

if TYPE_CHECKING:
    from pipeline.engine.comfyui.seed_batch import SeedBatch
    from pipeline.engine.session import Session

log = logging.getLogger(__name__)

RERUN_OF = "rerun_of"  # the tag that names the run that was run again
PINNED = "pinned copy"


@dataclass(frozen=True)
class RebuiltRun:
    """A recorded run that is ready to run again by `session` and to be recorded by `tracker`.

    keys: the content keys of its nodes.
    batch: the seeds that were sampled together with its own.
    differences: those that are known before it runs.
    """

    session: Session
    tracker: Tracker | None
    source: RecordedRun
    job: CheckedRun
    keys: Mapping[str, str]
    batch: SeedBatch | None
    differences: Sequence[Difference]


@dataclass(frozen=True)
class Rerun:
    """The outcome of running a run again: its results, each compared with the recorded one, and what differs.

    random: a message about a node that gives other outputs for equal inputs, if nothing else explains the difference.
    """

    source: RecordedRun
    result: RunResult
    comparisons: Sequence[Comparison]
    differences: Sequence[Difference]
    random: str = ""

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of all its results."""
        return find_worst(one.verdict for one in self.comparisons)


def rebuild_runs(
    sources: Sequence[RecordedRun], tracking: TrackingSettings, comfyui: Mapping[str, Any]
) -> list[RebuiltRun]:
    """Check recorded runs on this machine and return them ready to run. No model is loaded.

    tracking: where the new runs are recorded; if it names no experiment, that of each source is used.
    comfyui: settings by dotted path that replace the recorded ones.

    Raises RecordError, ComfyUIError, and ConfigError with all problems, such as input files and models that no longer
    exist.

    Example:
        (run,) = rebuild_runs([tracker.store.read(run_id, source_folder)], tracking, {})
        rerun(run, folder, Tolerance()).verdict  # equal
    """
    configs = [_rebuild_config(source, tracking, comfyui) for source in sources]
    parsed_configs = [read_config(config, recorded=True) for config in configs]
    setting_problems = [
        problem for parsed in parsed_configs if parsed.has_wrong_settings for problem in parsed.problems
    ]
    if setting_problems:
        raise ConfigError(dict.fromkeys(setting_problems))
    problems: dict[Problem, None] = {}
    graphs: list[CheckedGraph] = []
    for source, parsed in zip(sources, parsed_configs, strict=True):
        try:
            session = open_session(parsed)
            graphs.append(session.check(_read_graph(source), parsed.run.outputs))
        except ConfigError as error:
            problems |= dict.fromkeys(error.problems)
    if problems:
        raise ConfigError([*problems, *_explain_folder(sources[0])])
    session.clear()  # else cached outputs of earlier runs would be compared with themselves
    parts = zip(sources, configs, parsed_configs, graphs, strict=True)
    return [_rebuild(session, source, config, parsed, checked) for source, config, parsed, checked in parts]


def rerun(run: RebuiltRun, folder: Path, tolerance: Tolerance, sweep: InSweep | None = None) -> Rerun:
    """Run a run again, into `folder`, and compare its results. Raises what `run_checked` raises."""
    if run.batch:
        sweep = dataclasses.replace(sweep or InSweep(), batch=run.batch)
    with run.session.generators.changed(secrets.randbits(32)):
        result = run_checked(run.job, folder, run.session, run.tracker, sweep)
    reference = run.job.reference
    assert reference
    nodes = dict.fromkeys([*reference.latents, *result.latents])
    comparisons = [
        compare_latents(node, result.latents.get(node), reference.latents.get(node), tolerance) for node in nodes
    ]
    comparisons += _compare_files(run.source, folder, nodes)
    if not comparisons:
        comparisons = [Comparison("results", "different", "nothing was kept that could be compared")]
    before, after = list_facts(run.source), _list_facts_now(run.job, result.facts)
    differences = find_differences(before, after)
    is_explained = find_worst(one.verdict for one in comparisons) == "equal" or any(
        rank_fact(one.fact) < len(KINDS) and not one.fact.startswith("tensor.") for one in differences
    )
    random = "" if is_explained else _find_random_node(run)
    return Rerun(run.source, result, comparisons, differences, random)


def _find_random_node(run: RebuiltRun) -> str:
    """Run the graph twice more, and return a message about the node that gives other outputs for equal inputs."""
    log.info("nothing that is recorded explains the difference, so the graph runs twice to find a node that is random")
    session, checked = run.session, run.job.checked
    with tempfile.TemporaryDirectory(prefix="latentgrid-") as folder:
        first, second = (session.digest_outputs(checked, Path(folder), seed) for seed in (1, 2))
    differing = {name for name in checked.order if first.get(name) != second.get(name)}
    for name in checked.order:
        node = checked.graph[name]
        if name in differing and not any(link.node in differing for _, link in node.links):
            message = f"{name} ({node.class_type}) gives other outputs for equal inputs"
            if session.remember_random(node.class_type):
                return f"{message}. From now on they are never shared by jobs nor taken over from a record"
            return f"{message}, in the last digits of the arithmetic. comfyui.reproducible=true makes it repeat"
    return ""


def rerun_sweep(
    above: RecordedRun, runs: Sequence[RebuiltRun], folder: Path, tolerance: Tolerance
) -> list[Rerun | PipelineError]:
    """Run the runs of a sweep again, in their recorded order and in this process, where models stay loaded.

    The outcome of a run that fails is its error; the other runs are not affected. The records of the runs are below a
    new one. Raises TrackingError.
    """
    tracker = runs[0].tracker
    assert tracker, "what was read from MLflow is recorded there"
    tags = {RERUN_OF: above.run_id}
    record = tracker.start(NewRun(f"rerun of {above.name}", {}, tags, folder), time.time())
    last_uses = {key: place for place, run in enumerate(runs) for key in run.keys.values()}
    outcomes: list[Rerun | PipelineError] = []
    for place, run in enumerate(runs):
        sweep = InSweep(lambda key, place=place: last_uses.get(key, -1) > place, record)  # type: ignore[misc]
        try:
            outcomes.append(rerun(run, folder / str(place), tolerance, sweep))
        except PipelineError as error:
            log.error("%s: %s", run.source.name, error)
            outcomes.append(error)
    failed = any(isinstance(one, PipelineError) for one in outcomes)
    record.finish("FAILED" if failed else "FINISHED", time.time())
    record.wait()
    return outcomes


def _rebuild_config(source: RecordedRun, tracking: TrackingSettings, comfyui: Mapping[str, Any]) -> DictConfig:
    if source.record is None:
        message = f"is {source.status} and has no record to run it again from. Only a run that FINISHED has one"
        raise RecordError(f"run {source.run_id}: {message}")
    config = OmegaConf.load(source.folder / CONFIG)
    assert isinstance(config, DictConfig)
    with open_dict(config):
        config.tracking = {"uri": tracking.uri, "experiment_name": tracking.experiment_name or source.experiment}
        OmegaConf.update(config, "run.reference", None)
        if not {"comfyui.path", "comfyui.version"} & comfyui.keys():
            _choose_version(config, source.record.facts)
        for path, value in comfyui.items():
            OmegaConf.update(config, path, value, merge=False)
    return config


def _choose_version(config: DictConfig, facts: Mapping[str, str]) -> None:
    """If a run used the pinned copy of ComfyUI, choose its version, whichever version is the default now."""
    from pipeline.engine.comfyui.locate import find_comfyui

    named = OmegaConf.select(config, "comfyui.path") or OmegaConf.select(config, "comfyui.version")
    if not named and facts.get("comfyui.source") == PINNED and find_comfyui().version != facts["version.comfyui"]:
        OmegaConf.update(config, "comfyui.version", facts["version.comfyui"])


def _read_graph(source: RecordedRun) -> Graph:
    prompt = json.loads((source.folder / PROMPT).read_bytes())
    return read_api_format(unwrap_literals(prompt), find_literals(prompt))


def _explain_folder(source: RecordedRun) -> list[Problem]:
    """Return a problem that names the folder of the run if it is another one: paths may be relative to it."""
    folder = (source.record.facts if source.record else {}).get("process.folder")
    if folder in (None, str(Path.cwd())):
        return []
    return [
        Problem("process.folder", "process.folder", f"the run was made in {folder}. Relative paths count from there")
    ]


def _rebuild(
    session: Session, source: RecordedRun, config: DictConfig, parsed: RunConfig, checked: CheckedGraph
) -> RebuiltRun:
    batch = _rebuild_batch(session, checked, source.tags)
    reference = Reference(f"run {source.run_id}", read_latents(source))
    identity = identify(session, parsed, checked, batched=batch is not None)
    job = CheckedRun(source.name, config, None, parsed, checked, identity, reference, {RERUN_OF: source.run_id})
    facts = collect_run_facts(job.name, config, (), parsed, checked, session, identity, {}).all_facts
    del facts["process.order"]  # the order is known only when the run begins
    if batch:
        facts |= batch.list_tags(int(checked.graph[batch.node].inputs["seed"]))
    differences = find_differences(list_facts(source), _list_facts_now(job, facts))
    keys = session.make_keys(checked, batch.node if batch else "")
    return RebuiltRun(session, open_tracker(parsed.tracking), source, job, keys, batch, differences)


def _rebuild_batch(session: Session, checked: CheckedGraph, tags: Mapping[str, str]) -> SeedBatch | None:
    """Return the seeds that were sampled together, or None.

    A latent that is sampled in a batch differs in its last digits from one that is sampled alone.
    """
    from pipeline.engine.comfyui.seed_batch import SeedBatch

    name = tags.get("batch.node")
    if name is None:
        return None
    seeds = {}
    for seed in json.loads(tags["batch.seeds"]):
        node = checked.graph[name]
        other = dataclasses.replace(node, inputs={**node.inputs, "seed": seed})
        graph = Graph({**checked.graph, name: other})
        seeds[session.make_keys(dataclasses.replace(checked, graph=graph), name)[name]] = seed
    return SeedBatch(name, seeds)


@functools.cache
def _open_hashes() -> FileHashes:
    return FileHashes(cache_folder())


def _list_facts_now(job: CheckedRun, facts: Mapping[str, str]) -> dict[str, str]:
    """Return what the record of a run would say if it were made now, as far as `facts` go."""
    hashes = _open_hashes()
    files = {where: sha256 for where, state in job.identity.all_files.items() if (sha256 := hashes.get(state))}
    return join_facts(facts, files, write_api_format(job.checked.graph))


def _compare_files(source: RecordedRun, folder: Path, nodes: Mapping[str, None]) -> list[Comparison]:
    """Compare the bytes of files that nodes wrote themselves. Files that every run writes are left out."""
    assert source.record
    own_files = {
        CONFIG,
        PROMPT,
        WORKFLOW,
        GRAPH,
        *(f"{node}{suffix}" for node in nodes for suffix in (".latent", ".pt", ".png")),
    }
    comparisons = []
    for name, sha256 in source.record.artifacts.items():
        if name not in own_files:
            path = folder / name
            is_same = path.is_file() and hash_file(path) == sha256
            message = "every byte is the same" if is_same else "bytes differ" if path.is_file() else "was not written"
            comparisons.append(Comparison(name, "equal" if is_same else "different", message))
    return comparisons
