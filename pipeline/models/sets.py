"""Model sets: the files that an experiment needs and a hub has, one YAML file a set in `models/`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

MODELS = Path(__file__).parents[2] / "models"
"""Laid out like ComfyUI's models/, and searched after all others. Has the demo model, and the model sets."""


@dataclass(frozen=True)
class ModelFile:
    """A file of a model set.

    folder: ComfyUI's name of the model folder that it belongs in (`loras`).
    repo, revision, path: where the hub has it. `revision` is a commit or a branch.
    sha256: of its content.
    """

    folder: str
    repo: str
    revision: str
    path: str
    sha256: str

    @property
    def name(self) -> str:
        """What it is called in the model folder."""
        return PurePosixPath(self.path).name


def list_model_sets(folder: Path = MODELS) -> dict[str, tuple[ModelFile, ...]]:
    """The files of each model set, by its name."""
    import yaml

    return {
        path.stem: tuple(ModelFile(**entry) for entry in yaml.safe_load(path.read_text(encoding="utf-8")))
        for path in sorted(folder.glob("*.yaml"))
    }


def find_model_set(folder: str, name: str) -> str | None:
    """The name of the model set that has a file for a model folder, if one does."""
    sets = list_model_sets().items()
    return next((one for one, files in sets if any((file.folder, file.name) == (folder, name) for file in files)), None)
