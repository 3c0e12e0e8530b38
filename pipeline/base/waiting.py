"""Log what the process waits for, so that the terminal is not silent during a long wait."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

log = logging.getLogger(__name__)

SAID_AFTER, ADVISED_AFTER = 3.0, 60.0  # seconds


@dataclass
class Waiting:
    """One wait. The code that waits calls `look` about once a second.

    Example:
        waiting = Waiting()
        while not is_ready():
            waiting.look("MLflow to open sqlite:///mlruns.db", "Is another process using it?")
            time.sleep(1)
    """

    _since: float = field(default_factory=time.monotonic)
    _messages: int = 0

    def look(self, what: str, advice: str) -> None:
        """Log `what` the process waits for, once after 3 s and once more after 60 s, then with `advice` what to do."""
        seconds = time.monotonic() - self._since
        if self._messages == 0 and seconds >= SAID_AFTER:
            log.info("waiting for %s", what)
        elif self._messages == 1 and seconds >= ADVISED_AFTER:
            log.warning("waiting for %s since %.0f s. %s", what, seconds, advice)
        else:
            return
        self._messages += 1
