"""`python -m pipeline models fetch`, with the real huggingface_hub, against a stand-in for the hub."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from model_hub import Hub
from patience import PATIENCE
from warm_python import PYTHON

UNET, LORA = "split_files/diffusion_models/unet.safetensors", "lora.safetensors"
SIZE = 600_000

# The sets are those of a folder of the test, and small bodies have several chunks; `{before}` is what else differs.
SCRIPT = """
import sys
from pathlib import Path
from huggingface_hub import constants
from pipeline import cli
from pipeline.models import fetch, sets
folder = Path(sys.argv[1])
fetch.list_model_sets = lambda: sets.list_model_sets(folder)
constants.DOWNLOAD_CHUNK_SIZE = 50_000
{before}
cli.main(sys.argv[2:])
"""


class Fetching:
    """A hub, a folder of model sets with `pair` in it, and a models folder."""

    def __init__(self, folder: Path, environment: dict[str, str]):
        self.hub = Hub()
        self.storage = self.hub.storage
        self.sets, self.models = folder / "sets", folder / "models"
        self.sets.mkdir()
        self.models.mkdir()
        mine = {"HF_ENDPOINT": self.hub.url, "HF_HOME": str(folder / "hf"), "XDG_CACHE_HOME": str(folder / "cache")}
        self.environment = {**environment, **mine, "HF_TOKEN": "hf_test", "NO_PROXY": "127.0.0.1"}
        self.entries = [
            self.make_entry("diffusion_models", "org/unets", UNET, self.hub.add(f"org/unets/{UNET}", SIZE, 1)),
            self.make_entry("loras", "org/loras", LORA, self.hub.add(f"org/loras/{LORA}", SIZE // 4, 2)),
        ]
        self.unet, self.lora = self.models / "diffusion_models/unet.safetensors", self.models / "loras" / LORA
        self.write_set()

    def make_entry(self, folder: str, repo: str, path: str, sha256: str) -> dict[str, str]:
        return {"folder": folder, "repo": repo, "revision": "main", "path": path, "sha256": sha256}

    def write_set(self) -> None:
        (self.sets / "pair.yaml").write_text(yaml.safe_dump(self.entries))

    def start(self, name: str = "pair", before: str = "") -> subprocess.Popen[str]:
        code = [PYTHON, "-c", SCRIPT.format(before=before), str(self.sets)]
        command = [*code, "models", "fetch", name, f"comfyui.models=[{self.models}]"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, env=self.environment, cwd=self.models.parent, text=True, **pipes)

    def fetch(self, name: str = "pair", before: str = "", status: int = 0) -> str:
        """Run it to its end; what it printed, its log included."""
        process = self.start(name, before)
        output, log = process.communicate(timeout=PATIENCE)
        assert process.returncode == status, log
        return output + log

    def find_parts(self) -> list[Path]:
        return sorted(self.models.rglob("*.part"))

    def assert_whole(self) -> None:
        for place, entry in zip((self.unet, self.lora), self.entries, strict=True):
            assert place.read_bytes() == self.storage.bodies[entry["sha256"]]
        assert not self.find_parts()


@pytest.fixture
def fetching(tmp_path: Path, environment: dict[str, str]) -> Iterator[Fetching]:
    fetching = Fetching(tmp_path, environment)
    yield fetching
    fetching.hub.close()


def test_a_set_is_fetched_once(fetching: Fetching) -> None:
    said = fetching.fetch()
    fetching.assert_whole()
    assert said.splitlines()[:2] == [str(fetching.unet), str(fetching.lora)]
    assert fetching.storage.ranges == [None, None]
    assert fetching.storage.tokens == [None, None]  # the hub's token is not for other hosts

    said = fetching.fetch()
    assert "unet.safetensors is there" in said
    assert len(fetching.storage.ranges) == 2


def test_what_is_missing_is_fetched(fetching: Fetching) -> None:
    fetching.fetch()
    fetching.lora.unlink()
    fetching.fetch()
    fetching.assert_whole()
    assert fetching.storage.sent == SIZE + 2 * (SIZE // 4)


@pytest.mark.parametrize("resets", [False, True])
def test_a_connection_that_breaks_is_taken_up_where_it_broke(fetching: Fetching, resets: bool) -> None:
    fetching.storage.ends, fetching.storage.resets = [SIZE // 2], resets
    fetching.fetch()
    fetching.assert_whole()
    first, second, _ = fetching.storage.ranges
    assert first is None
    assert second is not None and int(second.removeprefix("bytes=").removesuffix("-")) > 0


def test_a_killed_process_is_taken_up_where_it_was(fetching: Fetching) -> None:
    fetching.storage.open.clear()
    with fetching.start() as process:
        deadline = time.monotonic() + PATIENCE
        while not (parts := fetching.find_parts()) or not parts[0].stat().st_size:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
    arrived = parts[0].stat().st_size
    assert not fetching.unet.exists()
    fetching.storage.open.set()
    assert "of it are there" in fetching.fetch()
    fetching.assert_whole()
    assert fetching.storage.ranges == [None, f"bytes={arrived}-", None]


def test_a_wrong_checksum_is_refused_and_not_kept(fetching: Fetching) -> None:
    sha256 = fetching.entries[0]["sha256"]
    fetching.storage.bodies[sha256] = random.Random(3).randbytes(SIZE)
    said = fetching.fetch(status=1)
    assert "diffusion_models/unet.safetensors: has arrived with a wrong sha256" in said
    assert not fetching.unet.exists()
    assert not fetching.find_parts()


def test_all_that_is_wrong_is_said_before_anything_is_fetched(fetching: Fetching) -> None:
    add, repos = fetching.make_entry, {"org/gated": (403, "GatedRepo"), "org/no": (401, "RepoNotFound")}
    fetching.hub.refusals = {**repos, "org/old": (404, "RevisionNotFound"), "org/down": (503, "")}
    fetching.entries += [add("vae", repo, "a.safetensors", "0" * 64) for repo in fetching.hub.refusals]
    fetching.entries += [add("loras", "org/loras", "none.safetensors", "0" * 64)]
    fetching.entries[0]["sha256"] = "1" * 64
    fetching.write_set()
    fetching.lora.parent.mkdir()
    fetching.lora.write_bytes(b"another LoRA")
    text = fetching.fetch(status=1)
    assert f"{fetching.lora}: is there and is another file (sha256 " in text
    assert "diffusion_models/unet.safetensors: the hub has another file than the model set lists" in text
    assert f"is behind a licence. Accept it at {fetching.hub.url}/org/gated, and set HF_TOKEN" in text
    assert f"the hub shows no {fetching.hub.url}/org/no. If it is private, set HF_TOKEN" in text
    assert f"{fetching.hub.url}/org/old has no a.safetensors at revision main" in text
    assert f"the hub answers 503 to {fetching.hub.url}/org/down. Try again later" in text
    assert "loras/none.safetensors: " in text and "has no none.safetensors at revision main" in text
    assert not fetching.storage.ranges


def test_a_hub_that_cannot_be_reached(fetching: Fetching) -> None:
    fetching.environment["HF_ENDPOINT"] = "http://127.0.0.1:9"
    said = fetching.fetch(status=1)
    assert said.count("the connection to http://127.0.0.1:9 failed") == 2
    fetching.environment["HF_HUB_OFFLINE"] = "1"
    assert "because HF_HUB_OFFLINE is set" in fetching.fetch(status=1)


def test_too_little_space_and_a_folder_that_cannot_be_written(fetching: Fetching) -> None:
    (fetching.models / "loras").write_text("a file where a folder should be")
    before = "import shutil; fetch.shutil.disk_usage = lambda path: shutil._ntuple_diskusage(9e9, 9e9, 500_000)"
    said = fetching.fetch(before=before, status=1)
    assert "diffusion_models: 0.6 MB are to be fetched, and 0.5 MB are free. Make room" in said
    assert "loras: cannot be written: File exists. Name another folder" in said
    assert not fetching.storage.ranges


def test_a_disk_that_fills_up_keeps_what_has_arrived(fetching: Fetching) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))"
    said = fetching.fetch(before=limit, status=1)
    assert "unet.safetensors: cannot be written: File too large. Make room. 0.4 MB of 0.6 MB are kept" in said
    assert not fetching.unet.exists()
    fetching.fetch()
    fetching.assert_whole()
    assert fetching.storage.ranges == [None, "bytes=400000-", None]


def test_two_processes_fetch_once(fetching: Fetching) -> None:
    fetching.storage.open.clear()
    with fetching.start() as first:
        deadline = time.monotonic() + PATIENCE
        while not fetching.storage.ranges:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        with fetching.start() as second:
            assert second.stderr is not None
            assert second.stderr.readline() == "another process is fetching unet.safetensors; waiting for it\n"
            fetching.storage.open.set()
            for process in (first, second):
                _, log = process.communicate(timeout=PATIENCE)
                assert process.returncode == 0, log
    fetching.assert_whole()
    assert fetching.storage.ranges == [None, None]


def test_an_unknown_set_is_refused_with_the_known_ones() -> None:
    command = [sys.executable, "-m", "pipeline", "models", "fetch"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for name, end in (("qwen_image_edit", "; did you mean 'qwen_image_edit_2509'?"), ("x", "qwen_image_edit_2509")):
        done = subprocess.run([*command, name], env=environment, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 1
        assert done.stderr.strip().startswith(f"models: {name!r} is no model set")
        assert done.stderr.strip().endswith(end)
