"""Nodes that steer how a graph runs: lazy inputs, expansion, blockers, state, hidden inputs; a pack of V3's kind."""

import asyncio
import os
from pathlib import Path

from comfy_api.latest import ComfyExtension, io
from comfy_execution.graph_utils import ExecutionBlocker, GraphBuilder
from server import PromptServer

import nodes

PRESTARTED = os.environ.get("LATENTGRID_FLOW_PRESTARTUP")
SEEN: list[dict] = []


@PromptServer.instance.add_on_prompt_handler
def note(data):
    SEEN.append(data)
    return data


PromptServer.instance.app.router.add_static("/flow", Path(__file__).parent)
PromptServer.instance.prompt_queue.get_tasks_remaining()


class FlowLazy(io.ComfyNode):
    """Takes one of two inputs, and asks for that one only."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FlowLazy",
            inputs=[
                io.Int.Input("which", default=0),
                io.Int.Input("a", lazy=True, optional=True),
                io.Int.Input("b", lazy=True, optional=True),
            ],
            outputs=[io.Int.Output()],
        )

    @classmethod
    async def check_lazy_status(cls, which, a=None, b=None):
        await asyncio.sleep(0)
        return ["b"] if which else ["a"]

    @classmethod
    def execute(cls, which, a=None, b=None) -> io.NodeOutput:
        return io.NodeOutput(b if which else a)


class FlowSum(io.ComfyNode):
    """Sums the inputs that it needs, of as many as there are: those before the first that is zero."""

    @classmethod
    def define_schema(cls):
        template = io.Autogrow.TemplatePrefix(io.Int.Input("value", lazy=True), prefix="value", min=1, max=5)
        return io.Schema(
            node_id="FlowSum", inputs=[io.Autogrow.Input("values", template=template)], outputs=[io.Int.Output()]
        )

    @classmethod
    def check_lazy_status(cls, values):
        for value, key in values.values():
            if value is None:
                return [key]
            if value == 0:
                break
        return []

    @classmethod
    def execute(cls, values) -> io.NodeOutput:
        return io.NodeOutput(sum(value or 0 for value in values.values()))


class FlowCountdown(io.ComfyNode):
    """Adds `count` and all whole numbers below it, by expanding into an addition and itself; waits before if `wait`."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FlowCountdown",
            inputs=[io.Int.Input("count"), io.Int.Input("wait", default=0, optional=True)],
            outputs=[io.Int.Output()],
            enable_expand=True,
        )

    @classmethod
    async def execute(cls, count, wait=0) -> io.NodeOutput:
        if wait:
            await asyncio.sleep(0.01 * wait)
        if count == 0:
            return io.NodeOutput(0)
        graph = GraphBuilder()
        rest = graph.node("FlowCountdown", count=count - 1)
        return io.NodeOutput(graph.node("ProbeAdd", a=rest.out(0), b=count).out(0), expand=graph.finalize())


class FlowExpandFail(io.ComfyNode):
    """Expands into a node that fails."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FlowExpandFail",
            inputs=[io.String.Input("class_type")],
            outputs=[io.Int.Output()],
            enable_expand=True,
        )

    @classmethod
    def execute(cls, class_type) -> io.NodeOutput:
        graph = GraphBuilder()
        return io.NodeOutput(graph.node(class_type, value=1, text="x").out(0), expand=graph.finalize())


class FlowExpandShow(io.ComfyNode):
    """Expands into a node that shows `value`, and an addition of `count`."""

    @classmethod
    def define_schema(cls):
        inputs = [io.Int.Input("value"), io.Int.Input("count")]
        return io.Schema(node_id="FlowExpandShow", inputs=inputs, outputs=[io.Int.Output()], enable_expand=True)

    @classmethod
    def execute(cls, value, count) -> io.NodeOutput:
        graph = GraphBuilder()
        graph.node("ProbeGather", values=value)
        return io.NodeOutput(graph.node("ProbeAdd", a=value, b=count).out(0), expand=graph.finalize())


class FlowBlock(io.ComfyNode):
    """Gives its value, or blocks what reads it without a word."""

    @classmethod
    def define_schema(cls):
        message = io.String.Input("message", default="", optional=True)
        inputs = [io.Int.Input("value"), io.Int.Input("block"), message]
        return io.Schema(node_id="FlowBlock", inputs=inputs, outputs=[io.Int.Output()])

    @classmethod
    def execute(cls, value, block, message="") -> io.NodeOutput:
        return io.NodeOutput(ExecutionBlocker(message or None) if block else value)


class FlowInterrupt(io.ComfyNode):
    """Interrupts the run, as a button of the GUI does."""

    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="FlowInterrupt", inputs=[io.Int.Input("value")], outputs=[io.Int.Output()])

    @classmethod
    def execute(cls, value) -> io.NodeOutput:
        nodes.interrupt_processing()
        return io.NodeOutput(value)


class FlowShow(io.ComfyNode):
    """Shows what it is given, and what it is told of its surroundings."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FlowShow",
            inputs=[io.Int.Input("value")],
            outputs=[io.Int.Output()],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, value) -> io.NodeOutput:
        hidden = cls.hidden
        told = [hidden.unique_id, sorted(hidden.prompt), hidden.extra_pnginfo, hidden.dynprompt.has_node("nowhere")]
        return io.NodeOutput(value, ui={"values": [value], "told": told})


class Flow(ComfyExtension):
    async def get_node_list(self):
        return [FlowLazy, FlowSum, FlowCountdown, FlowExpandFail, FlowExpandShow, FlowBlock, FlowInterrupt, FlowShow]


async def comfy_entrypoint() -> Flow:
    return Flow()
