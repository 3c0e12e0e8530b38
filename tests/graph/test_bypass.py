"""Bypass, by the rule of ComfyUI's front end (ExecutableNodeDTO): what a bypassed node passes through."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.graph.bypass import resolve_bypass, restore_bypassed
from pipeline.graph.model import Graph, Link, Node
from pipeline.graph.order import cull
from pipeline.graph.signature import Signature, read_inputs, read_outputs


def make_signature(inputs: str, outputs: str = "", options: dict[str, Any] | None = None) -> Signature:
    """`inputs` as `name:TYPE name:TYPE`, `outputs` as `TYPE TYPE`; `options` are those of every input."""
    declared = {name: (kind, options or {}) for name, _, kind in (one.partition(":") for one in inputs.split())}
    return Signature("K", read_inputs({"required": declared}), read_outputs(outputs.split(), None))


def make_node(name: str, bypassed: bool = False, /, **inputs: Any) -> Node:
    return Node(name, "K", inputs, bypassed)


def make_graph(*nodes: Node) -> Graph:
    return Graph({node.name: node for node in nodes})


def pass_through(signature: Signature, slot: int, wanted: str) -> str | None:
    """Name of the input of a bypassed node that feeds a reader of type `wanted` from output `slot`."""
    inputs = {name: Link(f"source_{name}", 0) for name in signature.inputs}
    graph = make_graph(
        *(make_node(link.node) for link in inputs.values()),
        make_node("bypassed", True, **inputs),
        make_node("reader", x=Link("bypassed", slot)),
    )
    reader = make_signature(f"x:{wanted}")
    sources = {link.node: make_signature("", "ANY") for link in inputs.values()}
    result = resolve_bypass(graph, {**sources, "bypassed": signature, "reader": reader})
    found = result["reader"].inputs.get("x")
    return found.node.removeprefix("source_") if found else None


# The rule


@pytest.mark.parametrize(
    ("inputs", "outputs", "slot", "wanted", "found"),
    [
        # the input with the output's own index, if it fits both
        ("model:MODEL clip:CLIP", "MODEL CLIP", 0, "MODEL", "model"),
        ("model:MODEL clip:CLIP", "MODEL CLIP", 1, "CLIP", "clip"),
        ("a:MODEL b:MODEL", "MODEL MODEL", 1, "MODEL", "b"),
        ("a:IMAGE,MASK b:MASK", "MASK", 0, "MASK", "a"),  # before one of exactly that type
        ("a:* b:MODEL", "MODEL", 0, "MODEL", "a"),
        ("a:model", "MODEL", 0, "Model", "a"),
        ("a:Image,Mask", "MASK,X", 0, "y,mask", "a"),
        ("a:MODEL", "*", 0, "MODEL", "a"),
        # else the first of exactly the reader's type
        ("clip:CLIP model:MODEL", "MODEL CLIP", 0, "MODEL", "model"),
        ("a:IMAGE b:MASK", "IMAGE,MASK", 0, "MASK", "b"),  # own index fits the output, not the reader
        ("a:IMAGE,MASK b:MASK", "LATENT", 0, "MASK", "b"),  # own index fits the reader, not the output
        ("x:X a:model b:MODEL", "MODEL", 0, "MODEL", "b"),  # exact means the same case
        ("a:IMAGE,MASK b:MASK", "X X MASK", 2, "MASK", "b"),  # before a compatible one
        ("a:LATENT b:MODEL c:MODEL", "*", 0, "MODEL", "b"),
        ("a:LATENT b:IMAGE,MASK", "MASK", 0, "IMAGE,MASK", "b"),
        # else the first that fits both
        ("a:LATENT b:IMAGE,LATENT c:IMAGE,MASK d:*", "MASK", 0, "IMAGE,X", "c"),
        ("a:LATENT b:*", "MASK", 0, "MASK", "b"),
        ("x:X a:model", "MODEL", 0, "MODEL", "a"),
        # else none
        ("a:LATENT", "IMAGE", 0, "IMAGE", None),
        ("a:IMAGE,MASK", "LATENT", 0, "MASK", None),  # fits the reader only
        ("a:IMAGE,MASK", "MASK", 0, "LATENT", None),  # fits the output only
        ("a:MODELS", "MODEL", 0, "MODEL", None),
        ("", "MODEL", 0, "MODEL", None),
        # a reader of any type takes the output's own index, whatever is there, else the first
        ("a:A b:B", "X Y", 1, "*", "b"),
        ("a:A b:B", "X Y Z", 2, "*", "a"),
        ("a:A b:B", "X Y", 1, "", "b"),
        ("a:A b:B", "X Y Z", 2, "", "a"),
        ("", "X", 0, "*", None),
        # sockets come before widgets, and widgets take part
        ("strength:FLOAT model:MODEL", "MODEL", 0, "*", "model"),
        ("strength:FLOAT model:MODEL clip:CLIP", "X X X", 2, "*", "strength"),
        ("strength:FLOAT model:MODEL", "MODEL FLOAT", 1, "FLOAT", "strength"),
        ("seed:INT strength:FLOAT model:MODEL", "MODEL FLOAT", 1, "FLOAT", "strength"),
        # "" fits all; so does one in a list
        ("x:X a:", "MODEL", 0, "MODEL", "a"),
        ("a:MODEL", "", 0, "MODEL", "a"),
        ("a:IMAGE,*", "MODEL", 0, "MODEL", "a"),
        ("a:MODEL", "IMAGE,*", 0, "MODEL", "a"),
    ],
)
def test_which_input_a_bypassed_node_passes_on(
    inputs: str, outputs: str, slot: int, wanted: str, found: str | None
) -> None:
    signature = make_signature(inputs, outputs)
    if not outputs:
        signature = Signature("K", signature.inputs, read_outputs([""], None))
    assert pass_through(signature, slot, wanted) == found


def test_a_forced_input_is_a_socket() -> None:
    declared = {"strength": ("FLOAT", {"forceInput": True}), "model": ("MODEL",), "seed": ("INT",)}
    signature = Signature("K", read_inputs({"required": declared}), read_outputs(["X", "X", "X"], None))
    assert [pass_through(signature, slot, "*") for slot in range(3)] == ["strength", "model", "seed"]


def test_optional_sockets_come_before_required_widgets() -> None:
    declared = {"required": {"seed": ("INT",), "a": ("A",)}, "optional": {"text": ("STRING",), "b": ("B",)}}
    signature = Signature("K", read_inputs(declared), read_outputs(["X"] * 4, None))
    assert [pass_through(signature, slot, "*") for slot in range(4)] == ["a", "b", "seed", "text"]


MATCH = {"template": {"template_id": "switch", "allowed_types": "*"}}  # as ComfySwitchNode of ComfyUI 0.30 declares


@pytest.mark.parametrize(
    ("allowed", "wanted", "found"),
    [("*", "IMAGE", "on_false"), ("IMAGE,MASK", "IMAGE", "on_false"), ("IMAGE,MASK", "MODEL", None)],
)
def test_a_bypassed_switch_passes_on_its_first_input_if_the_reader_takes_an_allowed_type(
    allowed: str, wanted: str, found: str | None
) -> None:
    """The front end gives an input of matching type the allowed types, and the output what is linked."""
    match = {"template": {"template_id": "switch", "allowed_types": allowed}}
    declared = {
        "switch": ("BOOLEAN",),
        "on_false": ("COMFY_MATCHTYPE_V3", match),
        "on_true": ("COMFY_MATCHTYPE_V3", match),
    }
    signature = Signature("K", read_inputs({"required": declared}), read_outputs(["COMFY_MATCHTYPE_V3"], ["output"]))
    assert pass_through(signature, 0, wanted) == found


def test_an_input_of_matching_type_that_allows_one_type_is_of_exactly_that_type() -> None:
    match = {"template": {"template_id": "image", "allowed_types": "IMAGE"}}
    declared = {"first": ("IMAGE,MASK",), "second": ("COMFY_MATCHTYPE_V3", match)}
    signature = Signature("K", read_inputs({"required": declared}), read_outputs(["X", "X", "IMAGE"], None))
    assert pass_through(signature, 2, "IMAGE") == "second"


def test_past_a_bypassed_switch_any_allowed_type_will_do() -> None:
    graph = make_graph(
        make_node("unet"),
        make_node("lora", True, model=Link("unet", 0)),
        make_node("switch", True, on_false=Link("lora", 0)),
        make_node("reader", model=Link("switch", 0)),
    )
    switch = read_inputs({"required": {"on_false": ("COMFY_MATCHTYPE_V3", MATCH)}})
    signatures = {
        "lora": make_signature("model:MODEL", "MODEL"),
        "switch": Signature("K", switch, read_outputs(["COMFY_MATCHTYPE_V3"], None)),
        "reader": make_signature("model:MODEL"),
    }
    assert resolve_bypass(graph, signatures)["reader"].inputs == {"model": Link("unet", 0)}


def test_a_switch_reads_past_a_bypassed_node_as_a_reader_of_the_allowed_types() -> None:
    graph = make_graph(
        make_node("unet"), make_node("lora", True, model=Link("unet", 0)), make_node("switch", on_true=Link("lora", 0))
    )
    switch = Signature("K", read_inputs({"required": {"on_true": ("COMFY_MATCHTYPE_V3", MATCH)}}), ())
    signatures = {
        "unet": make_signature("", "MODEL"),
        "lora": make_signature("model:MODEL", "MODEL"),
        "switch": switch,
    }
    assert resolve_bypass(graph, signatures)["switch"].inputs == {"on_true": Link("unet", 0)}


def test_past_a_bypassed_node_the_type_asked_for_is_that_of_its_input() -> None:
    """`first` is asked for MODEL, but asks `second` for `*`, so output 1 gives input 1, though that is no MODEL."""
    graph = make_graph(
        make_node("p"),
        make_node("q"),
        make_node("second", True, p=Link("p", 0), q=Link("q", 0)),
        make_node("first", True, any=Link("second", 1)),
        make_node("reader", model=Link("first", 0)),
    )
    signatures = {
        "p": make_signature("", "CLIP"),
        "q": make_signature("", "LATENT"),
        "second": make_signature("p:CLIP q:LATENT", "MODEL MODEL"),
        "first": make_signature("any:*", "MODEL"),
        "reader": make_signature("model:MODEL"),
    }
    assert resolve_bypass(graph, signatures)["reader"].inputs == {"model": Link("q", 0)}


# What becomes of the graph

LORA = make_signature("model:MODEL strength:FLOAT", "MODEL")
UNET = make_signature("name:STRING", "MODEL")


def test_the_readers_of_a_bypassed_node_read_what_it_read() -> None:
    graph = make_graph(
        make_node("unet", name="x"),
        make_node("lora", True, model=Link("unet", 0), strength=1.0),
        make_node("one", model=Link("lora", 0), strength=0.5),
        make_node("two", model=Link("lora", 0)),
        make_node("three", model=Link("unet", 0)),
    )
    result = resolve_bypass(graph, {"unet": UNET, **dict.fromkeys(["lora", "one", "two", "three"], LORA)})
    assert list(result) == ["unet", "one", "two", "three"]
    assert result["one"] == make_node("one", model=Link("unet", 0), strength=0.5)
    assert result["two"] == make_node("two", model=Link("unet", 0))
    assert [result["unet"], result["three"]] == [graph["unet"], graph["three"]]
    assert graph["one"].inputs["model"] == Link("lora", 0), "the given graph was changed"


@pytest.mark.parametrize("constant", [0.5, 0, False, "", [1, 2], {"a": 1}])
def test_a_constant_is_passed_on_too(constant: Any) -> None:
    graph = make_graph(make_node("lora", True, strength=constant), make_node("reader", strength=Link("lora", 1)))
    signatures = {"lora": make_signature("model:MODEL strength:FLOAT", "MODEL FLOAT"), "reader": LORA}
    assert resolve_bypass(graph, signatures)["reader"].inputs == {"strength": constant}


@pytest.mark.parametrize(
    ("node", "signature"),
    [
        (make_node("source", True), UNET),  # no MODEL among its inputs
        (make_node("source", True), LORA),  # its MODEL is not given
        (make_node("source", True, model=Link("source", 0)), LORA),  # reads itself
        (make_node("source", True, model=Link("other", 0)), LORA),  # two bypassed nodes read each other
    ],
)
def test_where_nothing_passes_through_the_input_is_absent(node: Node, signature: Signature) -> None:
    graph = make_graph(
        make_node("unet"),
        node,
        make_node("other", True, model=Link("source", 0)),
        make_node("reader", model=Link("source", 0), strength=1.0),
    )
    signatures = {"unet": UNET, "other": LORA, "reader": LORA, "source": signature}
    result = resolve_bypass(graph, signatures)
    assert list(result) == ["unet", "reader"]
    assert result["reader"].inputs == {"strength": 1.0}


@pytest.mark.parametrize("unknown", ["near", "far"])
def test_the_way_ends_at_a_bypassed_node_of_an_unknown_class(unknown: str) -> None:
    """What it would pass on is not known; the check reports the class."""
    graph = make_graph(
        make_node("unet"),
        make_node("far", True, model=Link("unet", 0)),
        make_node("near", True, model=Link("far", 0)),
        make_node("reader", model=Link("near", 0), strength=1.0),
    )
    signatures = {name: LORA for name in ("far", "near", "reader") if name != unknown}
    result = resolve_bypass(graph, {"unet": UNET, **signatures})
    assert list(result) == ["unet", "reader"]
    assert result["reader"].inputs == {"model": Link(unknown, 0), "strength": 1.0}


def test_a_reader_or_an_input_that_is_not_known_takes_any_type() -> None:
    graph = make_graph(
        make_node("a"),
        make_node("b"),
        make_node("middle", True, a=Link("a", 0), b=Link("b", 0)),
        make_node("unknown", x=Link("middle", 1)),
        make_node("known", undeclared=Link("middle", 1)),
    )
    middle = make_signature("a:A b:B", "A A")
    result = resolve_bypass(graph, {"middle": middle, "known": LORA})
    assert result["unknown"].inputs == {"x": Link("b", 0)}
    assert result["known"].inputs == {"undeclared": Link("b", 0)}


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_along_a_chain_each_node_reads_the_nearest_that_is_not_bypassed(bypassed: list[bool]) -> None:
    names = [f"lora_{index}" for index in range(len(bypassed))]
    nodes = [
        make_node(name, skip, model=Link(before, 0), strength=1.0)
        for name, skip, before in zip(names, bypassed, ["unet", *names], strict=False)
    ]
    graph = make_graph(make_node("unet"), *nodes, make_node("end", model=Link(names[-1], 0)))
    result = resolve_bypass(graph, {"unet": UNET, **dict.fromkeys([*names, "end"], LORA)})
    kept = ["unet", *(name for name, skip in zip(names, bypassed, strict=True) if not skip), "end"]
    assert list(result) == kept
    assert [result[name].inputs["model"] for name in kept[1:]] == [Link(name, 0) for name in kept[:-1]]


# Any graph, against the rule written down a second time

KINDS = st.sampled_from(["A", "a", "B", "A,B", "b,C", "*", "", "INT", "STRING"])


def fits(left: str, right: str) -> bool:
    if {left, right} & {"*", ""}:
        return True
    return any(a == b for a in left.lower().split(",") for b in right.lower().split(","))


def follow(graph: Graph, signatures: dict[str, Signature], value: Any, wanted: str) -> Any:
    """Rule 13 of the conversion rules, for links between nodes without a cycle."""
    if not isinstance(value, Link) or not graph[value.node].bypassed:
        return value
    signature = signatures[value.node]
    sockets = [spec for spec in signature.inputs.values() if spec.type not in ("INT", "STRING")]
    slots = sockets + [spec for spec in signature.inputs.values() if spec.type in ("INT", "STRING")]
    slot, given = value.output, signature.outputs[value.output].type

    def fits_both(index: int) -> bool:
        return fits(slots[index].type, given) and fits(slots[index].type, wanted)

    if wanted in ("*", ""):
        candidates = [slot if slot < len(slots) else 0]
    elif slot < len(slots) and fits_both(slot):
        candidates = [slot]
    else:
        exact = [index for index, spec in enumerate(slots) if spec.type == wanted]
        candidates = exact or [index for index in range(len(slots)) if fits_both(index)]
    if not candidates or candidates[0] >= len(slots):
        return None
    found = slots[candidates[0]]
    return follow(graph, signatures, graph[value.node].inputs.get(found.name), found.type)


@st.composite
def bypassed_graphs(draw: st.DrawFn) -> tuple[Graph, dict[str, Signature]]:
    nodes: list[Node] = []
    signatures: dict[str, Signature] = {}
    for index in range(draw(st.integers(1, 7))):
        kinds = draw(st.lists(KINDS, max_size=4))
        given = read_inputs({"required": {f"x{i}": (kind,) for i, kind in enumerate(kinds)}})
        signature = Signature("K", given, read_outputs(draw(st.lists(KINDS, min_size=1, max_size=3)), None))
        links = [Link(node.name, i) for node in nodes for i in range(len(signatures[node.name].outputs))]
        values = st.one_of(*([st.sampled_from(links)] * 3 if links else []), st.integers(0, 3), st.none())
        inputs = {name: value for name in given if (value := draw(values)) is not None}
        nodes.append(make_node(f"n{index}", draw(st.booleans()), **inputs))
        signatures[f"n{index}"] = signature
    return make_graph(*nodes), signatures


@settings(deadline=None, max_examples=100)
@given(bypassed_graphs())
def test_any_graph_is_resolved_by_the_rule(made: tuple[Graph, dict[str, Signature]]) -> None:
    graph, signatures = made
    result = resolve_bypass(graph, signatures)
    assert list(result) == [name for name, node in graph.items() if not node.bypassed]
    for name, node in result.items():
        assert not node.bypassed
        assert (node.name, node.class_type) == (name, "K")
        assert all(not graph[link.node].bypassed for _, link in node.links), "a link to a bypassed node is left"
        followed = {
            key: follow(graph, signatures, value, signatures[name].inputs[key].type)
            for key, value in graph[name].inputs.items()
        }
        assert node.inputs == {key: value for key, value in followed.items() if value is not None}


@settings(deadline=None, max_examples=100)
@given(bypassed_graphs())
def test_what_is_shown_of_a_graph_resolves_to_what_runs(made: tuple[Graph, dict[str, Signature]]) -> None:
    graph, signatures = made
    targets = [name for name, node in graph.items() if not node.bypassed][-2:]
    resolved = resolve_bypass(graph, signatures)
    declared = restore_bypassed(graph, resolved, signatures)
    assert resolve_bypass(declared, signatures) == resolved
    needed = cull(resolved, targets)
    shown = cull(declared, targets)
    found = resolve_bypass(shown, signatures)
    assert {name: found[name] for name in needed} == needed
    assert all(link.node in shown for node in shown.values() for _, link in node.links)


@settings(deadline=None, max_examples=30)
@given(bypassed_graphs())
def test_without_a_bypass_nothing_changes(made: tuple[Graph, dict[str, Signature]]) -> None:
    graph = Graph({name: Node(name, node.class_type, node.inputs) for name, node in made[0].items()})
    assert resolve_bypass(graph, made[1]) == graph
