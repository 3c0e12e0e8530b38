"""Read captions of the demo model, such as "a small red circle on blue", and encode them as conditionings.

The grammar is ``[a] [small|large] [COLOUR] [SHAPE] [on COLOUR]``. The seed decides what a caption leaves out, and
everything if the caption is empty.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, fields

import torch

SIZES = ("small", "large")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "white", "black")
SHAPES = ("circle", "square", "triangle", "star", "heart", "ring", "cross")
FILLERS = ("a", "an", "the", "background")

TEXT_DIM = 32
"""The channels of the conditioning. Each word has its own channel; three are unused."""

# A colour means another thing after "on", so it counts as another word there.
_CHOICES = (SIZES, COLOURS, SHAPES, COLOURS)


class CaptionError(ValueError):
    """A text is not a caption of the demo model. The message says which word is wrong and what would be right."""


@dataclass(frozen=True)
class Caption:
    """The parts of a caption; a part that is left out is None.

    Example:
        caption = Caption(colour="red", shape="circle")
        str(caption)  # "a red circle"
        encode_caption(caption).shape  # [1, 4, 32]
    """

    size: str | None = None
    colour: str | None = None
    shape: str | None = None
    background: str | None = None

    def __str__(self) -> str:
        subject = " ".join(word for word in (self.size, self.colour, self.shape) if word)
        article = "an" if subject[:1] in tuple("aeiou") else "a"
        words = [f"{article} {subject}"] * bool(subject) + [f"on {self.background}"] * bool(self.background)
        return " ".join(words)


def read_caption(text: str) -> Caption:
    """Parse ``text``, ignoring case and punctuation. Raises CaptionError, which names every unknown word."""
    words = [word for word in re.findall(r"[^\s,.;:!?\"'()]+", text.lower()) if word not in FILLERS]
    known = {*SIZES, *COLOURS, *SHAPES, "on"}
    if unknown := [word for word in words if word not in known]:
        raise CaptionError(_explain_unknown(unknown, known))
    parts: dict[str, str] = {}
    behind_on = False
    for word in words:
        slot = _find_slot(word, behind_on)
        behind_on = word == "on"
        if slot and parts.setdefault(slot, word) != word:
            raise CaptionError(f"says two {slot}s, {parts[slot]!r} and {word!r}. A picture has one. {_GRAMMAR}")
    if behind_on:
        raise CaptionError(f"ends with 'on'. {_GRAMMAR}")
    return Caption(**parts)


def encode_caption(caption: Caption) -> torch.Tensor:
    """Return the conditioning of a caption, float32 [1, 4, 32]: tokens for size, colour, shape and background.

    Each token is one-hot over all words, one of which stands for a part that is left out. There is no table of word
    vectors, which a text encoder would have: the model's first linear layer, ``text_embedding.0``, takes its place.
    """
    tokens = torch.zeros(1, len(_CHOICES), TEXT_DIM)
    first = 0
    for token, (field, choices) in enumerate(zip(fields(caption), _CHOICES, strict=True)):
        word = getattr(caption, field.name)
        tokens[0, token, first + (0 if word is None else 1 + choices.index(word))] = 1.0
        first += 1 + len(choices)
    return tokens


_GRAMMAR = (
    f"A caption is [a] [{'|'.join(SIZES)}] [COLOUR] [SHAPE] [on COLOUR], with the colours {', '.join(COLOURS)} "
    f"and the shapes {', '.join(SHAPES)}."
)


def _find_slot(word: str, behind_on: bool) -> str | None:
    if word in COLOURS:
        return "background" if behind_on else "colour"
    if behind_on:
        raise CaptionError(f"has {word!r} behind 'on', where only a colour can stand. {_GRAMMAR}")
    if word == "on":
        return None
    return "size" if word in SIZES else "shape"


def _explain_unknown(unknown: list[str], known: set[str]) -> str:
    explained = []
    for word in dict.fromkeys(unknown):
        near = difflib.get_close_matches(word, sorted(known), n=1)
        explained.append(f"{word!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
    verb = "is no word" if len(explained) == 1 else "are no words"
    return f"{', '.join(explained)} {verb} of the demo model. {_GRAMMAR}"
