"""The cache folder, for what can always be made again: installed ComfyUI copies, unfinished downloads, file hashes."""

from __future__ import annotations

from pathlib import Path


def cache_folder() -> Path:
    """Return the user's cache folder for latentgrid, by the platform's own rule.

    `XDG_CACHE_HOME` moves it. The folder may not exist yet.
    """
    import platformdirs

    return platformdirs.user_cache_path("latentgrid", appauthor=False)
