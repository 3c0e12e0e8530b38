"""`python -m pipeline import FILE`: import a ComfyUI workflow into conf/graph/, and say what it lacks here."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.base.project import IS_INSTALLED, PROJECT
from pipeline.config.read import CONF, compose_config, list_default_groups, read_config, read_sections
from pipeline.errors import ConfigError, Problem
from pipeline.workflow.names import WORDS

if TYPE_CHECKING:
    from pipeline.engine.session import Session
    from pipeline.graph.model import Node
    from pipeline.graph.signature import Signature
    from pipeline.workflow.embedded import WorkflowFile
    from pipeline.workflow.to_api import WorkflowExport

GRAPHS = CONF / "graph"
OTHER_GROUPS = {"graph", "tracking", "experiment", "sweep", "worker"}
"""The config groups of conf/ whose files are not nodes."""

MODEL_FILES = (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf")

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of `python -m pipeline`."""
    parser = commands.add_parser("import", help="import a ComfyUI workflow, so that run.py graph=NAME runs it")
    parser.add_argument("file", type=Path, help="a workflow (.json), or a file that one is embedded in")
    parser.add_argument("--name", help="the name of the graph; by default made of the file's name")
    parser.add_argument("overrides", nargs="*", help="as for run.py, for example comfyui.custom_nodes=[FOLDER]")
    parser.set_defaults(run=import_workflow)


def import_workflow(args: argparse.Namespace) -> None:
    """Import the file, and print the names of the written files and what the graph lacks here."""
    if IS_INSTALLED and not PROJECT:
        message = "needs a project to write the graph into. Make one first: latentgrid init FOLDER"
        raise ConfigError([Problem("no_project", "import", message)])
    read = read_sections(args.overrides, "comfyui")
    from pipeline.runs.process import open_session
    from pipeline.workflow.embedded import read_workflow_file

    name = _choose_name(args.file, args.name)
    found = read_workflow_file(args.file)
    session = open_session(read)
    warnings = write_graph(name, args.file.name, found, session)
    print(f"{GRAPHS / name}.yaml: the graph of {args.file}; the workflow as it was is beside it, {name}.json")
    for line in [*warnings, *find_lacks(name, found, session, args.overrides)]:
        print(line)
    print(f"run it: python run.py graph={name}")


def _choose_name(file: Path, name: str | None) -> str:
    """Return the name of the graph. Raises ConfigError if it is taken or cannot be written as graph=NAME."""
    chosen = name or re.sub(r"[^A-Za-z0-9_.-]+", "_", file.stem).strip("._-")
    if not NAME.fullmatch(chosen) or chosen.lower() in WORDS:
        message = f"must be letters, digits, dots, dashes and underscores, got {chosen!r}. Give --name NAME"
        raise ConfigError([Problem("bad_name", "--name", message)])
    if (GRAPHS / f"{chosen}.yaml").exists():
        message = f"{chosen!r} is taken: {GRAPHS / chosen}.yaml exists. Give another --name, or remove that file"
        raise ConfigError([Problem("bad_name", "--name", message)])
    return chosen


def write_graph(name: str, source: str, found: WorkflowFile, session: Session) -> list[str]:
    """Write conf/graph/NAME.yaml and, beside it, the workflow's own JSON; return the warnings for the user.

    Raises ConfigError, before anything is written, for a workflow that cannot be imported.
    """
    from pipeline.record.artifacts import open_folder, write_text
    from pipeline.workflow.graph_file import Head, write_graph_file
    from pipeline.workflow.load import list_class_types
    from pipeline.workflow.to_api import WorkflowExport, check_api_format

    if found.is_ui:
        definitions = session.read_definitions(list_class_types(found.document))
        export = WorkflowExport(found.document, definitions)
        warnings, kept = export.warnings, _choose_bypassed(export, session)
        prompt: Mapping[str, Any] = export.make_prompt(kept)
    else:
        definitions = session.read_definitions({str(info["class_type"]) for info in found.document.values()})
        check_api_format(found.document, definitions)
        prompt = {name: {"inputs": {}, **info} for name, info in found.document.items()}
        kept, warnings = frozenset(), []
    head = Head(name, [f"Imported from {source}; {name}.json beside this file is the workflow as it was."])
    text = write_graph_file(prompt, definitions, head, list_node_groups(), kept)
    folder = open_folder(GRAPHS)
    write_text(folder, f"{name}.json", found.text)
    write_text(folder, f"{name}.yaml", text)
    return list(warnings)


def _choose_bypassed(export: WorkflowExport, session: Session) -> frozenset[str]:
    """Return the bypassed nodes to retain in the graph: those that pass through here what they do in the GUI."""
    from pipeline.graph.api_format import find_literals, read_api_format
    from pipeline.graph.bypass import resolve_bypass
    from pipeline.graph.model import Graph, Link

    exact, kept = read_api_format(export.make_prompt()), export.bypassed
    while kept:
        prompt = export.make_prompt(kept)
        nodes = read_api_format(prompt, find_literals(prompt))
        graph = Graph({name: replace(node, bypassed=name in kept) for name, node in nodes.items()})
        signatures = session.read_signatures(graph)
        links = [link for node in graph.values() for _, link in node.links]
        wrong: list[Any] = [link for link in links if signatures[link.node].find_output(link.output) is None]
        if kept.isdisjoint(link.node for link in wrong):
            flat = resolve_bypass(graph, signatures)
            wrong = [
                value
                for name, node in exact.items()
                for key, value in graph[name].inputs.items()
                if flat[name].inputs.get(key) != node.inputs.get(key)
            ]
        culprits = {value.node for value in wrong if isinstance(value, Link)} & kept
        if not culprits:
            return kept
        kept -= culprits
    return kept


def list_node_groups() -> list[str]:
    """Return the config groups whose nodes are in the default graph; an imported graph takes them out."""
    return [group for group in list_default_groups() if group not in OTHER_GROUPS]


def find_lacks(name: str, found: WorkflowFile, session: Session, overrides: Sequence[str]) -> Iterator[str]:
    """Check the graph as `run.py graph=NAME` would, and yield a line for each missing model and other problem."""
    read = read_config(compose_config([*overrides, f"graph={name}"]))
    try:
        session.check(read.graph, read.run.outputs, read.problems)
        return
    except ConfigError as error:
        problems = error.problems
    signatures = session.read_signatures(read.graph)
    addresses = dict(_list_addresses(found.document))
    for problem in problems:
        node, _, key = problem.where.partition(".")
        folder = _find_folder(problem, signatures[node], read.graph[node]) if node in signatures else None
        if folder is None:
            yield f"to fix: {problem}"
            continue
        file = read.graph[node].inputs[key]
        address = f", from {addresses[file]}" if file in addresses else ""
        yield f"missing model: models/{folder}/{file} ({problem.where}){address}"


def _find_folder(problem: Problem, signature: Signature, node: Node) -> str | None:
    """Return the model folder that lacks a file, or None if the problem is a different one."""
    key = problem.where.partition(".")[2]
    spec, value = signature.inputs.get(key), node.inputs.get(key)
    if problem.code != "value_not_in_list" or spec is None or not isinstance(value, str):
        return None
    # Some classes, such as VAELoader, offer other choices beside files, so the name has to tell.
    is_file = value.endswith(MODEL_FILES)
    return spec.folder or (signature.folders[0] if is_file and signature.folders else None)


def _list_addresses(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield name and address of each model for which the workflow has an address."""
    from pipeline.workflow.ui_format import is_ui_format, list_graphs

    for graph in list_graphs(document) if is_ui_format(document) else ():
        for node in graph["nodes"]:
            for model in (node.get("properties") or {}).get("models") or ():
                yield model.get("name", ""), model.get("url", "")
