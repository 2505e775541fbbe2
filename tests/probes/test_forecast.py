"""Forecasts of a series against ridge regression by scikit-learn, on windows cut one by one."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from encdec_train.probes.forecast import Forecast, ForecastConfig
from encdec_train.train.assembly import frozen
from encdec_train.types import Mismatch
from tests.runs import assembled, small

LENGTH, HORIZON, ROWS = 24, 6, 400


@pytest.fixture(scope="module")
def eyes(tmp_path_factory):
    """An untrained encoder of a table of two channels, the last 140 rows of which are the test split."""
    folder = tmp_path_factory.mktemp("series")
    time = np.arange(ROWS)
    noise = np.random.default_rng(0).standard_normal((2, ROWS))
    table = np.stack([np.sin(time / 3) * 4 + 7 + 0.3 * noise[0], np.cos(time / 5) + 0.01 * time + 0.1 * noise[1]], 1)
    np.savetxt(folder / "table.csv", table, delimiter=",", header="a,b", comments="")
    arguments = [f"data.path={folder}/table.csv", "data.channels=2", f"data.length={LENGTH}", "data.patch=6"]
    arguments += [
        "data=series",
        "data.label=null",
        "data.test=null",
        "data.held_out=140",
        "data.limit=null",
        "evaluate.batch=50",
    ]
    run = assembled(small("patchtst", folder, *arguments), folder)
    return frozen(run), table


@torch.no_grad()
def test_errors_are_those_of_scikit_learn(eyes):
    seen, table = eyes
    borders = [200, 260, 380]
    found = Forecast(ForecastConfig(horizon=HORIZON, borders=borders, penalties=[0.1, 1e9], windows=40))(seen)

    series = (table - table[:200].mean(0)) / table[:200].std(0)
    pieces = [series[i : i + LENGTH] for i in range(ROWS - LENGTH + 1)]
    tokens = torch.cat([step.tokens(seen.path).body for step, _ in seen.batches(pieces)])
    features = tokens.reshape(len(pieces), 2, -1).numpy()

    def rows(starts):
        x = np.concatenate([features[s] for s in starts])
        after = np.concatenate([series[s + LENGTH : s + LENGTH + HORIZON].T for s in starts])
        mean = np.concatenate([pieces[s].mean(0) for s in starts])[:, None]
        deviation = np.sqrt(np.concatenate([pieces[s].var(0) for s in starts]) + 1e-5)[:, None]
        return x, after, mean, deviation

    x, after, mean, deviation = rows(np.linspace(0, 200 - LENGTH - HORIZON, 40).round().astype(int))
    model = Ridge(alpha=0.1 * (x.astype(float) ** 2).sum(0).mean()).fit(x.astype(float), (after - mean) / deviation)
    test = range(260 - LENGTH, 380 - LENGTH - HORIZON + 1)  # what is foretold lies in the test part
    x, after, mean, deviation = rows(test)
    error = model.predict(x) * deviation + mean - after
    assert found.value == pytest.approx((error**2).mean(), rel=1e-3)
    assert found.more["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-3)
    last = np.concatenate([pieces[s][-1] for s in test])[:, None]
    assert found.more["repeated"] == pytest.approx(((last - after) ** 2).mean(), rel=1e-4)
    assert found.more["penalty"] == 0.1
    assert found.value < 0.5 * found.more["repeated"]


def test_parts_that_are_not_told_are_the_splits(eyes):
    """80 % of the training split of 260 rows, all of it, and the rest."""
    given, told = (
        Forecast(ForecastConfig(horizon=HORIZON, borders=borders))(eyes[0]) for borders in ([], [208, 260, 400])
    )
    assert (given.value, given.more) == (told.value, told.more)


def test_what_was_trained_on_is_no_test(eyes):
    with pytest.raises(Mismatch, match=r"begins at step 240, .* up to step 260; data\.held_out=200"):
        Forecast(ForecastConfig(horizon=HORIZON, borders=[200, 240, 400]))(eyes[0])


def test_parts_that_do_not_fit(eyes):
    with pytest.raises(Mismatch, match="do not fit 400 steps"):
        Forecast(ForecastConfig(horizon=HORIZON, borders=[200, 260, 500]))(eyes[0])
    with pytest.raises(Mismatch, match="do not fit"):
        Forecast(ForecastConfig(horizon=HORIZON, borders=[200, 203, 400]))(eyes[0])
    with pytest.raises(Mismatch, match="not three in order"):
        Forecast(ForecastConfig(borders=[3, 2, 1]))


def test_needs_a_long_series(tmp_path):
    seen = frozen(assembled(small("mae_vit", tmp_path), tmp_path))
    with pytest.raises(Mismatch, match="one long series"):
        Forecast(ForecastConfig())(seen)
