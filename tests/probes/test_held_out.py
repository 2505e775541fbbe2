"""The held-out probe against closed forms."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from encdec_train.probes.held_out import HeldOut, HeldOutConfig, Score, restored_pictures, ssim
from encdec_train.train.assembly import frozen as open_eyes
from encdec_train.train.assembly import lower_is_better
from encdec_train.types import Goal, Mismatch
from tests.runs import assembled, small


class Objective:
    """Hands out what it was given, batch by batch."""

    def __init__(self, predictions, goals):
        self.predictions, self.goals = predictions, goals

    def predict(self, step):
        return self.predictions[step], None, None

    def goal(self, step):
        return self.goals[step]


def frozen(predictions, goals):
    objective = Objective(predictions, goals)
    return SimpleNamespace(
        config=SimpleNamespace(objective={"main": None}),
        parts=SimpleNamespace(get=lambda noun, name: objective),
        steps=lambda split: ((number, {}) for number in range(len(goals))),
    )


def test_accuracy_counts_weighted_rows():
    scores = torch.eye(3)
    goals = [Goal(values=torch.tensor([0, 1, 0]), weight=torch.tensor([1.0, 1.0, 0.0])), Goal(values=torch.tensor([2]))]
    probe = HeldOut(HeldOutConfig())
    assert probe(frozen([scores, scores[:1]], goals)) == pytest.approx(2 / 3)


def test_r2_and_psnr():
    values, noise = torch.randn(50, 4), 0.1 * torch.randn(50, 4)
    goals = [Goal(values=values[:30]), Goal(values=values[30:])]
    eyes = frozen([(values + noise)[:30], (values + noise)[30:]], goals)
    error = noise.double().square().mean()
    spread = values.double().var(0, unbiased=False).mean()
    assert HeldOut(HeldOutConfig(score=Score.r2))(eyes) == pytest.approx(float(1 - error / spread), rel=1e-5)
    psnr = HeldOut(HeldOutConfig(score=Score.psnr, peak=2.0))(eyes)
    assert psnr == pytest.approx(float(10 * torch.log10(4 / error)), rel=1e-5)


def test_the_mean_scores_zero():
    values = torch.randn(40, 3)
    eyes = frozen([values.mean(0).expand(40, 3)], [Goal(values=values)])
    assert HeldOut(HeldOutConfig(score=Score.r2))(eyes) == pytest.approx(0, abs=1e-6)


def test_what_does_not_fit_is_named():
    with pytest.raises(Mismatch, match="accuracy does not fit"):
        HeldOut(HeldOutConfig())(frozen([torch.zeros(2, 1)], [Goal(values=torch.zeros(2, 1))]))
    with pytest.raises(Mismatch, match="there is no objective 'other'"):
        HeldOut(HeldOutConfig(objective="other"))(frozen([], []))


def test_ssim_is_that_of_torchmetrics():
    reference = pytest.importorskip("torchmetrics.functional.image").structural_similarity_index_measure
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(3, 2, 24, 20, generator=generator, dtype=torch.float64)
    y = (x + 0.2 * torch.randn(x.shape, generator=generator)).clamp(0, 1)
    whole = reference(y, x, data_range=1.0, reduction="none", return_full_image=True)[1]
    expected = whole[..., 5:-5, 5:-5].mean((1, 2, 3))  # at its edges the window lies beyond the picture
    torch.testing.assert_close(ssim(x, y), expected, rtol=1e-6, atol=1e-6)
    assert ssim(x[..., :8, :8], x[..., :8, :8]).tolist() == pytest.approx([1] * 3)
    flat = torch.zeros(1, 1, 8, 8)  # of pictures that stand still only their means speak
    assert float(ssim(flat, flat + 0.5)) == pytest.approx(1e-4 / (0.25 + 1e-4))


def test_ssim_of_a_run(tmp_path):
    run = assembled(small("mae_vit", tmp_path, "evaluate.rows=40"), tmp_path)
    eyes = open_eyes(run)
    found = HeldOut(HeldOutConfig(score=Score.ssim))(eyes)
    assert -1 < found < 0.9
    step = next(iter(eyes.steps("test")))[0]
    with torch.no_grad():
        true, _ = restored_pictures(eyes, step, run.parts.get("objective", "main"))
    assert true.shape == (40, 1, 8, 8)
    expected = torch.tensor(np.array([run.rows["test"][i]["image"] for i in range(40)]) / 255)
    torch.testing.assert_close(true[:, 0].double(), expected.view(40, 8, 8), atol=1e-5, rtol=0)


def test_perplexity_and_bits_per_byte():
    """Of chances that are written down; the third id is special and the last one is not counted."""
    chances = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.25, 0.25, 0.5], [1.0, 0.0, 0.0]])
    ids, weight = torch.tensor([0, 1, 2, 1]), torch.tensor([1.0, 1.0, 1.0, 0.0])
    scores = (chances + 1e-9).log() + 3
    eyes = frozen(
        [scores[:1], scores[1:]], [Goal(values=ids[:1], weight=weight[:1]), Goal(values=ids[1:], weight=weight[1:])]
    )
    assert HeldOut(HeldOutConfig(score=Score.perplexity))(eyes) == pytest.approx(
        (0.5 * 0.8 * 0.5) ** (-1 / 3), rel=1e-5
    )
    words = SimpleNamespace(byte_counts=lambda: torch.tensor([3, 2, 0]))
    objective = eyes.parts.get("objective", "main")
    objective.path = SimpleNamespace(view="text")
    eyes.transform = SimpleNamespace(of=lambda view: words)
    bits = -torch.tensor([0.5, 0.8, 0.5]).log2().sum() / (3 + 2)
    assert HeldOut(HeldOutConfig(score=Score.bits_per_byte))(eyes) == pytest.approx(float(bits), rel=1e-5)
    assert lower_is_better(HeldOutConfig(score=Score.perplexity)) and not lower_is_better(HeldOutConfig())
    assert HeldOut(HeldOutConfig(score=Score.bits_per_byte)).lower and not HeldOut(HeldOutConfig()).lower
    eyes.transform = SimpleNamespace(of=lambda view: None)
    with pytest.raises(Mismatch, match="view 'text' is none"):
        HeldOut(HeldOutConfig(score=Score.bits_per_byte))(eyes)
