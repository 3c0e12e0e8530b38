"""Read a graph from a config, in which every top-level mapping with `_node_` is a node.

sampler:
  _node_: KSampler             # class_type, as in ComfyUI
  _bypass_: false              # true passes its inputs through, as ComfyUI's bypass mode
  model: [cfg_norm, MODEL]     # a link: [node, output name or index]
  steps: 4                     # a constant
  noise_mask: null             # not given
  curve: {__value__: [0, 1]}   # a literal list
  images: {image0: [a, IMAGE]} # an input with a dot in its name, images.image0
  format:                      # a dynamic combo: its own value has its own name as key
    format: png                # the input format
    bit_depth: 8-bit           # the input format.bit_depth
  _id_: "12:3"                 # the node's id in the ComfyUI workflow that it was imported from
  _ui_: {upload: image}        # values that the GUI adds to the prompt and that no node reads
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pipeline.errors import Problem, did_you_mean
from pipeline.graph.model import Graph, Link, Node

NODE = "_node_"
BYPASS = "_bypass_"
ID = "_id_"
UI = "_ui_"
VALUE = "__value__"
MISSING = "???"  # OmegaConf's mark for a value that the user must give


def is_node(section: Any) -> bool:
    """Return whether a top-level entry of a config declares a node."""
    return isinstance(section, Mapping) and NODE in section


def read_graph(config: Mapping[str, Any], problems: list[Problem]) -> Graph:
    """Return the graph of the nodes in a config (plain containers, interpolations resolved).

    Faults that can be found without ComfyUI are appended to `problems`: malformed nodes, values and links, and links
    to unknown nodes. A faulty input is absent in the graph, so that the rest can still be checked.
    """
    sections = {str(name): section for name, section in config.items() if is_node(section)}
    return Graph({name: _read_node(name, section, sections, problems) for name, section in sections.items()})


def _read_node(name: str, section: Mapping[str, Any], names: Collection[str], problems: list[Problem]) -> Node:
    class_type, bypassed = section[NODE], section.get(BYPASS, False)
    if not isinstance(class_type, str) or class_type in ("", MISSING):
        message = f"must be a ComfyUI class_type, got {class_type!r}"
        problems.append(Problem("missing_node_type", f"{name}.{NODE}", message))
    if not isinstance(bypassed, bool):
        problems.append(Problem("invalid_input_type", f"{name}.{BYPASS}", f"must be true or false, got {bypassed!r}"))
    inputs = {}
    for key, value in _list_inputs(section):
        problem = _find_fault(f"{name}.{key}", value, names)
        if problem:
            problems.append(problem)
        else:
            inputs[key] = _read_value(value)
    return Node(name, str(class_type), inputs, bypassed is True)


def _list_inputs(section: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield name and value of each input that is given; an input within a mapping has a dotted name."""
    for key, value in section.items():
        if key not in (NODE, BYPASS, ID, UI):
            yield from _flatten(str(key), value)


def _flatten(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping) or not value or VALUE in value:
        if value is not None:
            yield name, value
        return
    own_name = name.rpartition(".")[2]
    for key, inner in value.items():
        # The value of a dynamic combo has the combo's own name as key, as ComfyUI passes it to the node.
        is_value = not isinstance(inner, Mapping) or VALUE in inner
        yield from _flatten(name if key == own_name and is_value else f"{name}.{key}", inner)


def _read_value(value: Any) -> Any:
    if isinstance(value, list):
        return Link(value[0], value[1])
    return value[VALUE] if isinstance(value, Mapping) else value


def _find_fault(where: str, value: Any, names: Collection[str]) -> Problem | None:
    if value == MISSING:
        return Problem("required_input_missing", where, f"is required and not given. Give it as {where}=VALUE")
    if isinstance(value, list):
        return _find_link_fault(where, value, names)
    if isinstance(value, Mapping) and set(value) != {VALUE}:
        message = f"must be a value, a link or {{{VALUE}: [...]}}, got {dict(value)}"
        return Problem("invalid_input_type", where, message)
    return None


def _find_link_fault(where: str, value: list[Any], names: Collection[str]) -> Problem | None:
    shown = f"[{', '.join(map(str, value))}]"
    if not _has_form_of_link(value):
        message = f"a list must be a link [node, output], got {shown}. Write a literal list as {{{VALUE}: {shown}}}"
        return Problem("bad_linked_input", where, message)
    if value[0] not in names:
        near = did_you_mean(value[0], names) or f". The nodes are {', '.join(names)}"
        return Problem("bad_linked_input", where, f"{shown} names no node of the graph{near}")
    return None


def _has_form_of_link(value: list[Any]) -> bool:
    return len(value) == 2 and isinstance(value[0], str) and type(value[1]) in (str, int)
