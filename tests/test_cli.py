"""The command line in processes of its own: what a user types, and what scripts rely on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import ROOT
from mlflow import MlflowClient
from patience import PATIENCE
from safetensors.torch import load_file
from warm_python import PYTHON

from pipeline.record.writer_process import WRITER

HEAVY = re.compile(r"\| +(torch|mlflow|comfy|nodes)$", re.MULTILINE)


@pytest.fixture(autouse=True)
def ctrl_c():
    """Started by a shell in the background, these tests would hand on to their processes that Ctrl-C is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def run_py(tmp_path, environment):
    """Runs run.py in an empty folder."""

    def call(*overrides: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *options, str(ROOT / "run.py"), *overrides]
        return subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True, timeout=PATIENCE)

    return call


@pytest.mark.parametrize(
    ("overrides", "status"),
    [
        (["--help"], 0),
        (["--cfg", "job"], 0),
        (["sampler.stepz=8"], 1),
        (["sampler=eulr"], 1),
        (["run.dry_run=maybe"], 1),
        (["comfyui.path=/nowhere"], 1),
    ],
)
def test_what_needs_no_comfyui_imports_nothing_heavy(run_py, overrides, status):
    done = run_py(*overrides, options=("-X", "importtime"))
    assert done.returncode == status
    assert re.search(r"\| +hydra$", done.stderr, re.MULTILINE)  # the imports are listed
    assert not HEAVY.findall(done.stderr)


def test_help_shows_groups_and_examples(run_py):
    shown = run_py("--help").stdout
    for text in ("sampler.steps=4,8 seed=1,2,3", "experiment: ", "lora: ", "steps: 8", "python -m pipeline comfyui"):
        assert text in shown


def test_what_hydra_would_answer_for_itself(run_py):
    assert re.match(r"latentgrid \d+\.\d+\.\d+ \(Hydra 1\.", run_py("--version").stdout)
    done = run_py("-m", "seed=1,2", "--cfg", "job")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("--cfg shows the config of one run, so it cannot go with -m. Leave -m out")


def test_all_wrong_overrides_are_named_at_once(run_py):
    done = run_py("sampler.stepz=8", "lora=lightning", "auraflow.shft=1")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "lora: 'lightning' is not a choice of this group; did you mean 'qwen_image_lightning_4steps'?",
        "sampler.stepz: is not in the config; did you mean 'sampler.steps'?",
        "auraflow.shft: is not in the config; did you mean 'auraflow.shift'?",
    ]


def test_all_wrong_settings_are_named_at_once(run_py):
    done = run_py("run.dry_run=maybe", "comfyui.device=gpu", "+trackin.uri=x", "comfyui.models=[/nowhere]")
    assert done.returncode == 1
    assert done.stderr.splitlines()[:4] == [
        "trackin: is neither a node (it has no _node_) nor a settings section; did you mean 'tracking'?",
        "run.dry_run: must be true or false, got 'maybe'",
        "comfyui.device: must be auto, cpu or cuda:N, got 'gpu'",
        "comfyui.models[0]: does not exist, got '/nowhere'",
    ]


def test_all_problems_of_the_graph_are_named_at_once_without_a_traceback(run_py, tmp_path):
    (tmp_path / "broken.pt").write_bytes(b"not a tensor")
    done = run_py(
        "sampler.steps=0",
        "sampler.scheduler=karas",
        "sampler.model=[positive,CONDITIONING]",
        "sampler.cfg=nan",
        "lora.lora_name=demo_outlin.safetensors",
        "auraflow.shift=abc",
        "cfg_norm.model=[auraflw,MODEL]",
        "inputs=files",
        "positive.path=missing.pt",
        "negative.path=missing.pt",
        "latent.path=broken.pt",
        "+sampler.stepz=3",
        "+extra._node_=KSamplr",
        "tracking.uri=sqlite:///store/mlflow.db",
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for line in (
        "lora.lora_name: 'demo_outlin.safetensors' is not in models/loras; did you mean 'demo_outline.safetensors'?",
        "auraflow.shift: must be a number, got 'abc'",
        "cfg_norm.model: [auraflw, MODEL] names no node of the graph; did you mean 'auraflow'?",
        "sampler.model: needs MODEL, but [positive, CONDITIONING] is CONDITIONING",
        "sampler.steps: must be at least 1, got 0",
        "sampler.cfg: must be finite, got nan",
        "sampler.scheduler: 'karas' is not a scheduler of KSampler; did you mean 'karras'?",
        "sampler.stepz: KSampler has no input 'stepz'; did you mean 'steps'?",
    ):
        assert line in done.stderr.splitlines()
    assert re.search(r"^positive\.path: .*missing\.pt: does not exist", done.stderr, re.MULTILINE)
    assert re.search(r"^latent\.path: .*broken\.pt: ", done.stderr, re.MULTILINE)
    assert re.search(r"^extra\._node_: 'KSamplr' is not a node .*did you mean 'KSampler'\?", done.stderr, re.MULTILINE)
    assert not list(tmp_path.glob("outputs/**/*.latent"))


def test_the_full_error_is_shown_on_request(run_py, environment):
    environment["HYDRA_FULL_ERROR"] = "1"
    assert "Traceback" in run_py("comfyui.path=/nowhere").stderr


def test_a_run_leaves_a_latent_a_picture_and_a_record(run_py, tmp_path):
    done = run_py("sampler.steps=2", "seed=3")
    assert done.returncode == 0, done.stderr
    (latent,) = [*tmp_path.glob("outputs/runs/*/*/*.latent"), *tmp_path.glob("outputs/**/*.safetensors")]
    assert latent.name == "sampler.latent"
    assert f"latent   {latent}" in done.stderr
    assert f"png      {latent.with_suffix('.png')}" in done.stderr
    (run_id,) = re.findall(r"MLflow   http://127\.0\.0\.1:5000/#/experiments/\d+/runs/(\w+) ", done.stderr)
    assert "(after `mlflow ui --backend-store-uri sqlite:///outputs/mlflow.db`)" in done.stderr
    record = MlflowClient(f"sqlite:///{tmp_path}/outputs/mlflow.db").get_run(run_id)
    assert record.info.status == "FINISHED"
    assert record.data.params["sampler.steps"] == "2"
    assert record.info.artifact_uri.startswith((tmp_path / "outputs" / "mlartifacts").as_uri())
    assert "[pipeline" in (latent.parent / "run.log").read_text()


def sampling_process(tmp_path: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """A run of many steps that has begun to sample."""
    command = [PYTHON, str(ROOT / "run.py"), "sampler.steps=10000"]
    with (tmp_path / "stderr").open("wb") as stderr:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=stderr, start_new_session=True)
    while "sampler: step" not in (tmp_path / "stderr").read_text():
        assert process.poll() is None, (tmp_path / "stderr").read_text()
        time.sleep(0.2)
    return process


@pytest.mark.parametrize(
    ("number", "status", "error"),
    [
        (signal.SIGTERM, 143, "Terminated"),
        (signal.SIGINT, 130, "KeyboardInterrupt"),
        (signal.SIGKILL, -9, "the process that ran it died without a word"),
    ],
)
def test_a_run_ended_by_a_signal_is_recorded_as_killed(tmp_path, environment, number, status, error):
    process = sampling_process(tmp_path, environment)
    os.kill(process.pid, number)
    assert process.wait(timeout=PATIENCE) == status
    record = wait_for_end(tmp_path)
    assert record.info.status == "KILLED"
    assert record.data.tags["error"].startswith(error)
    left = {path.name for path in tmp_path.glob("outputs/runs/*/*/*")}
    assert left == {".hydra", "config.yaml", "prompt.json", "workflow.json", "graph.svg", "run.log"}
    assert "Traceback" not in (tmp_path / "stderr").read_text()


def test_a_sweep_whose_writer_is_killed_is_recorded_whole(tmp_path, environment):
    command = [PYTHON, str(ROOT / "run.py"), "-m", "seed=1,2,3,4,5,6,7,8", "sampler.steps=4"]
    with (tmp_path / "stderr").open("wb") as stderr:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=stderr)
    while len(list(tmp_path.glob("outputs/sweeps/*/*/*/sampler.latent"))) < 2:  # the first is told whole
        assert process.poll() is None, (tmp_path / "stderr").read_text()
        time.sleep(0.02)
    (writer,) = (one for one in psutil.Process(process.pid).children() if WRITER in one.cmdline())
    writer.kill()
    assert process.wait(timeout=PATIENCE) == 0, (tmp_path / "stderr").read_text()
    client = MlflowClient(f"sqlite:///{tmp_path}/outputs/mlflow.db")
    experiment = client.get_experiment_by_name("latentgrid").experiment_id
    runs = client.search_runs([experiment], order_by=["attributes.start_time ASC"])
    assert [run.info.status for run in runs] == 9 * ["FINISHED"]
    assert [run.data.tags.get("mlflow.parentRunId") for run in runs] == [None, *8 * [runs[0].info.run_id]]
    assert {run.data.params["seed"] for run in runs[1:]} == set("12345678")
    assert all("identity" in run.data.tags for run in runs[1:])
    assert "the process that writes to MLflow ended with status -9" in (tmp_path / "stderr").read_text()


def wait_for_end(folder: Path):
    client = MlflowClient(f"sqlite:///{folder}/outputs/mlflow.db")
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        experiment = client.get_experiment_by_name("latentgrid")  # the writer may still be making the store
        runs = client.search_runs([experiment.experiment_id]) if experiment else []
        if [run for run in runs if run.info.status != "RUNNING"]:
            (run,) = runs
            return run
        time.sleep(0.2)
    raise AssertionError("the run is RUNNING for ever")


def test_runs_of_two_processes_are_equal_bit_for_bit(run_py, tmp_path):
    def sample():
        before = set(tmp_path.glob("outputs/runs/*/*/sampler.latent"))
        done = run_py("sampler.steps=1", "tracking=none", options=("-u",))  # each a Python of its own
        assert done.returncode == 0, done.stderr
        (made,) = set(tmp_path.glob("outputs/runs/*/*/sampler.latent")) - before
        return load_file(made)["latent_tensor"]

    assert sample().equal(sample())


def test_python_m_pipeline_comfyui(tmp_path, environment, comfyui_path):
    command = [sys.executable, "-m", "pipeline", "comfyui"]
    path = subprocess.run(
        [*command, "--path"], cwd=tmp_path, env=environment, text=True, capture_output=True, check=True
    )
    assert path.stdout == f"{comfyui_path}\n"
    shown = subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True, check=True).stdout
    assert re.search(r"^version  \d+\.\d+\.\d+$", shown, re.MULTILINE)
    assert re.search(r"^torch    2\.11\.0", shown, re.MULTILINE)
    assert re.search(r"^device   \w+", shown, re.MULTILINE)
    assert f"models   loras: {comfyui_path}/models/loras" in shown.splitlines()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+comfyui.args.reserve_vrm=2"], "comfyui.args.reserve_vrm: ComfyUI has no such option; did you mean"),
        (["+comfyui.args.cuda_device=1"], "comfyui.args.cuda_device: has no effect here. Use comfyui.device=cuda:N"),
        (["+comfyui.args.reserve_vram=lots"], "argument --reserve-vram: invalid float value: 'lots'"),
        (["comfyui.device=gpu", "comfyui.models=[/nope]"], "comfyui.models[0]: does not exist, got '/nope'"),
        (["comfyui.reproducible=true", "comfyui.dynamic_vram=true"], "comfyui.dynamic_vram: excludes comfyui.repro"),
        (["comfyui.vesion=1"], "comfyui.vesion: is not in the config; did you mean 'comfyui.version'?"),
    ],
)
def test_wrong_settings_of_comfyui_are_explained(tmp_path, environment, overrides, message):
    command = [sys.executable, "-m", "pipeline", "comfyui", *overrides]
    done = subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_options_of_comfyui_are_read_as_on_its_command_line(tmp_path, environment):
    code = (
        "from pipeline.engine.comfyui.start import start_comfyui;"
        "from pipeline.engine.comfyui.settings import ComfyUISettings;"
        "start_comfyui(ComfyUISettings(args={'reserve_vram': 2, 'fast': ['fp16_accumulation'], 'force_fp16': True}));"
        "from comfy.cli_args import args, PerformanceFeature;"
        "assert args.reserve_vram == 2.0 and args.fp16_unet and args.fast == {PerformanceFeature.Fp16Accumulation}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=tmp_path)


def test_python_m_pipeline_names_what_is_wrong(tmp_path, environment):
    command = [sys.executable, "-m", "pipeline", "comfyui", "comfyui.version=0.29"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True)
    assert done.returncode == 1
    assert done.stderr.startswith("comfyui.version: '0.29' is not a ComfyUI that latentgrid can install; did you mean")
