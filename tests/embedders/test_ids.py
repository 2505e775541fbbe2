"""The table of ids: sums, positions within documents, mask vector, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from encdec_train.embedders.ids import Ids, IdsConfig, IdsPosition
from encdec_train.nn.norm import Norm
from encdec_train.nn.position import sincos
from encdec_train.types import Mismatch, Plan, Spec
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
    with pytest.raises(Mismatch, match="no bound"):
        IdsConfig(width=8, position=IdsPosition.learned).spec(view(max_len=0))
    with pytest.raises(Mismatch, match="needs ids"):
        IdsConfig(width=8).spec(Spec(kind="values", width=3))
