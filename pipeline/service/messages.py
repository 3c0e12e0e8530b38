"""The messages of the Kafka worker, version 1. Tensors travel as files; a message has their paths and what they are.

Unknown fields are refused, because otherwise a request with a misspelt setting would be sampled without that setting.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from pipeline.base.file_state import hash_file
from pipeline.errors import OutputError, did_you_mean
from pipeline.service.sample_latent import REQUEST_ID

Name = Annotated[str, Field(max_length=1024)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$"), AfterValidator(str.lower)]

SHOWN = 80
"""The most characters of a wrong value that are shown."""
MOST_REASONS, LONGEST_REASON = 50, 1000
"""The most reasons, and the most characters of each: the mistakes of a message of a megabyte must fit a reply."""


class RefusedRequest(Exception):
    """A request that can never be answered. `reasons` has one for each mistake, as far as they fit a message."""

    def __init__(self, *reasons: str):
        more = len(reasons) - MOST_REASONS
        self.reasons = tuple(_shorten(reason) for reason in reasons[:MOST_REASONS])
        if more > 0:
            self.reasons += (f"and {more} more",)
        super().__init__("; ".join(self.reasons))


class DeadlineExceededError(RefusedRequest):
    """The deadline of a request passed before or during the sampling."""


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class TensorFile(_Message):
    """A file with a tensor: its path (or file:// URI), and what its sha256 and size in bytes must be, if given."""

    path: str = Field(min_length=1, max_length=4096)
    sha256: Sha256 | None = None
    size: int | None = Field(default=None, ge=0)


class KafkaSamplingRequest(_Message):
    """A request to sample one latent; the parameters are those of `sample_latent`.

    When its `deadline` has passed, the sampling does not begin, or it ends.

    Example:
        {"request_id": "r-1", "seed": 1, "latent_image": {"path": "/data/latent.pt"},
         "positive_encoding": {"path": "/data/positive.pt"}, "negative_encoding": {"path": "/data/negative.pt"}}
    """

    version: Literal[1] = 1
    request_id: str = Field(pattern=f"^{REQUEST_ID.pattern}$")
    positive_encoding: TensorFile
    negative_encoding: TensorFile
    latent_image: TensorFile
    unet_model_name: Name | None = None
    lora_model_name: Name | None = None
    lora_strength: float = 1.0
    seed: int | None = Field(default=None, ge=0, lt=2**64)
    steps: int = 4
    cfg: float = 1.0
    sampler_name: Name = "euler"
    scheduler: Name = "simple"
    denoise: float = 1.0
    shift: float = 3.0
    strength: float = 1.0
    deadline: AwareDatetime | None = None


class Failure(_Message):
    """Why there is no latent: the name and the message of the error."""

    type: str
    message: str


class KafkaSamplingResponse(_Message):
    """The answer to a request: the file of the latent, or an error. `metadata` is that of `sample_latent`."""

    version: Literal[1] = 1
    request_id: str
    status: Literal["ok", "error"]
    sampled_latent: TensorFile | None = None
    sampled_latent_shape: list[int] | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    error: Failure | None = None


def read_request(body: bytes | None) -> KafkaSamplingRequest:
    """Parse a message. Raises RefusedRequest with every mistake in it."""
    try:
        return KafkaSamplingRequest.model_validate_json(body or b"")
    except ValidationError as error:
        raise RefusedRequest(*(_explain(one) for one in error.errors(include_url=False))) from error


def _explain(mistake: Any) -> str:
    """Return what pydantic says about a mistake, with the value, or the field that an unknown one may have meant."""
    where = mistake["loc"]
    if mistake["type"] == "extra_forbidden":
        fields = (TensorFile if len(where) > 1 else KafkaSamplingRequest).model_fields
        return f"{'.'.join(map(str, where))}: is no field{did_you_mean(where[-1], fields)}"
    got = "" if mistake["type"] in ("missing", "json_invalid") else f", got {_shorten(repr(mistake['input']), SHOWN)}"
    return f"{'.'.join(map(str, where)) or 'message'}: {mistake['msg']}{got}"


def find_request_id(body: bytes | None) -> str | None:
    """Return the request_id of a message, which may not be a valid request, so that its sender can be answered."""

    class Named(BaseModel):
        request_id: str = Field(pattern=f"^{REQUEST_ID.pattern}$")

    try:
        return Named.model_validate_json(body or b"").request_id
    except ValidationError:
        return None


def _shorten(reason: str, longest: int = LONGEST_REASON) -> str:
    """Return a reason as UTF-8 can hold it, cut to `longest` characters."""
    text = reason.encode(errors="replace").decode()
    return text if len(text) <= longest else f"{text[:longest]} ..."


def describe_file(path: Path) -> TensorFile:
    """Return the path, sha256 and size of one of our files. Raises OutputError if it cannot be read."""
    try:
        return TensorFile(path=str(path), sha256=hash_file(path), size=path.stat().st_size)
    except OSError as error:
        raise OutputError(f"{path}: cannot be read again: {error.strerror or error}") from error
