"""Collect facts about the machine and the process of a run: all that may change the last digit of a result."""

from __future__ import annotations

import functools
import os
import platform
import re
import shlex
import sys
from pathlib import Path

VARIABLES = re.compile(
    r"(ATEN|CUBLAS|CUDA|CUDNN|DNNL|HIP|HSA|KMP|MIOPEN|MKL|NVIDIA_TF32|OMP|ONEDNN|OPENBLAS|PYTORCH|ROCM|TORCH|TRITON)_\w+"
)
"""Environment variables that numerical libraries read."""

SECRETS = re.compile(r"([+]{0,2}worker[.]kafka\b[^=]*=).*", re.DOTALL)
"""Command line arguments that may contain the password of a broker."""

DRIVER = Path("/proc/driver/nvidia/version")


def collect_machine(device: str) -> dict[str, str]:
    """Return the facts of this machine and process, as text by dotted path.

    `device` is the torch device that computes. torch must be imported already.
    """
    return {
        **_read_host(),
        **_list_packages(),
        **_read_flags(),
        **(_read_gpu(device) if device.startswith("cuda") else {"cpu.model": _read_host()["host.cpu"]}),
        **{f"env.{name}": value for name, value in sorted(os.environ.items()) if VARIABLES.fullmatch(name)},
        "process.command": shlex.join(SECRETS.sub(r"\1***", word) for word in sys.argv),
        "process.folder": str(Path.cwd()),
    }


@functools.cache
def _read_host() -> dict[str, str]:
    torch = sys.modules["torch"]
    return {
        "host.name": platform.node(),
        "host.os": platform.platform(),
        "host.libc": " ".join(platform.libc_ver()).strip() or "unknown",
        "host.cpu": _read_cpu(),
        "host.cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def _read_cpu() -> str:
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


@functools.cache
def _list_packages() -> dict[str, str]:
    """Return name and version of every package that can be imported.

    They are taken from the names of the .dist-info folders, because reading the metadata of two hundred packages takes
    a tenth of a second.
    """
    found: dict[str, str] = {}
    for folder in map(Path, sys.path):
        for info in sorted(folder.glob("*.dist-info")):
            name, _, version = info.name.removesuffix(".dist-info").partition("-")
            found.setdefault(f"package.{name.lower().replace('_', '-')}", version)
    return found


def _read_flags() -> dict[str, str]:
    """Return the settings of torch; they are read for each run, because a pack may have changed them."""
    torch = sys.modules["torch"]
    cuda = torch.backends.cuda.matmul
    flags = {
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
        "float32_precision": torch.get_float32_matmul_precision(),
        "fp16_accumulation": getattr(cuda, "allow_fp16_accumulation", None),
        "fp16_reduction": getattr(cuda, "allow_fp16_reduced_precision_reduction", None),
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cudnn_tf32": torch.backends.cudnn.allow_tf32,
    }
    return {f"torch.{name}": str(value) for name, value in flags.items()}


def _read_gpu(device: str) -> dict[str, str]:
    torch = sys.modules["torch"]
    found = torch.cuda.get_device_properties(device)
    mig = re.search(r"MIG (\S+)", found.name)
    return {
        "gpu.capability": f"{found.major}.{found.minor}",
        "gpu.sm_count": str(found.multi_processor_count),
        "gpu.memory": str(found.total_memory),
        "gpu.mig": mig[1] if mig else "none",
        "gpu.driver": _read_driver(),
    }


def _read_driver() -> str:
    try:
        found = re.search(r"\s(\d+\.\d+(\.\d+)?)\s", DRIVER.read_text(encoding="utf-8"))
    except OSError:
        found = None
    return found[1] if found else "unknown"
