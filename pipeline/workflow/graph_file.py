"""Convert a prompt in ComfyUI's API format to a file of conf/graph/, and a config back to the prompt."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from pipeline.graph.api_format import is_link
from pipeline.graph.model import Graph, Link
from pipeline.graph.reader import BYPASS, ID, MISSING, NODE, UI, VALUE
from pipeline.graph.signature import OutputSpec, find_output
from pipeline.workflow.definitions import NodeDefinition, read_type
from pipeline.workflow.live import AUTOGROW, DYNAMIC_COMBO
from pipeline.workflow.names import WORDS, name_nodes
from pipeline.workflow.widgets import IMPLICIT_SEEDS

Definitions = Mapping[str, NodeDefinition]
Prompt = Mapping[str, Mapping[str, Any]]

SEED = "${seed}"
PART = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
INTERPOLATION = re.compile(r"(\\*)\$\{")
# Texts that every YAML parser reads as these texts; all others are quoted.
PLAIN = re.compile(rf"(?!(?:{'|'.join(WORDS)})$)[A-Za-z_](?:[\w./ -]*[\w./-])?", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class Head:
    """The head of the file: the name of the graph, and lines that become comments."""

    name: str
    lines: Sequence[str] = ()


def write_graph_file(
    prompt: Prompt, definitions: Definitions, head: Head, groups: Sequence[str], bypassed: Collection[str] = ()
) -> str:
    """Return a prompt as the text of a file of the config group `graph`: a section per node, links by output names.

    groups: the groups of conf/ that add nodes by default; the file sets them to null.
    bypassed: the ids of the bypassed nodes.

    Node ids are written as `_id_`. The seed of the first node that has one becomes the top-level `seed`.

    Example of a section:
        ksampler:
          _node_: KSampler
          _id_: "3"
          model: [load_checkpoint, MODEL]
          seed: ${seed}
          steps: 20
    """
    titles = [(str((info.get("_meta") or {}).get("title") or ""), info["class_type"]) for info in prompt.values()]
    writer = _Writer(prompt, definitions, dict(zip(prompt, name_nodes(titles), strict=True)), bypassed)
    lines = [f"# @package _global_\n# python run.py graph={head.name}", *(f"# {line}" for line in head.lines)]
    parts = ["\n".join(lines) + "\n" + _dump({"defaults": [{f"override /{group}": None} for group in groups]})]
    if writer.seed is not None:
        parts.append(_dump({"seed": writer.seed}))
    parts.append(_dump({"run": {"outputs": _Flow()}}))
    for node_id, (title, class_type) in zip(prompt, titles, strict=True):
        comment = f"# {' '.join(title.split())}\n" if title and title != class_type else ""
        parts.append(comment + _dump({writer.names[node_id]: writer.write_node(node_id)}))
    return "\n".join(parts)


def read_prompt(values: Mapping[str, Any], graph: Graph, definitions: Definitions) -> dict[str, dict[str, Any]]:
    """Return the prompt of a graph that was read from the config `values`.

    Its node ids are those of the workflow from which the graph was imported, see `list_ids`.
    """
    ids = list_ids(values, graph)
    prompt = {}
    for name, node in graph.items():
        inputs = {key: _read_input(value, ids, graph, definitions) for key, value in node.inputs.items()}
        prompt[ids[name]] = {
            "class_type": node.class_type,
            "inputs": {**inputs, **(values.get(name, {}).get(UI) or {})},
        }
    return prompt


def list_ids(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, str]:
    """Return node ids by node name: the `_id_` of the node in the config `values`, or else its name.

    `_id_` is the id that the node had in the workflow from which it was imported.
    """
    return {name: str(values.get(name, {}).get(ID) or name) for name in names}


def restore_ids(prompt: Prompt, values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the prompt as the workflow from which the graph was imported exports it.

    `prompt` has the node names of the config `values` as ids. The result has the workflow's own ids, and the values
    that the GUI adds and that no node reads (`_ui_`).
    """
    ids = list_ids(values, prompt)
    return {
        ids[name]: {
            **info,
            "inputs": {
                **{key: [ids[one[0]], one[1]] if is_link(one) else one for key, one in info["inputs"].items()},
                **(values.get(name, {}).get(UI) or {}),
            },
        }
        for name, info in prompt.items()
    }


def _read_input(value: Any, ids: Mapping[str, str], graph: Graph, definitions: Definitions) -> Any:
    if not isinstance(value, Link):
        return _wrap(value)
    index = find_output(_list_outputs(definitions, graph[value.node].class_type), value.output)
    return [ids[value.node], value.output if index is None else index]


def _wrap(value: Any) -> Any:
    return {VALUE: value} if isinstance(value, list) else value


def _list_outputs(definitions: Definitions, class_type: str) -> tuple[OutputSpec, ...]:
    definition = definitions.get(class_type)
    return definition.outputs if definition else ()


class _Flow(list[Any]):
    """A list that is written on one line."""


class _Writer:
    def __init__(self, prompt: Prompt, definitions: Definitions, names: Mapping[str, str], bypassed: Collection[str]):
        self.prompt, self.definitions, self.names, self.bypassed = prompt, definitions, names, bypassed
        self.seeds = dict(self._find_seeds())
        self.seed = next(iter(self.seeds.values()), None)

    def _find_seeds(self) -> Iterator[tuple[tuple[str, str], int]]:
        """Yield (node id, input name) and value of each seed.

        A seed is the constant of a seed input, or the `value` of the node that is linked to such an input.
        """
        for node_id, info in self.prompt.items():
            for name in IMPLICIT_SEEDS:
                place, value = (node_id, name), info["inputs"].get(name)
                if is_link(value):
                    place = (value[0], "value")
                    value = self.prompt[value[0]]["inputs"].get("value")
                if isinstance(value, int) and not isinstance(value, bool):
                    yield place, value

    def write_node(self, node_id: str) -> dict[str, Any]:
        info = self.prompt[node_id]
        definition = self.definitions.get(info["class_type"])
        declared = [name for name, _ in definition.inputs] if definition else list(info["inputs"])
        names = [name for name in info["inputs"] if _is_declared(name, definition) or is_link(info["inputs"][name])]
        absent = [name for name in declared if name not in names and not _is_dynamic(name, definition)]
        inputs: dict[str, Any] = dict.fromkeys(absent)
        inputs.update({name: self._write_input((node_id, name), info["inputs"][name]) for name in names})
        order = {name: place for place, name in enumerate(declared)}
        ordered = dict(sorted(inputs.items(), key=lambda item: order.get(item[0].partition(".")[0], len(order))))
        extra = {name: _write_constant(value) for name, value in info["inputs"].items() if name not in names}
        return {
            NODE: info["class_type"],
            ID: node_id,
            **({BYPASS: True} if node_id in self.bypassed else {}),
            **_nest(ordered),
            **({UI: extra} if extra else {}),
        }

    def _write_input(self, place: tuple[str, str], value: Any) -> Any:
        if place in self.seeds and value == self.seed:
            return SEED
        if not is_link(value):
            return _write_value(value)
        node_id, index = value[0], int(value[1])
        return _Flow([self.names[node_id], self._name_output(self.prompt[node_id]["class_type"], index)])

    def _name_output(self, class_type: str, index: int) -> str | int:
        """Return the name of an output, or its type, if that identifies this output; else its index."""
        outputs = _list_outputs(self.definitions, class_type)
        names = [outputs[index].name, outputs[index].type] if index < len(outputs) else []
        return next((name for name in names if PLAIN.fullmatch(name) and find_output(outputs, name) == index), index)


def _is_declared(name: str, definition: NodeDefinition | None) -> bool:
    if definition is None or definition.takes_any_input:
        return True
    names = {one for one, _ in definition.inputs}
    return name in names or any(name.startswith(f"{one}.") and _is_dynamic(one, definition) for one in names)


def _is_dynamic(name: str, definition: NodeDefinition | None) -> bool:
    """Return whether an input is a group that grows with its links, or a combo on which other inputs depend."""
    declared = dict(definition.inputs) if definition else {}
    return name in declared and read_type(declared[name]) in (AUTOGROW, DYNAMIC_COMBO)


def _write_value(value: Any) -> Any:
    """Return a constant of a prompt in the form that it has in a node's section."""
    if isinstance(value, dict) and set(value) == {VALUE}:
        return {VALUE: _write_constant(value[VALUE])}
    if value is None or value == MISSING or isinstance(value, dict | list):
        return {VALUE: _write_constant(value)}
    return _write_constant(value)


def _write_constant(value: Any) -> Any:
    """Return a constant with escaped `${`, so that OmegaConf finds no interpolation in it."""
    if isinstance(value, str):
        return INTERPOLATION.sub(lambda match: f"{match[1]}{match[1]}\\${{", value)
    if isinstance(value, list):
        return _Flow(map(_write_constant, value))
    return {key: _write_constant(one) for key, one in value.items()} if isinstance(value, dict) else value


def _nest(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs with dotted names as nested mappings, so that the command line can name them.

    `graph/reader.py` shows the form, and reads it.
    """
    paths = {name: name.split(".") for name in inputs}
    nestable = {name: path for name, path in paths.items() if all(map(PART.fullmatch, path)) and not _repeats(path)}
    parents = {".".join(path[:end]) for path in nestable.values() for end in range(1, len(path))}
    nested: dict[str, Any] = {}
    for name, value in inputs.items():
        path = nestable.get(name, [name])
        if name in parents:
            path = [*path, path[-1]]
        section = nested
        for part in path[:-1]:
            section = section.setdefault(part, {})
        section[path[-1]] = value
    return nested


def _repeats(path: Sequence[str]) -> bool:
    """Return whether two parts of a name in a row are equal; nested, that would mean the value of a dynamic combo."""
    return any(one == other for one, other in itertools.pairwise(path))


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    tag = "tag:yaml.org,2002:str"
    if "\n" in text and not text.endswith("\n") and text.replace("\n", "").isprintable():
        return dumper.represent_scalar(tag, text, style="|")
    return dumper.represent_scalar(tag, text, style=None if text == SEED or PLAIN.fullmatch(text) else '"')


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(
    _Flow, lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)
)


def _dump(section: Mapping[str, Any]) -> str:
    return yaml.dump(
        dict(section), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100_000, default_flow_style=False
    )
