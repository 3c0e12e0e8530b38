"""What is known of requests on disk, beside their results: how often each was tried, and its answer.

A request that comes again after a crash, or twice, finds its answer here and is not sampled again. Workers that share
a topic must share this folder.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pipeline.record.artifacts import open_folder, write_text
from pipeline.record.file_hashes import hash_file
from pipeline.service.messages import KafkaSamplingRequest, KafkaSamplingResponse, RefusedRequest

ANSWER = "response.json"
ATTEMPTS = "attempts.json"


class Ledger:
    """The folder of all requests, `root`; each has its own below it."""

    def __init__(self, root: Path):
        self.root = root.absolute()

    def get_folder(self, request: KafkaSamplingRequest) -> Path:
        """Where the results of a request go."""
        return self.root / request.request_id

    def find_answer(self, request: KafkaSamplingRequest) -> KafkaSamplingResponse | None:
        """The answer that was given to this request, if its file is still as it was.

        Raises RefusedRequest if the request_id was used for other settings.
        """
        path = self.get_folder(request) / ANSWER
        if not path.is_file():
            return None
        kept = json.loads(path.read_text())
        if kept["digest"] != _digest(request):
            raise RefusedRequest(f"request_id: was used for another request before, got {request.request_id!r}")
        answer = KafkaSamplingResponse.model_validate(kept["response"])
        latent = answer.sampled_latent
        intact = latent is None or (Path(latent.path).is_file() and hash_file(Path(latent.path)) == latent.sha256)
        return answer if intact else None

    def begin_attempt(self, request: KafkaSamplingRequest) -> int:
        """Note, before it is made, that one attempt more is made; its number. Raises OutputError."""
        folder = open_folder(self.get_folder(request))
        path = folder / ATTEMPTS
        number = 1 + (json.loads(path.read_text())["attempts"] if path.is_file() else 0)
        write_text(folder, ATTEMPTS, json.dumps({"attempts": number}))
        return number

    def take_back_attempt(self, request: KafkaSamplingRequest, number: int) -> None:
        """An attempt that ended for no fault of the request does not count. Raises OutputError."""
        write_text(self.get_folder(request), ATTEMPTS, json.dumps({"attempts": number - 1}))

    def forget_attempts(self, request: KafkaSamplingRequest) -> None:
        """Begin to count anew."""
        (self.get_folder(request) / ATTEMPTS).unlink(missing_ok=True)

    def keep_answer(self, request: KafkaSamplingRequest, answer: KafkaSamplingResponse) -> None:
        """Keep an answer before it is sent. Raises OutputError."""
        kept = {"digest": _digest(request), "response": answer.model_dump(mode="json")}
        write_text(open_folder(self.get_folder(request)), ANSWER, json.dumps(kept, indent=2) + "\n")


def _digest(request: KafkaSamplingRequest) -> str:
    """Of all that the answer depends on."""
    return hashlib.sha256(request.model_dump_json(exclude={"deadline"}).encode()).hexdigest()
