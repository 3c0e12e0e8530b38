"""Saying what is waited for, so that nobody sits before a terminal that is silent."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

log = logging.getLogger(__name__)

SAID_AFTER, ADVISED_AFTER = 3.0, 60.0  # seconds


@dataclass
class Waiting:
    """One wait. Whoever waits calls `look` about once a second."""

    _since: float = field(default_factory=time.monotonic)
    _lines: int = 0

    def look(self, what: str, advice: str) -> None:
        """Say `what` is waited for (`MLflow to open sqlite:///...`) once that takes long, and later what can be done
        about it: each once."""
        seconds = time.monotonic() - self._since
        if self._lines == 0 and seconds >= SAID_AFTER:
            log.info("waiting for %s", what)
        elif self._lines == 1 and seconds >= ADVISED_AFTER:
            log.warning("waiting for %s since %.0f s. %s", what, seconds, advice)
        else:
            return
        self._lines += 1
