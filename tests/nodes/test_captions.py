"""Captions of the demo model: the grammar, the conditioning, the node."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from latentgrid_nodes import NODE_CLASS_MAPPINGS
from latentgrid_nodes.captions import (
    COLOURS,
    SHAPES,
    SIZES,
    TEXT_DIM,
    Caption,
    CaptionError,
    encode_caption,
    read_caption,
)

CAPTIONS = st.builds(
    Caption,
    size=st.none() | st.sampled_from(SIZES),
    colour=st.none() | st.sampled_from(COLOURS),
    shape=st.none() | st.sampled_from(SHAPES),
    background=st.none() | st.sampled_from(COLOURS),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
@given(CAPTIONS)
def test_a_caption_reads_back_as_it_was_written(caption: Caption):
    assert read_caption(str(caption)) == caption


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        ("a red circle", Caption(colour="red", shape="circle")),
        ("A Small RED circle, on a blue background.", Caption("small", "red", "circle", "blue")),
        ("star", Caption(shape="star")),
        ("on black", Caption(background="black")),
        ("orange on orange", Caption(colour="orange", background="orange")),
        ("circle red", Caption(colour="red", shape="circle")),
        ("", Caption()),
        (" a ", Caption()),
    ],
)
def test_what_a_text_says(text: str, caption: Caption):
    assert read_caption(text) == caption


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a rad circle", r"^'rad' \(did you mean 'red'\?\) is no word of the demo model\. A caption is \[a\]"),
        ("a rad cirkle", r"^'rad' \(did you mean 'red'\?\), 'cirkle' \(did you mean 'circle'\?\) are no words of"),
        ("a red dog", r"^'dog' is no word of .* the colours red, orange, .* and the shapes circle, "),
        ("a red blue circle", r"^says two colours, 'red' and 'blue'\. A picture has one\."),
        ("a red circle on", r"^ends with 'on'\."),
        ("a red circle on star", r"^has 'star' behind 'on', where only a colour can stand\."),
        ("on red on blue", r"^says two backgrounds, 'red' and 'blue'\."),
    ],
)
def test_a_wrong_text_is_explained(text: str, message: str):
    with pytest.raises(CaptionError, match=message):
        read_caption(text)


def test_the_same_word_twice_is_no_contradiction():
    assert read_caption("a red red circle") == Caption(colour="red", shape="circle")


def test_every_caption_has_a_conditioning_of_its_own():
    choices = itertools.product((None, *SIZES), (None, *COLOURS), (None, *SHAPES), (None, *COLOURS))
    encoded = torch.cat([encode_caption(Caption(*words)) for words in choices])
    assert encoded.shape == (3 * 9 * 8 * 9, 4, TEXT_DIM)
    assert encoded.dtype == torch.float32
    assert torch.equal(encoded.sum(dim=2), torch.ones(len(encoded), 4))
    assert len(encoded.flatten(1).unique(dim=0)) == len(encoded)


def test_the_node_gives_comfyuis_conditioning():
    node = NODE_CLASS_MAPPINGS["LatentgridEncodeCaption"]
    ((pair,),) = node().encode("a red circle")
    assert torch.equal(pair[0], encode_caption(Caption(colour="red", shape="circle")))
    assert pair[1] == {}
    assert node.VALIDATE_INPUTS("a red circle") is True
    assert node.VALIDATE_INPUTS(None) is True  # another node will give it
    assert "'rad'" in node.VALIDATE_INPUTS("rad")
