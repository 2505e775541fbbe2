"""Coordinates alone."""

import pytest
import torch

from encdec_train.data.transforms.image import lattice
from encdec_train.embedders.coordinates import Coordinates, CoordinatesConfig
from encdec_train.types import Mismatch, Plan, Spec, Units

VIEW = Spec(kind="values", width=3, length=15, coords=2, grid=(3, 5))


def test_the_longest_axis_runs_from_minus_one_to_one_and_values_are_not_read():
    part = Coordinates(CoordinatesConfig(), VIEW, mask=False)
    sites = lattice(torch.arange(2)[:, None], (3, 5))
    units = Units(values=torch.full((2, 15, 3), torch.nan), sites=sites)
    found = part.features(units, sites, None)
    assert found.shape == (2, 15, 2) and torch.equal(found[0], found[1])
    assert found[0, 0].tolist() == [-1, -1] and found[0, 4].tolist() == [-1, 1]
    assert found[0, 10].tolist() == [0, -1] and found[0, 7].tolist() == [-0.5, 0]
    keep = torch.tensor([[7, 0], [4, 10]])
    assert torch.equal(part.features(units, sites, keep)[1], found[1, [4, 10]])
    assert torch.equal(part.place(found, Plan(inputs=units, sites=sites)).x, found)
    assert not list(part.parameters())


def test_spec():
    assert (CoordinatesConfig().spec(VIEW).width, CoordinatesConfig().spec(VIEW).raw) == (2, VIEW)
    with pytest.raises(Mismatch, match="has none"):
        CoordinatesConfig().spec(Spec(kind="values", width=3, coords=2))
