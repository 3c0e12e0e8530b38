"""Make names for the nodes of an imported workflow that can be written on the command line."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable

# Words that YAML or Hydra's command line does not read as text.
WORDS = frozenset({"null", "none", "true", "false", "yes", "no", "on", "off", "y", "n", "nan", "inf"})
RESERVED = WORDS | {"comfyui", "run", "tracking", "hydra", "seed", "defaults"}


def name_nodes(titles: Iterable[tuple[str, str]], taken: Collection[str] = RESERVED) -> list[str]:
    """Return a unique name for each (title, class_type), none of them in `taken`.

    The name is made from the title, or from the class_type if both are equal or the title gives no name. If neither
    gives one, it is `node`.

    Example:
        name_nodes([("Positive", "CLIPTextEncode"), ("KSampler", "KSampler"), ("KSampler", "KSampler")])
        # ["positive", "ksampler", "ksampler_2"]
    """
    used = set(taken)
    names = []
    for title, class_type in titles:
        base = (make_name(title) if title != class_type else "") or split_name(class_type) or "node"
        if base[0].isdigit():
            base = f"node_{base}"
        name, number = base, 2
        while name in used:
            name, number = f"{base}_{number}", number + 1
        used.add(name)
        names.append(name)
    return names


def make_name(text: str) -> str:
    """Return a title as a name in small letters: `clip_text_encode_prompt` for `CLIP Text Encode (Prompt)`.

    Return an empty text if the title has no letters of the Latin alphabet.
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    name = re.sub(r"[^a-z0-9]+", "_", plain.lower()).strip("_")
    return name if re.search(r"[a-z]", name) else ""


def split_name(class_type: str) -> str:
    """Return a class_type as a name: `clip_text_encode` for `CLIPTextEncode`, `ksampler` for `KSampler`."""
    return make_name(re.sub(r"(?<=[A-Z]{2})(?=[A-Z][a-z]{2})|(?<=[a-z0-9])(?=[A-Z])", "_", class_type))
