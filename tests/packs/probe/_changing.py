"""Nodes that change what they read, hand it on as it is, or give less than they declare."""

import torch


class ProbeImage:
    """An image that is 1 everywhere."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "make"
    CATEGORY = "probe"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"size": ("INT", {"default": 8})}}

    def make(self, size):
        return (torch.ones(1, size, size, 3),)


class ProbeMultiply:
    """Multiplies the image in place and gives the same tensor."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "multiply"
    CATEGORY = "probe"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",), "factor": ("FLOAT", {"default": 1.0})}}

    def multiply(self, image, factor):
        return (image.mul_(factor),)


class ProbeMultiplyToo(ProbeMultiply):
    """The same under another name: which classes do it is remembered for the whole process."""


class ProbePass(ProbeMultiply):
    """Gives the image on as it is."""

    def multiply(self, image, factor):
        return (image,)


class ProbeMean(ProbeMultiply):
    """The mean of the image; its `factor` only tells several apart."""

    RETURN_TYPES = ("FLOAT",)

    def multiply(self, image, factor):
        return (float(image.mean()),)


class ProbeCondition:
    """A conditioning with a strength of 1."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "make"
    CATEGORY = "probe"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"size": ("INT", {"default": 4})}}

    def make(self, size):
        return ([[torch.ones(1, size, size), {"strength": 1.0}]],)


class ProbeStrengthen:
    """Multiplies the strength in place, and gives it as a number."""

    RETURN_TYPES = ("FLOAT",)
    FUNCTION = "strengthen"
    CATEGORY = "probe"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"conditioning": ("CONDITIONING",), "factor": ("FLOAT", {"default": 1.0})}}

    def strengthen(self, conditioning, factor):
        conditioning[0][1]["strength"] *= factor
        return (conditioning[0][1]["strength"],)


class ProbeDraw:
    """A latent that is drawn without a seed."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "draw"
    CATEGORY = "probe"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"size": ("INT", {"default": 8})}}

    def draw(self, size):
        return ({"samples": torch.rand(1, 4, size, size)},)


class ProbeFewer(ProbeImage):
    """Declares two outputs and gives one."""

    RETURN_TYPES = ("IMAGE", "FLOAT")


CHANGING = (
    ProbeImage,
    ProbeMultiply,
    ProbeMultiplyToo,
    ProbePass,
    ProbeMean,
    ProbeCondition,
    ProbeStrengthen,
    ProbeFewer,
    ProbeDraw,
)
