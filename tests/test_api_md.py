"""The examples in API.md do what they say."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

from pipeline.tiny_model import make_tiny_model

SAMPLING, PROMPTS = re.findall(r"```python\n(.*?)```", (ROOT / "API.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def run_code(environment, tmp_path):
    def run(code: str) -> list[str]:
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


def test_the_sampling_example_samples(run_code, environment, tmp_path):
    for name in ("positive", "negative", "latent"):
        shutil.copy(make_tiny_model() / f"{name}.pt", tmp_path)
    environment["LATENTGRID_SAMPLING"] = "experiment=tiny"
    (said,) = run_code(SAMPLING + 'print(result["sampled_latent_tensor"])')
    assert said == str(tmp_path / "results/a-1/sampler.pt")
    assert (tmp_path / "results/a-1/sampler.pt").is_file()


def test_the_messages_are_messages():
    from pipeline.service.messages import KafkaSamplingRequest, KafkaSamplingResponse

    text = (ROOT / "API.md").read_text(encoding="utf-8")
    request, response = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    assert KafkaSamplingRequest.model_validate_json(request).seed == 12345
    assert KafkaSamplingResponse.model_validate_json(response).status == "ok"


def test_the_prompt_example_prints_what_it_says(run_code):
    assert run_code(PROMPTS) == re.findall(r"print\(.*\)  # (.*)", PROMPTS)
