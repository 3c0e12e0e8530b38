""".env.example: all environment variables that are read, and none that is not."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from conftest import ROOT

NAMED = set(re.findall(r"^# ([A-Z][A-Z_]+)=", (ROOT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE))
READ = re.compile(
    r"""oc\.env:(\w+)|os\.environ(?:\.get\(|\[)"(\w+)"|^(?:OVERRIDES|FULL_ERROR) = "(\w+)"|\("(CUDA_\w+)",""", re.M
)
NOT_FOR_USERS = {"PYTHONPATH"}

LIBRARIES = {"HF_": "huggingface_hub", "MLFLOW_": "mlflow", "XDG_": "platformdirs", "UV_": "pipeline"}
"""Who reads a variable that we do not read ourselves. uv is no Python, and our messages name its variable."""


def find_read() -> set[str]:
    """The variables that our code and our configs read."""
    files = [*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "conf").rglob("*.yaml")]
    found = (name for file in files for match in READ.findall(file.read_text(encoding="utf-8")) for name in match)
    return {name for name in found if name} - NOT_FOR_USERS


def test_every_variable_that_we_read_is_named() -> None:
    found = find_read()
    assert {"COMFYUI_PATH", "LATENTGRID_SAMPLING", "KAFKA_GROUP_ID", "CUDA_VISIBLE_DEVICES"} <= found
    assert found <= NAMED


def test_every_variable_that_is_named_is_read() -> None:
    for name in NAMED - find_read():
        library = next(library for prefix, library in LIBRARIES.items() if name.startswith(prefix))
        spec = importlib.util.find_spec(library)
        assert spec is not None and spec.origin is not None
        texts = (file.read_text(encoding="utf-8") for file in Path(spec.origin).parent.rglob("*.py"))
        assert any(re.search(rf"\b{name}\b", text) for text in texts), name
