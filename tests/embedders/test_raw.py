from __future__ import annotations

import pytest
import torch

from encdec_train.embedders.raw import Raw, RawEmbedderConfig
from encdec_train.types import Mismatch, Plan, Spec
from tests.graphs import FEATURES, VIEW, example, units


def test_values_are_vectors_and_replaced_ones_the_mask_vector() -> None:
    part, batch = Raw(RawEmbedderConfig(), VIEW, mask=True), units(example(5, 0))
    assert part.mask is not None and not part.mask.vector.any()
    torch.nn.init.constant_(part.mask.vector, 2.0)
    replace = torch.tensor([[True, False, False, True, False]])
    features = part.features(batch, batch.sites, None)
    assert torch.equal(features, batch.values)
    placed = part.place(features, Plan(inputs=batch, sites=batch.sites, replace=replace))
    assert (placed.x[replace] == 2).all() and torch.equal(placed.x[~replace], batch.values[~replace])


def test_no_mask_vector_unless_it_is_used() -> None:
    assert not list(Raw(RawEmbedderConfig(), VIEW, mask=False).parameters())


def test_spec() -> None:
    spec = RawEmbedderConfig().spec(VIEW)
    assert (spec.kind, spec.width, spec.features, spec.raw, spec.edges) == (
        "vectors",
        FEATURES,
        FEATURES,
        VIEW,
        True,
    )
    with pytest.raises(Mismatch, match="the view gives ids"):
        RawEmbedderConfig().spec(Spec(kind="ids", width=9))


def test_only_kept_values_are_taken() -> None:
    part, batch = Raw(RawEmbedderConfig(), VIEW, mask=False), units(example(5, 0))
    keep = torch.tensor([[4, 1]])
    assert torch.equal(part.features(batch, batch.sites, keep)[0], batch.values[0, [4, 1]])
