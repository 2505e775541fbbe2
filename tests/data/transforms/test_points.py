"""Clouds of points: groups against their definition, draws that belong to a row."""

import pytest
import torch

from encdec_train.data.config import DataConfig
from encdec_train.data.example import collate
from encdec_train.data.sources.files import CloudsConfig
from encdec_train.data.transforms.points import PointsTransform, PointsTransformConfig
from encdec_train.rng import Rng
from encdec_train.types import Mismatch


def transform(points=32, **config):
    settings = {"groups": 5, "members": 6, **config}
    return PointsTransform(PointsTransformConfig(**settings), CloudsConfig(points=points))


def clouds(count=4, points=32):
    return [{"points": cloud} for cloud in torch.randn(count, points, 3).tolist()]


def finished(part, rows, step=0, first=0, clean=False):
    rng = Rng(0, step)
    examples = [part(row, first + i, rng, clean=clean) for i, row in enumerate(rows)]
    return part.finish(collate(examples), rng, clean=clean)["points"]


def test_groups_hold_what_is_nearest_about_their_middles():
    part, rows = transform(), clouds()
    found = finished(part, rows, clean=True)
    assert found.values.shape == (4, 5, 18) and found.sites.members.shape == (4, 5, 6)
    for row in range(4):
        cloud = torch.tensor(rows[row]["points"])
        cloud = cloud - cloud.mean(0)
        cloud = cloud / cloud.norm(dim=1).max()
        for group in range(5):
            centre, members = found.sites.coords[row, group], found.sites.members[row, group]
            assert torch.allclose(cloud[members] - centre, found.values[row, group].view(6, 3), atol=1e-6)
            assert members.tolist() == ((cloud - centre) ** 2).sum(1).argsort()[:6].tolist()
            assert torch.allclose(cloud[members[0]], centre, atol=1e-6)  # a middle is a point
        assert torch.isclose(found.sites.coords[row, 0].norm(), torch.tensor(1.0))  # probes begin with the outermost


def test_a_row_is_the_same_in_any_batch_and_another_at_another_step():
    part, rows = transform(stretch=1.5, shift=0.2), clouds(6, 40)
    whole, some = finished(part, rows), finished(part, rows[2:4], first=2)
    assert torch.equal(some.values, whole.values[2:4]) and torch.equal(some.sites.coords, whole.sites.coords[2:4])
    assert not torch.equal(finished(part, rows, step=1).sites.coords, whole.sites.coords)
    clean = finished(part, rows, clean=True)
    assert torch.equal(finished(part, rows, step=1, clean=True).values, clean.values)


def test_clouds_are_stretched_and_shifted_within_their_bounds():
    part = transform(stretch=1.5, shift=0.2)
    points, keys = torch.randn(4000, 8, 3), torch.arange(4000)[:, None]
    moved = part.move(points, keys, Rng(0, 0))
    scale = (moved[:, 0] - moved[:, 1]) / (points[:, 0] - points[:, 1])
    shift = moved[:, 0] - scale * points[:, 0]
    assert torch.allclose(scale[:, None] * points + shift[:, None], moved, atol=1e-2)
    assert 0.66 < scale.min() < 0.68 and 1.49 < scale.max() < 1.51
    assert abs(scale.mean() - (2 / 3 + 1.5) / 2) < 0.01 and shift.abs().max() < 0.21
    still = transform()
    assert torch.equal(still.move(points, keys, Rng(0, 0)), points)


def test_every_point_may_come_first():
    part = transform()
    starts = part.start(torch.randn(3000, 32, 3), torch.arange(3000)[:, None], Rng(0, 0), clean=False)
    assert torch.bincount(starts, minlength=32).min() > 50


@pytest.mark.parametrize(
    ("cloud", "said"),
    [([[0.0] * 3] * 31, "has not 32 points"), ([[0.0] * 2] * 40, "has not 32"), ([[float("inf")] * 3] * 32, "finite")],
)
def test_rows_that_do_not_fit(cloud, said):
    with pytest.raises(ValueError, match=said):
        transform()({"points": cloud}, 0, Rng(0, 0), clean=False)


@pytest.mark.parametrize("config", [{"groups": 33}, {"members": 0}, {"stretch": 0.5}, {"shift": -1.0}])
def test_refuses_what_cannot_be(config):
    with pytest.raises(Mismatch, match="transform 'points'"):
        transform(**config)
    with pytest.raises(Mismatch, match="needs clouds"):
        PointsTransform(PointsTransformConfig(), DataConfig())
