"""ComfyUI nodes that load precomputed conditionings and latents from files, or encode captions of the demo model.

The files are checked before any model is loaded. The pack needs nothing but ComfyUI itself. To have it in the ComfyUI
GUI as well, name the folder *above* this one in ComfyUI's ``extra_model_paths.yaml`` (beside its ``main.py``) and start
ComfyUI again::

    latentgrid:
      custom_nodes: /path/to/latentgrid/nodes

A relative path starts at the folder of the YAML file. ComfyUI then loads every sub-folder and every ``.py`` file of
``nodes``. A folder without ``__init__.py`` only causes a warning in its log, and other files are ignored. The nodes are
in the menu under "latentgrid".
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
