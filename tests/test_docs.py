"""The documentation: README.md stays short, every link leads somewhere, and the config reference is up to date."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT
from patience import PATIENCE
from warm_python import PYTHON

from pipeline.config.read import SECTIONS

NAMES = ("README.md", "API.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "models/README.md")
PAGES = [*(ROOT / name for name in NAMES), *sorted((ROOT / "docs").glob("*.md"))]

CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]+))?\)")


def find_broken_links(page: Path) -> list[str]:
    """The relative links and images of a page that lead to no file, or to no heading of it."""
    broken = []
    for name, anchor in LINK.findall(CODE.sub("", page.read_text(encoding="utf-8"))):
        target = (page.parent / name).resolve() if name else page
        if not target.is_file() or (anchor and anchor not in list_anchors(target)):
            broken.append(f"{name}#{anchor}" if anchor else name)
    return broken


@cache
def list_anchors(page: Path) -> set[str]:
    """The anchors that headings have, in GitHub and in the site."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    assert find_broken_links(page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page, other = tmp_path / "page.md", tmp_path / "other.md"
    other.write_text("# Head line\n\n```\n# no heading\n```\n\n### cfg_norm/default\n")
    page.write_text(
        "[a](other.md) [b](other.md#head-line) [c](#gone) ![d](gone.png) `[e](gone.md)` [f](https://example.org/gone)\n"
        "[g](other.md#no-heading) [h](other.md#cfg_normdefault)\n```\n[i](gone.md)\n```\n[j](gone.md)\n"
    )
    assert find_broken_links(page) == ["#gone", "gone.png", "other.md#no-heading", "gone.md"]


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_readme_leads_to_every_page() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f"(docs/{page.name})" not in text] == []


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_config_reference", ROOT / "docs/make_config_reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


def test_the_config_reference_is_what_the_script_makes(script: ModuleType) -> None:
    message = "run python docs/make_config_reference.py"
    assert (ROOT / "docs/config.md").read_text(encoding="utf-8") == script.make_reference(), message


@pytest.mark.parametrize("cls", SECTIONS.values(), ids=SECTIONS)
def test_every_setting_is_described(script: ModuleType, cls: type) -> None:
    summary, texts = script.read_docstring(cls)
    assert summary
    assert set(texts) == {field.name for field in dataclasses.fields(cls)}
    assert all(texts.values())


def test_the_reference_has_no_environment_of_this_machine(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    before = script.make_reference()
    monkeypatch.setenv("KAFKA_GROUP_ID", "another")
    assert script.make_reference() == before


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="make setup installs MkDocs")
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [PYTHON, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site/index.html").is_file()
