"""Official workflows, and what ComfyUI's own front end exported for them: the same prompts, node for node."""

from __future__ import annotations

import copy
import json
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import ROOT

from pipeline.config.read import read_config
from pipeline.runs.export import export_prompt, export_workflow
from pipeline.workflow.graph_file import Head, read_prompt, write_graph_file
from pipeline.workflow.load import list_class_types
from pipeline.workflow.patch import patch_workflow
from pipeline.workflow.to_api import WorkflowExport

ARCHIVE = ROOT.parent / "shared" / "interop" / "practice.tar.gz"
VERSION = "0.30.0"  # of the ComfyUI on which the cases were measured

needs_archive = pytest.mark.skipif(
    not ARCHIVE.is_file(), reason=f"{ARCHIVE} is missing: the practice cases lie beside the clone"
)


@pytest.fixture(scope="module")
def cases(session) -> dict[str, dict[str, Any]]:
    """Workflow and prompt of each case by its name."""
    if session.comfyui.installation.version != VERSION:
        pytest.skip(f"the cases were measured on ComfyUI {VERSION}")
    found: dict[str, dict[str, Any]] = {}
    with tarfile.open(ARCHIVE) as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file and member.name.endswith(".json"):
                kind, _, name = member.name.removeprefix("./").partition("/")
                found.setdefault(name, {})[kind] = json.load(file)
    return found


def strip(prompt: dict[str, dict[str, Any]]) -> str:
    """A prompt without `_meta`, as JSON text: 1 and 1.0 differ in it."""
    stripped = {name: [info["class_type"], info["inputs"]] for name, info in prompt.items()}
    return json.dumps(stripped, sort_keys=True, indent=1)


def list_wrong(cases: dict[str, dict[str, Any]], make: Any) -> Iterator[str]:
    for name, case in sorted(cases.items()):
        if strip(make(case)) != strip(case["prompt"]):
            yield name


@needs_archive
def test_all_are_exported_as_the_gui_exports_them(session, cases) -> None:
    definitions = session.read_definitions(
        set().union(*(list_class_types(case["workflow"]) for case in cases.values()))
    )
    assert len(cases) == 92
    assert list(list_wrong(cases, lambda case: WorkflowExport(case["workflow"], definitions).make_prompt())) == []


@needs_archive
def test_all_are_the_same_after_they_were_written_as_graphs_and_read_back(session, cases) -> None:
    from conftest import load_yaml

    definitions = session.read_definitions(
        {info["class_type"] for case in cases.values() for info in case["prompt"].values()}
    )

    def write_and_read(case: dict[str, Any]) -> dict[str, Any]:
        config = load_yaml(write_graph_file(case["prompt"], definitions, Head("x"), []))
        read = read_config({name: value for name, value in config.items() if name != "defaults"})
        assert read.problems == ()
        return read_prompt(read.values, read.graph, definitions)

    assert list(list_wrong(cases, write_and_read)) == []


@needs_archive
def test_all_are_the_same_after_they_were_imported_checked_and_exported(session, cases) -> None:
    from conftest import load_yaml

    moved = {}
    for name, case in cases.items():
        definitions = session.read_definitions({info["class_type"] for info in case["prompt"].values()})
        config = load_yaml(write_graph_file(case["prompt"], definitions, Head("x"), []))
        read = read_config({key: value for key, value in config.items() if key != "defaults"})
        checked = session.check(read.graph, (), read.problems, needs_files=False)
        prompt = export_prompt(checked, read.values)
        assert list_inputs(prompt) == list_inputs(case["prompt"]), name

        workflow = export_workflow(checked, read.values, session, None)
        definitions = session.read_definitions({node["type"] for node in workflow["nodes"]})
        exported = list_inputs(WorkflowExport(workflow, definitions).make_prompt())
        moved[name] = exported.keys() - prompt.keys()
        assert moved[name] or exported == list_inputs(case["prompt"]), name
        assert export_workflow(checked, read.values, session, case["workflow"])["nodes"] == case["workflow"]["nodes"], (
            name
        )
    # A text on an input without a widget has no place in the GUI but in a node of its own.
    assert {name: ids for name, ids in moved.items() if ids} == {
        "video_ltx2_3_ic_lora.json": {"if_else_switch_3.on_false"}
    }


@needs_archive
def test_a_seed_is_changed_in_the_workflow_as_it_was_imported(session, cases) -> None:
    changed, lost = 0, []
    for name, case in cases.items():
        places = [
            (node_id, key)
            for node_id, info in case["prompt"].items()
            for key in ("seed", "noise_seed")
            if isinstance(info["inputs"].get(key), int)
        ]
        definitions = session.read_definitions(list_class_types(case["workflow"]))
        for node_id, key in places:
            prompt = copy.deepcopy(case["prompt"])
            prompt[node_id]["inputs"][key] += 1
            patched = patch_workflow(case["workflow"], prompt, definitions, {})
            if patched is None:
                lost.append(name)
                continue
            changed += 1
            assert list_inputs(WorkflowExport(patched, definitions).make_prompt()) == list_inputs(prompt)
            assert [node["pos"] for node in patched["nodes"]] == [node["pos"] for node in case["workflow"]["nodes"]]
    assert changed > 80
    assert lost == ["05_audio_ace_step_1_t2a_song_subgraphed.json"] * 2  # where one seed feeds both


def list_inputs(prompt: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """All that a prompt says of its nodes, but for their titles."""
    return {name: (info["class_type"], info["inputs"]) for name, info in prompt.items()}
