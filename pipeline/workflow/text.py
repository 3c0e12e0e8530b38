"""Change texts as the GUI does when it makes a prompt: dynamic prompts, and placeholders in names of files."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from pipeline.workflow.live import LiveNode

COMMENT = re.compile(r"/\*[\s\S]*?\*/|//[^\n\r\u2028\u2029]*")
ESCAPED = re.compile(r"\\([{}|])")
SAVERS = frozenset(
    {
        *("SaveImage", "SaveImageAdvanced", "SaveAnimatedPNG", "SaveAnimatedWEBP", "SaveSVGNode", "SaveLatent"),
        *("SaveVideo", "SaveWEBM", "SaveAudio", "SaveAudioAdvanced", "SaveAudioMP3", "SaveAudioOpus"),
        *("SaveGLB", "Save3DAdvanced", "SaveGaussianSplat", "SavePointCloud"),
        *("CLIPSave", "LoraSave", "ModelSave", "VAESave"),
    }
)
"""The node classes whose names of files can have placeholders that the GUI replaces."""

PLACEHOLDER = re.compile(r"%([^%]+)%")
NOT_IN_FILE_NAMES = re.compile(r"[/?<>\\:*|\"\x00-\x1f\x7f]")
DATE_PART = re.compile(r"dd?|MM?|hh?|mm?|ss?|yyyy|yyy?")

Choose = Callable[[Sequence[str]], str]


def pick_choices(text: str, choose: Choose = random.choice) -> str:
    r"""Return a text without comments and with each `{a|b}` replaced by one of its choices, nested ones as well.

    The rule is that of the front end's processDynamicPrompt. A brace or bar after a backslash is taken literally.

    Example:
        pick_choices(r"a {red|blue} \{box\} // note", lambda choices: choices[0])  # "a red {box} "
    """
    text, result, position = COMMENT.sub("", text), "", 0
    while position < len(text):
        char = text[position]
        if char == "\\":
            result += text[position : position + 2]
            position += 2
        elif char == "{":
            choices, position = _read_choices(text, position + 1)
            result += pick_choices(choose(choices), choose)
        else:
            result += char
            position += 1
    return ESCAPED.sub(r"\1", result)


def _read_choices(text: str, position: int) -> tuple[list[str], int]:
    """Return the choices of a block whose content begins at `position`, and the position after the block."""
    choices, depth = [""], 0
    while position < len(text):
        char, position = text[position], position + 1
        if char == "\\":
            choices[-1] += char + text[position : position + 1]
            position += 1
            continue
        if char == "}" and not depth:
            break
        if char == "|" and not depth:
            choices.append("")
            continue
        depth += {"{": 1, "}": -1}.get(char, 0)
        choices[-1] += char
    return choices, position


def fill_placeholders(text: str, nodes: Sequence[LiveNode], now: datetime) -> str:
    """Replace `%Node.widget%` by a widget's value and `%date:yyyy-MM-dd%` by the date; leave others as they are.

    A node is found by its property "Node name for S&R", which is its class_type by default, or else by its title. The
    rule is that of the front end's applyTextReplacements.
    """
    return PLACEHOLDER.sub(lambda match: _fill_placeholder(match, nodes, now), text)


def _fill_placeholder(match: re.Match[str], nodes: Sequence[LiveNode], now: datetime) -> str:
    parts = match[1].split(".")
    if len(parts) != 2:
        return _format_date(parts[0][5:], now) if parts[0].startswith("date:") else match[0]
    matches = [node for node in nodes if _read_search_name(node) == parts[0]]
    found = matches or [node for node in nodes if node.title == parts[0]]
    widget = found[0].find_widget(parts[1]) if found else None
    return match[0] if widget is None else NOT_IN_FILE_NAMES.sub("_", _format_value(widget.value))


def _read_search_name(node: LiveNode) -> Any:
    default = node.type if node.definition and node.type not in SAVERS else None
    return (node.saved.get("properties") or {}).get("Node name for S&R", default)


def _format_value(value: Any) -> str:
    """Return a value as text in the form in which JavaScript writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value)


def _format_date(text: str, now: datetime) -> str:
    values = {"d": now.day, "M": now.month, "h": now.hour, "m": now.minute, "s": now.second}

    def write(match: re.Match[str]) -> str:
        part = match[0]
        if part[0] == "y":
            return {"yy": f"{now.year % 100:02d}", "yyyy": str(now.year)}.get(part, part)
        return str(values[part[0]]).zfill(len(part))

    return DATE_PART.sub(write, text)
