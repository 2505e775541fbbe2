"""The sentence `spark`: what is hidden reaches neither the encoder nor what is predicted, only the goal."""

from dataclasses import replace

import torch

from encdec_train.build import check, make_parts, make_transform
from encdec_train.data.transforms.image import lattice
from encdec_train.launch import compose
from encdec_train.rng import Rng
from encdec_train.step import Step
from encdec_train.types import Units


def test_predictions_do_not_depend_on_hidden_pixels():
    torch.manual_seed(0)
    config = compose(["+recipe=spark"])
    transform = make_transform(config)
    parts = make_parts(config, check(config, transform.specs()))
    objective = parts.get("objective", "main")
    units = Units(values=torch.randn(6, 4, 16), sites=lattice(torch.arange(6)[:, None], (2, 2)))

    def run(given):
        step = Step({"image": given}, parts, Rng(0, 0))
        prediction, plan, _ = objective.predict(step)
        return prediction, plan, objective.goal(step).values, step.tokens(objective.path)

    prediction, plan, goal, tokens = run(units)
    assert prediction.shape == goal.shape == (12, 16)
    torch.testing.assert_close(goal.mean(-1), torch.zeros(12), atol=1e-5, rtol=0)
    assert torch.equal(tokens.sites.valid, ~plan.mask)
    other = torch.where(plan.mask[..., None], torch.randn(6, 4, 16), units.values)
    again, _, changed, _ = run(replace(units, values=other))
    assert torch.equal(prediction, again) and not torch.equal(goal, changed)
    seen = torch.where(plan.mask[..., None], units.values, torch.randn(6, 4, 16))
    moved, _, kept, _ = run(replace(units, values=seen))
    assert torch.equal(goal, kept) and not torch.allclose(prediction, moved)
