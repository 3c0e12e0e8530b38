"""Nodes that change what they read: every node still reads outputs as their node made them."""

from __future__ import annotations

from collections import namedtuple

import pytest
import torch

from pipeline.base.events import NodeStarted
from pipeline.engine.seal import copy_value, list_storages, make_seal, sum_words
from pipeline.errors import NodeError
from tests.engine.test_session import make_graph


@pytest.fixture
def fresh(session):
    """A session that has loaded nothing and knows of no node that changes its inputs."""
    session.clear()
    session.use_cache("classic")
    session._executor._changers.clear()
    yield session
    session._executor._changers.clear()


def run(session, *targets: str, is_read_later=None, **nodes):
    """The mean of the first output of each target."""
    execution = session.run(session.check(make_graph(**nodes), targets), is_read_later=is_read_later)
    outputs = [execution.outputs[name].outputs[0][0] for name in targets]
    return [float(one.mean()) if isinstance(one, torch.Tensor) else one for one in outputs]


IMAGE = ("ProbeImage", {"size": 8})


def multiply(source: str, factor: float, class_type: str = "ProbeMultiply"):
    return class_type, {"image": [source, "IMAGE"], "factor": factor}


def test_a_sweep_over_a_node_that_changes_its_input_gives_what_each_cell_gives_alone(fresh, caplog):
    found = [run(fresh, "mut", image=IMAGE, mut=multiply("image", factor)) for factor in (0.5, 0.25, 0.125)]
    assert found == [[0.5], [0.25], [0.125]]
    said = [record.getMessage() for record in caplog.records if "in place" in record.getMessage()]
    assert said == ["mut (ProbeMultiply) changes the outputs of image in place. It gets copies from now on"]


def test_one_tensor_in_two_inputs_stays_one_in_the_copies(fresh):
    nodes = {"image": IMAGE, "mut": ("ProbeHalve", {"image": ["image", 0], "other": ["image", 0], "factor": 0.5})}
    before = run(fresh, "mut", **nodes)
    fresh._executor._changers.add("ProbeHalve")
    fresh.clear()
    assert run(fresh, "mut", **nodes) == before == [1.0]


def test_what_a_node_holds_on_to_is_made_anew(fresh):
    kept = ("ProbeKept", {"size": 8})
    found = [run(fresh, "mut", image=kept, mut=multiply("image", factor)) for factor in (0.5, 0.25, 0.125)]
    assert found == [[0.5], [0.25], [0.125]]


def test_a_run_that_begins_again_keeps_what_was_not_changed(fresh):
    nodes = {
        "cost": ("ProbeAdd", {"a": 1, "b": 2}),
        "use": ("ProbeAdd", {"a": ["cost", 0], "b": 1}),
        "image": IMAGE,
        "mut": multiply("image", 0.5),
        "mean": multiply("image", 1.0, "ProbeMean"),
    }
    began = []
    checked = fresh.check(make_graph(**nodes), ["use", "mut", "mean"])
    fresh.run(
        checked, lambda event: began.append(event.node) if isinstance(event, NodeStarted) else None, lambda key: False
    )
    assert began.count("image") == 2
    assert (began.count("cost"), began.count("use")) == (1, 1)


def test_metadata_of_a_conditioning_as_well(fresh):
    def strengthen(factor):
        nodes = {
            "cond": ("ProbeCondition", {"size": 4}),
            "mut": ("ProbeStrengthen", {"conditioning": ["cond", 0], "factor": factor}),
        }
        return run(fresh, "mut", **nodes)

    assert [strengthen(factor) for factor in (2.0, 3.0, 5.0)] == [[2.0], [3.0], [5.0]]


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_readers_of_one_run_see_the_same_whichever_comes_first(fresh, names):
    first, second = names
    nodes = {"image": IMAGE, first: multiply("image", 0.5), second: multiply("image", 1.0, "ProbeMean")}
    assert run(fresh, "a", "b", "image", **nodes) == ([0.5, 1.0, 1.0] if first == "a" else [1.0, 0.5, 1.0])


def test_several_that_change_it(fresh):
    nodes = {"image": IMAGE, "a": multiply("image", 0.5), "b": multiply("image", 0.25, "ProbeMultiplyToo")}
    assert run(fresh, "a", "b", "image", **nodes) == [0.5, 0.25, 1.0]


def test_what_is_handed_on_as_it_is_changes_with_it(fresh):
    """`kept` has the memory of `image`, has one reader and does not stay, and must not be read after it was changed."""
    nodes = {
        "image": IMAGE,
        "kept": multiply("image", 1.0, "ProbePass"),
        "mut": multiply("image", 0.5),
        "late": ("ProbeMean", {"image": ["kept", 0], "factor": 1.0}),
    }
    assert run(fresh, "kept", "late", "mut", **nodes) == [1.0, 1.0, 0.5]
    fresh.clear()
    fresh._executor._changers.clear()
    assert run(fresh, "mut", "late", is_read_later=lambda key: False, **nodes) == [0.5, 1.0]


def test_a_node_may_give_on_what_it_has_changed(fresh):
    nodes = {"image": IMAGE, "a": multiply("image", 0.5), "b": multiply("a", 0.5), "c": multiply("a", 1.0, "ProbeMean")}
    assert run(fresh, "a", "b", "c", **nodes) == [0.5, 0.25, 0.5]


def test_outputs_that_somebody_else_changed_are_made_again(fresh, caplog):
    checked = fresh.check(make_graph(image=IMAGE, mean=multiply("image", 1.0, "ProbeMean")), ["image", "mean"])
    given = fresh.run(checked).outputs["image"].outputs[0][0]
    with torch.inference_mode():
        given.mul_(7.0)
    assert run(fresh, "image", "other", image=IMAGE, other=multiply("image", 2.0, "ProbeMean")) == [1.0, 1.0]


def test_nothing_is_sealed_that_has_one_reader_and_does_not_stay(fresh, monkeypatch):
    sealed = []
    cache = fresh._executor.cache
    monkeypatch.setattr(type(cache), "seal", lambda self, key: sealed.append(key))
    nodes = {"image": IMAGE, "mean": multiply("image", 1.0, "ProbeMean")}
    assert run(fresh, "mean", is_read_later=lambda key: False, **nodes) == [1.0]
    assert sealed == []


def test_an_async_node_reads_what_was_made_although_others_run_before_it_goes_on(fresh):
    nodes = {"image": IMAGE, "slow": multiply("image", 1.0, "ProbeSlowMean"), "mut": multiply("image", 0.5)}
    assert run(fresh, "slow", "mut", **nodes) == [1.0, 0.5]


def change_kind(kind: str, factor: float) -> dict:
    source = {"value": ["one", 0], "factor": factor}
    return {
        "one": ("ProbeKind", {"kind": kind}),
        "mut": ("ProbeMultiplyKind", source),
        "x": ("ProbeEcho", {"value": ["mut", 1]}),
    }


@pytest.mark.parametrize("kind", ["array", "parts", "nested", "list"])
def test_outputs_in_any_form_are_read_as_they_were_made(fresh, kind, caplog):
    assert [run(fresh, "x", **change_kind(kind, factor)) for factor in (0.5, 0.25)] == [[0.5], [0.25]]
    caplog.clear()  # it is known by now, and gets copies
    kept = fresh.run(fresh.check(make_graph(**change_kind(kind, 0.125)), ["one", "x"]))
    assert kept.outputs["x"].outputs == [[0.125]]
    assert kept.cached == ("one",)
    assert not caplog.records


@pytest.mark.parametrize("kind", ["array", "list"])
def test_what_is_handed_on_without_a_tensor_changes_with_it_too(fresh, kind):
    nodes = {
        "one": ("ProbeKind", {"kind": kind}),
        "kept": ("ProbeReadKind", {"value": ["one", 0], "factor": 1.0}),
        "mut": ("ProbeMultiplyKind", {"value": ["one", 0], "factor": 0.5, "after": ["kept", 1]}),
        "late": ("ProbeReadKind", {"value": ["kept", 0], "factor": 1.0, "after": ["mut", 1]}),
        "x": ("ProbeEcho", {"value": ["late", 1]}),
    }
    assert run(fresh, "x", is_read_later=lambda key: False, **nodes) == [1.0]


@pytest.mark.parametrize("asks", [False, True])
def test_a_missing_output_that_is_linked_to_a_lazy_input_is_missed_when_it_is_asked_for(fresh, asks):
    inputs = {"a": ["few", 0], "asks": asks, "b": ["few", 1]}
    nodes = {"few": ("ProbeFewer", {"size": 8}), "lazy": ("ProbeLazy", inputs)}
    if not asks:
        assert run(fresh, "lazy", **nodes) == [1.0]
        return
    with pytest.raises(NodeError, match=r"few: ProbeFewer .*returned 1 of its 2 outputs, but lazy reads \[few, 1\]"):
        run(fresh, "lazy", **nodes)


def test_a_missing_output_is_the_error_of_the_node_that_owes_it(fresh):
    nodes = {"few": ("ProbeFewer", {"size": 8}), "add": ("ProbeMultiply", {"image": ["few", 0], "factor": ["few", 1]})}
    with pytest.raises(NodeError, match=r"few: ProbeFewer .*returned 1 of its 2 outputs, but add reads \[few, 1\]"):
        run(fresh, "add", **nodes)
    assert run(fresh, "mean", few=("ProbeFewer", {"size": 8}), mean=multiply("few", 1.0, "ProbeMean")) == [1.0]


CHANGES = {
    "all": lambda one: one.mul_(0.5),
    "one": lambda one: one[0, 3, 4].add_(1e-6),
    "order": lambda one: one.copy_(one.flip(1).clone()),
    "sign of zero": lambda one: one[0, 0, 0].neg_(),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.uint8])
@pytest.mark.parametrize("change", ["all", "order"])
def test_a_seal_shows_every_change(change, dtype):
    value = (torch.arange(2 * 8 * 9).reshape(2, 8, 9) + 1).to(dtype)
    before = make_seal([{"samples": value}])
    words = sum_words(value.contiguous().reshape(-1).view(torch.uint8))
    assert before == make_seal([{"samples": value.clone()}])
    CHANGES[change](value) if dtype != torch.uint8 else value.copy_(value.flip(1).clone())
    assert before != make_seal([{"samples": value}])
    assert words != sum_words(value.contiguous().reshape(-1).view(torch.uint8))


@pytest.mark.parametrize("change", ["one", "sign of zero"])
def test_a_seal_shows_a_change_of_one_bit(change):
    value = torch.zeros(2, 8, 9)
    before, words = make_seal(value), sum_words(value.reshape(-1).view(torch.uint8))
    CHANGES[change](value)
    assert before != make_seal(value)
    assert words != sum_words(value.reshape(-1).view(torch.uint8))


def test_a_sum_of_words_goes_on_over_chunks(monkeypatch):
    monkeypatch.setattr("pipeline.engine.seal.CHUNK", 16)
    value = torch.arange(64, dtype=torch.int32)
    first = sum_words(value.view(torch.uint8))
    halves = torch.cat([value[32:], value[:32]])
    assert first != sum_words(halves.view(torch.uint8))


def test_structure_counts_and_a_copy_has_memory_of_its_own():
    value = {"a": [torch.ones(3)], "b": (1, "x", None)}
    copied = copy_value(value)
    assert make_seal(copied) == make_seal(value) != make_seal({**value, "b": (1, "y", None)})
    assert not {*list_storages(value)} & {*list_storages(copied)}
    pair = namedtuple("pair", "a b")(torch.ones(2), 1)
    assert type(copy_value(pair)) is type(pair) and copy_value(pair).a is not pair.a
    model = object()
    assert copy_value([model])[0] is model


def test_a_copy_keeps_its_kind_and_what_is_one_object_in_several_places():
    class Named(dict):
        pass

    one = torch.ones(2)
    first, second = copy_value([one, one])
    assert first is second is not one
    assert type(copy_value(Named(a=1))) is Named
    itself = [1]
    itself.append(itself)
    copied = copy_value(itself)
    assert copied[1] is copied is not itself
    assert make_seal(itself) == make_seal(itself)
