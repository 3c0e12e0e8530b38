"""Find what differs between the records of two runs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.record.artifacts import PROMPT
from pipeline.record.fact_table import TELLS_NOTHING, find_kind, rank_fact
from pipeline.record.provenance import SEEDS, RecordedRun


@dataclass(frozen=True)
class Difference:
    """A fact that differs between two records. None means that a record does not have it."""

    fact: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        return f"{self.fact}: {_shorten(self.before)} -> {_shorten(self.after)}"


def list_facts(run: RecordedRun) -> dict[str, str]:
    """Return all facts of a record, as text by dotted path.

    For a record of version 1, which has no facts, the tags of the run take their place. A run without a record has no
    facts.
    """
    if run.record is None:
        return {}
    prompt = json.loads((run.folder / PROMPT).read_bytes())
    tags = {name: value for name, value in run.tags.items() if not name.startswith("mlflow.")}
    files = {where: sha256 for where, sha256 in run.record.files.items() if sha256}
    return join_facts(run.record.facts or tags, files, prompt)


def join_facts(facts: Mapping[str, str], files: Mapping[str, str], prompt: Mapping[str, Any]) -> dict[str, str]:
    """Return `facts`, the sha256 of `files`, and the constants and links of an API-format graph, by dotted path."""
    graph = {f"graph.{name}._node_": str(node["class_type"]) for name, node in prompt.items()}
    graph |= {
        f"{'seed' if key in SEEDS else 'graph'}.{name}.{key}": value if isinstance(value, str) else json.dumps(value)
        for name, node in prompt.items()
        for key, value in node["inputs"].items()
    }
    return {**facts, **{f"file.{where}": sha256 for where, sha256 in files.items()}, **graph}


def find_differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[Difference]:
    """Return the facts that differ between two runs, the likeliest cause of different results first.

    Facts that differ between runs anyway are left out, and facts that only one run has if their absence means nothing.

    Example:
        (found,) = find_differences({"version.torch": "2.9.1"}, {"version.torch": "2.10.0"})
        str(found)  # version.torch: 2.9.1 -> 2.10.0
    """
    common_groups = {fact.partition(".")[0] for fact in before} & {fact.partition(".")[0] for fact in after}
    found = [
        Difference(fact, before.get(fact), after.get(fact))
        for fact in {**before, **after}
        if before.get(fact) != after.get(fact)
        and not TELLS_NOTHING.match(fact)
        and ((fact in before and fact in after) or _counts_alone(fact, common_groups))
    ]
    return sorted(found, key=lambda one: (rank_fact(one.fact), one.fact))


def compare_facts(before: Mapping[str, str], after: Mapping[str, str]) -> list[Difference]:
    """Return every fact that is not equal in both, the likeliest cause of different results first."""
    facts = {fact for fact in {**before, **after} if before.get(fact) != after.get(fact)}
    ordered = sorted(facts, key=lambda fact: (rank_fact(fact), fact))
    return [Difference(fact, before.get(fact), after.get(fact)) for fact in ordered]


def _counts_alone(fact: str, common_groups: set[str]) -> bool:
    """Return whether a fact counts as different although only one run has it.

    An older record has no packages at all, which is no difference in each of them.
    """
    kind, group = find_kind(fact), fact.partition(".")[0]
    return bool(kind and kind.counts_alone) and (group in common_groups or group in ("batch", "graph"))


def _shorten(value: str | None) -> str:
    if value is None:
        return "none"
    if re.fullmatch(r"[0-9a-f]{40,64}", value):
        return f"{value[:12]}..."
    return value if len(value) <= 80 else f"{value[:77]}..."
