"""Opening an MLflow store: a SQLite file with its artifacts beside it, or whatever else a tracking URI names."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from pipeline.base.cache_folder import cache_folder
from pipeline.record.writer.orphans import end_orphans

SQLITE = "sqlite:///"

UNSENT = "sqlite:///outputs/unsent/mlflow.db"
"""The store at hand, for runs that a server out of reach could not take."""

# Without it MLflow 3 guesses that an experiment is about generative text, and shows other pages.
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}

# MLflow tries a server again for minutes. Here a store at hand takes the record instead of one that is out of reach.
PATIENCE = {
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
PATIENCE_AT_FIRST = {**PATIENCE, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
CHOSEN = PATIENCE.keys() & os.environ.keys()  # by the user


PASSING = (401, 403, 408, 425, 429)  # a password that is no good any more, too late, too early, too many requests
ARTIFACT_CLIENTS = ("botocore", "boto3", "azure", "google", "urllib3")


class OutOfReach(Exception):
    """A server does not answer, or fails; it has not refused anything."""


class Refused(Exception):
    """A server does not let us in, or the experiment takes no runs."""


@dataclass(frozen=True)
class Store:
    """An open store. `client` is an MlflowClient, `experiment_id` the experiment that takes the runs."""

    uri: str
    client: Any
    experiment_id: str


def is_server(uri: str) -> bool:
    """Whether a tracking URI is that of a server, which may be out of reach."""
    return uri.startswith(("http://", "https://"))


def is_out_of_reach(error: Exception) -> bool:
    """Return whether an error says that a server, or the way to it or to its files, fails for now: what it refuses for
    good is a fault of ours. MLflow has the status 500 for no answer at all."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    if isinstance(error, MlflowException):
        status = error.get_http_status_code()
    elif isinstance(error, RequestException):
        status = 503 if error.response is None else error.response.status_code
    else:  # of the client of an artifact store: each has a tree of its own
        clients = type(error).__module__.partition(".")[0] in ARTIFACT_CLIENTS
        return clients or isinstance(error, ConnectionError | TimeoutError)
    return status >= 500 or status in PASSING


def open_store(uri: str, experiment: str | None) -> Store:
    """Open a store, making it and the experiment if need be, and end what dead writers have left RUNNING there.

    Raises OutOfReach, Refused, and what MLflow raises.
    """
    with locked(uri) if uri.startswith(SQLITE) else contextlib.nullcontext(), _opening():
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        # MLflow keeps what it opened by its URI, and a relative one would stay that of another working directory.
        is_relative = uri.startswith(SQLITE) and not find_database(uri).is_absolute()
        client = MlflowClient(f"{SQLITE}{Path.cwd()}/{uri.removeprefix(SQLITE)}" if is_relative else uri)
        try:
            found = _find_experiment(client, experiment or "Default", _artifact_location(uri))
            if experiment:  # else it is to be read from
                _refuse_deleted(uri, found)
            experiment_id = str(found.experiment_id)
            end_orphans(client, experiment_id)
        except MlflowException as error:
            if is_server(uri) and error.get_http_status_code() in (401, 403):
                hint = "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, in the environment or in .env"
                raise Refused(f"{error}\n{hint}") from error
            if is_server(uri) and is_out_of_reach(error):
                raise OutOfReach(str(error)) from error
            raise
        return Store(uri, client, experiment_id)


def find_database(uri: str) -> Path:
    """The file of a SQLite store."""
    return Path(unquote(uri.removeprefix(SQLITE).split("?")[0]))


def read_all(search: Callable[..., Any], *args: Any, **options: Any) -> Iterator[Any]:
    """All that a search of MLflow finds, page by page."""
    token = None
    while True:
        page = search(*args, **options, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _find_experiment(client: Any, name: str, artifacts: str | None) -> Any:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.get_experiment(client.create_experiment(name, artifacts, EXPERIMENT_TAGS))
        except MlflowException:  # made by another process in this moment, or refused
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return found


def _refuse_deleted(uri: str, experiment: Any) -> None:
    """Raise Refused for a deleted experiment: MLflow finds it by its name and takes no runs for it."""
    if experiment.lifecycle_stage == "deleted":
        raise Refused(
            f"tracking.experiment_name: is deleted in this store, got {experiment.name!r}. Restore it: "
            f"MLFLOW_TRACKING_URI={uri} mlflow experiments restore --experiment-id {experiment.experiment_id}; "
            "or take another name: tracking.experiment_name=NAME"
        )


@contextlib.contextmanager
def _opening() -> Iterator[None]:
    """Try a server only briefly for now."""
    try:
        _set_patience(PATIENCE_AT_FIRST)
        yield
    finally:
        _set_patience(PATIENCE)


def _set_patience(settings: Mapping[str, str]) -> None:
    os.environ.update({name: value for name, value in settings.items() if name not in CHOSEN})


@contextlib.contextmanager
def locked(uri: str) -> Iterator[None]:
    """Hold the lock of a store, which keeps apart the processes of this machine: those that open a new SQLite store at
    once would race on its migrations, and MLflow looks and then writes without a lock of its own."""
    from filelock import FileLock

    if uri.startswith(SQLITE):
        lock = Path(f"{find_database(uri)}.lock")
    else:
        lock = cache_folder() / "stores" / f"{hashlib.sha256(uri.encode()).hexdigest()}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        yield


def _artifact_location(uri: str) -> str | None:
    """Artifacts lie beside a SQLite store; a server decides for itself."""
    if not uri.startswith(SQLITE):
        return None
    return (find_database(uri).resolve().parent / "mlartifacts").as_uri()
