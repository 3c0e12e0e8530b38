"""Low-rank adapters on the demo model, which are trained in place and have the names that LoraLoaderModelOnly reads."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import parametrize


class LowRankUpdate(nn.Module):
    """A weight [out, in] plus `up @ down`, down [rank, in] and up [out, rank] (Hu et al. 2021, arXiv:2106.09685)."""

    def __init__(self, weight: torch.Tensor, rank: int):
        """Make an adapter that changes nothing at first, as `up` is 0."""
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, weight.shape[1]) / rank**0.5)
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the adapted weight [out, in]."""
        return weight + self.up @ self.down


def add_lora(model: nn.Module, rank: int) -> None:
    """Freeze the model, and put an adapter of this rank on every linear layer of its blocks."""
    model.requires_grad_(False)
    for name, module in list(model.named_modules()):
        if name.startswith("blocks.") and isinstance(module, nn.Linear):
            parametrize.register_parametrization(module, "weight", LowRankUpdate(module.weight, rank))


def collect_lora(model: nn.Module, rank: int) -> dict[str, torch.Tensor]:
    """Return the weights of the adapters by ComfyUI's names. Its strength of 1 means alpha / rank = 1."""
    weights: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, LowRankUpdate):
            layer = f"diffusion_model.{name.removesuffix('.parametrizations.weight.0')}"
            weights |= {
                f"{layer}.lora_down.weight": module.down,
                f"{layer}.lora_up.weight": module.up,
                f"{layer}.alpha": torch.tensor(float(rank)),
            }
    return weights
