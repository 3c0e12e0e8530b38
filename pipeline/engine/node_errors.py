"""Explain the errors of nodes."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.engine.comfyui.call import NodeOutputs
from pipeline.engine.describe import describe_inputs
from pipeline.errors import NodeError, PipelineError
from pipeline.graph.model import Node


class ExecutionBlocked(Exception):
    """A node received an ExecutionBlocker that has a message."""


def explain_error(
    node: Node,
    submitted: Node,
    sources: Mapping[str, NodeOutputs],
    error: BaseException,
    kind: type[NodeError] = NodeError,
) -> NodeError:
    """Return an error of the class `kind` for a node that failed with `error`; it describes the node's inputs.

    It names the `submitted` node: `node` itself, or the one that expanded to it. `sources` has the outputs that `node`
    had to read.
    """
    reason: BaseException | str = error
    if submitted is not node:
        message = str(error) if isinstance(error, PipelineError) else f"{type(error).__name__}: {error}"
        reason = f"in the {node.class_type} that it expanded to ({node.name}): {message}"
    explained = kind(submitted.name, submitted.class_type, describe_inputs(node, sources), reason)
    explained.__cause__ = error
    return explained
