"""The table of ids: sums, positions within documents, mask vector, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from encdec_train.embedders.ids import Ids, IdsConfig, IdsPosition
from encdec_train.nn.norm import Norm
from encdec_train.nn.position import sincos
from encdec_train.types import Mismatch, Plan, Sites, Spec
from tests.texts import documents, packed, padded, unpack, view

LENGTHS = [9, 16, 4]
ROWS = [[0, 2], [1]]


def test_is_the_normalised_sum_of_three_tables() -> None:
    config = IdsConfig(width=8, position=IdsPosition.learned, types=2, norm=Norm.layer)
    embedder, units = Ids(config, view(), mask=False), padded(documents(LENGTHS))
    plan = Plan(inputs=units, sites=units.sites)
    x = embedder.place(embedder.features(units, units.sites, None), plan).x
    total = embedder.table.weight[units.values] + embedder.positions.weight[units.sites.place]
    expected = torch.nn.functional.layer_norm(total + embedder.types.weight[0], (8,), eps=1e-12)
    torch.testing.assert_close(x, expected)


@pytest.mark.parametrize("position", list(IdsPosition))
def test_packed_is_padded(position: IdsPosition) -> None:
    embedder, docs = Ids(IdsConfig(width=8, position=position), view(), mask=False), documents(LENGTHS)
    together, alone = packed(docs, ROWS, 16), padded(docs)
    x, y = (
        embedder.place(embedder.features(units, units.sites, None), Plan(inputs=units, sites=units.sites)).x
        for units in (together, alone)
    )
    for key, vectors in unpack(x, together, ROWS).items():
        assert torch.equal(vectors, y[key, : len(vectors)])


def test_mask_vector_and_kept_sites() -> None:
    config = IdsConfig(width=8, position=IdsPosition.sincos)
    embedder, units = Ids(config, view(), mask=True), padded(documents([6, 6]))
    replaced = torch.zeros(2, 6, dtype=torch.bool)
    replaced[:, 1] = True
    plan = Plan(inputs=units, sites=units.sites, replace=replaced)
    x = embedder.place(embedder.features(units, units.sites, None), plan).x
    torch.testing.assert_close(x[0, 1], embedder.mask.vector + sincos(torch.tensor([1]), 8))
    keep = torch.tensor([[0, 3], [2, 5]])
    plan = Plan(inputs=units, sites=units.sites, keep=keep)
    kept = embedder.place(embedder.features(units, units.sites, keep), plan)
    expected = embedder.table.weight[units.values.gather(1, keep)] + sincos(keep[..., None], 8)
    torch.testing.assert_close(kept.x, expected)


def test_refuses_what_does_not_fit() -> None:
    learned = IdsConfig(width=8, position=IdsPosition.learned, positions=10)
    with pytest.raises(Mismatch, match="positions: 10, but the view's documents have 16"):
        learned.spec(view())
    with pytest.raises(Mismatch, match="axes: 2 tables of positions, with position=none"):
        IdsConfig(width=8, axes=2).spec(view())
    with pytest.raises(Mismatch, match="no bound"):
        IdsConfig(width=8, position=IdsPosition.learned).spec(view(max_len=0))
    with pytest.raises(Mismatch, match="needs ids"):
        IdsConfig(width=8).spec(Spec(kind="values", width=3))


def test_tokens_are_scaled_before_positions() -> None:
    embedder, units = (
        Ids(IdsConfig(width=16, scale=True, position=IdsPosition.sincos), view(), mask=False),
        padded(documents([6])),
    )
    x = embedder.place(embedder.features(units, units.sites, None), Plan(inputs=units, sites=units.sites)).x
    torch.testing.assert_close(x, 4 * embedder.table.weight[units.values] + sincos(units.sites.place[..., None], 16))


def test_several_axes_have_tables_of_their_own() -> None:
    config = IdsConfig(width=8, position=IdsPosition.learned, axes=2)
    embedder, units = Ids(config, view(), mask=False), padded(documents([6]))
    tokens = embedder.table.weight[units.values]

    def place(sites: Sites) -> torch.Tensor:
        return embedder.place(tokens, Plan(inputs=units, sites=sites)).x

    plain = embedder.positions.weight[:6] + embedder.axes[0].weight[0]
    torch.testing.assert_close(place(units.sites), tokens + plain)
    coords = torch.tensor([[[3, 0], [3, 1], [0, 0], [1, 2], [5, 5], [2, 1]]])
    expected = tokens + embedder.positions.weight[coords[..., 0]] + embedder.axes[0].weight[coords[..., 1]]
    torch.testing.assert_close(place(replace(units.sites, coords=coords.float())), expected)


def test_a_shared_table_stays_the_others() -> None:
    learned = IdsConfig(width=8, position=IdsPosition.learned)
    main = Ids(learned, view(), mask=False)
    other = Ids(replace(learned, shares="main"), view(), main, mask=False)
    assert other.table is main.table
    assert list(other.state_dict()) == ["positions.weight"]
    with pytest.raises(Mismatch, match=r"a table of \(60, 12\) is needed, the other has \(60, 8\)"):
        Ids(replace(learned, shares="main", width=12), view(), main, mask=False)
    with pytest.raises(Mismatch, match="no table"):
        Ids(replace(learned, shares="main"), view(), torch.nn.Identity(), mask=False)
