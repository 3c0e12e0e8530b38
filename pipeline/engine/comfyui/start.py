"""Start ComfyUI inside this process: its options, its import, its folders.

ComfyUI's main.py itself is never imported, because it takes over argv, logging and signals. The order here is that of
main.py, because much is read at import: options and environment first, then torch, then ComfyUI's modules.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline.engine.comfyui.locate import Installation, find_comfyui
from pipeline.engine.comfyui.node_code import read_core
from pipeline.engine.comfyui.server_stand_in import install_server_stand_in
from pipeline.engine.comfyui.settings import ComfyUISettings
from pipeline.errors import ComfyUIError, ConfigError, Problem, did_you_mean
from pipeline.models.sets import MODEL_FOLDERS

log = logging.getLogger(__name__)

# Options of ComfyUI that only its main.py or its server read, and what to use instead.
NOT_HERE = {
    "cuda_device": "Use comfyui.device=cuda:N",
    "default_device": "Use comfyui.device=cuda:N",
    "cpu": "Use comfyui.device=cpu",
    "output_directory": "Savers write into the output folder of the run",
    "input_directory": "Give full paths",
    "extra_model_paths_config": "Use comfyui.models, or an extra_model_paths.yaml in ComfyUI's folder",
    "models_directory": "Use comfyui.models",
    "base_directory": "Use comfyui.models and comfyui.custom_nodes",
    "disable_all_custom_nodes": "Packs are imported only if a graph needs them",
    "cache_classic": "latentgrid has a cache of its own",
    "cache_lru": "latentgrid has a cache of its own",
    "cache_none": "latentgrid has a cache of its own",
    "cache_ram": "latentgrid has a cache of its own",
    "listen": "There is no server",
    "port": "There is no server",
}


@dataclass(frozen=True)
class ComfyUI:
    """The ComfyUI that runs in this process, with the modules that the engine calls."""

    installation: Installation
    settings: ComfyUISettings
    nodes: ModuleType
    execution: ModuleType
    folder_paths: ModuleType
    model_management: ModuleType
    dynamic_vram: bool
    server: Any  # PromptServer.instance

    @property
    def model_folders(self) -> dict[str, list[str]]:
        """The folders searched for models, by ComfyUI's names for them (`loras`, `diffusion_models`, ...)."""
        return {name: list(paths) for name, (paths, _) in self.folder_paths.folder_names_and_paths.items()}

    @property
    def device(self) -> str:
        """The device that ComfyUI computes on, as torch names it."""
        return str(self.model_management.get_torch_device())


_running: ComfyUI | None = None


def start_comfyui(settings: ComfyUISettings) -> ComfyUI:
    """Start ComfyUI, or return the one that runs already.

    Raises ComfyUIError if it cannot be started or runs with other settings, ConfigError for wrong settings.

    Example: `start_comfyui(ComfyUISettings(device="cpu"))`.
    """
    global _running
    if _running is None:
        _running = _start(settings)
    elif _running.settings != settings:
        raise ComfyUIError(_explain_change(_running.settings, settings))
    return _running


def _explain_change(before: ComfyUISettings, after: ComfyUISettings) -> str:
    changed = [name for name in vars(after) if getattr(before, name) != getattr(after, name)]
    diffs = ", ".join(f"{name} was {getattr(before, name)!r}, now {getattr(after, name)!r}" for name in changed)
    return f"comfyui: one process runs one ComfyUI, and it was started with other settings ({diffs}). Use a new process"


def _start(settings: ComfyUISettings) -> ComfyUI:
    installation = find_comfyui(settings.path, settings.version)
    log.info("ComfyUI %s (%s): %s", installation.version, installation.source, installation.path)
    _check_module_names(installation.path)
    sys.path.insert(0, str(installation.path))
    # In parallel to the imports, which take seconds, because all records need the hash of the core.
    threading.Thread(target=read_core, args=(installation.path,), name="latentgrid-core", daemon=True).start()
    with _root_logger_unchanged():
        try:
            return _import_comfyui(installation, settings)
        except ImportError as error:
            message = f"ComfyUI {installation.version} cannot be imported: {error}"
            raise ComfyUIError(f"{message}. Run `make setup`, or install its requirements.txt") from error
        except SystemExit as error:  # ComfyUI exits if the package of an option is missing
            message = "ComfyUI does not start with these options; what it printed says why"
            raise ComfyUIError(f"comfyui.args: {message}, got {settings.args}") from error


def _import_comfyui(installation: Installation, settings: ComfyUISettings) -> ComfyUI:
    args = _set_options(settings)
    _prepare_environment(args, settings)
    _choose_device(args, settings)
    import nodes

    install_server_stand_in()
    dynamic_vram = _enable_dynamic_vram(args)
    import comfy.model_management
    import comfy.utils
    import execution
    import folder_paths

    comfy.utils.set_progress_bar_enabled(False)  # the samplers' own bars, because their steps become events
    comfy.utils.PROGRESS_THROTTLE_MIN_INTERVAL = 0  # an event for every step, not one each tenth of a second
    comfy.utils.PROGRESS_THROTTLE_MIN_PERCENT = 0
    _add_model_folders(folder_paths, installation.path, settings.models)
    return ComfyUI(
        installation,
        settings,
        nodes,
        execution,
        folder_paths,
        comfy.model_management,
        dynamic_vram,
        sys.modules["server"].PromptServer.instance,
    )


def _check_module_names(path: Path) -> None:
    """Raise ComfyUIError if a module from elsewhere is loaded under the name of one of ComfyUI's top-level modules.

    These names are common, and the other module would be used instead.
    """
    for name in ("nodes", "execution", "folder_paths", "comfy", "utils", "app", "server", "latent_preview"):
        file = getattr(sys.modules.get(name), "__file__", None)
        if file and not Path(file).resolve().is_relative_to(path.resolve()):
            raise ComfyUIError(f"ComfyUI needs the module name {name!r}, but {file} has it. Rename that module")


@contextmanager
def _root_logger_unchanged() -> Iterator[None]:
    """Keep the root logger as it is while ComfyUI is imported.

    ComfyUI logs meanwhile, and the first log call would add a handler to a root logger without any.
    """
    placeholder = logging.NullHandler()
    logging.root.addHandler(placeholder)
    try:
        yield
    finally:
        logging.root.removeHandler(placeholder)


def _set_options(settings: ComfyUISettings) -> Any:
    """Set ComfyUI's command line options from the settings. The program's own argv is never parsed."""
    module = importlib.import_module("comfy.cli_args")
    args = module.args
    _check_options(settings.args, args)
    parsed = module.parser.parse_args(_write_argv(settings.args))
    for name in settings.args:
        setattr(args, name, getattr(parsed, name))
    args.fp16_unet = args.fp16_unet or args.force_fp16  # as cli_args.py does after parsing
    if "fast" in settings.args:
        args.fast = set(args.fast or module.PerformanceFeature)
    args.deterministic = args.deterministic or settings.reproducible
    if settings.reproducible or settings.dynamic_vram is False:
        args.disable_dynamic_vram = True
    elif settings.dynamic_vram and hasattr(args, "enable_dynamic_vram"):
        args.enable_dynamic_vram = True
    return args


def _check_options(options: dict[str, Any], args: Any) -> None:
    problems = []
    for name in options:
        where = f"comfyui.args.{name}"
        if not hasattr(args, name):
            message = f"ComfyUI has no such option{did_you_mean(name, vars(args))}"
            problems.append(Problem("unknown_input", where, message))
        elif name in NOT_HERE:
            problems.append(Problem("unknown_input", where, f"has no effect here. {NOT_HERE[name]}"))
    if problems:
        raise ConfigError(problems)


def _write_argv(options: dict[str, Any]) -> list[str]:
    """Return the options as on ComfyUI's command line, for its parser to check: `true` is a flag, a list its values."""
    argv: list[str] = []
    for name, value in options.items():
        if value is False or value is None:
            continue
        argv.append(f"--{name.replace('_', '-')}")
        argv += [] if value is True else [str(one) for one in (value if isinstance(value, list) else [value])]
    return argv


def _prepare_environment(args: Any, settings: ComfyUISettings) -> None:
    """Set the GPU's index, cuBLAS, dynamic VRAM and the CUDA allocator, as main.py does before it imports torch."""
    if args.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if index := re.fullmatch(r"cuda:(\d+)", settings.device):
        _show_one_gpu(int(index[1]))
    elif settings.device == "cpu":
        args.cpu = True
    if not args.cpu:
        _init_aimdo(args)
        importlib.import_module("cuda_malloc")


def _show_one_gpu(index: int) -> None:
    """Let torch see only the GPU with that index among those that are visible, which a scheduler may have chosen."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        message = "cannot be chosen any more, because torch uses CUDA already in this process. Use a new process"
        raise ComfyUIError(f"comfyui.device: {message}, got 'cuda:{index}'")
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        visible = [one for one in os.environ.get(name, "").split(",") if one]
        os.environ[name] = visible[index] if index < len(visible) else str(index)


def _init_aimdo(args: Any) -> None:
    if not importlib.import_module("comfy.cli_args").enables_dynamic_vram():
        return
    control = importlib.import_module("comfy_aimdo.control")
    headroom = None if args.reserve_vram is None else int(args.reserve_vram * 1024**3)
    try:
        control.init(simple_vram_headroom=headroom, nvml_pressure=not getattr(args, "disable_nvml_pressure", True))
    except TypeError:  # comfy-aimdo before 0.4.11 takes fewer arguments
        control.init()


def _choose_device(args: Any, settings: ComfyUISettings) -> None:
    """Set `args.cpu` if there is no accelerator, before comfy.model_management asks torch for one.

    Raises ConfigError for settings that need a GPU.
    """
    import torch

    if not args.cpu and not torch.accelerator.is_available():
        args.cpu = True
    if args.cpu and settings.dynamic_vram:
        message = "needs a GPU, got true. Leave it null"
        raise ConfigError([Problem("value_not_in_list", "comfyui.dynamic_vram", message)])
    if args.cpu and settings.device.startswith("cuda"):
        message = f"torch sees no such GPU, got {settings.device!r}. Use auto or cpu"
        raise ConfigError([Problem("value_not_in_list", "comfyui.device", message)])


def _enable_dynamic_vram(args: Any) -> bool:
    """Enable dynamic VRAM as main.py does after the imports; return whether it is on."""
    management = importlib.import_module("comfy.model_management")
    requested = importlib.import_module("comfy.cli_args").enables_dynamic_vram()
    forced = getattr(args, "enable_dynamic_vram", False)
    if not forced and not (requested and management.is_nvidia() and not management.is_wsl()):
        return False
    if not _init_aimdo_devices(args, management):
        log.warning("comfyui.dynamic_vram: comfy-aimdo does not work here, so ComfyUI runs without dynamic VRAM")
        return False
    patcher: Any = importlib.import_module("comfy.model_patcher")
    patcher.CoreModelPatcher = patcher.ModelPatcherDynamic
    memory: Any = importlib.import_module("comfy.memory_management")
    memory.aimdo_enabled = True
    return True


def _init_aimdo_devices(args: Any, management: ModuleType) -> bool:
    control = importlib.import_module("comfy_aimdo.control")
    if not hasattr(management, "get_all_torch_devices"):  # ComfyUI before 0.24 uses one GPU
        return bool(control.init_device(management.get_torch_device().index))
    headroom = int(getattr(args, "vram_headroom", 0) * 1024**3)
    devices = [device.index for device in management.get_all_torch_devices()]
    try:
        started = control.init_devices((index, headroom) for index in devices)
    except TypeError:  # comfy-aimdo before 0.4.10 takes indices only
        started = control.init_devices(iter(devices))
    return bool(started)


def _add_model_folders(folder_paths: ModuleType, comfyui: Path, folders: list[str]) -> None:
    """Add the config's model folders before ComfyUI's, then those of its extra_model_paths.yaml, then the project's."""
    for folder in reversed(folders):
        add_model_folder(folder_paths, Path(folder).expanduser().resolve(), first=True)
    extra = comfyui / "extra_model_paths.yaml"
    if extra.is_file():
        importlib.import_module("utils.extra_config").load_extra_path_config(str(extra))
    for models in MODEL_FOLDERS:
        add_model_folder(folder_paths, models, first=False)


def add_model_folder(folder_paths: ModuleType, root: Path, first: bool) -> None:
    """Search `root`, laid out like ComfyUI's models/, before or after the folders known so far. Idempotent."""
    for name, (paths, _) in list(folder_paths.folder_names_and_paths.items()):
        own = [Path(path) for path in paths if Path(path).is_relative_to(folder_paths.models_dir)]
        for path in reversed(own) if first else own:
            added = str(root / path.relative_to(folder_paths.models_dir))
            folder_paths.add_model_folder_path(name, added, is_default=first)
