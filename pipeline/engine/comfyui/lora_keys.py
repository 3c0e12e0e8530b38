"""Count the keys of LoRAs that do not fit the model, for each node, in place of ComfyUI's log line for each key."""

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


@contextmanager
def lora_keys_counted(caller: NodeCaller) -> Iterator[None]:
    """Count in `caller.lora_keys` which keys of each node's LoRAs fit the model, while the context lasts.

    `comfy.lora.load_lora` is wrapped, and its log lines for single keys are replaced by one line for each LoRA.
    """
    import comfy.lora
    from comfy_execution.utils import get_executing_context

    module: Any = comfy.lora
    original = module.load_lora
    open_counts: list[LoraKeys] = []

    def is_logged(record: logging.LogRecord) -> bool:
        text = record.getMessage() if open_counts else ""
        if not text.startswith(PREFIX):
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

    root = logging.getLogger()
    module.load_lora = load_lora
    root.addFilter(is_logged)
    try:
        yield
    finally:
        root.removeFilter(is_logged)
        module.load_lora = original


def _add(known: dict[str, LoraKeys], node: str, count: LoraKeys) -> None:
    count.warn(node)
    node_total = known.setdefault(node, LoraKeys(count.files))
    node_total.total += count.total
    node_total.unfit += count.unfit


def _name_files(inputs: Mapping[str, Any]) -> str:
    """Return the model files that the constants of a node name, or `its LoRA` if the name comes from a link."""
    names = [value for value in inputs.values() if isinstance(value, str) and PurePath(value).suffix in SUFFIXES]
    return ", ".join(names) or "its LoRA"
