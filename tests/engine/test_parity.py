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
def random_reference(session):
    from benchmarks.random_graphs import Reference

    return Reference(session)


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


@pytest.mark.parametrize("seed", range(1000, 1020))
def test_a_random_graph_gives_what_comfyuis_own_executor_gives(session, random_reference, seed):
    from benchmarks.random_graphs import find_difference, make_prompt

    difference, _ = find_difference(session, random_reference, make_prompt(seed))
    assert difference is None


IMAGE = {"class_type": "EmptyImage", "inputs": {"width": 24, "height": 16, "batch_size": 3, "color": 0x3366CC}}
MASK = {"class_type": "SolidMask", "inputs": {"value": 0.25, "width": 24, "height": 16}}


def use(class_type: str, **inputs) -> dict:
    return {"class_type": class_type, "inputs": inputs}


CORE_GRAPHS = {
    "image": {
        "image": IMAGE,
        "flip": use("ImageFlip", image=["image", 0], flip_method="x-axis: vertically"),
        "blend": use("ImageBlend", image1=["image", 0], image2=["flip", 0], blend_factor=0.3, blend_mode="screen"),
        "blur": use("ImageBlur", image=["blend", 0], blur_radius=2, sigma=1.5),
        "end": use("ImageSharpen", image=["blur", 0], sharpen_radius=1, sigma=1.0, alpha=0.5),
    },
    "mask": {
        "mask": MASK,
        "grown": use("GrowMask", mask=["mask", 0], expand=-3, tapered_corners=True),
        "feather": use("FeatherMask", mask=["grown", 0], left=2, top=2, right=2, bottom=2),
        "end": use("MaskComposite", destination=["mask", 0], source=["feather", 0], x=4, y=2, operation="subtract"),
    },
    "image and mask": {
        "image": IMAGE,
        "mask": MASK,
        "inverted": use("ImageInvert", image=["image", 0]),
        "end": use(
            "ImageCompositeMasked",
            destination=["image", 0],
            source=["inverted", 0],
            x=0,
            y=0,
            resize_source=False,
            mask=["mask", 0],
        ),
    },
    "latent": {
        "latent": use("EmptyLatentImage", width=128, height=128, batch_size=2),
        "noise": use("LatentBatchSeedBehavior", samples=["latent", 0], seed_behavior="fixed"),
        "crop": use("LatentCrop", samples=["noise", 0], width=64, height=64, x=0, y=0),
        "end": use("LatentMultiply", samples=["crop", 0], multiplier=0.5),
    },
    "upscaling": {
        "image": IMAGE,
        "big": use("ImageScaleBy", image=["image", 0], upscale_method="lanczos", scale_by=1.5),
        "pixels": use(
            "ImageScaleToTotalPixels", image=["big", 0], upscale_method="bicubic", megapixels=0.02, resolution_steps=1
        ),
        "end": use("ImageScale", image=["pixels", 0], upscale_method="area", width=40, height=30, crop="center"),
    },
    "video frames": {
        "image": IMAGE,
        "one": use("RebatchImages", images=["image", 0], batch_size=1),
        "each": use("ImageInvert", image=["one", 0]),
        "frames": use("RebatchImages", images=["each", 0], batch_size=8),
        "video": use("CreateVideo", images=["frames", 0], fps=12.0),
        "end": use("GetVideoComponents", video=["video", 0]),
    },
    "loop by expansion": {"end": use("FlowCountdown", count=6)},
    "text and numbers": {
        "text": use("StringConcatenate", string_a="a", string_b="b", delimiter="-"),
        "end": use("StringLength", string=["text", 0]),
    },
    "custom sigmas": {
        "sigmas": use("KarrasScheduler", steps=4, sigma_max=1.0, sigma_min=0.05, rho=7.0),
        "parts": use("SplitSigmas", sigmas=["sigmas", 0], step=1),
        "choice": use("KSamplerSelect", sampler_name="euler"),
        "end": use(
            "SamplerCustom",
            model=["unet", 0],
            add_noise=True,
            noise_seed=3,
            cfg=2.0,
            positive=["positive", 0],
            negative=["negative", 0],
            sampler=["choice", 0],
            sigmas=["parts", 1],
            latent_image=["latent", 0],
        ),
    },
    "conditioning": {
        "zero": use("ConditioningZeroOut", conditioning=["positive", 0]),
        "late": use("ConditioningSetTimestepRange", conditioning=["zero", 0], start=0.2, end=0.8),
        "both": use("ConditioningCombine", conditioning_1=["late", 0], conditioning_2=["negative", 0]),
        "end": use(
            "ConditioningSetAreaPercentage", conditioning=["both", 0], width=0.5, height=0.5, x=0.1, y=0.1, strength=0.7
        ),
    },
}


@pytest.mark.parametrize("kind", CORE_GRAPHS)
def test_a_core_graph_gives_what_comfyuis_own_executor_gives(session, sampling_nodes, random_reference, kind):
    from benchmarks.random_graphs import find_difference
    from pipeline.graph.api_format import write_api_prompt

    prompt = {**CORE_GRAPHS[kind], "out": use("PreviewAny", source=["end", 0])}
    read = {value[0] for info in prompt.values() for value in info["inputs"].values() if isinstance(value, list)}
    loaders = write_api_prompt(session.check(sampling_nodes(), ["sampler"]).graph)
    prompt |= {name: loaders[name] for name in read - prompt.keys()}
    assert find_difference(session, random_reference, prompt) == (None, True)
