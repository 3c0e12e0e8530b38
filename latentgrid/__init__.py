"""Run ComfyUI graphs declared in Hydra YAML, in this process, with every run recorded in MLflow.

    from latentgrid import run

    result = run(overrides=["sampler.steps=8", "seed=42"])
    result.latent    # a tensor

What is here is what other code may rely on. Importing it is cheap: torch, ComfyUI and Hydra are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.engine.session import Session
    from pipeline.errors import (
        ComfyUIError,
        ConfigError,
        CycleError,
        NodeError,
        OutputError,
        PipelineError,
        PromptError,
        RecordError,
        RunInterrupted,
        TrackingError,
    )
    from pipeline.runs.result import RunResult
    from pipeline.runs.run import run
    from pipeline.service.sample_latent import sample_latent

__all__ = [
    "ComfyUIError",
    "ConfigError",
    "CycleError",
    "NodeError",
    "OutputError",
    "PipelineError",
    "PromptError",
    "RecordError",
    "RunInterrupted",
    "RunResult",
    "Session",
    "TrackingError",
    "run",
    "sample_latent",
]

_HOMES = {"Session": "pipeline.engine.session", **dict.fromkeys(("RunResult", "run", "sample_latent"), "pipeline")}
"""Where what is no error comes from."""


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module(_HOMES.get(name, "pipeline.errors")), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
