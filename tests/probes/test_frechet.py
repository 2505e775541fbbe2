"""The distance of two clouds against scipy's matrix root, and of restored rows on a run."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from encdec_train.probes.frechet import Frechet, FrechetConfig, frechet
from encdec_train.probes.held_out import restored
from encdec_train.train.assembly import frozen
from encdec_train.types import Mismatch
from tests.runs import assembled, small


def test_distance_is_that_of_the_matrix_root():
    generator = np.random.default_rng(0)
    x = generator.standard_normal((200, 5))
    y = generator.standard_normal((150, 5)) @ generator.standard_normal((5, 5)) + 1
    one, other = np.cov(x.T), np.cov(y.T)
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(one + other - 2 * sqrtm(one @ other).real)
    assert frechet(x, y) == pytest.approx(expected, rel=1e-8)
    assert frechet(x, x) == pytest.approx(0, abs=1e-8)
    assert frechet(x, x + 2) == pytest.approx(5 * 4, rel=1e-8)


def test_restored_rows(tmp_path):
    run = assembled(small("mae_vit", tmp_path, "evaluate.rows=80"), tmp_path)
    run.parts.requires_grad_(False)
    eyes, objective = frozen(run), run.parts.get("objective", "main")
    step = next(iter(eyes.steps("test")))[0]
    true, made = restored(step, objective)
    mask = step.plan(objective.path).mask
    assert torch.equal(true[~mask], made[~mask]) and not torch.equal(true[mask], made[mask])
    torch.testing.assert_close(made.flatten(0, 1)[step.plan(objective.path).where], objective.predict(step)[0])
    assert Frechet(FrechetConfig())(eyes) > 0
    with pytest.raises(Mismatch, match="no objective 'other'"):
        Frechet(FrechetConfig(objective="other"))(eyes)


def test_nothing_hidden_is_no_distance(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "encdec_train.probes.frechet.restored", lambda step, objective: (step.units("image").values,) * 2
    )
    eyes = frozen(assembled(small("mae_vit", tmp_path, "evaluate.rows=80"), tmp_path))
    assert Frechet(FrechetConfig())(eyes) == pytest.approx(0, abs=1e-6)
