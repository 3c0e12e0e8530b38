"""Which workflow an imported graph goes back to."""

from __future__ import annotations

import json
import logging

import pytest
from omegaconf import OmegaConf

from pipeline.runs.export import find_original

WORKFLOW = {"nodes": [{"id": 1, "type": "Note"}], "links": [], "version": 0.4}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.runs.export.CONF_FOLDERS", (tmp_path,))
    (tmp_path / "graph").mkdir()
    return tmp_path / "graph"


def find(name: str | None):
    return find_original(OmegaConf.create({"runtime": {"choices": {"graph": name, "lora": "demo"}}}))


def test_the_workflow_lies_beside_the_graph_that_was_chosen(folder):
    (folder / "mine.json").write_text(json.dumps(WORKFLOW))
    assert find("mine") == WORKFLOW
    assert find("other") is None
    assert find(None) is None
    assert find_original(None) is None


def test_a_prompt_has_no_layout_to_go_back_to(folder):
    (folder / "mine.json").write_text(json.dumps({"1": {"class_type": "KSampler", "inputs": {}}}))
    assert find("mine") is None


def test_a_damaged_workflow_stops_no_run(folder, caplog):
    (folder / "mine.json").write_text("{")
    with caplog.at_level(logging.WARNING):
        assert find("mine") is None
    assert "mine.json cannot be read, so the layout of the workflow is lost" in caplog.text
