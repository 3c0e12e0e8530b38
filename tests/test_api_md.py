"""The example in API.md does what it says."""

from __future__ import annotations

import re
import subprocess
import sys

from conftest import ROOT


def test_the_example_prints_what_it_says(environment, tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "API.md").read_text(encoding="utf-8"), re.DOTALL)
    said = re.findall(r"print\(.*\)  # (.*)", code)
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == said
