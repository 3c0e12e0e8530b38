"""latentgrid runs ComfyUI graphs declared in Hydra YAML, in this process, and records every run in MLflow.

    from pipeline import run

    result = run(overrides=["sampler.steps=8", "seed=42"])
    result.latent    # a tensor

Importing this package is cheap: torch, ComfyUI and Hydra are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.runs.run import RunResult, run
    from pipeline.service.sample_latent import sample_latent

__all__ = ["RunResult", "run", "sample_latent"]

_HOMES = {
    "RunResult": "pipeline.runs.run",
    "run": "pipeline.runs.run",
    "sample_latent": "pipeline.service.sample_latent",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
