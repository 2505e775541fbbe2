"""Who is held against whom, over three views (facebookresearch/dino, main_dino.py, `DINOLoss`)."""

from __future__ import annotations

from typing import Any

import torch

from encdec_train.build import check, make_parts, make_transform
from encdec_train.launch import compose
from encdec_train.rng import Rng
from encdec_train.step import Step


def test_every_crop_but_the_teachers_own_and_only_global_ones_on_the_right() -> None:
    config = compose(["+recipe=dino"])
    transform: Any = make_transform(config)
    wiring = check(config, transform.specs())
    batch = {
        view: transform.patches(
            torch.randn(4 * spec.crops, 1, side, side), torch.arange(4 * spec.crops)[:, None], spec.crops
        )
        for view, spec in transform.specs().items()
        for side in [2 * spec.grid[0]]
    }
    step = Step(batch, make_parts(config, wiring), Rng(0, 0))
    objective = step.part("objective", "main")
    left, right = objective.sides(step)
    teachers, students = len(right), len(left)
    assert (teachers, students) == (2, 4)  # two local crops
    expected = {(v, q) for q in range(teachers) for v in range(students) if v != q}
    found = objective.partners(step)
    assert set(found) == expected and len(found) == len(expected)
    assert all(x.requires_grad for x in left) and not any(x.requires_grad for x in right)
