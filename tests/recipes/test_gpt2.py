"""The sentence `gpt2` against transformers: the same weights, the same text, the same scores."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from encdec_train.build import check, count_parameters, make_parts, make_transform
from encdec_train.config import TrainConfig
from encdec_train.data.example import Example, collate
from encdec_train.launch import compose
from encdec_train.rng import Rng
from encdec_train.step import Parts, Step
from encdec_train.types import Vocabulary

transformers = pytest.importorskip("transformers")
LENGTH = 48
NAMES = {"attention.qkv": "attn.c_attn", "attention.out": "attn.c_proj", "mlp.up": "mlp.c_fc", "mlp.down": "mlp.c_proj"}


def build(*overrides: str) -> tuple[TrainConfig, Parts, Vocabulary]:
    config = compose(["+recipe=gpt2", *overrides])
    transform = make_transform(config)
    return config, make_parts(config, check(config, transform.specs())), transform.vocabulary


def reference(config: TrainConfig, words: Vocabulary, positions: int):
    encoder = config.encoder["main"]
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=words.size,
            n_positions=positions,
            n_embd=encoder.width,
            n_layer=encoder.depth,
            n_head=encoder.heads,
            layer_norm_epsilon=encoder.eps,
        )
    )


def weights(theirs: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    """Under our names; what stands transposed there is turned."""
    out = {
        "embedder.main.table.weight": theirs["transformer.wte.weight"],
        "embedder.main.positions.weight": theirs["transformer.wpe.weight"],
    }
    for kind in ("weight", "bias"):
        out[f"encoder.main.norm.{kind}"] = theirs[f"transformer.ln_f.{kind}"]
        for i in range(depth):
            mine, other = f"encoder.main.blocks.{i}", f"transformer.h.{i}"
            out[f"{mine}.norm.{kind}"] = theirs[f"{other}.ln_1.{kind}"]
            out[f"{mine}.mlp_norm.{kind}"] = theirs[f"{other}.ln_2.{kind}"]
            for ours, name in NAMES.items():
                out[f"{mine}.{ours}.{kind}"] = (
                    theirs[f"{other}.{name}.{kind}"].mT if kind == "weight" else (theirs[f"{other}.{name}.{kind}"])
                )
    return out


@torch.no_grad()
def test_equals_transformers() -> None:
    torch.manual_seed(0)
    config, ours, words = build()
    theirs = reference(config, words, LENGTH).eval()
    for parameter in theirs.parameters():  # norms too
        parameter.add_(0.1 * torch.randn_like(parameter))
    ours.student.load_state_dict(weights(theirs.state_dict(), config.encoder["main"].depth))
    ours.eval()
    ids = torch.randint(words.specials, words.size, (4, LENGTH))
    batch = collate([{"text": Example(values=row, sample=i)} for i, row in enumerate(ids)])
    step = Step(batch, ours, Rng(0, 0))
    objective = step.part("objective", "main")
    scores, _, tokens = objective.predict(step)
    out = theirs(input_ids=ids, labels=ids, output_hidden_states=True)
    torch.testing.assert_close(tokens.x, out.hidden_states[-1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(scores.view_as(out.logits), out.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(objective(step)["main"].mean, out.loss, atol=1e-5, rtol=1e-5)


def test_paper_size_is_the_released_model() -> None:
    with torch.device("meta"):
        config, ours, words = build("scale=paper")
        theirs = reference(config, words, 1024)
    assert sum(count_parameters(ours).values()) == theirs.num_parameters() == 124_439_808 == config.paper.params


@torch.no_grad()
def test_what_comes_later_is_not_read() -> None:
    """With and without the corruption, so that a probe reads what was trained."""
    _, ours, words = build()
    ours.eval()
    ids = torch.randint(words.specials, words.size, (2, LENGTH))
    other = ids.clone()
    other[:, 20:] = words.specials

    def encode(values: Tensor) -> Tensor:
        step = Step(collate([{"text": Example(values=row, sample=0)} for row in values]), ours, Rng(0, 0))
        return step.encode(step.part("objective", "main").memory).x

    torch.testing.assert_close(encode(ids)[:, :20], encode(other)[:, :20])
    assert not torch.allclose(encode(ids)[:, 20:], encode(other)[:, 20:])
