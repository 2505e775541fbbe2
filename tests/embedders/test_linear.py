"""The linear embedder's positions and bounds."""

import pytest
import torch

from encdec_train.embedders.linear import Linear, LinearEmbedderConfig, Position
from encdec_train.nn.norm import Norm
from encdec_train.types import Mismatch, Plan, Sites, Spec, Units

VIEW = Spec(kind="values", width=3, length=8, max_len=4)
PLACE = torch.arange(4).repeat(2).expand(2, 8)


def units():
    return Units(values=torch.randn(2, 8, 3), sites=Sites(sample=torch.zeros_like(PLACE), place=PLACE, max_len=4))


def embed(part, batch, **plan):
    features = part.features(batch, batch.sites, plan.get("keep"))
    return part.place(features, Plan(inputs=batch, sites=batch.sites, **plan)).x


def test_learned_positions_are_one_vector_for_each_place_of_a_document():
    part, batch = Linear(LinearEmbedderConfig(width=6, position=Position.learned), VIEW, mask=True), units()
    assert part.positions.weight.shape == (4, 6)
    found = embed(part, batch)
    assert torch.allclose(found, part.project(batch.values) + part.positions.weight.repeat(2, 1))
    replace = torch.zeros(2, 8, dtype=torch.bool)
    replace[0, 5] = True
    assert torch.allclose(embed(part, batch, replace=replace)[0, 5], part.mask.vector + part.positions.weight[1])
    keep = torch.tensor([[6, 1], [0, 3]])
    assert torch.allclose(embed(part, batch, keep=keep)[0], found[0, [6, 1]], atol=1e-6)


def test_a_norm_comes_before_positions():
    config = LinearEmbedderConfig(width=6, position=Position.learned, norm=Norm.layer)
    part, batch = Linear(config, VIEW, mask=False), units()
    projected = part.project(batch.values)
    moments = projected.mean(-1, keepdim=True), projected.var(-1, unbiased=False, keepdim=True)
    expected = (projected - moments[0]) / (moments[1] + 1e-6).sqrt() + part.positions.weight.repeat(2, 1)
    torch.testing.assert_close(embed(part, batch), expected, atol=1e-5, rtol=1e-5)


def test_dropout_is_for_training():
    part, batch = Linear(LinearEmbedderConfig(width=64, position=Position.none, dropout=0.5), VIEW, mask=False), units()
    assert 0.35 < (embed(part, batch) == 0).float().mean() < 0.65
    assert torch.equal(embed(part.eval(), batch), part.project(batch.values))


@pytest.mark.parametrize(
    ("settings", "view", "said"),
    [
        ({"position": Position.learned}, Spec(kind="values", width=3), "bounded length"),
        ({"position": Position.sincos}, VIEW, "needs coordinates"),
        ({"position": Position.none, "dropout": 1.0}, VIEW, "dropout: 1.0"),
        ({}, Spec(kind="ids", width=3), "gives ids"),
    ],
)
def test_refuses_what_cannot_be(settings, view, said):
    with pytest.raises(Mismatch, match=said):
        LinearEmbedderConfig(**settings).spec(view)
