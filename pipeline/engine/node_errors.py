"""Errors of nodes, in words."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.engine.comfyui.call import NodeOutputs
from pipeline.engine.describe import describe_inputs
from pipeline.errors import NodeError, PipelineError
from pipeline.graph.model import Node


class ExecutionBlocked(Exception):
    """A node got an ExecutionBlocker that has a message."""


def explain_error(
    node: Node,
    submitted: Node,
    sources: Mapping[str, NodeOutputs],
    error: BaseException,
    kind: type[NodeError] = NodeError,
) -> NodeError:
    """Return the error of a node that had the outputs `sources` to read.

    It names the node that was `submitted`: `node` itself, or the one that expanded to it.
    """
    reason: BaseException | str = error
    if submitted is not node:
        said = str(error) if isinstance(error, PipelineError) else f"{type(error).__name__}: {error}"
        reason = f"in the {node.class_type} that it expanded to ({node.name}): {said}"
    explained = kind(submitted.name, submitted.class_type, describe_inputs(node, sources), reason)
    explained.__cause__ = error
    return explained
