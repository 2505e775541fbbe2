"""The seasonal series: repeatable, balanced, and really those profiles."""

import numpy as np
import pytest

from encdec_train.data.sources.seasons import LEVELS, PROFILES, Seasons, SeasonsConfig
from encdec_train.types import Mismatch

SMALL = SeasonsConfig(rows=24)


def test_the_same_seed_makes_the_same_rows_and_splits_differ():
    first, again = Seasons(SMALL)("train"), Seasons(SMALL)("train")
    assert np.array_equal(first["series"][:], again["series"][:])
    more = Seasons(SeasonsConfig(rows=48))("train")
    assert np.array_equal(more["series"][:24], first["series"][:])
    assert len(Seasons(SMALL)("test")) == 6
    assert not np.array_equal(Seasons(SMALL)("test")["series"][:], first["series"][:6])
    assert not np.array_equal(Seasons(SeasonsConfig(rows=24, seed=1))("train")["series"][:], first["series"][:])


def test_rows_are_what_the_configuration_says():
    rows = Seasons(SMALL)("train")
    assert rows["series"][:].shape == (24, 96, 2)
    assert [int(label) for label in rows["label"]] == [i % 6 for i in range(24)]
    assert abs(LEVELS.mean()) < 1e-12 and abs((LEVELS**2).mean() - 1) < 1e-12


def test_without_noise_and_trend_a_day_is_its_profile():
    rows = Seasons(SeasonsConfig(rows=12, noise=0.0, slope=0.0))("train")
    for row in rows:
        series = np.asarray(row["series"], dtype=float)
        assert np.allclose(series[24:], series[:-24], atol=1e-4 * np.abs(series).max())
        for channel in series.T:
            day = channel[:24]
            ranks = np.searchsorted(np.unique(day.round(3)), day.round(3))
            order = ranks[np.flatnonzero(np.diff(np.append(ranks[-1:], ranks)))]
            order = np.roll(order, -int(np.flatnonzero(order == 0)[0]))
            assert tuple(order) == PROFILES[int(row["label"])]


@pytest.mark.parametrize(
    ("settings", "said"), [({"rows": 2}, "rows: 2"), ({"period": 3}, "period: 3"), ({"noise": -1.0}, "noise: -1.0")]
)
def test_ranges(settings, said):
    with pytest.raises(Mismatch, match=said):
        Seasons(SeasonsConfig(**settings))
