"""The definition of a node class for ComfyUI's GUI: its entry in the server's /object_info, as plain data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.graph.signature import OutputSpec, read_outputs


@dataclass(frozen=True)
class NodeDefinition:
    """A node class: the declarations of its inputs in the GUI's order, and its outputs.

    inputs: pairs of a name and a declaration as in INPUT_TYPES, `(type, options)`.
    match_types: for each output, the id of the match type template that decides its type, or None.

    Example:
        NodeDefinition.read("KSampler", {"input": {"required": {"steps": ["INT", {"default": 20}]}}, ...})
    """

    class_type: str
    inputs: tuple[tuple[str, Any], ...]
    outputs: tuple[OutputSpec, ...] = ()
    match_types: tuple[str | None, ...] = ()
    title: str = ""
    is_output_node: bool = False
    takes_any_input: bool = False

    @classmethod
    def read(cls, class_type: str, info: Mapping[str, Any]) -> NodeDefinition:
        """Return the definition in an entry of /object_info (`input`, `input_order`, `output`, `display_name`, ...).

        `info` may also have `accept_all_inputs`, which the server does not send: whether the class accepts inputs that
        it does not declare.
        """
        outputs = read_outputs(info.get("output") or (), info.get("output_name"), info.get("output_is_list"))
        return cls(
            class_type,
            tuple(list_inputs(info.get("input") or {}, info.get("input_order"))),
            outputs,
            tuple(info.get("output_matchtypes") or ()),
            info.get("display_name") or class_type,
            bool(info.get("output_node")),
            bool(info.get("accept_all_inputs")),
        )


def list_inputs(
    declared: Mapping[str, Mapping[str, Any]], order: Mapping[str, list[str]] | None = None
) -> Iterator[tuple[str, Any]]:
    """Yield name and declaration of the required inputs, then of the optional ones.

    Inputs that `order` names come before all others, in that order.
    """
    parts = {part: declared.get(part) or {} for part in ("required", "optional")}
    ordered = [(part, name) for part in parts for name in (order or {}).get(part, ()) if name in parts[part]]
    rest = [(part, name) for part in parts for name in parts[part] if (part, name) not in ordered]
    for part, name in ordered + rest:
        yield name, parts[part][name]


def read_type(declaration: Any) -> str:
    """Return the type of a declared input; that of a list of choices is COMBO."""
    kind = declaration[0]
    return "COMBO" if isinstance(kind, list | tuple) else str(kind)


def read_options(declaration: Any) -> Mapping[str, Any]:
    """Return the options of a declared input."""
    return (declaration[1] if len(declaration) > 1 else None) or {}


def read_choices(declaration: Any) -> list[Any]:
    """Return the choices of a COMBO; those of a dynamic combo are its keys."""
    kind, options = declaration[0], read_options(declaration)
    choices = kind if isinstance(kind, list | tuple) else options.get("options") or ()
    return [one["key"] if isinstance(one, Mapping) and "key" in one else one for one in choices]
