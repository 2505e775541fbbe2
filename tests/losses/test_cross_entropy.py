"""Cross entropy against its definition."""

from __future__ import annotations

import pytest
import torch

from encdec_train.losses.cross_entropy import CrossEntropy, CrossEntropyConfig
from encdec_train.types import Goal, Mismatch, Spec


def test_smoothing_and_normaliser() -> None:
    scores, ids = torch.randn(7, 5), torch.randint(0, 5, (7,))
    config = CrossEntropyConfig(smoothing=0.2, z=0.01)
    rows = CrossEntropy(config, None)(scores, Goal(values=ids))
    log = scores.log_softmax(-1)
    own = -log[torch.arange(7), ids]
    expected = 0.8 * own - 0.2 * log.mean(-1) + 0.01 * scores.exp().sum(-1).log().square()
    torch.testing.assert_close(rows, expected)


def test_check() -> None:
    scores = Spec(kind="vectors", width=5)
    CrossEntropyConfig().check(scores, Spec(kind="ids", width=5))
    with pytest.raises(Mismatch, match="scores 5 ids, the target has 6"):
        CrossEntropyConfig().check(scores, Spec(kind="ids", width=6))
    with pytest.raises(Mismatch, match="needs ids"):
        CrossEntropyConfig().check(scores, Spec(kind="values", width=5))
    with pytest.raises(Mismatch, match="smoothing"):
        CrossEntropyConfig(smoothing=1.0).check(scores, Spec(kind="ids", width=5))


def test_the_trivial_loss_is_that_of_the_best_constant_scores():
    values = torch.tensor([0, 1, 1, 2, 1, 0])
    for smoothing in (0.0, 0.2):
        part = CrossEntropy(CrossEntropyConfig(smoothing=smoothing), Spec(kind="ids", width=5))
        share = torch.bincount(values, minlength=5).double() / 6
        best = ((1 - smoothing) * share + smoothing / 5).clamp_min(1e-30).log().float()
        expected = part(best.expand(6, 5), Goal(values=values)).mean()
        torch.testing.assert_close(part.trivial(Goal(values=values))[1].float(), expected, rtol=1e-5, atol=1e-6)
