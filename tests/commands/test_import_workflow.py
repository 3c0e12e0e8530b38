"""`python -m pipeline import FILE`, and the runs of what it imported."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import PROBES, ROOT, load_yaml
from patience import PATIENCE
from workflow.making import make_node, make_subgraph, make_workflow

from pipeline.commands import import_workflow
from pipeline.config import read as config_read
from pipeline.config.read import compose_config, read_config
from pipeline.errors import ConfigError
from pipeline.workflow.embedded import WorkflowFile
from pipeline.workflow.graph_file import read_prompt


@pytest.fixture
def conf(tmp_path, monkeypatch) -> Path:
    """A copy of conf/ to import into."""
    folder = tmp_path / "conf"
    shutil.copytree(ROOT / "conf", folder)
    monkeypatch.setattr(config_read, "CONF", folder)
    monkeypatch.setattr(import_workflow, "CONF", folder)
    monkeypatch.setattr(import_workflow, "GRAPHS", folder / "graph")
    return folder


def as_file(document: dict[str, Any], is_ui: bool = True) -> WorkflowFile:
    return WorkflowFile(json.dumps(document), document, is_ui)


def read_graph_named(name: str) -> Any:
    read = read_config(compose_config([*PROBES, f"graph={name}"]))
    assert read.problems == ()
    return read


INVERTED = make_workflow(
    [
        make_node(1, "EmptyImage", [64, 32, 1, 255]),
        make_node(2, "ImageInvert", [], {"image": 1}, mode=4),
        make_node(5, "ImageBlur", [3, 1.5], {"image": 2}, title="Blur It"),
        make_node(3, "SaveImage", ["x"], {"images": 3}),
        make_node(4, "Note", ["hello"]),
    ],
    [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 5, 0, "IMAGE"], [3, 5, 0, 3, 0, "IMAGE"]],
)


def test_a_graph_has_the_imported_nodes_only_and_can_be_overridden(session, conf) -> None:
    assert import_workflow.write_graph("mine", "x.png", as_file(INVERTED), session) == []
    read = read_graph_named("mine")
    assert list(read.graph) == ["empty_image", "invert_image_colors", "blur_it", "save_image"]
    assert read.run.outputs == []
    checked = session.check(read.graph, read.run.outputs)
    assert checked.order == ("empty_image", "blur_it", "save_image")
    assert dict(checked.graph["empty_image"].inputs) == {"width": 64, "height": 32, "batch_size": 1, "color": 255}
    overrides = ["graph=mine", "blur_it.sigma=0.5", "invert_image_colors._bypass_=false"]
    changed = read_config(compose_config(overrides)).graph
    assert session.check(changed).order == ("empty_image", "invert_image_colors", "blur_it", "save_image")
    assert changed["blur_it"].inputs["sigma"] == 0.5


def test_the_original_lies_beside_the_graph_and_the_ids_are_kept(session, conf) -> None:
    text = json.dumps(INVERTED, indent=3)
    import_workflow.write_graph("mine", "x.json", WorkflowFile(text, INVERTED, True), session)
    assert (conf / "graph" / "mine.json").read_text(encoding="utf-8") == text
    sections = load_yaml((conf / "graph" / "mine.yaml").read_text(encoding="utf-8"))
    assert [sections[name]["_id_"] for name in ("empty_image", "invert_image_colors", "blur_it")] == ["1", "2", "5"]


PROMPT = {
    "7:1": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
    "2": {"class_type": "SaveLatent", "inputs": {"samples": ["7:1", 0], "filename_prefix": "${x}", "extra": None}},
}


def test_a_prompt_in_api_format_comes_back_as_it_was(session, conf) -> None:
    import_workflow.write_graph("mine", "x.json", as_file(PROMPT, is_ui=False), session)
    read = read_graph_named("mine")
    definitions = session.read_definitions({node.class_type for node in read.graph.values()})
    assert read_prompt(read.values, read.graph, definitions) == PROMPT
    session.check(read.graph)


def test_a_prompt_with_unknown_classes_and_links_that_lead_nowhere_is_refused(session, conf) -> None:
    prompt = {
        **PROMPT,
        "3": {"class_type": "EmptyLatentImag", "inputs": {"width": ["77", 0]}},
        "4": {"class_type": None},
    }
    with pytest.raises(ConfigError) as raised:
        import_workflow.write_graph("mine", "x.json", as_file(prompt, is_ui=False), session)
    assert [str(problem) for problem in raised.value.problems] == [
        "node 3: 'EmptyLatentImag' is no known node class; did you mean 'EmptyLatentImage'?",
        "node 3, input width: is linked to node '77', which the prompt does not have",
        "node 4: None is no known node class. Name the pack that has it: comfyui.custom_nodes=[FOLDER]",
    ]
    assert list((conf / "graph").glob("mine*")) == []


@pytest.mark.parametrize("output", [0, 1])
def test_a_bypassed_node_that_would_pass_on_something_else_here_is_left_out(session, conf, output: int) -> None:
    # The GUI knows the inputs and outputs that a file has and the class has not.
    through = make_node(2, "PrimitiveInt", [4, "fixed"], {"extra": 1}, mode=4, outputs=[{"type": "INT"}, {"type": "*"}])
    through["inputs"][0]["type"] = "IMAGE"
    nodes = [make_node(1, "EmptyImage", [64, 32, 1, 255]), through, make_node(3, "PreviewImage", [], {"images": 2})]
    document = make_workflow(nodes, [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, output, 3, 0, "*"]])
    import_workflow.write_graph("mine", "x.json", as_file(document), session)
    graph = read_graph_named("mine").graph
    assert list(graph) == ["empty_image", "preview_image"]
    assert str(graph["preview_image"].inputs["images"]) == "[empty_image, IMAGE]"


def test_missing_models_and_other_lacks_are_listed(session, conf) -> None:
    models = [{"name": "nice.safetensors", "url": "https://example.org/nice", "directory": "vae"}]
    nodes = [
        make_node(1, "VAELoader", ["nice.safetensors"], properties={"models": models}),
        make_node(2, "LoadLatent", ["none.latent"]),
        make_node(3, "VAEDecode", [], {"samples": 2, "vae": 1}),
        make_node(4, "SaveImage", ["x"], {"images": 3}),
        make_node(5, "CheckpointLoaderSimple", ["gone.ckpt"]),
        make_node(6, "PreviewAny", [], {"source": 4}),
    ]
    links = [[1, 1, 0, 3, 1, "VAE"], [2, 2, 0, 3, 0, "LATENT"], [3, 3, 0, 4, 0, "IMAGE"], [4, 5, 0, 6, 0, "*"]]
    found = as_file(make_workflow(nodes, links))
    import_workflow.write_graph("mine", "x.json", found, session)
    assert list(import_workflow.find_lacks("mine", found, session, PROBES)) == [
        "missing model: models/vae/nice.safetensors (load_vae.vae_name), from https://example.org/nice",
        "to fix: load_latent.latent: Invalid latent file: none.latent",
        "missing model: models/checkpoints/gone.ckpt (load_checkpoint.ckpt_name)",
    ]


@pytest.mark.parametrize(
    ("file", "name", "wanted"),
    [("a b (1).json", None, "a_b_1"), ("x.png", "my-graph", "my-graph"), ("x.png", "..", None), ("x", "a/b", None)],
)
def test_names_of_graphs(conf, file: str, name: str | None, wanted: str | None) -> None:
    if wanted:
        assert import_workflow._choose_name(Path(file), name) == wanted
        (conf / "graph" / f"{wanted}.yaml").touch()
    with pytest.raises(ConfigError, match=r"^--name: "):
        import_workflow._choose_name(Path(file), name)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of the project, to import into from its own command line."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("conf", "pipeline", "nodes"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "run.py", folder)
    return folder


def call(checkout: Path, environment: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**environment, "PYTHONPATH": str(checkout)}
    return subprocess.run(
        [sys.executable, *command], cwd=checkout, env=environment, capture_output=True, text=True, timeout=PATIENCE
    )


def test_what_was_imported_runs_and_sweeps_at_once(checkout, environment) -> None:
    inside = make_subgraph(
        "sub",
        [make_node(1, "EmptyImage", [64, 64, 1, 0], {"color": 1}, ["color"])],
        [[1, -10, 0, 1, 3, "INT"], [2, 1, 0, -20, 0, "IMAGE"]],
        [("color", "INT")],
        [("IMAGE", "IMAGE")],
    )
    nodes = [make_node(2, "sub", [255], title="Picture"), make_node(3, "SaveImage", ["kept"], {"images": 1})]
    document = make_workflow(nodes, [[1, 2, 0, 3, 0, "IMAGE"]], definitions={"subgraphs": [inside]})
    (checkout / "My Workflow.json").write_text(json.dumps(document), encoding="utf-8")

    early = call(checkout, environment, "run.py", "graph=My_Workflow")
    assert (early.returncode, early.stderr) == (
        1,
        "graph: 'My_Workflow' is not a choice of this group, which has none yet\n",
    )
    imported = call(checkout, environment, "-m", "pipeline", "import", "My Workflow.json")
    assert imported.returncode == 0, imported.stderr
    assert imported.stdout.endswith("run it: python run.py graph=My_Workflow\n")

    sweep = ["run.py", "-m", "graph=My_Workflow", "empty_image.color=0,255", "tracking=none", "hydra.sweep.dir=swept"]
    swept = call(checkout, environment, *sweep)
    assert swept.returncode == 0, swept.stderr
    files = sorted((checkout / "swept").glob("*/kept_00001_.png"))
    assert [file.parent.name for file in files] == ["0", "1"]

    again = call(
        checkout, environment, "-m", "pipeline", "import", str(files[1]), "--name", "again", "comfyui.device=cpu"
    )
    assert again.returncode == 0, again.stderr
    sections = load_yaml((checkout / "conf" / "graph" / "again.yaml").read_text(encoding="utf-8"))
    assert sections["empty_image"]["color"] == 255

    taken = call(checkout, environment, "-m", "pipeline", "import", "My Workflow.json")
    assert (taken.returncode, taken.stdout) == (1, "")
    assert taken.stderr.startswith("--name: 'My_Workflow' is taken: ")


def test_what_is_no_option_is_refused(checkout, environment) -> None:
    wrong = call(checkout, environment, "-m", "pipeline", "import", "x.json", "--nmae", "again")
    assert (wrong.returncode, wrong.stderr.splitlines()[-1]) == (
        2,
        "python -m pipeline: error: unrecognized arguments: --nmae again",
    )
