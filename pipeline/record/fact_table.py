"""The facts that a result depends on: one table for resuming (`identity`), `record.json` and `rerun`.

A fact is a text under a dotted path (`version.torch: 2.9.1`). Each kind of fact has one row in `KINDS`, which says
whether a different value may change a digit of a result. Facts that may do so are part of the identity of a run: a
recorded result is taken over only if all of them are equal. All facts are recorded, and `rerun` lists those that differ
in the order of the table. A fact that matches no row does not change results.

Some kinds are part of the identity in another form than their text, because they are known only later or take long to
find: the graph by the content keys of its nodes, files by their sha256 in the record.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass

VERSION = 4
"""The version of the rules by which an identity is made. Raise it when they change, or when a fault is fixed that made
latentgrid itself give wrong results: what was recorded before is then run again."""


@dataclass(frozen=True)
class FactKind:
    """A row of the table: the facts whose whole dotted path matches `pattern`.

    in_key: whether the text of the fact is part of the identity.
    counts_alone: whether it counts as different if only one of two runs has the fact. Other facts are absent where
        nothing was read, or from older records.
    """

    pattern: str
    in_key: bool
    counts_alone: bool = False


KINDS = (
    FactKind(r"seed\..+", in_key=False, counts_alone=True),  # in the node's content key
    FactKind(r"graph\..+", in_key=False, counts_alone=True),  # in the node's content key
    FactKind(r"batch\..+", in_key=False, counts_alone=True),  # whether it was batched is a setting of the identity
    FactKind(r"file\..+", in_key=False),  # compared with the record by sha256
    FactKind(r"(tensor|shape)\..+", in_key=False),  # follows from code and files; known only after the run
    FactKind(r"dtype\..+", in_key=False),  # follows from files and options; known only after the run
    FactKind(r"code\..+|pack\..+\.(code|packages)", in_key=True),
    FactKind(r"pack\..+", in_key=False, counts_alone=True),  # the commit; the content is in `pack.NAME.code`
    FactKind(r"version\.comfyui|comfyui\.(code|args)", in_key=True),
    FactKind(r"comfyui\.commit", in_key=False),  # the content is in `comfyui.code`
    FactKind(r"reproducible|comfyui\.(attention|vram_state)|dynamic_vram|torch\..+", in_key=True),
    FactKind(r"device\.type|gpu|gpu\..+|version\..+", in_key=True),
    FactKind(r"device", in_key=False),  # it also has the index and the requested device
    FactKind(r"git\..+", in_key=False),  # latentgrid's own code; see VERSION
    FactKind(
        r"package\.(torch.*|comfy(?!ui-(frontend|workflow|embedded)|-cli).*|triton.*|xformers|flash-attn.*|sage.*|spas-sage.*|numpy|scipy|einops|kornia.*"
        r"|transformers|tokenizers|sentencepiece|safetensors|pillow|av|spandrel|diffusers|accelerate|peft|gguf"
        r"|bitsandbytes|opencv.*|onnx.*|nvidia-.*)",
        in_key=True,
        counts_alone=True,
    ),
    FactKind(r"host\.(cpu_capability|libc)", in_key=True),
    FactKind(r"host\.cpu", in_key=False),  # if the CPU computes, it is in `cpu.model`
    FactKind(r"cpu\.model", in_key=True),
    FactKind(
        r"env\.(CUDA_VISIBLE_DEVICES|CUDA_DEVICE_ORDER|(CUDA|HIP|PYTORCH|ROCM|TORCH|TORCHINDUCTOR|TRITON)_(\w+_)?"
        r"(HOME|PATH|DIR|CACHE)|PATH|PYTHONPATH|HOME|USER|USERNAME|USERPROFILE|LOGNAME|SHELL|PWD|TERM|DISPLAY|LANG"
        r"|TMPDIR|TEMP|TMP|HOSTNAME|COLUMNS|LINES|APPDATA|LOCALAPPDATA|XDG_\w+)",
        in_key=False,
        counts_alone=True,
    ),  # which of several equal GPUs is used, paths, and names
    FactKind(r"env\..+", in_key=True, counts_alone=True),  # those of `machine.VARIABLES`, and all that packs read
    FactKind(r"package\..+", in_key=False, counts_alone=True),  # those that a pack imports are in `pack.all.packages`
)
"""The rows, in the order of how likely they are the cause of a different result."""

CELL = "cell"
"""The tag that is equal for runs that are meant to give the same results; see `engine/identity.py`."""

TELLS_NOTHING = re.compile(r"process\.command|identity|cell|writer|error|linked_run_id|rerun_of|comfyui\.source")
"""Facts and tags that differ between runs anyway, so that a difference explains nothing."""


@functools.lru_cache(4096)
def find_kind(fact: str) -> FactKind | None:
    """Return the first row that a fact matches, or None if it changes no result (host name, order, cache)."""
    return next((kind for kind in KINDS if re.fullmatch(kind.pattern, fact)), None)


def rank_fact(fact: str) -> int:
    """Return the rank of a fact among the causes of different results; the likeliest has rank 0."""
    kind = find_kind(fact)
    return KINDS.index(kind) if kind else len(KINDS)


def select_key_facts(facts: Mapping[str, str]) -> dict[str, str]:
    """Return the facts that are part of the identity of a run.

    Example:
        select_key_facts({"version.torch": "2.9.1", "host.name": "gpu-1"})  # {"version.torch": "2.9.1"}
    """
    return {fact: text for fact, text in facts.items() if (kind := find_kind(fact)) and kind.in_key}
