"""ComfyUI's own execution tests, unmodified, against our executor in its classic, lru and none modes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

SUITE = ROOT.parent / "shared" / "comfy_suite"
COUNT = 146


@pytest.mark.skipif(
    not SUITE.is_dir(), reason=f"{SUITE} is missing: the adapter of ComfyUI's tests lies beside the clone"
)
def test_comfyuis_own_execution_tests_pass(environment, comfyui_path, tmp_path):
    environment |= {
        "COMFYUI_PATH": str(comfyui_path),
        "EXECUTOR": "mapping:run_prompt",
        "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    # Their assertions on seconds are left out: a busy machine fails them.
    command = [
        sys.executable,
        "-m",
        "pytest",
        str(SUITE),
        "-q",
        "--skip-timing-checks",
        "-c",
        str(SUITE / "pytest.ini"),
    ]
    done = subprocess.run(
        [*command, "--rootdir", str(SUITE)], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert f"\n{COUNT} passed" in done.stdout, done.stdout[-500:]
