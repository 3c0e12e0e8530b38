"""What shared/comfy_suite needs to run ComfyUI's own execution tests against our session (EXECUTOR)."""

from __future__ import annotations

import os
from pathlib import Path

from comfy_suite_contract import NodeError, Result, ValidationError

from pipeline.engine.comfyui.settings import ComfyUISettings
from pipeline.engine.comfyui.start import start_comfyui
from pipeline.engine.session import Session
from pipeline.errors import NodeError as OurNodeError
from pipeline.errors import PromptError, RunInterrupted

COMFYUI = Path(os.environ["COMFYUI_PATH"])
TESTING_PACK = COMFYUI / "tests" / "execution" / "testing_nodes" / "testing-pack"

session = Session(start_comfyui(ComfyUISettings(path=str(COMFYUI), custom_nodes=[str(TESTING_PACK)])))
POLICIES = {"classic": "classic", "lru": "lru:100", "none": "none"}


def reset(mode: str) -> None:
    session.clear()
    session.use_cache(POLICIES[mode])


def run_prompt(prompt, targets=None) -> Result:
    try:
        execution = session.run(prompt, targets=targets)
    except PromptError as error:
        raise ValidationError(str(error), error.node_errors) from error
    except OurNodeError as error:
        cause = error.__cause__
        kind = "" if isinstance(error, RunInterrupted) else type(cause).__name__
        raise NodeError(error.node, str(cause), kind, error.class_type, error.executed, error.cached) from error
    return Result(execution.ui, execution.executed, execution.cached)


run_prompt.cache_modes = tuple(POLICIES)
run_prompt.reset = reset
