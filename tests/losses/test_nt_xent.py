import pytest
import torch

from encdec_train.losses.nt_xent import NtXent, NtXentConfig
from encdec_train.types import Mismatch, Spec
from tests.ranks import check_two_ranks


def closed_form(crops, temperature):
    """Equation 1 of the paper, written out pair by pair in float64: (sum over all vectors, their number)."""
    z = [torch.nn.functional.normalize(crop.double(), dim=1) for crop in crops]
    pictures, total, count = len(z[0]), 0.0, 0
    for i in range(pictures):
        for a in range(len(z)):
            others = [(k, b) for k in range(pictures) for b in range(len(z)) if (k, b) != (i, a)]
            similar = {(k, b): (z[a][i] @ z[b][k] / temperature).exp() for k, b in others}
            positives = [(i, b) for b in range(len(z)) if b != a]
            below = sum(similar.values())
            total = total - sum((similar[p] / below).log() for p in positives) / len(positives)
            count += 1
    return total, count


def vectors(crops, rows=5, width=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, width, generator=generator) for _ in range(crops)]


def loss(temperature=0.2):
    return NtXent(NtXentConfig(temperature=temperature), None)


@pytest.mark.parametrize("crops", [2, 3])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_it_equals_the_papers_equation(crops, temperature):
    z = vectors(crops)
    term = loss(temperature)(z, z, pairs=[(0, 1)])
    total, count = closed_form(z, temperature)
    assert term.count.item() == count == 5 * crops
    torch.testing.assert_close(term.sum.double(), total, rtol=1e-5, atol=1e-5)


def test_two_sides_are_all_compared():
    left, right = vectors(1), vectors(1, seed=1)
    both = loss()(left, right, pairs=[(0, 0)])
    torch.testing.assert_close(both.sum.double(), closed_form(left + right, 0.2)[0], rtol=1e-5, atol=1e-5)


def test_gradients_equal_the_papers_equation():
    z = [crop.requires_grad_() for crop in vectors(2)]
    found = torch.autograd.grad(loss()(z, z, pairs=[(0, 1)]).mean, z)
    total, count = closed_form(z, 0.2)
    for ours, theirs in zip(found, torch.autograd.grad(total / count, z), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_it_equals_lightly():
    try:
        from lightly.loss import NTXentLoss
    except (ImportError, RuntimeError) as error:  # a torchvision that does not fit this torch raises the latter
        pytest.skip(f"lightly: {error}")
    for temperature in (0.1, 0.5):
        z = vectors(2, rows=32, width=16)
        expected = NTXentLoss(temperature=temperature)(*z)
        torch.testing.assert_close(loss(temperature)(z, z, pairs=[(0, 1)]).mean, expected, rtol=1e-6, atol=1e-6)


def test_length_does_not_count_and_agreement_helps():
    z = vectors(2)
    first = loss()(z, z, pairs=[(0, 1)]).mean
    scaled = [z[0] * 3, z[1] * torch.rand(5, 1).add(0.1)]
    torch.testing.assert_close(loss()(scaled, scaled, pairs=[(0, 1)]).mean, first)
    agreeing = [z[0], z[0] + 0.01 * z[1]]
    assert loss()(agreeing, agreeing, pairs=[(0, 1)]).mean < first


def test_it_stays_in_float32_under_autocast():
    z = vectors(2)
    with torch.autocast("cpu", torch.bfloat16):
        halves = [crop.bfloat16() for crop in z]
        found = loss(0.07)(halves, halves, pairs=[(0, 1)])
    rounded = [crop.bfloat16().float() for crop in z]
    expected = loss(0.07)(rounded, rounded, pairs=[(0, 1)])
    assert found.sum.dtype == torch.float32
    torch.testing.assert_close(found.sum, expected.sum)


def test_one_crop_and_bad_values_are_refused():
    with pytest.raises(ValueError, match="two crops"):
        one = vectors(1)
        loss()(one, one, pairs=[])
    with pytest.raises(Mismatch, match="temperature"):
        NtXentConfig(temperature=0.0).check(Spec(kind="vectors", width=4), None)
    with pytest.raises(Mismatch, match="vectors"):
        NtXentConfig().check(Spec(kind="ids", width=4), None)


def test_two_ranks_see_the_global_batch(tmp_path):
    check_two_ranks(tmp_path, loss(), vectors(2, rows=6))
