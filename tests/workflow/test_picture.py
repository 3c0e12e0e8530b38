"""The picture of a graph: what is on it, as SVG and as an image."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from pipeline.config.read import compose_config, read_config
from pipeline.runs.console import format_graph
from pipeline.workflow.cards import make_cards
from pipeline.workflow.draw import SCALE, measure_text, paint, write_svg
from pipeline.workflow.picture import CARD, GREY, KINDS, Picture, Text, compose_picture

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def cards(session):
    read = read_config(compose_config(["lora._bypass_=true", "sampler.steps=3"]))
    checked = session.check(read.graph, read.run.outputs, [])
    return make_cards(checked, cached={"unet"})


def test_only_what_differs_from_the_defaults_is_shown(cards):
    assert cards["sampler"].values == {"seed": "42", "steps": "3", "cfg": "4.0"}
    assert cards["unet"].values == {"unet_name": "demo_shapes.safetensors"}
    assert [port.name for port in cards["sampler"].inputs] == ["model", "positive", "negative", "latent_image"]
    assert (cards["lora"].bypassed, cards["unet"].cached) == (True, True)


def test_the_svg_shows_every_node_once_with_its_marks(cards):
    root = ElementTree.fromstring(write_svg(compose_picture(cards, measure_text)))
    texts = [element.text for element in root.iter(f"{SVG}text")]
    for name, card in cards.items():
        assert texts.count(name) >= 1
        assert card.class_type in texts
    assert texts.count("bypassed") == texts.count("cached") == 1
    dashed = [element for element in root.iter() if element.get("stroke-dasharray")]
    assert [element.tag for element in dashed] == [f"{SVG}path"] * 2 + [f"{SVG}rect"]  # its links, and the node
    assert len(list(root.iter(f"{SVG}path"))) == sum(len(card.inputs) for card in cards.values())


def test_any_text_can_stand_in_an_svg():
    svg = write_svg(Picture(9, 9, (Text(1, 1, 'a <b> & "c"', 12, "#000000"),)))
    (text,) = ElementTree.fromstring(svg).iter(f"{SVG}text")
    assert text.text == 'a <b> & "c"'


def test_the_image_has_the_size_and_the_colours_of_the_picture(cards):
    picture = compose_picture(cards, measure_text)
    image = paint(picture)
    assert image.size == (round(picture.width * SCALE), round(picture.height * SCALE))
    colours = {f"#{red:02x}{green:02x}{blue:02x}" for _, (red, green, blue) in image.getcolors(1 << 24)}
    assert {CARD, GREY, KINDS["MODEL"], KINDS["LATENT"], KINDS["CONDITIONING"]} <= colours


def test_all_that_is_drawn_is_on_the_paper(cards):
    picture = compose_picture(cards, measure_text)
    for shape in picture.shapes:
        for x, y in getattr(shape, "points", ()):
            assert 0 < x < picture.width and 0 < y < picture.height


def test_the_text_shows_links_and_values_and_greys_what_is_bypassed(cards):
    lines = format_graph(list(cards.values()), greys=True).splitlines()
    sampler = next(line for line in lines if line.startswith("sampler"))
    assert sampler.split() == [
        *("sampler", "KSampler", "model", "<-", "cfg_norm", "positive", "<-", "positive", "negative", "<-", "negative"),
        *("latent_image", "<-", "latent", "seed=42", "steps=3", "cfg=4.0"),
    ]
    (grey,) = [line for line in lines if line.startswith("\033[90m")]
    assert "lora" in grey and "(bypassed)" in grey
    assert "\033" not in format_graph(list(cards.values()), greys=False)
    assert any("text=''" in line for line in lines)
