"""Collect facts about the machine, the versions and the code of a run: the tags of its record."""

from __future__ import annotations

import getpass
import os
import platform
import sys
from pathlib import Path

from pipeline.base.git import is_checkout, read_checkout
from pipeline.base.project import ROOT


def collect_facts(device: str) -> dict[str, str]:
    """Return the versions of Python, torch, CUDA and cuDNN, the GPU, the git commit, and the origin of the run.

    `device` is the torch device that computes. torch must be imported already.
    """
    torch = sys.modules["torch"]
    facts = {
        "version.python": platform.python_version(),
        "version.torch": torch.__version__,
        "version.cuda": torch.version.cuda or "none",
        **collect_origin(),
        **_read_git(ROOT),
    }
    if device.startswith("cuda"):
        facts["version.cudnn"] = str(torch.backends.cudnn.version())
        facts["gpu"] = torch.cuda.get_device_name(device)
    return facts


def collect_origin() -> dict[str, str]:
    """Return the tags by which MLflow's UI shows who made a run and with what."""
    return {"mlflow.user": _get_user(), "mlflow.source.name": "latentgrid", "mlflow.source.type": "LOCAL"}


def _get_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a user id that has no name
        return str(os.getuid())


def _read_git(folder: Path) -> dict[str, str]:
    """Return the commit of the code in `folder`, and whether its checkout was clean when this process first asked."""
    found = read_checkout(folder) if is_checkout(folder) else {}  # a wheel may lie within the repository of others
    if not found:
        return {"git.commit": "unknown"}
    tags = {f"git.{name}": value for name, value in found.items()}
    return {**tags, "mlflow.source.git.commit": found["commit"]}


def measure_peak_memory() -> dict[str, float]:
    """Return the peak memory in GB (10^9 bytes), by metric.

    For the process it is the peak since it began, for the GPU (if CUDA is in use) since `reset_peak_memory`.
    """
    peaks = {"memory/process_peak_gb": _read_process_peak() / 1e9}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        peaks["memory/gpu_peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
    return peaks


def reset_peak_memory() -> None:
    """Start a new measurement of the GPU's peak memory."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def _read_process_peak() -> int:
    """Return the largest resident size of the process so far, in bytes."""
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # ru_maxrss is in bytes on macOS, else in KiB
