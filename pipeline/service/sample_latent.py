"""The sampling stage as a function that makes a latent from encodings and a latent, and is recorded like any run."""

from __future__ import annotations

import copy
import functools
import json
import os
import re
import secrets
import shlex
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from pipeline.config.read import compose_config
from pipeline.config.values import format_override
from pipeline.errors import ConfigError, OutputError, Problem
from pipeline.record.artifacts import RECORD, open_folder, write_tensors
from pipeline.runs.run import RunResult, run_config
from pipeline.service.errors import errors_named

if TYPE_CHECKING:
    import torch

Encoding: TypeAlias = "str | Path | torch.Tensor | list[Any] | tuple[Any, ...]"
Latent: TypeAlias = "str | Path | torch.Tensor | Mapping[str, Any]"

OVERRIDES = "LATENTGRID_SAMPLING"
"""The environment variable that holds the overrides of the config from which requests start."""
DEFAULT = "experiment=qwen_image_edit_2509_lightning"

INPUTS = {"positive_encoding": "positive", "negative_encoding": "negative", "latent_image": "latent"}
"""The node that loads each input."""
SETTINGS = {
    "unet_model_name": "unet.unet_name",
    "lora_model_name": "lora.lora_name",
    "lora_strength": "lora.strength_model",
    "seed": "seed",
    "steps": "sampler.steps",
    "cfg": "sampler.cfg",
    "sampler_name": "sampler.sampler_name",
    "scheduler": "sampler.scheduler",
    "denoise": "sampler.denoise",
    "shift": "auraflow.shift",
    "strength": "cfg_norm.strength",
}
"""The path of each parameter in the config."""
SAMPLER = "sampler"
REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
SEEDS = 2**53
"""Drawn seeds are smaller than this, so that JSON readers that know only doubles read them exactly."""


def sample_latent(
    positive_encoding: Encoding,
    negative_encoding: Encoding,
    latent_image: Latent,
    unet_model_name: str | None = None,
    lora_model_name: str | None = None,
    lora_strength: float = 1.0,
    seed: int | None = None,
    steps: int = 4,
    cfg: float = 1.0,
    sampler_name: str = "euler",
    scheduler: str = "simple",
    denoise: float = 1.0,
    shift: float = 3,
    strength: float = 1.0,
    output_dir: Path | str | None = None,
    request_id: str | None = None,
    save_tensor: bool = True,
) -> dict[str, Any]:
    """Sample one latent; models stay loaded for the next call.

    An encoding is the path of a file or the value itself: a tensor [batch, tokens, channels], `[tensor, metadata]`, or
    a list of such pairs. The latent is a path, a tensor [batch, channels, (frames,) height, width], or
    `{"samples": tensor}`. `shift` is an input of ModelSamplingAuraFlow, `strength` one of CFGNorm. For a model name of
    None that of the config is used; for a seed of None one is drawn. The config is that of
    experiment=qwen_image_edit_2509_lightning, or of the overrides in the environment variable LATENTGRID_SAMPLING
    (`experiment=tiny comfyui.device=cpu`).

    Files go to `output_dir`/`request_id`, by default below outputs/samples/. Returns

        sampled_latent_tensor   the tensor on the CPU; or with `save_tensor` the path of a file of {"samples": tensor}
        sampled_latent_shape    its shape, a list
        metadata                request_id, seed, settings, seconds, models (names and sha256), folder, run_id

    The sha256 of a model is known only if the run is recorded in MLflow. Raises the errors of
    pipeline/service/errors.py, ConfigError for other mistakes, and TrackingError. All are raised before a model is
    loaded, except SamplingFailedError, TrackingError, and OutputDirNotWritableError if the disk fills up.

    Example:
        result = sample_latent("positive.pt", "negative.pt", "latent.pt", seed=1)
        torch.load(result["sampled_latent_tensor"], weights_only=True)["samples"]
    """
    parameters = dict(locals())
    name = _check_request_id(uuid.uuid4().hex if request_id is None else request_id)
    if not isinstance(output_dir, str | Path | None):
        raise ConfigError([Problem("invalid_input_type", "output_dir", f"must be a path, got {output_dir!r}")])
    folder = Path(output_dir or "outputs/samples").expanduser() / name
    inputs, settings = ({one: parameters[one] for one in names} for names in (INPUTS, SETTINGS))
    sampling = prepare_sampling(read_base_overrides(), inputs, settings, folder, save_tensor)
    return sampling.describe(sampling.run())


def read_base_overrides() -> list[str]:
    """Return the overrides of the config from which requests start. Raises ConfigError if they cannot be parsed."""
    text = os.environ.get(OVERRIDES, DEFAULT)
    try:
        return shlex.split(text)
    except ValueError as error:
        message = f"must be overrides as on a command line of a shell ({error}), got {text!r}"
        raise ConfigError([Problem("not_an_override", f"environment variable {OVERRIDES}", message)]) from error


@dataclass(frozen=True)
class Sampling:
    """A prepared call of `sample_latent`: call `run` and then `describe`, which may be in another thread."""

    config: DictConfig
    hydra: DictConfig
    folder: Path
    save_tensor: bool

    def run(self) -> RunResult:
        """Check everything and sample. Raises the errors of `sample_latent`."""
        with errors_named():
            return run_config(self.config, self.folder, self.hydra, waits=False)

    def describe(self, result: RunResult) -> dict[str, Any]:
        """Wait until the record of the run is complete; return what `sample_latent` returns. Raises TrackingError."""
        samples = result.latents[SAMPLER]
        return {
            "sampled_latent_tensor": str(self.folder / f"{SAMPLER}.pt") if self.save_tensor else samples,
            "sampled_latent_shape": list(samples.shape),
            "metadata": {"request_id": self.folder.name, **_describe(self.config, result)},
        }


def prepare_sampling(
    base: Sequence[str], inputs: Mapping[str, Any], settings: Mapping[str, Any], folder: Path, save_tensor: bool
) -> Sampling:
    """Prepare a call of `sample_latent` with the config of the overrides `base`; its files go to `folder`.

    The name of `folder` is the request_id. `inputs` and `settings` hold the parameters of `sample_latent`. A setting of
    None takes the value of the config, except that a seed is drawn. Raises the errors of `sample_latent`.
    """
    chosen = {one: value for one, value in settings.items() if value is not None}
    chosen.setdefault("seed", secrets.randbelow(SEEDS))
    values = {SETTINGS[one]: value for one, value in chosen.items()}
    with errors_named():
        folder = open_folder(folder).absolute()
        values.update({f"{INPUTS[one]}.path": _find_path(folder, one, value) for one, value in inputs.items()})
        config, hydra = _make_config(base, values, folder.name, save_tensor)
    return Sampling(config, hydra, folder, save_tensor)


def _check_request_id(request_id: str) -> str:
    if not (isinstance(request_id, str) and REQUEST_ID.fullmatch(request_id)):
        rule = "must be 1 to 128 letters, digits, '.', '_' or '-', and begin with a letter or digit"
        raise ConfigError([Problem("bad_request_id", "request_id", f"{rule}, got {request_id!r}")])
    return request_id


def _find_path(folder: Path, name: str, value: Encoding | Latent) -> str:
    """Return the path of an input's file. A tensor is written into the folder, so that the run can be repeated."""
    import torch

    if isinstance(value, str | Path):
        return str(Path(value).expanduser().absolute())
    if isinstance(value, torch.Tensor | list | tuple | Mapping):
        try:
            return str(write_tensors(folder, f"{INPUTS[name]}.pt", value))
        except OutputError:
            raise
        except Exception as error:  # torch.save raises errors of many classes
            message = f"must hold tensors in plain values that can be saved: {type(error).__name__}: {error}"
            raise ConfigError([Problem("invalid_input_type", name, message)]) from error
    message = f"must be a path, a tensor, or what ComfyUI's nodes hold, got {type(value).__name__}"
    raise ConfigError([Problem("invalid_input_type", name, message)])


def _make_config(
    base: Sequence[str], values: Mapping[str, Any], name: str, save_tensor: bool
) -> tuple[DictConfig, DictConfig]:
    """Return the config of a request, and what Hydra would record of it: overrides that give the same, and choices."""
    with _composing:
        composed, choices = _compose(tuple(base))
    config = copy.deepcopy(composed)
    values = {**values, "run.name": name, "run.save_pt": save_tensor}
    problems = []
    for path, value in values.items():
        if not isinstance(value, str | int | float):
            problems.append(Problem("invalid_input_type", path, f"must be a text or a number, got {value!r}"))
            continue
        if isinstance(value, str) and "${" in value:  # an interpolation, which could read a secret
            problems.append(Problem("invalid_input_type", path, f"must not have '${{', got {value!r}"))
            continue
        try:
            OmegaConf.update(config, path, value)
        except OmegaConfBaseException:
            message = (
                f"is no setting of the config of {shlex.join(base)!r}, which must have the sampling graph with files"
            )
            problems.append(Problem("unknown_setting", path, message))
    if problems:
        raise ConfigError(problems)
    overrides = [*base, *(format_override(path, value) for path, value in values.items())]
    return config, OmegaConf.create({"overrides": {"task": overrides}, "runtime": {"choices": choices}})


_composing = threading.Lock()
"""Held while a config is composed: Hydra composes one at a time in a process."""


@functools.lru_cache(maxsize=4)
def _compose(overrides: tuple[str, ...]) -> tuple[DictConfig, dict[str, Any]]:
    """Compose a config and Hydra's choices; cached, because it is the slowest part of a request besides sampling."""
    config = compose_config(overrides)
    with open_dict(config):
        hydra = config.pop("hydra")
    return config, dict(hydra.runtime.choices)


def _describe(config: DictConfig, result: RunResult) -> dict[str, Any]:
    mlflow = result.wait()
    settings = {name: OmegaConf.select(config, path) for name, path in SETTINGS.items()}
    # Without a run in MLflow, a record in the folder is that of an earlier call.
    record = result.folder / RECORD if result.folder and mlflow else None
    hashes = json.loads(record.read_text()).get("files", {}) if record and record.is_file() else {}
    return {
        "seed": settings["seed"],
        "settings": settings,
        "seconds": {
            "total": result.metrics["seconds/total"],
            "sampling": result.metrics.get(f"seconds/{SAMPLER}", 0.0),
        },
        "models": {
            name: {"name": settings[name], "sha256": hashes.get(SETTINGS[name], {}).get("sha256")}
            for name in ("unet_model_name", "lora_model_name")
        },
        "folder": str(result.folder),
        "run_id": mlflow.run_id if mlflow else None,
    }
