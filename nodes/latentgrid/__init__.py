"""ComfyUI nodes that load precomputed conditionings and latents from files, checked before any model is loaded, and
one that encodes the captions of latentgrid's demo model.

The pack needs nothing but ComfyUI itself. To have it in the ComfyUI GUI as well, name the folder *above* this one in
ComfyUI's ``extra_model_paths.yaml`` (beside its ``main.py``) and start ComfyUI again::

    latentgrid:
      custom_nodes: /path/to/latentgrid/nodes

A relative path counts from the folder of the YAML file. ComfyUI then loads every sub-folder and every ``.py`` file of
``nodes``; a folder without ``__init__.py`` does no harm but a warning in its log, and other files are passed over. The
nodes are found in the menu under "latentgrid".
"""

from .encoder import LatentgridEncodeCaption
from .loaders import LatentgridLoadConditioning, LatentgridLoadLatent

NODE_CLASS_MAPPINGS: dict[str, type] = {
    "LatentgridEncodeCaption": LatentgridEncodeCaption,
    "LatentgridLoadConditioning": LatentgridLoadConditioning,
    "LatentgridLoadLatent": LatentgridLoadLatent,
}

NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {
    "LatentgridEncodeCaption": "Encode Caption (demo model)",
    "LatentgridLoadConditioning": "Load Conditioning (file)",
    "LatentgridLoadLatent": "Load Latent (file)",
}

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
