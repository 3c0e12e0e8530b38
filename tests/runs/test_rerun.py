"""A recorded run, run again from its record: equal where nothing changed, and what did change is named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import PROBES, ROOT
from mlflow import MlflowClient

from pipeline import run
from pipeline.cli import main
from pipeline.errors import NodeError
from pipeline.record.differences import find_differences

INPUTS = ("positive", "negative", "latent")


@pytest.fixture(scope="module")
def uri(tmp_path_factory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture
def recorded(uri, tmp_path):
    """A run of the default graph on input files, in this process; and those files."""
    for name, shape in zip(INPUTS, [(1, 4, 32), (1, 4, 32), (1, 16, 1, 16, 16)], strict=True):
        torch.save(torch.randn(shape), tmp_path / f"{name}.pt")
    files = [f"{name}.path={tmp_path}/{name}.pt" for name in INPUTS]
    return run(
        overrides=[*PROBES, "inputs=files", *files, f"tracking.uri={uri}", "sampler.steps=1"], folder=tmp_path / "out"
    )


@pytest.fixture
def rerun(uri, tmp_path, monkeypatch, capsys):
    """Runs the command in this process: its exit status, and what it says."""
    monkeypatch.chdir(tmp_path)

    def call(run_id: str, *options: str) -> tuple[object, str]:
        status: object = 0
        try:
            main(["rerun", run_id, "--verify", *options, f"tracking.uri={uri}"])
        except SystemExit as end:
            status = end.code
        return status, "".join(capsys.readouterr())

    return call


def find_artifact(uri: str, run_id: str, name: str) -> Path:
    return Path(MlflowClient(uri).get_run(run_id).info.artifact_uri.removeprefix("file://"), name)


def test_a_run_is_rebuilt_from_its_record_and_gives_the_same(recorded, rerun, uri, tmp_path):
    status, said = rerun(recorded.mlflow.run_id)
    assert (status, "sampler: equal" in said) == (0, True)
    (folder,) = tmp_path.glob("outputs/reruns/*/*")
    assert json.loads((folder / "prompt.json").read_text()) == json.loads((recorded.folder / "prompt.json").read_text())
    assert json.loads((folder / "record.json").read_text())["facts"]["cached"] == "none"  # it did run again
    client = MlflowClient(uri)
    again = client.search_runs(["1"], f"tags.rerun_of = '{recorded.mlflow.run_id}'")
    assert [one.data.metrics["distance/sampler/max_abs"] for one in again] == [0.0]


def test_a_changed_input_file_is_named_before_it_runs_and_its_tensor_after(recorded, rerun, tmp_path):
    # Not a new random one: sampling seeds torch's generator, so that would be the same.
    torch.save(torch.load(tmp_path / "positive.pt", weights_only=True) + 1, tmp_path / "positive.pt")
    status, said = rerun(recorded.mlflow.run_id)
    assert status == 4, said
    before, _, after = said.partition("sampler: different")
    assert "file.positive.path: " in after + before
    assert "tensor.positive: " in said
    assert "file.negative.path" not in said


def test_a_node_that_draws_without_a_seed_is_named_and_never_equal_again(uri, rerun, session, tmp_path, monkeypatch):
    from pipeline.engine.random_nodes import RandomNodes

    monkeypatch.setattr(session._nodes, "_random", RandomNodes(tmp_path / "cache"))
    settings = [*PROBES, "+draw._node_=ProbeDraw", "+draw.size=8", "run.outputs=[draw]", f"tracking.uri={uri}"]
    drawn = run(overrides=settings, folder=tmp_path / "out")
    again = run(overrides=settings, folder=tmp_path / "again")
    assert again.cached == ("draw",)
    torch.manual_seed(4711)
    status, said = rerun(drawn.mlflow.run_id)
    assert (status, "draw (ProbeDraw) gives other outputs for equal inputs" in said) == (4, True), said
    results = [run(overrides=settings, folder=tmp_path / f"after{number}") for number in range(2)]
    assert [result.executed for result in results] == [("draw",), ("draw",)]
    assert not torch.equal(results[0].latents["draw"], results[1].latents["draw"])
    assert list(json.loads((tmp_path / "cache" / "random_nodes.json").read_text()).values()) == ["ProbeDraw"]


def test_what_a_node_draws_after_a_sampler_is_found_although_the_sampler_seeds_what_it_draws_from(
    uri, rerun, session, tmp_path, monkeypatch
):
    from pipeline.engine.random_nodes import RandomNodes

    monkeypatch.setattr(session._nodes, "_random", RandomNodes(tmp_path / "cache"))
    settings = [*PROBES, "+noise._node_=ProbeNoise", "+noise.samples=[sampler,0]", "run.outputs=[noise]"]
    recorded = run(overrides=[*settings, "sampler.steps=1", f"tracking.uri={uri}"], folder=tmp_path / "out")
    status, said = rerun(recorded.mlflow.run_id)
    assert (status, "noise (ProbeNoise) gives other outputs for equal inputs" in said) == (4, True), said


def test_a_tolerance_makes_a_small_difference_close(recorded, rerun, tmp_path):
    tensor = torch.load(tmp_path / "positive.pt", weights_only=True)
    torch.save(tensor * (1 + 1e-5), tmp_path / "positive.pt")
    assert rerun(recorded.mlflow.run_id)[0] == 4
    assert rerun(recorded.mlflow.run_id, "--atol", "0.01")[0] == 3


def test_an_input_file_that_is_gone_is_named_before_a_model_loads(recorded, rerun, tmp_path):
    (tmp_path / "latent.pt").unlink()
    status, said = rerun(recorded.mlflow.run_id)
    assert status == 1
    assert "latent.path: " in said
    assert "does not exist" in said


def test_a_record_of_the_first_version_can_be_rerun(recorded, rerun, uri):
    path = find_artifact(uri, recorded.mlflow.run_id, "record.json")
    record = json.loads(path.read_text())
    files = {where: file["sha256"] for where, file in record["files"].items() if file["kind"] == "model"}
    first = {"identity": record["identity"], "files": files}
    path.write_text(json.dumps({**first, "artifacts": record["artifacts"], "pictures": record["pictures"]}))
    status, said = rerun(recorded.mlflow.run_id)
    assert (status, "package." in said) == (0, False)


def test_a_graph_that_was_changed_in_the_record_is_refused(recorded, rerun, uri):
    path = find_artifact(uri, recorded.mlflow.run_id, "prompt.json")
    path.write_text(path.read_text().replace('"steps": 1', '"steps": 2'))
    status, said = rerun(recorded.mlflow.run_id)
    assert status == 1
    assert "prompt.json of run" in said
    assert "is not what was recorded" in said


def test_a_run_that_failed_has_nothing_to_compare_with(uri, rerun, tmp_path):
    overrides = [*PROBES, "+bad._node_=ProbeFail", "+bad.value=3", "+bad.text=x", "run.outputs=[bad]"]
    with pytest.raises(NodeError):
        run(overrides=[*overrides, f"tracking.uri={uri}", "tracking.experiment_name=failing"], folder=tmp_path)
    client = MlflowClient(uri)
    (failed,) = client.search_runs([client.get_experiment_by_name("failing").experiment_id])
    status, said = rerun(failed.info.run_id)
    assert (status, "is FAILED and has no record" in said) == (1, True)


def test_a_run_that_kept_nothing_is_not_called_equal(uri, rerun, tmp_path):
    overrides = [*PROBES, f"tracking.uri={uri}", "+add._node_=ProbeAdd", "+add.a=1", "+add.b=2", "run.outputs=[add]"]
    result = run(overrides=overrides, folder=tmp_path / "out")
    status, said = rerun(result.mlflow.run_id)
    assert (status, "nothing was kept that could be compared" in said) == (4, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["seed=3"], "seed: is in the record and cannot be changed"),
        (["tracking=none"], "recorded runs are in MLflow"),
        (["tracking.uri=sqlite:///nowhere/mlflow.db"], "there is no MLflow store"),
    ],
)
def test_what_cannot_be_asked_is_said(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["rerun", "abc", *options])
    assert message in capsys.readouterr().err


def test_an_unknown_id_is_said(rerun):
    status, said = rerun("abc")
    assert (status, "run abc: cannot be read" in said) == (1, True)


@pytest.fixture(scope="module")
def pipeline_in(tmp_path_factory):
    """Runs `python run.py` or `python -m pipeline` in a folder that has a models folder of its own."""
    folder = tmp_path_factory.mktemp("cli")
    for model in sorted((ROOT / "models").rglob("*.safetensors")):
        (folder / "models" / model.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(model, folder / "models" / model.parent.name)

    def call(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            text=True,
            capture_output=True,
        )

    call.folder = folder
    return call


def test_a_sweep_in_seed_batches_is_rerun_in_one_process_and_a_changed_model_is_named(pipeline_in):
    swept = ["-m", "seed=1,2,3", "run.batch_seeds=2", "sampler.steps=1", "comfyui.models=[models]"]
    done = pipeline_in(str(ROOT / "run.py"), *swept)
    assert done.returncode == 0, done.stderr
    client = MlflowClient(f"sqlite:///{pipeline_in.folder}/outputs/mlflow.db")
    runs = client.search_runs(["1"], order_by=["attributes.start_time ASC"])
    above, members = runs[0].info.run_id, runs[1:]

    whole = pipeline_in("-m", "pipeline", "rerun", above, "--verify")
    assert (whole.returncode, whole.stdout.count("sampler: equal")) == (0, 3), whole.stderr
    assert whole.stderr.count("UNETLoader") == 1  # warm
    record = next(pipeline_in.folder.glob("outputs/reruns/*/*/1/record.json"))
    assert json.loads(record.read_text())["facts"]["batch.seeds"] == "[1, 2]"

    model = pipeline_in.folder / "models/diffusion_models/demo_shapes.safetensors"
    content = bytearray(model.read_bytes())
    content[-5_000_001] ^= 1
    model.write_bytes(content)
    second = pipeline_in("-m", "pipeline", "rerun", members[1].info.run_id, "--verify")
    assert second.returncode == 4, second.stdout + second.stderr
    assert "file.unet.unet_name: " in second.stderr
    assert "batch." not in second.stderr  # it was rerun as the batch that it was


def test_the_likeliest_cause_is_named_first():
    before = {
        "package.numpy": "1",
        "version.torch": "2.10",
        "version.comfyui": "0.30.0",
        "file.unet.unet_name": "a",
        "seed.sampler.seed": "1",
        "gpu": "H100",
        "host.name": "here",
        "process.command": "run.py",
    }
    after = {name: f"other {value}" for name, value in before.items()}
    assert [one.fact for one in find_differences(before, after)] == [
        "seed.sampler.seed",
        "file.unet.unet_name",
        "version.comfyui",
        "gpu",
        "version.torch",
        "package.numpy",
        "host.name",
    ]


def test_what_only_one_record_could_know_is_no_difference():
    before = {"version.torch": "2", "graph.a.x": "1", "graph.a.y": "1"}
    after = {"version.torch": "2", "graph.a.x": "1", "package.numpy": "1", "tensor.a": "0", "comfyui.code": "0"}
    assert [str(one) for one in find_differences(before, after)] == ["graph.a.y: 1 -> none"]
