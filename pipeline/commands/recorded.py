"""Functions for commands that read recorded runs: find MLflow, and parse the settings of this machine."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO
from urllib.parse import unquote

from omegaconf import OmegaConf

from pipeline.config.read import read_sections
from pipeline.errors import ConfigError, Problem, RecordError
from pipeline.record.tracker import TrackingSettings

if TYPE_CHECKING:
    from pipeline.record.differences import Difference
    from pipeline.record.queries import RunStore

SHOWN = 20  # the most differences that are listed
SQLITE = "sqlite:///"
GIVEN = ("tracking", "comfyui")  # sections that describe this machine and not the run


def split_overrides(overrides: Sequence[str]) -> tuple[TrackingSettings, dict[str, Any]]:
    """Return the tracking settings, and by dotted path the settings of ComfyUI that are given.

    The experiment is None unless it is given. Raises ConfigError for overrides of anything else.
    """
    paths = {override: override.partition("=")[0].lstrip("+") for override in overrides}
    problems = [
        Problem("not_an_override", path, "is in the record and cannot be changed; only tracking.* and comfyui.* can")
        for path in paths.values()
        if path.partition(".")[0] not in GIVEN
    ]
    if problems:
        raise ConfigError(problems)
    read = read_sections(overrides, *GIVEN)
    config = OmegaConf.create({"comfyui": read.values["comfyui"]})
    experiment = read.tracking.experiment_name if "tracking.experiment_name" in paths.values() else None
    comfyui = {path: OmegaConf.select(config, path) for path in paths.values() if path.startswith("comfyui.")}
    return TrackingSettings(read.tracking.uri, experiment), comfyui


def open_store(tracking: TrackingSettings) -> RunStore:
    """Return the store of the recorded runs of all experiments. Raises RecordError if there is no store."""
    from pipeline.runs.process import open_tracker

    database = Path(unquote((tracking.uri or "").removeprefix(SQLITE).split("?")[0]))
    if tracking.uri and tracking.uri.startswith(SQLITE) and not database.is_file():
        raise RecordError(f"tracking.uri: there is no MLflow store, got {tracking.uri!r}. Say where: tracking.uri=URI")
    tracker = open_tracker(TrackingSettings(tracking.uri))  # without an experiment, which would be created
    if tracker is None:
        raise RecordError("tracking.uri: recorded runs are in MLflow, got null. Say where: tracking.uri=URI")
    return tracker.store


def show_differences(name: str, what: str, differences: Sequence[Difference], file: TextIO | None = None) -> None:
    """Print the differences between records, if there are any, to `file` or else to the standard error."""
    out = file or sys.stderr
    if not differences:
        return
    print(f"{name or 'run'}: {what}, the likeliest cause first", file=out)
    for one in differences[:SHOWN]:
        print(f"  {one}", file=out)
    if len(differences) > SHOWN:
        print(f"  and {len(differences) - SHOWN} more", file=out)
