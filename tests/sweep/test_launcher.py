"""The launcher: Hydra's own tests of launchers, and real sweeps of `python run.py`."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import PROBES, ROOT
from hydra.core.plugins import Plugins
from hydra.test_utils.launcher_common_tests import IntegrationTestSuite, LauncherTestSuite
from hydra.version import VersionBase, __compat_version__
from mlflow import MlflowClient
from patience import PATIENCE
from safetensors.torch import load_file

from pipeline.config.names import register_names
from pipeline.sweep.launcher import WarmLauncher, _let_go, register_launcher

KEPT = {"multirun.yaml", "plan.txt", "contact_sheet.png", "contact_sheet.html"}

WITH_LAUNCHER = (
    "import runpy, sys; from pipeline.config.names import register_names; from pipeline.sweep.launcher import *;"
    "register_names(); register_launcher(); sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
)


@pytest.fixture(autouse=True)
def registered(hydra_restore_singletons):
    VersionBase.instance().setbase(__compat_version__)  # Hydra's tests take it for granted; ours set another
    register_names()
    register_launcher()


def test_hydra_knows_the_launcher():
    assert WarmLauncher in Plugins.instance().discover()


@pytest.mark.filterwarnings("ignore:Future Hydra versions will no longer change working directory")  # its tests do
@pytest.mark.parametrize(("launcher_name", "overrides"), [("warm", [])])
class TestHydrasLauncherSuite(LauncherTestSuite):
    pass


@pytest.mark.parametrize(("task_launcher_cfg", "extra_flags"), [({}, ["-m", "hydra/launcher=warm"])])
class TestHydrasIntegrationSuite(IntegrationTestSuite):
    def generate_custom_cmd(self) -> Callable[..., list[str]]:
        return lambda command, filename: [command[0], "-c", WITH_LAUNCHER, *command[1:]]


@pytest.fixture
def run_sweep(tmp_path, environment):
    """Runs a sweep of run.py in an empty folder; what it said, and where its folder is."""

    def call(*overrides: str) -> tuple[subprocess.CompletedProcess[str], Path]:
        command = [sys.executable, str(ROOT / "run.py"), "-m", *overrides, "hydra.sweep.dir=sweep"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True, timeout=PATIENCE)
        return done, tmp_path / "sweep"

    return call


@pytest.fixture
def start_sweep(tmp_path, environment):
    """Starts a sweep of run.py in an empty folder; its standard error can be read line by line."""

    def start(*overrides: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(ROOT / "run.py"), "-m", "hydra.sweep.dir=sweep", *overrides]
        return subprocess.Popen(command, cwd=tmp_path, env=environment, text=True, stderr=subprocess.PIPE)

    return start


def test_a_grid_in_the_worst_order_loads_once_and_its_record_holds_all_jobs(run_sweep, tmp_path):
    done, folder = run_sweep("seed=1,2", "sampler.steps=1,2", "lora.strength_model=0.5,1.0")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("unet: UNETLoader ...") == 1
    assert done.stderr.count("lora: LoraLoaderModelOnly ...") == 2
    assert "8/8  #7 seed=2 steps=2 lora=1.0" in done.stderr
    assert {path.name for path in folder.iterdir()} == {*map(str, range(8)), *KEPT}
    assert "lora.strength_model=0.5" in (folder / "6/.hydra/overrides.yaml").read_text()
    assert "strength_model: 0.5" in (folder / "6/config.yaml").read_text()
    assert all((folder / f"{number}/sampler.latent").is_file() for number in range(8))

    client = MlflowClient(f"sqlite:///{tmp_path}/outputs/mlflow.db")
    experiment = client.get_experiment_by_name("latentgrid").experiment_id
    (sweep,) = client.search_runs([experiment], "params.seed = '1,2'")
    assert (sweep.info.status, sweep.info.run_name) == ("FINISHED", "seed=1,2 steps=1,2 lora=0.5,1.0")
    assert sweep.data.params == {"seed": "1,2", "sampler.steps": "1,2", "lora.strength_model": "0.5,1.0"}
    assert sweep.data.metrics.items() >= {"jobs": 8, "jobs_failed": 0, "jobs_reused": 0, "nodes_run": 18}.items()
    assert KEPT - {"multirun.yaml"} <= {file.path for file in client.list_artifacts(sweep.info.run_id)}
    jobs = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{sweep.info.run_id}'")
    assert {job.info.run_name for job in jobs} == {
        f"seed={seed} steps={steps} lora={lora}" for seed in (1, 2) for steps in (1, 2) for lora in (0.5, 1.0)
    }
    assert {job.info.status for job in jobs} == {"FINISHED"}
    assert all("sampler.latent" in {file.path for file in client.list_artifacts(job.info.run_id)} for job in jobs)


def test_all_problems_of_all_jobs_are_named_before_anything_runs(run_sweep):
    done, folder = run_sweep("sampler.steps=1,0", "sampler.denoise=1.0,5.0", "auraflow.shift=x")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-3:] == [
        "auraflow.shift: must be a number, got 'x' (all 4 jobs)",
        "sampler.denoise: must be at most 1.0, got 5.0 (2 of 4 jobs: #1 steps=1 denoise=5.0, #3 steps=0 denoise=5.0)",
        "sampler.steps: must be at least 1, got 0 (2 of 4 jobs: #2 steps=0 denoise=1.0, #3 steps=0 denoise=5.0)",
    ]
    assert "UNETLoader" not in done.stderr
    assert {path.name for path in folder.iterdir()} == {"multirun.yaml"}


def test_a_job_that_fails_is_recorded_and_the_others_go_on(run_sweep, tmp_path):
    broken = ["+broken._node_=ProbeFail", "+broken.value=1", "+broken.text=x", *PROBES]
    done, folder = run_sweep(*broken, "run.outputs=[broken],[sampler]", "sampler.steps=1", "seed=1,2")
    assert done.returncode == 1
    assert "2 of 4 jobs ran, 0 were recorded already, 2 failed" in done.stderr
    assert "failed: #0 outputs=[broken] seed=1: broken: ProbeFail failed: RuntimeError: this probe" in done.stderr
    assert "\nfailed: #0 outputs=[broken] seed=1\n" in done.stderr
    assert sorted(path.parent.name for path in folder.glob("*/sampler.latent")) == ["2", "3"]
    assert "RuntimeError: this probe always fails" in (folder / "0/run.log").read_text()
    client = MlflowClient(f"sqlite:///{tmp_path}/outputs/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("latentgrid").experiment_id])
    assert sorted(run.info.status for run in runs) == ["FAILED"] * 3 + ["FINISHED"] * 2


def test_a_sweep_may_end_with_its_first_failure(run_sweep):
    broken = ["+broken._node_=ProbeFail", "+broken.value=1", "+broken.text=x", *PROBES]
    done, folder = run_sweep(*broken, "run.outputs=[broken],[sampler]", "run.fail_fast=true", "tracking=none")
    assert done.returncode == 1
    assert "0 of 2 jobs ran, 0 were recorded already, 1 failed" in done.stderr
    assert not (folder / "1").exists()


def list_jobs(store: Path, sweep_name: str) -> list[Any]:
    """The runs of the jobs of the only sweep of that name."""
    client = MlflowClient(f"sqlite:///{store}/outputs/mlflow.db")
    experiment = client.get_experiment_by_name("latentgrid").experiment_id
    (sweep,) = client.search_runs([experiment], f"attributes.run_name = '{sweep_name}'")
    return client.search_runs([experiment], f"tags.mlflow.parentRunId = '{sweep.info.run_id}'")


def test_what_is_recorded_is_not_run_again(run_sweep, tmp_path):
    done, _ = run_sweep("seed=1,2", "sampler.steps=1")
    assert done.returncode == 0, done.stderr
    (tmp_path / "sweep").rename(tmp_path / "before")
    artifacts = list((tmp_path / "outputs/mlartifacts").glob("*/artifacts/sampler.latent"))
    assert len(artifacts) == 2

    done, second = run_sweep("seed=1,2,3", "sampler.steps=1")
    assert "1 of 3 jobs ran, 2 were recorded already, 0 failed" in done.stderr
    assert done.stderr.count("sampler: KSampler ...") == 1
    for number in "01":
        for name in ("sampler.latent", "sampler.png", "config.yaml"):
            assert (second / number / name).read_bytes() == (tmp_path / "before" / number / name).read_bytes()
    jobs = list_jobs(tmp_path, "seed=1,2,3")
    assert {job.info.status for job in jobs} == {"FINISHED"}
    linked = {job.data.tags.get("linked_run_id") for job in jobs}
    assert linked == {None, *(job.info.run_id for job in list_jobs(tmp_path, "seed=1,2"))}
    assert all("latent/sampler/mean" in job.data.metrics for job in jobs)

    artifacts[0].write_bytes(b"damaged")
    for path in (tmp_path / "outputs/mlartifacts").glob("*/artifacts/sampler.latent"):
        if path not in artifacts:
            path.unlink()
    shutil.rmtree(second)
    done, _ = run_sweep("seed=1,2,3", "sampler.steps=1", "run.dry_run=true")
    assert "3 jobs: 9 nodes run, 7 are known by then; 1 jobs are recorded already" in done.stdout
    done, _ = run_sweep("seed=1,2,3", "sampler.steps=1", "run.resume=false")
    assert "3 of 3 jobs ran, 0 were recorded already, 0 failed" in done.stderr


def test_records_that_do_not_say_what_a_result_follows_from_are_run_again_with_one_line(run_sweep, tmp_path):
    sweep = ["seed=1,2", "sampler.steps=1", "lora._bypass_=true"]
    run_sweep(*sweep)
    client = MlflowClient(f"sqlite:///{tmp_path}/outputs/mlflow.db")
    for job in list_jobs(tmp_path, "seed=1,2"):
        client.set_tag(job.info.run_id, "identity", "that of the first release, which had no cell")
        client.delete_tag(job.info.run_id, "cell")
    shutil.rmtree(tmp_path / "sweep")
    done, _ = run_sweep(*sweep)
    assert "2 of 2 jobs ran, 0 were recorded already, 0 failed" in done.stderr
    assert done.stderr.count("run again: earlier runs of these settings have records of an older latentgrid") == 1


def test_a_node_that_changes_its_input_in_place_makes_no_job_depend_on_those_before_it(run_sweep):
    image = ["+image._node_=ProbeImage", "+image.size=8"]
    mut = ["+mut._node_=ProbeMultiplyToLatent", "+mut.image=[image,IMAGE]", "+mut.factor=0.5,0.25,0.125"]
    for taken in (0, 3):
        done, folder = run_sweep(*PROBES, *image, *mut, "run.outputs=[mut]")
        assert f"{3 - taken} of 3 jobs ran, {taken} were recorded already, 0 failed" in done.stderr
        assert [float(load_file(folder / f"{number}/mut.latent")["latent_tensor"].mean()) for number in range(3)] == [
            0.5,
            0.25,
            0.125,
        ]
        shutil.rmtree(folder)
        told = "mut (ProbeMultiplyToLatent) changes the outputs of image in place. It gets copies from now on"
        assert done.stderr.count(told) == (not taken)


def test_a_node_that_expands_is_counted_in_a_sweep(run_sweep, tmp_path):
    done, _ = run_sweep(*PROBES, "+more._node_=FlowCountdown", "+more.count=1,2", "run.outputs=[more]", "seed=3")
    assert (done.returncode, "2 of 2 jobs ran, 0 were recorded already, 0 failed" in done.stderr) == (0, True)
    assert [job.info.status for job in list_jobs(tmp_path, "more=1,2")] == ["FINISHED", "FINISHED"]


def test_seeds_are_sampled_in_batches_that_no_resume_mixes_up_with_single_runs(run_sweep, tmp_path):
    done, folder = run_sweep("seed=1,2,3", "sampler.steps=1", "run.batch_seeds=2")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("sampler: KSampler ...") == 2
    assert "runs: sampler; known: unet" in (folder / "plan.txt").read_text()
    assert "sampler (sampler takes the seeds 1, 2 at once)" in (folder / "plan.txt").read_text()
    jobs = {job.data.params["seed"]: job.data for job in list_jobs(tmp_path, "seed=1,2,3")}
    said = {seed: (job.tags["batch.seeds"], job.tags["batch.position"]) for seed, job in jobs.items()}
    assert said == {"1": ("[1, 2]", "0"), "2": ("[1, 2]", "1"), "3": ("[3]", "0")}
    assert len({job.metrics["latent/sampler/mean"] for job in jobs.values()}) == 3

    done, _ = run_sweep("seed=1,2", "sampler.steps=1")
    assert "2 of 2 jobs ran, 0 were recorded already" in done.stderr
    done, _ = run_sweep("seed=1,2,3,4", "sampler.steps=1", "run.batch_seeds=4")
    assert "1 of 4 jobs ran, 3 were recorded already" in done.stderr

    done, _ = run_sweep("seed=1,2", "sampler.steps=1", "run.batch_seeds=2", "sampler.sampler_name=euler_ancestral")
    assert done.stderr.count("sampler: KSampler ...") == 2
    assert "euler_ancestral draws noise while it steps, or may: seeds are sampled one by one" in done.stderr


def wait_for_sampler(process: subprocess.Popen[str], job: str) -> None:
    """Read what a sweep says until the sampler of the job at a place (`2/3`) has begun."""
    assert any(line.startswith(job) for line in process.stderr)
    assert any(line.startswith("sampler: KSampler") for line in process.stderr)


def test_after_sigkill_the_same_command_finishes_the_rest(own_python, run_sweep, start_sweep, tmp_path):
    settings = ["seed=1,2,3", "sampler.steps=1,60"]
    with start_sweep(*settings) as process:
        wait_for_sampler(process, "5/6")
        process.send_signal(signal.SIGKILL)
    done, folder = run_sweep(*settings)
    assert "2 of 6 jobs ran, 4 were recorded already, 0 failed" in done.stderr
    assert all((folder / f"{number}/sampler.latent").is_file() for number in range(6))
    client = MlflowClient(f"sqlite:///{tmp_path}/outputs/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("latentgrid").experiment_id])
    statuses = Counter(run.info.status for run in runs)
    assert statuses == {"KILLED": 2, "FINISHED": 4 + 6 + 1}  # a sweep and its fifth job; four, six and their sweep
    assert sum("linked_run_id" in run.data.tags for run in runs) == 4


def test_a_sweep_that_is_terminated_says_so(start_sweep, tmp_path):
    with start_sweep("seed=1,2,3", "sampler.steps=80") as process:
        wait_for_sampler(process, "2/3")
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
        assert process.wait() == 143
    client = MlflowClient(f"sqlite:///{tmp_path}/outputs/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("latentgrid").experiment_id])
    assert sorted(run.info.status for run in runs) == ["FINISHED", "KILLED", "KILLED"]
    assert (tmp_path / "sweep/contact_sheet.html").read_text().count("data:image/") == 1


def test_two_sweeps_may_run_at_once_on_one_store(start_sweep, tmp_path):
    with start_sweep("seed=1,2", "hydra.sweep.dir=one") as one, start_sweep("seed=3,4", "hydra.sweep.dir=two") as two:
        for process in (one, two):
            said = process.communicate()[1]
            assert process.returncode == 0, said
    for name in ("seed=1,2", "seed=3,4"):
        assert [job.info.status for job in list_jobs(tmp_path, name)] == ["FINISHED"] * 2


def test_a_sweep_returns_its_objective_to_an_optimiser(run_sweep, tmp_path):
    done, folder = run_sweep(
        "hydra/sweeper=optuna",
        "hydra.sweeper.n_trials=4",
        "hydra.sweeper.n_jobs=2",
        "hydra.sweeper.direction=maximize",
        "run.objective=latent/sampler/std",
        "sampler.cfg=interval(1.0,9.0)",
        "sampler.steps=1",
    )
    assert done.returncode == 0, done.stderr
    jobs = list_jobs(tmp_path, "cfg=interval(1.0,9.0)")
    best = yaml.safe_load((folder / "optimization_results.yaml").read_text())
    values = {float(job.data.params["sampler.cfg"]): job.data.metrics["latent/sampler/std"] for job in jobs}
    assert len(values) == 4
    assert best["best_value"] == pytest.approx(max(values.values()))
    assert values[best["best_params"]["sampler.cfg"]] == max(values.values())


def test_a_dry_run_shows_the_plan(run_sweep):
    done, folder = run_sweep("seed=1,2", "lora.strength_model=0.5,1.0", "run.dry_run=true")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["#0", "#2", "#1", "#3", "4"]
    assert re.match(r"#2   seed=2 lora=0.5 +runs: sampler; known: ", lines[1])
    assert lines[-1].startswith("4 jobs: ")
    assert {path.name for path in folder.iterdir()} == {"multirun.yaml"}


def test_hydras_basic_launcher_still_works(run_sweep):
    done, folder = run_sweep("hydra/launcher=basic", "sampler.steps=1,2", "tracking=none")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("unet: UNETLoader ...") == 1
    assert sorted(path.parent.name for path in folder.glob("*/sampler.latent")) == ["0", "1"]


def test_an_error_that_is_kept_until_the_end_of_the_sweep_holds_no_models():
    class Model:
        pass

    models = []

    def fail() -> None:
        model = Model()
        models.append(weakref.ref(model))
        try:
            raise ValueError
        except ValueError as cause:
            raise RuntimeError from cause

    with pytest.raises(RuntimeError) as caught:
        fail()
    assert models[0]() is not None
    _let_go(caught.value)
    assert models[0]() is None


def test_what_is_wrong_with_results_stands_in_the_record_and_on_the_sheet_also_of_jobs_that_are_reused(
    run_sweep, tmp_path
):
    """shift=0 makes the sampler divide by zero: the latent of that job is NaN."""
    sweep = ["lora._bypass_=true,false", "auraflow.shift=0.0,3.0", "sampler.steps=1"]
    for _ in range(2):
        done, folder = run_sweep(*sweep)
        assert done.returncode == 0, done.stderr
        page = (folder / "contact_sheet.html").read_text()
        assert page.count('class="mark">not finite<') == 2
        assert "<h1>lora=off,on shift=0.0,3.0</h1>" in page
        shutil.rmtree(folder)
    assert "recorded already" in done.stderr
    client = MlflowClient(f"sqlite:///{tmp_path}/outputs/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("latentgrid").experiment_id])
    tags = {run.info.run_name: run.data.tags.get("not_finite", "") for run in runs}
    assert {name for name, tag in tags.items() if tag} == {"lora=off shift=0.0", "lora=on shift=0.0"}
    assert tags.keys() == {
        "lora=off,on shift=0.0,3.0",
        *(f"lora={lora} shift={shift}" for lora in ("off", "on") for shift in (0.0, 3.0)),
    }
    failed, _ = run_sweep(*sweep, "run.objective=latent/sampler/std")
    assert "'latent/sampler/std' says nothing, because values are NaN or infinite: sampler (" in failed.stderr
