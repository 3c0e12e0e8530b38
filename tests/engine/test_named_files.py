"""The files that constants name, found by the real folder_paths of ComfyUI."""

from __future__ import annotations

import pytest

from pipeline.engine.comfyui import named_files
from pipeline.engine.comfyui.named_files import FileFinder
from pipeline.graph.model import Link, Node
from pipeline.graph.signature import InputSpec, Signature


@pytest.fixture
def models(session, tmp_path, monkeypatch):
    """The only folder of models that ComfyUI searches."""
    folder_paths = session.comfyui.folder_paths
    paths = {
        name: ([str(tmp_path / "models" / name)], suffixes)
        for name, (_, suffixes) in folder_paths.folder_names_and_paths.items()
    }
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", paths)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path / "input"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "models"


@pytest.fixture
def find(session, models):
    """Returns what the constants of a node name: its inputs; `choices` are those of an input `model` of its class."""

    def find(folders=(), choices=(), **inputs):
        specs = {name: InputSpec(name, "COMBO" if choices else "STRING", choices=tuple(choices)) for name in inputs}
        signature = Signature("Any", specs, (), folders=tuple(folders))
        return FileFinder(session.comfyui.folder_paths).find(Node("any", "Any", inputs), signature)

    return find


def put(path, content="x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def test_a_model_by_its_name(find, models):
    path = put(models / "loras" / "sub" / "one.safetensors")
    found = find(["loras"], ["sub/one.safetensors"], lora_name="sub/one.safetensors")
    assert (found.models, found.inputs) == ({"lora_name": path}, {})


def test_a_model_that_is_no_choice_of_its_class(find, models):
    path = put(models / "loras" / "one.safetensors")
    assert find(name="one.safetensors").models == {"name/loras/one.safetensors": path}


def test_constants_within_lists_and_mappings(find, models):
    paths = {put(models / "loras" / f"{name}.safetensors") for name in ("one", "two")}
    found = find(stack={"on": True, "lora": "one.safetensors"}, others=["two.safetensors", 1.0])
    assert {*found.models.values()} == paths


def test_a_short_name_and_the_files_that_it_stands_for(find, models):
    paths = {put(models / "vae_approx" / f"mytaesd_{part}.safetensors") for part in ("encoder", "decoder")}
    put(models / "vae_approx" / "mytaesdxl_encoder.safetensors")
    assert {*find(["vae", "vae_approx"], ["mytaesd"], vae_name="mytaesd").models.values()} == paths


def test_a_folder_of_models(find, models):
    paths = {put(models / "diffusers" / "big" / place) for place in ("unet/config.json", "vae/model.bin")}
    found = find(["diffusers"], ["big"], model_path="big")
    assert {*found.models.values()} == paths


def test_links_that_lead_nowhere_are_left_out(find, models):
    (models / "embeddings").mkdir(parents=True)
    for folder, name in (("embeddings", "foo.pt"), ("vae_approx", "short_encoder.pt")):
        (models / folder).mkdir(exist_ok=True)
        (models / folder / name).symlink_to(models / "nowhere")
    assert not find(text="embedding:foo").models
    assert not find(["vae_approx"], ["short"], vae_name="short").models


@pytest.mark.parametrize(
    "text",
    [
        "embedding:foo",
        "embedding:foo.pt",
        "a photo, (embedding:foo:1.2), sharp",
        "first line\nembedding:foo, second",
        "(a embedding:sub/foo:0.5)",
        "embedding: foo",
    ],
)
def test_an_embedding_within_a_text(find, models, text):
    path = put(models / "embeddings" / "sub" / "foo.pt")
    put(models / "embeddings" / "foobar.pt")
    assert find(text=text).models == {"text/embeddings/sub/foo.pt": path}


def test_an_embedding_whose_name_has_brackets(find, models):
    path = put(models / "embeddings" / "foo(1).safetensors")
    assert [*find(text=r"(embedding:foo\(1\):1.1)").models.values()] == [path]


def test_a_lora_within_a_text(find, models):
    path = put(models / "loras" / "one.safetensors")
    assert find(text="a cat <lora:one:0.8>").models == {"text/loras/one.safetensors": path}
    assert not find(text="a cat <lora:two:0.8>").models


def test_files_in_the_working_directory_and_in_the_input_directory(find, tmp_path):
    here, there = put(tmp_path / "work" / "a.png"), put(tmp_path / "input" / "a.png")
    assert find(image="a.png").inputs == {"image": here, "image/input": there}
    here.unlink()
    assert find(image="a.png").inputs == {"image": there}
    assert find(image="a.png [input]").inputs == {"image": there}
    assert find(image=str(there)).inputs == {"image": there}


def test_an_input_file_of_a_class_that_lists_model_folders_as_well(find, tmp_path):
    path = put(tmp_path / "input" / "a.png")
    assert find(["loras"], ["a.png"], image="a.png").inputs == {"image": path}


def test_files_on_the_lines_of_a_text(find, tmp_path):
    paths = [put(tmp_path / "work" / "a.png"), put(tmp_path / "work" / "b" / "c.txt")]
    assert find(images="a.png\n\n  b/c.txt  \nno.png").inputs == {"images": paths[0], "images/2": paths[1]}


def test_a_folder_with_all_that_is_in_it(find, tmp_path):
    paths = {put(tmp_path / "frames" / place) for place in ("1.png", "sub/2.png")}
    linked = put(tmp_path / "elsewhere" / "3.png")
    (tmp_path / "frames" / "linked").symlink_to(linked.parent)
    found = find(directory=str(tmp_path / "frames"))
    assert {path.resolve() for path in found.inputs.values()} == paths | {linked}
    assert set(found.inputs) == {"directory/1.png", "directory/sub/2.png", "directory/linked/3.png"}


def test_a_folder_of_too_many_files_is_named_as_such(find, tmp_path, monkeypatch):
    monkeypatch.setattr(named_files, "MOST_FILES", 3)
    for number in range(4):
        put(tmp_path / "work" / "frames" / f"{number}.png")
        put(tmp_path / "models" / "diffusers" / "big" / f"{number}.bin")
    found = find(directory="frames")
    assert (found.inputs, found.countless) == ({}, ("directory",))
    found = find(["diffusers"], ["big"], model_path="big")
    assert (found.models, found.countless) == ({}, ("model_path",))
    (tmp_path / "work" / "frames" / "0.png").unlink()
    assert not find(directory="frames").countless


@pytest.mark.parametrize(
    "text", ["a red fox", "word", "a/b", "Mr. Fox", "/", "~", ".", "./", "~nobody/x", "a\0/b", "x" * 5000]
)
def test_texts_that_name_no_file(find, tmp_path, text):
    put(tmp_path / "work" / "word")
    found = find(text=text)
    assert (found.models, found.inputs, found.countless) == ({}, {}, ())


def test_where_a_node_writes_is_no_input(find, tmp_path):
    put(tmp_path / "work" / "runs" / "one" / "old.png")
    assert not find(filename_prefix="runs/one").inputs
    assert find(directory="runs/one").inputs


def test_links_and_numbers_name_nothing(find):
    assert not find(image=Link("other", 0), steps=3, on=True, nothing=None).inputs
