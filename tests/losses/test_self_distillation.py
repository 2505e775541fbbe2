from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from encdec_train.losses.self_distillation import SelfDistillation, SelfDistillationConfig
from encdec_train.nn.assignment import sinkhorn
from encdec_train.types import Mismatch, Spec
from tests.ranks import check_two_ranks
from tests.vectors import vectors

SPEC = Spec(kind="vectors", width=4)
PAIRS = [(0, 1), (1, 0), (2, 0), (2, 1)]  # two global crops and a local one


def loss(**changes: float) -> SelfDistillation:
    return SelfDistillation(SelfDistillationConfig(**changes), SPEC)  # type: ignore[arg-type]


def softmax(x: np.ndarray) -> np.ndarray:
    y = np.exp(x - x.max(1, keepdims=True))
    return y / y.sum(1, keepdims=True)


def test_two_steps_are_the_papers_algorithm() -> None:
    """Algorithm 1 in numpy and float64: the centre of the first step enters the second."""
    given, centre = loss(teacher_temperature=0.3, momentum=0.8), np.zeros(4)
    for seed in (0, 5):
        s, t = vectors(3, seed=seed), vectors(2, seed=seed + 1)
        term = given(s, t, pairs=PAIRS)
        students, teachers = ([v.double().numpy() for v in side] for side in (s, t))
        goals = [softmax((v - centre) / 0.3) for v in teachers]
        found = [-(goals[j] * np.log(softmax(students[i] / 0.1))).sum(1).mean() for i, j in PAIRS]
        assert term.count == 6
        assert term.mean.item() == pytest.approx(sum(found) / 4, rel=1e-5)
        centre = 0.8 * centre + 0.2 * np.concatenate(teachers).mean(0)
    np.testing.assert_allclose(given.assignment.centre.numpy(), centre, rtol=1e-5)


def test_the_teachers_temperature_warms_up() -> None:
    given, t = loss(first_temperature=0.1, teacher_temperature=0.5, warmup=4), vectors(2)
    seen = []
    for _ in range(6):
        seen.append(given.assignment.sharpness().item())
        given(t, list(t), pairs=[(0, 1)])
    assert seen == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.5])
    assert loss(teacher_temperature=0.5).assignment.sharpness().item() == 0.5


def test_sinkhorn_shares_out_all_crops_of_the_teacher_together() -> None:
    s, t = vectors(3), vectors(2, seed=1)
    goals = sinkhorn(torch.cat(t) / 0.3, 3).chunk(2)
    rows = [F.cross_entropy(s[i] / 0.1, goals[j], reduction="none") for i, j in PAIRS]
    given = loss(teacher_temperature=0.3, sinkhorn=3)
    assert given(s, t, pairs=PAIRS).mean.item() == pytest.approx(torch.stack(rows).mean().item(), rel=1e-5)
    assert not given.assignment.centre.any() and given.assignment.done == 1


def test_uniform_scores_cost_the_log_of_the_prototypes_and_teachers_get_no_gradient() -> None:
    s, t = [torch.zeros(6, 4).requires_grad_()], [torch.randn(6, 4).requires_grad_()]
    term = loss()(s, t, pairs=[(0, 0)])
    assert term.mean.item() == pytest.approx(math.log(4))
    assert loss().trivial(6) == ("uniform", pytest.approx(math.log(4)))
    term.mean.backward()
    assert t[0].grad is None and s[0].grad is not None


def test_nothing_is_remembered_outside_of_training() -> None:
    given = loss().eval()
    before = copy.deepcopy(given.state_dict())
    given(vectors(1), vectors(1, seed=1), pairs=[(0, 0)])
    torch.testing.assert_close(given.state_dict(), before)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"temperature": 0.0}, "temperature: 0"),
        ({"first_temperature": -1.0}, "first_temperature"),
        ({"momentum": 1.0}, "momentum"),
        ({"warmup": 0}, "warmup"),
        ({"sinkhorn": -1}, "sinkhorn: -1"),
    ],
)
def test_bad_values_are_named(changes: dict[str, float], said: str) -> None:
    with pytest.raises(Mismatch, match=said):
        SelfDistillationConfig(**changes).check(SPEC, None)  # type: ignore[arg-type]


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(Mismatch, match="gives ids"):
        SelfDistillationConfig().check(Spec(kind="ids", width=4), None)
    z = vectors(1)
    with pytest.raises(ValueError, match="right side"):
        loss()(z, z, pairs=[])


def test_two_ranks(tmp_path) -> None:  # type: ignore[no-untyped-def]
    check_two_ranks(tmp_path, loss(), vectors(3), vectors(2, seed=1), pairs=tuple(PAIRS))
