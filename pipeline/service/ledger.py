"""Store on disk, beside the results of each request, how often it was tried and its answer.

A request that comes again after a crash, or was sent twice, finds its answer here and is not sampled again. Workers
that share a topic must share this folder, on a file system with locks.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
from pathlib import Path

from filelock import FileLock
from pydantic import ValidationError

from pipeline.base.file_state import hash_file
from pipeline.errors import OutputError
from pipeline.record.artifacts import open_folder, write_text
from pipeline.service.messages import KafkaSamplingRequest, KafkaSamplingResponse, RefusedRequest, TensorFile

log = logging.getLogger(__name__)

ANSWER = "response.json"
ATTEMPTS = "attempts.json"
LOCK = ".lock"
OF_ONE_FOLDER = (errno.EEXIST, errno.ENOTDIR, errno.EACCES, errno.EPERM)
"""Errors that do not mean a full disk. They may affect all folders, or only one."""


class Ledger:
    """The folder `root` of all requests; each request has its own folder below it.

    Example:
        ledger = Ledger(Path("results"))
        with ledger.get_lock(request):
            answer = ledger.find_answer(request)  # None if it was not answered before
    """

    def __init__(self, root: Path):
        self.root = root.absolute()

    def get_folder(self, request: KafkaSamplingRequest) -> Path:
        """Return the folder of a request, where its results go."""
        return self.root / request.request_id

    def get_lock(self, request: KafkaSamplingRequest) -> FileLock:
        """Return the lock on the folder of a request: two workers may have the same request if it was sent twice.

        The operating system releases the lock when its process dies. Raises OutputError, or RefusedRequest if only this
        folder cannot be used.
        """
        try:
            return FileLock(open_folder(self.get_folder(request)) / LOCK)
        except OutputError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in OF_ONE_FOLDER:
                open_folder(self.root)
                raise RefusedRequest(
                    f"request_id: its folder is of no use, got {request.request_id!r}: {error}"
                ) from error
            raise

    def find_answer(self, request: KafkaSamplingRequest) -> KafkaSamplingResponse | None:
        """Return the stored answer to a request, or None if there is none or its latent's file has changed.

        Raises RefusedRequest if the request_id was used for another request.
        """
        path = self.get_folder(request) / ANSWER
        if not path.is_file():
            return None
        try:
            stored = json.loads(path.read_bytes())
            answer, digest = KafkaSamplingResponse.model_validate(stored["response"]), stored["digest"]
        except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
            log.warning("%s: cannot be read, so the request is sampled again: %s", path, error)
            return None
        if digest != digest_request(request):
            raise RefusedRequest(f"request_id: was used for another request before, got {request.request_id!r}")
        latent = answer.sampled_latent
        return answer if latent is None or _is_intact(latent) else None

    def begin_attempt(self, request: KafkaSamplingRequest) -> int:
        """Count an attempt before it is made, and return its number, from 1 on. Raises OutputError."""
        folder = open_folder(self.get_folder(request))
        try:
            number = 1 + int(json.loads((folder / ATTEMPTS).read_bytes())["attempts"])
        except (OSError, ValueError):
            number = 1
        write_text(folder, ATTEMPTS, json.dumps({"attempts": number}))
        return number

    def take_back_attempt(self, request: KafkaSamplingRequest, number: int) -> None:
        """Do not count an attempt, because the request was not at fault when it ended. Raises OutputError."""
        try:
            write_text(self.get_folder(request), ATTEMPTS, json.dumps({"attempts": number - 1}))
        except OutputError:  # the disk is full, but a file can still be removed
            self.forget_attempts(request)

    def forget_attempts(self, request: KafkaSamplingRequest) -> None:
        """Begin to count attempts from 1 again. Raises OutputError."""
        path = self.get_folder(request) / ATTEMPTS
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{path}: cannot be removed: {error.strerror or error}") from error

    def keep_answer(self, request: KafkaSamplingRequest, answer: KafkaSamplingResponse) -> None:
        """Store an answer before it is sent. Raises OutputError."""
        stored = {"digest": digest_request(request), "response": answer.model_dump(mode="json")}
        write_text(open_folder(self.get_folder(request)), ANSWER, json.dumps(stored, indent=2) + "\n")


def _is_intact(latent: TensorFile) -> bool:
    try:
        return hash_file(Path(latent.path)) == latent.sha256
    except OSError:
        return False


def digest_request(request: KafkaSamplingRequest) -> str:
    """Return the sha256, in hexadecimal digits, of everything in a request that its answer depends on."""
    return hashlib.sha256(request.model_dump_json(exclude={"deadline"}).encode()).hexdigest()
