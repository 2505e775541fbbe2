"""The pairwise sigmoid loss against its equation written out, and over the batch of two ranks."""

import pytest
import torch
import torch.distributed as dist

from encdec_train.losses.pairwise_sigmoid import PairwiseSigmoid, PairwiseSigmoidConfig
from encdec_train.types import Mismatch, Spec
from tests.losses.test_info_nce import ranks_agree, vectors


def closed_form(one, other, scale, bias):
    """Equation 1, pair by pair in float64."""
    x, y = (v.double() / v.double().norm(dim=1, keepdim=True) for v in (one, other))
    total = 0.0
    for i in range(len(x)):
        for j in range(len(x)):
            z = 1 if i == j else -1
            total = total - (1 / (1 + (-z * (scale * (x[i] @ y[j]) + bias)).exp())).log()
    return total / len(x)


@pytest.mark.parametrize("scale,bias", [(10.0, -10.0), (3.0, 0.5)])
def test_it_equals_the_equation_and_so_does_its_gradient(scale, bias):
    x, y = vectors(0).requires_grad_(), vectors(1).requires_grad_()
    part = PairwiseSigmoid(PairwiseSigmoidConfig(scale=scale, bias=bias), None)
    term = part([x], [y], pairs=[(0, 0)])
    expected = closed_form(x, y, scale, bias)
    assert term.count.item() == 5
    torch.testing.assert_close(term.mean.double(), expected, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(torch.autograd.grad(term.mean, [x, y]), torch.autograd.grad(expected, [x, y]), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_it_equals_transformers():
    transformers = pytest.importorskip("transformers")
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.SiglipConfig(
        vision_config={**vision, "image_size": 8, "patch_size": 4}, text_config={**vision, "vocab_size": 20}
    )
    model = transformers.SiglipModel(config).eval()
    with torch.no_grad():
        model.logit_scale.fill_(1.5)
        model.logit_bias.fill_(-2.0)
    ids, pictures = torch.randint(0, 20, (3, 5)), torch.randn(3, 3, 8, 8)
    found = model(input_ids=ids, pixel_values=pictures, return_loss=True)
    part = PairwiseSigmoid(PairwiseSigmoidConfig(scale=float(torch.tensor(1.5).exp()), bias=-2.0), None)
    term = part([found.text_embeds], [found.image_embeds], pairs=[(0, 0)])
    torch.testing.assert_close(term.mean, found.loss, rtol=1e-5, atol=1e-5)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="two crops"):
        PairwiseSigmoid(PairwiseSigmoidConfig(), None)([vectors(0)], [vectors(0)], pairs=[])
    with pytest.raises(Mismatch, match="scale"):
        PairwiseSigmoidConfig(scale=0.0).check(Spec(kind="vectors", width=4), None)
    with pytest.raises(Mismatch, match="vectors"):
        PairwiseSigmoidConfig().check(Spec(kind="ids", width=4), None)


@pytest.mark.skipif(not dist.is_available(), reason="torch without torch.distributed")
def test_two_ranks_see_the_global_batch(tmp_path):
    ranks_agree("pairwise_sigmoid", PairwiseSigmoid(PairwiseSigmoidConfig(), None), {}, tmp_path)
