"""Write the outputs of a run, each separately: if one cannot be written or drawn, the others still are."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.errors import OutputError, PipelineError, TrackingError
from pipeline.graph.check import CheckedGraph
from pipeline.latents.reference import Reference
from pipeline.record.recorder import Recorder

if TYPE_CHECKING:
    import torch

    from pipeline.engine.executor import Execution

log = logging.getLogger(__name__)

SHOWN_TYPES = frozenset({"LATENT", "IMAGE"})


@dataclass
class Keeper:
    """Writes the latents of a run, and all that is derived from them, with `recorder`.

    latents: the latents so far, on the CPU, by node. A nested latent (LTXVConcatAVLatent) is split into its parts,
        `av.1` and `av.2`.

    Example:
        keeper = Keeper(recorder)
        keeper.keep(execution, checked)
        keeper.latents["sampler"].shape
    """

    recorder: Recorder
    reference: Reference | None = None
    save_pt: bool = False
    latents: dict[str, torch.Tensor] = field(default_factory=dict)
    _lost: dict[str, str] = field(default_factory=dict)
    _errors: list[PipelineError] = field(default_factory=list)

    def keep(self, execution: Execution, checked: CheckedGraph) -> None:
        """Write the first LATENT of each target.

        Log the targets of which nothing is written, and log and mark values that are not finite and outputs that could
        not be written. After all outputs were tried, raises OutputError if the system refused one or no latent could be
        written at all, and TrackingError.
        """
        from pipeline.engine.comfyui.call import is_blocked

        for name, outputs in execution.outputs.items():
            signature = checked.signatures[name]
            slots = [
                (spec.type, [value for value in values if not is_blocked(value)])
                for spec, values in zip(signature.outputs, outputs.outputs, strict=False)
            ]
            latents = [values[0] for kind, values in slots if kind == "LATENT" and values]
            if not latents and not signature.is_output_node:
                log.warning("%s gives no LATENT, so no file is written of it; a SaveImage node, say, writes one", name)
            if latents:
                self._keep_parts(name, latents[0], outputs.latent_format)
            with self._warning(name, "values cannot be looked at"):
                self._check_values(name, [value for kind, values in slots if kind in SHOWN_TYPES for value in values])
        for name, text in execution.facts.items():
            if name.startswith("lora_unfit."):
                self._mark_loras(name.partition(".")[2], text)
        with self._noting_loss("files that nodes wrote"):
            self.recorder.keep_others()
        self._raise_errors()

    def _raise_errors(self) -> None:
        if self._lost:
            self.recorder.mark("not_kept", self._lost)
        if self._errors:
            raise next((one for one in self._errors if isinstance(one, OutputError)), self._errors[0])
        if self._lost and not self.latents:
            name, reason = next(iter(self._lost.items()))
            raise OutputError(f"{name}: cannot be kept: {reason}")

    def _keep_parts(self, name: str, latent: Any, latent_format: Any) -> None:
        parts: list[Any] = []
        with self._noting_loss(name):
            samples = latent["samples"]
            parts = list(samples.unbind()) if getattr(samples, "is_nested", False) else [samples]
        for place, part in enumerate(parts, 1):
            self._keep_latent(f"{name}.{place}" if len(parts) > 1 else name, part, latent_format)

    def _keep_latent(self, name: str, part: torch.Tensor, latent_format: Any) -> None:
        """Write the latent first: what is drawn or measured can be made again from it."""
        from pipeline.engine.comfyui.preview import draw_latent

        recorder = self.recorder
        with self._noting_loss(name):
            # A copy made outside inference mode is an ordinary tensor, free to be used and changed.
            samples = part.detach().cpu().clone()
            try:
                recorder.keep_latent(name, samples)
            except TrackingError as error:  # the file is written already
                self._errors.append(error)
            self.latents[name] = samples
        if name not in self.latents:
            return
        if self.save_pt:
            with self._noting_loss(f"{name}.pt"):
                recorder.keep_pt(name, samples)
        with self._warning(name, "no picture can be drawn of it"):
            picture = draw_latent(samples, latent_format)
            if picture is not None:
                recorder.keep_picture(name, picture)
        with self._warning(name, "its statistics cannot be measured"):
            recorder.keep_statistics(name, samples)
        with self._warning(name, "its distance to run.reference cannot be measured"):
            recorder.keep_distances(name, self.reference.measure(name, samples) if self.reference else {})

    def _check_values(self, name: str, values: Sequence[Any]) -> None:
        share = measure_not_finite(values)
        if share:
            log.warning("%s: %.4g %% of its values are NaN or infinite", name, 100 * share)
            self.recorder.mark("not_finite", {name: f"{100 * share:.4g} %"})
            self.recorder.measure(f"not_finite/{name}", share)

    def _mark_loras(self, name: str, text: str) -> None:
        found = re.match(r"(\d+) of (\d+) ", text)
        assert found, "see LoraKeys.describe"
        self.recorder.mark("lora_unfit", {name: text})
        self.recorder.measure(f"lora_unfit/{name}", min(1.0, int(found[1]) / max(1, int(found[2]))))

    @contextmanager
    def _noting_loss(self, name: str) -> Iterator[None]:
        """Note the error of what must not be lost silently, and go on."""
        try:
            yield
        except PipelineError as error:
            self._errors.append(error)
            log.error("%s: %s", name, error)
        except Exception as error:  # noqa: BLE001 (an unexpected kind of tensor)
            self._lost[name] = f"{type(error).__name__}: {error}"
            log.warning("%s: cannot be kept: %s", name, self._lost[name])

    @contextmanager
    def _warning(self, name: str, what: str) -> Iterator[None]:
        """Log the error of what can be made again from the latent, and go on."""
        try:
            yield
        except PipelineError as error:
            self._errors.append(error)
            log.error("%s: %s", name, error)
        except Exception as error:  # noqa: BLE001
            log.warning("%s: %s: %s: %s", name, what, type(error).__name__, error)


def measure_not_finite(values: Sequence[Any]) -> float:
    """Return the share, 0 to 1, of elements that are NaN or infinite.

    `values` are latents (`{"samples": tensor}`) and images (tensors).
    """
    import torch

    wrong = total = 0
    for value in values:
        samples: Any = value.get("samples") if isinstance(value, dict) else value
        for part in samples.unbind() if getattr(samples, "is_nested", False) else [samples]:
            if isinstance(part, torch.Tensor):
                finite = part if part.dtype.itemsize > 1 or not part.is_floating_point() else part.float()  # a float8
                wrong += part.numel() - int(finite.isfinite().sum())
                total += part.numel()
    return wrong / total if total else 0.0
