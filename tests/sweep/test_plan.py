"""The plan of a sweep, followed on paper: what runs, in which order, and what is still held when it is read."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.keys import make_key
from pipeline.graph.check import CheckedGraph
from pipeline.graph.model import Graph, Link, Node
from pipeline.graph.order import sort_nodes
from pipeline.graph.signature import OutputSpec, Signature
from pipeline.sweep.batches import explain_unbatched, find_batched
from pipeline.sweep.plan import Cell, Plan, plan_cells

CLASSES = {
    "UNETLoader": Signature("UNETLoader", {}, (OutputSpec("MODEL", "MODEL"),)),
    "LoraLoaderModelOnly": Signature("LoraLoaderModelOnly", {}, (OutputSpec("MODEL", "MODEL"),)),
    "Mahiro": Signature("Mahiro", {}, (OutputSpec("MODEL", "MODEL"),)),
    "Encode": Signature("Encode", {}, (OutputSpec("CONDITIONING", "CONDITIONING"),)),
    "KSampler": Signature("KSampler", {}, (OutputSpec("LATENT", "LATENT"),)),
    "SaveLatent": Signature("SaveLatent", {}, (), is_output_node=True),
}


def make_cell(graph: Graph, *targets: str) -> Cell:
    order = sort_nodes(graph)
    signatures = {name: CLASSES[graph[name].class_type] for name in order}
    keys: dict[str, str] = {}
    for name in order:
        keys[name] = make_key(graph[name], signatures[name], keys, None, None)
    return Cell(CheckedGraph(graph, signatures, order, targets), keys)


def sample(
    text: str = "a star",
    lora: float = 1.0,
    seed: int = 0,
    unet: str = "one",
    save: bool = False,
    sampler_name: str = "euler",
    cfg: float = 4.0,
    name: str = "sampler",
) -> Cell:
    nodes = [
        Node("positive", "Encode", {"text": text}),
        Node("unet", "UNETLoader", {"unet_name": unet}),
        Node("lora", "LoraLoaderModelOnly", {"model": Link("unet", 0), "strength_model": lora}),
        Node(
            name,
            "KSampler",
            {
                "model": Link("lora", 0),
                "positive": Link("positive", 0),
                "seed": seed,
                "cfg": cfg,
                "sampler_name": sampler_name,
            },
        ),
    ]
    if save:
        nodes.append(Node("save", "SaveLatent", {"samples": Link(name, 0)}))
    return make_cell(Graph({node.name: node for node in nodes}), "save" if save else name)


def batched(cells: list[Cell], size: int) -> list[Cell]:
    """The cells, with the KSamplers named that may run for several seeds at once."""
    by_place = dict(enumerate(cells))
    found = find_batched(
        {place: cell.checked for place, cell in by_place.items()},
        {place: cell.keys for place, cell in by_place.items()},
        dict.fromkeys(by_place, size),
    )
    return [replace(cell, batched=found.get(place)) for place, cell in by_place.items()]


def follow(cells: list[Cell], plan: Plan) -> tuple[Counter[str], int]:
    """Carry out a plan, holding only what it says is read later. How often each class ran, and the most ever held."""
    held: set[str] = set()
    ran: Counter[str] = Counter()
    most = 0
    for place, planned in enumerate(plan.cells):
        checked, keys = cells[planned.index].checked, cells[planned.index].keys
        for name in planned.runs:
            assert {keys[link.node] for _, link in checked.graph[name].links} <= held
            held.add(keys[name])
            if planned.batch and planned.batch.node == name:
                assert planned.batch.seeds[keys[name]] == checked.graph[name].inputs["seed"]
                held.update(planned.batch.seeds)
            ran[checked.graph[name].class_type] += 1
        assert {keys[name] for name in checked.targets} <= held
        assert set(planned.runs) | set(planned.reuses) == set(checked.order)
        most = max(most, len(held))
        held = {key for key in held if plan.is_read_after(place, key)}
    assert not held
    return ran, most


def test_a_grid_loads_once_and_patches_once_for_each_strength_whatever_its_order():
    grid = list(itertools.product(("one", "two"), (0.5, 1.0), ("a star", "a ring"), range(3)))
    for shuffle in range(5):
        random.Random(shuffle).shuffle(grid)
        cells = [sample(text, lora, seed, unet) for unet, lora, text, seed in grid]
        ran, most = follow(cells, plan_cells(dict(enumerate(cells))))
        assert ran == {"UNETLoader": 2, "LoraLoaderModelOnly": 4, "Encode": 2, "KSampler": 24}
        assert most <= 5  # two captions, a checkpoint, a LoRA and a latent


def test_cells_of_equal_rank_stay_in_order_and_the_first_cell_leads():
    cells = [sample(seed=seed, lora=lora) for seed in range(3) for lora in (0.5, 1.0)]
    assert [planned.index for planned in plan_cells(dict(enumerate(cells))).cells] == [0, 2, 4, 1, 3, 5]


def test_equal_cells_run_once():
    first, second = plan_cells({0: sample(), 1: sample()}).cells
    assert first.runs == ("positive", "unet", "lora", "sampler")
    assert (second.runs, second.reuses) == ((), ("positive", "unet", "lora", "sampler"))


def test_an_output_node_writes_in_every_cell():
    first, second = plan_cells({0: sample(save=True), 1: sample(save=True)}).cells
    assert first.runs[-1] == "save"
    assert second.runs == ("save",)


def test_what_only_known_nodes_read_is_not_held_for_them():
    cells = [sample(seed=0), sample(seed=1)]
    plan = plan_cells(dict(enumerate(cells)))
    assert not plan.is_read_after(0, cells[0].keys["unet"])
    assert plan.is_read_after(0, cells[0].keys["lora"])
    assert not plan.is_read_after(0, "a key that no cell reads")


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from((0.5, 1.0)), st.integers(0, 3)), max_size=12))
def test_each_content_runs_once_and_every_read_finds_it(settings: list[tuple[str, float, int]]):
    cells = [sample(text, lora, seed) for text, lora, seed in settings]
    plan = plan_cells(dict(enumerate(cells)))
    ran, _ = follow(cells, plan)
    assert sorted(planned.index for planned in plan.cells) == list(range(len(cells)))
    assert ran.total() == len({key for cell in cells for key in cell.keys.values()})


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from((0.5, 1.0)), st.integers(0, 5)), max_size=16),
    st.integers(2, 4),
)
def test_batches_give_every_seed_once_and_hold_it_until_it_is_read(settings: list[tuple[str, float, int]], size: int):
    cells = batched([sample(text, lora, seed) for text, lora, seed in settings], size)
    plan = plan_cells(dict(enumerate(cells)))
    ran, most = follow(cells, plan)
    groups = Counter((text, lora) for text, lora, _ in set(settings))
    assert ran["KSampler"] == sum(-(-seeds // size) for seeds in groups.values())
    assert most <= 5 + size  # two captions, a checkpoint, two strengths and a batch


def test_seeds_are_sampled_together_whatever_the_order_of_the_command_line():
    cells = batched([sample(text, seed=seed) for seed in range(5) for text in ("a star", "a ring")], 2)
    planned = plan_cells(dict(enumerate(cells))).cells
    assert [one.index for one in planned] == [0, 2, 4, 6, 8, 1, 3, 5, 7, 9]
    assert [list(one.batch.seeds.values()) for one in planned if one.batch and "sampler" in one.runs] == [
        *([0, 1], [2, 3], [4]),
        *([0, 1], [2, 3], [4]),
    ]


def test_a_batch_differs_in_nothing_but_the_seed():
    """One call samples it with the inputs of its first job, and leaves the latents under the keys of all."""
    differing = {"cfg": (1.0, 2.0), "text": ("a star", "a ring"), "lora": (0.5, 1.0), "name": ("sampler", "other")}
    for what, values in differing.items():
        cells = batched([sample(seed=seed, **{what: value}) for seed in (1, 2) for value in values], 4)
        planned = plan_cells(dict(enumerate(cells))).cells
        assert all(one.batch for one in planned), what
        for one in planned:
            alike = [cell for place, cell in enumerate(cells) if place % 2 == one.index % 2]
            assert one.batch.seeds == {
                cell.keys[one.batch.node]: seed for cell, seed in zip(alike, (1, 2), strict=True)
            }


def test_a_batch_is_run_under_the_name_of_its_node():
    cells = batched([sample(seed=1), sample(seed=2, name="other")], 4)
    assert [cell.batched for cell in cells] == [None, None]


def test_samplers_that_draw_noise_and_lonely_seeds_are_not_batched():
    noisy = [sample(seed=seed, sampler_name="euler_ancestral") for seed in (1, 2)]
    alone = [sample(seed=3, lora=0.5), sample(seed=3, lora=1.0), sample(seed=3, lora=1.0)]
    assert [cell.batched for cell in batched([*noisy, *alone], 4)] == [None] * 5
    graphs = {place: cell.checked for place, cell in enumerate([*noisy, *alone])}
    assert explain_unbatched(graphs) == ["euler_ancestral draws noise while it steps, or may"]


def test_a_model_that_may_look_at_the_whole_batch_is_not_batched():
    cells = [sample(seed=seed) for seed in (1, 2)]
    patched = []
    for cell in cells:
        graph = cell.checked.graph
        nodes = {**graph, "patch": Node("patch", "Mahiro", {"model": Link("lora", 0)})}
        nodes["sampler"] = Node("sampler", "KSampler", {**graph["sampler"].inputs, "model": Link("patch", 0)})
        patched.append(make_cell(Graph(nodes), "sampler"))
    assert [cell.batched for cell in batched(patched, 4)] == [None, None]
    assert explain_unbatched({0: patched[0].checked}) == ["Mahiro may treat a batch as a whole"]
