"""Nodes whose results are hard to keep: values that are not finite, and tensors of other kinds than the plain one."""

import torch


def make_samples(kind, share):
    samples = torch.zeros(1, 16, 1, 8, 8)
    if kind == "nested":
        import comfy.nested_tensor

        return comfy.nested_tensor.NestedTensor([samples, samples[:, :8, 0] + 1])
    if kind == "sparse":
        return samples.to_sparse()
    if kind == "complex":
        return samples.to(torch.complex64)
    if kind == "flat":
        return samples.reshape(-1)
    if kind == "float8":
        return samples.to(torch.float8_e4m3fn)
    samples.view(-1)[: round(share * samples.numel())] = float(kind)
    return samples


class ResultLatent:
    """Gives a latent in which `share` of the values are what `kind` says."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "make"
    CATEGORY = "probe"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"kind": ("STRING", {"default": "0"}), "share": ("FLOAT", {"default": 0.0})}}

    def make(self, kind, share):
        return ({"samples": make_samples(kind, share)},)


class ResultImage(ResultLatent):
    RETURN_TYPES = ("IMAGE",)

    def make(self, kind, share):
        return (make_samples(kind, share)[:, :3, 0].movedim(1, -1),)


class ResultNothing(ResultLatent):
    """Gives a latent without samples."""

    def make(self, kind, share):
        return ({},)


class ResultLate(ResultLatent):
    """Reports `kind` steps, and runs out of GPU memory the first time that a process calls it."""

    calls = 0

    def make(self, kind, share):
        import comfy.utils

        bar = comfy.utils.ProgressBar(int(kind))
        for _ in range(int(kind)):
            bar.update(1)
        type(self).calls += 1
        if type(self).calls == 1:
            raise torch.cuda.OutOfMemoryError("no memory is left")
        return ({"samples": make_samples("0", 0.0)},)


NODE_CLASS_MAPPINGS = {cls.__name__: cls for cls in (ResultLatent, ResultImage, ResultNothing, ResultLate)}
