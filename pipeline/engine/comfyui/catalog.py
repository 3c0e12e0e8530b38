"""Find the class and signature of a class_type, importing only the modules that a graph needs.

ComfyUI's server imports all of its 130 node modules and every custom pack when it starts; a graph needs a few.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.engine.comfyui.node_code import find_source
from pipeline.engine.comfyui.packs import BUILT_IN, OWN_PACKS, Packs, names_class
from pipeline.engine.comfyui.start import ComfyUI
from pipeline.errors import Problem, did_you_mean
from pipeline.graph.model import Graph, Link, Node
from pipeline.graph.signature import InputSpec, Signature, read_inputs, read_outputs
from pipeline.workflow.definitions import NodeDefinition

# Modules of nodes and what must be imported before them. These two import each other, which works in one order only.
NEEDED_BEFORE = {"nodes_post_processing.py": "nodes_latent.py"}


class Catalog:
    """The node classes of a running ComfyUI. Looking up a class_type may import the module that defines it.

    Example:
        catalog = await Catalog.open(comfyui)
        await catalog.load({"KSampler"})
        catalog.classes["KSampler"]
    """

    def __init__(self, comfyui: ComfyUI):
        self._comfyui = comfyui
        self._packs = Packs(comfyui)

    @classmethod
    async def open(cls, comfyui: ComfyUI) -> Catalog:
        """Register ComfyUI's public API, which V3 nodes import, and return the catalog."""
        await comfyui.nodes.init_public_apis()
        return cls(comfyui)

    @property
    def classes(self) -> Mapping[str, type]:
        """The classes imported so far, by class_type."""
        return self._comfyui.nodes.NODE_CLASS_MAPPINGS

    async def read_signatures(self, graph: Graph, problems: list[Problem]) -> dict[str, Signature]:
        """Return the signatures by node name; append a problem for each class_type that nothing defines."""
        await self.load({node.class_type for node in graph.values()})
        known = {name: node for name, node in graph.items() if node.class_type in self.classes}
        reported = {problem.where for problem in problems}
        unknown = [node for name, node in graph.items() if name not in known and f"{name}._node_" not in reported]
        problems.extend(map(self._explain_unknown, unknown))
        return {name: self._read_signature(node) for name, node in known.items()}

    async def read_definitions(self, class_types: set[str]) -> dict[str, NodeDefinition]:
        """Return definitions by class_type, as in the server's /object_info, without those that nothing defines."""
        await self.load(class_types)
        return {name: self._read_definition(name) for name in sorted(class_types & self.classes.keys())}

    def _read_definition(self, class_type: str) -> NodeDefinition:
        cls: Any = self.classes[class_type]
        if is_v3(cls):
            info = {**cls.GET_NODE_INFO_V1(), "accept_all_inputs": getattr(cls, "ACCEPT_ALL_INPUTS", False)}
            return NodeDefinition.read(class_type, _as_json(info))
        titles = self._comfyui.nodes.NODE_DISPLAY_NAME_MAPPINGS
        declared = cls.INPUT_TYPES()
        info = {
            "input": declared,
            "accept_all_inputs": _takes_any(declared),
            "output": cls.RETURN_TYPES,
            "output_name": getattr(cls, "RETURN_NAMES", None),
            "output_is_list": getattr(cls, "OUTPUT_IS_LIST", None),
            "display_name": titles.get(class_type),
            "output_node": getattr(cls, "OUTPUT_NODE", False),
        }
        return NodeDefinition.read(class_type, _as_json(info))

    def find_code(self, class_type: str) -> Path | None:
        """Return the folder or file that was loaded for a class; None if it cannot be found out."""
        return self._packs.origins.get(class_type) or find_source(self.classes[class_type])

    def list_foreign_packs(self) -> list[Path]:
        """Return the packs imported so far that are neither ComfyUI's nor this project's."""
        return self._packs.foreign

    async def load(self, wanted: set[str]) -> None:
        """Import the modules that define the `wanted` class_types; those that nothing defines are ignored."""
        for load_more in (self._load_built_in, self._load_own, self._load_packs):
            missing = wanted - self.classes.keys()
            if missing:
                await load_more(missing)

    async def _load_built_in(self, wanted: set[str]) -> None:
        """Import ComfyUI's own modules whose text names a wanted class_type, after the modules that they need."""
        naming = {
            path.name
            for path, (_, text) in self._built_in.items()
            if any(f'"{name}"' in text or f"'{name}'" in text for name in wanted)
        }
        naming.update(before for name, before in NEEDED_BEFORE.items() if name in naming)
        for path, (parent, _) in self._built_in.items():
            if path.name in naming:
                await self._packs.load(path, parent)

    @functools.cached_property
    def _built_in(self) -> dict[Path, tuple[str, str]]:
        """Parent and text of each of ComfyUI's node modules; the modules that others need come first."""
        root = self._comfyui.installation.path
        found = {root / BUILT_IN[0] / name: BUILT_IN[0] for name in NEEDED_BEFORE.values()}
        found.update({path: parent for parent in BUILT_IN for path in sorted((root / parent).glob("nodes_*.py"))})
        return {path: (parent, path.read_text(encoding="utf-8")) for path, parent in found.items()}

    async def _load_own(self, wanted: set[str]) -> None:
        """Import this project's packs that name a wanted class_type; they need no other nodes."""
        for path in self._packs.find():
            if path.parent == OWN_PACKS and names_class(path, wanted):
                await self._packs.load(path, "custom_nodes")

    async def _load_packs(self, wanted: set[str]) -> None:
        """Import packs until no wanted class_type is missing, first the packs whose text names one.

        All of ComfyUI's own modules are imported before, because packs expect to find their classes. If nothing defines
        a class_type, all packs are imported in the end, so that the error can suggest any name.
        """
        for path, (parent, _) in self._built_in.items():
            await self._packs.load(path, parent)
        found = list(self._packs.find())
        for path in sorted(found, key=lambda path: not names_class(path, wanted)):
            if wanted <= self.classes.keys():
                return
            await self._packs.load(path, "custom_nodes")

    def _explain_unknown(self, node: Node) -> Problem:
        near = did_you_mean(node.class_type, self.classes)
        version = self._comfyui.installation.version
        message = f"{node.class_type!r} is not a node of ComfyUI {version} nor of a loaded pack"
        failed = self.explain_failures()
        hint = near or ("" if failed else ". Name the pack that has it: comfyui.custom_nodes=[FOLDER]")
        return Problem("missing_node_type", f"{node.name}._node_", message + hint + failed)

    def explain_failures(self) -> str:
        """Return which packs could not be imported and why, as the end of a message; empty if all could."""
        failures = "; ".join(f"{name} ({reason})" for name, reason in self._packs.failures.items())
        return f". Not imported: {failures}" if failures else ""

    def _read_signature(self, node: Node) -> Signature:
        cls = self.classes[node.class_type]
        with self._listed_folders() as folders:
            whole = cls.INPUT_TYPES()  # type: ignore[attr-defined]
            declared = _finalize_inputs(cls, whole, node)
        validated, validates_all = self._find_validated_inputs(cls)
        outputs = read_outputs(
            cls.RETURN_TYPES,  # type: ignore[attr-defined]
            getattr(cls, "RETURN_NAMES", None),
            getattr(cls, "OUTPUT_IS_LIST", None),
        )
        inputs = read_inputs(declared, folders)
        function = getattr(cls, cls.FUNCTION, None)  # type: ignore[attr-defined]
        return Signature(
            class_type=node.class_type,
            inputs=inputs,
            outputs=outputs,
            is_output_node=bool(getattr(cls, "OUTPUT_NODE", False)),
            checks_itself=frozenset(inputs) | validated if validates_all else validated,
            takes_any_input=bool(getattr(cls, "ACCEPT_ALL_INPUTS", False)) or _takes_any(declared),
            folders=tuple(folders),
            depends_on_name=bool(getattr(cls, "NOT_IDEMPOTENT", False)) or _asks_for_name(whole.get("hidden") or {}),
            takes_any_link=_takes_any_keyword(function),
            lazy=_find_lazy(cls, whole, inputs, node),
            is_async=inspect.iscoroutinefunction(function),
            shows_when_cached=bool(getattr(cls, "HAS_INTERMEDIATE_OUTPUT", False)),
        )

    def _find_validated_inputs(self, cls: Any) -> tuple[frozenset[str], bool]:
        """Return the inputs that the class's own validation takes, and whether it takes all of them (**kwargs)."""
        function = find_validator(cls)
        if function is None:
            return frozenset(), False
        spec = inspect.getfullargspec(function)
        return frozenset(spec.args) - {"cls", "self", "s"}, spec.varkw is not None

    @contextmanager
    def _listed_folders(self) -> Iterator[dict[str, list[str]]]:
        """Yield a mapping that records the model folders that a class lists while it declares its inputs.

        It has the files of each folder; none for a folder whose paths the class asks for, to list the files itself.
        """
        module: Any = self._comfyui.folder_paths
        listed: dict[str, list[str]] = {}
        original, original_paths = module.get_filename_list, module.get_folder_paths

        def get_filename_list(folder_name: str) -> list[str]:
            files = original(folder_name)
            listed[module.map_legacy(folder_name)] = list(files)
            return files

        def get_folder_paths(folder_name: str) -> list[str]:
            if folder_name != "custom_nodes":
                listed.setdefault(module.map_legacy(folder_name), [])
            return list(original_paths(folder_name))

        module.get_filename_list, module.get_folder_paths = get_filename_list, get_folder_paths
        try:
            yield listed
        finally:
            module.get_filename_list, module.get_folder_paths = original, original_paths


def _finalize_inputs(cls: type, declared: dict[str, Any], node: Node) -> dict[str, Any]:
    """Return the class's INPUT_TYPES, with the dynamic inputs of a V3 class as they follow from the given inputs."""
    if not is_v3(cls):
        return declared
    from comfy_api.latest import _io

    given = {name: [v.node, v.output] if isinstance(v, Link) else v for name, v in node.inputs.items()}
    return _io.get_finalized_class_inputs(declared, given)[0]


def _as_json(info: Any) -> Any:
    """Return `info` as the server sends it, with texts for enumerations."""
    return json.loads(json.dumps(info, default=str))


def _takes_any(declared: Mapping[str, Any]) -> bool:
    """Return whether a class takes any input: packs declare that by a mapping that claims to contain every name."""
    return "a name that nobody declares" in declared.get("optional", {})


def _asks_for_name(hidden: Mapping[str, Any]) -> bool:
    return "UNIQUE_ID" in hidden.values() or "unique_id" in hidden


def _takes_any_keyword(function: Any) -> bool:
    return function is not None and inspect.getfullargspec(function).varkw is not None


def _find_lazy(cls: type, declared: Mapping[str, Any], inputs: Mapping[str, InputSpec], node: Node) -> frozenset[str]:
    """Return the names of the lazy inputs.

    Those within dynamic inputs count only if the class asks for what it needs. ComfyUI always evaluates them, so that a
    class which never asks gets them too.
    """
    plain = {name for part in ("required", "optional") for name in declared.get(part, {})}
    asks = find_lazy_check(cls) is not None
    found = {name for name, spec in inputs.items() if spec.options.get("lazy") and (asks or name in plain)}
    if _takes_any(declared):
        others = {name: declared["optional"][name] for name in node.inputs if name not in plain}
        found.update(name for name, spec in others.items() if len(spec) > 1 and spec[1].get("lazy"))
    return frozenset(found)


def is_v3(cls: type) -> bool:
    """Return whether a node class is of ComfyUI's V3 generation (io.ComfyNode)."""
    from comfy_api.internal import _ComfyNodeInternal

    return issubclass(cls, _ComfyNodeInternal)


def find_validator(cls: Any) -> Any:
    """Return the class's own validation: VALIDATE_INPUTS of V1, an overridden validate_inputs of V3, or None."""
    if is_v3(cls):
        from comfy_api.internal import first_real_override

        return first_real_override(cls, "validate_inputs")
    return getattr(cls, "VALIDATE_INPUTS", None)


def find_lazy_check(cls: Any) -> Any:
    """Return the class's check_lazy_status, which says which lazy inputs it needs; of V3 an overridden one, or None."""
    if is_v3(cls):
        from comfy_api.internal import first_real_override

        return first_real_override(cls, "check_lazy_status")
    return getattr(cls, "check_lazy_status", None)
