"""Open an MLflow store: a SQLite file with its artifacts beside it, or anything else that a tracking URI names."""

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
"""The local store, for runs that cannot be sent to a server because it is out of reach."""

# Without this tag MLflow 3 guesses that an experiment is about generative text, and shows other pages.
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}

# MLflow retries a server for minutes. That is not needed here: if a server is out of reach, the local store is used.
PATIENCE = {
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
PATIENCE_AT_FIRST = {**PATIENCE, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
CHOSEN = PATIENCE.keys() & os.environ.keys()  # the settings that the user has chosen


PASSING = (401, 403, 408, 425, 429)  # a password that is no longer valid, a timeout, too early, too many requests
ARTIFACT_CLIENTS = ("botocore", "boto3", "azure", "google", "urllib3")


class OutOfReach(Exception):
    """A server does not answer, or fails, but has not refused anything."""


class Refused(Exception):
    """A server refuses access, or the experiment accepts no runs."""


@dataclass(frozen=True)
class Store:
    """An open store. `client` is an MlflowClient, `experiment_id` the id of the experiment that takes the runs."""

    uri: str
    client: Any
    experiment_id: str


def is_server(uri: str) -> bool:
    """Return whether a tracking URI is that of a server, which may be out of reach."""
    return uri.startswith(("http://", "https://"))


def is_out_of_reach(error: Exception) -> bool:
    """Return whether an error says that a server, or the way to it or to its files, fails temporarily.

    A permanent refusal is a fault of latentgrid instead. MLflow gives the status 500 if there is no answer at all.
    """
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    if isinstance(error, MlflowException):
        status = error.get_http_status_code()
    elif isinstance(error, RequestException):
        status = 503 if error.response is None else error.response.status_code
    else:  # of the client of an artifact store; each client has its own tree of errors
        clients = type(error).__module__.partition(".")[0] in ARTIFACT_CLIENTS
        return clients or isinstance(error, ConnectionError | TimeoutError)
    return status >= 500 or status in PASSING


def open_store(uri: str, experiment: str | None) -> Store:
    """Open a store, and end the runs that dead writers have left RUNNING there.

    The store and the experiment are created if necessary. Raises OutOfReach, Refused, and what MLflow raises.

    Example:
        store = open_store("sqlite:///outputs/mlflow.db", "latentgrid")
        store.client.get_experiment(store.experiment_id)
    """
    with locked(uri) if uri.startswith(SQLITE) else contextlib.nullcontext(), _short_patience():
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        # MLflow caches open stores by URI, so a relative one would still be that of an earlier working directory.
        is_relative = uri.startswith(SQLITE) and not find_database(uri).is_absolute()
        client = MlflowClient(f"{SQLITE}{Path.cwd()}/{uri.removeprefix(SQLITE)}" if is_relative else uri)
        try:
            found = _find_experiment(client, experiment or "Default", _artifact_location(uri))
            if experiment:  # else the store is only read
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
    """Return the file of a SQLite store."""
    return Path(unquote(uri.removeprefix(SQLITE).split("?")[0]))


def read_all(search: Callable[..., Any], *args: Any, **options: Any) -> Iterator[Any]:
    """Yield all that a search of MLflow finds, page by page."""
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
        except MlflowException:  # another process has just created it, or the store refuses to
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return found


def _refuse_deleted(uri: str, experiment: Any) -> None:
    """Raise Refused if an experiment is deleted: MLflow still finds it by its name but accepts no runs for it."""
    if experiment.lifecycle_stage == "deleted":
        raise Refused(
            f"tracking.experiment_name: is deleted in this store, got {experiment.name!r}. Restore it: "
            f"MLFLOW_TRACKING_URI={uri} mlflow experiments restore --experiment-id {experiment.experiment_id}; "
            "or take another name: tracking.experiment_name=NAME"
        )


@contextlib.contextmanager
def _short_patience() -> Iterator[None]:
    """Try a server only briefly while a store is opened."""
    try:
        _set_patience(PATIENCE_AT_FIRST)
        yield
    finally:
        _set_patience(PATIENCE)


def _set_patience(settings: Mapping[str, str]) -> None:
    os.environ.update({name: value for name, value in settings.items() if name not in CHOSEN})


@contextlib.contextmanager
def locked(uri: str) -> Iterator[None]:
    """Hold the lock of a store against the other processes of this machine.

    Processes that open a new SQLite store at once would race on its migrations, and MLflow searches and then writes
    without a lock of its own.
    """
    from filelock import FileLock

    if uri.startswith(SQLITE):
        lock = Path(f"{find_database(uri)}.lock")
    else:
        lock = cache_folder() / "stores" / f"{hashlib.sha256(uri.encode()).hexdigest()}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        yield


def _artifact_location(uri: str) -> str | None:
    """Return the folder of artifacts beside a SQLite store as a URI, or None: a server chooses it itself."""
    if not uri.startswith(SQLITE):
        return None
    return (find_database(uri).resolve().parent / "mlartifacts").as_uri()
