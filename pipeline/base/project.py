"""Where conf/, models/ and nodes/ are: beside pipeline/ in a checkout, and inside of it in an installed wheel."""

from __future__ import annotations

from pathlib import Path

_BUNDLED = Path(__file__).parents[1] / "bundled"

IS_INSTALLED = _BUNDLED.is_dir()
"""Whether this is an installed wheel and not a checkout."""

ROOT = _BUNDLED if IS_INSTALLED else Path(__file__).parents[2]
"""The folder that has conf/, models/ and nodes/."""
