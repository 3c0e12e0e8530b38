"""What the results of a graph follow from: the same on another day and in another process, unlike a content key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version

from pipeline.engine.comfyui.start import ComfyUI
from pipeline.file_state import FileState
from pipeline.graph.check import CheckedGraph


@dataclass(frozen=True)
class Identity:
    """Graphs of one key whose files have one content give the same results.

    key: the sha256 over the kept nodes with all they depend on (constants, code, input files by content, names of model
    files), the versions of ComfyUI and torch, and the settings that change numbers.
    files: the model files that the graph reads, by dotted path (`unet.unet_name`). Their content is for others to hash:
    it takes a minute the first time, and no sample should wait for it.
    inputs: the other files that constants of the graph name, by dotted path (`latent.path`).
    """

    key: str
    files: Mapping[str, FileState]
    inputs: Mapping[str, FileState]


def describe_platform(comfyui: ComfyUI) -> dict[str, object]:
    """What changes the results of a graph besides its nodes, as plain data."""
    return {
        "comfyui": comfyui.installation.version,
        "torch": version("torch"),
        "device": comfyui.device.partition(":")[0],
        "reproducible": comfyui.settings.reproducible,
        "dynamic_vram": comfyui.dynamic_vram,
        "args": comfyui.settings.args,
    }


def make_identity_key(checked: CheckedGraph, keys: Mapping[str, str], settings: Mapping[str, object]) -> str:
    """The key of `Identity`, from keys of the nodes that are the same in every process, and all that is no node."""
    # Files are named after their nodes, so the names of the kept ones are part of the result.
    kept = {name: keys[name] for name in checked.targets}
    return hashlib.sha256(json.dumps([kept, settings], sort_keys=True, default=str).encode()).hexdigest()
