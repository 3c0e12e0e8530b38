"""Compose the picture of a graph: turn cards into shapes, all in pixels, which draw.py draws as SVG or PNG."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from pipeline.workflow.cards import Card
from pipeline.workflow.layout import Box, Placement, Wire, place_boxes

MARGIN, GAP = 24.0, (72.0, 22.0)
PADDING, HEADER, ROW = 12.0, 46.0, 20.0
# The least width of a card; the least distance of an input and an output, or of a name and a value, in one row.
NARROWEST, APART = 120.0, 18.0
DOT, ROUND = 4.0, 8.0  # radii of the ends of links and of the corners of cards
TITLE, TEXT, SMALL = 15, 12, 11  # font sizes

PAPER, CARD, HEAD, INK, MUTED, RULE = "#ffffff", "#ffffff", "#eef1f5", "#1f2328", "#656d76", "#c4ccd5"
GREY, FADED, FRESH = "#f3f4f6", "#a3abb4", "#1a7f37"
KINDS = {
    "MODEL": "#7e57c2",
    "CONDITIONING": "#e07b00",
    "LATENT": "#d63fb0",
    "CLIP": "#b89000",
    "VAE": "#d9443f",
    "IMAGE": "#2f80d0",
    "MASK": "#3f9142",
}
"""The colours of links by type: ComfyUI's, made dark enough for a white background."""

Measure: TypeAlias = Callable[[str, int], float]
"""Returns the width, in pixels, of a text in a font size."""


@dataclass(frozen=True)
class Rectangle:
    """A filled rectangle with round corners; `line` is the colour of its border, empty for no border."""

    left: float
    top: float
    width: float
    height: float
    fill: str
    line: str = ""
    dashed: bool = False
    round: float = ROUND


@dataclass(frozen=True)
class Text:
    """A line of text; (x, y) is the middle of its left end, or of its right end if `anchor` is "r" and not "l"."""

    x: float
    y: float
    text: str
    size: int
    fill: str
    anchor: str = "l"


@dataclass(frozen=True)
class Curve:
    """A link: a curve from point to point that is horizontal at each."""

    points: tuple[tuple[float, float], ...]
    line: str
    dashed: bool = False


@dataclass(frozen=True)
class Dot:
    """The end of a link."""

    x: float
    y: float
    fill: str


Shape: TypeAlias = Rectangle | Text | Curve | Dot


@dataclass(frozen=True)
class Picture:
    """The shapes, from back to front, and the size of the whole."""

    width: float
    height: float
    shapes: tuple[Shape, ...]


def compose_picture(cards: Mapping[str, Card], measure: Measure) -> Picture:
    """Return the picture of cards and their links.

    Example:
        write_svg(compose_picture(make_cards(checked), measure_text))
    """
    boxes = {name: _measure_card(card, measure) for name, card in cards.items()}
    wires = {
        (name, row): Wire(port.source[0], name, _find_height(_find_row(cards, port.source)), _find_height(row))
        for name, card in cards.items()
        for row, port in enumerate(card.inputs)
        if port.source
    }
    placement = place_boxes(boxes, list(wires.values()), GAP)
    boxes = _widen(boxes, placement)
    shapes = [
        *(_draw_wire(cards, boxes, placement, wires[key], key) for key in wires),
        *(shape for name, card in cards.items() for shape in _draw_card(card, boxes[name], placement.corners[name])),
    ]
    return Picture(placement.width + 2 * MARGIN, placement.height + 2 * MARGIN, tuple(shapes))


def _widen(boxes: Mapping[str, Box], placement: Placement) -> dict[str, Box]:
    """Return the boxes with the boxes of each column made as wide as the widest one in it."""
    widths: dict[float, float] = {}
    for name, box in boxes.items():
        left = placement.corners[name][0]
        widths[left] = max(widths.get(left, 0.0), box.width)
    return {name: Box(widths[placement.corners[name][0]], box.height) for name, box in boxes.items()}


def _find_row(cards: Mapping[str, Card], source: tuple[str, int]) -> int:
    return list(cards[source[0]].outputs).index(source[1])


def _find_height(row: int) -> float:
    """Return the distance from the top of a card to the middle of one of its rows."""
    return HEADER + ROW * (row + 0.5)


def _measure_card(card: Card, measure: Measure) -> Box:
    outputs = list(card.outputs.values())
    rows = max(len(card.inputs), len(outputs))
    widths = [
        measure(card.name, TITLE) + (APART + measure(_find_mark(card), SMALL) if _find_mark(card) else 0.0),
        measure(card.class_type, SMALL),
        *(measure(name, TEXT) + APART + measure(text, TEXT) for name, text in card.values.items()),
    ]
    for row in range(rows):
        left = measure(card.inputs[row].name, TEXT) + APART if row < len(card.inputs) else 0.0
        widths.append(left + (measure(outputs[row].name, TEXT) if row < len(outputs) else 0.0))
    width = max(NARROWEST, max(widths) + 2 * PADDING)
    return Box(width, HEADER + ROW * (rows + len(card.values)) + PADDING / 2)


def _find_mark(card: Card) -> str:
    return "bypassed" if card.bypassed else "cached" if card.cached else ""


def _draw_wire(
    cards: Mapping[str, Card], boxes: Mapping[str, Box], placement: Placement, wire: Wire, key: tuple[str, int]
) -> Curve:
    (left, top), (right, bottom) = placement.corners[wire.source], placement.corners[wire.target]
    points = [(left + boxes[wire.source].width, top + wire.leaves)]
    for begin, end, height in placement.passages[wire]:
        points += [(begin, height), (end, height)]
    points.append((right, bottom + wire.enters))
    port = cards[key[0]].inputs[key[1]]
    is_bypassed = cards[wire.source].bypassed or cards[wire.target].bypassed
    return Curve(tuple((x + MARGIN, y + MARGIN) for x, y in points), _find_colour(port.type), is_bypassed)


def _find_colour(kind: str) -> str:
    return KINDS.get(kind, MUTED)


def _draw_card(card: Card, box: Box, corner: tuple[float, float]) -> Iterator[Shape]:
    left, top = corner[0] + MARGIN, corner[1] + MARGIN
    right, ink = left + box.width, FADED if card.bypassed else INK
    soft = FADED if card.bypassed else MUTED
    paper, head = (GREY, GREY) if card.bypassed else (CARD, HEAD)
    yield Rectangle(left, top, box.width, box.height, paper, RULE, card.bypassed)
    yield Rectangle(left + 1, top + 1, box.width - 2, HEADER - 6, head, round=ROUND - 1)
    yield Text(left + PADDING, top + 15, card.name, TITLE, ink)
    yield Text(left + PADDING, top + 31, card.class_type, SMALL, soft)
    if mark := _find_mark(card):
        yield Text(right - PADDING, top + 15, mark, SMALL, FRESH if card.cached else soft, "r")
    for row, port in enumerate(card.inputs):
        yield Dot(left, top + _find_height(row), _find_colour(port.type))
        yield Text(left + PADDING, top + _find_height(row), port.name, TEXT, soft)
    for row, port in enumerate(card.outputs.values()):
        yield Dot(right, top + _find_height(row), _find_colour(port.type))
        yield Text(right - PADDING, top + _find_height(row), port.name, TEXT, soft, "r")
    first = max(len(card.inputs), len(card.outputs))
    for row, (name, text) in enumerate(card.values.items(), start=first):
        yield Text(left + PADDING, top + _find_height(row), name, TEXT, soft)
        yield Text(right - PADDING, top + _find_height(row), text, TEXT, ink, "r")
