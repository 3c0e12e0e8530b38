"""Log the inputs of a run in MLflow: the tensors that enter its graph as datasets, its model files as logged models.

Each input is one entry of an experiment, however many runs read it. MLflow itself finds a dataset again by its name and
digest. A model file is one logged model for each sha256: the earliest, if several machines create one at once.

MLflow looks for a dataset and then inserts it. If two processes log the same new dataset, the second one fails and its
transaction is rolled back (mlflow/store/tracking/sqlalchemy_store.py, `_log_inputs_impl`). Another try finds it.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.record.artifacts import PROMPT
from pipeline.record.provenance import MODEL
from pipeline.record.writer.store import Store, is_out_of_reach, is_server, locked

TRIES, PAUSE = 10, 0.2  # PAUSE: the most seconds between two tries
DIGEST = 16  # characters of the sha256 that MLflow shows; the profile has all of them
SHA256 = "sha256"  # the tag of a logged model
TENSOR, SHAPE = "tensor.", "shape."  # facts of a record: the content of a tensor, and its dtype and shape
REFUSED = str.maketrans("/:.%\"'", "______")  # characters that the name of a logged model must not have


class RunInputs:
    """Logs the inputs of runs in the experiment of a store."""

    def __init__(self, store: Store):
        self._store = store
        self._client = store.client
        self._experiment_id = store.experiment_id
        self._models: dict[str, str] = {}  # ids of logged models by sha256

    def log(self, run_id: str, folder: Path, record: Mapping[str, Any]) -> None:
        """Log the inputs that the record of a run names; `folder` has its prompt.json."""
        from mlflow.entities import LoggedModelInput

        facts = record.get("facts", {})  # version 1 has none
        tensors = sorted(key.removeprefix(TENSOR) for key in facts if key.startswith(TENSOR))
        prompt = json.loads((folder / PROMPT).read_bytes()) if tensors else {}
        datasets = [make_dataset(name, prompt[name], facts, record["files"]) for name in tensors if name in prompt]
        files = [(where, file) for where, file in record["files"].items() if file["kind"] == MODEL and file[SHA256]]
        models = [LoggedModelInput(self._find_model(where, file)) for where, file in files]
        if datasets or models:
            self._log(run_id, datasets, models)

    def _log(self, run_id: str, datasets: list[Any], models: list[Any]) -> None:
        from mlflow.exceptions import MlflowException

        for tries_left in reversed(range(TRIES)):
            try:
                self._client.log_inputs(run_id, datasets=datasets, models=models)
            except MlflowException as error:
                if not tries_left or (is_server(self._store.uri) and is_out_of_reach(error)):
                    raise
                time.sleep(random.uniform(0, PAUSE))
            else:
                return

    def _find_model(self, where: str, file: Mapping[str, Any]) -> str:
        """Return the id of the logged model of a file, and create it if the experiment has none of its content."""
        sha256 = file[SHA256]
        if sha256 not in self._models:
            with locked(self._store.uri):
                found = self._search_model(sha256)
                if found is None:
                    self._make_model(where, file)
                    found = self._search_model(sha256)
            assert found, "it was just made"
            self._models[sha256] = found
        return self._models[sha256]

    def _search_model(self, sha256: str) -> str | None:
        """Return the id of the earliest logged model of this content, or None."""
        found = self._client.search_logged_models(
            [self._experiment_id],
            f"tags.{SHA256} = '{sha256}'",
            max_results=1,
            order_by=[{"field_name": "creation_timestamp", "ascending": True}],
        )
        return str(found[0].model_id) if found else None

    def _make_model(self, where: str, file: Mapping[str, Any]) -> None:
        path = Path(file["path"])
        model = self._client.create_logged_model(
            self._experiment_id,
            name=path.name.translate(REFUSED),
            tags={SHA256: file[SHA256], "path": str(path), "size": str(file["size"])},
            model_type=where.partition(".")[2],
        )
        self._client.finalize_logged_model(model.model_id, "READY")


def make_dataset(
    name: str, node: Mapping[str, Any], facts: Mapping[str, str], files: Mapping[str, Mapping[str, Any]]
) -> Any:
    """Return the DatasetInput of the tensor that the node `name` of a prompt brings into the graph.

    `facts` and `files` are those of its record.json.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    input_files = {
        where: file for where, file in files.items() if where.partition(".")[0] == name and file["kind"] != MODEL
    }
    path = next((file["path"] for file in input_files.values()), None)
    inputs = {"class_type": node["class_type"], **node["inputs"]}
    dtype, _, shape = facts.get(f"{SHAPE}{name}", "").partition(" ")
    size = json.loads(shape) if shape else None
    column = {"type": "tensor", "name": name, "tensor-spec": {"dtype": dtype, "shape": size}}
    content = {"tensor_sha256": facts[f"{TENSOR}{name}"], "dtype": dtype, "shape": size}
    content |= {f"file_sha256.{where}": file[SHA256] for where, file in input_files.items()}
    dataset = Dataset(
        name,
        facts[f"{TENSOR}{name}"][:DIGEST],
        "local" if path else "node",
        json.dumps({"uri": path} if path else inputs),
        json.dumps({"mlflow_colspec": [column]}) if size else None,
        json.dumps(content),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", node["class_type"])])
