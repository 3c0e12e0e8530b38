"""The nodes, alone and inside the genuine ComfyUI."""

import ast
import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from latentgrid_pack import PACK, import_pack
from patience import PATIENCE
from safetensors.torch import save_file
from warm_python import PYTHON

pack = import_pack("/packs/latentgrid_nodes")
loaders = pack.loaders
LoadConditioning = pack.NODE_CLASS_MAPPINGS["LatentgridLoadConditioning"]
LoadLatent = pack.NODE_CLASS_MAPPINGS["LatentgridLoadLatent"]


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaders, "_recent", {})
    monkeypatch.setitem(sys.modules, "folder_paths", None)  # no ComfyUI around


@pytest.fixture
def input_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ComfyUI's input directory, while the working directory is another one."""
    for name in ("work", "input"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    fake = SimpleNamespace(get_input_directory=lambda: str(tmp_path / "input"))
    monkeypatch.setitem(sys.modules, "folder_paths", fake)
    return tmp_path / "input"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """The files that were really read, in order."""
    read: list[Path] = []
    original = loaders.read_conditioning

    def read_conditioning(path: Path) -> Any:
        read.append(path)
        return original(path)

    monkeypatch.setattr(loaders, "read_conditioning", read_conditioning)
    yield read


def save_cond(path: Path, value: float = 0.5) -> str:
    torch.save([torch.full((1, 4, 8), value), {"reference_latents": [torch.zeros(1, 16, 1, 2, 2)]}], path)
    return str(path)


# What ComfyUI sees


def test_the_mappings_name_the_same_nodes() -> None:
    assert set(pack.NODE_CLASS_MAPPINGS) == set(pack.NODE_DISPLAY_NAME_MAPPINGS)
    assert all(name.startswith("Latentgrid") for name in pack.NODE_CLASS_MAPPINGS)


@pytest.mark.parametrize(("node", "gives"), [(LoadConditioning, "CONDITIONING"), (LoadLatent, "LATENT")])
def test_the_nodes_describe_themselves(node: Any, gives: str) -> None:
    assert node.CATEGORY == "latentgrid"
    assert node.RETURN_TYPES == node.RETURN_NAMES == (gives,)
    assert len(node.OUTPUT_TOOLTIPS) == 1
    assert "NaN" in node.DESCRIPTION
    kind, options = node.INPUT_TYPES()["required"]["path"]
    assert kind == "STRING"
    assert ".safetensors" in options["tooltip"]
    assert callable(getattr(node(), node.FUNCTION))


def test_the_pack_imports_only_relatively_and_from_what_comfyui_has() -> None:
    allowed = {"torch", "safetensors", "folder_paths", *sys.stdlib_module_names}
    for file in PACK.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= allowed, file
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                assert str(node.module).split(".")[0] in allowed, file


def test_the_folder_of_the_packs_is_no_package() -> None:
    assert not (PACK.parent / "__init__.py").exists()


# Loading


def test_load_conditioning(tmp_path: Path) -> None:
    ([[tensor, metadata]],) = LoadConditioning().load(save_cond(tmp_path / "c.pt"))
    assert tensor.shape == (1, 4, 8)
    assert set(metadata) == {"reference_latents"}


def test_load_latent(tmp_path: Path) -> None:
    save_file({"latent_tensor": torch.ones(1, 16, 1, 4, 6)}, tmp_path / "l.latent")
    (latent,) = LoadLatent().load(str(tmp_path / "l.latent"))
    assert math.isclose(float(latent["samples"].mean()), 1 / 0.18215, rel_tol=1e-6)


@pytest.mark.parametrize("node", [LoadConditioning, LoadLatent])
def test_validating_says_what_loading_raises(tmp_path: Path, node: Any) -> None:
    path = str(tmp_path / "missing.pt")
    with pytest.raises(loaders.TensorFileError) as caught:
        node().load(path)
    assert node.VALIDATE_INPUTS(path) == str(caught.value) == f"{path}: does not exist."


def test_validating_reads_the_whole_file(tmp_path: Path) -> None:
    good, bad = save_cond(tmp_path / "good.pt"), save_cond(tmp_path / "bad.pt", float("nan"))
    assert LoadConditioning.VALIDATE_INPUTS(good) is True
    assert "has 32 NaN" in LoadConditioning.VALIDATE_INPUTS(bad)
    torch.save({"samples": torch.zeros(4, 4, 6)}, tmp_path / "flat.pt")
    assert "must be 4-D" in LoadLatent.VALIDATE_INPUTS(str(tmp_path / "flat.pt"))


@pytest.mark.parametrize("node", [LoadConditioning, LoadLatent])
def test_a_linked_path_is_not_known_before_the_run(node: Any) -> None:
    assert node.VALIDATE_INPUTS(path=None) is True
    assert math.isnan(node.IS_CHANGED(path=None))


# Finding the file


def test_relative_to_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_cond(tmp_path / "c.pt")
    monkeypatch.chdir(tmp_path)
    assert LoadConditioning.VALIDATE_INPUTS("c.pt") is True
    assert loaders.locate("./c.pt") == (tmp_path / "c.pt").resolve()


def test_relative_to_the_input_directory(input_directory: Path) -> None:
    (input_directory / "sub").mkdir()
    save_cond(input_directory / "sub" / "c.pt")
    assert LoadConditioning.VALIDATE_INPUTS("sub/c.pt") is True


def test_the_working_directory_comes_first(input_directory: Path) -> None:
    save_cond(input_directory / "c.pt")
    save_cond(Path("c.pt"))
    assert loaders.locate("c.pt") == Path("c.pt").resolve()


def test_nearby_name_in_the_input_directory(input_directory: Path) -> None:
    save_cond(input_directory / "positive.pt")
    message = LoadConditioning.VALIDATE_INPUTS("positve.pt")
    assert message == f"{(input_directory / 'positve.pt').resolve()}: does not exist. Did you mean 'positive.pt'?"


def test_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    save_cond(tmp_path / "c.pt")
    assert LoadConditioning.VALIDATE_INPUTS("~/c.pt") is True


@pytest.mark.parametrize("path", ["", "  "])
def test_no_path(path: str) -> None:
    assert LoadConditioning.VALIDATE_INPUTS(path).startswith("path is empty. Give the path of a file")


@pytest.mark.parametrize("path", ["\0.pt", "~no-such-user-here/c.pt", "x" * 5000 + ".pt"])
def test_texts_that_are_no_path(path: str) -> None:
    assert "is not a path that can be used" in LoadLatent.VALIDATE_INPUTS(path)
    assert LoadLatent.IS_CHANGED(path) == f"missing: {path}"


# Changes


def test_fingerprint_follows_the_file(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    assert LoadConditioning.IS_CHANGED(str(path)) == f"missing: {path}"
    save_cond(path)
    first = LoadConditioning.IS_CHANGED(str(path))
    assert first == hashlib.sha256(path.read_bytes()).hexdigest()
    os.utime(path, ns=(1, 1))
    assert LoadConditioning.IS_CHANGED(str(path)) == first
    changed = bytearray(path.read_bytes())
    changed[-1] ^= 1
    path.write_bytes(changed)
    assert LoadConditioning.IS_CHANGED(str(path)) == hashlib.sha256(changed).hexdigest() != first


def test_validating_and_loading_read_once(tmp_path: Path, reads: list[Path]) -> None:
    path = save_cond(tmp_path / "c.pt")
    assert LoadConditioning.VALIDATE_INPUTS(path) is True
    LoadConditioning().load(path)
    LoadConditioning().load(path)
    assert reads == [Path(path).resolve()]


def test_each_load_gives_containers_of_its_own(tmp_path: Path) -> None:
    path = save_cond(tmp_path / "c.pt")
    (first,) = LoadConditioning().load(path)
    first[0][1]["reference_latents"].append("changed")
    first[0][1]["strength"] = 2.0
    first.clear()
    (second,) = LoadConditioning().load(path)
    (third,) = LoadConditioning().load(path)
    assert set(second[0][1]) == {"reference_latents"}
    assert len(second[0][1]["reference_latents"]) == 1
    assert second[0][0] is third[0][0]  # the tensors are shared, not copied


def test_a_changed_file_is_read_again(tmp_path: Path, reads: list[Path]) -> None:
    path = save_cond(tmp_path / "c.pt", 1.0)
    LoadConditioning().load(path)
    save_cond(tmp_path / "c.pt", 2.0)
    os.utime(path, ns=(1, 1))
    ([[tensor, _]],) = LoadConditioning().load(path)
    assert tensor.max() == 2.0
    assert len(reads) == 2
    assert len(loaders._recent) == 1  # the old content is let go at once


def test_few_files_are_remembered(tmp_path: Path, reads: list[Path]) -> None:
    paths = [save_cond(tmp_path / f"{i}.pt") for i in range(loaders.RECENT_LIMIT + 2)]
    for path in paths:
        LoadConditioning().load(path)
    assert len(loaders._recent) == loaders.RECENT_LIMIT
    LoadConditioning().load(paths[-1])
    LoadConditioning().load(paths[0])
    assert len(reads) == len(paths) + 1


def test_a_file_read_as_conditioning_is_still_checked_as_latent(tmp_path: Path) -> None:
    path = save_cond(tmp_path / "c.pt")
    assert LoadConditioning.VALIDATE_INPUTS(path) is True
    assert "a latent is a tensor" in LoadLatent.VALIDATE_INPUTS(path)


def test_a_mended_file_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "c.pt").write_bytes(b"broken")
    assert LoadConditioning.VALIDATE_INPUTS(str(tmp_path / "c.pt")) is not True
    assert LoadConditioning.VALIDATE_INPUTS(save_cond(tmp_path / "c.pt")) is True


# In ComfyUI

IN_COMFYUI = """
import asyncio, json, sys
from pathlib import Path

tree, folder, packs = sys.argv[1:]
sys.path.insert(0, tree)
from comfy.cli_args import args

args.cpu = True
from utils.extra_config import load_extra_path_config  # before nodes, whose path hides it in older ComfyUI
import execution, folder_paths, nodes
import torch

work = Path(folder)
folder_paths.set_input_directory(folder)
folder_paths.set_output_directory(folder)


def prompt(path):
    load = {"class_type": "LatentgridLoadLatent", "inputs": {"path": path}}
    return {"1": load, "2": {"class_type": "SaveLatent", "inputs": {"samples": ["1", 0], "filename_prefix": "x"}}}


async def main():
    load_extra_path_config(str(work / "extra_model_paths.yaml"))
    loaded = await nodes.load_custom_node(packs + "/latentgrid")
    good = await execution.validate_prompt("good", prompt("first.pt"), None)
    wrong = await execution.validate_prompt("wrong", prompt("frist.pt"), None)
    ours = nodes.NODE_CLASS_MAPPINGS["LatentgridLoadLatent"]()
    save = nodes.SaveLatent()
    getattr(save, save.FUNCTION)(ours.load("first.pt")[0], "saved")
    (saved,) = (path.name for path in work.glob("saved*.latent"))
    same = [
        torch.equal(ours.load(name)[0]["samples"], nodes.LoadLatent().load(name)[0]["samples"])
        for name in (saved, "old.latent")
    ]
    return {
        "searched": folder_paths.get_folder_paths("custom_nodes"),
        "loaded": loaded,
        "module": ours.RELATIVE_PYTHON_MODULE,
        "good": good[0],
        "wrong": wrong[0],
        "details": [error["details"] for error in wrong[3]["1"]["errors"]],
        "same": same,
    }


print("RESULT " + json.dumps(asyncio.run(main())))
"""


def run_in_comfyui(comfyui_path: Path, folder: Path) -> dict[str, Any]:
    """What the script above found out, in a process of its own: ComfyUI's modules have very common names."""
    command = [PYTHON, "-c", IN_COMFYUI, str(comfyui_path), str(folder), str(PACK.parent)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE)
    results = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert results, done.stderr
    return json.loads(results[0].removeprefix("RESULT "))


def test_inside_comfyui(comfyui_path: Path, tmp_path: Path) -> None:
    samples = torch.linspace(-3, 3, 16 * 24).reshape(1, 16, 1, 4, 6)
    torch.save({"samples": samples}, tmp_path / "first.pt")
    save_file({"latent_tensor": samples}, tmp_path / "old.latent")
    (tmp_path / "extra_model_paths.yaml").write_text(f"latentgrid:\n  custom_nodes: {PACK.parent}\n")
    found = run_in_comfyui(comfyui_path, tmp_path)
    assert str(PACK.parent) in found["searched"]
    assert found["loaded"] is True
    assert found["module"] == "custom_nodes.latentgrid"
    assert found["good"] is True
    assert found["wrong"] is False
    missing = f"{(tmp_path / 'frist.pt').resolve()}: does not exist. Did you mean 'first.pt'?"
    assert found["details"] == [f"path - {missing}"]
    assert found["same"] == [True, True]
