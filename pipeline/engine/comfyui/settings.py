"""The `comfyui` section of the config."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ComfyUISettings:
    """Which ComfyUI runs, and how it is set up. One process runs one ComfyUI.

    path: folder of a ComfyUI; null looks at COMFYUI_PATH, comfy-cli's workspace, then installs the pinned copy.
    version: the pinned copy of that version, or what `path` must be.
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
