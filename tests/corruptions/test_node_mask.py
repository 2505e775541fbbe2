from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from encdec_train.corruptions.node_mask import NodeMask, NodeMaskConfig
from encdec_train.rng import Rng
from encdec_train.types import Mismatch, Path, Plan, Units
from tests.graphs import VECTORS, example, units

PATH = Path(view="graph", corruption="main")
SIZES = (1, 4, 7, 10, 3, 25)


def plan(given: Units, step: int = 0, **settings: Any) -> Plan:
    corruption = NodeMask(NodeMaskConfig(**settings), VECTORS)
    return corruption(given, given.sites, SimpleNamespace(rng=Rng(3, step)), PATH)  # type: ignore[arg-type]


def graphs() -> Units:
    return units(*(example(n, 100 + n) for n in SIZES))


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_the_share_is_exact_in_every_graph(ratio: float) -> None:
    given = graphs()
    found = plan(given, ratio=ratio)
    assert found.mask is not None and found.where is not None and found.weight is not None
    assert found.mask.sum(1).tolist() == [int(n * ratio + 0.5) for n in SIZES]
    assert not (found.mask & ~given.sites.real()).any()
    assert len(found.where) == len(SIZES) * int(max(SIZES) * ratio + 0.5)  # a fixed capacity


def test_weighted_rows_are_the_masked_nodes() -> None:
    found = plan(graphs(), ratio=0.5)
    assert found.mask is not None and found.where is not None and found.weight is not None
    counted = found.where[found.weight == 1]
    assert torch.equal(counted.sort().values, found.mask.flatten().nonzero()[:, 0])
    assert set(found.weight.tolist()) == {0.0, 1.0}


def test_fixed_nodes_stay() -> None:
    given = graphs()
    fixed = given.sites.place == 0
    found = plan(replace(given, sites=replace(given.sites, fixed=fixed)), ratio=0.75)
    assert found.mask is not None and not (found.mask & fixed).any()
    assert found.mask.sum(1).tolist() == [int((n - 1) * 0.75 + 0.5) for n in SIZES]


def test_a_graph_gets_the_same_mask_in_any_batch() -> None:
    given, alone = plan(graphs(), ratio=0.5, swap=0.3), plan(units(example(7, 107)), ratio=0.5, swap=0.3)
    assert given.mask is not None and alone.mask is not None
    assert torch.equal(given.mask[2, :7], alone.mask[0])
    assert torch.equal(given.inputs.values[2, :7], alone.inputs.values[0])


def test_every_node_is_masked_equally_often() -> None:
    given = units(*(example(10, i) for i in range(200)))
    count = torch.zeros(10)
    for step in range(20):
        mask = plan(given, step, ratio=0.3).mask
        assert mask is not None
        count += mask.sum(0)
    share = count / (200 * 20)
    assert (share - 0.3).abs().max() < 5 * (0.3 * 0.7 / 4000) ** 0.5  # five deviations


def test_swapped_nodes_carry_another_nodes_features() -> None:
    given = units(*(example(20, i) for i in range(200)))
    found = plan(given, ratio=0.5, swap=0.2)
    assert found.mask is not None and found.replace is not None
    assert not (found.replace & ~found.mask).any()
    swapped = found.mask & ~found.replace
    share = swapped.sum() / found.mask.sum()
    assert abs(share - 0.2) < 5 * (0.2 * 0.8 / 2000) ** 0.5
    untouched = ~swapped
    assert torch.equal(found.inputs.values[untouched], given.values[untouched])
    rows, nodes = swapped.nonzero().T
    same_graph = (found.inputs.values[rows, nodes][:, None] == given.values[rows]).all(-1)
    assert same_graph.any(1).all()  # the features are those of some node of the same graph
    own = same_graph[torch.arange(len(nodes)), nodes].float().mean()
    assert own < 0.15  # mostly another node: 1 in 20 draws itself


def test_swapped_features_are_those_of_real_nodes() -> None:
    given = units(example(3, 0), example(40, 1))
    padded = replace(given, values=given.values.masked_fill(~given.sites.real()[..., None], 99.0))
    for step in range(20):
        assert plan(padded, step, ratio=0.9, swap=0.9).inputs.values[0, :3].max() < 99


def test_without_swapping_the_view_is_handed_on() -> None:
    given = graphs()
    found = plan(given, ratio=0.5)
    assert found.inputs is given and found.replace is found.mask


@pytest.mark.parametrize("settings,said", [({"ratio": 1.0}, "ratio: 1.0"), ({"swap": -0.1}, "swap: -0.1")])
def test_ranges(settings: dict[str, float], said: str) -> None:
    with pytest.raises(Mismatch, match=said):
        NodeMaskConfig(**settings).spec(VECTORS)
