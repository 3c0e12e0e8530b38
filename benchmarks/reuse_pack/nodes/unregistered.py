"""A class whose module is in no `sys.modules`."""

import torch


class UnregisteredTerm:
    """A node whose latent is full of its term."""

    term = 2.0
    RETURN_TYPES = ("LATENT",)
    FUNCTION = "give"
    CATEGORY = "latentgrid/benchmarks"

    @classmethod
    def INPUT_TYPES(cls):
        """Return the inputs in the form that ComfyUI asks for."""
        return {"required": {"size": ("INT", {"default": 8})}}

    def give(self, size):
        """Return the latent."""
        return ({"samples": torch.full((1, 4, size, size), self.term)},)
