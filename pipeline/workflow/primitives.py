"""Set the values of PrimitiveNodes: helpers of the GUI that write their value into the widgets linked to them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from pipeline.workflow.definitions import read_options
from pipeline.workflow.live import ABSENT, PRIMITIVE, LiveGraph, LiveNode, Widget
from pipeline.workflow.load import Workflow
from pipeline.workflow.text import fill_placeholders
from pipeline.workflow.widgets import set_value

NUMBERS = ("INT", "FLOAT")
EXACT = 2**53  # larger floats have no fraction
LEAST, MOST = 0, 2048  # the range of a number widget whose declaration has none


def set_primitives(workflow: Workflow, now: datetime) -> None:
    """Write the value of every PrimitiveNode into its targets, as the GUI does at export.

    The mode of the PrimitiveNode does not matter: muted or bypassed ones write their value as well.
    """
    for graph in workflow.graphs:
        for primitive in (node for node in graph.nodes.values() if node.type == PRIMITIVE):
            value = _read_value(primitive, workflow, now)
            if value is not ABSENT:
                _write_value(graph, primitive, value, workflow)


def _read_value(primitive: LiveNode, workflow: Workflow, now: datetime) -> Any:
    values = primitive.saved.get("widgets_values")
    value = values[0] if isinstance(values, list) and values else ABSENT
    replaces = (primitive.saved.get("properties") or {}).get("Run widget replace on values")
    return fill_placeholders(value, workflow.nodes, now) if replaces and isinstance(value, str) else value


def _write_value(graph: LiveGraph, primitive: LiveNode, value: Any, workflow: Workflow) -> None:
    widgets: list[tuple[LiveNode, Widget]] = []
    for link in (one for one in graph.links.values() if one.origin == primitive.id):
        target = graph.find_target(link.id)
        if target is None:
            continue
        node, name = target[0], target[0].slots[target[1]].name
        widget = node.find_widget(name)
        if widget is not None:
            widgets.append((node, widget))
        elif node.subgraph:
            message = f"node {primitive.id} ({primitive.title}): ComfyUI does not pass the value of a primitive into a"
            workflow.warnings.append(f"{message} subgraph ({node.title}, input {name}), so {value!r} is not used")
    value = _limit(value, [widget for _, widget in widgets])
    for node, widget in widgets:
        set_value(node, widget, _round(widget, value))


def _limit(value: Any, widgets: Sequence[Widget]) -> Any:
    """Return a number limited to the ranges of all number widgets among `widgets`; return other values unchanged."""
    ranges = [read_options(widget.declaration) for widget in widgets if widget.kind in NUMBERS and widget.declaration]
    if not ranges or not isinstance(value, int | float) or isinstance(value, bool):
        return value
    value = max(value, *(options.get("min", LEAST) for options in ranges))
    return min(value, *(options.get("max", MOST) for options in ranges))


def _round(widget: Widget, value: Any) -> Any:
    """Return a number rounded as the GUI does for a widget; return other values unchanged.

    An INT becomes a whole number of steps. A FLOAT gets as many decimals as its step has.
    """
    if widget.kind not in NUMBERS or isinstance(value, bool) or not isinstance(value, int | float):
        return value
    options = read_options(widget.declaration) if widget.declaration else {}
    if widget.kind == "INT":
        step = options.get("step") or 1
        if step == 1:
            return value if isinstance(value, int) else _round_half_up(value)
        offset = math.fmod(options.get("min", LEAST), step)
        return _drop_fraction(_round_half_up((value - offset) / step) * step + offset)
    decimals = max(0, -math.floor(math.log10(options.get("step") or 0.5)))
    unit = options.get("round") or (10**-decimals if decimals else 0)
    if not unit or abs(value) > EXACT:
        return value
    digits = Decimal(_round_half_up(value / unit) * unit).quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP)
    return _drop_fraction(min(max(float(digits), options.get("min", LEAST)), options.get("max", MOST)))


def _round_half_up(number: float) -> int:
    return math.floor(number + 0.5)


def _drop_fraction(number: float) -> int | float:
    """Return a whole number as int, because JavaScript writes it without a fraction."""
    return int(number) if float(number).is_integer() else number
