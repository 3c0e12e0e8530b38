"""Place the boxes of a graph in columns from left to right, each box before those that read it.

The method is the layered one of Sugiyama, Tagawa and Toda (1981): first columns, then an order within each column in
which few wires cross, then heights. A wire that passes a column occupies a place in it. The first order follows the
order of the inputs, so that wires into one box do not cross. The heights are fitted to that order by least squares.
"""

from __future__ import annotations

import bisect
import graphlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

SWEEPS = 8  # alternating to the left and to the right; each one orders, or moves, every column by its neighbours


@dataclass(frozen=True)
class Box:
    """The width and height of a box to place."""

    width: float
    height: float


@dataclass(frozen=True)
class Wire:
    """A link from `source` to `target`; `leaves` and `enters` are its heights below the tops of these boxes."""

    source: str
    target: str
    leaves: float = 0.0
    enters: float = 0.0


@dataclass(frozen=True)
class Placement:
    """The positions of boxes and wires; x grows to the right, y downwards.

    corners: the left top corner of each box.
    passages: for each wire, the left side, the right side and the height at which it passes each column between its
        ends.
    """

    corners: Mapping[str, tuple[float, float]]
    passages: Mapping[Wire, tuple[tuple[float, float, float], ...]]
    width: float
    height: float


def place_boxes(boxes: Mapping[str, Box], wires: Sequence[Wire], gap: tuple[float, float]) -> Placement:
    """Return the placement of boxes that `wires` join without a cycle.

    `gap` is the least distance between boxes, horizontally and vertically. The placement depends only on the arguments,
    including the order of `boxes` and `wires`. Its left top corner is (0, 0).

    Example:
        boxes = {"a": Box(100, 50), "b": Box(80, 50)}
        place_boxes(boxes, [Wire("a", "b")], (20, 10)).corners  # {"a": (0, 0), "b": (120, 0)}
    """
    columns = _choose_columns(boxes, wires)
    plan = _Plan({name: box.height for name, box in boxes.items()}, columns, gap[1])
    for wire in dict.fromkeys(wires):
        plan.add_wire(wire)
    plan.order()
    tops = plan.move()
    sides = _place_columns(boxes, columns, gap[0])
    corners = {name: (sides[columns[name]][0], tops[name]) for name in boxes}
    passages = {
        wire: tuple((*sides[plan.columns[stop]], tops[stop]) for stop in stops) for wire, stops in plan.stops.items()
    }
    height = max((tops[name] + box.height for name, box in boxes.items()), default=0.0)
    return Placement(corners, passages, sides[-1][1] if sides else 0.0, height)


def _choose_columns(boxes: Mapping[str, Box], wires: Sequence[Wire]) -> dict[str, int]:
    """Return the column of each box: as far right as its readers allow; without readers, as far left as possible."""
    readers: dict[str, list[str]] = {name: [] for name in boxes}
    sources: dict[str, list[str]] = {name: [] for name in boxes}
    for wire in wires:
        readers[wire.source].append(wire.target)
        sources[wire.target].append(wire.source)
    columns: dict[str, int] = {}
    order = tuple(graphlib.TopologicalSorter(sources).static_order())
    for name in order:
        columns[name] = max((columns[source] + 1 for source in sources[name]), default=0)
    for name in reversed(order):
        columns[name] = min((columns[reader] - 1 for reader in readers[name]), default=columns[name])
    first = min(columns.values(), default=0)
    return {name: column - first for name, column in columns.items()}


def _place_columns(boxes: Mapping[str, Box], columns: Mapping[str, int], gap: float) -> list[tuple[float, float]]:
    """Return the left and the right side of each column."""
    widths = [0.0] * (max(columns.values(), default=-1) + 1)
    for name, box in boxes.items():
        widths[columns[name]] = max(widths[columns[name]], box.width)
    lefts = [sum(widths[:index]) + index * gap for index in range(len(widths))]
    return [(left, left + width) for left, width in zip(lefts, widths, strict=True)]


@dataclass
class _Plan:
    """The placement while it is computed.

    A wire that passes a column has a stop there, which is placed like a box of height 0. `columns` and `heights` have
    both boxes and stops.
    """

    heights: dict[str, float]
    columns: dict[str, int]
    gap: float
    stops: dict[Wire, list[str]] = field(default_factory=dict)
    _pieces: list[Wire] = field(default_factory=list)  # wires between neighbouring columns
    _ranks: dict[str, list[str]] = field(default_factory=dict)
    _layers: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.columns = dict(self.columns)

    def add_wire(self, wire: Wire) -> None:
        stops = []
        for column in range(self.columns[wire.source] + 1, self.columns[wire.target]):
            stop = f"\0{len(self.stops)} {column}"  # no node has such a name
            self.columns[stop], self.heights[stop] = column, 0.0
            stops.append(stop)
        self.stops[wire] = stops
        points = [wire.source, *stops, wire.target]
        for index, (left, right) in enumerate(itertools.pairwise(points)):
            leaves, enters = wire.leaves * (index == 0), wire.enters * (index == len(stops))
            self._pieces.append(Wire(left, right, leaves, enters))

    def order(self) -> None:
        """Sort each column by the mean place of its neighbours, repeatedly; use the order with the fewest crossings."""
        self._layers = self._make_first_order()
        best, fewest = self._copy_layers(), self._count_crossings()
        for sweep in range(SWEEPS):
            if not fewest:
                break
            self._sort_layers(rightwards=sweep % 2 == 1)
            crossings = self._count_crossings()
            if crossings < fewest:
                best, fewest = self._copy_layers(), crossings
        self._layers = best

    def _copy_layers(self) -> list[list[str]]:
        return [list(layer) for layer in self._layers]

    def _make_first_order(self) -> list[list[str]]:
        """Return the boxes of each column, in the order of a depth-first walk from the boxes without readers back."""
        entering: dict[str, list[Wire]] = {name: [] for name in self.columns}
        leaving = {piece.source for piece in self._pieces}
        for piece in self._pieces:
            entering[piece.target].append(piece)
        layers: list[list[str]] = [[] for _ in range(max(self.columns.values(), default=-1) + 1)]
        seen: set[str] = set()
        waiting = [name for name in reversed(self.columns) if name not in leaving]
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            layers[self.columns[name]].append(name)
            waiting.extend(piece.source for piece in sorted(entering[name], key=lambda one: -one.enters))
        return layers

    def _sort_layers(self, rightwards: bool) -> None:
        neighbours = self._list_neighbours(rightwards)
        for layer in self._layers if rightwards else reversed(self._layers):
            places = self._number_places()
            # The height of a wire at its neighbour is added only to order boxes that have the same neighbour.
            means = {
                name: _mean([places[other] + port / 1e6 for other, port in neighbours[name]], places[name])
                for name in layer
            }
            layer.sort(key=means.__getitem__)

    def _number_places(self) -> dict[str, int]:
        return {name: place for layer in self._layers for place, name in enumerate(layer)}

    def _list_neighbours(self, rightwards: bool) -> dict[str, list[tuple[str, float]]]:
        """Return for each box its neighbours, and the height at which the wire ends at each neighbour.

        Rightwards, the neighbours are the boxes that it reads, else those that read it.
        """
        found: dict[str, list[tuple[str, float]]] = {name: [] for name in self.columns}
        for piece in self._pieces:
            if rightwards:
                found[piece.target].append((piece.source, piece.leaves))
            else:
                found[piece.source].append((piece.target, piece.enters))
        return found

    def _count_crossings(self) -> int:
        places = self._number_places()
        by_column: dict[int, list[tuple[tuple[int, float], tuple[int, float]]]] = {}
        for piece in self._pieces:
            ends = (places[piece.source], piece.leaves), (places[piece.target], piece.enters)
            by_column.setdefault(self.columns[piece.source], []).append(ends)
        return sum(map(_count_inversions, by_column.values()))

    def move(self) -> dict[str, float]:
        """Return the top of each box and stop, as near as the order allows to where its wires would be horizontal."""
        tops = {name: top for layer in self._layers for name, top in self._stack(layer)}
        for sweep in range(SWEEPS):
            rightwards = sweep % 2 == 1
            neighbours = self._list_offsets(rightwards)
            for layer in self._layers if rightwards else reversed(self._layers):
                ideal_tops = [
                    _mean([tops[other] + offset for other, offset in neighbours[name]], tops[name]) for name in layer
                ]
                weights = [max(len(neighbours[name]), 0.1) for name in layer]
                tops.update(zip(layer, self._spread(layer, ideal_tops, weights), strict=True))
        highest = min(tops.values(), default=0.0)
        return {name: top - highest for name, top in tops.items()}

    def _stack(self, layer: Sequence[str]) -> Iterator[tuple[str, float]]:
        top = 0.0
        for name in layer:
            yield name, top
            top += self.heights[name] + self.gap

    def _list_offsets(self, rightwards: bool) -> dict[str, list[tuple[str, float]]]:
        """Return for each box its neighbours, and the offset of its top from theirs that makes the wire horizontal.

        The neighbours are those of `_list_neighbours`.
        """
        found: dict[str, list[tuple[str, float]]] = {name: [] for name in self.columns}
        for piece in self._pieces:
            if rightwards:
                found[piece.target].append((piece.source, piece.leaves - piece.enters))
            else:
                found[piece.source].append((piece.target, piece.enters - piece.leaves))
        return found

    def _spread(self, layer: Sequence[str], ideal_tops: Sequence[float], weights: Sequence[float]) -> list[float]:
        """Return the tops nearest to `ideal_tops`, by weighted least squares, that preserve the order and the gaps."""
        starts = [top for _, top in self._stack(layer)]
        shifts = _fit_rising([ideal - start for ideal, start in zip(ideal_tops, starts, strict=True)], weights)
        return [start + shift for start, shift in zip(starts, shifts, strict=True)]


def _fit_rising(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Return the non-decreasing sequence nearest to `values`, by weighted least squares.

    Neighbours in the wrong order are replaced by their weighted mean (pool adjacent violators).
    """
    blocks: list[tuple[float, float, int]] = []  # mean, weight, how many
    for value, weight in zip(values, weights, strict=True):
        block = (value, weight, 1)
        while blocks and blocks[-1][0] > block[0]:
            mean, other_weight, count = blocks.pop()
            total = other_weight + block[1]
            block = ((mean * other_weight + block[0] * block[1]) / total, total, count + block[2])
        blocks.append(block)
    return [mean for mean, _, count in blocks for _ in range(count)]


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _count_inversions(ends: list[tuple[tuple[int, float], tuple[int, float]]]) -> int:
    """Return how many pairs of wires between two columns cross; `ends` holds the left and right end of each wire."""
    right_ends: list[tuple[int, float]] = []
    crossings = 0
    for _, right in sorted(ends):
        place = bisect.bisect_right(right_ends, right)
        crossings += len(right_ends) - place
        right_ends.insert(place, right)
    return crossings
