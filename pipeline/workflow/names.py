"""Names for the nodes of an imported workflow: words that can be written on the command line."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable

# What YAML or Hydra's command line would read as something else than a text.
WORDS = frozenset({"null", "none", "true", "false", "yes", "no", "on", "off", "y", "n", "nan", "inf"})
RESERVED = WORDS | {"comfyui", "run", "tracking", "hydra", "seed", "defaults"}


def name_nodes(titles: Iterable[tuple[str, str]], taken: Collection[str] = RESERVED) -> list[str]:
    """A name for each (title, class_type), all different: of the title, or of the class_type if that gives none."""
    used = set(taken)
    names = []
    for title, class_type in titles:
        wanted = (make_name(title) if title != class_type else "") or split_name(class_type) or "node"
        if wanted[0].isdigit():
            wanted = f"node_{wanted}"
        name, number = wanted, 2
        while name in used:
            name, number = f"{wanted}_{number}", number + 1
        used.add(name)
        names.append(name)
    return names


def make_name(text: str) -> str:
    """A title as a name in small letters, `CLIP Text Encode (Prompt)` as `clip_text_encode_prompt`.

    Empty if it has no letters of the Latin alphabet.
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    name = re.sub(r"[^a-z0-9]+", "_", plain.lower()).strip("_")
    return name if re.search(r"[a-z]", name) else ""


def split_name(class_type: str) -> str:
    """A class_type as a name: `CLIPTextEncode` as `clip_text_encode`, `KSampler` as `ksampler`."""
    return make_name(re.sub(r"(?<=[A-Z]{2})(?=[A-Z][a-z]{2})|(?<=[a-z0-9])(?=[A-Z])", "_", class_type))
