"""k-NN against scikit-learn's."""

import numpy as np
from sklearn.neighbors import KNeighborsClassifier

from encdec_train.probes.knn import Knn, KnnConfig
from tests.probes.frozen import clusters, frozen


def reference(x, y, k, temperature):
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    votes = lambda distance: np.exp((1 - distance) / temperature)  # noqa: E731
    return KNeighborsClassifier(k, weights=votes, metric="cosine", algorithm="brute").fit(unit, y)


def test_classes_are_those_of_scikit_learn():
    (x, y), (queries, answers) = clusters(300), clusters(1500, seed=1)
    for k, temperature in ((1, 0.07), (20, 0.07), (50, 1.0)):
        expected = reference(x, y, k, temperature).predict(queries)
        probe = Knn(KnnConfig(k=k, temperature=temperature))
        assert (probe.predict(x, y, queries) == expected).mean() > 0.999  # but for ties of rounding
        assert abs(probe(frozen((x, y), (queries, answers))) - (expected == answers).mean()) < 1e-3


def test_fewer_rows_than_neighbours():
    x, y = clusters(5)
    assert Knn(KnnConfig(k=20, temperature=0.01)).predict(x, y, x).tolist() == y.tolist()
