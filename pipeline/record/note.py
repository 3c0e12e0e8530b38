"""The description of a run in MLflow's UI: its settings, its results and the commands that repeat it, in Markdown.

The UI shows Markdown with tables, links and pictures. The address at which it is served is unknown while a record is
written, so both kinds of link are relative to it: `get-artifact?...` is a file of a run, `#/...` a page.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from urllib.parse import quote

from pipeline.record.artifacts import CONFIG, GRAPH, WORKFLOW

NOTE = "mlflow.note.content"  # the tag that MLflow's UI shows as description
LONGEST = 8000  # the most characters of a tag in MLflow
ROOM = 3000  # how many of these are reserved for what is added when a run ends
PICTURES = 12  # the most that a note shows; all are among the artifacts

SETTINGS = "### Settings"
LINKED_FILES = (GRAPH, WORKFLOW, CONFIG)
SHOWN = (".png", ".webp", ".jpg")


def begin_note(settings: Mapping[str, str], command: str) -> str:
    """Return the note with what is known before a run: its settings by dotted path and the command that starts it."""
    rows = [f"| {_write_code(path)} | {_write_code(text)} |" for path, text in settings.items()]
    table = "\n".join(["| setting | value |", "|---|---|", *rows])
    note = f"{SETTINGS}\n\n{_write_block(command)}\n\n{table}"
    return note if len(note) <= LONGEST - ROOM else f"{note[: LONGEST - ROOM].rpartition(chr(10))[0]}\n\n..."


def fail_note(note: str, error: str) -> str:
    """Return the note of a run that failed, with its error."""
    return f"### Failed\n\n{_write_block(error[: ROOM - 100])}\n\n{note}"


def finish_note(note: str, experiment_id: str, run_id: str, files: Collection[str], taken_from: str = "") -> str:
    """Return the note of a run that finished, with its pictures, links to other `files`, and how to run it again.

    taken_from: the id of the run that computed the results, if they were taken over; `note` is then that of another
        finished run.
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
    return _join([*parts, note[note.find(SETTINGS) :]])  # without what another finished run has above its settings


def finish_sweep_note(note: str, experiment_id: str, run_id: str, files: Collection[str]) -> str:
    """Return the note of a sweep, with its contact sheet, pages that compare its runs, and how to run all again."""
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
    """Return a text as code for a cell of a table, in one line."""
    plain = " ".join(text.split()).replace("|", r"\|")
    return f"`` {plain} ``" if "`" in plain else f"`{plain}`"


def _join(parts: Collection[str]) -> str:
    return "\n\n".join(part for part in parts if part)
