"""The Hydra launcher `warm`, which knows all jobs of a sweep before the first one runs.

One process runs all jobs, and what it has loaded stays loaded from one job to the next. Job numbers, output folders,
logs, callbacks and results are those of Hydra's basic launcher, which it replaces. Only the order of execution differs.
"""

from __future__ import annotations

import functools
import importlib
import logging
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import cast

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra.core.utils import run_job as hydra_run_job
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict, read_write

from pipeline.config.names import LAUNCHER
from pipeline.config.read import read_config
from pipeline.errors import ConfigError, PipelineError
from pipeline.runs.console import format_summary
from pipeline.runs.run import run_config, tracking_errors_logged
from pipeline.sweep.axes import Axis, find_axes, name_job
from pipeline.sweep.compose import SweepComposer
from pipeline.sweep.expect import expect_jobs
from pipeline.sweep.progress import SweepProgress
from pipeline.sweep.record import SweepRecord
from pipeline.sweep.sweep import Sweep, SweepJob, check_sweep

log = logging.getLogger(__name__)


def run_job(config: DictConfig) -> float | None:
    """Run a composed config, log its summary or its error, and return its objective, if it has one.

    This is Hydra's task function of `python run.py`. Raises what `run_config` raises.
    """
    settings = HydraConfig.get()
    try:
        result = run_config(config, Path(settings.runtime.output_dir), settings)
    except PipelineError as error:
        log.error("%s", error, exc_info=not isinstance(error, ConfigError))
        raise
    except Exception:
        log.exception("this is a fault of latentgrid, please report it")
        raise
    if result.folder:
        log.info("%s", format_summary(result))
    return result.get_objective(config.run.objective)


class WarmLauncher(Launcher):
    """A Hydra launcher that runs the jobs of a sweep in this process.

    A sweep of `run_job` is planned first. The jobs of any other task function run in their order.

    Example:
        python run.py -m seed=1,2,3  # conf/config.yaml chooses this launcher
    """

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store what `launch` needs; Hydra calls this first."""
        # The sweeper composes with the loader of this context too.
        hydra_context.config_loader = cast(ConfigLoader, SweepComposer(hydra_context.config_loader))
        self._context, self._task, self._config = hydra_context, task_function, config
        self._record: SweepRecord | None = None
        self._overrides: list[Sequence[str]] = []

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run all jobs and return their results; that of a failed job holds its error.

        Raises ConfigError if any job cannot run, and TrackingError if the record cannot be written.
        """
        setup_globals()
        self._configure_log()
        Path(str(self._config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        configs = [self._compose(number, one) for number, one in enumerate(job_overrides, initial_job_idx)]
        if self._task is not run_job:
            return [self._run(config, self._task) for config in configs]
        self._overrides += job_overrides
        try:
            return self._launch_sweep(configs)
        except PipelineError as error:
            log.error("%s", error)
            raise

    def _launch_sweep(self, configs: Sequence[DictConfig]) -> Sequence[JobReturn]:
        swept = self._find_swept()
        axes = find_axes(self._overrides, swept)
        sweep = check_sweep([_read_job(config, axes) for config in configs])
        if sweep.jobs[0].read.run.dry_run:
            print(sweep.describe(expect_jobs(sweep)))
            return []
        if self._record is None:
            folder = Path(str(self._config.hydra.sweep.dir)).absolute()
            self._record = SweepRecord(folder, self._config.hydra.overrides.task, swept)
            _open_records.append(self._record)
        self._record.extend(sweep, axes)
        return self._run_sweep(sweep, self._record)

    def _run_sweep(self, sweep: Sweep, record: SweepRecord) -> Sequence[JobReturn]:
        returns: dict[int, JobReturn] = {}
        progress = SweepProgress(len(sweep.jobs))
        for place, index in enumerate(sweep.order):
            progress.begin(sweep.jobs[index])
            cell = functools.partial(_run_cell, sweep, place, record, progress)
            returns[index] = self._run(sweep.jobs[index].config, cell)
            if returns[index].status == JobStatus.FAILED:
                _let_go(returns[index]._return_value)
                if sweep.jobs[index].read.run.fail_fast:
                    break
        progress.close()
        log.info("%s", progress.summarise())
        for job in record.failed:
            log.error("failed: #%d %s", job.number, job.name)
        return [returns[index] for index in sorted(returns)]

    def _find_swept(self) -> dict[str, str]:
        """Return the expressions of the settings that the command line or the sweeper's own settings sweep, by path."""
        params = self._config.hydra.sweeper.get("params") or {}
        overrides = [*(f"{path}={values}" for path, values in params.items()), *self._config.hydra.overrides.task]
        parsed = OverridesParser.create().parse_overrides(overrides)
        return {one.key_or_group: str(one.input_line).partition("=")[2] for one in parsed if one.is_sweep_override()}

    def _compose(self, number: int, overrides: Sequence[str]) -> DictConfig:
        config = self._context.config_loader.load_sweep_config(self._config, list(overrides))
        with open_dict(config), read_write(config):
            config.hydra.job.id = config.hydra.job.num = number
            # The config is parsed before Hydra runs the job, and may refer to the job's folder.
            folder = Path(str(config.hydra.sweep.dir), str(config.hydra.sweep.subdir))
            config.hydra.runtime.output_dir = str(folder.absolute())
        return config

    def _run(self, config: DictConfig, task: TaskFunction) -> JobReturn:
        """Run a job as Hydra does, with its folder, its log and its callbacks."""
        job_return = hydra_run_job(
            hydra_context=self._context,
            task_function=task,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        self._configure_log()
        return job_return

    def _configure_log(self) -> None:
        configure_log(self._config.hydra.hydra_logging, self._config.hydra.verbose)


def _let_go(error: BaseException | None) -> None:
    """Clear the frames of an error, which hold models and latents: the next jobs need their memory."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _run_cell(
    sweep: Sweep, place: int, record: SweepRecord, progress: SweepProgress, config: DictConfig
) -> float | None:
    """Run one job as Hydra's task function, and add its result or its error to the record and the progress."""
    index = sweep.order[place]
    job = sweep.jobs[index]
    try:
        result = sweep.run(place, Path(HydraConfig.get().runtime.output_dir), record.run)
        objective = result.get_objective(job.read.run.objective)
    except Exception as error:
        record.keep_failure(job, error)
        progress.fail(job, error)
        raise
    record.keep(job, result, sweep.keys.get(index, {}))
    progress.finish(job, result)
    return objective


_open_records: list[SweepRecord] = []


@contextmanager
def sweeps_recorded() -> Iterator[None]:
    """Complete the records of sweeps, with their status, when everything that Hydra does has ended.

    Only then is it known that a sweeper brings no more jobs. Raises TrackingError if a record cannot be completed; if
    there was another error before, that one is raised and the TrackingError is only logged.
    """
    try:
        yield
    except BaseException as error:
        status = "FAILED" if isinstance(error, Exception) else "KILLED"
        with tracking_errors_logged():
            _close_records(status)
        raise
    _close_records("FINISHED")


def _close_records(status: str) -> None:
    while _open_records:
        record = _open_records.pop()
        record.close("FAILED" if record.failed and status == "FINISHED" else status)


def _read_job(config: DictConfig, axes: Sequence[Axis]) -> SweepJob:
    """Parse a config as its own job would see it: `${hydra:...}` gives the values of this job."""
    overrides = config.hydra.overrides.task
    previous_config = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(config)
    try:
        name = name_job(overrides, axes) or " ".join(overrides)
        return SweepJob(config.hydra.job.num, name, config, read_config(config))
    finally:
        HydraConfig.instance().cfg = previous_config


def register_launcher() -> None:
    """Let Hydra find the class of `hydra/launcher: warm`. Idempotent.

    Hydra accepts only launchers of the package `hydra_plugins`, and locates them by importing it. If no plugin of
    Hydra is installed, this package does not exist, and an empty one replaces it.
    """
    package, module, _ = LAUNCHER.split(".")
    try:
        plugins = importlib.import_module(package)
    except ModuleNotFoundError:
        plugins = sys.modules[package] = ModuleType(package)
        plugins.__path__ = []
    setattr(plugins, module, sys.modules[__name__])
    WarmLauncher.__module__ = f"{package}.{module}"
    Plugins.instance().register(WarmLauncher)
