"""The description of a run in MLflow's UI: what was set, what came out, and the commands that repeat it, in Markdown.

The UI shows Markdown with tables, links and pictures. Where it is served nobody knows while a record is written, so
both kinds of link are relative to its address: `get-artifact?...` is a file of a run, `#/...` a page.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import PurePosixPath
from urllib.parse import quote

from pipeline.record.artifacts import CONFIG, GRAPH, WORKFLOW

NOTE = "mlflow.note.content"  # the tag that MLflow's UI shows as description
LONGEST = 8000  # characters of a tag in MLflow

RESULTS = "\n\n### Results\n"
FAILED = "\n\n### Failed\n"
LINKED_FILES = (GRAPH, WORKFLOW, CONFIG)
PICTURES = 12  # that a note shows; the others are among the artifacts


def begin_note(settings: Mapping[str, str], command: str) -> str:
    """What can be said before a run: its settings by dotted path, and the command that made it."""
    note = f"### Settings\n\n{_write_table(settings)}\n\n" if settings else ""
    made_by = f"```\n{command}\n```"
    room = LONGEST - 2000 - len(made_by)
    return (note if len(note) <= room else "") + made_by


def fail_note(note: str, error: str) -> str:
    """The same for a run that failed."""
    return f"{note}{FAILED}\n<code>{_escape(error[:1000])}</code>"


def finish_note(note: str, experiment_id: str, run_id: str, files: Collection[str], taken_from: str = "") -> str:
    """The same for a run that finished: its pictures, links to other `files`, and how to run it again.

    taken_from: the run whose results these are, if it was not run.
    """
    pictures = [name for name in files if PurePosixPath(name).suffix in (".png", ".webp", ".jpg")]
    shown = [f"![{name}]({_link_file(run_id, name)})" for name in pictures[:PICTURES]]
    linked = [f"[{name}]({_link_file(run_id, name)})" for name in LINKED_FILES if name in files]
    above = f"Taken over from [the run that computed it](#/experiments/{experiment_id}/runs/{taken_from})."
    again = f"python -m pipeline rerun {run_id} --verify\npython -m pipeline export {run_id} --output workflow.json"
    parts = [above if taken_from else "", " ".join(shown), " ".join(linked), f"```\n{again}\n```"]
    return f"{note.partition(RESULTS)[0]}{RESULTS}\n" + "\n\n".join(part for part in parts if part)


def finish_sweep_note(note: str, experiment_id: str, run_id: str, files: Collection[str]) -> str:
    """The same for a sweep: its contact sheet, a page that compares its runs, and how to run all again."""
    sheets = [f"![{name}]({_link_file(run_id, name)})" for name in files if name.endswith(".png")]
    texts = [f"[{name}]({_link_file(run_id, name)})" for name in files if not name.endswith(".png")]
    view = f"[Its runs, compared](#/experiments/{experiment_id}/runs?viewStateShareKey={run_id})"
    parts = [view, " ".join(sheets), " ".join(texts), f"```\npython -m pipeline rerun {run_id} --verify\n```"]
    return f"{note.partition(RESULTS)[0]}{RESULTS}\n" + "\n\n".join(part for part in parts if part)


def _write_table(settings: Mapping[str, str]) -> str:
    rows = [f"| {path} | <code>{_escape(text)}</code> |" for path, text in settings.items()]
    return "\n".join(["| setting | value |", "|---|---|", *rows])


def _escape(text: str) -> str:
    """A text in one line that Markdown and HTML leave alone."""
    return re.sub(r"[^\w ,=/]", lambda found: f"&#{ord(found[0])};", " ".join(text.split())).replace("_", "&#95;")


def _link_file(run_id: str, name: str) -> str:
    return f"get-artifact?path={quote(name)}&run_uuid={run_id}"
