"""The rules of ARCHITECTURE.md that a machine can hold."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from conftest import ROOT
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

MODULES = sorted((ROOT / "pipeline").rglob("*.py"))
PACKS = sorted((ROOT / "nodes").rglob("*.py"))


def test_import_contracts(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert lint_imports(no_cache=True) == EXIT_STATUS_SUCCESS


def test_nodes_is_a_folder_of_packs_and_no_package():
    assert not (ROOT / "nodes" / "__init__.py").exists()
    assert (ROOT / "nodes" / "latentgrid" / "__init__.py").is_file()


@pytest.mark.parametrize("path", PACKS, ids=lambda path: path.name)
def test_a_pack_imports_itself_relatively_and_nothing_of_the_pipeline(path: Path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names.append(str(node.module))
        assert not [name for name in names if name.split(".")[0] in ("pipeline", "nodes", "latentgrid")]


@pytest.mark.parametrize("path", [*MODULES, *PACKS], ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_says_what_it_is_and_stays_short(path: Path):
    text = path.read_text(encoding="utf-8")
    assert not text or ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= 320


@pytest.mark.parametrize("path", [*MODULES, *PACKS], ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_loads_a_pickle_that_can_execute(path: Path):
    text = path.read_text(encoding="utf-8")
    for call in re.findall(r"torch\.load\([^)]*\)", text):
        assert "weights_only=True" in call
    assert not re.search(r"pickle\.loads?\(", text)


def test_run_py_stays_short():
    assert len((ROOT / "run.py").read_text(encoding="utf-8").splitlines()) < 40


def test_the_page_names_each_version_that_can_be_installed():
    from pipeline.engine.comfyui.install import RELEASES

    page = (ROOT / "docs" / "first-day.md").read_text(encoding="utf-8")
    for version in RELEASES:
        assert version in page
