"""Output for the terminal: log lines, progress bars, the plan of a dry run, the summary of a run."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.base.events import Event, NodeFinished, NodeProgress, NodeStarted, RunStarted
from pipeline.graph.check import CheckedGraph
from pipeline.graph.model import Link

if TYPE_CHECKING:
    from pipeline.runs.run import RunResult
    from pipeline.workflow.cards import Card

log = logging.getLogger(__name__)

SLOW_SECONDS = 0.1  # quicker nodes are not worth a second line
GREY, PLAIN = "\033[90m", "\033[0m"
QUIET_SECONDS = 5.0  # without a terminal, at most one line about sampling steps in this time


class ConsoleFilter(logging.Filter):
    """Passes all messages of latentgrid, and only warnings and errors of everything else."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a message is shown."""
        return record.levelno >= logging.WARNING or record.name.startswith("pipeline")


class ConsoleHandler(logging.Handler):
    """Writes to standard error without breaking a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message."""
        try:
            from tqdm import tqdm

            tqdm.write(record.getMessage(), file=sys.stderr)  # a traceback goes to run.log only
        except Exception:  # noqa: BLE001 (as logging's own handlers do)
            self.handleError(record)


class Progress:
    """Shows the events of a run: a bar of sampling steps in a terminal, plain lines elsewhere.

    If the bar is below that of a sweep, a terminal shows nothing else of the run.

    Example:
        session.run(checked, Progress())
    """

    def __init__(self, below_another: bool = False) -> None:
        self._place = 1 if below_another else 0
        self._bar: Any = None
        self._last_line = time.monotonic()
        self._in_terminal = sys.stderr.isatty()
        self._shows_nodes = not (below_another and self._in_terminal)

    def __call__(self, event: Event) -> None:
        """Show an event of the executor."""
        match event:
            case RunStarted() if event.cached and self._shows_nodes:
                log.info("from the cache: %s", ", ".join(event.cached))
            case NodeStarted() if self._shows_nodes:
                log.info("%s: %s ...", event.node, event.class_type)
            case NodeProgress():
                self._show_step(event)
            case NodeFinished():
                self.close()
                if event.seconds >= SLOW_SECONDS and self._shows_nodes:
                    log.info("%s: done in %.2f s", event.node, event.seconds)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _show_step(self, event: NodeProgress) -> None:
        if self._in_terminal:
            self._draw_bar(event)
        elif time.monotonic() - self._last_line > QUIET_SECONDS:
            self._last_line = time.monotonic()
            log.info("%s: step %d of %d", event.node, event.value, event.total)

    def _draw_bar(self, event: NodeProgress) -> None:
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(
                total=event.total,
                desc=event.node,
                unit="step",
                leave=False,
                dynamic_ncols=True,
                position=self._place,
            )
        self._bar.update(event.value - self._bar.n)


def format_summary(result: RunResult) -> str:
    """Return the files of a run, its address in MLflow's UI, and how many nodes ran, as text."""
    lines = [f"{path.suffix[1:]:<9}{path}" for path in result.files if path.stem in result.latents]
    if result.mlflow:
        place = f"/#/experiments/{result.mlflow.experiment_id}/runs/{result.mlflow.run_id}"
        lines.append(f"{'MLflow':<9}{_find_ui(result.mlflow.uri, place)}")
    lines.append(
        f"{'done':<9}{len(result.executed)} nodes ran, {len(result.cached)} were known, {result.seconds:.2f} s"
    )
    return "\n".join(lines)


def _find_ui(tracking_uri: str, place: str) -> str:
    if tracking_uri.startswith("http"):
        return f"{tracking_uri.rstrip('/')}{place}"
    is_default = tracking_uri == "sqlite:///outputs/mlflow.db" and Path("Makefile").is_file()
    command = "make ui" if is_default else f"mlflow ui --backend-store-uri {tracking_uri}"
    return f"http://127.0.0.1:5000{place}   (after `{command}`)"


def format_plan(checked: CheckedGraph, origins: Mapping[str, str]) -> str:
    """Return the nodes of a checked graph in order, with value and origin of each input, as a table."""
    shown = {
        f"{name}.{key}": format_value(value, checked)
        for name, node in checked.graph.items()
        for key, value in node.inputs.items()
    }
    path_width, value_width = max(map(len, shown), default=0), max(map(len, shown.values()), default=0)
    lines = []
    for place, name in enumerate(checked.order, start=1):
        mark = "  (kept)" if name in checked.targets else ""
        lines.append(f"{place}. {name}: {checked.graph[name].class_type}{mark}")
        for path in (f"{name}.{key}" for key in checked.graph[name].inputs):
            origin = "default of the node" if path in checked.filled else origins.get(path, "")
            lines.append(f"   {path:<{path_width}}  {shown[path]:<{value_width}}  {origin}".rstrip())
    return "\n".join(lines)


def format_graph(cards: Sequence[Card], greys: bool) -> str:
    """Return a graph as a table: its nodes, what they read, and the values that differ from the node's defaults.

    greys: whether bypassed nodes are grey, which needs a terminal.
    """
    longest = (
        max((len(card.name) for card in cards), default=0),
        max((len(card.class_type) for card in cards), default=0),
    )
    lines = []
    for card in cards:
        links = [f"{port.name} <- {port.source[0]}" for port in card.inputs if port.source]
        values = [f"{name}={text}" for name, text in card.values.items()]
        notes = ["(bypassed)"] if card.bypassed else ["(cached)"] if card.cached else []
        line = f"{card.name:<{longest[0]}}  {card.class_type:<{longest[1]}}  " + "  ".join([*notes, *links, *values])
        lines.append(f"{GREY}{line.rstrip()}{PLAIN}" if card.bypassed and greys else line.rstrip())
    return "\n".join(lines)


def format_value(value: Any, checked: CheckedGraph) -> str:
    """Return the text of an input as it is written in a config; a link shows the name of its output."""
    if isinstance(value, Link):
        assert isinstance(value.output, int)
        return f"[{value.node}, {checked.signatures[value.node].outputs[value.output].name}]"
    return str(value)
