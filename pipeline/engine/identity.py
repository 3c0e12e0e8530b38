"""What the results of a graph depend on, the same on another day and in another process, unlike a content key."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.base.file_state import FileState
from pipeline.graph.check import CheckedGraph


@dataclass(frozen=True)
class Identity:
    """What the results of a graph depend on: graphs with equal keys and equal contents of files give equal results.

    cell: the sha256 over the kept nodes with all they depend on (class_types, constants, fingerprints) and the settings
    that shape what is kept. Runs of one cell should give equal results; whether they do depends on facts and files.
    facts: the facts that are part of the key, by dotted path; see `record/fact_table.py`.
    files: the model files that the graph reads, by dotted path (`unet.unet_name`). Their content is hashed elsewhere,
    because that takes a minute the first time and no sampling should wait for it.
    inputs: the other files that constants of the graph name, by dotted path (`latent.path`).
    """

    cell: str
    facts: Mapping[str, str]
    files: Mapping[str, FileState]
    inputs: Mapping[str, FileState]

    @property
    def key(self) -> str:
        """The sha256 over cell and facts."""
        return _hash([self.cell, self.facts])

    @property
    def all_files(self) -> dict[str, FileState]:
        """The model files and the input files."""
        return {**self.files, **self.inputs}

    def update(self, facts: Mapping[str, str]) -> Identity:
        """Return the identity with other key facts, because a pack may have changed torch's flags since."""
        return dataclasses.replace(self, facts=dict(facts))


def make_cell(checked: CheckedGraph, keys: Mapping[str, str], settings: Mapping[str, object]) -> str:
    """Return the `cell` of an `Identity`; `keys` must be the same in every process."""
    # Files are named after their nodes, so the names of the kept nodes are part of the result.
    return _hash([{name: keys[name] for name in checked.targets}, settings])


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
