"""`from pipeline import run`: one run from config to record, on the real ComfyUI and the real MLflow."""

from __future__ import annotations

import json

import pytest
import torch
import yaml
from conftest import PROBES
from mlflow import MlflowClient
from omegaconf import OmegaConf, open_dict
from PIL import Image
from safetensors.torch import load_file

from pipeline import run
from pipeline.config.read import compose_config
from pipeline.errors import ConfigError, NodeError, TrackingError

# A graph without a model, for what does not depend on sampling.
ADD = [*PROBES, "+add._node_=ProbeAdd", "+add.a=1", "+add.b=2", "run.outputs=[add]"]


@pytest.fixture(scope="module")
def uri(tmp_path_factory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture(scope="module")
def sampled(uri, tmp_path_factory):
    """The default graph, run once."""
    folder = tmp_path_factory.mktemp("run") / "out"
    overrides = [*PROBES, f"tracking.uri={uri}", "seed=7", "sampler.steps=2", "run.save_pt=true"]
    return run(overrides=overrides, folder=folder)


def test_the_result_holds_the_latent_as_an_ordinary_tensor(sampled):
    assert sampled.latent is sampled.latents["sampler"]
    assert sampled.latent.shape == (1, 16, 1, 16, 16)
    assert not sampled.latent.is_inference()
    assert torch.equal(sampled.outputs["sampler"]["LATENT"]["samples"], sampled.latent)


def test_the_output_folder_holds_what_the_docs_say(sampled):
    names = {path.name for path in sampled.folder.iterdir()}
    given = {"config.yaml", "prompt.json", "workflow.json", "graph.svg", "record.json"}
    assert names == {*given, "sampler.latent", "sampler.pt", "sampler.png"}
    assert {path.name for path in sampled.files} == names - {"record.json"}
    assert torch.equal(load_file(sampled.folder / "sampler.latent")["latent_tensor"], sampled.latent)
    assert torch.equal(torch.load(sampled.folder / "sampler.pt", weights_only=True)["samples"], sampled.latent)


def test_the_picture_has_the_size_of_the_image(sampled):
    with Image.open(sampled.folder / "sampler.png") as picture:
        assert picture.size == (128, 128)
        assert len(picture.getcolors(maxcolors=2**16)) > 50


def test_the_config_can_be_run_again(sampled):
    config = yaml.safe_load((sampled.folder / "config.yaml").read_text())
    again = run(config, folder=sampled.folder.parent / "again")
    assert torch.equal(again.latent, sampled.latent)
    assert again.executed == ()  # everything was known
    assert again.files[-1].name == "sampler.png"


def test_values_are_taken_as_they_are(tmp_path, monkeypatch, session):
    monkeypatch.chdir(tmp_path)
    result = run(overrides=[*ADD, "tracking=none"], values={"add.b": 5, "run.name": "it's, (a:1.2) {b} ${seed}"})
    assert result.outputs["add"] == {"sum": 6}
    assert result.folder.is_absolute()
    assert OmegaConf.load(result.folder / "config.yaml").run.name == "it's, (a:1.2) {b} ${seed}"
    with pytest.raises(ConfigError, match=r"add.c: is not in the config; did you mean 'add.b'\?"):
        run(overrides=ADD, values={"add.c": 1})
    with pytest.raises(ConfigError, match=r"sampler.steps=it's: cannot be read as an override"):
        run(overrides=["sampler.steps=it's"])


SAVE = ["+save._node_=ProbeSave", "+save.value=[add,0]", "run.outputs=[add,save]"]


def test_a_file_that_a_node_writes_again_is_kept_again(tmp_path, session):
    """Into the folder of the run before, and after the first attempt of a run was out of memory."""
    for _ in range(2):
        result = run(overrides=[*ADD, *SAVE, "tracking=none"], folder=tmp_path)
        assert "number.txt" in {path.name for path in result.files}
    calls = session.comfyui.nodes.NODE_CLASS_MAPPINGS["ProbeAdd"].add.__globals__["CALLS"]
    calls.clear()
    late = ["+late._node_=ProbeOutOfMemory", "+late.a=1", "+late.b=[add,0]", "run.outputs=[save,late]"]
    result = run(overrides=[*ADD, *SAVE, *late, "tracking=none"], folder=tmp_path / "late")
    assert calls.count("ProbeOutOfMemory") == 2
    assert "number.txt" in {path.name for path in result.files}


def test_what_was_computed_with_other_threads_is_not_reused(tmp_path, session):
    threads = torch.get_num_threads()
    try:
        for count, cached in ((threads, None), (threads, ("add",)), (threads + 1, ())):
            torch.set_num_threads(count)
            result = run(overrides=[*ADD, "tracking=none"], folder=tmp_path)
            assert cached is None or result.cached == cached
            assert result.facts["torch.threads"] == str(count)
    finally:
        torch.set_num_threads(threads)


def test_the_written_config_reads_back_as_it_was(tmp_path):
    texts = {"a": "1e3", "b": "${seed}", "c": "on", "d": "5", "e": "nan", "f": "x: y", "g": "", "h": None, "i": [1.0]}
    config = compose_config([*ADD, "tracking=none"])
    with open_dict(config):
        config.texts = list(texts.values())
    run(config, folder=tmp_path)
    read = OmegaConf.to_container(OmegaConf.load(tmp_path / "config.yaml"), resolve=False)
    assert read["texts"] == list(texts.values())
    assert "hydra" not in read


def test_the_prompt_is_comfyuis_api_format(sampled):
    prompt = json.loads((sampled.folder / "prompt.json").read_text())
    assert prompt["sampler"]["class_type"] == "KSampler"
    assert prompt["sampler"]["inputs"]["model"] == ["cfg_norm", 0]
    assert prompt["cfg_norm"]["inputs"]["pre_cfg"] is False


def test_mlflow_has_every_input_as_a_param_under_its_dotted_path(sampled, uri):
    params = MlflowClient(uri).get_run(sampled.mlflow.run_id).data.params
    assert (
        params.items()
        >= {
            "seed": "7",
            "sampler.seed": "7",
            "sampler.steps": "2",
            "sampler.scheduler": "simple",
            "sampler.sampler_name": "euler",
            "sampler.model": "[cfg_norm, patched_model]",
            "cfg_norm.pre_cfg": "false",  # a default of the node
            "lora.strength_model": "1.0",
            "lora._bypass_": "false",
            "unet.unet_name": "demo_shapes.safetensors",
            "positive.text": "a yellow star on blue",
            "negative.text": "",
            "latent.width": "128",
        }.items()
    )


def test_mlflow_has_the_metrics(sampled, uri):
    client = MlflowClient(uri)
    metrics = client.get_run(sampled.mlflow.run_id).data.metrics
    assert metrics["latent/sampler/mean"] == pytest.approx(float(sampled.latent.mean()))
    assert metrics["latent/sampler/std"] == pytest.approx(float(sampled.latent.std()))
    assert metrics["latent/sampler/min"] == pytest.approx(float(sampled.latent.min()))
    assert metrics["latent/sampler/max"] == pytest.approx(float(sampled.latent.max()))
    assert {f"seconds/{name}" for name in (*sampled.executed, "total")} <= metrics.keys()
    assert metrics["memory/process_peak_gb"] > 0.3  # torch alone takes that
    steps = client.get_metric_history(sampled.mlflow.run_id, "seconds_per_step/sampler")
    assert [step.step for step in steps] == [1, 2]


def test_mlflow_has_the_artifacts_and_the_picture_of_the_comparison(sampled, uri):
    client = MlflowClient(uri)
    names = {file.path for file in client.list_artifacts(sampled.mlflow.run_id)}
    assert {"config.yaml", "prompt.json", "workflow.json", "graph.svg", "sampler.latent", "sampler.png"} <= names
    assert "images" in names


def test_mlflow_has_the_versions(sampled, uri, session):
    run_ = MlflowClient(uri).get_run(sampled.mlflow.run_id)
    tags = run_.data.tags
    assert tags["version.comfyui"] == session.comfyui.installation.version
    assert tags["version.torch"] == torch.__version__
    assert tags.keys() >= {"version.cuda", "version.python", "git.commit", "device", "dynamic_vram", "cached"}
    assert run_.info.run_name.endswith("seed=7 sampler.steps=2 run.save_pt=true")


def test_a_failing_node_is_recorded_as_failed(uri, tmp_path):
    overrides = [*PROBES, "+bad._node_=ProbeFail", "+bad.value=3", "+bad.text=x", "run.outputs=[bad]"]
    with pytest.raises(NodeError, match="bad: ProbeFail failed"):
        run(overrides=[*overrides, f"tracking.uri={uri}", "tracking.experiment_name=failing"], folder=tmp_path)
    (failed,) = find_runs(uri, "failing")
    assert failed.info.status == "FAILED"
    assert failed.data.tags["error"].startswith(
        "NodeError: bad: ProbeFail failed: RuntimeError: this probe always fails"
    )
    assert "seconds/total" in failed.data.metrics


def test_an_interrupted_run_is_recorded_as_killed(uri, tmp_path, session, monkeypatch):
    monkeypatch.setattr(session, "run", lambda *args, **options: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(overrides=[*ADD, f"tracking.uri={uri}", "tracking.experiment_name=killed"], folder=tmp_path)
    assert [found.info.status for found in find_runs(uri, "killed")] == ["KILLED"]


def test_a_wrong_config_leaves_no_record(uri, tmp_path):
    overrides = [*ADD, "add.b=-1", f"tracking.uri={uri}", "tracking.experiment_name=wrong"]
    with pytest.raises(ConfigError, match=r"add\.b: must be at least 0, got -1"):
        run(overrides=overrides, folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not find_runs(uri, "wrong")


def test_tracking_none_writes_the_folder_only(tmp_path):
    result = run(overrides=[*ADD, "tracking=none"], folder=tmp_path)
    assert result.mlflow is None
    assert result.outputs == {"add": {"sum": 3}}
    assert {path.name for path in tmp_path.iterdir()} == {"config.yaml", "prompt.json", "workflow.json", "graph.svg"}


def test_a_failing_record_does_not_lose_the_result(tmp_path):
    with pytest.raises(TrackingError, match=f"nonsense(?s:.*)The results are kept: {tmp_path}"):
        run(overrides=[*ADD, "tracking.uri=nonsense://x"], folder=tmp_path)
    assert (tmp_path / "config.yaml").exists()


def test_what_the_caller_changes_in_a_result_is_not_seen_by_the_next_run(sampled, tmp_path):
    again = [*PROBES, "tracking=none", "seed=7", "sampler.steps=2"]
    run(overrides=again, folder=tmp_path).outputs["sampler"]["LATENT"]["samples"] = None
    assert torch.equal(run(overrides=again, folder=tmp_path).latent, sampled.latent)


def test_a_kept_node_of_which_nothing_is_written_is_named(tmp_path, caplog):
    run(overrides=[*ADD, "tracking=none"], folder=tmp_path)
    assert "add gives no LATENT, so no file is written of it" in caplog.text


def test_a_dry_run_shows_the_order_and_the_origins(tmp_path, capsys):
    result = run(overrides=[*PROBES, "run.dry_run=true", "sampler.steps=9"], folder=tmp_path / "out")
    shown = capsys.readouterr().out
    lines = [line.split() for line in shown.splitlines()]
    assert ["8.", "sampler:", "KSampler", "(kept)"] in lines
    assert ["sampler.steps", "9", "command", "line"] in lines
    assert ["sampler.cfg", "4.0", "sampler/euler.yaml"] in lines
    assert ["sampler.seed", "42", "sampler/euler.yaml", "->", "seed:", "config.yaml"] in lines
    assert ["cfg_norm.pre_cfg", "False", "default", "of", "the", "node"] in lines
    assert result.latents == {}
    assert not (tmp_path / "out").exists()


def test_a_composed_config_and_overrides_exclude_each_other():
    with pytest.raises(ValueError, match="not both"):
        run(compose_config(), overrides=["seed=1"])


def test_a_bypassed_node_and_another_seed_change_the_latent(sampled, tmp_path):
    for override in ("lora._bypass_=true", "seed=8"):
        changed = run(overrides=[*PROBES, "tracking=none", "seed=7", "sampler.steps=2", override], folder=tmp_path)
        assert not torch.equal(changed.latent, sampled.latent)


def test_a_bypassed_node_is_in_the_params(uri, tmp_path):
    overrides = [*PROBES, f"tracking.uri={uri}", "sampler.steps=1", "lora._bypass_=true"]
    result = run(overrides=overrides, folder=tmp_path)
    params = MlflowClient(uri).get_run(result.mlflow.run_id).data.params
    assert params["lora._bypass_"] == "true"
    assert "lora.strength_model" not in params  # it did not run with it
    assert params["auraflow.model"] == "[unet, MODEL]"


def find_runs(uri: str, experiment: str):
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    return client.search_runs([found.experiment_id]) if found else []
