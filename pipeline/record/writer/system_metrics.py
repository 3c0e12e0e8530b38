"""Log the use of CPU, memory, disk, network and GPUs during a run, with MLflow's own monitor."""

from __future__ import annotations

from typing import Any

SECONDS = 1.0  # between two samples; MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL sets another value


def start_monitor(run_id: str, uri: str) -> Any:
    """Start to log system metrics to a RUNNING run, and return the monitor, whose `finish()` stops it."""
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor = SystemMetricsMonitor(run_id, sampling_interval=SECONDS, tracking_uri=uri)
    monitor.start()
    return monitor
