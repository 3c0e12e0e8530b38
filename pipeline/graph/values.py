"""Convert constants to the type of the widget that they fill, and check their range and choices.

The conversion is ComfyUI's, except that it refuses values from which ComfyUI silently loses a part (8.7 for an INT).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from pipeline.errors import Problem, did_you_mean
from pipeline.graph.signature import COMBO, InputSpec
from pipeline.models.sets import find_model_set


def check_value(
    where: str, class_type: str, spec: InputSpec, value: Any, judged_by_class: bool = False
) -> tuple[Any, Problem | None]:
    """Return a constant converted for `spec`, and the problem with it or None.

    `judged_by_class` says that the class's own VALIDATE_INPUTS takes this input; range and choices are then not
    checked, as in ComfyUI.

    Example:
        check_value("sampler.steps", "KSampler", InputSpec("steps", "INT"), "4")  # (4, None)
    """
    if not spec.takes_constant and not isinstance(value, list | dict):
        message = f"needs a link to a {spec.type}, got {value!r}. Link it: {where}=[NODE,{spec.type}]"
        return value, Problem("invalid_input_type", where, message)
    try:
        value = convert(spec.type, value)
    except ValueError as error:
        return value, Problem("invalid_input_type", where, f"{error}, got {value!r}")
    if judged_by_class:
        return value, None
    return value, _find_range_fault(where, spec, value) or _find_choice_fault(where, class_type, spec, value)


def convert(kind: str, value: Any) -> Any:
    """Return a constant converted to INT, FLOAT, STRING or BOOLEAN, unchanged for other types. Raises ValueError."""
    return CONVERTERS[kind](value) if kind in CONVERTERS else value


def _to_int(value: Any) -> int:
    if not isinstance(value, bool) and not (isinstance(value, float) and not value.is_integer()):
        try:
            return int(value)
        except (TypeError, ValueError):
            pass
    raise ValueError("must be a whole number")


def _to_float(value: Any) -> float:
    try:
        number = None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = None
    except OverflowError:
        number = math.inf
    if number is None:
        raise ValueError("must be a number")
    if isinstance(value, int) and number != value:
        raise ValueError("must be a number that a float can hold")
    if not math.isfinite(number):
        raise ValueError("must be finite")
    return number


def _to_bool(value: Any) -> bool:
    if value in (0, 1):
        return bool(value)
    raise ValueError("must be true or false")


CONVERTERS: dict[str, Callable[[Any], Any]] = {"INT": _to_int, "FLOAT": _to_float, "STRING": str, "BOOLEAN": _to_bool}


def _find_range_fault(where: str, spec: InputSpec, value: Any) -> Problem | None:
    low, high = spec.options.get("min"), spec.options.get("max")
    if spec.type not in ("INT", "FLOAT"):
        return None
    if low is not None and value < low:
        return Problem("value_smaller_than_min", where, f"must be at least {low}, got {value}")
    if high is not None and value > high:
        return Problem("value_bigger_than_max", where, f"must be at most {high}, got {value}")
    return None


def _find_choice_fault(where: str, class_type: str, spec: InputSpec, value: Any) -> Problem | None:
    if spec.type != COMBO or spec.choices is None:
        return None
    is_multiple = spec.options.get("multiselect") and isinstance(value, list)
    invalid = [one for one in (value if is_multiple else [value]) if one not in spec.choices]
    if not invalid:
        return None
    shown = ", ".join(map(repr, invalid))
    near = did_you_mean(invalid[0], spec.choices)
    if spec.folder and (name := find_model_set(spec.folder, str(invalid[0]))):
        message = f"{shown} is not in models/{spec.folder}. Fetch it: python -m pipeline models fetch {name}"
    elif spec.folder:
        message = f"{shown} is not in models/{spec.folder}{near or _list_files(spec)}"
    else:
        message = f"{shown} is not a {spec.name} of {class_type}{near or _list_choices(spec.choices)}"
    return Problem("value_not_in_list", where, message)


def _list_files(spec: InputSpec) -> str:
    choices_text = _list_choices(spec.choices) if spec.choices else ", which holds no file"
    return f"{choices_text}. Put the file there, or name your models folder: comfyui.models=[FOLDER]"


def _list_choices(choices: Sequence[Any]) -> str:
    more = f" and {len(choices) - 12} more" if len(choices) > 12 else ""
    return f". Choose from {', '.join(map(str, choices[:12]))}{more}"
