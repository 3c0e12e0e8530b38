"""What all runs of this process share: one ComfyUI session, and one connection to each MLflow store.

A command opens what it needs when it begins, and passes it on.
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

    Torch and ComfyUI are imported here, which takes seconds. Raises ConfigError and ComfyUIError, also if the session
    runs with other settings of ComfyUI than these.
    """
    from pipeline.engine.comfyui.start import start_comfyui
    from pipeline.engine.session import Session

    global _session
    if _session is None:
        _session = Session(start_comfyui(parsed.comfyui))
    start_comfyui(parsed.comfyui)  # it refuses settings other than those with which it runs
    if names_tiny_model(parsed.values):
        _session.add_models(make_tiny_model() / "models")
    return _session


def interrupt_run() -> None:
    """Interrupt the run in another thread, which then raises RunInterrupted. Without a run, do nothing."""
    if _session is not None:
        _session.interrupt()


def open_tracker(settings: TrackingSettings) -> Tracker | None:
    """Return the tracker for these settings, or None if they have no uri. A tracker that failed is replaced.

    The process that writes to MLflow is started at once and gets ready while this one goes on.
    """
    if not settings.uri:
        return None
    if settings not in _trackers or _trackers[settings].failed:
        _trackers[settings] = Tracker(settings)
    return _trackers[settings]
