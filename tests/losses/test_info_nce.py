"""InfoNCE against its equation written out, both ways and one way, and over the batch of two ranks."""

import subprocess
import sys

import pytest
import torch
import torch.distributed as dist

from encdec_train.losses.info_nce import InfoNce, InfoNceConfig
from encdec_train.types import Mismatch, Spec


def vectors(seed, rows=5, width=4):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def closed_form(one, other, temperature, both):
    """Row by row in float64: the mean over samples."""
    x, y = (v.double() / v.double().norm(dim=1, keepdim=True) for v in (one, other))
    total = 0.0
    for i in range(len(x)):
        towards = [(x[i] @ y[k] / temperature).exp() for k in range(len(x))]
        back = [(y[i] @ x[k] / temperature).exp() for k in range(len(x))]
        row = -(towards[i] / sum(towards)).log()
        total = total + ((row - (back[i] / sum(back)).log()) / 2 if both else row)
    return total / len(x)


def loss(**changes):
    return InfoNce(InfoNceConfig(**changes), None)


@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize("learned", [True, False])
def test_it_equals_the_equation_and_so_does_its_gradient(both, learned):
    x, y = vectors(0).requires_grad_(), vectors(1).requires_grad_()
    term = loss(temperature=0.2, both=both, learned=learned)([x], [y], pairs=[(0, 0)])
    expected = closed_form(x, y, 0.2, both)
    assert term.count.item() == 5
    torch.testing.assert_close(term.mean.double(), expected, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(torch.autograd.grad(term.mean, [x, y]), torch.autograd.grad(expected, [x, y]), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_pairs_are_averaged():
    left, right = [vectors(0), vectors(1)], [vectors(2)]
    term = loss()(left, right, pairs=[(0, 0), (1, 0)])
    expected = (closed_form(left[0], right[0], 0.07, True) + closed_form(left[1], right[0], 0.07, True)) / 2
    torch.testing.assert_close(term.mean.double(), expected, rtol=1e-5, atol=1e-6)


def test_equal_vectors_cost_the_logarithm_of_the_batch():
    same = torch.ones(7, 3)
    assert loss()([same], [same], pairs=[(0, 0)]).mean.item() == pytest.approx(torch.tensor(7.0).log().item())


def test_a_learned_temperature_has_a_gradient_and_a_floor():
    part = loss(temperature=0.01, learned=True)
    with torch.no_grad():
        part.log_scale.add_(1.0)
    term = part([vectors(0)], [vectors(1)], pairs=[(0, 0)])
    torch.testing.assert_close(term.mean.double(), closed_form(vectors(0), vectors(1), 0.01, True))
    (gradient,) = torch.autograd.grad(term.mean, [part.log_scale])
    assert gradient != 0  # so that it may come back
    assert loss(temperature=0.5, learned=True).scale().item() == pytest.approx(2.0)


def test_what_cannot_be_compared_is_refused():
    one = [vectors(0)]
    with pytest.raises(ValueError, match="two crops"):
        loss()(one, one, pairs=[])
    with pytest.raises(Mismatch, match="temperature"):
        InfoNceConfig(temperature=0.0).check(Spec(kind="vectors", width=4), None)
    with pytest.raises(Mismatch, match="vectors"):
        InfoNceConfig().check(Spec(kind="ids", width=4), None)


RANK = """
import sys, torch, torch.distributed as dist
from encdec_train.registry import discover, losses
folder, rank = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
discover()
name, values, z = torch.load(f"{folder}/z.pt")
config, part = losses.parts[name]
mine = [side.chunk(2)[rank].clone().requires_grad_() for side in z]
loss = part(config(**values), None)
term = loss(mine[:1], mine[1:], pairs=[(0, 0)])
total = torch.stack([term.sum.detach(), term.count])
dist.all_reduce(total)
mean = term.sum / total[1]
own = torch.autograd.grad(mean, [*mine, *loss.parameters()])
for gradient in own[2:]:
    dist.all_reduce(gradient)
torch.save((total, own), f"{folder}/{rank}.pt")
dist.barrier()
dist.destroy_process_group()
"""


def ranks_agree(name, part, values, folder):
    """Sums, counts and gradients of two ranks are those of one process with all rows."""
    z = [vectors(seed, rows=6).float().requires_grad_() for seed in (0, 1)]
    torch.save((name, values, [side.detach() for side in z]), folder / "z.pt")
    command = [sys.executable, "-c", RANK, str(folder)]
    ranks = [subprocess.Popen([*command, str(rank)]) for rank in range(2)]
    assert [process.wait(timeout=240) for process in ranks] == [0, 0]
    totals, gradients = zip(*(torch.load(folder / f"{rank}.pt") for rank in range(2)), strict=True)
    whole = part(z[:1], z[1:], pairs=[(0, 0)])
    for total in totals:
        torch.testing.assert_close(total, torch.stack([whole.sum.detach(), whole.count]))
    expected = torch.autograd.grad(whole.mean, [*z, *part.parameters()])
    for side in range(2):
        torch.testing.assert_close(torch.cat([gradients[rank][side] for rank in range(2)]), expected[side])
    for i in range(2, len(expected)):
        torch.testing.assert_close(gradients[0][i], expected[i])


@pytest.mark.skipif(not dist.is_available(), reason="torch without torch.distributed")
def test_two_ranks_see_the_global_batch(tmp_path):
    values = {"temperature": 0.2, "learned": True}
    ranks_agree("info_nce", loss(**values), values, tmp_path)
