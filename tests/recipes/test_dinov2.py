"""The sentence against the losses of facebookresearch/dinov2 (train/ssl_meta_arch.py), written out again."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from encdec_train.build import check, compute_terms, make_parts, make_transform, total_loss
from encdec_train.launch import compose
from encdec_train.rng import Rng
from encdec_train.step import Step

ROWS, LOCAL = 6, 2


def make_step() -> tuple[Step, dict[str, Any], list[str]]:
    config = compose(["+recipe=dinov2", f"transform.more.local.crops={LOCAL}"])
    transform: Any = make_transform(config)
    wiring = check(config, transform.specs())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = make_parts(config, wiring).train()
        for teacher in parts.teachers.parameters():
            teacher.data += 0.02 * torch.randn_like(teacher)
        crops = {"image": (2, 8), "local": (LOCAL, 6)}
        batch = {
            view: transform.patches(torch.randn(n * ROWS, 1, side, side), torch.arange(n * ROWS)[:, None] + 100 * n, n)
            for view, (n, side) in crops.items()
        }
    return Step(batch, parts, Rng(0, 0)), wiring.paths, list(config.objective)


def balanced(scores: Tensor) -> Tensor:
    """Three rounds of Sinkhorn-Knopp on exp(scores / temperature)."""
    q = (scores.double() / 0.04).exp()
    for _ in range(3):
        q = q / q.sum(0, keepdim=True)
        q = q / q.sum(1, keepdim=True)
    return q


def entropy(goals: Tensor, scores: Tensor) -> Tensor:
    return -(goals * (scores.double() / 0.1).log_softmax(-1)).sum(-1)


def test_one_pass_of_the_student_serves_all_three_losses() -> None:
    step, _, objectives = make_step()
    calls = {"student": 0, "teacher": 0}

    def count(who: str) -> Any:
        def hook(*_: object) -> None:
            calls[who] += 1

        return hook

    step.part("encoder", "main").register_forward_pre_hook(count("student"))
    step.part("encoder", "main", "ema").register_forward_pre_hook(count("teacher"))
    compute_terms(step, objectives)
    assert calls == {"student": 2, "teacher": 1}  # masked global crops, local crops; global crops


def test_the_sum_is_the_published_one() -> None:
    step, paths, objectives = make_step()
    found = total_loss(compute_terms(step, objectives))

    seen, local, goal = (step.encode(paths[name]).x for name in ("main", "local", "goal"))
    teacher = balanced(step.project(goal[:, 0], ["main", "prototypes"], "ema")).chunk(2)
    student = [s for x in (seen, local) for s in step.project(x[:, 0], ["main", "prototypes"]).split(ROWS)]
    pairs = [(i, j) for i in range(2 + LOCAL) for j in range(2) if i != j]
    image = torch.stack([entropy(teacher[j], student[i]).mean() for i, j in pairs]).sum() / (2 + 2 * LOCAL)

    mask = step.plan(paths["main"]).mask  # (2 * ROWS, N)
    assert mask is not None and 0 < mask.any(1).sum() < 2 * ROWS
    heads = ["patch", "patch_prototypes"]
    rows = entropy(balanced(step.project(goal[:, 1:][mask], heads, "ema")), step.project(seen[:, 1:][mask], heads))
    shares = (1 / mask.sum(1).clamp(min=1))[:, None].expand_as(mask)[mask]
    patches = (rows * shares).sum() / mask.any(1).sum() / 2  # theirs: over all crops, of which half are masked

    spread = []
    for x in seen[:, 0].double().chunk(2):
        distance = torch.cdist(F.normalize(x, dim=-1), F.normalize(x, dim=-1)) + 9 * torch.eye(ROWS)
        spread.append(-distance.min(1).values.log().mean())
    torch.testing.assert_close(found.double(), image + patches + 0.1 * sum(spread), rtol=1e-4, atol=1e-4)
