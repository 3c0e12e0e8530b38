"""Where latentgrid keeps what it can always get again: installed ComfyUI copies and unfinished downloads."""

from __future__ import annotations

from pathlib import Path


def cache_folder() -> Path:
    """Return the user's cache folder for latentgrid, by the platform's own rule; `XDG_CACHE_HOME` moves it.

    The folder need not exist yet.
    """
    import platformdirs

    return platformdirs.user_cache_path("latentgrid", appauthor=False)
