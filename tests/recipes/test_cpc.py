"""Contrastive predictive coding as the recipe wires it: nothing of the future is read, and the loss is InfoNCE."""

import pytest
import torch
import torch.nn.functional as F

from encdec_train.build import check, make_parts, make_transform
from encdec_train.launch import compose
from encdec_train.rng import Rng
from encdec_train.step import Step
from encdec_train.types import Sites, Units

STEPS, NEGATIVES, ROWS, SAMPLES, HOP, SEEN = 6, 10, 3, 8000, 160, 465


@pytest.fixture(scope="module")
def built():
    config = compose(["+recipe=cpc"])
    torch.manual_seed(0)
    return make_parts(config, check(config, make_transform(config).specs()))


@pytest.fixture(scope="module")
def sound():
    return torch.randn(ROWS, SAMPLES, 1, generator=torch.Generator().manual_seed(1))


def step_of(parts, values, first=0, valid=None):
    sample = torch.arange(first, first + len(values))[:, None].expand(-1, SAMPLES)
    place = torch.arange(SAMPLES).expand(len(values), -1)
    return Step({"audio": Units(values=values, sites=Sites(sample=sample, place=place, valid=valid))}, parts, Rng(0, 7))


@torch.no_grad()
def test_what_is_predicted_at_a_time_does_not_depend_on_what_follows(built, sound):
    objective = built.get("objective", "main")
    changed, origin = sound.clone(), 20
    changed[:, origin * HOP + SEEN :] += 1.0  # the first sample that frame 20 does not see
    one, two = (objective.predict(step_of(built, x))[0].unflatten(0, (ROWS, -1, STEPS)) for x in (sound, changed))
    torch.testing.assert_close(one[:, : origin + 1], two[:, : origin + 1], rtol=0, atol=1e-6)
    assert (one[:, origin + 1 :] - two[:, origin + 1 :]).abs().amax(-1).min() > 1e-5


def test_the_loss_is_infonce(built, sound):
    """Equation 4 with the density ratio of equation 3, row by row from the definitions."""
    objective = built.get("objective", "main")
    step = step_of(built, sound)
    term = objective(step)["main"]
    frames = built.get("embedder", "main").features(step.batch["audio"], None, None)  # (B,N,F)
    state = built.get("encoder", "main").ahead[0](frames)[0]
    maps = built.get("decoder", "main").linear.weight.unflatten(0, (STEPS, -1))
    origins = frames.shape[1] - STEPS
    goal = objective.goal(step)
    found, row = [], 0
    for b in range(ROWS):
        for t in range(origins):
            for k in range(STEPS):
                predicted = maps[k] @ state[b, t]
                others = goal.values[goal.negatives[row]]
                scores = torch.cat([frames[b, t + k + 1][None], others]) @ predicted
                found.append(F.cross_entropy(scores[None], torch.tensor([0])))
                row += 1
    assert term.count == row
    torch.testing.assert_close(term.mean, torch.stack(found).mean())


def test_what_is_predicted_learns_too(built, sound):
    """Without a gradient through the true frames and the others, the convolutions would learn through the GRU alone."""
    goal = built.get("objective", "main").goal(step_of(built, sound))
    weight = built.get("embedder", "main").convolutions[0].weight
    assert torch.autograd.grad(goal.values.sum(), weight)[0].abs().sum() > 0


@torch.no_grad()
def test_negatives_stand_at_other_places_of_the_same_sound(built, sound):
    objective = built.get("objective", "main")
    step = step_of(built, sound, valid=torch.arange(SAMPLES) < torch.tensor([[SAMPLES], [4000], [SAMPLES]]))
    plan, goal = step.plan(objective.path), objective.goal(step)
    real = plan.weight > 0
    assert goal.negatives.shape == (len(plan.where), NEGATIVES) and 0 < real.sum() < len(real)
    chosen = plan.where[goal.negatives[real]]
    assert (chosen != plan.where[real, None]).all()
    assert torch.equal(chosen // plan.sites.n, (plan.where[real, None] // plan.sites.n).expand_as(chosen))
    assert real[goal.negatives[real]].all()


@torch.no_grad()
def test_a_row_alone_gets_what_it_gets_in_a_batch(built, sound):
    objective = built.get("objective", "main")
    together = objective.goal(step_of(built, sound)).negatives.unflatten(0, (ROWS, -1))
    size = together.shape[1]
    for i in range(ROWS):
        alone = objective.goal(step_of(built, sound[i : i + 1], first=i)).negatives
        assert torch.equal(alone + i * size, together[i])
