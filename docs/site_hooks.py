"""Hooks of MkDocs: the site also has the pages that stand outside of docs/, and links lead to where pages are in it.

mkdocs.yml names this module. A link that leads to no page of the site stays as it is, and `strict` refuses it.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]

OUTSIDE = {
    "README.md": "index.md",
    "API.md": "api.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "models/README.md": "demo-model.md",
}
"""The pages outside of docs/, with their names in the site."""

SOURCES = {name: path for path, name in OUTSIDE.items()}

LINK = re.compile(r"\]\((?![a-z]+:)([^)#\s]+)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that stand outside of docs/."""
    for path, name in OUTSIDE.items():
        files.append(File.generated(config, name, content=(ROOT / path).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    """Return the text of a page with its relative links as they are in the site, which is one folder."""
    folder = posixpath.dirname(SOURCES.get(page.file.src_uri, f"docs/{page.file.src_uri}"))

    def replace(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, link[1]))
        return "](" + (OUTSIDE.get(path) or posixpath.relpath(path, "docs"))

    return LINK.sub(replace, markdown)
