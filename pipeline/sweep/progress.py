"""Show the progress of a sweep: a bar of jobs in a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

from pipeline.errors import PipelineError
from pipeline.runs.run import RunResult
from pipeline.sweep.sweep import SweepJob

log = logging.getLogger(__name__)


class SweepProgress:
    """The progress of `total` jobs: how many are done, reused and failed, and how long the rest will take."""

    def __init__(self, total: int):
        self._total = total
        self._done = self._reused = self._failed = self._marked = 0
        self._began = time.monotonic()
        self._bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc="sweep", unit="job", dynamic_ncols=True)

    def begin(self, job: SweepJob) -> None:
        """Log which job runs now, unless there is a bar."""
        if self._bar is None:
            log.info("%d/%d  #%d %s", self._done + 1, self._total, job.number, job.name)

    def finish(self, job: SweepJob, result: RunResult) -> None:
        """Count a job that ran or whose result was recorded already, and log what is wrong with its results."""
        if result.linked:
            self._reused += 1
            log.info("#%d %s: recorded already, as run %s", job.number, job.name, result.linked)
        if result.marks:
            self._marked += 1
            found = ", ".join(f"{mark}: {text}" if text else mark for mark, text in result.marks.items())
            log.warning("#%d %s: %s", job.number, job.name, found)
        self._count()

    def fail(self, job: SweepJob, error: Exception) -> None:
        """Count a failed job and log at once, in one line, what is wrong. The traceback goes to the job's own log."""
        self._failed += 1
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        is_known_error = isinstance(error, PipelineError)
        log.error("failed: #%d %s: %s", job.number, job.name, reason, exc_info=error)
        if not is_known_error:
            log.error("this is a fault of latentgrid, please report it")
        self._count()

    def summarise(self) -> str:
        """Return how many jobs ran, were recorded already and failed, and how many have results with a fault."""
        ran = self._done - self._reused - self._failed
        text = f"{ran} of {self._total} jobs ran, {self._reused} were recorded already, {self._failed} failed"
        return f"{text}; something is wrong with the results of {self._marked}, see above" if self._marked else text

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()

    def _count(self) -> None:
        self._done += 1
        if self._bar is not None:
            self._bar.set_postfix(reused=self._reused, failed=self._failed, refresh=False)
            self._bar.update()
        elif self._done < self._total:
            log.info("%s", self._describe())

    def _describe(self) -> str:
        ran = self._done - self._reused
        counts = f"{self._done} of {self._total} done, {self._reused} reused, {self._failed} failed"
        if not ran:
            return counts
        seconds_left = (time.monotonic() - self._began) / ran * (self._total - self._done)
        return f"{counts}, about {seconds_left:.0f} s left"
