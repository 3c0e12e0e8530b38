"""Constants that fill a widget: what they become, and what is said of those that cannot."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.graph.signature import InputSpec
from pipeline.graph.values import check_value, convert

# Conversion


@pytest.mark.parametrize(
    ("kind", "given_", "wanted"),
    [
        ("INT", 4, 4),
        ("INT", 4.0, 4),
        ("INT", "4", 4),
        ("INT", "-1", -1),
        ("INT", 2**64 - 1, 2**64 - 1),
        ("INT", 1e300, int(1e300)),
        ("FLOAT", 1, 1.0),
        ("FLOAT", 0.1, 0.1),
        ("FLOAT", "0.1", 0.1),
        ("FLOAT", "1e-3", 0.001),
        ("FLOAT", -(2**53), -float(2**53)),
        ("BOOLEAN", True, True),
        ("BOOLEAN", False, False),
        ("BOOLEAN", 1, True),
        ("BOOLEAN", 0, False),
        ("STRING", "a cat", "a cat"),
        ("STRING", 8, "8"),
        ("STRING", 0.5, "0.5"),
        ("COMBO", "euler", "euler"),
        ("COMBO", 8, 8),
        ("*", 8, 8),
        ("COLOR", "#ff0000", "#ff0000"),
        ("CURVE", [[0, 0], [1, 1]], [[0, 0], [1, 1]]),
    ],
)
def test_a_constant_takes_the_type_of_its_widget(kind: str, given_: Any, wanted: Any) -> None:
    converted = convert(kind, given_)
    assert (converted, type(converted)) == (wanted, type(wanted))


WHOLE, NUMBER, FINITE, SWITCH = "must be a whole number", "must be a number", "must be finite", "must be true or false"


@pytest.mark.parametrize(
    ("kind", "given_", "message"),
    [
        ("INT", 8.7, WHOLE),
        ("INT", True, WHOLE),
        ("INT", False, WHOLE),
        ("INT", "8.0", WHOLE),
        ("INT", "eight", WHOLE),
        ("INT", "", WHOLE),
        ("INT", math.inf, WHOLE),
        ("INT", math.nan, WHOLE),
        ("INT", [8], WHOLE),
        ("INT", {"a": 8}, WHOLE),
        ("INT", None, WHOLE),
        ("INT", "9" * 5000, WHOLE),  # more digits than Python reads
        ("FLOAT", True, NUMBER),
        ("FLOAT", "high", NUMBER),
        ("FLOAT", "", NUMBER),
        ("FLOAT", [1.0], NUMBER),
        ("FLOAT", None, NUMBER),
        ("FLOAT", math.inf, FINITE),
        ("FLOAT", -math.inf, FINITE),
        ("FLOAT", math.nan, FINITE),
        ("FLOAT", "nan", FINITE),
        ("FLOAT", "1e999", FINITE),
        ("BOOLEAN", "false", SWITCH),  # ComfyUI would make true of it
        ("BOOLEAN", "true", SWITCH),
        ("BOOLEAN", "", SWITCH),
        ("BOOLEAN", 2, SWITCH),
        ("BOOLEAN", 0.5, SWITCH),
        ("BOOLEAN", [], SWITCH),
        ("BOOLEAN", None, SWITCH),
    ],
)
def test_a_constant_that_would_lose_something_is_refused(kind: str, given_: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        convert(kind, given_)


@pytest.mark.parametrize("number", [2**53 + 1, -(2**53) - 1, 2**64 - 1, 10**400], ids=lambda number: str(number)[:20])
def test_a_whole_number_that_no_float_holds_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match=r"^must be "):
        convert("FLOAT", number)


NUMBERS = st.one_of(st.integers(-(2**53), 2**53), st.floats(), st.booleans())
KINDS = st.sampled_from(["INT", "FLOAT", "BOOLEAN"])


@settings(deadline=None)
@given(KINDS, NUMBERS)
def test_a_number_keeps_its_value_or_is_refused(kind: str, number: Any) -> None:
    try:
        converted = convert(kind, number)
    except ValueError:
        return
    assert converted == number
    assert type(converted) is {"INT": int, "FLOAT": float, "BOOLEAN": bool}[kind]


@settings(deadline=None)
@given(st.sampled_from(["INT", "FLOAT", "STRING"]), st.one_of(st.integers(-(2**53), 2**53), st.floats(allow_nan=False)))
def test_the_text_of_a_number_is_that_number(kind: str, number: Any) -> None:
    """`sampler.steps='8'` and a STRING that is given a number: nothing is lost either way."""
    text = str(number)
    try:
        converted = convert(kind, text)
    except ValueError:
        assert (kind == "INT" and isinstance(number, float)) or math.isinf(number)
    else:
        assert converted == (text if kind == "STRING" else number)
    assert convert("STRING", number) == text


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=5,
)


@settings(deadline=None)
@given(st.sampled_from(["INT", "BOOLEAN", "STRING", "COMBO", "*", "MODEL"]), JSON)
def test_conversion_of_what_was_converted_changes_nothing(kind: str, value: Any) -> None:
    try:
        once = convert(kind, value)
    except ValueError:
        return
    assert repr(convert(kind, once)) == repr(once)


# Checks


def find_fault(spec: InputSpec, value: Any, judged_by_class: bool = False) -> tuple[str, str] | None:
    """Code and message; the message begins with the dotted path."""
    _, problem = check_value(f"sampler.{spec.name}", "KSampler", spec, value, judged_by_class)
    return (problem.code, str(problem)) if problem else None


STEPS = InputSpec("steps", "INT", options={"min": 1, "max": 10_000})
CFG = InputSpec("cfg", "FLOAT", options={"min": 0.0, "max": 100.0})
SCHEDULER = InputSpec("scheduler", "COMBO", choices=("simple", "normal", "karras"))
LORA = InputSpec(
    "lora_name",
    "COMBO",
    choices=("Qwen-Image-Lightning-4steps-V2.0.safetensors", "anime.safetensors"),
    folder="loras",
)
MANY = InputSpec("many", "COMBO", choices=tuple(range(100, 113)))
TWELVE = InputSpec("twelve", "COMBO", choices=tuple(range(100, 112)))
SEVERAL = InputSpec("several", "COMBO", options={"multiselect": True}, choices=("a", "b"))
PUT = "Put the file there, or name your models folder: comfyui.models=[FOLDER]"


@pytest.mark.parametrize(
    ("spec", "value", "code", "message"),
    [
        (STEPS, 0, "value_smaller_than_min", "sampler.steps: must be at least 1, got 0"),
        (STEPS, "0", "value_smaller_than_min", "sampler.steps: must be at least 1, got 0"),
        (STEPS, 10_001, "value_bigger_than_max", "sampler.steps: must be at most 10000, got 10001"),
        (STEPS, 8.7, "invalid_input_type", "sampler.steps: must be a whole number, got 8.7"),
        (STEPS, "many", "invalid_input_type", "sampler.steps: must be a whole number, got 'many'"),
        (CFG, -1, "value_smaller_than_min", "sampler.cfg: must be at least 0.0, got -1.0"),
        (CFG, 100.5, "value_bigger_than_max", "sampler.cfg: must be at most 100.0, got 100.5"),
        (CFG, "high", "invalid_input_type", "sampler.cfg: must be a number, got 'high'"),
        (
            SCHEDULER,
            "karas",
            "value_not_in_list",
            "sampler.scheduler: 'karas' is not a scheduler of KSampler; did you mean 'karras'?",
        ),
        (
            SCHEDULER,
            "xyz",
            "value_not_in_list",
            "sampler.scheduler: 'xyz' is not a scheduler of KSampler. Choose from simple, normal, karras",
        ),
        (
            MANY,
            7,
            "value_not_in_list",
            "sampler.many: 7 is not a many of KSampler. "
            "Choose from 100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111 and 1 more",
        ),
        (
            TWELVE,
            7,
            "value_not_in_list",
            "sampler.twelve: 7 is not a twelve of KSampler. "
            "Choose from 100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111",
        ),
        (
            SEVERAL,
            ["a", "q", "w"],
            "value_not_in_list",
            "sampler.several: 'q', 'w' is not a several of KSampler. Choose from a, b",
        ),
        (SCHEDULER, ["simple"], "value_not_in_list", None),  # a list fills one choice of a multiselect only
        (
            LORA,
            "Qwen-Lightning.safetensors",
            "value_not_in_list",
            "sampler.lora_name: 'Qwen-Lightning.safetensors' is not in models/loras; "
            "did you mean 'Qwen-Image-Lightning-4steps-V2.0.safetensors'?",
        ),
        (
            LORA,
            "x",
            "value_not_in_list",
            "sampler.lora_name: 'x' is not in models/loras. "
            f"Choose from Qwen-Image-Lightning-4steps-V2.0.safetensors, anime.safetensors. {PUT}",
        ),
        (
            InputSpec("lora_name", "COMBO", choices=("Qwen-Image-Lightning-4steps-V1.0.safetensors",), folder="loras"),
            "Qwen-Image-Lightning-4steps-V2.0.safetensors",
            "value_not_in_list",
            "sampler.lora_name: 'Qwen-Image-Lightning-4steps-V2.0.safetensors' is not in models/loras. "
            "Fetch it: python -m pipeline models fetch qwen_image_edit_2509",
        ),
        (
            InputSpec("vae_name", "COMBO", choices=(), folder="vae"),
            "x.pt",
            "value_not_in_list",
            f"sampler.vae_name: 'x.pt' is not in models/vae, which holds no file. {PUT}",
        ),
        (
            InputSpec("model", "MODEL"),
            "sd15",
            "invalid_input_type",
            "sampler.model: needs a link to a MODEL, got 'sd15'. Link it: sampler.model=[NODE,MODEL]",
        ),
        (
            InputSpec("model", "MODEL"),
            0,
            "invalid_input_type",
            "sampler.model: needs a link to a MODEL, got 0. Link it: sampler.model=[NODE,MODEL]",
        ),
    ],
)
def test_what_is_wrong_is_said_with_the_path_the_rule_and_the_value(
    spec: InputSpec, value: Any, code: str, message: str | None
) -> None:
    fault = find_fault(spec, value)
    assert fault is not None
    assert fault[0] == code
    assert fault[1] == (message or fault[1])


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        (STEPS, 1),
        (STEPS, 10_000),
        (CFG, 0),
        (CFG, 100.0),
        (InputSpec("seed", "INT"), -(10**30)),
        (InputSpec("text", "STRING", options={"min": 3}), "a"),  # a range is for numbers
        (SCHEDULER, "simple"),
        (SEVERAL, ["a", "b"]),
        (SEVERAL, "a"),
        (SEVERAL, []),
        (InputSpec("free", "COMBO"), "whatever"),  # choices unknown
        (InputSpec("anything", "*"), 1024),
        (InputSpec("points", "POINTS"), [[0, 1]]),  # a literal list fills a socket too
        (InputSpec("box", "BBOX"), {"x": 0}),
    ],
)
def test_what_is_right_passes(spec: InputSpec, value: Any) -> None:
    assert find_fault(spec, value) is None


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        (InputSpec("color", "COLOR"), "#ff0000"),  # ColorToRGBInt
        (InputSpec("mode", "COMFY_DYNAMICCOMBO_V3"), "custom"),  # ResizeImageMaskNode
        (InputSpec("frame_rate", "FLOAT,INT", options={"widgetType": "FLOAT"}), 25.0),  # LTXVEmptyLatentAudio
    ],
)
def test_the_newer_widgets_of_comfyui_take_a_constant(spec: InputSpec, value: Any) -> None:
    assert check_value("node.x", "K", spec, value) == (value, None)


@settings(deadline=None)
@given(st.integers(-5, 5), st.integers(-5, 5), st.one_of(st.integers(-9, 9), st.floats(-9, 9)))
def test_just_the_numbers_from_min_to_max_pass(low: int, high: int, number: float) -> None:
    value, problem = check_value("n.x", "K", InputSpec("x", "FLOAT", options={"min": low, "max": high}), number)
    assert (value, type(value)) == (number, float)
    assert (problem is None) == (low <= number <= high)


@pytest.mark.parametrize(
    ("spec", "value", "converted"),
    [(STEPS, "0", 0), (SCHEDULER, "nonsense", "nonsense"), (LORA, "x", "x"), (CFG, 1000, 1000.0)],
)
def test_range_and_choice_are_left_to_a_class_that_judges_them_itself(
    spec: InputSpec, value: Any, converted: Any
) -> None:
    assert check_value("n.x", "K", spec, value, judged_by_class=True) == (converted, None)


def test_the_type_is_not_left_to_it() -> None:
    assert find_fault(STEPS, 8.7, judged_by_class=True) == (
        "invalid_input_type",
        "sampler.steps: must be a whole number, got 8.7",
    )
    assert find_fault(InputSpec("model", "MODEL"), "x", judged_by_class=True) is not None
