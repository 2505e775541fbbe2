"""The sentence `minilm`: whose queries, keys and values are compared, and what learns from it."""

from __future__ import annotations

import pytest
import torch

from encdec_train.build import check, make_parts, make_transform
from encdec_train.data.example import Example, collate
from encdec_train.launch import compose
from encdec_train.rng import Rng
from encdec_train.step import Step
from encdec_train.types import Mismatch


def build(*overrides: str) -> Step:
    config = compose(["+recipe=minilm", *overrides])
    transform = make_transform(config)
    parts = make_parts(config, check(config, transform.specs())).eval()
    words, n = transform.vocabulary, config.transform.length
    ids = torch.randint(words.specials, words.size, (3, n), generator=torch.Generator().manual_seed(0))
    units = collate([{"text": Example(values=row, sample=key, max_len=n)} for key, row in enumerate(ids)])["text"]
    return Step({"text": units}, parts, Rng(0, 0))


@pytest.mark.parametrize("norm_first", ["false", "true"])
def test_the_states_are_those_that_attention_reads(norm_first: str) -> None:
    """Caught at the linear layers that make them."""
    step = build(f"encoder.main.norm_first={norm_first}", f"encoder.teacher.norm_first={norm_first}")
    caught = {}
    for name in ("main", "teacher"):
        layer = step.part("encoder", name).blocks[-1].attention.qkv
        layer.register_forward_hook(lambda module, given, out, name=name: caught.setdefault(name, out))
    objective = step.part("objective", "main")
    prediction, _, _ = objective.predict(step)
    goal = objective.goal(step)
    for name, log in (("main", prediction), ("teacher", goal.values.log())):
        q, _, v = caught[name].chunk(3, -1)
        width = q.shape[-1] // 4  # of a relation head
        for first, x in ((0, q), (2, v)):
            x = x[1, :, -width:]
            expected = (x @ x.T / width**0.5).log_softmax(-1)
            found = log.view(3, 40, 3, 4, 40)[1, :, first, 3]
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_only_the_student_learns() -> None:
    step = build()
    step.part("objective", "main")(step)["main"].mean.backward()
    trained = {name for name, parameter in step.parts.student.named_parameters() if parameter.grad is not None}
    assert all(name.startswith(("encoder.main.", "embedder.main.")) for name in trained)
    assert {name for name in trained if ".blocks.1." in name} == {
        "encoder.main.blocks.1.attention.qkv.weight",
        "encoder.main.blocks.1.attention.qkv.bias",
    }


def test_a_student_of_itself_has_nothing_to_learn() -> None:
    step = build("target.main.path=main")
    assert step.part("objective", "main")(step)["main"].mean.item() == pytest.approx(0, abs=1e-6)


def test_needs_rows_of_one_length() -> None:
    with pytest.raises(Mismatch, match="rows of one length"):
        build("transform.layout=padded")
