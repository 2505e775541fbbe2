"""Noise and what is wanted of it, in closed form."""

import pytest
import torch

from encdec_train.corruptions.noise import Noise, NoiseConfig, Wanted, Way
from encdec_train.rng import Rng
from encdec_train.types import Mismatch, Path, Sites, Spec, Units

SPEC = Spec(kind="vectors", width=8, length=5, raw=Spec(kind="values", width=3, length=5))


class Keyed:
    """The one thing that this corruption reads of a step."""

    def __init__(self, step=0):
        self.rng = Rng(0, step)


def units(rows, first=0):
    sample = torch.arange(first, first + rows)[:, None].expand(rows, 5)
    values = torch.randn(2000, 5, 3, generator=torch.Generator().manual_seed(0))[first : first + rows]
    return Units(values=values, sites=Sites(sample=sample, place=torch.arange(5).expand(rows, 5)))


def plan(given, **config):
    return Noise(NoiseConfig(**config), SPEC)(given, given.sites, Keyed(), Path())


def schedule():
    """Ho et al. 2020: the product of 1 - b over a thousand b from 1e-4 to .02."""
    found, product = [], 1.0
    for i in range(1000):
        product *= 1 - (1e-4 + (0.02 - 1e-4) * i / 999)
        found.append(product)
    return torch.tensor(found)


def test_flow_is_a_straight_line_from_the_values_to_noise():
    given = units(2000)
    velocity = plan(given).targets.values
    found = plan(given, wanted=Wanted.noise)
    time, noise = found.time[:, None, None], found.targets.values
    torch.testing.assert_close(found.inputs.values, (1 - time) * given.values + time * noise)
    torch.testing.assert_close(velocity, noise - given.values)
    torch.testing.assert_close(found.inputs.values + (1 - time) * velocity, noise, atol=1e-5, rtol=1e-5)
    assert abs(noise.mean()) < 4.5 / noise.numel() ** 0.5 and abs(noise.var() - 1) < 4.5 * (2 / noise.numel()) ** 0.5
    assert abs(found.time.mean() - 0.5) < 4.5 * (1 / 12 / 2000) ** 0.5


def test_diffusion_keeps_the_variance_and_follows_the_linear_schedule():
    given = units(2000)
    found, velocity = plan(given, way=Way.diffusion, wanted=Wanted.noise), plan(given, way=Way.diffusion)
    number = (found.time * 1000).round().long()
    kept, noise = schedule()[number][:, None, None], found.targets.values
    mixed = kept.sqrt() * given.values + (1 - kept).sqrt() * noise
    torch.testing.assert_close(found.inputs.values, mixed, atol=1e-5, rtol=1e-4)
    wanted = kept.sqrt() * noise - (1 - kept).sqrt() * given.values
    torch.testing.assert_close(velocity.targets.values, wanted, atol=1e-5, rtol=1e-4)
    assert 0 <= number.min() < 10 and 990 <= number.max() < 1000


def test_values_are_divided_by_their_deviation():
    given = units(4)
    small = Units(values=given.values / 4, sites=given.sites)
    torch.testing.assert_close(plan(given, deviation=4.0).inputs.values, plan(small).inputs.values)


def test_a_row_gets_the_same_noise_alone_and_in_a_batch():
    together, alone = plan(units(6)), plan(units(1, first=4))
    assert torch.equal(alone.inputs.values[0], together.inputs.values[4]) and alone.time[0] == together.time[4]


def test_what_does_not_fit_is_named():
    with pytest.raises(Mismatch, match="needs values, the view gives ids"):
        NoiseConfig().spec(Spec(kind="vectors", width=8, raw=Spec(kind="ids", width=3)))
    with pytest.raises(Mismatch, match=r"deviation: 0\.0"):
        NoiseConfig(deviation=0.0).spec(SPEC)
