"""Check a graph: return a graph that can run, or raise an error that lists everything wrong with it.

The rules are those of ComfyUI's validate_prompt, with two differences. Every fault is reported, not only the first of
each input or output. No input is ignored, and no number is silently changed (a fraction given to an INT).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from pipeline.errors import ConfigError, CycleError, Problem, did_you_mean
from pipeline.graph.bypass import resolve_bypass, restore_bypassed
from pipeline.graph.model import Graph, Link, Node
from pipeline.graph.order import cull, sort_nodes
from pipeline.graph.signature import InputSpec, OutputSpec, Signature, types_match
from pipeline.graph.values import check_value

# Returns the faults that the node's own class finds in it, given the types of the outputs linked to its inputs.
Judge: TypeAlias = Callable[[Node, Mapping[str, str]], list[Problem]]

# Returns the faults of the graph of all nodes that will run, with the bypass resolved.
Inspect: TypeAlias = Callable[[Graph], list[Problem]]


@dataclass(frozen=True)
class CheckedGraph:
    """A graph that can run: bypass resolved, culled, links by index, constants converted, defaults filled in.

    signatures: those of its nodes and of the nodes in `declared`, by node name.
    order: the order of execution.
    targets: the nodes whose outputs are requested.
    filled: the dotted paths of the inputs that were not given and took the node's own default.
    declared: the graph before the bypass was resolved. It includes nodes that nothing needs, which are not checked,
        but no nodes of unknown class.
    prompt: the prompt in ComfyUI's API format that it was made from. The graph then holds all nodes of the prompt,
        and `declared` is empty.
    node_errors: the faults, in ComfyUI's form, because of which outputs of the prompt were dropped.
    """

    graph: Graph
    signatures: Mapping[str, Signature]
    order: tuple[str, ...]
    targets: tuple[str, ...]
    filled: frozenset[str] = frozenset()
    declared: Graph = field(default_factory=Graph)
    prompt: Mapping[str, Any] | None = None
    node_errors: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shown(self) -> Graph:
        """The graph that runs, as the GUI shows it: with the bypassed nodes through which its links lead."""
        return cull(self.declared, self.targets)


def check_graph(
    graph: Graph,
    signatures: Mapping[str, Signature],
    wanted: Sequence[str] = (),
    problems: Sequence[Problem] = (),
    judge: Judge = lambda node, received_types: [],
    needs_files: bool = True,
    inspect: Inspect = lambda graph: [],
) -> CheckedGraph:
    """Resolve the bypass of `graph`, check it, and return the graph that can run.

    signatures: by node name, for each node whose class_type is known.
    wanted: the nodes whose outputs are requested in addition to those of ComfyUI's output nodes.
    problems: those found earlier.
    judge: called for each node that has no other problem.
    inspect: called once with all nodes that will run.
    needs_files: if false, model files may be missing.

    Raises ConfigError with all problems, the earlier ones included; CycleError if a cycle is the only problem.

    Example:
        checked = check_graph(graph, signatures, wanted=["sampler"])
        checked.order  # ("loader", "sampler")
    """
    check = _Check(signatures, judge, list(problems), needs_files)
    linked = check.resolve_outputs(graph)
    targets = check.find_targets(linked, wanted)
    resolved = resolve_bypass(linked, signatures)
    needed = cull(resolved, targets)
    checked = Graph({name: check.check_node(node, linked) for name, node in needed.items()})
    check.problems.extend(inspect(checked))
    order = check.sort(needed)
    if check.is_blocked(needed, linked):
        # A wrong link may be the reason why a node seems not to be needed, so the other nodes are checked as well.
        for node in (node for name, node in resolved.items() if name not in needed):
            check.check_node(node, linked)
        if order or not needed:
            check.sort(resolved)
        raise check.make_error(linked)
    declared = restore_bypassed(linked, {**resolved, **checked}, signatures)
    known = {name: signatures[name] for name in (*order, *declared)}
    return CheckedGraph(checked, known, order, targets, frozenset(check.filled), declared)


@dataclass
class _Check:
    """The check of one graph: what is known about its nodes, and the problems found so far."""

    signatures: Mapping[str, Signature]
    judge: Judge
    problems: list[Problem]
    needs_files: bool = True
    filled: set[str] = field(default_factory=set)

    def add(self, code: str, where: str, message: str) -> None:
        self.problems.append(Problem(code, where, message))

    def has_problem(self, node: Node) -> bool:
        return any(_node_of(problem) == node.name for problem in self.problems)

    def is_blocked(self, needed: Graph, graph: Graph) -> bool:
        """Return whether a problem prevents the run. A problem of a node that nothing needs does not."""
        # A bypassed node of unknown class may still be linked here: it is not known what it would pass through.
        involved = {link.node for node in needed.values() for _, link in node.links}.union(needed)
        return any(_node_of(problem) in involved or _node_of(problem) not in graph for problem in self.problems)

    def make_error(self, graph: Graph) -> ConfigError:
        """Return the error to raise, with its problems in the order of the nodes."""
        positions = {name: index for index, name in enumerate(graph)}
        problems = sorted(self.problems, key=lambda problem: positions.get(_node_of(problem), -1))
        only_cycle = len(problems) == 1 and problems[0].code == "dependency_cycle"
        return CycleError(problems[0].message.split(" -> ")) if only_cycle else ConfigError(problems)

    def sort(self, graph: Graph) -> tuple[str, ...]:
        """Return the order of execution; if there is a cycle, add the problem and return an empty tuple."""
        try:
            return sort_nodes(graph)
        except CycleError as error:
            self.problems.extend(error.problems)
            return ()

    def resolve_outputs(self, graph: Graph) -> Graph:
        """Replace the output of every link by its index, and leave out links to outputs that do not exist.

        A link to a node of unknown class stays as it is: the node is needed, and its class is the problem to report.
        """
        return Graph({name: self._resolve_links(node) for name, node in graph.items()})

    def _resolve_links(self, node: Node) -> Node:
        inputs = dict(node.inputs)
        for name, link in node.links:
            signature = self.signatures.get(link.node)
            if signature is None:
                continue
            index = signature.find_output(link.output)
            if index is None:
                del inputs[name]
                self.add("bad_linked_input", f"{node.name}.{name}", _explain_output(link, signature))
            else:
                inputs[name] = Link(link.node, index)
        return Node(node.name, node.class_type, inputs, node.bypassed)

    def find_targets(self, graph: Graph, wanted: Sequence[str]) -> tuple[str, ...]:
        """Return the `wanted` nodes and ComfyUI's output nodes, in declared order and without bypassed nodes."""
        for name in wanted:
            if name not in graph:
                message = f"{name!r} is not a node of the graph{did_you_mean(name, graph)}"
                self.add("prompt_no_outputs", "run.outputs", message)
            elif graph[name].bypassed:
                self.add("prompt_no_outputs", "run.outputs", f"{name!r} is bypassed, so it has no output to keep")
        output_nodes = {name for name, signature in self.signatures.items() if signature.is_output_node}
        targets = tuple(name for name in graph if name in output_nodes.union(wanted) and not graph[name].bypassed)
        if not targets and not wanted:
            message = "is empty and the graph has no output node. Name the nodes to keep: run.outputs=[NODE]"
            self.add("prompt_no_outputs", "run.outputs", message)
        return targets

    def check_node(self, node: Node, linked: Graph) -> Node:
        """Check every input of `node`; return the node with converted constants and with defaults filled in.

        `linked` is the graph before the bypass was resolved. It explains inputs that are missing because of a bypass.
        """
        signature = self.signatures.get(node.name)
        if signature is None:
            return node
        inputs = {}
        for name, spec in signature.inputs.items():
            if name in node.inputs:
                inputs[name] = self._check_input(node, signature, spec)
            elif not spec.required and spec.is_widget and "default" in spec.options:
                inputs[name] = spec.options["default"]
                self.filled.add(f"{node.name}.{name}")
            elif spec.required:
                self._report_missing(node, spec, linked[node.name].inputs.get(name))
        checked = Node(node.name, node.class_type, {**inputs, **dict(self._find_undeclared(node, signature))})
        if not self.has_problem(node):
            received_types = {
                name: self._find_output(link).type for name, link in checked.links if link.node in self.signatures
            }
            self.problems.extend(self.judge(checked, received_types))
        return checked

    def _find_undeclared(self, node: Node, signature: Signature) -> Iterator[tuple[str, Any]]:
        for name in (name for name in node.inputs if name not in signature.inputs):
            is_accepted = signature.takes_any_link and isinstance(node.inputs[name], Link)
            if not signature.takes_any_input and not is_accepted:
                listed = f". Its inputs are {', '.join(signature.inputs)}" if signature.inputs else "; it takes none"
                near = did_you_mean(name, signature.inputs) or listed
                message = f"{node.class_type} has no input {name!r}{near}"
                self.add("unknown_input", f"{node.name}.{name}", message)
            yield name, node.inputs[name]

    def _check_input(self, node: Node, signature: Signature, spec: InputSpec) -> Any:
        value = node.inputs[spec.name]
        if isinstance(value, Link):
            self._check_type(node, signature, spec, value)
            return value
        where, judged_by_class = f"{node.name}.{spec.name}", spec.name in signature.checks_itself
        value, problem = check_value(where, node.class_type, spec, value, judged_by_class)
        if problem and (self.needs_files or not _names_file(signature, spec, value)):
            self.problems.append(problem)
        return value

    def _check_type(self, node: Node, signature: Signature, spec: InputSpec, link: Link) -> None:
        if link.node not in self.signatures:
            return
        output = self._find_output(link)
        if "input_types" not in signature.checks_itself and not types_match(output.type, spec.type):
            message = f"needs {spec.type}, but [{link.node}, {output.name}] is {output.type}"
            self.add("return_type_mismatch", f"{node.name}.{spec.name}", message)

    def _find_output(self, link: Link) -> OutputSpec:
        assert isinstance(link.output, int)  # by resolve_outputs
        return self.signatures[link.node].outputs[link.output]

    def _report_missing(self, node: Node, spec: InputSpec, before_bypass: Any) -> None:
        where = f"{node.name}.{spec.name}"
        if any(problem.where == where for problem in self.problems):
            return
        if isinstance(before_bypass, Link):
            message = f"needs {spec.type}, but {before_bypass.node!r} is bypassed and has none to pass through"
        elif spec.is_widget:
            message = f"is required and not given. Give it as {where}=VALUE"
        else:
            message = f"is required and not given. Link it: {where}=[NODE,{spec.type}]"
        self.add("required_input_missing", where, message)


def _names_file(signature: Signature, spec: InputSpec, value: Any) -> bool:
    """Return whether a value may be the name of a model file. Some classes list files and other choices together."""
    return bool(spec.folder or (signature.folders and isinstance(value, str) and "." in value))


def _node_of(problem: Problem) -> str:
    return problem.where.partition(".")[0]


def _explain_output(link: Link, signature: Signature) -> str:
    names = [output.name for output in signature.outputs]
    types = [output.type for output in signature.outputs]
    text = f"{signature.class_type} ({link.node}) has no output {link.output!r}"
    if not names:
        return f"{signature.class_type} ({link.node}) has no output at all"
    ambiguous = types.count(str(link.output)) > 1
    if ambiguous:
        text = f"{signature.class_type} ({link.node}) has more than one output of type {link.output}"
    near = "" if ambiguous or isinstance(link.output, int) else did_you_mean(link.output, [*names, *types])
    return text + (near or f". Its outputs are {', '.join(f'{i}: {name}' for i, name in enumerate(names))}")
