"""Count the keys of LoRAs that do not fit the model by name or shape, for each node.

One log line for each LoRA takes the place of ComfyUI's line for each key.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.engine.comfyui.call import NodeCaller

log = logging.getLogger(__name__)

# comfy/lora.py, load_lora: it logs a warning for each key, 800 of them for the LoRA of another model.
PREFIX = "lora key not loaded: "
# comfy/weight_adapter/lora.py, calculate_weight: what it logs when it leaves a weight as it is.
SHAPE_PREFIX = "ERROR lora "
SUFFIXES = frozenset({".safetensors", ".sft", ".pt", ".pth", ".ckpt", ".bin"})


@dataclass
class LoraKeys:
    """The numbers of the keys of the LoRAs that a node has loaded.

    files: the names of the LoRAs. total, unfit: how many keys there are, and how many of them do not fit the model.
    example: one of the keys that do not fit.
    """

    files: str
    total: int = 0
    unfit: int = 0
    example: str = ""

    def describe(self) -> str:
        """Return how many keys do not fit, such as `12 of 864 keys of style.safetensors`."""
        return f"{self.unfit} of {self.total} keys of {self.files}"

    def warn(self, node: str) -> None:
        """Log one warning, which names the `node`, if keys of its LoRAs do not fit the model."""
        if self.unfit >= self.total:
            log.warning(
                "%s: none of the %d keys of %s fits this model (another architecture?)", node, self.total, self.files
            )
        elif self.unfit:
            log.warning("%s: %s do not fit this model, %s for one", node, self.describe(), self.example)

    def add_misshapen(self, node: str, found: Mapping[str, int]) -> None:
        """Count weights whose patches have other shapes, each with its number of keys, and log one warning."""
        self.unfit += sum(found.values())
        if found:
            text = "%s: %d weights of the model have other shapes than %s, %s for one; ComfyUI leaves them as they are"
            log.warning(text, node, len(found), self.files, next(iter(found)))


@contextmanager
def lora_keys_counted(caller: NodeCaller) -> Iterator[None]:
    """Count in `caller.lora_keys` which keys of each node's LoRAs fit the model, while the context lasts.

    `comfy.lora.load_lora` is wrapped, and its log lines for single keys are replaced by one line for each LoRA. So is
    `ModelPatcher.add_patches`, because ComfyUI compares shapes only when it patches the weights, in the sampler.
    """
    import comfy.lora
    import comfy.model_patcher
    from comfy_execution.utils import get_executing_context

    module: Any = comfy.lora
    patcher: Any = comfy.model_patcher.ModelPatcher
    original, original_add = module.load_lora, patcher.add_patches
    open_counts: list[LoraKeys] = []
    misshapen: set[str] = set()

    def is_logged(record: logging.LogRecord) -> bool:
        text = record.getMessage() if open_counts or misshapen else ""
        if text.startswith(SHAPE_PREFIX):
            return text.removeprefix(SHAPE_PREFIX).partition(" ")[0] not in misshapen
        if not open_counts or not text.startswith(PREFIX):
            return True
        open_counts[-1].unfit += 1
        open_counts[-1].example = open_counts[-1].example or text.removeprefix(PREFIX)
        return False

    def load_lora(lora: Mapping[str, Any], *args: Any, **options: Any) -> Any:
        context = get_executing_context()
        if context is None:
            return original(lora, *args, **options)
        count = LoraKeys(_name_files(caller.prompt.get_node(context.node_id)["inputs"]), len(lora))
        open_counts.append(count)
        try:
            return original(lora, *args, **options)
        finally:
            open_counts.pop()
            _add(caller.lora_keys, caller.find_submitted(context.node_id), count)

    def add_patches(self: Any, patches: Mapping[Any, Any], *args: Any, **options: Any) -> Any:
        applied = original_add(self, patches, *args, **options)
        context = get_executing_context()
        node = caller.find_submitted(context.node_id) if context else ""
        if count := caller.lora_keys.get(node):
            found = find_misshapen(self.model.state_dict(), {key: patches[key] for key in applied})
            misshapen.update(found)
            count.add_misshapen(node, found)
        return applied

    root = logging.getLogger()
    module.load_lora, patcher.add_patches = load_lora, add_patches
    root.addFilter(is_logged)
    try:
        yield
    finally:
        root.removeFilter(is_logged)
        module.load_lora, patcher.add_patches = original, original_add


def find_misshapen(weights: Mapping[str, Any], patches: Mapping[Any, Any]) -> dict[str, int]:
    """Return the weights that a LoRA cannot patch because of its shapes, each with its number of keys of the LoRA.

    A patch is the product of `up`, [out, rank, ...], and `down`, [rank, in, ...], in the shape of the weight
    (`calculate_weight` in comfy/weight_adapter/lora.py). Patches of other kinds or of parts of weights are not looked
    at, nor are quantized weights.
    """
    found = {}
    for key, patch in patches.items():
        weight = weights.get(key) if isinstance(key, str) else None
        if weight is None or getattr(patch, "name", "") != "lora" or not weight.dtype.is_floating_point:
            continue
        up, down, alpha, *others = patch.weights
        if any(other is not None for other in others) or type(weight).__name__ not in ("Tensor", "Parameter"):
            continue
        fits = up.flatten(1).shape[1] == down.shape[0] and up.shape[0] * down[0].numel() == weight.numel()
        if not fits:
            found[key] = 2 + (alpha is not None)
    return found


def _add(known: dict[str, LoraKeys], node: str, count: LoraKeys) -> None:
    count.warn(node)
    node_total = known.setdefault(node, LoraKeys(count.files))
    node_total.total += count.total
    node_total.unfit += count.unfit


def _name_files(inputs: Mapping[str, Any]) -> str:
    """Return the model files that the constants of a node name, or `its LoRA` if the name comes from a link."""
    names = [value for value in inputs.values() if isinstance(value, str) and PurePath(value).suffix in SUFFIXES]
    return ", ".join(names) or "its LoRA"
