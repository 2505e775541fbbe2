"""Blocks that are computed again give the same gradients, and keep less."""

import pytest
import torch

from encdec_train.build import compute_terms, total_loss
from encdec_train.data.example import collate
from encdec_train.rng import Rng
from encdec_train.step import Step
from encdec_train.train.recompute import recompute
from encdec_train.types import Mismatch
from tests.runs import assembled, small


def gradients(run):
    """Of one step with dropout, and the bytes that autograd kept for it."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    views = collate([run.transform(run.items[i], i, Rng(0, 0), clean=False) for i in range(8)])
    torch.manual_seed(0)
    run.parts.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step = Step(run.transform.finish(views, Rng(0, 0), clean=False), run.parts, Rng(0, 0))
        loss = total_loss(compute_terms(step, run.config.objective))
    loss.backward()
    return {n: p.grad.clone() for n, p in run.parts.named_parameters() if p.grad is not None}, sum(kept.values())


def test_same_gradients_from_less(tmp_path):
    run = assembled(small("t5", tmp_path), tmp_path)  # blocks with dropout on both sides
    expected, much = gradients(run)
    recompute(run.parts)
    found, little = gradients(run)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert little < 0.7 * much


@pytest.mark.parametrize("recipe,said", [("simclr_resnet", "would count every batch twice"), ("vae", "has blocks")])
def test_what_cannot_be_computed_again(recipe, said, tmp_path):
    with pytest.raises(Mismatch, match=said):
        assembled(small(recipe, tmp_path, "trainer.recompute=true"), tmp_path)
