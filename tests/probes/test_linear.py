"""The linear probe of classes, numbers and labels with gaps, against closed forms and scikit-learn."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from encdec_train.probes.linear import LinearProbe, LinearProbeConfig
from encdec_train.probes.measures import Measure
from encdec_train.types import Mismatch
from tests.probes.frozen import clusters, frozen


def standardised(x, queries):
    return (x - x.mean(0)) / x.std(0), (queries - x.mean(0)) / x.std(0)


def test_classes():
    (x, y), (queries, answers) = clusters(200), clusters(300, seed=1)
    given, asked = standardised(x, queries)
    expected = LogisticRegression(max_iter=500).fit(given, y).score(asked, answers)
    assert LinearProbe(LinearProbeConfig())(frozen((x, y), (queries, answers))).value == pytest.approx(expected)


def test_numbers_by_the_normal_equations():
    generator = np.random.default_rng(0)
    x, queries = (generator.standard_normal((n, 6)).astype(np.float32) for n in (80, 50))
    weights = generator.standard_normal(6)
    y, truth = (z @ weights + 5 + generator.standard_normal(len(z)) for z in (x, queries))
    y[3] = np.nan
    known = ~np.isnan(y)
    given, asked = standardised(x[known].astype(float), queries.astype(float))
    found = np.linalg.solve(given.T @ given + 2 * np.eye(6), given.T @ (y[known] - y[known].mean()))
    error = asked @ found + y[known].mean() - truth
    probe = LinearProbe(LinearProbeConfig(measure=Measure.r2, c=0.5))
    measured = probe(frozen((x, y), (queries, truth)))
    assert measured.value == pytest.approx(1 - error.var() / truth.var() - error.mean() ** 2 / truth.var(), abs=1e-5)
    assert measured.more["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-5)
    assert measured.more["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-5)
    assert "penalty 2.0" in probe.protocol


def test_labels_with_gaps():
    generator = np.random.default_rng(0)
    x, queries = (generator.standard_normal((n, 5)).astype(np.float32) for n in (200, 100))
    y, truth = (
        np.stack([z[:, 0] + z[:, 1] > 0, z[:, 2] > generator.standard_normal(len(z)), np.zeros(len(z))], 1)
        for z in (x, queries)
    )
    y, truth = y.astype(float), truth.astype(float)
    y[generator.random(y.shape) < 0.4] = np.nan
    truth[generator.random(truth.shape) < 0.2] = np.nan
    expected = []
    for i in range(2):  # of the third all test rows are a no
        known, asked = ~np.isnan(y[:, i]), ~np.isnan(truth[:, i])
        given, rows = standardised(x[known], queries[asked])
        scores = LogisticRegression(max_iter=500).fit(given, y[known, i]).predict_proba(rows)[:, 1]
        expected.append(roc_auc_score(truth[asked, i], scores))
    measured = LinearProbe(LinearProbeConfig(measure=Measure.roc_auc))(frozen((x, y), (queries, truth)))
    assert measured.value == pytest.approx(np.mean(expected), abs=1e-6)
    assert measured.more["labels"] == 2


def test_labels_of_another_kind_are_refused():
    x = np.eye(4, dtype=np.float32)
    for measure, y in ((Measure.accuracy, [0, 1.5, 0, 1]), (Measure.accuracy, [0, np.nan, 0, 1])):
        with pytest.raises(Mismatch, match="accuracy is of classes"):
            LinearProbe(LinearProbeConfig(measure=measure))(frozen((x, y), (x, y)))
    with pytest.raises(Mismatch, match="0, 1 or missing"):
        LinearProbe(LinearProbeConfig(measure=Measure.roc_auc))(frozen((x, [0, 1, 2, 0]), (x, [0, 1, 2, 0])))
    nothing = np.zeros(4)
    with pytest.raises(Mismatch, match="both a yes and a no"):
        LinearProbe(LinearProbeConfig(measure=Measure.roc_auc))(frozen((x, nothing), (x, nothing)))
