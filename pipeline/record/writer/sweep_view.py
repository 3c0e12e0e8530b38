"""The page of MLflow's UI that compares the runs of a sweep: its columns and charts."""

from __future__ import annotations

import json
from collections.abc import Collection

from pipeline.record.writer.keys import make_key, make_picture_key

SECTION = "sweep"  # the name of the section of the charts
SIZE = {"columns": 2, "cardHeight": 600}  # of a chart: the UI lists all params of a run above its picture


def write_view(run_id: str, axes: Collection[str], kept: Collection[str]) -> tuple[str, str]:
    """Return key and value of the tag of an experiment that makes a page which compares the runs of a sweep.

    The tag is what the UI's own "Share" writes. The page shows the runs below `run_id`, with the swept settings `axes`
    and the statistics of the `kept` latents as columns, and charts of both. Its key is `run_id`.
    """
    params = [make_key(path) for path in axes]
    metrics = ["seconds/total", *(make_key(f"latent/{node}/{name}") for node in kept for name in ("mean", "std"))]
    shared = {"metricSectionId": SECTION, "deleted": False, "isGenerated": False, "runsCountToCompare": 100}
    charts = [
        {**shared, "uuid": f"{SECTION}-image-{node}", "type": "IMAGE", "imageKeys": [make_picture_key(node)], "step": 0}
        for node in kept
    ]
    parallel = {"type": "PARALLEL", "selectedParams": params, "selectedMetrics": metrics, "showAllRuns": True}
    view = {
        "searchFilter": f"tags.`mlflow.parentRunId` = '{run_id}'",
        "orderByKey": "tags.`mlflow.runName`",  # sorted by time, the UI would fold them into the run of the sweep
        "orderByAsc": True,
        "selectedColumns": [*(f"params.`{path}`" for path in params), *(f"metrics.`{name}`" for name in metrics)],
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": [*charts, {**shared, "uuid": f"{SECTION}-parallel", **parallel}],
        "compareRunSections": [
            {"uuid": SECTION, "name": "Sweep", "display": True, "isReordered": True, "deleted": False, **SIZE}
        ],
        "isAccordionReordered": True,
    }
    return f"mlflow.sharedViewState.{run_id}", json.dumps(view)
