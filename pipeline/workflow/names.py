"""Names for the nodes of an imported workflow: words that can be written on the command line."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable

# What YAML or Hydra's command line would read as something else than a text.
WORDS = frozenset({"null", "none", "true", "false", "yes", "no", "on", "off", "y", "n", "nan", "inf"})
RESERVED = WORDS | {"comfyui", "run", "tracking", "hydra", "seed", "defaults"}


def name_nodes(titles: Iterable[tuple[str, str]], taken: Collection[str] = RESERVED) -> list[str]:
    """A name for each (title, class_type): of the title, or of the class_type if the title gives none; all different."""
    used = set(taken)
    names = []
    for title, class_type in titles:
        wanted = make_name(title) or make_name(class_type) or "node"
        if wanted[0].isdigit():
            wanted = f"{make_name(class_type)}_{wanted}".lstrip("0123456789_") or f"node_{wanted}"
        name, number = wanted, 2
        while name in used:
            name, number = f"{wanted}_{number}", number + 1
        used.add(name)
        names.append(name)
    return names


def make_name(text: str) -> str:
    """A text as a name in small letters: `CLIP Text Encode (Prompt)` and `CLIPTextEncodePrompt` as
    `clip_text_encode_prompt`; empty if it has no letters of the Latin alphabet."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    spaced = re.sub(r"(?<=[A-Z]{2})(?=[A-Z][a-z]{2})|(?<=[a-z])(?=[A-Z])", "_", plain)
    name = re.sub(r"[^a-z0-9]+", "_", spaced.lower()).strip("_")
    return name if re.search(r"[a-z]", name) else ""
