"""`record.json`: the complete, machine-readable provenance of a run. Only this module knows its format.

    version     the version of the format; a file without one is of version 1
    identity    see `engine/identity.py`
    files       by dotted path (`unet.unet_name`): sha256, path, size, mtime_ns and kind (model or input) of a file
    artifacts   the sha256 of every file of the record, by name; `prompt.json` is the graph with all defaults,
                `config.yaml` the settings
    pictures    which artifacts MLflow's comparison of runs shows, and under which name
    facts       by dotted path, as text: versions, code, commits, packages, machine, flags, seeds, order, ...
    outputs     by node: the `digest_tensors` of the latent

In version 1, `files` has only the sha256 of model files, and there are no facts and outputs.
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
"""The names of seeds among the inputs of ComfyUI's nodes."""


@dataclass(frozen=True)
class RecordedRun:
    """A run as it is recorded in MLflow.

    children: the ids of the runs below it, in the order in which they began.
    folder: where its files were copied to.
    record: its parsed record.json, or None if it has none, because it did not finish or is a sweep.
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
    """A parsed record.json.

    files: the sha256 of each file by dotted path, None if the file changed before it could be hashed.
    models: the same for the model files alone.
    """

    version: int
    identity: str
    files: Mapping[str, str | None]
    models: Mapping[str, str | None]
    artifacts: Mapping[str, str]
    pictures: Mapping[str, str]
    facts: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)


def begin_record(identity: str, facts: Mapping[str, str]) -> dict[str, Any]:
    """Return the beginning of a record.json, with what is known before the run."""
    return {"version": VERSION, "identity": identity, "facts": dict(facts), "outputs": {}}


def add_learnt(record: dict[str, Any], facts: Mapping[str, str], outputs: Mapping[str, str]) -> None:
    """Add what is known only after the run. A record of version 1, which has no facts, stays as it is."""
    if "facts" in record:
        record["facts"] = {**record["facts"], **facts}
        record["outputs"] = {**record["outputs"], **outputs}


def write_file(state: FileState, sha256: str | None, kind: str) -> dict[str, Any]:
    """Return the entry for a file in a record.json.

    `kind` is model or input. `sha256` is None if the file changed before it could be hashed.
    """
    return {"sha256": sha256, "path": state.path, "size": state.size, "mtime_ns": state.mtime_ns, "kind": kind}


def read_record(text: str | bytes) -> Record:
    """Parse a record.json of this or an older version.

    Raises RecordError if it is of a newer version or damaged.

    Example:
        read_record((folder / "record.json").read_bytes()).artifacts["sampler.latent"]  # a sha256
    """
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
