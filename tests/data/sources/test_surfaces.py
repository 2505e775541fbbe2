"""The sampled surfaces: repeatable, on the bodies, and uniform over their area."""

import numpy as np
import pytest

from encdec_train.data.sources.surfaces import BODIES, Surfaces, SurfacesConfig
from encdec_train.types import Mismatch

SMALL = SurfacesConfig(rows=18, points=20, sampled=40)


def sampled(name, count=40_000):
    return BODIES[name](np.random.default_rng(0).random((count, 3)))


def area_above(name, height):
    """Share of the area whose third coordinate is above `height` in [0, 1), by hand."""
    h = height
    if name == "sphere":
        return (1 - h) / 2
    if name == "cylinder":
        return (2 * np.pi * (1 - h) + np.pi) / (6 * np.pi)
    if name == "cone":  # similar cones: the side above shrinks with the square
        return np.sqrt(5) * ((1 - h) / 2) ** 2 / (1 + np.sqrt(5))
    if name == "box":
        return (4 + 8 * (1 - h)) / 24
    if name == "pyramid":
        return 4 * np.sqrt(5) * ((1 - h) / 2) ** 2 / (4 + 4 * np.sqrt(5))
    angle = np.pi - 2 * np.arcsin(2 * h)  # of the tube of radius 1/2 above h; symmetric about its top
    return angle / (2 * np.pi)


@pytest.mark.parametrize("name", BODIES)
def test_points_are_uniform_over_the_area(name):
    points = sampled(name)
    for height in (0.0, 0.3, 0.45):
        assert abs((points[:, 2] > height).mean() - area_above(name, height)) < 0.012
    assert abs((points[:, 0] > 0.4).mean() - (points[:, 0] < -0.4).mean()) < 0.015
    assert abs((points[:, 0] > 0.4).mean() - (points[:, 1] > 0.4).mean()) < 0.015


@pytest.mark.parametrize("name", BODIES)
def test_points_lie_on_the_body(name):
    x, y, z = sampled(name, 2000).T
    flat, wide = np.hypot(x, y), np.maximum(abs(x), abs(y))
    off = {
        "sphere": abs(np.hypot(flat, z) - 1),
        "cylinder": np.minimum(abs(flat - 1), abs(abs(z) - 1)),
        "cone": np.minimum(abs(z - 1 + 2 * flat), abs(z + 1)),
        "box": abs(np.maximum(wide, abs(z)) - 1),
        "pyramid": np.minimum(abs(z - 1 + 2 * wide), abs(z + 1)),
        "ring": abs(np.hypot(flat - 1, z) - 0.5),
    }[name]
    assert off.max() < 1e-9


def test_a_ring_has_more_area_outside():
    x, y, _ = sampled("ring").T
    outside = 0.5 + 0.5 / np.pi  # integral of 1 + cos / 2 over the outer half of the tube
    assert abs((np.hypot(x, y) > 1).mean() - outside) < 0.01


def test_the_same_seed_makes_the_same_rows_and_splits_differ():
    first, again = Surfaces(SMALL)("train"), Surfaces(SMALL)("train")
    assert np.array_equal(first["points"][:], again["points"][:]) and len(Surfaces(SMALL)("test")) == 6
    more = Surfaces(SurfacesConfig(rows=36, points=20, sampled=40))("train")
    assert np.array_equal(more["points"][:18], first["points"][:])
    assert not np.array_equal(Surfaces(SMALL)("test")["points"][:], first["points"][:6])
    assert [int(label) for label in first["label"]] == [i % 6 for i in range(18)]


@pytest.mark.parametrize(
    ("settings", "said"), [({"rows": 2}, "rows: 2"), ({"sampled": 9}, "sampled: 9"), ({"noise": -1.0}, "noise")]
)
def test_ranges(settings, said):
    with pytest.raises(Mismatch, match=said):
        Surfaces(SurfacesConfig(**settings))
