"""The code of packs: every file that may change a result counts, wherever the pack lies."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import numpy
import pytest

from pipeline.engine.comfyui import node_code
from pipeline.engine.comfyui.node_code import find_source, find_variables, read_code, read_core

NOWHERE = Path("/no/comfyui")


def write(folder: Path, **files: str) -> Path:
    """Write files, whose names have `__` for `/` and `_py` and the like for the suffix."""
    for name, text in files.items():
        stem, _, suffix = name.replace("__", "/").rpartition("_")
        path = folder / f"{stem}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


CACHES = (
    *(node_code._read_code, node_code._read_python, node_code._map_modules, node_code.locate_module),
    read_core,
)


@pytest.fixture
def pack(tmp_path):
    folder = tmp_path / "packs" / "pack"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("from .nodes import helper\n")
    return write(folder, nodes__helper_py="FACTOR = 1\n", data_txt="1")


@pytest.fixture
def hash_code():
    """Returns the sha256 of a root as a new process sees it."""

    def hash_code(root: Path, comfyui: Path = NOWHERE) -> str:
        forget()
        return read_code(root, comfyui).sha256

    yield hash_code
    forget()


def forget() -> None:
    for cached in CACHES:
        cached.cache_clear()


@pytest.mark.parametrize("name", ["nodes/helper.py", "data.txt", "__init__.py", "new/table.json"])
def test_every_file_of_a_pack_counts(pack, hash_code, name):
    before = hash_code(pack)
    (pack / name).parent.mkdir(exist_ok=True)
    (pack / name).write_text("changed")
    assert hash_code(pack) != before


@pytest.mark.parametrize("name", [".git/index", "__pycache__/a.cpython-311.pyc", "a.pyc", "run.log", "a/.cache/b.txt"])
def test_what_is_not_code_does_not_count(pack, hash_code, name):
    before = hash_code(pack)
    (pack / name).parent.mkdir(parents=True, exist_ok=True)
    (pack / name).write_text("changed")
    assert hash_code(pack) == before


def test_a_folder_that_is_linked_into_a_pack_counts_and_a_circle_ends(pack, hash_code, tmp_path):
    shared = write(tmp_path / "shared", table_txt="1")
    (pack / "shared").symlink_to(shared)
    (pack / "circle").symlink_to(pack)
    before = hash_code(pack)
    write(shared, table_txt="2")
    assert hash_code(pack) != before


def test_copies_at_different_places_are_one_code(pack, hash_code, tmp_path):
    shutil.copytree(pack, tmp_path / "elsewhere" / "pack")
    assert hash_code(pack) == hash_code(tmp_path / "elsewhere" / "pack")


@pytest.mark.parametrize(
    "statement",
    [
        "import outside",
        "from outside import value",
        "try: import outside\nexcept ImportError: pass",
        "def late():\n    from outside import (\n        value,\n    )",
        "import os, outside as other",
        "importlib.import_module('outside')",
        "from space import module",
        "import space.module",
        "from regular import (\n    module,\n)",
    ],
)
def test_a_module_outside_of_the_pack_counts(pack, hash_code, tmp_path, monkeypatch, statement):
    files = {"outside_py": "value = 1", "space__module_py": "value = 1", "regular____init___py": "", "x_txt": ""}
    library = write(tmp_path / "library", **files)
    write(library, regular__module_py="value = 1")
    monkeypatch.syspath_prepend(library)
    write(pack, nodes__helper_py=statement)
    before = hash_code(pack)
    for path in (library / "outside.py", library / "space" / "module.py", library / "regular" / "module.py"):
        path.write_text("value = 2")
    assert hash_code(pack) != before


def test_a_module_that_is_imported_by_a_computed_name_counts(hash_code, tmp_path, monkeypatch):
    library = write(tmp_path / "library", computed_one_py="value = 1")
    root = write(
        tmp_path / "packs", computing_py="import importlib\nheld = importlib.import_module('computed_' + 'one')\n"
    )
    monkeypatch.syspath_prepend(library)
    monkeypatch.syspath_prepend(root)
    import computing  # noqa: F401

    try:
        before = hash_code(root / "computing.py")
        write(library, computed_one_py="value = 2")
        assert hash_code(root / "computing.py") != before
    finally:
        for name in ("computing", "computed_one"):
            sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("text", "beside"),
    [
        ("import sibling", "sibling.py"),
        ("from .sibling import value", "sibling.py"),
        ("from . import (sibling, other)", "sibling.py"),
        ("from .folder.sibling import value", "folder/sibling.py"),
        ("from ..uncle import value", "../uncle.py"),
        ("from .regular import value", "regular/__init__.py"),
        ("open(os.path.join(HERE, 'a table.json'))", "a table.json"),
        ("open(os.path.join(HERE, 'tables', 'one.json'))", "tables/one.json"),
    ],
)
def test_what_lies_beside_a_pack_of_one_file_and_is_named_in_it_counts(hash_code, tmp_path, text, beside):
    root = write(tmp_path / "packs" / "inner", single_py=text) / "single.py"
    (root.parent / beside).parent.mkdir(exist_ok=True)
    (root.parent / beside).write_text("1")
    before = hash_code(root)
    (root.parent / "unnamed.py").write_text("1")
    assert hash_code(root) == before
    (root.parent / beside).write_text("2")
    assert hash_code(root) != before


def test_a_large_file_counts_by_its_state(pack, hash_code, monkeypatch):
    monkeypatch.setattr(node_code, "LARGE", 4)
    (pack / "model.bin").write_bytes(b"large file")
    before = hash_code(pack)
    (pack / "model.bin").touch()
    assert hash_code(pack) != before


@pytest.mark.parametrize(
    "text",
    [
        'os.environ["MY_FACTOR"]',
        "os.environ.get('MY_FACTOR', 1)",
        'os.getenv("MY_FACTOR")',
        'environ.setdefault("MY_FACTOR", "1")',
        'if "MY_FACTOR" in os.environ:',
        'if "MY_FACTOR" not in os.environ:',
        'NAME = "MY_FACTOR"\nos.environ.get(NAME)',
        'env = os.environ\nenv["MY_FACTOR"]',
    ],
)
def test_environment_variables_are_found(pack, text):
    assert "MY_FACTOR" in find_variables(text.encode())
    write(pack, nodes__helper_py=text)
    forget()
    assert "MY_FACTOR" in read_code(pack, NOWHERE).variables


def test_the_case_of_a_variable_that_is_read_does_not_matter():
    assert find_variables(b'os.environ["my_factor"]') == {"my_factor"}
    assert find_variables(b'print("MY_FACTOR")') == set()


def test_packages_are_told_with_their_versions(pack):
    write(pack, nodes__helper_py="import numpy as np\nfrom PIL import Image\nimport yaml, os\n")
    forget()
    packages = read_code(pack, NOWHERE).packages
    assert packages["numpy"] == numpy.__version__
    assert {"pillow", "PyYAML"} <= {*packages} | {"PyYAML" if name.lower() == "pyyaml" else name for name in packages}


def test_comfyuis_core_ends_the_search_and_its_node_modules_do_not(pack, hash_code, tmp_path, monkeypatch):
    comfyui = write(tmp_path / "comfyui", corelike_py="1", comfy_extras__nodes_a_py="1", comfy_extras__nodes_b_py="1")
    monkeypatch.syspath_prepend(comfyui)
    write(pack, nodes__helper_py="import corelike\nfrom comfy_extras import nodes_a\n")
    monkeypatch.delitem(sys.modules, "comfy_extras", raising=False)
    before = hash_code(pack, comfyui), read_core(comfyui).sha256
    write(comfyui, corelike_py="2", comfy_extras__nodes_b_py="2")
    assert hash_code(pack, comfyui) == before[0]
    assert read_core(comfyui).sha256 != before[1]
    write(comfyui, comfy_extras__nodes_a_py="2")
    assert hash_code(pack, comfyui) != before[0]


def test_in_one_process_data_counts_as_it_is_and_python_as_it_was_imported(pack, tmp_path):
    forget()
    write(pack, helper_py="TERM = 1", data_txt="1")
    before = read_code(pack, NOWHERE).sha256
    write(pack, helper_py="TERM = 2")
    assert read_code(pack, NOWHERE).sha256 == before
    write(pack, data_txt="2")
    changed = read_code(pack, NOWHERE).sha256
    assert changed != before
    write(pack, tables__new_txt="3")
    assert read_code(pack, NOWHERE).sha256 not in (before, changed)
    (pack / "tables" / "new.txt").unlink()
    write(pack, data_txt="1")
    assert read_code(pack, NOWHERE).sha256 == before  # `tables` is empty now
    write(pack, tables__new_txt="4")
    assert read_code(pack, NOWHERE).sha256 != before


def test_a_class_of_a_module_that_is_not_registered_has_a_source(tmp_path):
    write(
        tmp_path,
        hidden_py="from base_of_hidden import Base\nclass Node(Base):\n    def other(self): pass\n",
    )
    write(tmp_path, base_of_hidden_py="class Base:\n    def run(self): pass\n")
    sys.path.insert(0, str(tmp_path))
    try:
        spec = importlib.util.spec_from_file_location("hidden", tmp_path / "hidden.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("base_of_hidden", None)
    assert find_source(module.Node) == tmp_path / "hidden.py"
    assert find_source(int) is None


def test_a_pack_that_cannot_be_read_is_no_error(tmp_path, hash_code):
    assert hash_code(tmp_path / "gone")
    (tmp_path / "packs").mkdir()
    (tmp_path / "packs" / "link.py").symlink_to(tmp_path / "nowhere")
    assert hash_code(tmp_path / "packs")
