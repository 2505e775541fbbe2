"""data2vec as the recipe wires it, against the steps of the authors' training loop (engine_for_cyclical.py)."""

import pytest
import torch
import torch.nn.functional as F

from encdec_train.build import check, make_parts, make_transform
from encdec_train.launch import compose
from encdec_train.nn.position import sincos
from encdec_train.rng import Rng
from encdec_train.step import Step
from encdec_train.types import Sites, Units

ROWS, SIDE, TOP = 3, 4, 2


@pytest.fixture(scope="module")
def parts():
    """At demo scale, with the paper's normalisation, and a teacher that is not the student any more."""
    config = compose(["+recipe=data2vec", "target.main.normal=layer", "target.main.final_normal=layer"])
    torch.manual_seed(0)
    found = make_parts(config, check(config, make_transform(config).specs()))
    with torch.no_grad():
        for parameter in found.student.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return found


@pytest.fixture(scope="module")
def step(parts):
    n = SIDE * SIDE
    place = torch.arange(n).expand(ROWS, -1)
    coords = torch.stack([place // SIDE, place % SIDE], -1).float()
    sample = torch.arange(ROWS)[:, None].expand(-1, n)
    sites = Sites(sample=sample, place=place, coords=coords, grid=(SIDE, SIDE))
    return Step({"image": Units(values=torch.randn(ROWS, n, 4), sites=sites)}, parts, Rng(0, 1))


def run(embedder, encoder, values, sites, hidden):
    """Outputs of all blocks for patches `values`, with the mask vector where `hidden`; the class token first."""
    x = embedder.project(values)
    x = torch.where(hidden[..., None], embedder.mask.vector, x) + sincos(sites.coords, x.shape[-1])
    x = torch.cat([encoder.tokens.expand(len(x), -1, -1), x], 1)
    outputs = []
    for block in encoder.blocks:
        x = block(x, sites, prefix=1)
        outputs.append(x)
    return outputs


def test_the_loss_is_that_of_the_authors(parts, step):
    objective, teacher = parts.get("objective", "main"), parts.teachers["ema"]
    term = objective(step)["main"]
    plan, units = step.plan(objective.path), step.units("image")
    hidden = plan.replace
    with torch.no_grad():
        part = teacher["embedder"]["main"], teacher["encoder"]["main"]
        layers = run(*part, units.values, plan.sites, torch.zeros_like(hidden))[-TOP:]
        goal = torch.stack([F.layer_norm(x[:, 1:], x.shape[-1:]) for x in layers]).mean(0)
        goal = F.layer_norm(goal, goal.shape[-1:])[hidden]
    student = parts.get("embedder", "main"), parts.get("encoder", "main")
    last = student[1].norm(run(*student, units.values, plan.sites, hidden)[-1])[:, 1:]
    predicted = parts.get("head", "main")(last[hidden])
    assert 0 < hidden.sum() <= term.count + 1e-6
    torch.testing.assert_close(term.mean, F.smooth_l1_loss(predicted, goal, beta=2.0), rtol=1e-5, atol=1e-6)


def test_gradients_reach_the_student_only(parts, step):
    objective = parts.get("objective", "main")
    assert not objective.goal(step).values.requires_grad
    objective(step)["main"].mean.backward()
    assert all(parameter.grad is None for parameter in parts.teachers.parameters())
    assert all(parameter.grad is not None for parameter in parts.student.parameters())
