"""Parse a composed Hydra config into what a run needs: settings, a graph, and the problems found so far.

A top-level mapping with `_node_` is a node, any other top-level mapping is a settings section, and the other top-level
values (`seed`) are variables for interpolation. A variable that nothing reads has no effect. It is a problem if it was
given by an override or in a config that is a mapping (`+steps=4` where `sampler.steps=4` was meant). It is no problem
in a file of conf/, because other files choose what reads it, but it is not recorded.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from pipeline.base.project import CONF_FOLDERS, ROOT
from pipeline.config.names import register_names
from pipeline.config.values import escape
from pipeline.config.variables import UNREAD, explain_unread, find_unread, list_overridden
from pipeline.engine.cache_policy import find_policy_problems
from pipeline.engine.comfyui.settings import ComfyUISettings, find_setting_problems
from pipeline.errors import ConfigError, Problem, did_you_mean
from pipeline.graph.model import Graph
from pipeline.graph.reader import MISSING, is_node, read_graph
from pipeline.latents.distance import DISTANCES
from pipeline.record.recorder import LATENT_STATISTICS
from pipeline.record.tracker import TrackingSettings

CONF = CONF_FOLDERS[0]
"""The folder of config.yaml: that of the user's project if there is one, else latentgrid's own."""

T = TypeVar("T")

UNRESOLVED = object()  # stands for a value that cannot be resolved, until it is left out


@dataclass(frozen=True)
class RunSettings:
    """The `run` section of the config: what a run computes, checks and keeps.

    outputs: nodes whose outputs are requested, in addition to ComfyUI's output nodes.
    name: name of the run in MLflow; null: made from the overrides.
    save_pt: also write latents as .pt files.
    dry_run: check everything and run nothing.
    fail_fast: end a sweep at its first failed job.
    resume: take over results that are recorded already instead of running that job of a sweep again.
    objective: the metric that a job returns to a sweeper that optimises.
    cache: how long outputs are retained for later runs: classic, all, lru:N or none.
    reference: a run id or a latent file; the distance of every requested latent to it is measured.
    batch_seeds: how many jobs that differ only in the seed of a KSampler a sweep samples in one call, at most.
    """

    outputs: list[str] = field(default_factory=list)
    name: str | None = None
    save_pt: bool = False
    dry_run: bool = False
    fail_fast: bool = False
    resume: bool = True
    objective: str | None = None
    reference: str | None = None
    cache: str = "classic"
    batch_seeds: int = 1


@dataclass(frozen=True)
class WorkerSettings:
    """The `worker` section of the config: the Kafka worker, which chooses `worker=kafka` by itself.

    bootstrap_servers: the Kafka brokers to connect to first, as HOST:PORT, separated by commas.
    topic: the topic that requests are read from.
    reply_topic: the topic that replies are sent to, unless the request names another one.
    dead_letter_topic: the topic that requests are sent to that cannot be answered.
    group_id: workers of one consumer group share the partitions of the topic.
    roots: the folders in which the files of requests must lie.
    output_root: the folder of the results, one folder for each request.
    attempts: how often a request is tried if its sampling fails or ends the process.
    grace_seconds: how long a request in progress may go on after SIGTERM before it is handed back.
    port: the port of /healthz, /readyz and /metrics on the loopback interface; null: none.
    kafka: further settings of librdkafka, for consumer and producer (security.protocol, ...).
    """

    bootstrap_servers: str = "localhost:9092"
    topic: str = "sampling-requests"
    reply_topic: str = "sampling-replies"
    dead_letter_topic: str = "sampling-dead-letters"
    group_id: str = "latentgrid"
    roots: list[str] = field(default_factory=list)
    output_root: str = "outputs/requests"
    attempts: int = 3
    grace_seconds: float = 20.0
    port: int | None = 9464
    kafka: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunConfig:
    """A parsed config. `values` is the whole config with interpolations resolved, `problems` what is wrong so far.

    unread: the variables that nothing reads; those that the user gave are in `problems` too.
    """

    values: Mapping[str, Any]
    graph: Graph
    comfyui: ComfyUISettings
    run: RunSettings
    tracking: TrackingSettings
    worker: WorkerSettings
    problems: tuple[Problem, ...]
    unread: tuple[str, ...] = ()

    @property
    def has_wrong_settings(self) -> bool:
        """Whether the settings are wrong, so that ComfyUI need not be started to find more problems."""
        return any(
            problem.code in ("unknown_section", UNREAD) or problem.where.partition(".")[0] in SECTIONS
            for problem in self.problems
        )

    @property
    def variables(self) -> dict[str, Any]:
        """The top-level values, such as `seed`, that are neither nodes nor settings and that something reads."""
        return {name: self.values[name] for name in _list_variables(self.values) if name not in self.unread}


SECTIONS: dict[str, type] = {
    "comfyui": ComfyUISettings,
    "run": RunSettings,
    "tracking": TrackingSettings,
    "worker": WorkerSettings,
}


def compose_config(overrides: Sequence[str] = ()) -> DictConfig:
    """Compose conf/config.yaml with command line overrides; the result also has the `hydra` node.

    Raises ConfigError with a problem for every override that cannot be applied.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException

    register_names()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("config", overrides=list(overrides), return_hydra_config=True)
    except YAMLError as error:
        raise ConfigError([Problem("bad_config", "conf", f"a file cannot be read: {error}")]) from error
    except (HydraException, OmegaConfBaseException) as error:
        from pipeline.config.overrides import find_override_problems

        raise ConfigError(find_override_problems(overrides) or [Problem("bad_config", "conf", str(error))]) from error


def read_sections(overrides: Sequence[str], *sections: str) -> RunConfig:
    """Return the config that overrides compose. Raises ConfigError with all problems of the given `sections`."""
    parsed = read_config(compose_config(overrides))
    problems = [problem for problem in parsed.problems if problem.where.partition(".")[0] in sections]
    if problems:
        raise ConfigError(problems)
    return parsed


def read_config(config: DictConfig | Mapping[str, Any], hydra: Any = None, recorded: bool = False) -> RunConfig:
    """Parse a composed config. Faults are listed in `problems`, not raised.

    `hydra` is its hydra node, if that was taken out of it. A `recorded` config may have variables that nothing reads.

    Example:
        read_config(compose_config(["run.outputs=[sampler]"])).run.outputs  # ["sampler"]
    """
    problems: list[Problem] = []
    values = _resolve(config, problems)
    for name, section in values.items():
        if isinstance(section, Mapping) and not is_node(section) and name not in SECTIONS:
            near = did_you_mean(name, SECTIONS)
            message = f"is neither a node (it has no _node_) nor a settings section{near}"
            problems.append(Problem("unknown_section", name, message))
    settings: dict[str, Any] = {
        name: _read_section(name, cls, values.get(name), problems) for name, cls in SECTIONS.items()
    }
    problems.extend(find_setting_problems(settings["comfyui"]))
    problems.extend(find_policy_problems("run.cache", settings["run"].cache))
    problems.extend(_find_batch_problems(settings["run"]))
    graph = read_graph(values, problems)
    problems.extend(_find_objective_problems(settings["run"], graph))
    hydra = config.get("hydra") if hydra is None else hydra
    unread = find_unread(config, _list_variables(values), hydra)
    if unread and not recorded:
        overridden = list_overridden(hydra)
        given = set(unread) - read_own_names() if overridden is None else overridden
        problems.extend(explain_unread(name, values) for name in unread if name in given)
    return RunConfig(values=values, graph=graph, problems=tuple(problems), unread=unread, **settings)


def _list_variables(values: Mapping[str, Any]) -> list[str]:
    return [name for name, value in values.items() if not isinstance(value, Mapping) and name not in SECTIONS]


@functools.cache
def read_own_names() -> frozenset[str]:
    """Return the names that conf/config.yaml itself declares, such as `seed`: a graph need not read them."""
    return frozenset(str(name) for folder in CONF_FOLDERS for name in OmegaConf.load(folder / "config.yaml"))


def list_default_groups() -> dict[str, str | None]:
    """Return the config groups of latentgrid's own config.yaml with their default choices, in the order composed."""
    entries = yaml.safe_load((ROOT / "conf" / "config.yaml").read_text(encoding="utf-8"))["defaults"]
    groups = {group: choice for entry in entries if isinstance(entry, dict) for group, choice in entry.items()}
    return {group: choice for group, choice in groups.items() if not group.startswith("override ")}


def _find_batch_problems(run: RunSettings) -> list[Problem]:
    where = "run.batch_seeds"
    if run.batch_seeds < 1:
        return [Problem("value_smaller_than_min", where, f"must be at least 1, got {run.batch_seeds}")]
    if run.batch_seeds > 1 and run.cache == "none":
        message = "needs outputs to be kept from one job to the next. Set run.cache=classic"
        return [Problem("cache_needed", where, message)]
    return []


def _find_objective_problems(run: RunSettings, graph: Graph) -> list[Problem]:
    metrics = [f"latent/{name}/{statistic}" for name in run.outputs for statistic in LATENT_STATISTICS]
    metrics += ["seconds/total", *(f"seconds/{name}" for name in graph)]
    if run.reference:
        metrics += [f"distance/{name}/{distance}" for name in run.outputs for distance in DISTANCES]
    if run.objective is None or run.objective in metrics or run.objective.startswith("memory/"):
        return []
    near = did_you_mean(run.objective, metrics) or f". The metrics are {', '.join(metrics)}"
    return [Problem("value_not_in_list", "run.objective", f"{run.objective!r} is no metric of this run{near}")]


def _resolve(config: DictConfig | Mapping[str, Any], problems: list[Problem]) -> dict[str, Any]:
    """Return resolved plain containers; a value that cannot be resolved is left out and added to `problems`."""
    register_names()
    try:
        tree = config if isinstance(config, DictConfig) else OmegaConf.create(dict(config))
    except OmegaConfBaseException as error:
        problems.append(Problem("bad_config", str(error.full_key or "config"), str(error).splitlines()[0]))
        return {}
    entries = {str(name): _resolve_entry(tree, name, problems) for name in tree if name != "hydra"}
    return {name: value for name, value in entries.items() if value is not UNRESOLVED}


def _resolve_entry(tree: DictConfig, name: Any, problems: list[Problem]) -> Any:
    """Resolve a top-level entry; if that fails, value by value, because OmegaConf names only the first fault."""
    try:
        value = tree[name]
        return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    except OmegaConfBaseException:
        return _resolve_value(tree, name, str(name), problems)


def _resolve_value(parent: DictConfig, key: Any, where: str, problems: list[Problem]) -> Any:
    try:
        if OmegaConf.is_missing(parent, key):
            return MISSING
        value = parent[key]
        if OmegaConf.is_list(value):
            return OmegaConf.to_container(value, resolve=True)
    except OmegaConfBaseException as error:
        problems.append(Problem("bad_interpolation", where, str(error).splitlines()[0]))
        return UNRESOLVED
    if not isinstance(value, DictConfig):
        return value
    entries = {str(name): _resolve_value(value, name, f"{where}.{name!s}", problems) for name in value}
    resolved = {name: entry for name, entry in entries.items() if entry is not UNRESOLVED}
    return resolved if resolved or not entries else UNRESOLVED


def _read_section(name: str, cls: type[T], section: Any, problems: list[Problem]) -> T:
    """Return a section as its dataclass. Wrong names and types are added to `problems` and left out."""
    accepted: dict[str, Any] = {}
    schema = _make_schema(cls)  # type: ignore[arg-type]
    known = {one.name: str(one.type) for one in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if section is not None and not isinstance(section, Mapping):
        problems.append(Problem("invalid_input_type", name, f"must be a mapping of settings, got {section!r}"))
        section = None
    for key, value in (section or {}).items():
        where = f"{name}.{key}"
        if key not in known:
            problems.append(
                Problem("unknown_setting", where, f"is no setting{did_you_mean(key, known) or _list_settings(known)}")
            )
        elif value == MISSING:
            problems.append(Problem("required_input_missing", where, f"is required. Give it as {where}=VALUE"))
        else:
            try:
                schema[key] = escape(value)  # it is resolved already, so `${` in it is plain text
                stored = schema[key]
                accepted[key] = OmegaConf.to_container(stored, resolve=True) if OmegaConf.is_config(stored) else stored
            except OmegaConfBaseException:
                problems.append(Problem("invalid_input_type", where, f"must be {_describe(known[key])}, got {value!r}"))
    return cls(**accepted)


@functools.cache
def _make_schema(cls: type) -> DictConfig:
    """Return a config that takes only values of the right types under the names of a settings dataclass."""
    schema: DictConfig = OmegaConf.structured(cls)
    OmegaConf.set_readonly(schema, False)  # it is read-only because the dataclasses are frozen
    return schema


def _describe(annotation: str) -> str:
    """Return the type of a dataclass field in the words of a config."""
    kinds = {"bool": "true or false", "list": "a list", "dict": "a mapping", "str": "a text"}
    return next((words for kind, words in kinds.items() if annotation.startswith(kind)), annotation)


def _list_settings(names: Iterable[str]) -> str:
    return f". The settings are {', '.join(names)}"
