"""What the results of a graph follow from: the same on another day and in another process, unlike a content key."""

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
    """Graphs of one key whose files have one content give the same results.

    cell: the sha256 over the kept nodes with all they depend on (class_types, constants, fingerprints) and the settings
    that shape what is kept. Runs of one cell are meant to give the same; whether they do is up to facts and files.
    facts: the facts that are part of the key, by dotted path; see `record/fact_table.py`.
    files: the model files that the graph reads, by dotted path (`unet.unet_name`). Their content is for others to hash:
    it takes a minute the first time, and no sample should wait for it.
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
        """Model files and input files."""
        return {**self.files, **self.inputs}

    def update(self, facts: Mapping[str, str]) -> Identity:
        """Return the identity with the key facts that hold now: a pack may have changed torch's flags meanwhile."""
        return dataclasses.replace(self, facts=dict(facts))


def make_cell(checked: CheckedGraph, keys: Mapping[str, str], settings: Mapping[str, object]) -> str:
    """Return the `cell` of an `Identity`, from keys of the nodes that are the same in every process."""
    # Files are named after their nodes, so the names of the kept ones are part of the result.
    return _hash([{name: keys[name] for name in checked.targets}, settings])


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
