"""What all runs of this process share: one ComfyUI session, and one connection to each MLflow store.

A command opens what it needs where it begins, and hands it on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.config.read import RunConfig
from pipeline.models.tiny import make_tiny_model, names_tiny_model
from pipeline.record.tracker import Tracker, TrackingSettings

if TYPE_CHECKING:
    from pipeline.engine.session import Session

_session: Session | None = None
_trackers: dict[TrackingSettings, Tracker] = {}


def open_session(parsed: RunConfig) -> Session:
    """Return the session of this process; the first call starts it.

    Importing torch and ComfyUI, which takes seconds, happens here. Raises ConfigError and ComfyUIError, also if the
    session runs with other settings of ComfyUI than these.
    """
    from pipeline.engine.comfyui.start import start_comfyui
    from pipeline.engine.session import Session

    global _session
    if _session is None:
        _session = Session(start_comfyui(parsed.comfyui))
    start_comfyui(parsed.comfyui)  # refuses settings other than those it runs with
    if names_tiny_model(parsed.values):
        _session.add_models(make_tiny_model() / "models")
    return _session


def interrupt_run() -> None:
    """Let the run that another thread is in end with RunInterrupted; without one nothing happens."""
    if _session is not None:
        _session.interrupt()


def open_tracker(settings: TrackingSettings) -> Tracker | None:
    """Return the tracker for these settings, None if they have no uri; one that failed is replaced by another.

    The process that writes to MLflow is started at once and gets ready while this one goes on.
    """
    if not settings.uri:
        return None
    if settings not in _trackers or _trackers[settings].failed:
        _trackers[settings] = Tracker(settings)
    return _trackers[settings]
