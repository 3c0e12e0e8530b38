"""One KSampler run for several seeds in one call: the latent is repeated, and each seed gets its own noise."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pipeline.engine.comfyui.returns import is_blocked

BATCHED_CLASS = "KSampler"

WITHOUT_NOISE = frozenset(
    (
        "euler",
        "euler_cfg_pp",
        "heun",
        "heunpp2",
        "exp_heun_2_x0",
        "dpm_2",
        "lms",
        "dpmpp_2m",
        "dpmpp_2m_cfg_pp",
        "ipndm",
        "ipndm_v",
        "deis",
        "res_multistep",
        "res_multistep_cfg_pp",
        "gradient_estimation",
        "gradient_estimation_cfg_pp",
        "uni_pc",
        "uni_pc_bh2",
    )
)
"""The values of `sampler_name` that draw no noise while they step and take the same steps for every latent.

All others (ancestral, SDE, lcm, ddpm, seeds_*, er_sde, sa_solver; dpm_adaptive, whose steps depend on the whole batch;
ddim, which draws noise where there is a mask) would give a batch one stream of noise, and so other pictures.
"""


@dataclass(frozen=True)
class SeedBatch:
    """The seeds that a KSampler runs for in one call, in the order of the batch.

    node: the name of the KSampler; seeds: by the content key that the node has with each seed.
    """

    node: str
    seeds: Mapping[str, int]

    def describe(self) -> str:
        """`sampler takes the seeds 1, 2, 3 at once`"""
        return f"{self.node} takes the seeds {', '.join(map(str, self.seeds.values()))} at once"

    def list_tags(self, seed: int) -> dict[str, str]:
        """What the record of the run with `seed` says of the batch; positions count from 0."""
        seeds = list(self.seeds.values())
        return {"batch.node": self.node, "batch.seeds": json.dumps(seeds), "batch.position": str(seeds.index(seed))}

    def repeat(self, latents: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Latents for the call: `samples` [batch, ...] become [seeds * batch, ...], seed by seed.

        ComfyUI repeats a mask and conditionings itself. Raises TypeError for samples that are no single tensor.
        """
        return [_change_samples(latent, lambda samples: _repeat(samples, len(self.seeds))) for latent in latents]

    @contextmanager
    def noise_prepared(self) -> Iterator[None]:
        """While this lasts, `comfy.sample.prepare_noise` gives each part of a repeated latent the noise of its seed."""
        import comfy.sample
        import torch

        module: Any = comfy.sample
        prepare = module.prepare_noise

        def prepare_each(latent: Any, seed: int, noise_inds: Any = None) -> Any:
            alone = latent[: len(latent) // len(self.seeds)]
            return torch.cat([prepare(alone, one, noise_inds) for one in self.seeds.values()])

        module.prepare_noise = prepare_each
        try:
            yield
        finally:
            module.prepare_noise = prepare

    def split(self, outputs: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, list[list[dict[str, Any]]]]:
        """The outputs of the call (slots of lists of latents) for each seed, by content key."""

        def cut(place: int, latent: Any) -> Any:
            # A copy: a view would hold the whole batch as long as one of its parts is held.
            return _change_samples(latent, lambda samples: samples.chunk(len(self.seeds))[place].clone())

        return {key: [[cut(place, one) for one in slot] for slot in outputs] for place, key in enumerate(self.seeds)}


def _change_samples(latent: Any, change: Callable[[Any], Any]) -> Any:
    return latent if is_blocked(latent) else {**latent, "samples": change(latent["samples"])}


def _repeat(samples: Any, count: int) -> Any:
    import torch

    if not isinstance(samples, torch.Tensor):
        message = f"a {type(samples).__name__} of latents cannot be sampled in a seed batch. Set run.batch_seeds=1"
        raise TypeError(message)
    return samples.repeat(count, *(1 for _ in samples.shape[1:]))
