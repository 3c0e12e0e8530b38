"""Model sets: files that an experiment needs and a hub has. Each YAML file in `models/` is a set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.base.project import PROJECT, ROOT

MODELS = ROOT / "models"
"""A models folder, laid out like ComfyUI's and searched after all others. It has the demo model and the model sets."""

MODEL_FOLDERS = tuple(folder / "models" for folder in (PROJECT, ROOT) if folder)
"""The models folders that are searched after ComfyUI's, the one of the user's project first."""


@dataclass(frozen=True)
class ModelFile:
    """A file of a model set.

    folder: ComfyUI's name of the model folder in which it belongs (`loras`).
    repo, revision, path: its place on the hub. `revision` is a commit or a branch.
    sha256: the hash of its content.
    """

    folder: str
    repo: str
    revision: str
    path: str
    sha256: str

    @property
    def name(self) -> str:
        """The name of the file in the model folder."""
        return PurePosixPath(self.path).name


def list_model_sets(folder: Path = MODELS) -> dict[str, tuple[ModelFile, ...]]:
    """Return the files of each model set, by the name of the set."""
    import yaml

    return {
        path.stem: tuple(ModelFile(**entry) for entry in yaml.safe_load(path.read_text(encoding="utf-8")))
        for path in sorted(folder.glob("*.yaml"))
    }


def find_model_set(folder: str, name: str) -> str | None:
    """Return the name of the model set that contains the file `name` of the model folder `folder`, or None."""
    sets = list_model_sets().items()
    return next((one for one, files in sets if any((file.folder, file.name) == (folder, name) for file in files)), None)
