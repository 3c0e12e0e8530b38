"""The inputs and outputs of a node class as plain data, read from ComfyUI's INPUT_TYPES dictionaries.

V1 classes declare that dictionary themselves and V3 classes derive it from their schema; both look the same here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

COMBO = "COMBO"

# The types that ComfyUI's front end shows as a widget, so a constant can fill them.
WIDGET_TYPES = frozenset(
    {
        *("INT", "FLOAT", "STRING", "BOOLEAN", COMBO, "COLOR", "COLORS", "TEXTAREA", "MARKDOWN", "CURVE", "RANGE"),
        *("BOUNDING_BOX", "BOUNDING_BOXES", "IMAGECOMPARE", "IMAGEUPLOAD", "GALLERIA", "PAINTER", "CHART"),
        "COMFY_DYNAMICCOMBO_V3",
    }
)

# The types of ComfyUI's objects: no constant has such a type, only a link can feed such an input.
OBJECT_TYPES = frozenset(
    {
        *("MODEL", "CLIP", "VAE", "CONDITIONING", "LATENT", "IMAGE", "MASK", "NOISE", "SAMPLER", "SIGMAS", "GUIDER"),
        *("CONTROL_NET", "CLIP_VISION", "CLIP_VISION_OUTPUT", "STYLE_MODEL", "GLIGEN", "UPSCALE_MODEL"),
        *("AUDIO", "VIDEO"),
    }
)

# The type of inputs and outputs that take the type of what is linked; an input's template lists the allowed types.
MATCH_TYPE = "COMFY_MATCHTYPE_V3"


@dataclass(frozen=True)
class InputSpec:
    """One declared input. Only a COMBO has `choices` and `folder`, the model folder whose files the choices are."""

    name: str
    type: str
    required: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    choices: tuple[Any, ...] | None = None
    folder: str | None = None

    @property
    def takes_constant(self) -> bool:
        """Whether a constant can fill it.

        No constant has the type of one of ComfyUI's objects. Any other type may have constants, because packs define
        widgets of their own types.
        """
        return not _split_types(str(self.type)) <= OBJECT_TYPES

    @property
    def is_widget(self) -> bool:
        """Whether the GUI shows it as a widget and not as a socket."""
        kind = self.options.get("widgetType", self.type)
        return kind in WIDGET_TYPES and not self.options.get("forceInput", False)

    @property
    def slot_type(self) -> str:
        """The type of its slot in the GUI; for a match type, the types that its template allows."""
        template = self.options.get("template") or {}
        return str(template.get("allowed_types", "*")) if self.type == MATCH_TYPE else self.type


@dataclass(frozen=True)
class OutputSpec:
    """One output: its name as the GUI shows it, its type, and whether it returns a list of values."""

    name: str
    type: str
    is_list: bool = False

    @property
    def slot_type(self) -> str:
        """The type of its slot in the GUI; a match type is a wildcard."""
        return "*" if self.type == MATCH_TYPE else self.type


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a class_type, and how its nodes are run.

    is_output_node: whether its nodes run even if no other node reads them.
    checks_itself: the inputs that the class's own VALIDATE_INPUTS checks, so that ComfyUI does not check them.
    takes_any_input: whether it accepts inputs that it does not declare.
    folders: the model folders that the class listed in order to declare its choices.
    depends_on_name: whether its outputs depend on the name of its node.
    takes_any_link: whether its function accepts links to inputs that it does not declare.
    lazy: the inputs that are evaluated only if the node asks for them.
    is_async: whether its function may wait while other nodes run.
    shows_when_cached: whether its UI output is shown again when the node need not run.

    Example:
        inputs = read_inputs({"required": {"model": ("MODEL",), "steps": ("INT", {"default": 20})}})
        Signature("MySampler", inputs, read_outputs(["LATENT"], None))
    """

    class_type: str
    inputs: Mapping[str, InputSpec]
    outputs: tuple[OutputSpec, ...]
    is_output_node: bool = False
    checks_itself: Collection[str] = frozenset()
    takes_any_input: bool = False
    folders: tuple[str, ...] = ()
    depends_on_name: bool = False
    takes_any_link: bool = False
    lazy: Collection[str] = frozenset()
    is_async: bool = False
    shows_when_cached: bool = False

    @property
    def slots(self) -> list[InputSpec]:
        """The inputs in the order of the GUI's slots, on which a bypass depends: sockets first, then widgets."""
        return sorted(self.inputs.values(), key=lambda spec: spec.is_widget)

    def find_output(self, wanted: str | int) -> int | None:
        """Return the index of an output, by the rule of the function `find_output`."""
        return find_output(self.outputs, wanted)


def find_output(outputs: Sequence[OutputSpec], wanted: str | int) -> int | None:
    """Return the index of the output that has the index, name or type `wanted`, or None.

    A name or a type counts only if exactly one output has it.
    """
    if isinstance(wanted, int):
        return wanted if 0 <= wanted < len(outputs) else None
    for attribute in ("name", "type"):
        found = [index for index, output in enumerate(outputs) if getattr(output, attribute) == wanted]
        if len(found) == 1:
            return found[0]
    return None


def read_inputs(
    input_types: Mapping[str, Mapping[str, Any]], folders: Mapping[str, Sequence[Any]] | None = None
) -> dict[str, InputSpec]:
    """Return the inputs in the `required` and `optional` parts of an INPUT_TYPES dictionary, by name.

    `folders` holds the files of each model folder that the class listed while it made the dictionary. A COMBO whose
    choices are exactly the files of a folder belongs to that folder.
    """
    return {
        name: _read_input(name, declared, part == "required", folders or {})
        for part in ("required", "optional")
        for name, declared in input_types.get(part, {}).items()
    }


def read_outputs(
    types: Sequence[Any], names: Sequence[str] | None, are_lists: Sequence[bool] | None = None
) -> tuple[OutputSpec, ...]:
    """Return the outputs that RETURN_TYPES, RETURN_NAMES and OUTPUT_IS_LIST declare.

    An output without a name is named after its type.
    """
    kinds = [COMBO if isinstance(kind, list | tuple) else kind for kind in types]
    given_names, list_flags = list(names or []), list(are_lists or [])
    return tuple(
        OutputSpec(
            given_names[index] if index < len(given_names) and given_names[index] else kind,
            kind,
            index < len(list_flags) and bool(list_flags[index]),
        )
        for index, kind in enumerate(kinds)
    )


def _read_input(name: str, declared: Any, required: bool, folders: Mapping[str, Sequence[Any]]) -> InputSpec:
    kind, options = declared[0], (declared[1] if len(declared) > 1 else {})
    choices = None
    if isinstance(kind, list | tuple):
        kind, choices = COMBO, tuple(kind)
    elif kind == COMBO:
        choices = tuple(options.get("options") or ())
    folder = next((folder for folder, files in folders.items() if choices is not None and [*choices] == [*files]), None)
    return InputSpec(name, kind, required, options or {}, choices, folder)


def types_match(received: str, wanted: str) -> bool:
    """Return whether ComfyUI lets a type be linked to another one.

    The types must be equal, or one of them `*`, or they are comma-separated unions that share a type. They are
    compared by `!=` first, because custom nodes make wildcard types by overriding `__ne__` of str.
    """
    if not received != wanted:  # noqa: SIM202
        return True
    if not isinstance(received, str) or not isinstance(wanted, str):
        return False
    if MATCH_TYPE in (received, wanted):
        return True
    left, right = _split_types(received), _split_types(wanted)
    return "*" in left | right or bool(left & right)


def _split_types(kind: str) -> set[str]:
    return {part.strip() for part in kind.split(",")}
