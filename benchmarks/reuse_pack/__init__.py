"""A pack whose node returns the sum of all numbers that it depends on; `benchmarks/reuse.py` changes one at a time.

Its helper is in a folder without `__init__.py` and is loaded by its path, as in many packs.
"""

import importlib.util
import os
from pathlib import Path

import comfy.samplers
import folder_paths
import outside_helper
import torch

HERE = Path(__file__).parent


def _load(name):
    spec = importlib.util.spec_from_file_location(name, HERE / "nodes" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


helper = _load("helper")


def _read(path):
    return float(Path(path).read_text())


class ReuseProbe:
    """A node that adds up numbers from code, files, folders, the environment and ComfyUI's core."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "add"
    CATEGORY = "latentgrid/benchmarks"

    @classmethod
    def INPUT_TYPES(cls):
        """Return the inputs in the form that ComfyUI asks for."""
        folder_paths.get_filename_list("vae_approx")
        named = [path.name for root in folder_paths.get_folder_paths("diffusers") for path in Path(root).glob("*")]
        return {
            "required": {
                "constant": ("FLOAT", {"default": 0.0}),
                "path": ("STRING", {"default": ""}),
                "folder": ("STRING", {"default": ""}),
                "text": ("STRING", {"default": ""}),
                "short": (["taeprobe"],),
                "model_path": (named,),
            }
        }

    def add(self, constant, path, folder, text, short, model_path):
        """Return a latent that is full of the sum."""
        embedding = text.split("embedding:")[1].split()[0]
        terms = [
            constant,
            helper.TERM,
            _read(HERE / "data.txt"),
            _read(HERE / "data.json"),
            outside_helper.TERM,
            getattr(comfy.samplers, "TERM", 0.0),
            _read(path),
            *(_read(one) for one in sorted(Path(folder).iterdir())),
            _read(folder_paths.get_full_path("embeddings", f"{embedding}.pt")),
            _read(folder_paths.get_full_path("vae_approx", f"{short}_encoder.pth")),
            _read(Path(folder_paths.get_folder_paths("diffusers")[0], model_path, "model.txt")),
            float(os.environ.get("REUSE_TERM", 0)),
            UnregisteredTerm.term,
        ]
        return ({"samples": torch.full((1, 4, 8, 8), sum(terms), dtype=torch.float32)},)


UnregisteredTerm = _load("unregistered").UnregisteredTerm


class ReuseMultiply:
    """A node that multiplies its image in place, which ComfyUI's documentation asks nodes not to do."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "multiply"
    CATEGORY = "latentgrid/benchmarks"

    @classmethod
    def INPUT_TYPES(cls):
        """Return the inputs in the form that ComfyUI asks for."""
        return {"required": {"image": ("IMAGE",), "factor": ("FLOAT", {"default": 1.0})}}

    def multiply(self, image, factor):
        """Return the image as a latent."""
        return ({"samples": image.mul_(factor).movedim(-1, 1).clone()},)


NODE_CLASS_MAPPINGS = {
    "ReuseProbe": ReuseProbe,
    "ReuseMultiply": ReuseMultiply,
    "ReuseUnregistered": UnregisteredTerm,
}
