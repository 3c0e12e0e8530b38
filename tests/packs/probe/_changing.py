"""Nodes that change what they read, hand it on as it is, or give less than they declare."""

import asyncio
import collections

import numpy as np
import torch
from comfy.nested_tensor import NestedTensor


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


class ProbeMultiplyToLatent(ProbeMultiply):
    """The same; gives what it changed as a latent, because that is kept."""

    RETURN_TYPES = ("LATENT",)

    def multiply(self, image, factor):
        return ({"samples": image.mul_(factor).movedim(-1, 1).clone()},)


class ProbePass(ProbeMultiply):
    """Gives the image on as it is."""

    def multiply(self, image, factor):
        return (image,)


class ProbeMean(ProbeMultiply):
    """The mean of the image; its `factor` only tells several apart."""

    RETURN_TYPES = ("FLOAT",)

    def multiply(self, image, factor):
        return (float(image.mean()),)


class ProbeHalve(ProbeMultiply):
    """Multiplies the image in place and adds the other one."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",), "other": ("IMAGE",), "factor": ("FLOAT", {"default": 1.0})}}

    def multiply(self, image, other, factor):
        return (image.mul_(factor) + other,)


class ProbeKept(ProbeImage):
    """An image that is 1 everywhere, and that the node holds on to."""

    def __init__(self):
        self.kept = {}

    def make(self, size):
        return (self.kept.setdefault(size, torch.ones(1, size, size, 3)),)


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


class ProbeNoise(ProbeDraw):
    """Adds to a latent what it draws without a seed."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"samples": ("LATENT",)}}

    def draw(self, samples):
        return ({**samples, "samples": samples["samples"] + torch.rand_like(samples["samples"])},)


class ProbeSlowMean(ProbeMultiply):
    """The mean of the image, which it reads after others had time to run."""

    RETURN_TYPES = ("FLOAT",)

    async def multiply(self, image, factor):
        await asyncio.sleep(0.05)
        return (float(image.mean()),)


Part = collections.namedtuple("Part", "mask label")


class ProbeKind:
    """Ones in a form that packs hand from node to node."""

    RETURN_TYPES = ("*",)
    FUNCTION = "make"
    CATEGORY = "probe"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"kind": (["array", "parts", "nested", "list"],)}}

    def make(self, kind):
        if kind == "array":
            return (np.ones(2),)
        if kind == "parts":
            return ((2, [Part(torch.ones(2), "a")]),)
        if kind == "nested":
            return ({"samples": NestedTensor([torch.ones(1, 2), torch.ones(1, 3)])},)
        return ([1.0],)


class ProbeMultiplyKind:
    """Multiplies them in place; gives them and their first number."""

    RETURN_TYPES = ("*", "FLOAT")
    FUNCTION = "multiply"
    CATEGORY = "probe"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("*",), "factor": ("FLOAT", {"default": 1.0})}, "optional": {"after": ("*",)}}

    def multiply(self, value, factor, after=None):
        ones = self.find(value)
        ones[0] *= factor
        return (value, float(ones[0]))

    def find(self, value):
        if isinstance(value, dict):
            return value["samples"].tensors[0][0]
        return value[1][0].mask if isinstance(value, tuple) else value


class ProbeReadKind(ProbeMultiplyKind):
    """Gives the same without changing them."""

    def multiply(self, value, factor, after=None):
        return (value, float(self.find(value)[0]))


class ProbeLazy:
    """Gives `a` and asks for `b` only if `asks`."""

    RETURN_TYPES = ("*",)
    FUNCTION = "give"
    CATEGORY = "probe"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"a": ("*",), "asks": ("BOOLEAN",), "b": ("*", {"lazy": True})}}

    def check_lazy_status(self, a, asks, b=None):
        return ["b"] if asks else []

    def give(self, a, asks, b=None):
        return (a,)


class ProbeFewer(ProbeImage):
    """Declares two outputs and gives one."""

    RETURN_TYPES = ("IMAGE", "FLOAT")


CHANGING = (
    ProbeImage,
    ProbeMultiply,
    ProbeMultiplyToo,
    ProbeMultiplyToLatent,
    ProbeHalve,
    ProbeKept,
    ProbePass,
    ProbeMean,
    ProbeCondition,
    ProbeStrengthen,
    ProbeFewer,
    ProbeDraw,
    ProbeNoise,
    ProbeSlowMean,
    ProbeKind,
    ProbeMultiplyKind,
    ProbeReadKind,
    ProbeLazy,
)
