"""A few rows of each class: drawn by key, the mean of what scikit-learn finds for each draw."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from encdec_train.probes.few_shot import FewShot, FewShotConfig, drawn
from encdec_train.rng import Rng
from tests.probes.frozen import clusters, frozen


def test_so_many_of_each_class():
    y = np.array([0] * 50 + [1] * 3 + [2] * 20)
    first, other = (drawn(y, 5, Rng(0, draw)) for draw in (0, 1))
    assert np.bincount(y[first]).tolist() == [5, 3, 5]
    assert len(set(first)) == 13 and set(first) != set(other)
    assert first.tolist() == drawn(y, 5, Rng(0, 0)).tolist()


def test_mean_and_deviation_of_the_draws():
    (x, y), (queries, answers) = clusters(200), clusters(300, seed=1)
    expected = []
    for draw in range(3):
        rows = drawn(y, 4, Rng(0, draw))
        mean, deviation = x[rows].mean(0), x[rows].std(0)
        model = LogisticRegression(max_iter=500).fit((x[rows] - mean) / deviation, y[rows])
        expected.append(model.score((queries - mean) / deviation, answers))
    found = FewShot(FewShotConfig(shots=4, draws=3))(frozen((x, y), (queries, answers)))
    assert found.value == pytest.approx(np.mean(expected)) and found.more["std"] == pytest.approx(np.std(expected))
    assert len(set(found.more["draws"])) > 1
