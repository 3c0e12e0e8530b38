"""Export to the GUI's format. Here its rules are applied backwards; `benchmarks/gui.py` asks the real GUI."""

from __future__ import annotations

import pytest
from conftest import PROBES

from pipeline.config.read import compose_config, read_config
from pipeline.graph.api_format import write_api_format
from pipeline.graph.model import Graph, Link, Node
from pipeline.workflow.to_api import WorkflowExport
from pipeline.workflow.to_ui import write_ui_format


@pytest.fixture
def export(session):
    """The workflow of a graph that overrides declare, its prompt, and the prompt that is read from the workflow."""

    def call(*overrides: str):
        read = read_config(compose_config([*PROBES, *overrides]))
        checked = session.check(read.graph, read.run.outputs, read.problems)
        return convert(session, checked.shown, checked.graph)

    return call


def convert(session, shown: Graph, resolved: Graph):
    definitions = session.read_definitions({node.class_type for node in shown.values()})
    workflow = write_ui_format(shown, definitions)
    extra = session.read_definitions({node["type"] for node in workflow["nodes"]} - definitions.keys())
    return workflow, write_api_format(resolved), WorkflowExport(workflow, {**definitions, **extra}).make_prompt()


def find(workflow, name):
    (node,) = [node for node in workflow["nodes"] if node["title"] == name]
    return node


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["lora._bypass_=true"],
        ["lora._bypass_=true", "auraflow._bypass_=true", "cfg_norm._bypass_=true"],
        ["sampler.cfg=4.98", "auraflow.shift=1.23456", "seed=9007199254740993"],
        ["experiment=tiny"],
        [
            "+up._node_=LatentUpscaleBy",
            "+up.samples=[sampler,LATENT]",
            "+up.upscale_method=bicubic",
            "+up.scale_by=2.0",
        ],
    ],
)
def test_the_workflow_gives_the_prompt_of_the_graph(export, overrides):
    _, prompt, read = export(*overrides, *(["run.outputs=[up]"] if "+up._node_=LatentUpscaleBy" in overrides else []))
    assert read == prompt


def test_a_node_is_written_as_the_gui_saves_it(export):
    workflow, _, _ = export("seed=7", "sampler.steps=3")
    node = find(workflow, "sampler")
    assert node.items() >= {"id": "sampler", "type": "KSampler", "mode": 0, "flags": {}}.items()
    assert node["widgets_values"] == [7, "fixed", 3, 4.0, "euler", "simple", 1.0]
    assert [(slot["name"], slot["type"]) for slot in node["inputs"]][:4] == [
        *(("model", "MODEL"), ("positive", "CONDITIONING"), ("negative", "CONDITIONING")),
        ("latent_image", "LATENT"),
    ]
    assert node["inputs"][4] == {"name": "seed", "type": "INT", "widget": {"name": "seed"}, "link": None}
    number = node["inputs"][0]["link"]
    assert [number, "cfg_norm", 0, "sampler", 0, "MODEL"] in workflow["links"]
    assert find(workflow, "cfg_norm")["outputs"] == [{"name": "patched_model", "type": "MODEL", "links": [number]}]
    assert workflow["version"] == 0.4
    assert workflow["last_link_id"] == len(workflow["links"]) == 7


def test_bypassed_nodes_are_in_bypass_mode_and_linked(export):
    workflow, prompt, _ = export("lora._bypass_=true")
    lora = find(workflow, "lora")
    assert (lora["mode"], "lora" in prompt) == (4, False)
    assert lora["inputs"][0]["link"]
    assert lora["outputs"][0]["links"] == [find(workflow, "auraflow")["inputs"][0]["link"]]
    assert lora["widgets_values"] == ["demo_outline.safetensors", 1.0]


def test_nodes_that_nothing_needs_are_left_out(export):
    workflow, prompt, _ = export("+idle._node_=EmptyImage", "+idle.width=8", "+idle.height=8")
    assert {node["title"] for node in workflow["nodes"]} == set(prompt)


def test_the_same_graph_gives_the_same_workflow(export):
    first, again, other = export()[0], export()[0], export("seed=8")[0]
    assert first == again
    assert first["id"] != other["id"]


@pytest.mark.parametrize(
    ("text", "saved"),
    [
        ("a fox", "a fox"),
        ("{red|blue} fox", r"\{red\|blue\} fox"),
        ("a } fox", "a } fox"),
        ("http://fox", None),
        ("a /* fox */", None),
        ("a \\", None),
        (r"a \{fox\}", None),
    ],
)
def test_texts_that_the_gui_would_change_are_escaped_or_moved(session, text, saved):
    graph = Graph(
        {
            "clip": Node("clip", "CLIPLoader", {"clip_name": "a.safetensors", "type": "wan", "device": "default"}),
            "encode": Node("encode", "CLIPTextEncode", {"text": text, "clip": Link("clip", 0)}),
        }
    )
    workflow, prompt, read = convert(session, graph, graph)
    if saved is None:
        held = read.pop("encode.text")
        assert held["class_type"] == "PrimitiveStringMultiline"
        assert read["encode"]["inputs"]["text"] == ["encode.text", 0]
        read["encode"]["inputs"]["text"] = held["inputs"]["value"]
    else:
        assert find(workflow, "encode")["widgets_values"] == [saved]
    assert read == prompt


@pytest.mark.parametrize(
    ("value", "class_type"),
    [(3, "PrimitiveInt"), (0.5, "PrimitiveFloat"), (True, "PrimitiveBoolean"), ("x", "PrimitiveStringMultiline")],
)
def test_a_value_on_an_input_without_widget_comes_from_a_primitive(session, value, class_type):
    graph = Graph({"show": Node("show", "PreviewAny", {"source": value})})
    workflow, prompt, read = convert(session, graph, graph)
    assert find(workflow, "show.source")["type"] == class_type
    assert read.pop("show.source")["inputs"] == {"value": value}
    assert read["show"]["inputs"] == {"source": ["show.source", 0]}
    assert prompt["show"]["inputs"] == {"source": value}


def test_ids_that_look_like_numbers_are_numbers(session):
    graph = Graph({"12": Node("12", "EmptyImage", {"width": 8, "height": 8, "batch_size": 1, "color": 0})})
    workflow, prompt, read = convert(session, graph, graph)
    assert (workflow["nodes"][0]["id"], workflow["last_node_id"]) == (12, 12)
    assert read == prompt
