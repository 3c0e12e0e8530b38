"""`record.json`: what a run was made of, complete and machine-readable. Only this module knows its form.

    version     of this form; what latentgrid wrote before it counted has none, and is read as 1
    identity    see `engine/identity.py`
    files       by dotted path (`unet.unet_name`): sha256, path, size, mtime_ns and kind (model or input) of a file
    artifacts   the sha256 of every file that the record holds, by name; `prompt.json` is the graph with all defaults,
                `config.yaml` the settings
    pictures    which of them MLflow's comparison of runs shows, and under which name
    facts       by dotted path, as text: versions, code, commits, packages, machine, flags, seeds, order, ...
    outputs     by node: what `digest_tensors` says of the kept latent

In version 1 `files` has the sha256 of model files alone, and facts and outputs are not there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.base.file_state import FileState
from pipeline.errors import RecordError

VERSION = 2

MODEL = "model"

SEEDS = ("seed", "noise_seed")
"""What ComfyUI's nodes call a seed."""


@dataclass(frozen=True)
class RecordedRun:
    """A run as it stands in MLflow. `record` is its record.json, None if it has none: it did not finish, or is a sweep.

    children: the runs below it, in the order in which they began. folder: where its files were put.
    """

    run_id: str
    name: str
    status: str
    experiment: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    children: tuple[str, ...]
    folder: Path
    record: Record | None


@dataclass(frozen=True)
class Record:
    """A record.json, read. `files` has the sha256 of files by dotted path, `models` that of model files alone; None
    where a file changed before it could be read."""

    version: int
    identity: str
    files: Mapping[str, str | None]
    models: Mapping[str, str | None]
    artifacts: Mapping[str, str]
    pictures: Mapping[str, str]
    facts: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)


def begin_record(identity: str, facts: Mapping[str, str]) -> dict[str, Any]:
    """The beginning of a record.json, with what is known before the run."""
    return {"version": VERSION, "identity": identity, "facts": dict(facts), "outputs": {}}


def add_learnt(record: dict[str, Any], facts: Mapping[str, str], outputs: Mapping[str, str]) -> None:
    """Add what the run has shown; a record of version 1 has no place for it."""
    if "facts" in record:
        record["facts"] = {**record["facts"], **facts}
        record["outputs"] = {**record["outputs"], **outputs}


def write_file(state: FileState, sha256: str | None, kind: str) -> dict[str, Any]:
    """A file of a record.json, `kind` being model or input; without a sha256 if it changed before it could be read."""
    return {"sha256": sha256, "path": state.path, "size": state.size, "mtime_ns": state.mtime_ns, "kind": kind}


def read_record(text: str | bytes) -> Record:
    """Read a record.json of this or an older version. Raises RecordError for a newer one, and for what is none."""
    try:
        content: dict[str, Any] = json.loads(text)
        version = int(content.get("version", 1))
        if version > VERSION:
            raise RecordError(f"record.json: is of version {version}, but this latentgrid reads up to {VERSION}")
        if version == 1:
            content["files"] = {where: {"sha256": sha256, "kind": MODEL} for where, sha256 in content["files"].items()}
        hashes = {where: file["sha256"] for where, file in content["files"].items()}
        models = {where: hashes[where] for where, file in content["files"].items() if file["kind"] == MODEL}
        return Record(
            version,
            content["identity"],
            hashes,
            models,
            content["artifacts"],
            content["pictures"],
            content.get("facts", {}),
            content.get("outputs", {}),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"record.json: is damaged ({type(error).__name__}: {error})") from error
