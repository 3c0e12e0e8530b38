"""The description of a run in MLflow's UI: what was set, what came out, and the commands that repeat it, in Markdown.

The UI shows Markdown with tables, links and pictures. Where it is served nobody knows while a record is written, so
both kinds of link are relative to its address: `get-artifact?...` is a file of a run, `#/...` a page.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from urllib.parse import quote

from pipeline.record.artifacts import CONFIG, GRAPH, WORKFLOW

NOTE = "mlflow.note.content"  # the tag that MLflow's UI shows as description
LONGEST = 8000  # characters of a tag in MLflow
ROOM = 3000  # of these for what is added when a run ends
PICTURES = 12  # that a note shows; the others are among the artifacts

SETTINGS = "### Settings"
LINKED_FILES = (GRAPH, WORKFLOW, CONFIG)
SHOWN = (".png", ".webp", ".jpg")


def begin_note(settings: Mapping[str, str], command: str) -> str:
    """What can be said before a run: its settings by dotted path, and the command that made it."""
    rows = [f"| {_write_code(path)} | {_write_code(text)} |" for path, text in settings.items()]
    table = "\n".join(["| setting | value |", "|---|---|", *rows])
    note = f"{SETTINGS}\n\n{_write_block(command)}\n\n{table}"
    return note if len(note) <= LONGEST - ROOM else f"{note[: LONGEST - ROOM].rpartition(chr(10))[0]}\n\n..."


def fail_note(note: str, error: str) -> str:
    """The same for a run that failed."""
    return f"### Failed\n\n{_write_block(error[: ROOM - 100])}\n\n{note}"


def finish_note(note: str, experiment_id: str, run_id: str, files: Collection[str], taken_from: str = "") -> str:
    """The same for a run that finished: its pictures, links to other `files`, and how to run it again.

    taken_from: the run whose results these are, if it was not run; then `note` is that of another run that finished.
    """
    above = f"Taken over from [the run that computed it](#/experiments/{experiment_id}/runs/{taken_from})."
    again = f"python -m pipeline rerun {run_id} --verify\npython -m pipeline export {run_id} --output workflow.json"
    linked = [name for name in LINKED_FILES if name in files]
    parts = [
        _show_pictures(run_id, files),
        above if taken_from else "",
        _link_files(run_id, linked),
        _write_block(again),
    ]
    return _join([*parts, note[note.find(SETTINGS) :]])


def finish_sweep_note(note: str, experiment_id: str, run_id: str, files: Collection[str]) -> str:
    """The same for a sweep: its contact sheet, a page that compares its runs, and how to run all again."""
    view = f"#/experiments/{experiment_id}/runs?viewStateShareKey={run_id}"
    links = f"Its runs: [charts and pictures]({view}&compareRunsMode=CHART), [table]({view})"
    texts = _link_files(run_id, [name for name in files if not name.endswith(SHOWN)])
    again = _write_block(f"python -m pipeline rerun {run_id} --verify")
    return _join([links, _show_pictures(run_id, files), texts, again, note])


def _show_pictures(run_id: str, files: Collection[str]) -> str:
    pictures = [name for name in files if name.endswith(SHOWN)]
    return " ".join(f"![{name}]({_link_file(run_id, name)})" for name in pictures[:PICTURES])


def _link_files(run_id: str, files: Collection[str]) -> str:
    return " ".join(f"[{name}]({_link_file(run_id, name)})" for name in files)


def _link_file(run_id: str, name: str) -> str:
    return f"get-artifact?path={quote(name)}&run_uuid={run_id}"


def _write_block(text: str) -> str:
    return f"```\n{text}\n```"


def _write_code(text: str) -> str:
    """A text in a cell of a table, in one line."""
    plain = " ".join(text.split()).replace("|", r"\|")
    return f"`` {plain} ``" if "`" in plain else f"`{plain}`"


def _join(parts: Collection[str]) -> str:
    return "\n\n".join(part for part in parts if part)
