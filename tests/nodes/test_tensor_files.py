"""Reading and checking conditioning and latent files."""

import math
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from latentgrid_pack import import_pack
from safetensors.torch import save_file

tensor_files = import_pack("/packs/latentgrid_files").tensor_files
read_conditioning: Callable[[Path], Any] = tensor_files.read_conditioning
read_latent: Callable[[Path], Any] = tensor_files.read_latent
TensorFileError: type[ValueError] = tensor_files.TensorFileError

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]


def cond(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    shape = shape or (1, 4, 8)
    return torch.linspace(-1, 1, math.prod(shape)).reshape(shape).to(dtype)


def refusal(read: Callable[[Path], Any], path: Path) -> str:
    """The error's message, less the file's name, which it must begin with."""
    with pytest.raises(TensorFileError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def assert_owned(tensor: torch.Tensor) -> None:
    assert type(tensor) is torch.Tensor
    assert tensor.device.type == "cpu"
    assert tensor.is_contiguous()
    assert not tensor.requires_grad
    assert not tensor.is_inference()
    assert tensor.untyped_storage().nbytes() == tensor.nbytes


# Conditioning: what is read


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".PT"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda tensor: tensor,
        lambda tensor: [tensor, {}],
        lambda tensor: (tensor, OrderedDict()),
        lambda tensor: [[tensor, {}]],
        lambda tensor: ((tensor, {}),),
        lambda tensor: torch.nn.Parameter(tensor),
    ],
    ids=["tensor", "pair", "tuple pair", "list of pairs", "tuple of tuples", "parameter"],
)
def test_pickled_conditioning(tmp_path: Path, wrap: Callable[[torch.Tensor], Any], suffix: str) -> None:
    path = tmp_path / f"cond{suffix}"
    torch.save(wrap(cond()), path)
    [[tensor, metadata]] = read_conditioning(path)
    assert torch.equal(tensor, cond())
    assert type(metadata) is dict
    assert metadata == {}
    assert_owned(tensor)


def test_pickled_conditioning_in_the_format_of_old_torch(tmp_path: Path) -> None:
    torch.save([cond(), {}], tmp_path / "cond.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(read_conditioning(tmp_path / "cond.pt")[0][0], cond())


def test_several_pairs_keep_their_metadata(tmp_path: Path) -> None:
    path = tmp_path / "cond.pt"
    reference = cond(1, 16, 1, 4, 4)
    torch.save([[cond(), {"strength": 0.5}], (cond(2, 3, 8), {"reference_latents": [reference]})], path)
    first, second = read_conditioning(path)
    assert type(first) is type(second) is list
    assert first[1] == {"strength": 0.5}
    assert second[0].shape == (2, 3, 8)
    assert torch.equal(second[1]["reference_latents"][0], reference)


@pytest.mark.parametrize("suffix", [".safetensors", ".sft"])
@pytest.mark.parametrize("name", ["conditioning", "cond"])
def test_safetensors_conditioning(tmp_path: Path, name: str, suffix: str) -> None:
    path = tmp_path / f"c{suffix}"
    mask = torch.ones(1, 4, dtype=torch.int64)
    save_file({"attention_mask": mask, name: cond(), "pooled_output": cond(1, 8)}, path)
    [[tensor, metadata]] = read_conditioning(path)
    assert torch.equal(tensor, cond())
    assert set(metadata) == {"attention_mask", "pooled_output"}
    assert torch.equal(metadata["attention_mask"], mask)
    assert_owned(tensor)
    assert_owned(metadata["pooled_output"])


def test_the_only_tensor_of_a_safetensors_file_needs_no_name(tmp_path: Path) -> None:
    save_file({"prompt_embeds": cond()}, tmp_path / "c.safetensors")
    [[tensor, metadata]] = read_conditioning(tmp_path / "c.safetensors")
    assert torch.equal(tensor, cond())
    assert metadata == {}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_dtypes_are_kept(tmp_path: Path, dtype: torch.dtype, suffix: str) -> None:
    path = tmp_path / f"c{suffix}"
    tensor = cond(dtype=dtype)
    torch.save(tensor, path) if suffix == ".pt" else save_file({"cond": tensor}, path)
    [[read, _]] = read_conditioning(path)
    assert read.dtype == dtype
    assert torch.equal(read.float(), tensor.float())


def test_a_view_is_read_without_the_tensor_it_looks_into(tmp_path: Path) -> None:
    large = cond(1, 100, 8)
    torch.save(
        [large.transpose(1, 2), {"first": large[:, :1], "spread": large[:, :1].expand(1, 5, 8)}], tmp_path / "c.pt"
    )
    [[tensor, metadata]] = read_conditioning(tmp_path / "c.pt")
    assert_owned(tensor)
    assert_owned(metadata["first"])
    assert_owned(metadata["spread"])


def test_tensors_read_in_inference_mode_are_ordinary(tmp_path: Path) -> None:
    torch.save([cond(), {"pooled_output": cond(1, 8)}], tmp_path / "c.pt")
    with torch.inference_mode():
        [[tensor, metadata]] = read_conditioning(tmp_path / "c.pt")
    assert_owned(tensor)
    assert_owned(metadata["pooled_output"])


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_the_file_may_be_overwritten_while_its_tensors_are_in_use(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"c{suffix}"
    torch.save(cond(), path) if suffix == ".pt" else save_file({"cond": cond()}, path)
    [[tensor, _]] = read_conditioning(path)
    with path.open("r+b") as file:  # the same inode, as a mapping would still see it
        file.write(b"\0" * path.stat().st_size)
        file.truncate(0)
    assert torch.equal(tensor, cond())


def test_large_numbers_are_not_taken_for_infinite(tmp_path: Path) -> None:
    largest = torch.full((1, 1, 2), torch.finfo(torch.float64).max, dtype=torch.float64)
    torch.save(largest, tmp_path / "c.pt")
    assert torch.equal(read_conditioning(tmp_path / "c.pt")[0][0], largest)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return type(b) is dict and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


tensors = st.builds(
    lambda shape, dtype: torch.arange(math.prod(shape)).reshape(shape).to(dtype),
    st.lists(st.integers(0, 3), max_size=4),
    st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.bool]),
)
names = st.text(max_size=8)
leaves = st.none() | st.booleans() | st.integers(-(2**31), 2**31 - 1) | st.floats(allow_nan=False) | names | tensors
nested = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(names, inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(metadata=st.dictionaries(names, nested, max_size=4))
def test_metadata_round_trip(tmp_path: Path, metadata: dict[str, Any]) -> None:
    torch.save([cond(), metadata], tmp_path / "c.pt")
    assert same(metadata, read_conditioning(tmp_path / "c.pt")[0][1])


# Latent: what is read


@pytest.mark.parametrize("shape", [(1, 16, 4, 6), (2, 16, 1, 4, 6)], ids=["image", "video"])
@pytest.mark.parametrize("wrapped", [True, False])
def test_pickled_latent(tmp_path: Path, shape: tuple[int, ...], wrapped: bool) -> None:
    path = tmp_path / "latent.pt"
    torch.save({"samples": cond(*shape)} if wrapped else cond(*shape), path)
    latent = read_latent(path)
    assert set(latent) == {"samples"}
    assert torch.equal(latent["samples"], cond(*shape))
    assert_owned(latent["samples"])


def test_other_entries_of_a_latent_are_kept(tmp_path: Path) -> None:
    mask = torch.ones(1, 4, 6)
    torch.save({"samples": cond(1, 4, 4, 6), "noise_mask": mask, "batch_index": [0]}, tmp_path / "l.pt")
    save_file({"samples": cond(1, 4, 4, 6), "noise_mask": mask}, tmp_path / "l.safetensors")
    pickled, plain = read_latent(tmp_path / "l.pt"), read_latent(tmp_path / "l.safetensors")
    assert pickled["batch_index"] == [0]
    assert torch.equal(pickled["noise_mask"], mask)
    assert torch.equal(plain["noise_mask"], mask)


@pytest.mark.parametrize("suffix", [".latent", ".safetensors", ".sft"])
@pytest.mark.parametrize("marked", [True, False])
def test_latent_of_comfyui(tmp_path: Path, suffix: str, marked: bool) -> None:
    samples = cond(1, 4, 4, 6, dtype=torch.float16)
    mark = {"latent_format_version_0": torch.tensor([])} if marked else {}
    save_file({"latent_tensor": samples, **mark}, tmp_path / f"l{suffix}")
    latent = read_latent(tmp_path / f"l{suffix}")
    assert set(latent) == {"samples"}
    assert latent["samples"].dtype == torch.float32
    assert torch.equal(latent["samples"], samples.float() * (1.0 if marked else 1.0 / 0.18215))


def test_the_only_tensor_of_a_latent_file_is_read_as_it_is(tmp_path: Path) -> None:
    samples = cond(1, 4, 4, 6, dtype=torch.bfloat16)
    save_file({"x": samples}, tmp_path / "l.latent")
    read = read_latent(tmp_path / "l.latent")["samples"]
    assert read.dtype == torch.bfloat16
    assert torch.equal(read, samples)


# Files that cannot be read


@pytest.mark.parametrize("read", [read_conditioning, read_latent])
@pytest.mark.parametrize(
    ("name", "meant"),
    [("positve.pt", "positive.pt"), ("Positive.pt", "positive.pt"), ("positive.safetensors", "positive.pt")],
)
def test_missing_file_with_a_nearby_name(tmp_path: Path, read: Callable[[Path], Any], name: str, meant: str) -> None:
    (tmp_path / meant).touch()
    (tmp_path / "positive.txt").touch()
    assert refusal(read, tmp_path / name) == f"does not exist. Did you mean {meant!r}?"


def test_missing_file_with_nothing_nearby(tmp_path: Path) -> None:
    (tmp_path / "unlike.pt").touch()
    assert refusal(read_conditioning, tmp_path / "positive.pt") == "does not exist."


@pytest.mark.parametrize("folder", ["nowhere", "file.pt"])
def test_missing_folder(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file.pt").touch()
    message = refusal(read_conditioning, tmp_path / folder / "positive.pt")
    assert message == f"does not exist, and neither does its folder {tmp_path / folder}."


def test_folder(tmp_path: Path) -> None:
    assert "is a folder" in refusal(read_latent, tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    assert refusal(read_latent, tmp_path / "pipe.pt") == "is not an ordinary file."


@pytest.mark.parametrize("name", ["c.pt", "c.safetensors"])
def test_file_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / name).write_bytes(b"x")
    monkeypatch.setattr(Path, "open", refuse)  # chmod would not keep root out
    assert refusal(read_conditioning, tmp_path / name) == "cannot be opened (Permission denied)."


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors", ".sft", ".latent"])
def test_empty_file(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"l{suffix}").touch()
    assert refusal(read_latent, tmp_path / f"l{suffix}").startswith("is empty (0 bytes)")


@pytest.mark.parametrize(
    ("read", "suffix"), [(read_conditioning, ".ckpt"), (read_conditioning, ".latent"), (read_latent, "")]
)
def test_unknown_extension(tmp_path: Path, read: Callable[[Path], Any], suffix: str) -> None:
    (tmp_path / f"c{suffix}").write_bytes(b"x")
    message = refusal(read, tmp_path / f"c{suffix}")
    assert message.startswith(f"has the extension {suffix!r}; it must be one of .pt, .pth, .safetensors, .sft")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_git_lfs_pointer(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"c{suffix}").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert "git lfs pull" in refusal(read_conditioning, tmp_path / f"c{suffix}")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.9, 0.999])
def test_file_cut_short(tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"c{suffix}"
    torch.save(cond(), path) if suffix == ".pt" else save_file({"cond": cond()}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    message = refusal(read_conditioning, path)
    assert message.startswith("cannot be read")
    assert "damaged, cut short or of another format" in message


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(garbage=st.binary(min_size=1, max_size=300), suffix=st.sampled_from([".pt", ".safetensors"]))
def test_garbage(tmp_path: Path, garbage: bytes, suffix: str) -> None:
    (tmp_path / f"c{suffix}").write_bytes(garbage)
    assert len(refusal(read_conditioning, tmp_path / f"c{suffix}")) < 500


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_archive(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(tmp_path / "c.pt"))
    assert "TorchScript" in refusal(read_conditioning, tmp_path / "c.pt")


def test_pickle_protocol_that_cannot_be_read_safely(tmp_path: Path) -> None:
    torch.save(cond(), tmp_path / "c.pt", pickle_protocol=4)
    message = refusal(read_conditioning, tmp_path / "c.pt")
    assert message.endswith("Save a conditioning by torch.save([tensor, {...}], path), in its default pickle protocol.")


# Files that would execute code


class Calling:
    """Pickled, it calls ``function(*arguments)`` in whoever loads it."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def dump_plainly(value: Any, path: Path, pickle_protocol: int) -> None:
    with path.open("wb") as file:
        pickle.dump(value, file, protocol=pickle_protocol)


def save_as_old_torch(value: Any, path: Path, pickle_protocol: int) -> None:
    torch.save(value, path, pickle_protocol=pickle_protocol, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("save", [torch.save, save_as_old_torch, dump_plainly])
@pytest.mark.parametrize(
    ("read", "advice"), [(read_conditioning, "torch.save([tensor,"), (read_latent, "torch.save({")]
)
def test_malicious_pickle_is_not_executed(
    tmp_path: Path, read: Callable[[Path], Any], advice: str, save: Callable[..., None], protocol: int
) -> None:
    proof, path = tmp_path / "executed", tmp_path / "evil.pt"
    save(Calling(os.mkdir, str(proof)), path, pickle_protocol=protocol)
    message = refusal(read, path)
    assert not proof.exists()
    assert message.startswith(f"would execute code if it were loaded (it calls {os.mkdir.__module__}.mkdir)")
    assert "NOT loaded" in message
    assert advice in message
    assert "weights_only" not in message  # torch's own advice is to switch the protection off
    # Only now is it certain that the file was a real threat.
    pickle.loads(pickle.dumps(Calling(os.mkdir, str(proof))))
    assert proof.exists()


@pytest.mark.parametrize("protocol", [2, 4])
def test_malicious_metadata_is_not_executed(tmp_path: Path, protocol: int) -> None:
    proof, path = tmp_path / "executed", tmp_path / "evil.pt"
    torch.save([cond(), {"hooks": Calling(eval, f"open({str(proof)!r}, 'w')")}], path, pickle_protocol=protocol)
    assert "eval), so it was NOT loaded" in refusal(read_conditioning, path)
    assert not proof.exists()


def test_pickled_object_that_is_no_tensor(tmp_path: Path) -> None:
    torch.save([cond(), {"source": Path("prompt.txt")}], tmp_path / "c.pt")
    assert "it calls pathlib." in refusal(read_conditioning, tmp_path / "c.pt")


def test_protection_cannot_be_switched_off_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save(Calling(os.mkdir, str(tmp_path / "executed")), tmp_path / "evil.pt")
    assert "NOT loaded" in refusal(read_conditioning, tmp_path / "evil.pt")
    assert not (tmp_path / "executed").exists()


# Files of the wrong structure


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"cond": cond(), "pooled_output": cond(1, 8)}, "a dict of 2 keys ('cond', 'pooled_output')"),
        ({str(i): i for i in range(9)}, "a dict of 9 keys ('0', '1', '2', '3', '4', ...)"),
        ([], "an empty list"),
        ([cond()], "a list of 1 (Tensor)"),
        ([cond(), cond()], "a list of 2 (Tensor, Tensor)"),
        ([[cond(), {}], [cond()]], "a list of 2 (list, list)"),
        ([cond(), {}, {}, {}], "a list of 4 (Tensor, dict, dict, ...)"),
        ("text", "a str"),
        (None, "a NoneType"),
    ],
)
def test_wrong_structure_of_a_conditioning(tmp_path: Path, value: Any, found: str) -> None:
    torch.save(value, tmp_path / "c.pt")
    assert refusal(read_conditioning, tmp_path / "c.pt") == (
        f"holds {found}; a conditioning is a tensor or [tensor, metadata]. "
        "Save a conditioning by torch.save([tensor, {...}], path)."
    )


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"latent": cond(1, 4, 4, 6)}, "a dict of 1 key ('latent')"),
        ({"samples": [1.0]}, "a dict of 1 key ('samples')"),
        ([[cond(), {}]], "a list of 1 (list)"),
    ],
)
def test_wrong_structure_of_a_latent(tmp_path: Path, value: Any, found: str) -> None:
    torch.save(value, tmp_path / "l.pt")
    assert refusal(read_latent, tmp_path / "l.pt").startswith(f"holds {found}; a latent is a tensor or {{")


@pytest.mark.parametrize(
    ("read", "names", "found"),
    [
        (read_conditioning, ["a", "b"], "2 tensors ('a', 'b')"),
        (read_conditioning, ["cond", "conditioning"], "2 tensors ('cond', 'conditioning')"),
        (read_latent, ["latent_tensor", "samples"], "2 tensors ('latent_tensor', 'samples')"),
        (read_latent, [], "0 tensors"),
        (read_conditioning, [f"blocks.{i}" for i in range(7)], "7 tensors ('blocks.0', 'blocks.1', "),
    ],
)
def test_safetensors_without_a_clear_tensor(
    tmp_path: Path, read: Callable[[Path], Any], names: list[str], found: str
) -> None:
    save_file({name: cond(1, 1, 2) for name in names}, tmp_path / "x.safetensors")
    message = refusal(read, tmp_path / "x.safetensors")
    assert message.startswith(f"holds {found}")
    assert "Exactly one must be called " in message


def test_metadata_without_names(tmp_path: Path) -> None:
    torch.save([cond(), {1: 2}], tmp_path / "c.pt")
    assert "metadata must have names as keys, got a dict of 1 key (1)" in refusal(read_conditioning, tmp_path / "c.pt")


def test_metadata_that_holds_itself(tmp_path: Path) -> None:
    metadata: dict[str, Any] = {}
    metadata["self"] = metadata
    torch.save([cond(), metadata], tmp_path / "c.pt")
    assert "holds itself" in refusal(read_conditioning, tmp_path / "c.pt")


# Tensors that would spoil a run


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (cond(4, 8), "must be 3-D [batch, tokens, channels], got a float32 tensor of shape [4, 8]. Add the batch dim"),
        (cond(1, 4, 4, 6), "must be 3-D [batch, tokens, channels], got a float32 tensor of shape [1, 4, 4, 6]."),
        (torch.tensor(1.0), "must be 3-D [batch, tokens, channels], got a float32 tensor of shape []."),
        (cond(1, 0, 8), "has an empty dimension, got a float32 tensor of shape [1, 0, 8]."),
        (cond(dtype=torch.int64), "must be floating point, got an int64 tensor of shape [1, 4, 8]."),
        (cond(dtype=torch.complex64), "must be floating point, got a complex64 tensor"),
    ],
)
def test_unfit_conditioning(tmp_path: Path, tensor: torch.Tensor, reason: str, suffix: str) -> None:
    path = tmp_path / f"c{suffix}"
    torch.save(tensor, path) if suffix == ".pt" else save_file({"cond": tensor}, path)
    assert refusal(read_conditioning, path).startswith(f"the conditioning {reason}")


@pytest.mark.parametrize("suffix", [".pt", ".latent"])
@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (cond(4, 4, 6), "must be 4-D [batch, channels, height, width] or 5-D [batch, channels, frames, height, width]"),
        (cond(1, 1, 4, 1, 4, 6), "must be 4-D [batch, channels, height, width] or 5-D [batch, channels, frames, "),
        (cond(1, 4, 0, 6), "has an empty dimension, got a float32 tensor of shape [1, 4, 0, 6]."),
        (cond(1, 4, 4, 6, dtype=torch.uint8), "must be floating point, got a uint8 tensor"),
    ],
)
def test_unfit_latent(tmp_path: Path, tensor: torch.Tensor, reason: str, suffix: str) -> None:
    path = tmp_path / f"l{suffix}"
    if suffix == ".pt":
        torch.save({"samples": tensor}, path)
        assert refusal(read_latent, path).startswith(f"samples {reason}")
    else:
        save_file({"latent_tensor": tensor}, path)
        assert refusal(read_latent, path).startswith(f"latent_tensor {reason}")


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_nan_and_inf_are_counted(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = cond(1, 4, 8)
    tensor[0, 0, :3] = float("nan")
    infinite = dtype != torch.float8_e4m3fn  # this type has no infinity
    if infinite:
        tensor[0, 1, :2] = torch.tensor([float("inf"), float("-inf")])
    torch.save(tensor.to(dtype), tmp_path / "c.pt")
    message = refusal(read_conditioning, tmp_path / "c.pt")
    assert message.startswith(f"the conditioning has 3 NaN and {2 if infinite else 0} Inf among its 32 values")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".latent"])
def test_nan_in_a_latent(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"l{suffix}"
    samples = torch.full((1, 4, 1, 2, 2), float("nan"), dtype=torch.bfloat16)
    torch.save(samples, path) if suffix == ".pt" else save_file({"latent_tensor": samples}, path)
    assert "has 16 NaN and 0 Inf among its 16 values" in refusal(read_latent, path)


@pytest.mark.parametrize(
    ("metadata", "where"),
    [
        ({"pooled_output": torch.tensor([[float("inf")]])}, "metadata['pooled_output']"),
        ({"reference_latents": [cond(1, 2), torch.tensor(float("inf"))]}, "metadata['reference_latents'][1]"),
        ({"a": ({"b": torch.tensor(complex(float("inf"), 0))},)}, "metadata['a'][0]['b']"),
    ],
)
def test_infinite_metadata_is_found(tmp_path: Path, metadata: dict[str, Any], where: str) -> None:
    torch.save([cond(), metadata], tmp_path / "one.pt")
    torch.save([[cond(), {}], [cond(), metadata]], tmp_path / "two.pt")
    assert refusal(read_conditioning, tmp_path / "one.pt").startswith(f"{where} has 0 NaN and 1 Inf")
    assert refusal(read_conditioning, tmp_path / "two.pt").startswith(f"pair 1: {where} has 0 NaN and 1 Inf")


def test_infinite_entry_of_a_latent_is_found(tmp_path: Path) -> None:
    torch.save({"samples": cond(1, 4, 4, 6), "noise_mask": torch.tensor([float("nan")])}, tmp_path / "l.pt")
    assert refusal(read_latent, tmp_path / "l.pt").startswith("latent['noise_mask'] has 1 NaN")


UNUSUAL = {
    "sparse (torch.sparse_coo)": lambda: cond().to_sparse(),
    "sparse (torch.sparse_csr)": lambda: cond(4, 8).to_sparse_csr(),
    "quantized (qint8)": lambda: torch.quantize_per_tensor(cond(), 0.1, 0, torch.qint8),
    "quantized (float4_e2m1fn_x2)": lambda: torch.zeros(1, 4, 8, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
    "meta (without data)": lambda: torch.empty(1, 4, 8, device="meta"),
    "nested": lambda: torch.nested.nested_tensor([cond(4, 8), cond(2, 8)]),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", UNUSUAL)
def test_unusual_tensors_are_refused_wherever_they_are(tmp_path: Path, kind: str) -> None:
    tensor = UNUSUAL[kind]()
    torch.save(tensor, tmp_path / "a.pt")
    torch.save([cond(), {"x": [tensor]}], tmp_path / "b.pt")
    torch.save({"samples": tensor}, tmp_path / "c.pt")
    assert refusal(read_conditioning, tmp_path / "a.pt").startswith(f"the conditioning is a {kind} tensor.")
    assert refusal(read_conditioning, tmp_path / "b.pt").startswith(f"metadata['x'][0] is a {kind} tensor.")
    assert refusal(read_latent, tmp_path / "c.pt").startswith(f"samples is a {kind} tensor.")


def test_no_warning_escapes(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    # Sparse tensors make torch.load warn, which would end a test or a strict program with torch's words, not ours.
    torch.save(cond().to_sparse(), tmp_path / "c.pt")
    recwarn.clear()
    assert "sparse" in refusal(read_conditioning, tmp_path / "c.pt")
    assert not recwarn.list


def test_archive_of_another_program(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "c.pt", "w") as archive:
        archive.writestr("notes.txt", "not a tensor")
    assert refusal(read_conditioning, tmp_path / "c.pt").startswith("cannot be read")
