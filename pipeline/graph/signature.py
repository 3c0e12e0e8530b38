"""What a node class accepts and gives: read from ComfyUI's INPUT_TYPES dictionaries, as plain data.

V1 classes declare that dictionary themselves, V3 classes derive it from their schema; both look the same here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

COMBO = "COMBO"

# The types that ComfyUI's front end shows as a widget, that is, that a constant can fill.
WIDGET_TYPES = frozenset(
    {
        *("INT", "FLOAT", "STRING", "BOOLEAN", COMBO, "COLOR", "COLORS", "TEXTAREA", "MARKDOWN", "CURVE", "RANGE"),
        *("BOUNDING_BOX", "BOUNDING_BOXES", "IMAGECOMPARE", "IMAGEUPLOAD", "GALLERIA", "PAINTER", "CHART"),
        "COMFY_DYNAMICCOMBO_V3",
    }
)

# What only a link can bring: there is no constant of these types.
OBJECT_TYPES = frozenset(
    {
        *("MODEL", "CLIP", "VAE", "CONDITIONING", "LATENT", "IMAGE", "MASK", "NOISE", "SAMPLER", "SIGMAS", "GUIDER"),
        *("CONTROL_NET", "CLIP_VISION", "CLIP_VISION_OUTPUT", "STYLE_MODEL", "GLIGEN", "UPSCALE_MODEL"),
        *("AUDIO", "VIDEO"),
    }
)

# The type of inputs and outputs that take each other's type; an input's template says which types are allowed.
MATCH_TYPE = "COMFY_MATCHTYPE_V3"


@dataclass(frozen=True)
class InputSpec:
    """One declared input. `choices` and `folder` (the model folder whose files they are) belong to a COMBO."""

    name: str
    type: str
    required: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    choices: tuple[Any, ...] | None = None
    folder: str | None = None

    @property
    def takes_constant(self) -> bool:
        """Whether a constant can fill it: ComfyUI's objects have none, but packs have widgets of their own types."""
        return not _union(str(self.type)) <= OBJECT_TYPES

    @property
    def is_widget(self) -> bool:
        """Whether the GUI shows it as a widget and not as a socket."""
        kind = self.options.get("widgetType", self.type)
        return kind in WIDGET_TYPES and not self.options.get("forceInput", False)

    @property
    def slot_type(self) -> str:
        """The type of its slot in the GUI: a match type shows the types that its template allows."""
        template = self.options.get("template") or {}
        return str(template.get("allowed_types", "*")) if self.type == MATCH_TYPE else self.type


@dataclass(frozen=True)
class OutputSpec:
    """One output: its name as the GUI shows it, its type, and whether it gives a list of values."""

    name: str
    type: str
    is_list: bool = False

    @property
    def slot_type(self) -> str:
        """The type of its slot in the GUI: a match type takes any."""
        return "*" if self.type == MATCH_TYPE else self.type


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of a class_type.

    `checks_itself` names the inputs that the class's own VALIDATE_INPUTS judges, which ComfyUI then leaves to it;
    `takes_any_input` is true for a class that accepts undeclared inputs. `folders` are the model folders that the
    class listed to declare its choices; `depends_on_name` says that its outputs depend on the name of its node.
    `takes_any_link` is true for a class whose function takes links to undeclared inputs, `lazy` names the inputs that
    are evaluated only if the node asks for them, `is_async` says that its function may wait while others run, and
    `shows_when_cached` that what it shows is shown again when it need not run.
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
        """Inputs in the order of the GUI's slots, which decides a bypass: sockets first, then widgets."""
        return sorted(self.inputs.values(), key=lambda spec: spec.is_widget)

    def find_output(self, wanted: str | int) -> int | None:
        """Index of an output; see the function of that name."""
        return find_output(self.outputs, wanted)


def find_output(outputs: Sequence[OutputSpec], wanted: str | int) -> int | None:
    """Index of an output by index, by name, or by a type that just one output has; None if there is none."""
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
    """Read the `required` and `optional` parts of an INPUT_TYPES dictionary.

    `folders` gives the files of each model folder that the class listed while it made the dictionary; a COMBO
    whose choices are just those files belongs to that folder.
    """
    return {
        name: _read_input(name, declared, part == "required", folders or {})
        for part in ("required", "optional")
        for name, declared in input_types.get(part, {}).items()
    }


def read_outputs(
    types: Sequence[Any], names: Sequence[str] | None, are_lists: Sequence[bool] | None = None
) -> tuple[OutputSpec, ...]:
    """Pair RETURN_TYPES with RETURN_NAMES and OUTPUT_IS_LIST; an output without a name is named after its type."""
    kinds = [COMBO if isinstance(kind, list | tuple) else kind for kind in types]
    given, lists = list(names or []), list(are_lists or [])
    return tuple(
        OutputSpec(
            given[index] if index < len(given) and given[index] else kind,
            kind,
            index < len(lists) and bool(lists[index]),
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
    """ComfyUI's rule for a link: equal, either is `*`, or comma-separated unions that share a type.

    Compares by `!=` first, because custom nodes make wildcard types by overriding `__ne__` of str.
    """
    if not received != wanted:  # noqa: SIM202
        return True
    if not isinstance(received, str) or not isinstance(wanted, str):
        return False
    if MATCH_TYPE in (received, wanted):
        return True
    left, right = _union(received), _union(wanted)
    return "*" in left | right or bool(left & right)


def _union(kind: str) -> set[str]:
    return {part.strip() for part in kind.split(",")}
