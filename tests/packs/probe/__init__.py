"""Nodes that let the tests see how nodes are called: both generations, async, lists, failures, fingerprints."""

import asyncio
import pathlib

import folder_paths
import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker
from server import PromptServer

from ._changing import CHANGING

CALLS: list[str] = []


@PromptServer.instance.routes.get("/probe")
async def answer(request):
    """Packs declare routes when they are imported, although nobody will serve them here."""


class ProbeAdd:
    """Adds two whole numbers. V1; counts its calls."""

    RETURN_TYPES = ("INT",)
    RETURN_NAMES = ("sum",)
    FUNCTION = "add"
    CATEGORY = "probe"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"a": ("INT", {"default": 0}), "b": ("INT", {"default": 0, "min": 0, "max": 100})}}

    def add(self, a, b):
        CALLS.append("ProbeAdd")
        return (a + b,)


class ProbeAsync(ProbeAdd):
    """The same, but its function waits."""

    async def add(self, a, b):
        await asyncio.sleep(0.01)
        CALLS.append("ProbeAsync")
        return (a + b,)


class ProbeFail:
    RETURN_TYPES = ("INT",)
    FUNCTION = "fail"
    CATEGORY = "probe"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("INT",), "text": ("STRING", {"default": ""})}}

    def fail(self, value, text):
        raise RuntimeError("this probe always fails")


class ProbeOutOfMemory(ProbeAdd):
    FUNCTION = "fill"

    def fill(self, a, b):
        """Runs out of GPU memory the first `a` times that a process calls it."""
        CALLS.append("ProbeOutOfMemory")
        if CALLS.count("ProbeOutOfMemory") <= a:
            raise torch.cuda.OutOfMemoryError("no memory is left")
        return (b,)


class ProbeSave(ProbeAdd):
    """Writes a number into a file that always has the same name."""

    RETURN_TYPES = ()
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("INT", {"default": 0})}}

    def add(self, value):
        path = pathlib.Path(folder_paths.get_output_directory(), "number.txt")
        path.write_text(str(value))
        return {"ui": {"text": [path.name]}}


class ProbeChanging(ProbeAdd):
    """Says that it has changed, every time."""

    @classmethod
    def IS_CHANGED(cls, **inputs):
        return float("nan")


class ProbeJudge(ProbeAdd):
    """Judges its own input `a`, which may then be out of any range."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"a": ("INT", {"max": 10}), "b": ("INT", {"default": 0})}}

    @classmethod
    def VALIDATE_INPUTS(cls, a):
        return True if a % 2 == 0 else "must be even"


class ProbeTyped(ProbeAdd):
    """Judges the types of what is linked, which ComfyUI then leaves to it."""

    @classmethod
    def VALIDATE_INPUTS(cls, input_types):
        if input_types["a"] == "LATENT":
            raise ValueError("no idea what to do with a latent")
        return True if input_types["a"] == "INT" else f"a must be INT, got {input_types['a']}"


class ProbeEcho:
    """Gives back what it got."""

    RETURN_TYPES = ("*",)
    FUNCTION = "echo"
    CATEGORY = "probe"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("*",)}}

    @classmethod
    def IS_CHANGED(cls, value):
        return repr(value)

    def echo(self, value):
        return (value,)


class ProbeName:
    """Gives the name of its own node."""

    RETURN_TYPES = ("STRING",)
    FUNCTION = "name"
    CATEGORY = "probe"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}, "hidden": {"name": "UNIQUE_ID"}}

    def name(self, name):
        return (name,)


class ProbeBlock:
    """Blocks what reads it, with a message or silently."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "block"
    CATEGORY = "probe"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"message": ("STRING", {"default": ""})}}

    def block(self, message):
        return (ExecutionBlocker(message or None),)


class AnyNames(dict):
    """How packs declare that they take inputs of any name."""

    def __contains__(self, name):
        return True

    def __getitem__(self, name):
        return ("INT",)


class ProbeLoose(ProbeAdd):
    """Takes inputs of any name, and a default that nobody sees."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"a": ("INT",), "b": ("PACKS_OWN_WIDGET",)}, "optional": AnyNames()}

    def add(self, a, b, **more):
        return (a + b + sum(more.values()),)


class ProbeChoice:
    """Chooses a LoRA, or none, as packs do."""

    RETURN_TYPES = ("STRING",)
    FUNCTION = "choose"
    CATEGORY = "probe"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"name": (["None", *folder_paths.get_filename_list("loras")],)}}

    def choose(self, name):
        return (name,)


class ProbeSpread:
    """Gives a list, so that the next node is called once for each entry."""

    RETURN_TYPES = ("INT",)
    OUTPUT_IS_LIST = (True,)
    FUNCTION = "spread"
    CATEGORY = "probe"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"count": ("INT",)}}

    def spread(self, count):
        return (list(range(count)),)


class ProbeAppend:
    """Changes the list that it is given."""

    RETURN_TYPES = ("*",)
    FUNCTION = "append"
    CATEGORY = "probe"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"values": ("*",)}}

    def append(self, values):
        values.append(99)
        return (list(values),)


class ProbeDouble:
    """Makes each tensor of a conditioning one of two entries, the second without what the first says."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "double"
    CATEGORY = "probe"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"conditioning": ("CONDITIONING",)}}

    def double(self, conditioning):
        return ([[torch.cat([tensor, torch.zeros_like(tensor)]), info] for tensor, info in conditioning],)


class ProbeGather:
    """Takes a whole list, and shows it as an output node."""

    INPUT_IS_LIST = True
    OUTPUT_NODE = True
    RETURN_TYPES = ("INT",)
    FUNCTION = "gather"
    CATEGORY = "probe"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"values": ("INT", {"forceInput": True})}}

    def gather(self, values):
        return {"ui": {"values": list(values)}, "result": (sum(values),)}


class ProbeV3(io.ComfyNode):
    """Multiplies; V3, with an optional input."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ProbeV3",
            category="probe",
            inputs=[io.Int.Input("value"), io.Int.Input("factor", default=2, optional=True)],
            outputs=[io.Int.Output(display_name="product")],
        )

    @classmethod
    def execute(cls, value, factor=2) -> io.NodeOutput:
        CALLS.append("ProbeV3")
        return io.NodeOutput(value * factor)


class ProbeV3Async(ProbeV3):
    @classmethod
    def define_schema(cls):
        schema = super().define_schema()
        schema.node_id = "ProbeV3Async"
        return schema

    @classmethod
    async def execute(cls, value, factor=2) -> io.NodeOutput:
        await asyncio.sleep(0.01)
        return io.NodeOutput(value * factor)


class ProbeState:
    """Counts how often its own object was called."""

    OUTPUT_NODE = True
    RETURN_TYPES = ()
    FUNCTION = "count"
    CATEGORY = "probe"

    def __init__(self):
        self.calls = 0

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("INT", {"default": 0})}}

    def count(self, value):
        self.calls += 1
        return {"ui": {"calls": [self.calls], "value": [value]}}


class ProbeKeywords(ProbeAdd):
    """Adds whatever is linked to it, declared or not."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"a": ("INT",)}}

    def add(self, a, **more):
        return (a + sum(more.values()),)


V1 = (
    ProbeAdd,
    ProbeAsync,
    ProbeFail,
    ProbeOutOfMemory,
    ProbeSave,
    ProbeChanging,
    ProbeJudge,
    ProbeTyped,
    ProbeAppend,
    ProbeDouble,
    ProbeEcho,
    ProbeName,
    ProbeBlock,
    ProbeLoose,
    ProbeChoice,
    ProbeSpread,
    ProbeGather,
    ProbeState,
    ProbeKeywords,
)
NODE_CLASS_MAPPINGS = {cls.__name__: cls for cls in (*V1, *CHANGING, ProbeV3, ProbeV3Async)}
ProbeV3.GET_SCHEMA()
ProbeV3Async.GET_SCHEMA()
