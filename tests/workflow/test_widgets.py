"""Which saved value belongs to which widget, and which inputs a node has."""

from __future__ import annotations

from typing import Any

import pytest
from workflow.making import define, export, make_node, make_workflow


def fill(class_type: str, inputs: dict[str, Any], values: Any, saved: dict[str, Any] | None = None) -> Any:
    """The inputs that a node of this class has in the prompt."""
    workflow = make_workflow(
        [make_node(1, class_type, values, saved or {}), make_node(9, "Load", ["a"])],
        [[5, 9, 0, 1, 0, "MODEL"], [6, 9, 1, 1, 1, "CLIP"]],
    )
    return export(workflow, define(class_type, inputs))["1"]


def test_values_go_to_the_widgets_in_order_and_sockets_take_none() -> None:
    inputs = {"model": ["MODEL"], "a": ["INT"], "forced": ["FLOAT", {"forceInput": True}], "?b": [["x", "y"]]}
    assert fill("C", inputs, [3, "y"]) == {"a": 3, "b": "y"}


def test_required_inputs_come_before_optional_ones_and_an_order_given_is_first() -> None:
    inputs = {"?late": ["INT"], "a": ["INT"], "b": ["INT"]}
    assert fill("C", inputs, [1, 2, 3]) == {"a": 1, "b": 2, "late": 3}
    ordered = define("C", inputs, input_order={"required": ["b", "a"]})
    assert export(make_workflow([make_node(1, "C", [1, 2, 3])]), ordered)["1"] == {"b": 1, "a": 2, "late": 3}
    partly = define("C", inputs, input_order={"optional": ["late"]})
    assert export(make_workflow([make_node(1, "C", [1, 2, 3])]), partly)["1"] == {"late": 1, "a": 2, "b": 3}


@pytest.mark.parametrize(
    ("declaration", "default"),
    [
        (["INT", {"default": 5}], 5),
        (["INT"], 0),
        (["FLOAT"], 0),
        (["STRING"], ""),
        (["BOOLEAN"], False),
        (["COMBO", {"options": ["x", "y"]}], "x"),
        ([["x", "y"], {"default": "y"}], "y"),
        ([["x", "y"], {"default": ""}], "x"),
        ([["x"], {"multi_select": True}], {"__value__": []}),
        (["COLOR"], "#000000"),
        (["BOUNDING_BOX"], {"x": 0, "y": 0, "width": 512, "height": 512}),
    ],
)
def test_a_widget_without_a_saved_value_has_its_default(declaration: Any, default: Any) -> None:
    assert fill("C", {"first": ["INT"], "x": declaration}, [1]) == {"first": 1, "x": default}


def test_a_combo_without_choices_has_no_value_and_a_null_is_its_first_choice() -> None:
    assert fill("C", {"x": [[]]}, []) == {}
    assert fill("C", {"x": [["a", "b"]]}, [None]) == {"x": "a"}


@pytest.mark.parametrize(
    ("name", "declaration", "has_one"),
    [
        ("seed", ["INT"], True),
        ("noise_seed", ["INT"], True),
        ("seed", ["INT", {"control_after_generate": False}], False),
        ("my_seed", ["INT"], False),
        ("my_seed", ["INT", {"control_after_generate": "fixed"}], True),
        ("value", ["INT", {"control_after_generate": True}], True),
        ("seed", ["FLOAT"], False),
    ],
)
def test_which_numbers_have_a_control(name: str, declaration: Any, has_one: bool) -> None:
    values = [1, "randomize", 2] if has_one else [1, 2]
    assert fill("C", {name: declaration, "after": ["INT"]}, values) == {name: 1, "after": 2}


def test_a_combo_with_a_control_has_a_filter_as_well() -> None:
    inputs = {"x": [["a", "b"], {"control_after_generate": True}], "after": ["INT"]}
    assert fill("C", inputs, ["b", "increment-wrap", "", 4]) == {"x": "b", "after": 4}


def test_a_missing_control_value_is_made_up_for_if_the_rest_fits_only_then() -> None:
    inputs = {"seed": ["INT"], "steps": ["INT"], "name": [["a", "b"]]}
    assert fill("C", inputs, [1, 20, "b"]) == {"seed": 1, "steps": 20, "name": "b"}
    assert fill("C", {"seed": ["INT"], "name": ["STRING"]}, [1, "x"]) == {"seed": 1, "name": "x"}


def test_values_of_inputs_that_are_sockets_by_force_are_dropped_from_old_files() -> None:
    inputs = {"forced": ["FLOAT", {"forceInput": True}], "a": ["INT"], "b": ["INT"]}
    assert fill("C", inputs, [0.5, 1, 2]) == {"a": 1, "b": 2}
    assert fill("C", inputs, [1, 2]) == {"a": 1, "b": 2}


def test_values_saved_as_a_mapping_go_by_name() -> None:
    assert fill("C", {"a": ["INT"], "seed": ["INT"]}, {"seed": 4, "a": 3, "other": 1}) == {"a": 3, "seed": 4}


def test_samplers_have_lost_the_prefix_of_their_names() -> None:
    inputs = {"sampler_name": [["euler"]]}
    assert fill("KSampler", inputs, ["sample_euler"]) == {"sampler_name": "euler"}
    assert fill("Other", inputs, ["sample_euler"]) == {"sampler_name": "sample_euler"}


def test_a_dynamic_combo_begins_with_its_first_choice_whatever_its_default() -> None:
    combo = [
        "COMFY_DYNAMICCOMBO_V3",
        {"default": "b", "options": [{"key": "a", "inputs": {}}, {"key": "b", "inputs": {}}]},
    ]
    assert fill("C", {"x": combo}, []) == {"x": "a"}


def test_a_list_is_wrapped_and_one_of_a_curve_says_so() -> None:
    got = fill("C", {"a": ["COLORS"], "b": ["CURVE"], "c": ["CURVE"]}, [["#fff"], [[0, 1]], {"points": []}])
    assert got == {
        "a": {"__value__": ["#fff"]},
        "b": {"__value__": [[0, 1]], "__type__": "CURVE"},
        "c": {"points": []},
    }


# Dynamic inputs

FORMAT = [
    "COMFY_DYNAMICCOMBO_V3",
    {
        "options": [
            {"key": "png", "inputs": {"required": {"depth": [["8", "16"]], "model": ["MODEL"]}}},
            {"key": "jpg", "inputs": {"optional": {"quality": ["INT", {"default": 90}]}}},
            {
                "key": "deep",
                "inputs": {
                    "required": {
                        "inner": [
                            "COMFY_DYNAMICCOMBO_V3",
                            {
                                "options": [
                                    {"key": "x", "inputs": {}},
                                    {"key": "y", "inputs": {"required": {"z": ["INT"]}}},
                                ]
                            },
                        ]
                    }
                },
            },
        ]
    },
]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([], {"format": "png", "format.depth": "8", "after": 0}),
        (["png", "16", 5], {"format": "png", "format.depth": "16", "after": 5}),
        (["jpg", 80, 5], {"format": "jpg", "format.quality": 80, "after": 5}),
        (["jpg"], {"format": "jpg", "format.quality": 90, "after": 0}),
        (["deep", "x", 5], {"format": "deep", "format.inner": "x", "after": 5}),
        (["deep", "y", 3, 5], {"format": "deep", "format.inner": "y", "format.inner.z": 3, "after": 5}),
    ],
)
def test_a_dynamic_combo_has_the_widgets_of_its_choice_behind_it(values: list[Any], wanted: Any) -> None:
    assert fill("C", {"format": FORMAT, "after": ["INT"]}, values) == wanted


@pytest.mark.parametrize(("choice", "linked"), [("png", True), ("jpg", False)])
def test_a_link_to_what_belongs_to_another_choice_is_dropped(choice: str, linked: bool) -> None:
    got = fill("C", {"format": FORMAT}, [choice], {"format.model": 5})
    assert got.get("format.model") == (["9", 0] if linked else None)


def grow(**template: Any) -> list[Any]:
    return ["COMFY_AUTOGROW_V3", {"template": {"input": {"required": {"model": ["MODEL"]}}, "min": 1, **template}}]


@pytest.mark.parametrize(
    ("template", "name"),
    [({"prefix": "model", "max": 10}, "group.model7"), ({"names": [*"abcd"]}, "group.d")],
)
def test_of_inputs_that_grow_the_linked_ones_are_given(template: Any, name: str) -> None:
    first = "group.model0" if "prefix" in template else "group.a"
    got = fill("C", {"group": grow(**template), "after": ["INT"]}, [4], {first: None, name: 5})
    assert got == {name: ["9", 0], "after": 4}


def test_inputs_that_grow_several_at_a_time_are_named_after_each() -> None:
    inputs = {"group": grow(input={"required": {"model": ["MODEL"], "clip": ["CLIP"]}}, prefix="unused", max=5)}
    got = fill("C", inputs, [], {"group.model1": 5, "group.clip1": 6})
    assert got == {"group.model1": ["9", 0], "group.clip1": ["9", 1]}


def test_inputs_that_grow_own_widgets_if_their_type_is_one() -> None:
    inputs = {"group": grow(input={"required": {"n": ["INT"]}}, prefix="n")}
    assert fill("C", {**inputs, "after": ["INT"]}, [1, 2, 3]) == {"group.n0": 1, "group.n1": 2, "after": 3}


# Classes whose widgets the definition does not tell


def test_the_upload_button_of_load_image_owns_a_value_and_is_not_given() -> None:
    assert fill("LoadImage", {"image": [["a.png"]]}, ["b.png", "image"]) == {"image": "b.png"}


@pytest.mark.parametrize("class_type", ["ImageCropV2", "C"])
def test_a_bounding_box_owns_the_places_of_its_numbers(class_type: str) -> None:
    box = {"x": 1, "y": 2, "width": 3, "height": 4}
    inputs = {"image": ["IMAGE"], "crop_region": ["BOUNDING_BOX"], **({"after": ["INT"]} if class_type == "C" else {})}
    got = fill(class_type, inputs, [box, 1, 2, 3, 4, 9])
    assert got == {"crop_region": box, **({"after": 9} if class_type == "C" else {})}


def test_a_widget_that_is_not_saved_takes_no_value() -> None:
    inputs = {"source": ["*"]}
    assert fill("PreviewAny", inputs, []) == {}
    inputs = {"audio": ["AUDIO"], "filename_prefix": ["STRING"], "quality": [["V0", "128k"]]}
    assert fill("SaveAudioMP3", inputs, ["x", "128k"]) == {"filename_prefix": "x", "quality": "128k"}


def test_what_only_the_gui_knows_is_given_where_the_gui_gives_it() -> None:
    assert fill("SaveGLB", {"mesh": ["MESH"], "filename_prefix": ["STRING"]}, ["x", ""]) == {
        "filename_prefix": "x",
        "image": "",
    }
    assert fill("ImageCompare", {"?image_a": ["IMAGE"]}, []) == {"compare_view": {"__value__": ["", ""]}}


@pytest.mark.parametrize(
    ("values", "choice", "index"),
    [(["b", 0, "a", "b", ""], "b", 1), (["a", 7, "a", "b", "c", ""], "a", 0), (["gone", 0, "a", ""], "gone", -1)],
)
def test_a_custom_combo_counts_its_options_and_finds_its_choice(values: list[Any], choice: str, index: int) -> None:
    options = {f"option{number}": text for number, text in enumerate(values[2:], 1)}
    assert fill("CustomCombo", {"choice": [[]]}, values) == {"choice": choice, "index": index, **options}
