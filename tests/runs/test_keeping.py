"""What a run gave is kept output by output, and what is wrong with it is said by a warning, a tag and a mark."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import pytest
import torch
from conftest import PROBES, ROOT
from mlflow import MlflowClient
from safetensors.torch import load_file, save_file

from pipeline import run
from pipeline.errors import ConfigError, OutputError, TrackingError
from pipeline.record import artifacts, recorder
from pipeline.runs.keeping import measure_not_finite
from pipeline.runs.process import open_tracker
from pipeline.runs.result import RunResult

FOUND = {"mean": 0.5}


@pytest.fixture(scope="module")
def uri(tmp_path_factory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture
def keep(tmp_path, uri):
    """Runs a graph of nodes that are given as NAME=CLASS or NAME=CLASS:KIND:SHARE and keeps them all."""

    def call(*nodes: str, more: tuple[str, ...] = (), tracking: str = "tracking=none") -> RunResult:
        overrides, names = [], []
        for node in nodes:
            name, _, rest = node.partition("=")
            names.append(name)
            class_type, kind, share = [*rest.split(":"), "0", "0.0"][:3]
            overrides += [f"+{name}._node_={class_type}", f"+{name}.kind='{kind}'", f"+{name}.share={share}"]
        kept = f"run.outputs=[{','.join(names)}]"
        return run(overrides=[*PROBES, *overrides, kept, tracking, *more], folder=tmp_path / "out")

    return call


def read_tags(uri: str, result: RunResult) -> dict[str, str]:
    assert result.mlflow
    return dict(MlflowClient(uri).get_run(result.mlflow.run_id).data.tags)


@pytest.mark.parametrize("kind", ["nan", "inf", "-inf"])
def test_values_that_are_not_finite_are_said(keep, uri, caplog, kind):
    result = keep(f"a=ResultLatent:{kind}:0.125", "b=ResultLatent:1:1.0", tracking=f"tracking.uri={uri}")
    assert "a: 12.5 % of its values are NaN or infinite" in caplog.text
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert not [text for text in warnings if text.startswith("b: ")]
    assert read_tags(uri, result)["not_finite"] == "a: 12.5 %"
    assert result.metrics["not_finite/a"] == 0.125
    assert "not_finite/b" not in result.metrics
    assert result.marks == {"not finite": "a 12.5 %"}


def test_images_among_the_targets_are_looked_at_too(keep):
    assert keep("a=ResultImage:nan:1.0").not_finite == {"a": "100 %"}


def test_the_share_counts_all_tensors_of_all_kinds():
    half = torch.tensor([1.0, math.nan])
    assert measure_not_finite([{"samples": half}, torch.ones(2)]) == 0.25
    assert measure_not_finite([half.to(torch.float8_e4m3fn)]) == 0.5
    assert measure_not_finite([half.to(torch.bfloat16).reshape(1, 2)]) == 0.5
    assert measure_not_finite([torch.tensor([1e300], dtype=torch.float64), torch.tensor([1])]) == 0.0
    assert measure_not_finite([{}, None, torch.ones(0)]) == 0.0


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"latent/a/std": 0.5, "not_finite/a": 0.25}, "NaN or infinite: a (25 %)"),
        ({"latent/a/std": 0.5, "latent/b/mean": math.nan}, "NaN or infinite: b (some)"),  # of an older record
        ({"latent/a/std": 0.5, "latent/a/max": 1.797e308}, "NaN or infinite: a (some)"),  # how SQL has infinity
        ({"latent/a/std": math.nan}, "is no number that can be compared, got nan"),
        ({"latent/a/std": -math.inf}, "is no number that can be compared, got -inf"),
        ({}, "was not measured"),
    ],
)
def test_what_is_not_finite_is_no_objective(metrics, said):
    result = RunResult(None, metrics=metrics, folder=Path(), linked="a found run")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"run\.objective: 'latent/a/std' ") as raised:
        result.get_objective("latent/a/std")
    assert said in str(raised.value)


def test_a_finite_result_is_an_objective():
    result = RunResult(None, metrics={"latent/a/std": 0.5}, folder=Path())  # type: ignore[arg-type]
    assert result.get_objective("latent/a/std") == 0.5
    assert result.marks == {}


def test_a_nested_latent_is_kept_in_parts(keep):
    result = keep("av=ResultLatent:nested", "b=ResultLatent:1:1.0")
    assert {name: tuple(samples.shape) for name, samples in result.latents.items()} == {
        "av.1": (1, 16, 1, 8, 8),
        "av.2": (1, 8, 8, 8),
        "b": (1, 16, 1, 8, 8),
    }
    assert result.metrics["latent/av.2/mean"] == 1.0
    assert torch.equal(load_file(result.folder / "av.2.latent")["latent_tensor"], result.latents["av.2"])
    assert result.marks == {}


@pytest.mark.parametrize("lost", ["ResultLatent:sparse", "ResultNothing"])
def test_what_cannot_be_kept_is_named_and_loses_no_other(keep, uri, caplog, lost):
    result = keep(f"a={lost}", "b=ResultLatent:1:1.0", tracking=f"tracking.uri={uri}", more=("run.save_pt=true",))
    assert "a: cannot be kept: " in caplog.text
    assert set(result.latents) == {"b"}
    assert {"b.latent", "b.pt"} <= {path.name for path in result.files}
    assert read_tags(uri, result)["not_kept"].startswith("a: ")
    assert list(result.marks) == ["not kept"]


def test_a_run_that_lost_an_output_is_not_found_as_its_result(keep, uri, session):
    """A sweep that goes on would link it, and the output would be missing for ever."""
    from pipeline.config.read import compose_config, read_config

    whole = keep("b=ResultLatent:2:1.0", tracking=f"tracking.uri={uri}")
    lost = keep("a=ResultLatent:sparse", "b=ResultLatent:2:1.0", tracking=f"tracking.uri={uri}")
    tags = [read_tags(uri, result)["identity"] for result in (whole, lost)]
    tracker = open_tracker(read_config(compose_config([f"tracking.uri={uri}"])).tracking)
    found = tracker.store.find_finished([(tag.removesuffix(" incomplete"), {}) for tag in tags])
    assert [one and one.run_id for one in found] == [whole.mlflow.run_id, None]


def test_a_run_of_which_nothing_could_be_kept_fails(keep):
    with pytest.raises(OutputError, match="a: cannot be kept: "):
        keep("a=ResultLatent:sparse")


@pytest.mark.parametrize("kind", ["flat", "complex", "float8"])
def test_a_latent_of_which_no_picture_can_be_drawn_is_kept(keep, kind):
    result = keep(f"a=ResultLatent:{kind}")
    assert set(result.latents) == {"a"}
    assert "a.latent" in {path.name for path in result.files}


def test_the_latent_is_written_before_its_picture(keep, monkeypatch, caplog, tmp_path):
    monkeypatch.setattr("pipeline.engine.comfyui.preview.draw_latent", lambda *given: 1 / 0)
    result = keep("a=ResultLatent:1:1.0")
    assert "a: no picture can be drawn of it: ZeroDivisionError" in caplog.text
    assert (tmp_path / "out" / "a.latent").is_file()
    assert "latent/a/mean" in result.metrics
    assert result.marks == {}


def test_a_disk_that_refuses_one_file_fails_the_run_after_the_others_are_written(keep, monkeypatch, tmp_path):
    write = artifacts.write_latent

    def refuse(folder, node, *given):
        if node == "a":
            raise OutputError("a.latent: cannot be written: No space left on device")
        return write(folder, node, *given)

    monkeypatch.setattr(artifacts, "write_latent", refuse)
    with pytest.raises(OutputError, match="No space left"):
        keep("a=ResultLatent:1:1.0", "b=ResultLatent:1:1.0")
    assert (tmp_path / "out" / "b.latent").is_file()


def test_a_record_that_fails_meanwhile_loses_no_latent(keep, monkeypatch, tmp_path):
    add = recorder.Recorder._add

    def fail(self, path, *given):
        if path.suffix == ".latent":
            raise TrackingError("the store is gone")
        add(self, path, *given)

    monkeypatch.setattr(recorder.Recorder, "_add", fail)
    with pytest.raises(TrackingError, match=r"the store is gone\nThe results are kept: "):
        keep("a=ResultLatent:1:1.0", "b=ResultLatent:1:1.0")
    assert {"a.latent", "b.latent"} <= {path.name for path in (tmp_path / "out").iterdir()}


def test_metrics_of_an_attempt_that_ran_out_of_memory_are_gone(keep, uri):
    result = keep("late=ResultLate:3", tracking=f"tracking.uri={uri}")
    history = MlflowClient(uri).get_metric_history(result.mlflow.run_id, "seconds_per_step/late")
    assert [one.step for one in history] == [1, 2, 3]
    assert len(MlflowClient(uri).get_metric_history(result.mlflow.run_id, "seconds/late")) == 1


# LoRAs


@pytest.fixture(scope="module")
def loras(tmp_path_factory, session) -> Path:
    """A folder of ComfyUI's with the demo model's LoRA in other forms."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "loras").mkdir()
    tensors = load_file(ROOT / "models" / "loras" / "demo_outline.safetensors")
    save_file({f"other.{name}": one for name, one in tensors.items()}, folder / "loras" / "foreign.safetensors")
    first = next(iter(tensors))
    part = {(f"other.{name}" if name == first else name): one for name, one in tensors.items()}
    save_file(part, folder / "loras" / "in_part.safetensors")
    wide = {
        name: one.repeat(2, *[1] * (one.dim() - 1)) if ".lora_up." in name or ".lora_B." in name else one
        for name, one in tensors.items()
    }
    assert any(one.shape != tensors[name].shape for name, one in wide.items())
    save_file(wide, folder / "loras" / "wide.safetensors")
    session.add_models(folder)
    return folder


def sample(tmp_path, name: str, *more: str) -> RunResult:
    overrides = [*PROBES, "tracking=none", "sampler.steps=1", f"lora.lora_name={name}.safetensors", *more]
    return run(overrides=overrides, folder=tmp_path / f"{name}{len(more)}")


def count_keys() -> int:
    return len(load_file(ROOT / "models" / "loras" / "demo_outline.safetensors"))


def test_a_lora_of_another_model_is_one_line_and_a_mark(loras, tmp_path, caplog):
    total = count_keys()
    result = sample(tmp_path, "foreign")
    line = f"lora: none of the {total} keys of foreign.safetensors fits this model (another architecture?)"
    assert line in caplog.messages
    assert "lora key not loaded" not in caplog.text
    assert result.facts["lora_unfit"] == f"lora: {total} of {total} keys of foreign.safetensors"
    assert result.metrics["lora_unfit/lora"] == 1.0
    assert result.marks == {"LoRA does not fit": "lora 100 %"}


def test_a_lora_that_fits_in_part_says_how_much(loras, tmp_path, caplog):
    result = sample(tmp_path, "in_part")
    total = count_keys()
    assert any(
        text.startswith("lora: ") and f"of {total} keys of in_part.safetensors do not fit this model, other." in text
        for text in caplog.messages
    )
    assert 0 < result.metrics["lora_unfit/lora"] < 0.5


def test_a_lora_of_other_shapes_changes_nothing_and_says_so(loras, tmp_path, caplog):
    result, bypassed = sample(tmp_path, "wide"), sample(tmp_path, "demo_outline", "lora._bypass_=true")
    assert result.latent.equal(bypassed.latent)
    total = count_keys()
    assert result.facts["lora_unfit"] == f"lora: {total} of {total} keys of wide.safetensors"
    assert result.marks == {"LoRA does not fit": "lora 100 %"}
    (line,) = [text for text in caplog.messages if "have other shapes than wide.safetensors" in text]
    assert line.endswith("ComfyUI leaves them as they are")
    assert "is invalid for input of size" not in caplog.text
    again = sample(tmp_path, "wide", "sampler.cfg=2.0")
    assert again.facts["lora_unfit"] == result.facts["lora_unfit"]


def test_a_later_run_whose_lora_comes_from_the_cache_says_the_same(loras, tmp_path):
    first = sample(tmp_path, "foreign", "seed=101")
    again = sample(tmp_path, "foreign", "seed=101", "sampler.cfg=2.0")
    assert "lora" not in again.executed
    assert again.facts["lora_unfit"] == first.facts["lora_unfit"]
    assert again.marks == first.marks


def test_a_lora_that_fits_says_nothing(loras, tmp_path, caplog):
    result = sample(tmp_path, "demo_outline")
    assert not [fact for fact in result.facts if fact.startswith("lora_unfit")]
    assert result.marks == {}
    assert "fit" not in caplog.text
