"""Classes by their names, against what the towers say one by one."""

import pytest
import torch
import torch.nn.functional as F

from encdec_train.probes.zero_shot import ZeroShot, ZeroShotConfig
from encdec_train.train.assembly import frozen
from encdec_train.types import Mismatch
from tests.runs import assembled, small


def test_classes_by_their_names(tmp_path):
    run = assembled(small("clip", tmp_path, "evaluate.rows=40", "evaluate.batch=16"), tmp_path)
    eyes, part = frozen(run), run.parts.get("objective", "main")
    run.parts.requires_grad_(False)
    prompts, names = ["a small red {}", "{} on dark ground"], run.rows["test"].features["label"].names
    classes = []
    for name in names:
        steps = [step for prompt in prompts for step in eyes.given("text", [prompt.format(name)])]
        classes.append(sum(F.normalize(text(part, step), dim=-1) for step in steps))
    hits = []
    for step, batch in eyes.steps("test"):
        image = part.vectors(step, part.left, ["image"])[0]
        scores = torch.stack([F.cosine_similarity(image, vector) for vector in classes], 1)
        hits.append(scores.argmax(1) == batch["label"].values[:, 0])
    expected = float(torch.cat(hits).double().mean())
    found = ZeroShot(ZeroShotConfig(prompts=prompts))(eyes)
    assert found.value == pytest.approx(expected) and found.more == {"classes": len(names)}
    turned = ZeroShot(ZeroShotConfig(prompts=prompts, names=[*names[1:], names[0]]))(eyes)
    assert turned.value != found.value


def text(part, step):
    return part.vectors(step, part.right, ["text"])[0]


def test_what_does_not_fit(tmp_path):
    with pytest.raises(Mismatch, match=r"without {}"):
        ZeroShot(ZeroShotConfig(prompts=["a cat"]))
    eyes = frozen(assembled(small("mae_vit", tmp_path), tmp_path))
    with pytest.raises(Mismatch, match="two sides"):
        ZeroShot(ZeroShotConfig())(eyes)
