"""The errors of the sampling stage; each is a subclass of one in pipeline/errors.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.errors import ComfyUIError, ConfigError, NodeError, OutputError, Problem, RunInterrupted


class UNETModelNotFoundError(ConfigError):
    """The model is in none of ComfyUI's folders."""


class LoRAModelNotFoundError(ConfigError):
    """The LoRA is in none of ComfyUI's folders."""


class InputTensorNotFoundError(ConfigError):
    """The file of an encoding or of the latent is missing."""


class SamplingFailedError(NodeError):
    """A node raised an error."""


class OutputDirNotWritableError(OutputError):
    """The folder or a file in it cannot be written."""


class ComfyUIInitializationError(ComfyUIError):
    """ComfyUI cannot be found, installed or started."""


def _is_missing_file(problem: Problem) -> bool:
    return problem.where.endswith(".path") and "does not exist" in problem.message


NAMED: dict[type[ConfigError], Callable[[Problem], bool]] = {
    UNETModelNotFoundError: lambda problem: (problem.code, problem.where) == ("value_not_in_list", "unet.unet_name"),
    LoRAModelNotFoundError: lambda problem: (problem.code, problem.where) == ("value_not_in_list", "lora.lora_name"),
    InputTensorNotFoundError: _is_missing_file,
}


@contextmanager
def errors_named() -> Iterator[None]:
    """Raise the errors of the `with` block as the classes above.

    An error with several problems retains them all, and gets the first class that suits one of them. Other errors are
    raised as they are.

    Example:
        with errors_named():
            run_config(config, folder)  # raises UNETModelNotFoundError instead of a ConfigError
    """
    try:
        yield
    except RunInterrupted:
        raise
    except NodeError as error:
        named = SamplingFailedError(error.node, error.class_type, error.inputs, error.reason)
        named.executed, named.cached = error.executed, error.cached
        raise named from error
    except ConfigError as error:
        for kind, is_kind in NAMED.items():
            if any(is_kind(problem) for problem in error.problems):
                raise kind(error.problems) from error
        raise
    except OutputError as error:
        raise OutputDirNotWritableError(str(error)) from error
    except ComfyUIError as error:
        raise ComfyUIInitializationError(str(error)) from error
