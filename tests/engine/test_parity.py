"""Our executor against ComfyUI's own, on the same API-format prompt: equal bit for bit."""

from __future__ import annotations

import asyncio

import pytest
import torch

from pipeline.graph.api_format import write_api_format


@pytest.fixture(scope="module")
def reference(session):
    """ComfyUI's own executor, as its server makes it in classic mode."""
    import server

    execution = session.comfyui.execution
    return execution.PromptExecutor(
        server.PromptServer.instance,
        cache_type=execution.CacheType.CLASSIC,
        cache_args={"lru": 0, "ram": 0.0, "ram_inactive": 0.0},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory, session):
    """Where SaveLatent writes: it asks when it is made, and the reference executor makes it once."""
    path = tmp_path_factory.mktemp("reference")
    session.set_output_folder(path)
    return path


@pytest.fixture
def comfyui_latent(session, reference, folder, request):
    """Runs a prompt by ComfyUI's PromptExecutor and returns the latent of its node `sampler`."""
    from safetensors.torch import load_file

    def run(prompt: dict) -> torch.Tensor:
        name = str(abs(hash(request.node.name)))
        prompt = {
            **prompt,
            "save": {"class_type": "SaveLatent", "inputs": {"samples": ["sampler", 0], "filename_prefix": name}},
        }
        valid, error, outputs, _ = asyncio.run(session.comfyui.execution.validate_prompt("reference", prompt, None))
        assert valid, error
        reference.execute(prompt, "reference", {}, outputs)
        assert reference.success
        return load_file(folder / f"{name}_00001_.latent")["latent_tensor"]

    return run


@pytest.mark.parametrize(
    "settings",
    [
        {"seed": 42},
        {"seed": 2**64 - 1, "steps": 3, "sampler_name": "dpmpp_2m", "scheduler": "karras"},
        {"cfg": 2.5, "denoise": 0.6, "sampler_name": "euler_ancestral"},
    ],
)
def test_the_latent_is_the_one_of_comfyuis_own_executor(session, sampling_nodes, comfyui_latent, settings):
    checked = session.check(sampling_nodes(**settings), ["sampler"])
    ours = session.run(checked).outputs["sampler"].outputs[0][0]["samples"]
    assert torch.equal(ours, comfyui_latent(write_api_format(checked.graph)))
    assert ours.isfinite().all()


def test_a_bypassed_lora_is_a_graph_without_it(session, sampling_nodes, comfyui_latent):
    from dataclasses import replace

    from pipeline.graph.model import Graph

    graph = sampling_nodes()
    bypassed = session.check(Graph({**graph, "lora": replace(graph["lora"], bypassed=True)}), ["sampler"])
    assert "lora" not in bypassed.order
    without = session.run(bypassed).outputs["sampler"].outputs[0][0]["samples"]
    assert torch.equal(without, comfyui_latent(write_api_format(bypassed.graph)))
    with_lora = session.run(session.check(graph, ["sampler"])).outputs["sampler"].outputs[0][0]["samples"]
    assert not torch.equal(with_lora, without)


def test_a_grid_loads_the_checkpoint_and_patches_the_lora_once(session, sampling_nodes, monkeypatch):
    import comfy.model_patcher
    import comfy.sd

    session.clear()
    loads, patches = [], []
    load, patch = comfy.sd.load_diffusion_model, comfy.model_patcher.ModelPatcher.patch_weight_to_device
    monkeypatch.setattr(comfy.sd, "load_diffusion_model", lambda *a, **k: loads.append(a) or load(*a, **k))
    monkeypatch.setattr(
        comfy.model_patcher.ModelPatcher,
        "patch_weight_to_device",
        lambda self, key, *a, **k: patches.append(key) or patch(self, key, *a, **k),
    )
    for steps in (1, 2):
        for seed in (1, 2, 3):
            session.run(session.check(sampling_nodes(steps=steps, seed=seed), ["sampler"]))
    assert len(loads) == 1
    assert patches
    assert len(patches) == len(set(patches))
