"""The similarity of pairs against scipy, and columns that do not fit."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.distance import cosine
from scipy.stats import spearmanr

from encdec_train.probes.sts import Sts, StsConfig
from encdec_train.types import Mismatch


def test_spearman_of_cosines():
    generator = np.random.default_rng(0)
    sides = {name: generator.standard_normal((40, 6)).astype(np.float32) for name in ("one", "other")}
    scores = np.array([1 - cosine(a, b) for a, b in zip(*sides.values(), strict=True)]) ** 3 + generator.random(40) / 5
    views = {
        name: SimpleNamespace(features=lambda split, x=x: x, numbers=lambda split: scores[:, None])
        for name, x in sides.items()
    }
    frozen = SimpleNamespace(of=lambda config, column: views[column])
    found = Sts(StsConfig(columns=["one", "other"]))(frozen)
    expected = spearmanr([1 - cosine(a, b) for a, b in zip(*sides.values(), strict=True)], scores).statistic
    assert found.value == pytest.approx(expected) and 0.5 < expected < 1
    assert found.more["pairs"] == 40


def test_two_columns():
    with pytest.raises(Mismatch, match="not two"):
        Sts(StsConfig(columns=["one"]))
