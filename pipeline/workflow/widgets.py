"""Give nodes the widgets and input slots that the GUI gives them, in its order, and the saved values of the widgets.

widgets_values in a file is a list without names, so only the order tells which value belongs to which widget. The order
follows from the node definition, except for the classes in widget_exceptions.json, to which the GUI's own extensions
add widgets.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

from pipeline.graph.signature import MATCH_TYPE, WIDGET_TYPES
from pipeline.workflow.definitions import list_inputs, read_choices, read_options, read_type
from pipeline.workflow.live import ABSENT, AUTOGROW, COMBOS, DYNAMIC_COMBO, LiveNode, Slot, Widget

CONTROL, FILTER = "control", "filter"  # the kinds of widgets that only control what the GUI does after a run
CONTROL_WORDS = frozenset({"fixed", "increment", "decrement", "randomize", "increment-wrap"})
IMPLICIT_SEEDS = ("seed", "noise_seed")
CUSTOM_COMBO = "CustomCombo"
SAMPLERS = ("KSampler", "KSamplerAdvanced")
MAX_AUTOGROW = 100

DEFAULTS: dict[str, Any] = {
    "INT": 0,
    "FLOAT": 0,
    "STRING": "",
    "BOOLEAN": False,
    "COLOR": "#000000",
    "COLORS": [],
    "BOUNDING_BOX": {"x": 0, "y": 0, "width": 512, "height": 512},
    "BOUNDING_BOXES": [],
    "CURVE": {"points": [[0, 0], [1, 1]], "interpolation": "monotone_cubic"},
    "RANGE": {"min": 0, "max": 1},
    "PAINTER": "",
    "TEXTAREA": "",
    "MARKDOWN": "",
}
"""The values of widgets whose declaration has no default, by type."""


@functools.cache
def read_exceptions() -> Mapping[str, Any]:
    """Return the classes whose widgets do not follow from their definition alone, with all their widgets in order."""
    text = files("pipeline.workflow").joinpath("widget_exceptions.json").read_text(encoding="utf-8")
    exceptions: Mapping[str, Any] = json.loads(text)
    return exceptions


def is_widget(declaration: Any) -> bool:
    """Return whether the GUI shows a declared input as a widget and not as a socket."""
    options = read_options(declaration)
    return options.get("widgetType", read_type(declaration)) in WIDGET_TYPES and not options.get("forceInput")


def has_control(name: str, declaration: Any) -> bool:
    """Return whether a control_after_generate widget follows the widget of a declared input."""
    kind, option = read_type(declaration), read_options(declaration).get("control_after_generate")
    if kind == "INT":
        return name in IMPLICIT_SEEDS if option is None else bool(option)
    return kind in ("COMBO", "FLOAT") and bool(option)


def give_widgets(node: LiveNode) -> None:
    """Give a node of a known class the widgets and slots that it has when the GUI creates it."""
    assert node.definition
    exceptions = read_exceptions().get(node.type)
    sockets, widget_slots = [], []
    for name, declaration in node.definition.inputs:
        if read_type(declaration) == AUTOGROW:
            sockets += _make_autogrow(node, name, declaration)
        elif is_widget(declaration) or any(entry["name"] == name for entry in exceptions or ()):
            if not read_options(declaration).get("socketless"):
                widget_slots.append(Slot(name, _slot_type(declaration), is_widget=True))
            if exceptions is None:
                node.widgets += _make_widgets(name, declaration)
        else:
            sockets.append(Slot(name, _slot_type(declaration)))
    node.slots = sockets + widget_slots
    if exceptions is not None:
        node.widgets = list(_make_exceptions(exceptions, dict(node.definition.inputs)))
    for widget in [one for one in node.widgets if one.kind == DYNAMIC_COMBO]:
        set_value(node, widget, widget.value)


def fill_widgets(node: LiveNode, values: Any) -> bool:
    """Set the widgets to their saved values, as the GUI does; return whether missing control values were inserted.

    A list of values may be shorter than that of the widgets. A mapping, which old packs save, holds values by name.

    Example:
        give_widgets(node)
        fill_widgets(node, [42, "fixed", 20, 8.0, "euler", "normal", 1.0])  # the widgets_values of a KSampler
    """
    if isinstance(values, Mapping):
        for widget in list(node.widgets):
            if widget.name in values and widget.kind not in (CONTROL, FILTER):
                set_value(node, widget, values[widget.name])
        return False
    values = _drop_forced(node, list(values or ()))
    completed = _add_missing_controls(node, values)
    place, index = 0, 0
    saved = values if completed is None else completed
    while index < len(node.widgets) and place < len(saved):  # the list grows while it is filled
        widget = node.widgets[index]
        index += 1
        if widget.saved:
            set_value(node, widget, saved[place])
            place += 1
    return completed is not None


def set_value(node: LiveNode, widget: Widget, value: Any) -> None:
    """Set the value of a widget; a dynamic combo then gets the widgets of the chosen option, with their defaults."""
    if node.type == CUSTOM_COMBO and widget.name == "index":
        return
    if value is None and widget.kind in COMBOS:
        value = next(iter(read_choices(widget.declaration)), None)
    if widget.name == "sampler_name" and node.type in SAMPLERS and isinstance(value, str):
        value = value.removeprefix("sample_")
    widget.value = value
    if widget.kind == DYNAMIC_COMBO:
        _choose_option(node, widget)
    if node.type == CUSTOM_COMBO and widget is node.widgets[-1] and value not in ("", None, ABSENT):
        node.widgets.append(Widget(f"option{len(node.widgets) - 1}", "STRING", ""))


def _make_widgets(name: str, declaration: Any) -> Iterator[Widget]:
    """Yield the widget of a declared input, and the additional widgets that follow it."""
    options = read_options(declaration)
    yield Widget(name, options.get("widgetType", read_type(declaration)), _find_default(declaration), declaration)
    if read_type(declaration) == "BOUNDING_BOX":
        yield from _make_fields(declaration)
    if has_control(name, declaration):
        word = options.get("control_after_generate")
        yield Widget("control_after_generate", CONTROL, word if isinstance(word, str) else "randomize", prompted=False)
        if read_type(declaration) == "COMBO":
            yield Widget("control_filter_list", FILTER, "", prompted=False)


def _make_fields(declaration: Any) -> Iterator[Widget]:
    """Yield the widgets for the numbers of a bounding box, which follow its own widget and are not in the prompt."""
    for field, value in _find_default(declaration).items():
        yield Widget(field, "INT", value, prompted=False)


def _make_exceptions(entries: Sequence[Mapping[str, Any]], declared: Mapping[str, Any]) -> Iterator[Widget]:
    following: list[str] = []
    for entry in entries:
        name, declaration = entry["name"], declared.get(entry["name"])
        if name in following:
            continue
        if entry["in_workflow"] and entry["in_prompt"] and declaration is not None and is_widget(declaration):
            widgets = list(_make_widgets(name, declaration))
            following += [widget.name for widget in widgets[1:]]
            yield from widgets
        else:
            value = ABSENT if entry["default"] is None else entry["default"]
            yield Widget(name, entry["type"], value, declaration, entry["in_workflow"], entry["in_prompt"])


def _find_default(declaration: Any) -> Any:
    options, kind = read_options(declaration), read_type(declaration)
    if kind not in COMBOS:
        return options.get("default", DEFAULTS.get(options.get("widgetType", kind), ABSENT))
    if options.get("multi_select"):
        return []
    default = options.get("default") if kind == "COMBO" else None
    return default or next(iter(read_choices(declaration)), ABSENT)


def _slot_type(declaration: Any) -> str:
    kind = read_type(declaration)
    if kind == MATCH_TYPE:
        return str((read_options(declaration).get("template") or {}).get("allowed_types", "*"))
    return kind


def _choose_option(node: LiveNode, combo: Widget) -> None:
    """Replace the widgets and slots of the previous option of a dynamic combo by those of the chosen option."""
    prefix = f"{combo.name}."
    links = {slot.name: slot.link for slot in node.slots if slot.name.startswith(prefix)}
    node.widgets = [one for one in node.widgets if not one.name.startswith(prefix)]
    node.slots = [one for one in node.slots if not one.name.startswith(prefix)]
    option = next(
        (one for one in read_options(combo.declaration).get("options") or () if one.get("key") == combo.value), None
    )
    children = [(prefix + name, spec) for name, spec in list_inputs(option["inputs"] if option else {})]
    widgets: list[Widget] = []
    slots: list[Slot] = []
    for name, declaration in children:
        if read_type(declaration) == AUTOGROW:
            slots += _make_autogrow(node, name, declaration, links)
            continue
        slots.append(Slot(name, _slot_type(declaration), links.get(name), is_widget(declaration)))
        if is_widget(declaration):
            widgets += _make_widgets(name, declaration)
    position = next(index for index, one in enumerate(node.widgets) if one is combo) + 1
    node.widgets[position:position] = widgets
    slot = node.find_slot(combo.name)
    position = len(node.slots) if slot is None else slot + 1
    node.slots[position:position] = slots
    for widget in (one for one in widgets if one.kind == DYNAMIC_COMBO):
        _choose_option(node, widget)
        for name, link in links.items():
            index = node.find_slot(name)
            if index is not None:
                node.slots[index].link = link


def _make_autogrow(
    node: LiveNode, group: str, declaration: Any, links: Mapping[str, str | None] | None = None
) -> list[Slot]:
    """Return the slots of a group of inputs that grows with its links, and add their widgets to the node.

    The group has one more than its minimum, and those that the file has.
    """
    template = read_options(declaration).get("template") or {}
    children = list(list_inputs(template.get("input") or {}))
    saved = {str(one.get("name")) for one in node.saved.get("inputs") or ()}
    names = template.get("names")
    maximum = len(names) if names else min(template.get("max", MAX_AUTOGROW), MAX_AUTOGROW)
    slots: list[Slot] = []
    for ordinal in range(maximum):
        new_slots = []
        for child, spec in children:
            prefix = template.get("prefix", "") if len(children) == 1 else child
            name = f"{group}.{names[ordinal] if names else f'{prefix}{ordinal}'}"
            new_slots.append((Slot(name, _slot_type(spec), (links or {}).get(name), is_widget(spec)), spec))
        if ordinal > template.get("min", 1) and not any(slot.name in saved for slot, _ in new_slots):
            continue
        for slot, spec in new_slots:
            slots.append(slot)
            node.widgets += _make_widgets(slot.name, spec) if slot.is_widget else ()
    return slots


def _drop_forced(node: LiveNode, values: list[Any]) -> list[Any]:
    """Remove the values that front ends before 1.16 saved for inputs with `forceInput`, which have no widget.

    The rule is that of the front end's migrateWidgetsValues.
    """
    assert node.definition
    names = {widget.name for widget in node.widgets}
    forced: list[bool] = []
    for name, declaration in node.definition.inputs:
        options = read_options(declaration)
        if name in names or options.get("forceInput"):
            forced += [bool(options.get("forceInput"))] + [False] * bool(options.get("control_after_generate"))
    if len(forced) != len(values):
        return values
    return [value for value, is_forced in zip(values, forced, strict=True) if not is_forced]


def _add_missing_controls(node: LiveNode, values: list[Any]) -> list[Any] | None:
    """Return the values with a control value inserted after each seed, or None if nothing must be inserted.

    They are inserted if the file has no control value and if all values then fit the widgets.
    """
    widgets = [widget for widget in node.widgets if widget.saved]
    controls = [index for index, widget in enumerate(widgets) if widget.kind == CONTROL and index < len(values)]
    if not controls or any(values[index] in CONTROL_WORDS for index in controls if isinstance(values[index], str)):
        return None
    completed = list(values)
    for index in controls:
        completed.insert(index, "fixed")
    fits = all(_fits(widget, value) for widget, value in zip(widgets, completed, strict=False))
    return completed if fits and len(completed) <= len(widgets) else None


def _fits(widget: Widget, value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    kinds = {
        "INT": isinstance(value, int) and number,
        "FLOAT": number,
        "STRING": isinstance(value, str),
        "BOOLEAN": isinstance(value, bool),
        "COMBO": isinstance(value, str | int | float) and not isinstance(value, bool),
    }
    return kinds.get(widget.kind, True)
