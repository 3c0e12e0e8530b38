"""The layout: readable for any graph."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.workflow.layout import Box, Wire, place_boxes

GAP = (50.0, 20.0)


@st.composite
def graphs(draw: st.DrawFn) -> tuple[dict[str, Box], list[Wire]]:
    sizes = draw(st.lists(st.tuples(st.integers(10, 300), st.integers(40, 400)), min_size=1, max_size=12))
    boxes = {f"n{index}": Box(*size) for index, size in enumerate(sizes)}
    pairs = list(itertools.combinations(boxes, 2))
    chosen = draw(st.lists(st.sampled_from(pairs), max_size=20)) if pairs else []
    return boxes, [Wire(source, target, 10.0, 5.0 + 2 * index) for index, (source, target) in enumerate(chosen)]


@settings(deadline=None, max_examples=200)
@given(graphs())
def test_any_graph_reads_from_left_to_right_and_nothing_overlaps(made: tuple[dict[str, Box], list[Wire]]) -> None:
    boxes, wires = made
    placed = place_boxes(boxes, wires, GAP)
    for wire in wires:
        assert placed.corners[wire.source][0] + boxes[wire.source].width + GAP[0] <= placed.corners[wire.target][0]
    sides = [(*placed.corners[name], box.width, box.height) for name, box in boxes.items()]
    for (x, y, w, h), (x2, y2, w2, h2) in itertools.combinations(sides, 2):
        apart = x + w <= x2 or x2 + w2 <= x or y + h + GAP[1] <= y2 + 1e-6 or y2 + h2 + GAP[1] <= y + 1e-6
        assert apart, (x, y, w, h, x2, y2, w2, h2)
    assert all(
        0 <= x <= x + w <= placed.width + 1e-6 and 0 <= y <= y + h <= placed.height + 1e-6 for x, y, w, h in sides
    )


@settings(deadline=None, max_examples=100)
@given(graphs())
def test_a_wire_passes_no_box(made: tuple[dict[str, Box], list[Wire]]) -> None:
    boxes, wires = made
    placed = place_boxes(boxes, wires, GAP)
    for wire in wires:
        for begin, end, height in placed.passages[wire]:
            assert begin < end
            column = [name for name in boxes if placed.corners[name][0] == begin]
            assert column, "a passage is in a column"
            for name in column:
                top = placed.corners[name][1]
                assert height <= top + 1e-6 or height >= top + boxes[name].height - 1e-6


def test_what_one_box_reads_stands_in_the_order_of_its_inputs() -> None:
    boxes = {name: Box(100, 50) for name in ("d", "b", "a", "c", "reader")}
    wires = [Wire(name, "reader", 10, 20 * place) for place, name in enumerate("abcd")]
    corners = place_boxes(boxes, wires, GAP).corners
    assert sorted("abcd", key=lambda name: corners[name][1]) == list("abcd")
    assert {corners[name][0] for name in "abcd"} == {0.0}


def test_a_chain_is_level_and_a_source_stands_beside_its_reader() -> None:
    boxes = {name: Box(100, 50) for name in ("unet", "lora", "sampler", "latent")}
    wires = [Wire("unet", "lora", 10, 30), Wire("lora", "sampler", 10, 30), Wire("latent", "sampler", 10, 50)]
    corners = place_boxes(boxes, wires, GAP).corners
    assert corners["unet"][1] + 10 == pytest.approx(corners["lora"][1] + 30)
    assert corners["latent"][0] == corners["lora"][0] < corners["sampler"][0]


def test_a_graph_without_nodes_takes_no_room() -> None:
    placed = place_boxes({}, [], GAP)
    assert (placed.width, placed.height, placed.corners) == (0.0, 0.0, {})


def test_a_chain_longer_than_pythons_stack_is_placed() -> None:
    names = [f"n{index}" for index in range(1500)]
    wires = [Wire(one, two) for one, two in itertools.pairwise(names)]
    assert place_boxes({name: Box(10, 10) for name in names}, wires, GAP).corners["n1499"][0] == 1499 * 60
