"""Collect what is known of a run before it starts: its config as text, its params, its tags."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import yaml
from omegaconf import DictConfig, OmegaConf

from pipeline.config.read import RunConfig
from pipeline.graph.api_format import write_api_format
from pipeline.graph.check import CheckedGraph
from pipeline.graph.model import Link, Node
from pipeline.record.fact_table import CELL, VERSION, select_key_facts
from pipeline.record.facts import collect_facts
from pipeline.record.machine import collect_machine
from pipeline.record.note import NOTE, begin_note
from pipeline.record.provenance import SEEDS
from pipeline.record.recorder import RunFacts
from pipeline.runs.console import format_value
from pipeline.workflow.cards import make_cards

if TYPE_CHECKING:
    from pipeline.engine.identity import Identity
    from pipeline.engine.session import Session


def collect_tags(parsed: RunConfig, session: Session) -> dict[str, str]:
    """Return the facts of a run that are also its tags in MLflow."""
    comfyui = session.comfyui
    return {
        **collect_facts(comfyui.device),
        "version.identity": str(VERSION),
        "version.comfyui": comfyui.installation.version,
        "device": f"{comfyui.device} ({parsed.comfyui.device})",
        "reproducible": json.dumps(parsed.comfyui.reproducible),
        "dynamic_vram": json.dumps(comfyui.dynamic_vram),
    }


def collect_key_facts(parsed: RunConfig, checked: CheckedGraph, session: Session) -> dict[str, str]:
    """Return the facts that are part of the identity of a run; see `record/fact_table.py`."""
    return select_key_facts({**collect_tags(parsed, session), **_collect_other_facts(checked, session)})


def select_process_facts(facts: Mapping[str, str]) -> dict[str, str]:
    """Return the facts that may change a result and that are the same for all graphs of a process."""
    key_facts = select_key_facts(facts)
    return {name: text for name, text in key_facts.items() if not name.startswith(("code.", "pack.", "env."))}


def _collect_other_facts(checked: CheckedGraph, session: Session) -> dict[str, str]:
    return {**session.describe(checked), **collect_machine(session.comfyui.device)}


def collect_run_facts(
    name: str,
    config: DictConfig | Mapping[str, Any],
    overrides: Sequence[str],
    parsed: RunConfig,
    checked: CheckedGraph,
    session: Session,
    identity: Identity,
    workflow: Mapping[str, Any],
) -> RunFacts:
    """Return the beginning of the record of a run of a composed `config` that was parsed and checked.

    `workflow` is its graph in the format of ComfyUI's GUI.
    """
    facts = _collect_other_facts(checked, session)
    tags = collect_tags(parsed, session)
    identity = identity.update(select_key_facts({**tags, **facts}))
    tags |= {
        CELL: identity.cell,
        NOTE: begin_note(list_settings(checked), f"python run.py {shlex.join(overrides)}".strip()),
    }
    return RunFacts(
        name=name,
        config_yaml=write_yaml(config),
        prompt=write_api_format(checked.graph),
        workflow=workflow,
        draw=lambda cached: draw_svg(checked, cached),
        params=_list_params(parsed, checked),
        tags=tags,
        identity=identity.key,
        files=identity.files,
        inputs=identity.inputs,
        facts={**facts, **_list_seeds(checked)},
    )


def _list_seeds(checked: CheckedGraph) -> dict[str, str]:
    """Return the seeds of all nodes, as text, because many JSON parsers lose digits of a 64-bit number."""
    return {
        f"seed.{name}.{key}": str(value)
        for name, node in checked.graph.items()
        for key, value in node.inputs.items()
        if key in SEEDS and isinstance(value, int)
    }


def draw_svg(checked: CheckedGraph, cached: Collection[str] = ()) -> str:
    """Return a picture of a checked graph as an SVG document."""
    from pipeline.workflow.draw import measure_text, write_svg  # imports Pillow, which the command line need not load
    from pipeline.workflow.picture import compose_picture

    return write_svg(compose_picture(make_cards(checked, cached), measure_text))


def write_yaml(config: DictConfig | Mapping[str, Any]) -> str:
    """Return a composed config as YAML, with its interpolations and without Hydra's own settings."""
    if not isinstance(config, DictConfig):
        config = OmegaConf.create(dict(config))
    whole: Any = OmegaConf.to_container(config, resolve=False)
    plain = {key: value for key, value in whole.items() if key != "hydra"}
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Dumper(yaml.CSafeDumper):
    """PyYAML's fast dumper, with quotes around texts that OmegaConf, unlike PyYAML, takes for numbers (`1e3`)."""


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    try:
        float(text)
    except ValueError:
        return dumper.represent_scalar("tag:yaml.org,2002:str", text)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'")


_Dumper.add_representer(str, _represent_text)


def _list_params(parsed: RunConfig, checked: CheckedGraph) -> dict[str, str]:
    """Return all variables, all inputs of nodes that run, and which nodes are bypassed, as text by dotted path."""
    params = {name: write_param(value) for name, value in parsed.variables.items()}
    params.update({f"{name}._bypass_": write_param(node.bypassed) for name, node in parsed.graph.items()})
    for name, node in checked.graph.items():
        for key, value in node.inputs.items():
            params[f"{name}.{key}"] = format_value(value, checked) if isinstance(value, Link) else write_param(value)
    return params


def list_settings(checked: CheckedGraph) -> dict[str, str]:
    """Return the values that differ from the nodes' own defaults, and the bypasses, as text by dotted path."""
    settings = {}
    for name, card in make_cards(checked).items():
        shown = {"_bypass_": "true"} if card.bypassed else card.values
        settings.update({f"{name}.{key}": text for key, text in shown.items()})
    return settings


def list_constants(node: Node) -> dict[str, str]:
    """Return the inputs of a node that are not links, as text by dotted path."""
    return {
        f"{node.name}.{key}": write_param(value) for key, value in node.inputs.items() if not isinstance(value, Link)
    }


def write_param(value: Any) -> str:
    """Return a value as the text that MLflow stores: a text unchanged, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, default=str)
