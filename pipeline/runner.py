"""One run: config -> graph -> checked -> executed -> recorded. The same call for the command line and for Python."""

from __future__ import annotations

import contextlib
import json
import logging
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from omegaconf import DictConfig, OmegaConf, open_dict

from pipeline.config import RunConfig, compose_config, read_config
from pipeline.console import Progress, format_plan, format_value
from pipeline.errors import ConfigError, TrackingError
from pipeline.events import Event
from pipeline.graph.api_format import write_api_format
from pipeline.graph.check import CheckedGraph
from pipeline.graph.model import Link
from pipeline.origins import find_origins
from pipeline.record.artifacts import open_folder
from pipeline.record.facts import collect_facts
from pipeline.record.recorder import Recorder, RunFacts
from pipeline.record.tracker import MLflowRun, Tracker, TrackingSettings
from pipeline.tiny_model import make_tiny_model, names_tiny_model

if TYPE_CHECKING:
    import torch

    from pipeline.engine.executor import Execution
    from pipeline.engine.session import Session

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunResult:
    """What a run gave.

    latents: the kept latents by node, tensors [batch, channels, (frames,) height, width] on the CPU.
    outputs: all outputs of the kept nodes, by node and output name, as ComfyUI gave them.
    executed, cached: which nodes ran, and whose outputs were known already.
    folder, files: where the results lie; mlflow: the run in MLflow, None without tracking.
    A dry run has only `checked`.
    """

    checked: CheckedGraph
    latents: Mapping[str, torch.Tensor] = field(default_factory=dict)
    outputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    executed: tuple[str, ...] = ()
    cached: tuple[str, ...] = ()
    seconds: float = 0.0
    folder: Path | None = None
    files: tuple[Path, ...] = ()
    mlflow: MLflowRun | None = None

    @property
    def latent(self) -> torch.Tensor:
        """The kept latent of a run that keeps just one."""
        (samples,) = self.latents.values()
        return samples


def run(
    config: DictConfig | Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    folder: Path | str | None = None,
) -> RunResult:
    """Run a graph: from a composed config, or from conf/ with `overrides` (`["sampler.steps=8", "seed=42"]`).

    `folder` is the output folder; by default a new one below outputs/runs/. Models and outputs stay loaded for the
    next run in this process. Raises ConfigError, ComfyUIError, NodeError, OutputError or TrackingError.
    """
    if config is not None and overrides:
        raise ValueError("run: give a composed config or overrides, not both")
    now = datetime.now()
    hydra = None
    if config is None:
        config = compose_config(overrides)
        with open_dict(config):
            hydra = config.pop("hydra")
    return run_config(config, Path(folder or now.strftime("outputs/runs/%Y-%m-%d/%H-%M-%S-%f")), hydra)


def run_config(config: DictConfig | Mapping[str, Any], folder: Path, hydra: Any = None) -> RunResult:
    """Run a composed config into `folder`; `hydra` is its hydra node, which knows the overrides and the choices."""
    read = read_config(config)
    if read.has_wrong_settings:
        raise ConfigError(read.problems)
    tracker = open_tracker(read.tracking) if read.tracking.uri and not read.run.dry_run else None
    session = open_session(read)
    checked = session.check(read.graph, read.run.outputs, read.problems)
    if read.run.dry_run:
        print(_describe_plan(config, hydra, checked))
        return RunResult(checked)
    session.set_output_folder(open_folder(folder).resolve())
    recorder = Recorder(folder, _collect_run_facts(config, hydra, read, checked, session), tracker)
    return _execute(session, checked, recorder, read.run.save_pt)


_trackers: dict[TrackingSettings, Tracker] = {}


def open_tracker(settings: TrackingSettings) -> Tracker:
    """The tracker of this process for these settings; its writer starts at once and works beside us."""
    if settings not in _trackers or _trackers[settings].failed:
        _trackers[settings] = Tracker(settings)
    return _trackers[settings]


_session: Session | None = None


def open_session(read: RunConfig) -> Session:
    """The session of this process: the first run starts it. Importing torch and ComfyUI happens here."""
    from pipeline.engine.comfyui.start import start_comfyui
    from pipeline.engine.session import Session

    global _session
    if _session is None:
        _session = Session(start_comfyui(read.comfyui))
    start_comfyui(read.comfyui)  # refuses settings other than those it runs with
    if names_tiny_model(read.values):
        _session.add_models(make_tiny_model() / "models")
    return _session


def _execute(session: Session, checked: CheckedGraph, recorder: Recorder, save_pt: bool) -> RunResult:
    """Execute and record; the record says FAILED or KILLED if it comes to that."""
    progress = Progress()

    def listen(event: Event) -> None:
        recorder.listen(event)
        progress(event)

    began = time.perf_counter()
    try:
        recorder.start()
        execution = session.run(checked, listen)
        latents = _keep_latents(execution, checked, recorder, save_pt)
    except BaseException as error:
        progress.close()
        status = "FAILED" if isinstance(error, Exception) else "KILLED"
        if recorder.started:
            with _tracking_errors_logged():
                recorder.finish(status, time.perf_counter() - began, f"{type(error).__name__}: {error}")
        raise
    try:
        mlflow = recorder.finish("FINISHED", time.perf_counter() - began)
    except TrackingError as error:
        raise TrackingError(f"{error}\nThe results are kept: {recorder.folder}") from error
    return RunResult(
        checked=checked,
        latents=latents,
        outputs=_name_outputs(execution, checked),
        executed=execution.executed,
        cached=execution.cached,
        seconds=execution.seconds,
        folder=recorder.folder,
        files=tuple(recorder.files),
        mlflow=mlflow,
    )


@contextlib.contextmanager
def _tracking_errors_logged() -> Iterator[None]:
    """The error of the run is the one to raise; that its record failed too is only logged."""
    try:
        yield
    except TrackingError as error:
        log.error("%s", error)


def _keep_latents(
    execution: Execution, checked: CheckedGraph, recorder: Recorder, save_pt: bool
) -> dict[str, torch.Tensor]:
    """Write the first LATENT of each kept node, and say where a kept node has nothing that is written."""
    from pipeline.engine.comfyui.call import is_blocked
    from pipeline.engine.comfyui.preview import draw_latent

    latents = {}
    for name, outputs in execution.outputs.items():
        found = [
            values[0]["samples"]
            for spec, values in zip(checked.signatures[name].outputs, outputs.outputs, strict=False)
            if spec.type == "LATENT" and values and not is_blocked(values[0])
        ]
        if not found and not checked.signatures[name].is_output_node:
            log.warning("%s gives no LATENT, so no file is written of it; a SaveImage node, say, writes one", name)
        if found:
            # A copy made outside inference mode is an ordinary tensor, free to be used and changed.
            latents[name] = found[0].detach().cpu().clone()
            recorder.keep_latent(name, latents[name], draw_latent(latents[name], outputs.latent_format), save_pt)
    return latents


def _name_outputs(execution: Execution, checked: CheckedGraph) -> dict[str, dict[str, Any]]:
    return {
        name: {
            spec.name: _copy(values[0] if len(values) == 1 else values)
            for spec, values in zip(checked.signatures[name].outputs, outputs.outputs, strict=False)
        }
        for name, outputs in execution.outputs.items()
    }


def _copy(value: Any) -> Any:
    """The containers are the caller's to change; what they hold is shared with the cache."""
    return value.copy() if isinstance(value, dict | list) else value


def _describe_plan(config: DictConfig | Mapping[str, Any], hydra: Any, checked: CheckedGraph) -> str:
    paths = [f"{name}.{key}" for name, node in checked.graph.items() for key in node.inputs]
    tree = config if isinstance(config, DictConfig) else OmegaConf.create(dict(config))
    return format_plan(checked, find_origins(tree, hydra, paths))


def _collect_run_facts(
    config: DictConfig | Mapping[str, Any], hydra: Any, read: RunConfig, checked: CheckedGraph, session: Session
) -> RunFacts:
    overrides = list(hydra.overrides.task) if hydra is not None else []
    tags = {
        **collect_facts(session.comfyui.device),
        "version.comfyui": session.comfyui.installation.version,
        "device": f"{session.comfyui.device} ({read.comfyui.device})",
        "reproducible": json.dumps(read.comfyui.reproducible),
        "dynamic_vram": json.dumps(session.comfyui.dynamic_vram),
        "mlflow.note.content": f"`python run.py {shlex.join(overrides)}`",
    }
    return RunFacts(
        name=read.run.name or " ".join(overrides),
        config_yaml=_write_yaml(config),
        prompt=write_api_format(checked.graph),
        params=_list_params(read, checked),
        tags=tags,
    )


def _write_yaml(config: DictConfig | Mapping[str, Any]) -> str:
    """The config as it was composed, interpolations and all, without Hydra's own settings."""
    if not isinstance(config, DictConfig):
        config = OmegaConf.create(dict(config))
    whole: Any = OmegaConf.to_container(config, resolve=False)
    plain = {key: value for key, value in whole.items() if key != "hydra"}
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Dumper(yaml.CSafeDumper):
    """PyYAML's fast dumper, with quotes where OmegaConf, unlike PyYAML, would read a text as a number (`1e3`)."""


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    try:
        float(text)
    except ValueError:
        return dumper.represent_scalar("tag:yaml.org,2002:str", text)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'")


_Dumper.add_representer(str, _represent_text)


def _list_params(read: RunConfig, checked: CheckedGraph) -> dict[str, str]:
    """Every variable, every input of every node that runs, and who is bypassed, as text under their dotted paths."""
    params = {name: _write_param(value) for name, value in read.variables.items()}
    params.update({f"{name}._bypass_": _write_param(node.bypassed) for name, node in read.graph.items()})
    for name, node in checked.graph.items():
        for key, value in node.inputs.items():
            params[f"{name}.{key}"] = format_value(value, checked) if isinstance(value, Link) else _write_param(value)
    return params


def _write_param(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
