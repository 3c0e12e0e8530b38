"""The `comfyui` section of the config."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import Problem


@dataclass(frozen=True)
class ComfyUISettings:
    """Which ComfyUI runs, and how it is set up. One process runs one ComfyUI.

    path: folder of a ComfyUI; null means COMFYUI_PATH, else comfy-cli's workspace, else the pinned copy.
    version: the version of the pinned copy to use, or the version that the ComfyUI at `path` must have.
    models: folders laid out like ComfyUI's models/, searched before ComfyUI's own.
    custom_nodes: node packs, or folders of packs, besides ComfyUI's own custom_nodes/ and this project's nodes/.
    device: auto, cpu, or cuda:N (the GPU with that index).
    dynamic_vram: ComfyUI's dynamic VRAM on a GPU; null leaves the choice to ComfyUI.
    reproducible: deterministic algorithms and no dynamic VRAM, so that a run repeats bit for bit on one GPU.
    args: further command line options of ComfyUI by name (`{reserve_vram: 2.0, use_sage_attention: true}`).
    """

    path: str | None = None
    version: str | None = None
    models: list[str] = field(default_factory=list)
    custom_nodes: list[str] = field(default_factory=list)
    device: str = "auto"
    dynamic_vram: bool | None = None
    reproducible: bool = False
    args: dict[str, Any] = field(default_factory=dict)


def find_setting_problems(settings: ComfyUISettings) -> list[Problem]:
    """Return the problems of the settings that can be found without starting ComfyUI."""
    problems = []
    if not re.fullmatch(r"auto|cpu|cuda:\d+", settings.device):
        message = f"must be auto, cpu or cuda:N, got {settings.device!r}"
        problems.append(Problem("value_not_in_list", "comfyui.device", message))
    if settings.reproducible and settings.dynamic_vram:
        message = "excludes comfyui.reproducible=true, got true. Leave it null"
        problems.append(Problem("value_not_in_list", "comfyui.dynamic_vram", message))
    for name in ("models", "custom_nodes"):
        for index, path in enumerate(getattr(settings, name)):
            if not Path(path).expanduser().exists():
                problems.append(
                    Problem("value_not_in_list", f"comfyui.{name}[{index}]", f"does not exist, got {path!r}")
                )
    return problems
