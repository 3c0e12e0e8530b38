"""Facts of a GPU, which the machine that runs the tests need not have."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from pipeline.record import machine

NVRM = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\nGCC version: 13\n"


@pytest.mark.parametrize(
    ("name", "mig"), [("NVIDIA H100 80GB HBM3", "none"), ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "1g.10gb")]
)
def test_a_gpu_is_told_with_its_share_and_its_driver(monkeypatch, tmp_path, name, mig):
    found = SimpleNamespace(name=name, major=9, minor=0, multi_processor_count=132, total_memory=85_000_000_000)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: found)
    monkeypatch.setattr(machine, "DRIVER", tmp_path / "version")
    (tmp_path / "version").write_text(NVRM)
    facts = machine.collect_machine("cuda:0")
    assert {name: value for name, value in facts.items() if name.startswith("gpu.")} == {
        "gpu.capability": "9.0",
        "gpu.sm_count": "132",
        "gpu.memory": "85000000000",
        "gpu.mig": mig,
        "gpu.driver": "580.65.06",
    }


def test_variables_that_change_numbers_are_facts_and_no_others(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    facts = machine.collect_machine("cpu")
    assert facts["env.CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert "secret" not in facts.values()
    assert not [name for name in facts if name.startswith("gpu.")]


def test_flags_are_asked_anew(monkeypatch):
    assert machine.collect_machine("cpu")["torch.cudnn_benchmark"] == "False"
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    assert machine.collect_machine("cpu")["torch.cudnn_benchmark"] == "True"
