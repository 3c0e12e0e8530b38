"""The exceptions, their messages, and did-you-mean."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import errors
from pipeline.errors import ConfigError, CycleError, NodeError, PipelineError, Problem, did_you_mean

STEPS = Problem("value_smaller_than_min", "sampler.steps", "must be at least 1, got 0")
MODEL = Problem("return_type_mismatch", "sampler.model", "needs MODEL, but [positive, CONDITIONING] is CONDITIONING")


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    drawn, parents = {}, {}
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    ([│ ├└─]*)(\w+Error|\w+Interrupted)\b", line)
        if found:
            depth = len(found[1]) // 4
            parents[depth] = found[2]
            drawn[found[2]] = parents.get(depth - 1, "Exception")
    classes = {
        name: cls.__base__.__name__
        for name, cls in inspect.getmembers(errors, inspect.isclass)
        if issubclass(cls, Exception)
    }
    assert drawn == classes
    assert drawn["PipelineError"] == "Exception"


def test_a_problem_reads_path_then_message() -> None:
    assert str(STEPS) == "sampler.steps: must be at least 1, got 0"


@pytest.mark.parametrize(
    ("problems", "message"),
    [
        ([], ""),
        ([STEPS], "sampler.steps: must be at least 1, got 0"),
        (
            [STEPS, MODEL],
            "sampler.steps: must be at least 1, got 0\n"
            "sampler.model: needs MODEL, but [positive, CONDITIONING] is CONDITIONING",
        ),
    ],
)
def test_a_config_error_lists_every_problem(problems: list[Problem], message: str) -> None:
    error = ConfigError(problem for problem in problems)
    assert (str(error), error.problems) == (message, tuple(problems))


def test_a_cycle_error_shows_the_circle() -> None:
    error = CycleError(["sampler", "refine", "sampler"])
    assert str(error) == "graph has a cycle: sampler -> refine -> sampler"
    assert error.nodes == ("sampler", "refine", "sampler")
    assert error.problems == (Problem("dependency_cycle", "graph has a cycle", "sampler -> refine -> sampler"),)


def test_a_node_error_names_node_class_cause_and_inputs() -> None:
    inputs = {"model": "[lora, MODEL]", "steps": "4"}
    error = NodeError("sampler", "KSampler", inputs, ValueError("bad shape"))
    assert str(error) == ("sampler: KSampler failed: ValueError: bad shape\n  inputs: model=[lora, MODEL], steps=4")
    assert (error.node, error.class_type, error.inputs) == ("sampler", "KSampler", inputs)
    assert error.inputs is not inputs


@pytest.mark.parametrize(
    "error",
    [
        PipelineError("x"),
        ConfigError([STEPS, MODEL]),
        CycleError(["a", "b", "a"]),
        NodeError("sampler", "KSampler", {"steps": "4"}, ValueError("bad shape")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_reaches_another_process_unchanged(error: PipelineError) -> None:
    """As a process pool, or a launcher of Hydra that uses one, sends it."""
    sent = pickle.loads(pickle.dumps(error))
    assert (type(sent), str(sent)) == (type(error), str(error))
    assert vars(sent) == vars(error)


# Did you mean

SCHEDULERS = ["simple", "sgm_uniform", "karras", "exponential", "normal"]


@pytest.mark.parametrize(
    ("word", "choices", "found"),
    [
        ("karas", SCHEDULERS, "karras"),
        ("KARRAS", SCHEDULERS, "karras"),
        ("ksampler", ["KSampler", "KSamplerAdvanced"], "KSampler"),
        ("uniform", SCHEDULERS, "sgm_uniform"),  # contained in a choice
        ("exp", SCHEDULERS, "exponential"),
        ("simple_v2_of_something", SCHEDULERS, "simple"),  # contains a choice
        ("xyz", SCHEDULERS, None),
        ("s", SCHEDULERS, None),  # too short to be contained
        ("in", ["linear", "x" * 20], None),
        ("a_long_word_with_in_in_it", ["in"], None),
        ("", SCHEDULERS, None),
        ("karas", [], None),
        (4, [8, 40], "40"),
        (None, ["none"], "none"),
        ("sampler.stpes", ["sampler.steps", "sampler.cfg"], "sampler.steps"),
        (
            "Qwen-Lightning.safetensors",
            ["Qwen-Image-Lightning-4steps-V2.0.safetensors", "anime.safetensors"],
            "Qwen-Image-Lightning-4steps-V2.0.safetensors",
        ),
    ],
)
def test_the_nearest_choice_is_offered(word: object, choices: list[object], found: str | None) -> None:
    assert did_you_mean(word, choices) == (f"; did you mean {found!r}?" if found else "")
    assert did_you_mean(word, iter(choices)) == did_you_mean(word, choices)


@settings(deadline=None, max_examples=60)
@given(st.text("abcdefgh", min_size=5, max_size=12), st.data())
def test_a_letter_too_few_too_many_or_wrong_is_forgiven(choice: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(choice) - 1))
    typo = data.draw(st.sampled_from(["", "z", choice[place] * 2]))
    word = choice[:place] + typo + choice[place + 1 :]
    assert did_you_mean(word.upper(), ["qqqq", choice, "0123456789"]) == f"; did you mean {choice!r}?"


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=8), st.lists(st.text(max_size=8), max_size=4))
def test_only_choices_are_offered(word: str, choices: list[str]) -> None:
    offered = did_you_mean(word, choices)
    assert offered in ["", *(f"; did you mean {choice!r}?" for choice in choices)]
