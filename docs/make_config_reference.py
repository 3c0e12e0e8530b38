"""Write docs/config.md, the reference of all settings, config groups and files of conf/.

    python docs/make_config_reference.py            writes docs/config.md
    python docs/make_config_reference.py --check    exits with status 1 if it is out of date

The text of a setting is its `name: text` line in the docstring of its dataclass (SECTIONS of pipeline/config/read.py),
and its default is that of the composed config. The files of the groups are quoted whole.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

sys.path.insert(0, str(Path(__file__).parents[1]))

from pipeline.base.project import ROOT
from pipeline.config.read import SECTIONS, compose_config, list_default_groups

CONF = ROOT / "conf"
PAGE = Path(__file__).with_name("config.md")

HEAD = """\
# Config reference

<!-- Written by docs/make_config_reference.py; edit the docstrings and conf/ instead. -->

The config of a run is composed from `conf/config.yaml`, one file of each chosen group, and the overrides on the
command line. In the composed config, every top-level mapping with a `_node_` is a node of the graph, every other
top-level mapping is a settings section, and the remaining top-level values, such as `seed`, are variables that nodes
can refer to.

`python run.py --cfg job` prints the composed config without running it. Any of its values can be overridden by its
dotted path: the setting `path` of the section `comfyui` is `comfyui.path`, and the input `steps` of the node `sampler`
is `sampler.steps`. Another file of a group is chosen by the name of the group (`inputs=files`).
"""

GROUPS = """\
## Groups

A group gives a node, several nodes, a settings section, or a whole experiment. `null` means that no file is chosen. An
imported workflow becomes a file of the group `graph`, which therefore has no choices at first.
"""

VARIABLES = """\
## Variables

| variable | default | |
|---|---|---|
| `seed` | `{seed}` | the seed of every node that says `seed: ${{seed}}` |
"""

TYPES = {"str": "text", "bool": "boolean", "int": "integer", "float": "number", "None": "null"}
SEVERAL = {"list[str]": "list of texts", "dict[str, Any]": "mapping"}


def make_reference() -> str:
    """Return the text of docs/config.md."""
    config = OmegaConf.to_container(compose_config(["worker=kafka"]), resolve=False)
    assert isinstance(config, dict)
    parts = [HEAD, VARIABLES.format(seed=config["seed"])]
    parts += [_describe_section(name, cls, config[name]) for name, cls in SECTIONS.items()]
    parts += [GROUPS, _list_groups(), *_quote_files()]
    return "\n".join(parts)


def _describe_section(name: str, cls: type, values: dict[str, Any]) -> str:
    summary, texts = read_docstring(cls)
    lines = [f"## {name}", "", summary, "", "| setting | type | default | |", "|---|---|---|---|"]
    for field in dataclasses.fields(cls):
        default = json.dumps(values[field.name]).strip('"')
        cells = [f"`{field.name}`", _describe_type(str(field.type)), f"`{default}`", texts.pop(field.name)]
        lines.append(f"| {' | '.join(cells)} |")
    if texts:
        raise ValueError(f"the docstring of {cls.__name__} describes what is no setting: {', '.join(texts)}")
    return "\n".join([*lines, ""])


def read_docstring(cls: type) -> tuple[str, dict[str, str]]:
    """Return the first paragraph of the docstring of a settings dataclass, and the text of each setting."""
    summary, _, rest = inspect.getdoc(cls).partition("\n\n")  # type: ignore[union-attr]
    texts: dict[str, str] = {}
    for line in re.sub(r"\n\s+", " ", rest).splitlines():  # an indented line goes on with the one before
        names, _, text = line.partition(": ")
        texts |= dict.fromkeys(names.split(", "), text)
    return summary.replace("\n", " "), texts


def _describe_type(annotation: str) -> str:
    return SEVERAL.get(annotation) or " or ".join(TYPES[one] for one in annotation.split(" | "))


def _list_groups() -> str:
    lines = ["| group | default | choices |", "|---|---|---|"]
    for group, default in list_default_groups().items():
        choices = ", ".join(f"[`{file.stem}`](#{group}{file.stem})" for file in _list_files(group))
        choices = choices or "those that `python -m pipeline import` makes"
        lines.append(f"| `{group}` | `{'null' if default is None else default}` | {choices} |")
    return "\n".join([*lines, ""])


def _list_files(group: str) -> list[Path]:
    """Return the files of a group; none of `graph`, which has only those that a user imports."""
    return [] if group == "graph" else sorted((CONF / group).glob("*.yaml"))


def _quote_files() -> Iterator[str]:
    yield "## Files of the groups\n"
    for group in list_default_groups():
        for file in _list_files(group):
            text = file.read_text(encoding="utf-8").rstrip()
            yield f"### {group}/{file.stem}\n\n```yaml\n{text}\n```\n"


def main() -> None:
    """Write docs/config.md, or with `--check` compare it with what would be written."""
    text = make_reference()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text, encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != text:
        print("docs/config.md is out of date. Run: python docs/make_config_reference.py", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
