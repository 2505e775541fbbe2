"""SIREN against its formula and its promised distribution."""

import math

import pytest
import torch

from encdec_train.encoders.siren import Siren, SirenConfig
from encdec_train.types import Mismatch, Sites, Spec, Tokens

VIEW = Spec(kind="vectors", width=2, length=9)


def tokens(x):
    place = torch.arange(x.shape[1]).expand(x.shape[:2])
    return Tokens(x=x, sites=Sites(sample=place, place=place))


def test_layers_are_sines_of_scaled_linear_maps():
    part, x = Siren(SirenConfig(width=5, depth=3, omega=20.0, first_omega=7.0), VIEW), torch.rand(2, 9, 2) * 2 - 1
    y = x
    for omega, layer in zip((7.0, 20.0, 20.0), part.layers, strict=True):
        y = torch.sin(omega * (y @ layer.weight.T + layer.bias))
    assert torch.allclose(part(tokens(x)).x, y, atol=1e-5)


def test_every_layer_starts_with_the_same_distribution():
    """If x has variance v, an argument is normal with 2v, and its sine has (1 - exp(-4v)) / 2: v settles at 0.398."""
    part = Siren(SirenConfig(width=512, depth=5), VIEW)
    for i, layer in enumerate(part.layers):
        bound = (6 / 512) ** 0.5 / 30 if i else 0.5
        assert layer.weight.abs().max() <= bound and layer.weight.std().item() == pytest.approx(
            bound / 3**0.5, rel=0.05
        )
    with torch.no_grad():
        x = part(tokens(torch.rand(1, 4000, 2) * 2 - 1)).x
    variance = 0.5
    for _ in range(50):
        variance = (1 - math.exp(-4 * variance)) / 2
    assert x.var().item() == pytest.approx(variance, rel=0.05)


@pytest.mark.parametrize("settings", [{"width": 0}, {"depth": 0}, {"omega": 0.0}, {"first_omega": -1.0}])
def test_refuses_what_cannot_be(settings):
    with pytest.raises(Mismatch, match="encoder 'siren'"):
        SirenConfig(**settings).spec(VIEW)
    with pytest.raises(Mismatch, match="needs vectors"):
        SirenConfig().spec(Spec(kind="ids", width=2))
