"""Which ComfyUI is taken, in which order, and what is said when it cannot be."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.engine.comfyui import locate
from pipeline.engine.comfyui.install import DEFAULT_VERSION
from pipeline.engine.comfyui.locate import Installation, find_comfyui, read_version
from pipeline.errors import ComfyUIError


def make_comfyui(path: Path, version: str = "0.27.0") -> Path:
    path.mkdir(parents=True)
    (path / "comfyui_version.py").write_text(f'# generated\n__version__ = "{version}"\n')
    (path / "main.py").touch()
    return path.resolve()


def choose_workspace(home: Path, text: str) -> Path:
    """Write comfy-cli's settings as `comfy set-default` does on Linux."""
    config_file = home / ".config" / "comfy-cli" / "config.ini"
    config_file.parent.mkdir(parents=True)
    config_file.write_text(text)
    return config_file


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user without any ComfyUI, on Linux; a pinned copy would be at `<tmp>/pinned/<version>`."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setattr(Path, "home", lambda: home)
    monkeypatch.setattr(locate, "sys", SimpleNamespace(platform="linux"))
    monkeypatch.setattr(locate, "install_release", lambda version: tmp_path / "pinned" / version)
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    return home


def test_order_of_sources(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = tmp_path / "pinned"
    assert find_comfyui() == Installation(pinned / DEFAULT_VERSION, DEFAULT_VERSION, "pinned copy")

    workspace = make_comfyui(tmp_path / "workspace", "0.20.1")
    choose_workspace(home, f"[DEFAULT]\ndefault_workspace = {workspace}\nrecent_workspace = /gone\n")
    assert find_comfyui() == Installation(workspace, "0.20.1", "comfy-cli workspace")

    environment = make_comfyui(tmp_path / "environment", "0.24.1")
    monkeypatch.setenv("COMFYUI_PATH", str(environment))
    assert find_comfyui() == Installation(environment, "0.24.1", "COMFYUI_PATH")

    assert find_comfyui(version="0.16.3") == Installation(pinned / "0.16.3", "0.16.3", "pinned copy")

    config = make_comfyui(tmp_path / "config", "0.26.0")
    assert find_comfyui(path=str(config)) == Installation(config, "0.26.0", "comfyui.path")
    assert find_comfyui(path=str(config), version="0.26.0").source == "comfyui.path"


def test_empty_settings_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFYUI_PATH", "")
    assert find_comfyui(path="", version="").source == "pinned copy"


def test_path_may_be_relative_or_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    comfyui = make_comfyui(tmp_path / "ComfyUI")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert find_comfyui(path="ComfyUI").path == comfyui
    assert find_comfyui(path="~/ComfyUI").path == comfyui


def test_version_must_be_that_of_the_path(tmp_path: Path) -> None:
    comfyui = make_comfyui(tmp_path / "ComfyUI", "0.27.0")
    with pytest.raises(ComfyUIError) as error:
        find_comfyui(path=str(comfyui), version="0.30.0")
    assert str(error.value) == (
        "comfyui.version: is not the version of the ComfyUI at comfyui.path, got '0.30.0', "
        f"but {str(comfyui)!r} is '0.27.0'. Give that version, or leave one of the two empty"
    )


def test_folder_without_comfyui(tmp_path: Path) -> None:
    with pytest.raises(ComfyUIError) as error:
        find_comfyui(path=str(tmp_path))
    assert str(error.value) == (
        f"comfyui.path: is not a ComfyUI folder, got {str(tmp_path)!r} (it has no comfyui_version.py). "
        "Give the folder that holds ComfyUI's main.py, or leave it empty for the pinned copy"
    )


def test_environment_is_never_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "gone"))
    with pytest.raises(ComfyUIError, match=r"^COMFYUI_PATH: is not a ComfyUI folder, got .*gone' \(it does not exist"):
        find_comfyui()


def test_folder_around_comfyui_is_not_taken_but_suggested(tmp_path: Path) -> None:
    comfyui = make_comfyui(tmp_path / "ComfyUI")
    with pytest.raises(ComfyUIError) as error:
        find_comfyui(path=str(tmp_path))
    assert f"(it has no comfyui_version.py); did you mean {str(comfyui)!r}? Give the folder" in str(error.value)


def test_file_in_comfyui_is_not_taken_but_suggested(tmp_path: Path) -> None:
    comfyui = make_comfyui(tmp_path / "ComfyUI")
    with pytest.raises(ComfyUIError) as error:
        find_comfyui(path=str(comfyui / "main.py"))
    assert f"(it is a file); did you mean {str(comfyui)!r}?" in str(error.value)


@pytest.mark.parametrize(
    ("platform", "folder"),
    [
        ("linux", ".config/comfy-cli"),
        ("darwin", "Library/Application Support/comfy-cli"),
        ("win32", "AppData/Local/comfy-cli"),
    ],
)
def test_comfy_cli_settings_of_each_platform(
    platform: str, folder: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locate, "sys", SimpleNamespace(platform=platform))
    (home / folder).mkdir(parents=True)
    workspace = make_comfyui(tmp_path / "workspace")
    (home / folder / "config.ini").write_text(f"[DEFAULT]\ndefault_workspace = {workspace}\n")
    assert find_comfyui().path == workspace


def test_workspace_that_is_gone_is_passed_over(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    choose_workspace(home, "[DEFAULT]\ndefault_workspace = /gone/ComfyUI\n")
    assert find_comfyui().source == "pinned copy"
    message = "passing over comfy-cli's default workspace '/gone/ComfyUI': it does not exist"
    assert caplog.record_tuples == [(locate.__name__, logging.WARNING, message)]


@pytest.mark.parametrize(
    "text", ["", "[DEFAULT]\n", "[DEFAULT]\ndefault_workspace =\n", "[DEFAULT]\nrecent_workspace = /gone\n"]
)
def test_comfy_cli_without_default_workspace(text: str, home: Path, caplog: pytest.LogCaptureFixture) -> None:
    choose_workspace(home, text)
    assert find_comfyui().source == "pinned copy"
    assert not caplog.records


@pytest.mark.parametrize("text", ["no section = 1\n", "[DEFAULT]\ndefault_workspace = %(nowhere)s\n"])
def test_broken_comfy_cli_settings_are_passed_over(text: str, home: Path, caplog: pytest.LogCaptureFixture) -> None:
    config_file = choose_workspace(home, text)
    assert find_comfyui().source == "pinned copy"
    assert f"passing over comfy-cli's settings in {config_file}" in caplog.text


def test_read_version_does_not_import(tmp_path: Path) -> None:
    comfyui = make_comfyui(tmp_path / "ComfyUI", "0.30.0")
    with (comfyui / "comfyui_version.py").open("a") as file:
        file.write("raise SystemExit\n")
    assert read_version(comfyui) == "0.30.0"


def test_read_version_errors(tmp_path: Path) -> None:
    with pytest.raises(ComfyUIError, match=r"cannot be read, got .*No such file"):
        read_version(tmp_path)
    (tmp_path / "comfyui_version.py").write_text("version = 1\n")
    with pytest.raises(ComfyUIError, match="without a __version__"):
        read_version(tmp_path)
