"""conf/ and what is read from it: every choice composes, and every fault of a config is listed."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf
from warm_python import PYTHON

from pipeline.config.read import CONF, RunConfig, compose_config, read_config
from pipeline.engine.comfyui.settings import ComfyUISettings
from pipeline.errors import ConfigError
from pipeline.graph.model import Link
from pipeline.models.sets import MODELS, find_model_set
from pipeline.models.tiny import tiny_folder
from pipeline.record.tracker import TrackingSettings

ROOT = Path(__file__).parents[2]
FILES = sorted(path.relative_to(CONF).as_posix() for path in CONF.rglob("*.yaml"))
NOT_OURS = ("hydra/", "graph/")  # Hydra's own groups, and what a user imported
CHOICES = [file.removesuffix(".yaml") for file in FILES if "/" in file and not file.startswith(NOT_OURS)]
LIGHTNING = "experiment=qwen_image_edit_2509_lightning"


@functools.cache
def compose(*overrides: str) -> DictConfig:
    return compose_config(overrides)


@functools.cache
def read_composed(*overrides: str) -> RunConfig:
    return read_config(compose(*overrides))


def read(values: dict[Any, Any]) -> RunConfig:
    return read_config(OmegaConf.create(values))


def find_problems(values: dict[Any, Any]) -> list[tuple[str, str]]:
    return [(problem.code, str(problem)) for problem in read(values).problems]


# The files


def test_the_repository_has_these_groups() -> None:
    groups = {choice.partition("/")[0] for choice in CHOICES}
    assert groups == {
        "unet",
        "lora",
        "auraflow",
        "cfg_norm",
        "sampler",
        "inputs",
        "tracking",
        "experiment",
        "sweep",
        "worker",
    }


def choose(nth: int) -> tuple[str, ...]:
    """The overrides that take the nth choice of every group but experiment/ (from the first again, if it has fewer)."""
    groups: dict[str, list[str]] = {}
    for choice in CHOICES:
        groups.setdefault(choice.partition("/")[0], []).append(choice.partition("/")[2])
    return tuple(f"{group}={names[nth % len(names)]}" for group, names in groups.items() if group != "experiment")


EXPERIMENTS = [choice.replace("/", "=") for choice in CHOICES if choice.startswith("experiment/")]
ROUNDS = [choose(nth) for nth in range(max(Counter(choice.partition("/")[0] for choice in CHOICES).values()))]


def test_the_rounds_below_take_every_choice() -> None:
    assert sorted({*sum(ROUNDS, ()), *EXPERIMENTS}) == sorted(choice.replace("/", "=") for choice in CHOICES)


@pytest.mark.parametrize("overrides", [*ROUNDS, *((experiment,) for experiment in EXPERIMENTS)])
def test_every_choice_composes_and_lacks_nothing_but_what_the_user_must_give(
    overrides: tuple[str, ...],
) -> None:
    config = compose(*overrides)
    read_ = read_config(config)
    assert {(problem.code, problem.where.partition(".")[2]) for problem in read_.problems} <= {
        ("required_input_missing", "path")
    }
    assert {"unet", "lora", "auraflow", "cfg_norm", "sampler", "positive", "negative", "latent"} == set(read_.graph)
    choices = config.hydra.runtime.choices
    assert [override for override in overrides if choices[override.partition("=")[0]] not in override] == []


@pytest.mark.parametrize("sweep", [choice.partition("/")[2] for choice in CHOICES if choice.startswith("sweep/")])
def test_a_grid_sweeps_settings_that_there_are(sweep: str) -> None:
    config = compose(f"sweep={sweep}")
    assert config.hydra.mode.name == "MULTIRUN"
    assert [path for path in config.hydra.sweeper.params if OmegaConf.select(config, path) is None] == []


def list_nodes(file: str) -> dict[str, dict[str, Any]]:
    """The nodes that a file declares, by name."""
    content = yaml.safe_load((CONF / file).read_text())
    sections = {file.partition("/")[0]: content, **content}
    return {name: one for name, one in sections.items() if isinstance(one, dict) and "_node_" in one}


NODE_FILES = [file for file in FILES if list_nodes(file)]


def test_the_node_files_are_found() -> None:
    assert {file.partition("/")[0] for file in NODE_FILES} == {
        "unet",
        "lora",
        "auraflow",
        "cfg_norm",
        "sampler",
        "inputs",
    }
    assert set(list_nodes("inputs/files.yaml")) == {"positive", "negative", "latent"}


@pytest.mark.parametrize("file", NODE_FILES)
def test_a_node_file_lists_its_bypass_and_needs_no_hydra(file: str) -> None:
    for node in list_nodes(file).values():
        assert node["_bypass_"] is False
        assert list(node)[:2] == ["_node_", "_bypass_"]
    assert "${hydra" not in (CONF / file).read_text()


def test_a_group_bears_the_name_of_the_node_it_gives() -> None:
    for file in NODE_FILES:
        group = file.partition("/")[0]
        assert list(list_nodes(file)) == [group] or group == "inputs"


def test_choices_of_one_group_have_the_same_inputs() -> None:
    """So that an override that suits one suits the others; only `inputs` is what it is for."""
    by_node: dict[str, set[tuple[str, ...]]] = {}
    for file in NODE_FILES:
        for name, node in list_nodes(file).items():
            by_node.setdefault(name, set()).add(tuple(node) if not file.startswith("inputs/") else ())
    assert {name: len(kinds) for name, kinds in by_node.items()} == dict.fromkeys(by_node, 1)


def test_config_yaml_comes_first_so_that_experiments_win() -> None:
    defaults = yaml.safe_load((CONF / "config.yaml").read_text())["defaults"]
    assert defaults[0] == "_self_"
    groups = [next(iter(entry)) for entry in defaults[1:]]
    assert groups.index("experiment") > max(groups.index(group) for group in ("unet", "lora", "sampler", "inputs"))
    ours = {choice.partition("/")[0] for choice in CHOICES}
    assert {group for group in groups if "/" not in group} == {*ours, "graph"}


GIVEN = ("positive.path=p.pt", "negative.path=n.pt", "latent.path=l.pt")


@pytest.mark.parametrize("file", [file for file in FILES if file.startswith("experiment/")])
def test_an_experiment_begins_with_the_command_that_runs_it(file: str) -> None:
    package, command = (CONF / file).read_text().splitlines()[:2]
    assert package == "# @package _global_"
    assert command.startswith(f"# python run.py experiment={Path(file).stem}")
    overrides = [
        f"{key}={value.lower()}"
        for key, _, value in (one.partition("=") for one in command.removeprefix("# python run.py ").split())
        if key != "comfyui.models"
    ]
    assert read_composed(*overrides).problems == ()


def test_the_values_of_the_lightning_experiment() -> None:
    graph = read_composed(LIGHTNING, *GIVEN).graph
    assert {name: (node.class_type, dict(node.inputs)) for name, node in graph.items()} == {
        "unet": (
            "UNETLoader",
            {"unet_name": "qwen_image_edit_2509_fp8_e4m3fn.safetensors", "weight_dtype": "default"},
        ),
        "lora": (
            "LoraLoaderModelOnly",
            {
                "model": Link("unet", "MODEL"),
                "lora_name": "Qwen-Image-Lightning-4steps-V2.0.safetensors",
                "strength_model": 1.0,
            },
        ),
        "auraflow": ("ModelSamplingAuraFlow", {"model": Link("lora", "MODEL"), "shift": 3.0}),
        "cfg_norm": ("CFGNorm", {"model": Link("auraflow", "MODEL"), "strength": 1.0}),
        "sampler": (
            "KSampler",
            {
                "model": Link("cfg_norm", "MODEL"),
                "positive": Link("positive", "CONDITIONING"),
                "negative": Link("negative", "CONDITIONING"),
                "latent_image": Link("latent", "LATENT"),
                "seed": 42,
                "steps": 4,
                "cfg": 1.0,
                "sampler_name": "euler",
                "scheduler": "simple",
                "denoise": 1.0,
            },
        ),
        "positive": ("LatentgridLoadConditioning", {"path": "p.pt"}),
        "negative": ("LatentgridLoadConditioning", {"path": "n.pt"}),
        "latent": ("LatentgridLoadLatent", {"path": "l.pt"}),
    }
    assert not any(node.bypassed for node in graph.values())


def test_the_lightning_experiment_asks_for_its_inputs() -> None:
    assert [str(problem) for problem in read_composed(LIGHTNING).problems] == [
        f"{name}.path: is required and not given. Give it as {name}.path=VALUE"
        for name in ("positive", "negative", "latent")
    ]


def test_the_models_of_the_experiment_can_be_fetched() -> None:
    graph = read_composed(LIGHTNING).graph
    assert find_model_set("diffusion_models", str(graph["unet"].inputs["unet_name"])) == "qwen_image_edit_2509"
    assert find_model_set("loras", str(graph["lora"].inputs["lora_name"])) == "qwen_image_edit_2509"


def test_by_default_the_demo_model_runs() -> None:
    read = read_composed()
    assert read.problems == ()
    assert (MODELS / "diffusion_models" / str(read.graph["unet"].inputs["unet_name"])).is_file()
    assert (MODELS / "loras" / str(read.graph["lora"].inputs["lora_name"])).is_file()
    assert read.graph["positive"].inputs == {"text": "a yellow star on blue"}
    assert read.graph["negative"].inputs == {"text": ""}
    assert read.run.outputs == ["sampler"]
    assert read.variables == {"seed": 42}


def test_the_tiny_experiment_runs_the_tiny_model() -> None:
    read = read_composed("experiment=tiny")
    assert read.problems == ()
    assert read.graph["unet"].inputs["unet_name"] == "tiny_qwen_image_fp8_e4m3fn.safetensors"
    assert read.graph["latent"].inputs["path"] == str(tiny_folder() / "latent.pt")


# Overrides


COMMAND = (
    "experiment=tiny",
    "lora._bypass_=true",
    "auraflow.shift=2.5",
    "positive.path=x.pt",
    "sampler.sampler_name=dpmpp_2m",
    "sampler.model=[lora,0]",
    "seed=7",
    "run.outputs=[sampler,lora]",
    "comfyui.models=[/models]",
    "tracking.uri=http://localhost:5000",
    "+lora@lora2=qwen_image_lightning_4steps",
    "lora2.model=[lora,MODEL]",
)
CHANGED_EXPERIMENT = (LIGHTNING, "sampler.steps=8", "sampler.seed=7", "lora=tiny", "inputs=tiny", "tracking=none")


@pytest.mark.parametrize(
    ("overrides", "path", "value"),
    [
        (COMMAND, "lora._bypass_", True),
        (COMMAND, "auraflow.shift", 2.5),
        (COMMAND, "positive.path", "x.pt"),
        (COMMAND, "negative.path", str(tiny_folder() / "negative.pt")),
        (COMMAND, "sampler.sampler_name", "dpmpp_2m"),
        (COMMAND, "sampler.model", ["lora", 0]),
        (COMMAND, "sampler.seed", 7),
        (COMMAND, "sampler.steps", 4),
        (COMMAND, "run.outputs", ["sampler", "lora"]),
        (COMMAND, "comfyui.models", ["/models"]),
        (COMMAND, "tracking.uri", "http://localhost:5000"),
        (COMMAND, "tracking.experiment_name", "latentgrid"),
        (COMMAND, "lora2.model", ["lora", "MODEL"]),
        (COMMAND, "lora2.lora_name", "Qwen-Image-Lightning-4steps-V2.0.safetensors"),
        (COMMAND, "lora.lora_name", "tiny_qwen_image_lora.safetensors"),
        # the command line wins over an experiment, an experiment over its groups
        (CHANGED_EXPERIMENT, "sampler.steps", 8),
        (CHANGED_EXPERIMENT, "sampler.seed", 7),
        (CHANGED_EXPERIMENT, "auraflow.shift", 3.0),
        (CHANGED_EXPERIMENT, "unet.unet_name", "qwen_image_edit_2509_fp8_e4m3fn.safetensors"),
        (CHANGED_EXPERIMENT, "lora.lora_name", "tiny_qwen_image_lora.safetensors"),
        (CHANGED_EXPERIMENT, "latent.path", str(tiny_folder() / "latent.pt")),
        (CHANGED_EXPERIMENT, "tracking.uri", None),
        (CHANGED_EXPERIMENT, "tracking.experiment_name", None),
    ],
)
def test_an_override_lands_where_its_path_says(overrides: tuple[str, ...], path: str, value: Any) -> None:
    section, _, key = path.partition(".")
    assert read_composed(*overrides).values[section][key] == value


def test_a_bypass_from_the_command_line_reaches_the_graph() -> None:
    graph = read_composed(*COMMAND).graph
    assert [name for name, node in graph.items() if node.bypassed] == ["lora"]
    assert "_bypass_" not in graph["lora"].inputs
    assert graph["lora2"].inputs["model"] == Link("lora", "MODEL")


@pytest.mark.parametrize("override", ["sampler.stpes=8", "comfyui.modles=[]"])
def test_a_typo_is_refused_by_the_struct_of_the_config(override: str) -> None:
    with pytest.raises(ConfigError, match=f"{override.partition('=')[0]}: is not in the config; did you mean"):
        compose_config([override])


def test_a_file_of_conf_with_a_key_twice_is_named_with_its_line(tmp_path, monkeypatch) -> None:
    shutil.copytree(CONF, tmp_path / "conf")
    path = tmp_path / "conf/sampler/euler.yaml"
    path.write_text(f"{path.read_text()}sampler: 1\n" + "seed: 1\nseed: 2\n")
    monkeypatch.setattr("pipeline.config.read.CONF", tmp_path / "conf")
    with pytest.raises(ConfigError, match=rf"(?s)^conf: a file cannot be read: .*{path}.*line \d+.*duplicate key"):
        compose_config()


def test_a_mapping_that_is_no_config_is_a_problem() -> None:
    assert [str(problem) for problem in read_config({"a": object()}).problems][:1] == [
        "a: Value 'object' is not a supported primitive type"
    ]


# Reading


def test_settings_are_read_into_their_dataclasses() -> None:
    read_ = read(
        {
            "comfyui": {"version": "0.24.1", "device": "cpu", "dynamic_vram": False, "args": {"reserve_vram": 2.0}},
            "run": {"outputs": ["a"], "save_pt": True, "name": 7},
            "tracking": {"uri": "x"},
        }
    )
    assert read_.problems == ()
    assert read_.comfyui == ComfyUISettings(
        version="0.24.1", device="cpu", dynamic_vram=False, args={"reserve_vram": 2.0}
    )
    assert (read_.run.outputs, read_.run.name, read_.run.save_pt, read_.run.dry_run) == (["a"], "7", True, False)
    assert read_.tracking == TrackingSettings(uri="x")
    assert not read_.has_wrong_settings


def test_one_config_leaves_nothing_behind_for_the_next() -> None:
    first = read({"comfyui": {"args": {"a": 1}, "device": "cpu"}, "run": {"outputs": ["a"], "name": "x"}})
    second = read({"comfyui": {"args": {"b": 2}}, "run": {"outputs": []}})
    assert (first.comfyui.args, first.run.outputs, first.run.name) == ({"a": 1}, ["a"], "x")
    assert (second.comfyui, second.run.outputs, second.run.name) == (ComfyUISettings(args={"b": 2}), [], None)


@pytest.mark.parametrize("values", [{}, {"seed": 1}, {"comfyui": None, "run": {}, "tracking": None}])
def test_settings_that_are_not_given_have_their_defaults(values: dict[str, Any]) -> None:
    read_ = read(values)
    assert (read_.comfyui, read_.tracking, read_.problems) == (ComfyUISettings(), TrackingSettings(), ())


def test_a_plain_dictionary_is_a_config_too_and_hydras_own_node_is_no_section() -> None:
    read_ = read_config({"s": {"_node_": "K", "steps": "${n}"}, "n": 4, "hydra": {"run": {"dir": "x"}}})
    assert read_.problems == ()
    assert dict(read_.graph["s"].inputs) == {"steps": 4}
    assert dict(read_.values) == {"s": {"_node_": "K", "steps": 4}, "n": 4}
    assert read_.variables == {"n": 4}


@pytest.mark.parametrize(
    ("values", "code", "message", "stops"),
    [
        (
            {"trackng": {"uri": "x"}},
            "unknown_section",
            "trackng: is neither a node (it has no _node_) nor a settings section; did you mean 'tracking'?",
            True,
        ),
        (
            {"zzz": {"model": ["s", 0]}},
            "unknown_section",
            "zzz: is neither a node (it has no _node_) nor a settings section",
            True,
        ),
        ({"comfyui": {"modles": []}}, "unknown_setting", "comfyui.modles: is no setting; did you mean 'models'?", True),
        (
            {"run": {"zzz": 1}},
            "unknown_setting",
            "run.zzz: is no setting. The settings are outputs, name, save_pt, dry_run, fail_fast, resume, objective, "
            "reference, cache, batch_seeds",
            True,
        ),
        (
            {"run": {"save_pt": "perhaps"}},
            "invalid_input_type",
            "run.save_pt: must be true or false, got 'perhaps'",
            True,
        ),
        (
            {"run": {"batch_seeds": 0}},
            "value_smaller_than_min",
            "run.batch_seeds: must be at least 1, got 0",
            True,
        ),
        (
            {"run": {"batch_seeds": 4, "cache": "none"}},
            "cache_needed",
            "run.batch_seeds: needs outputs to be kept from one job to the next. Set run.cache=classic",
            True,
        ),
        ({"run": {"outputs": "sampler"}}, "invalid_input_type", "run.outputs: must be a list, got 'sampler'", True),
        ({"run": {"outputs": {"a": 1}}}, "invalid_input_type", "run.outputs: must be a list, got {'a': 1}", True),
        ({"comfyui": {"args": 3}}, "invalid_input_type", "comfyui.args: must be a mapping, got 3", True),
        ({"tracking": {"uri": ["x"]}}, "invalid_input_type", "tracking.uri: must be a text, got ['x']", True),
        (
            {"comfyui": {"device": "gpu"}},
            "value_not_in_list",
            "comfyui.device: must be auto, cpu or cuda:N, got 'gpu'",
            True,
        ),
        (
            {"comfyui": {"path": "???"}},
            "required_input_missing",
            "comfyui.path: is required. Give it as comfyui.path=VALUE",
            True,
        ),
        (
            {"comfyui": {"models": ["/no/such/folder"]}},
            "value_not_in_list",
            "comfyui.models[0]: does not exist, got '/no/such/folder'",
            None,
        ),
        ({"run": {"_node_": "K"}}, "unknown_setting", None, True),  # a node cannot be called as a section
        ({"run": {"name": "${nope}"}}, "bad_interpolation", "run.name: Interpolation key 'nope' not found", True),
        ({"run": {"save_pt": "${nope}"}}, "bad_interpolation", "run.save_pt: Interpolation key 'nope' not found", True),
        (
            {"s": {"_node_": "K", "x": "${nope}"}},
            "bad_interpolation",
            "s.x: Interpolation key 'nope' not found",
            False,
        ),
        (
            {"s": {"_node_": "K", "x": "${nope:1}"}},
            "bad_interpolation",
            "s.x: Unsupported interpolation type nope",
            False,
        ),
        ({"a": "${nope}"}, "bad_interpolation", "a: Interpolation key 'nope' not found", False),
        (
            {"s": {"_node_": "K", "x": {"__value__": {"y": "${nope}"}}}},
            "bad_interpolation",
            "s.x.__value__.y: Interpolation key 'nope' not found",
            False,
        ),
        (
            {"s": {"_node_": "K", "x": "???"}},
            "required_input_missing",
            "s.x: is required and not given. Give it as s.x=VALUE",
            False,
        ),
        ({"s": {"_node_": "K", "x": [1]}}, "bad_linked_input", None, False),
    ],
)
def test_a_fault_is_listed(values: dict[str, Any], code: str, message: str | None, stops: bool | None) -> None:
    read_ = read(values)
    ((found, text),) = [(problem.code, str(problem)) for problem in read_.problems]
    assert (found, text) == (code, message or text)
    assert stops is None or read_.has_wrong_settings is stops


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"s": {"_node_": "K", "model": ["${nope}", "MODEL"]}}, "s.model"),
        ({"s": {"_node_": "K", "x": {"__value__": [0, "${nope}"]}}}, "s.x"),
        ({"run": {"outputs": ["${nope}"]}}, "run.outputs"),
        ({"names": ["${nope}"]}, "names"),
    ],
)
def test_an_interpolation_inside_a_list_that_leads_nowhere_is_listed_too(values: dict[str, Any], where: str) -> None:
    (problem,) = read(values).problems
    assert problem.code == "bad_interpolation"
    assert problem.where.startswith(where)
    assert "Interpolation key 'nope' not found" in problem.message


@pytest.mark.parametrize("values", [{"run": 5}, {"tracking": "none"}, {"comfyui": ["/comfyui"]}])
def test_a_settings_section_that_is_no_mapping_is_listed(values: dict[str, Any]) -> None:
    (problem,) = read(values).problems
    assert problem.where == next(iter(values))


def test_all_faults_are_listed_and_the_rest_is_read() -> None:
    read_ = read(
        {
            "run": {"outputs": ["s"], "save_pt": "perhaps", "zzz": 1},
            "trackng": {"uri": 1},
            "s": {"_node_": "K", "a": "${nope}", "b": ["gone", 0], "c": 3, "d": "???"},
        }
    )
    faulty = ["run.save_pt", "run.zzz", "s.a", "s.b", "s.d", "trackng"]
    assert sorted(problem.where for problem in read_.problems) == faulty
    assert (read_.run.outputs, read_.run.save_pt) == (["s"], False)
    assert dict(read_.graph["s"].inputs) == {"c": 3}


def test_interpolations_are_resolved_everywhere() -> None:
    read_ = read(
        {
            "n": 4,
            "name": "unet",
            "curve": [0, "${n}"],
            "unet": {"_node_": "U"},
            "s": {
                "_node_": "${kind}",
                "_bypass_": "${flag}",
                "steps": "${n}",
                "text": "a ${name} of ${s.steps}",
                "model": ["${name}", "MODEL"],
                "curve": {"__value__": "${curve}"},
                "box": {"__value__": {"x": "${n}", "of": ["${n}"]}},
            },
            "kind": "K",
            "flag": True,
        }
    )
    assert read_.problems == ()
    assert (read_.graph["s"].class_type, read_.graph["s"].bypassed) == ("K", True)
    assert dict(read_.graph["s"].inputs) == {
        "steps": 4,
        "text": "a unet of 4",
        "model": Link("unet", "MODEL"),
        "curve": [0, 4],
        "box": {"x": 4, "of": [4]},
    }
    json.dumps(dict(read_.values))  # plain containers all through


@pytest.mark.parametrize(
    ("key", "value", "read_as"),
    [
        ("format.bit_depth", "16-bit", "16-bit"),
        ("images.image0", ["s", 0], Link("s", 0)),
        ("format.curve", {"__value__": [0, 1]}, [0, 1]),
    ],
)
def test_the_dotted_names_of_dynamic_inputs_are_names(key: str, value: Any, read_as: Any) -> None:
    read_ = read({"s": {"_node_": "K", key: value}})
    assert read_.problems == ()
    assert dict(read_.graph["s"].inputs) == {key: read_as}


def test_a_node_whose_name_yaml_read_as_a_number_is_read() -> None:
    """The names of nodes that come from ComfyUI are such."""
    read_ = read({3: {"_node_": "K", "steps": 4}})
    assert read_.problems == ()
    assert dict(read_.graph["3"].inputs) == {"steps": 4}


# What is imported

IMPORTS = """
import importlib, pkgutil, sys
import pipeline.graph

def imported(names):
    return sorted({name for name in sys.modules if name.partition(".")[0] in names})

for module in pkgutil.iter_modules(pipeline.graph.__path__):
    importlib.import_module(f"pipeline.graph.{module.name}")
import pipeline.errors, pipeline.base.events
print(imported({"hydra", "omegaconf", "yaml", "torch", "numpy", "mlflow"}))

import pipeline.config.read, pipeline.config.overrides, pipeline.config.origins
config = pipeline.config.read.compose_config(["sampler.steps=8"])
read = pipeline.config.read.read_config(config)
foreign = "torch numpy mlflow comfy comfy_api comfy_execution comfy_extras nodes execution folder_paths"
print(imported(foreign.split()))
print(read.graph["sampler"].inputs["steps"], pipeline.config.read.__file__)
"""


def test_the_graph_is_plain_python_and_a_config_is_read_without_torch_mlflow_or_comfyui() -> None:
    done = subprocess.run([PYTHON, "-c", IMPORTS], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[]", "[]", f"8 {ROOT / 'pipeline' / 'config' / 'read.py'}"]
