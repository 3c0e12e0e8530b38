"""What a result follows from: one table of facts for resuming (`identity`), `record.json` and `rerun`.

A fact is a text under a dotted path (`version.torch: 2.9.1`). Each kind of fact has one row in `KINDS`, which says
whether a different value may change a digit of a result. Those that may are part of the identity of a run, so that a
recorded result is taken over only where all of them are equal; all of them are recorded, and `rerun` names those that
differ in the order of the table. A fact that no row names is no cause of anything.

Some kinds reach the identity by another way than their text, because they are known only later or take long to find:
the graph by the content keys of its nodes, files by the sha256 in the record.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass

VERSION = 4
"""Of the rules by which an identity is made. Raise it when they change, or when a fault is mended by which latentgrid
itself gave wrong results: what was recorded before is then run again."""


@dataclass(frozen=True)
class FactKind:
    """A row: the facts whose dotted path matches `pattern` as a whole.

    in_key: whether the text of the fact is part of the identity.
    counts_alone: whether its absence says something. Others are absent where nothing was read, or from older records.
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
    FactKind(r"pack\..+", in_key=False, counts_alone=True),  # the commit: `pack.NAME.code` has the content
    FactKind(r"version\.comfyui|comfyui\.(code|args)", in_key=True),
    FactKind(r"comfyui\.commit", in_key=False),  # the content is `comfyui.code`
    FactKind(r"reproducible|comfyui\.(attention|vram_state)|dynamic_vram|torch\..+", in_key=True),
    FactKind(r"device\.type|gpu|gpu\..+|version\..+", in_key=True),
    FactKind(r"device", in_key=False),  # also has the index, and what was asked for
    FactKind(r"git\..+", in_key=False),  # latentgrid's own code; see VERSION
    FactKind(
        r"package\.(torch.*|comfy(?!ui-(frontend|workflow|embedded)|-cli).*|triton.*|xformers|flash-attn.*|sage.*|spas-sage.*|numpy|scipy|einops|kornia.*"
        r"|transformers|tokenizers|sentencepiece|safetensors|pillow|av|spandrel|diffusers|accelerate|peft|gguf"
        r"|bitsandbytes|opencv.*|onnx.*|nvidia-.*)",
        in_key=True,
        counts_alone=True,
    ),
    FactKind(r"host\.(cpu_capability|libc)", in_key=True),
    FactKind(r"host\.cpu", in_key=False),  # on the CPU, `cpu.model` has it
    FactKind(r"cpu\.model", in_key=True),
    FactKind(
        r"env\.(CUDA_VISIBLE_DEVICES|CUDA_DEVICE_ORDER|(CUDA|HIP|PYTORCH|ROCM|TORCH|TORCHINDUCTOR|TRITON)_(\w+_)?"
        r"(HOME|PATH|DIR|CACHE)|PATH|PYTHONPATH|HOME|USER|USERNAME|USERPROFILE|LOGNAME|SHELL|PWD|TERM|DISPLAY|LANG"
        r"|TMPDIR|TEMP|TMP|HOSTNAME|COLUMNS|LINES|APPDATA|LOCALAPPDATA|XDG_\w+)",
        in_key=False,
        counts_alone=True,
    ),  # which of several equal GPUs, and where things lie
    FactKind(r"env\..+", in_key=True, counts_alone=True),  # those of `machine.VARIABLES`, and all that packs read
    FactKind(r"package\..+", in_key=False, counts_alone=True),  # those that a pack imports: `pack.all.packages`
)
"""The likeliest cause of another result comes first."""

CELL = "cell"
"""The tag that runs have in common which are meant to give the same results; see `engine/identity.py`."""

TELLS_NOTHING = re.compile(r"process\.command|identity|cell|writer|error|linked_run_id|rerun_of|comfyui\.source")
"""Facts and tags that differ between runs anyway."""


@functools.lru_cache(4096)
def find_kind(fact: str) -> FactKind | None:
    """Return the first row that a fact matches; None if it changes no result (host name, order, cache)."""
    return next((kind for kind in KINDS if re.fullmatch(kind.pattern, fact)), None)


def rank_fact(fact: str) -> int:
    """Return the place of a fact among the causes of different results, the likeliest being 0."""
    kind = find_kind(fact)
    return KINDS.index(kind) if kind else len(KINDS)


def select_key_facts(facts: Mapping[str, str]) -> dict[str, str]:
    """Return the facts that are part of the identity of a run."""
    return {fact: text for fact, text in facts.items() if (kind := find_kind(fact)) and kind.in_key}
