"""latentgrid: runs ComfyUI graphs declared in Hydra YAML, in this process, and records every run in MLflow.

    from pipeline import run

    result = run(overrides=["sampler.steps=8", "seed=42"])
    result.latent    # a tensor

Importing this package is cheap: torch, ComfyUI and Hydra come with the first run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.runner import RunResult, run

__all__ = ["RunResult", "run"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from pipeline import runner

        return getattr(runner, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
