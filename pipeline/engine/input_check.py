"""Find mistakes in a graph from the files that it names, before a model is loaded.

The headers of models and LoRAs are compared with the shapes of tensors. Models, formats and node classes that are not
known here are passed over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, TypeAlias

from pipeline.engine.model_headers import (
    SUFFIXES,
    ModelFacts,
    ModelFileDamage,
    count_fitting,
    describe_model,
    find_page,
    read_shapes,
)
from pipeline.errors import Problem
from pipeline.graph.model import Graph, Link, Node
from pipeline.graph.signature import Signature

log = logging.getLogger(__name__)

FindModels: TypeAlias = Callable[[Node, Signature], Mapping[str, str]]
"""Returns the paths of the model files that the constants of a node name, by input; see `FileFinder`."""

DescribeTensors: TypeAlias = Callable[[Node], Any]
"""Returns what a node's class says of the tensors that it will give (`describe_tensors`); None if it says nothing."""

# ComfyUI's nodes that load a diffusion model as it is in a file, that apply a LoRA to one, and that load other models.
MODEL_LOADERS = {"UNETLoader": "unet_name", "CheckpointLoaderSimple": "ckpt_name", "CheckpointLoader": "ckpt_name"}
LORA_LOADERS = {"LoraLoaderModelOnly": "lora_name", "LoraLoader": "lora_name"}
OTHER_LOADERS = {"VAELoader", "CLIPLoader", "DualCLIPLoader", "CLIPVisionLoader", "ControlNetLoader"}

# ComfyUI's nodes that combine a model with conditionings, and the inputs of the latents that they sample.
CONDITIONED = {"KSampler", "KSamplerAdvanced", "SamplerCustom", "CFGGuider", "BasicGuider", "DualCFGGuider"}
LATENT_INPUTS = {"KSampler": "latent_image", "KSamplerAdvanced": "latent_image", "SamplerCustom": "latent_image"}


def find_input_problems(
    graph: Graph, signatures: Mapping[str, Signature], find_models: FindModels, describe_tensors: DescribeTensors
) -> list[Problem]:
    """Return the problems that the files of `graph` show; its links must be by index and past bypassed nodes.

    A LoRA that changes nothing is only logged, because ComfyUI runs it too, and keys with unknown names may still fit.
    """
    check = _Check(graph, signatures, find_models, describe_tensors)
    for node in graph.values():
        check.check_files(node)
    for node in graph.values():
        check.check_sampler(node)
    return list(dict.fromkeys(check.problems))


@dataclass
class _Check:
    """The check of one graph, with the problems found so far."""

    graph: Graph
    signatures: Mapping[str, Signature]
    find_models: FindModels
    describe_tensors: DescribeTensors
    problems: list[Problem] = field(default_factory=list)

    def add(self, where: str, message: str) -> None:
        self.problems.append(Problem("input_does_not_fit", where, message))

    def check_files(self, node: Node) -> None:
        """Report model files of a node that are no models."""
        signature = self.signatures.get(node.name)
        known = node.class_type in {*MODEL_LOADERS, *LORA_LOADERS, *OTHER_LOADERS}
        for key, path in (self.find_models(node, signature) if signature else {}).items():
            try:
                damage = find_page(path)
                if known and not damage and path.lower().endswith(SUFFIXES):
                    read_shapes(path)
            except ModelFileDamage as error:
                damage = str(error)
            except OSError:  # the node itself reports it
                continue
            if damage:
                self.problems.append(Problem("model_file_damaged", f"{node.name}.{key}", f"{path} {damage}"))

    def check_sampler(self, node: Node) -> None:
        """Compare the latent, conditionings and LoRAs of a node that samples with its model."""
        if node.class_type not in CONDITIONED or not isinstance(node.inputs.get("model"), Link):
            return
        path, loras = self._follow_model(node.inputs["model"])
        shapes = self._read(path)
        if path is None or shapes is None:
            return
        facts, model = describe_model(shapes), PurePath(path).name
        for lora in loras:
            self._check_lora(lora, facts, model)
        batch = self._check_latent(node, facts, model)
        for key, link in node.links:
            if key != "model" and self._type_of(link) == "CONDITIONING":
                self._check_conditioning(self.graph.get(link.node), facts, model, batch)

    def _check_latent(self, node: Node, facts: ModelFacts, model: str) -> int | None:
        """Check the channels of the latent; return its batch size, or None if it is not known."""
        link = node.inputs.get(LATENT_INPUTS.get(node.class_type, ""))
        source = self.graph.get(link.node) if isinstance(link, Link) else None
        found = self._describe(source)
        if source is None or not isinstance(found, Mapping):
            return None
        channels = found["shape"][1]
        # ComfyUI gives an empty latent the channels of the model (comfy.sample.fix_empty_latent_channels).
        if not found["empty"] and facts.latent_channels not in (None, channels):
            self.add(_name_file(source), f"{_name_channels(channels)}, but {model} takes {facts.latent_channels}")
        return int(found["shape"][0])

    def _check_conditioning(self, source: Node | None, facts: ModelFacts, model: str, batch: int | None) -> None:
        found = self._describe(source)
        if source is None or not isinstance(found, list):
            return
        for entry in found:
            width, where = entry["shape"][2], _name_file(source)
            if facts.text_channels not in (None, width):
                self.add(where, f"{_name_channels(width)}, but {model} takes {facts.text_channels}")
            self._check_batch(where, "the conditioning", entry["shape"][0], batch)
            for place, shape in enumerate(entry["references"]):
                name = f"reference_latents[{place}]"
                if facts.latent_channels not in (None, shape[1]):
                    self.add(where, f"{name} has {_name_channels(shape[1])}, but {model} takes {facts.latent_channels}")
                self._check_batch(where, name, shape[0], batch)

    def _check_batch(self, where: str, name: str, count: int, batch: int | None) -> None:
        """Report a batch that ComfyUI would repeat to the latent's and then cut (repeat_to_batch_size)."""
        if batch is not None and (not count or batch % count):
            self.add(where, f"{name} is a batch of {count}, but the latent is one of {batch}. Give 1 or {batch}")

    def _check_lora(self, node: Node, facts: ModelFacts, model: str) -> None:
        key = LORA_LOADERS[node.class_type]
        path = self.find_models(node, self.signatures[node.name]).get(key)
        shapes = self._read(path)
        if shapes and facts.weights and not count_fitting(shapes, facts.weights):
            name, count = PurePath(str(path)).name, len(shapes)
            message = f"none of the {count} keys of {name} fits {model} (another architecture?), so it changes nothing"
            log.warning("%s: %s", node.name, message)

    def _follow_model(self, link: Link) -> tuple[str | None, list[Node]]:
        """Return the file that a model comes from and the LoRAs on the way; None if a node on the way is not known."""
        loras: list[Node] = []
        for _ in self.graph:  # so that it ends in a cycle too
            node, signature = self.graph.get(link.node), self.signatures.get(link.node)
            if node is None or signature is None:
                return None, []
            if key := MODEL_LOADERS.get(node.class_type):
                return self.find_models(node, signature).get(key), loras
            models = [one for _, one in node.links if self._type_of(one) == "MODEL"]
            if len(models) != 1 or self._type_of(link) != "MODEL":
                return None, []
            if node.class_type in LORA_LOADERS:
                loras.append(node)
            link = models[0]
        return None, []

    def _type_of(self, link: Link) -> str | None:
        signature = self.signatures.get(link.node)
        known = signature is not None and isinstance(link.output, int)
        return signature.outputs[link.output].type if known else None  # type: ignore[union-attr,index]

    def _describe(self, source: Node | None) -> Any:
        return self.describe_tensors(source) if source is not None and not any(source.links) else None

    def _read(self, path: str | None) -> Any:
        if path is None or not path.lower().endswith(SUFFIXES):
            return None
        try:
            return read_shapes(path)
        except (ModelFileDamage, OSError):  # check_files reports it
            return None


def _name_channels(channels: int) -> str:
    return f"{channels} channel{'s' * (channels != 1)}"


def _name_file(node: Node) -> str:
    return f"{node.name}.path" if "path" in node.inputs else node.name
