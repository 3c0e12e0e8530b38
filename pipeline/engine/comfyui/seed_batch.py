"""Call one KSampler for several seeds at once: the latent is repeated, and each seed gets its own noise."""

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
ddim, which draws noise where there is a mask) would draw one stream of noise for a batch, and so give other pictures.
"""

MODELS_APART = frozenset(
    (
        "APG",
        "CFGNorm",
        "CFGZeroStar",
        "CheckpointLoaderSimple",
        "FreSca",
        "LoraLoader",
        "LoraLoaderModelOnly",
        "ModelSamplingAuraFlow",
        "ModelSamplingFlux",
        "ModelSamplingSD3",
        "RescaleCFG",
        "TCFG",
        "UNETLoader",
    )
)
"""The nodes whose models treat each latent of a batch by itself.

The models of others may look at the whole batch, as those of Mahiro, EasyCache and LazyCache do, and would give other
pictures.
"""


@dataclass(frozen=True)
class SeedBatch:
    """The seeds that a KSampler runs for in one call, in the order of the batch.

    node: the name of the KSampler.
    seeds: the seeds by the content key that the node has with each.

    Example: `SeedBatch("sampler", {key_of_1: 1, key_of_2: 2})`.
    """

    node: str
    seeds: Mapping[str, int]

    def describe(self) -> str:
        """Return a text for people, such as `sampler takes the seeds 1, 2, 3 at once`."""
        return f"{self.node} takes the seeds {', '.join(map(str, self.seeds.values()))} at once"

    def list_tags(self, seed: int) -> dict[str, str]:
        """Return the tags of the batch for the record of the run with `seed`; positions count from 0."""
        seeds = list(self.seeds.values())
        return {"batch.node": self.node, "batch.seeds": json.dumps(seeds), "batch.position": str(seeds.index(seed))}

    def find_obstacle(self, values: Mapping[str, Sequence[Any]]) -> str | None:
        """Return why the KSampler cannot sample several seeds at once with these inputs (lists of values), or None.

        ComfyUI fits conditionings, masks and hints to the size of the batch by cutting or repeating them. A seed gets
        the same in a batch as alone only if all of them have one entry.
        """
        for name in ("latent_image", "positive", "negative"):
            if where := _find_unbatchable(values.get(name, []), name):
                return where
        return None

    def repeat(self, latents: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return latents whose `samples` [1, ...] are repeated to [seeds, ...]; ComfyUI repeats masks by itself."""
        return [_change_samples(latent, lambda samples: _repeat(samples, len(self.seeds))) for latent in latents]

    @contextmanager
    def noise_prepared(self) -> Iterator[None]:
        """Let `comfy.sample.prepare_noise` give each part of a repeated latent the noise of its own seed.

        This holds while the context lasts.
        """
        import comfy.sample
        import torch

        module: Any = comfy.sample
        prepare = module.prepare_noise

        def prepare_each(latent: Any, seed: int, noise_inds: Any = None) -> Any:
            single = latent[: len(latent) // len(self.seeds)]
            return torch.cat([prepare(single, one, noise_inds) for one in self.seeds.values()])

        module.prepare_noise = prepare_each
        try:
            yield
        finally:
            module.prepare_noise = prepare

    def split(self, outputs: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, list[list[dict[str, Any]]]]:
        """Split the outputs of the call (slots of lists of latents) by seed; return those of each by content key."""

        def cut(place: int, latent: Any) -> Any:
            # A copy, because a view would keep the whole batch in memory as long as one of its parts is retained.
            return _change_samples(latent, lambda samples: samples.chunk(len(self.seeds))[place].clone())

        return {key: [[cut(place, one) for one in slot] for slot in outputs] for place, key in enumerate(self.seeds)}


def _change_samples(latent: Any, change: Callable[[Any], Any]) -> Any:
    return latent if is_blocked(latent) else {**latent, "samples": change(latent["samples"])}


def _repeat(samples: Any, count: int) -> Any:
    return samples.repeat(count, *(1 for _ in samples.shape[1:]))


def _find_unbatchable(value: Any, where: str) -> str | None:
    """Return where a value has a tensor of several entries or something that is neither a tensor nor plain data."""
    import torch

    if isinstance(value, torch.Tensor):
        return None if value.ndim == 0 or len(value) == 1 else f"{where} has {len(value)} entries"
    if isinstance(value, Mapping):
        found = (_find_unbatchable(one, f"{where}.{key}") for key, one in value.items())
        return next((one for one in found if one), None)
    if isinstance(value, list | tuple):
        return next((one for one in (_find_unbatchable(entry, where) for entry in value) if one), None)
    if is_blocked(value) or isinstance(value, str | int | float | None):
        return None
    return f"{where} has a {type(value).__name__}"
