"""One table of facts: what a run records, what its identity holds, and what rerun and resume name."""

from __future__ import annotations

import re

import pytest

from pipeline.config.read import compose_config, read_config
from pipeline.record.differences import compare_facts, find_differences
from pipeline.record.fact_table import KINDS, TELLS_NOTHING, find_kind, select_key_facts
from pipeline.runs.facts import collect_key_facts, collect_run_facts
from pipeline.runs.run import identify
from tests.conftest import PROBES

EXAMPLES = {
    # fact: whether it is part of the identity
    "seed.sampler.seed": False,
    "graph.sampler.steps": False,
    "batch.node": False,
    "file.unet.unet_name": False,
    "tensor.sampler": False,
    "shape.sampler": False,
    "dtype.unet": False,
    "code.KSampler": True,
    "pack.probe.code": True,
    "pack.all.packages": True,
    "pack.probe": False,
    "version.comfyui": True,
    "comfyui.code": True,
    "comfyui.args": True,
    "comfyui.commit": False,
    "reproducible": True,
    "comfyui.attention": True,
    "comfyui.vram_state": True,
    "dynamic_vram": True,
    "torch.threads": True,
    "torch.cudnn_tf32": True,
    "device.type": True,
    "gpu": True,
    "gpu.capability": True,
    "gpu.driver": True,
    "version.torch": True,
    "version.identity": True,
    "device": False,
    "git.commit": False,
    "package.numpy": True,
    "package.comfy-kitchen": True,
    "package.comfy-aimdo": True,
    "package.sageattention": True,
    "package.xformers": True,
    "package.flash-attn": True,
    "package.comfyui-frontend-package": False,
    "host.cpu_capability": True,
    "host.libc": True,
    "host.cpu": False,
    "cpu.model": True,
    "env.CUDA_VISIBLE_DEVICES": False,
    "env.TORCHINDUCTOR_CACHE_DIR": False,
    "env.HOME": False,
    "env.CUBLAS_WORKSPACE_CONFIG": True,
    "env.PYTORCH_CUDA_ALLOC_CONF": True,
    "env.MY_FACTOR": True,
    "package.mlflow": False,
}
NO_CAUSE = ("host.name", "host.os", "process.order", "process.folder", "cached", "order")


@pytest.fixture(scope="module")
def checked(session):
    read = read_config(compose_config([*PROBES, "experiment=tiny", "sampler.steps=2"]))
    return read, session.check(read.graph, read.run.outputs)


@pytest.fixture(scope="module")
def recorded(session, checked):
    """All facts of the record of a run."""
    read, graph = checked
    return collect_run_facts("a", {}, (), read, graph, session, identify(session, read, graph), {}).all_facts


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.pattern)
def test_each_row_has_an_example(kind):
    assert [fact for fact in EXAMPLES if find_kind(fact) is kind]


@pytest.mark.parametrize(("fact", "in_key"), EXAMPLES.items())
def test_the_identity_follows_from_the_facts_in_the_key_and_from_no_others(session, checked, recorded, fact, in_key):
    assert (fact in select_key_facts({fact: "1"})) is in_key
    _, graph = checked
    before, after = (
        session.identify(graph, {}, select_key_facts({**recorded, fact: value})).key for value in ("one", "two")
    )
    assert (before != after) is in_key


def test_the_absence_of_a_fact_in_the_key_is_another_identity(session, checked, recorded):
    _, graph = checked
    with_it = session.identify(graph, {}, select_key_facts({**recorded, "env.MY_FACTOR": "1"}))
    assert with_it.key != session.identify(graph, {}, select_key_facts(recorded)).key


def test_what_is_no_cause_is_in_no_row():
    assert [fact for fact in NO_CAUSE if find_kind(fact)] == []


def test_the_key_has_facts_that_a_run_records_with_the_same_texts(session, checked, recorded):
    read, graph = checked
    facts = collect_key_facts(read, graph, session)
    assert facts.items() <= recorded.items()
    assert facts == select_key_facts(recorded)
    assert {"comfyui.code", "code.KSampler", "version.identity", "package.numpy", "torch.threads"} <= facts.keys()


def test_what_a_run_records_is_in_a_row_or_known_to_change_nothing(recorded):
    known = re.compile(r"host\.(name|os)|process\..+|mlflow\..+|order|cached.*")
    unknown = [fact for fact in recorded if not find_kind(fact) and not known.fullmatch(fact)]
    assert [fact for fact in unknown if not TELLS_NOTHING.match(fact)] == []


@pytest.mark.parametrize("fact", [fact for fact, in_key in EXAMPLES.items() if in_key])
def test_rerun_and_resume_name_the_same_cause(fact):
    before, after = {"host.name": "a", fact: "1"}, {"host.name": "a", fact: "2"}
    assert find_differences(before, after) == compare_facts(before, after) != []
    assert [one.fact for one in compare_facts(before, {"host.name": "a"})] == [fact]


def test_the_likeliest_cause_comes_first():
    before = dict.fromkeys(reversed(EXAMPLES), "1")
    named = [one.fact for one in compare_facts(before, dict.fromkeys(before, "2"))]
    assert [KINDS.index(find_kind(fact)) for fact in named] == sorted(KINDS.index(find_kind(fact)) for fact in named)
