"""Reading ComfyUI's INPUT_TYPES, finding outputs, the order of slots, and ComfyUI's rule for what may be linked."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.graph.signature import InputSpec, OutputSpec, Signature, read_inputs, read_outputs, types_match

LORAS = ["a.safetensors", "b.safetensors"]


def make_signature(outputs: str = "", **parts: Any) -> Signature:
    """`outputs` as `NAME:TYPE NAME:TYPE`; `required` and `optional` as ComfyUI declares them."""
    pairs = [output.split(":") for output in outputs.split()]
    return Signature("K", read_inputs(parts), read_outputs([kind for _, kind in pairs], [name for name, _ in pairs]))


# Inputs


@pytest.mark.parametrize(
    ("declared", "wanted"),
    [
        (("MODEL",), InputSpec("x", "MODEL")),
        (("INT", {"min": 1}), InputSpec("x", "INT", options={"min": 1})),
        (["INT", {"min": 1}], InputSpec("x", "INT", options={"min": 1})),
        (("INT", None), InputSpec("x", "INT")),
        ((["euler", "heun"],), InputSpec("x", "COMBO", choices=("euler", "heun"))),
        (
            (("euler", "heun"), {"default": "heun"}),
            InputSpec("x", "COMBO", True, {"default": "heun"}, ("euler", "heun")),
        ),
        (([],), InputSpec("x", "COMBO", choices=())),
        (("COMBO", {"options": [1, 2]}), InputSpec("x", "COMBO", options={"options": [1, 2]}, choices=(1, 2))),
        (("COMBO", {"options": None}), InputSpec("x", "COMBO", options={"options": None}, choices=())),
        (("COMBO", {}), InputSpec("x", "COMBO", choices=())),
        (("IMAGE", {"options": [1]}), InputSpec("x", "IMAGE", options={"options": [1]})),
    ],
)
def test_an_input_is_read_as_v1_and_v3_classes_declare_it(declared: Any, wanted: InputSpec) -> None:
    assert read_inputs({"required": {"x": declared}}) == {"x": wanted}


def test_required_inputs_come_first_then_the_optional_ones_each_as_declared() -> None:
    declared = {
        "optional": {"mask": ("MASK",), "a": ("INT",)},
        "hidden": {"prompt": "PROMPT"},
        "required": {"model": ("MODEL",), "cfg": ("FLOAT",)},
    }
    assert [(spec.name, spec.required) for spec in read_inputs(declared).values()] == [
        ("model", True),
        ("cfg", True),
        ("mask", False),
        ("a", False),
    ]


@pytest.mark.parametrize("declared", [{}, {"hidden": {"id": "UNIQUE_ID"}}, {"required": {}}])
def test_a_class_without_inputs_has_none(declared: dict[str, Any]) -> None:
    assert read_inputs(declared) == {}


@pytest.mark.parametrize(
    ("declared", "folder"),
    [
        ((LORAS,), "loras"),
        (("COMBO", {"options": LORAS}), "loras"),
        (([],), "empty"),
        (([*LORAS, "None"],), None),
        (([*reversed(LORAS)],), None),
        ((LORAS[:1],), None),
        (("STRING", {"options": LORAS}), None),
    ],
)
def test_a_combo_belongs_to_the_model_folder_whose_files_it_offers(declared: Any, folder: str | None) -> None:
    folders = {"vae": ["c.pt"], "loras": LORAS, "empty": []}
    assert read_inputs({"required": {"x": declared}}, folders)["x"].folder == folder


# Widgets and slots

WIDGET_TYPES = """
INT FLOAT STRING BOOLEAN COMBO COLOR IMAGECOMPARE BOUNDING_BOX BOUNDING_BOXES COLORS CURVE RANGE PAINTER CHART GALLERIA
TEXTAREA MARKDOWN IMAGEUPLOAD COMFY_DYNAMICCOMBO_V3
"""
WIDGETS = WIDGET_TYPES.split()
SOCKETS = ["MODEL", "IMAGE", "LATENT", "*", "IMAGE,MASK", "INT,FLOAT", "COMFY_MATCHTYPE_V3", "COMFY_AUTOGROW_V3", "int"]


@pytest.mark.parametrize(
    ("options", "widgets"), [({}, WIDGETS), ({"forceInput": False}, WIDGETS), ({"forceInput": True}, [])]
)
def test_the_front_end_shows_these_types_as_widgets_and_no_others(options: dict[str, Any], widgets: list[str]) -> None:
    assert [kind for kind in WIDGETS + SOCKETS if InputSpec("x", kind, options=options).is_widget] == widgets


def test_the_option_widget_type_makes_a_widget_of_a_union() -> None:
    """LTXVEmptyLatentAudio.frame_rate of ComfyUI 0.30 is declared so."""
    spec = InputSpec("frame_rate", "FLOAT,INT", options={"widgetType": "FLOAT"})
    assert spec.is_widget


def test_slots_are_the_sockets_and_then_the_widgets_each_in_the_order_of_the_schema() -> None:
    signature = make_signature(
        required={
            "steps": ("INT",),
            "model": ("MODEL",),
            "sampler": (["euler"],),
            "number": ("INT", {"forceInput": True}),
        },
        optional={"text": ("STRING",), "any": ("*",), "mask": ("MASK",)},
    )
    assert [spec.name for spec in signature.slots] == ["model", "number", "any", "mask", "steps", "sampler", "text"]


# Outputs


@pytest.mark.parametrize(
    ("types", "names", "wanted"),
    [
        (("MODEL", "CLIP"), None, [("MODEL", "MODEL"), ("CLIP", "CLIP")]),
        (("MODEL", "CLIP"), (), [("MODEL", "MODEL"), ("CLIP", "CLIP")]),
        (("MODEL", "CLIP"), ("model",), [("model", "MODEL"), ("CLIP", "CLIP")]),
        (("MODEL", "CLIP"), ("", "clip"), [("MODEL", "MODEL"), ("clip", "CLIP")]),
        (("MODEL",), (None,), [("MODEL", "MODEL")]),
        (("LATENT",), ("a", "b"), [("a", "LATENT")]),
        ((["euler", "heun"],), None, [("COMBO", "COMBO")]),
        (((1, 2),), ("size",), [("size", "COMBO")]),
        ((), None, []),
    ],
)
def test_outputs_pair_types_with_names(types: Any, names: Any, wanted: list[tuple[str, str]]) -> None:
    assert read_outputs(types, names) == tuple(OutputSpec(name, kind) for name, kind in wanted)


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (0, 0),
        (4, 4),
        (5, None),
        (-1, None),
        ("model", 0),
        ("MODEL", 0),
        ("IMAGE", 2),  # a name comes before a type
        ("MASK", 1),
        ("LATENT", None),  # two outputs have that type, and none that name
        ("latent_a", 3),
        ("model ", None),
        ("Model", None),
        ("0", None),
        ("", None),
    ],
)
def test_an_output_is_found_by_index_by_name_or_by_a_type_of_its_own(wanted: str | int, index: int | None) -> None:
    signature = make_signature("model:MODEL IMAGE:MASK image:IMAGE latent_a:LATENT latent_b:LATENT")
    assert signature.find_output(wanted) == (1 if wanted == "IMAGE" else index)


def test_an_output_name_used_twice_names_none_but_its_type_may() -> None:
    signature = make_signature("x:A x:B")
    assert [signature.find_output(wanted) for wanted in ("x", "A", "B")] == [None, 0, 1]


# Links


class NeverUnequal(str):
    """The wildcard type of many custom nodes."""

    def __ne__(self, other: object) -> bool:
        return False


class EqualToAll(str):
    """Another one; only `==` is overridden."""

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return True


class EqualToNone(str):
    """Neither equal nor unequal to anything."""

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return False

    def __ne__(self, other: object) -> bool:
        return False


class UnequalToAll(str):
    def __ne__(self, other: object) -> bool:
        return True


def comfyui_says(received: Any, wanted: Any) -> bool:
    """What validate_node_input of comfy_execution/validation.py answers (0.30.0, not strict), check by check."""
    if not received != wanted:  # noqa: SIM202
        return True
    for one in ("*", "COMFY_MATCHTYPE_V3"):
        if received == one or wanted == one:
            return True
    if not isinstance(received, str) or not isinstance(wanted, str):
        return False
    left = {part.strip() for part in received.split(",")}
    right = {part.strip() for part in wanted.split(",")}
    return "*" in left or "*" in right or not left.isdisjoint(right)


PARTS = st.sampled_from(["IMAGE", "MASK", "mask", " IMAGE", "MASK ", "*", " * ", "", "A", "B"])
TYPES = st.one_of(st.lists(PARTS, min_size=1, max_size=3).map(",".join), st.just("COMFY_MATCHTYPE_V3"))
ANY_TYPES = st.one_of(
    TYPES, st.builds(lambda cls, kind: cls(kind), st.sampled_from([NeverUnequal, EqualToNone, UnequalToAll]), TYPES)
)


@settings(deadline=None)
@given(ANY_TYPES, ANY_TYPES)
def test_types_match_as_in_comfyui(received: Any, wanted: Any) -> None:
    assert types_match(received, wanted) == comfyui_says(received, wanted)


@pytest.mark.parametrize(
    ("received", "wanted", "answer"),
    [
        ("MODEL", "MODEL", True),
        ("MODEL", "CLIP", False),
        ("MODEL", "model", False),
        ("MODEL", "*", True),
        ("*", "MODEL", True),
        ("IMAGE,MASK", "MASK", True),
        ("MASK", "IMAGE, MASK", True),
        ("IMAGE,MASK", "LATENT,MASK", True),
        ("IMAGE,MASK", "LATENT,MODEL", False),
        ("IMAGE,*", "MODEL", True),
        ("MODEL", "IMAGE, *", True),
        ("IMAGEMASK", "MASK", False),
        ("COMFY_MATCHTYPE_V3", "MODEL", True),
        ("MODEL", "COMFY_MATCHTYPE_V3", True),
        ("COMFY_MATCHTYPE_V3,IMAGE", "MODEL", False),
        ("MODEL", "IMAGE,COMFY_MATCHTYPE_V3", False),
        (NeverUnequal("ANY"), "MODEL", True),
        ("MODEL", NeverUnequal("ANY"), True),
        (UnequalToAll("MODEL"), "MODEL", True),  # the unions still share a type
        (EqualToAll("ANY"), "MODEL", True),
        ("MODEL", EqualToAll("ANY"), True),
        ("MODEL", 5, False),
    ],
)
def test_what_may_be_linked(received: Any, wanted: Any, answer: bool) -> None:
    assert comfyui_says(received, wanted) is answer, "the transcription above is wrong"
    assert types_match(received, wanted) is answer
