"""The reference that results are compared with: the latents of a recorded run, or of a file."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.base.tensor_digest import digest_tensors
from pipeline.errors import ConfigError, Problem, RecordError
from pipeline.latents.distance import SUFFIXES, measure_distance, read_latent
from pipeline.record.provenance import RecordedRun
from pipeline.record.queries import RunStore

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

ANY = ""  # in place of the node, for a latent from a file


@dataclass(frozen=True)
class Reference:
    """Latents to compare with, by node; one under `ANY` is for every node. `name` is how a person refers to them."""

    name: str
    latents: Mapping[str, torch.Tensor]

    @property
    def digest(self) -> str:
        """The sha256 over the content of the latents."""
        digests = {node: digest_tensors(samples) for node, samples in self.latents.items()}
        return hashlib.sha256(repr(sorted(digests.items())).encode()).hexdigest()

    def measure(self, node: str, samples: torch.Tensor) -> dict[str, float]:
        """Return the finite distances of a latent of `node` from the reference.

        Return none, and log a warning, if the reference has no latent to compare with or one of another shape.
        """
        reference = self.latents.get(node, self.latents.get(ANY))
        if reference is None:
            log.warning("run.reference: %s has no latent of %s", self.name, node)
            return {}
        try:
            return measure_distance(samples, reference).list_metrics()
        except ValueError as error:
            log.warning("run.reference: %s: %s", node, error)
            return {}


def open_reference(text: str, store: RunStore | None) -> Reference:
    """Read the latents of a file, or of a recorded run by its id. Raises ConfigError."""
    try:
        if Path(text).suffix.lower() in SUFFIXES:
            return Reference(text, {ANY: read_latent(Path(text).expanduser())})
        if store is None:
            raise RecordError(
                f"{text!r} is no latent file ({', '.join(SUFFIXES)}), and without MLflow there are no runs"
            )
        with tempfile.TemporaryDirectory(prefix="latentgrid-") as folder:
            latents = read_latents(store.read(text, Path(folder)))
        if not latents:
            raise RecordError(f"run {text} has no latent")
        return Reference(text, latents)
    except RecordError as error:
        raise ConfigError([Problem("value_not_in_list", "run.reference", str(error))]) from error


def read_latents(run: RecordedRun) -> dict[str, torch.Tensor]:
    """Return the latents among the artifacts of a run, by node, read from the run's folder. Raises RecordError."""
    paths = [Path(name) for name in (run.record.artifacts if run.record else ())]
    return {path.stem: read_latent(run.folder / path) for path in paths if path.suffix == ".latent"}
