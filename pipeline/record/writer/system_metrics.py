"""What the machine does during a run, by MLflow's own monitor: CPU, memory, disk, network, GPUs."""

from __future__ import annotations

from typing import Any

SECONDS = 1.0  # between two samples; MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL sets another


def start_monitor(run_id: str, uri: str) -> Any:
    """Begin to log what the machine does to a run that is RUNNING; `finish()` of what is returned ends it."""
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor = SystemMetricsMonitor(run_id, sampling_interval=SECONDS, tracking_uri=uri)
    monitor.start()
    return monitor
