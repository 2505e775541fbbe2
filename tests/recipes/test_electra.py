"""The sentence `electra` against transformers: the same weights give the same two losses, on the same drawn tokens."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from encdec_train.build import check, make_parts, make_transform
from encdec_train.data.example import Example, collate
from encdec_train.launch import compose
from encdec_train.rng import Rng
from encdec_train.step import Step

transformers = pytest.importorskip("transformers")

State = dict[str, Tensor]
BLOCK = {  # ours, theirs
    "attention.out": "attention.output.dense",
    "norm": "attention.output.LayerNorm",
    "mlp.up": "intermediate.dense",
    "mlp.down": "output.dense",
    "mlp_norm": "output.LayerNorm",
}


def encoder(theirs: State, ours: str, depth: int) -> State:
    out = {}
    for kind in ("weight", "bias"):
        for i in range(depth):
            layer = f"electra.encoder.layer.{i}"
            own = [theirs[f"{layer}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            out[f"{ours}.blocks.{i}.attention.qkv.{kind}"] = torch.cat(own)
            for mine, name in BLOCK.items():
                out[f"{ours}.blocks.{i}.{mine}.{kind}"] = theirs[f"{layer}.{name}.{kind}"]
        if f"electra.embeddings_project.{kind}" in theirs:
            out[f"{ours}.project.{kind}"] = theirs[f"electra.embeddings_project.{kind}"]
    return out


def heads(generator: State, discriminator: State) -> State:
    out = {"head.main.bias": generator["generator_lm_head.bias"]}
    tables = {"table": "word_embeddings", "positions": "position_embeddings", "types": "token_type_embeddings"}
    for mine, name in tables.items():
        out[f"embedder.main.{mine}.weight"] = discriminator[f"electra.embeddings.{name}.weight"]
    for kind in ("weight", "bias"):
        out[f"embedder.main.norm.{kind}"] = discriminator[f"electra.embeddings.LayerNorm.{kind}"]
        out[f"head.main.transform.linear.{kind}"] = generator[f"generator_predictions.dense.{kind}"]
        out[f"head.main.transform.norm.{kind}"] = generator[f"generator_predictions.LayerNorm.{kind}"]
        out[f"head.replaced.linears.0.{kind}"] = discriminator[f"discriminator_predictions.dense.{kind}"]
        out[f"head.replaced.linears.1.{kind}"] = discriminator[f"discriminator_predictions.dense_prediction.{kind}"]
    return out


@torch.no_grad()
def test_equals_transformers() -> None:
    torch.manual_seed(0)
    config = compose(["+recipe=electra"])
    transform = make_transform(config)
    view, words = transform.specs()["text"], transform.vocabulary
    ours = make_parts(config, check(config, transform.specs()))
    width = config.encoder["main"].width

    def arguments(name: str) -> transformers.ElectraConfig:
        stack = config.encoder[name]
        return transformers.ElectraConfig(
            vocab_size=words.size,
            embedding_size=width,
            hidden_size=stack.width,
            num_hidden_layers=stack.depth,
            num_attention_heads=stack.heads,
            intermediate_size=4 * stack.width,
            max_position_embeddings=view.max_len,
            pad_token_id=words.pad,
        )

    discriminator = transformers.ElectraForPreTraining(arguments("main")).eval()
    generator = transformers.ElectraForMaskedLM(arguments("generator")).eval()
    for model in (generator, discriminator):
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    generator.electra.embeddings = discriminator.electra.embeddings
    generator.generator_lm_head.weight = discriminator.electra.embeddings.word_embeddings.weight
    one, two = generator.state_dict(), discriminator.state_dict()
    weights = heads(one, two)
    weights |= encoder(one, "encoder.generator", config.encoder["generator"].depth)
    weights |= encoder(two, "encoder.main", config.encoder["main"].depth)
    ours.student.load_state_dict(weights)
    ours.eval()

    examples = []
    for key, n in enumerate((30, 46, 18, 27)):
        body = torch.randint(words.specials, words.size, (n,), generator=torch.Generator().manual_seed(key))
        ids = torch.cat([torch.tensor([words.bos]), body, torch.tensor([words.eos])])
        fixed = (ids == words.bos) | (ids == words.eos)
        examples.append({"text": Example(values=ids, sample=key, fixed=fixed, max_len=48)})
    units = collate(examples)["text"]
    real = units.sites.real()

    step = Step({"text": units}, ours, Rng(0, 3))
    main, replaced = step.part("objective", "main"), step.part("objective", "replaced")
    found = {**replaced(step), **main(step)}
    masked, drawn = step.plan(main.path), step.plan(replaced.path).inputs.values
    labels = torch.where(masked.mask, units.values, -100)
    first = generator(input_ids=masked.inputs.values, attention_mask=real.long(), labels=labels)
    torch.testing.assert_close(found["main"].mean, first.loss, atol=1e-5, rtol=1e-5)
    changed = drawn != units.values
    assert changed.any() and not (changed & ~masked.mask).any()
    second = discriminator(input_ids=drawn, attention_mask=real.long(), labels=changed.long())
    torch.testing.assert_close(found["replaced"].mean, second.loss, atol=1e-5, rtol=1e-5)
    assert found["replaced"].weight == 50.0


def test_the_generator_learns_nothing_from_being_found_out() -> None:
    config = compose(["+recipe=electra"])
    transform = make_transform(config)
    parts = make_parts(config, check(config, transform.specs()))
    words = transform.vocabulary
    ids = torch.randint(words.specials, words.size, (4, 40), generator=torch.Generator().manual_seed(0))
    units = collate([{"text": Example(values=row, sample=key, max_len=48)} for key, row in enumerate(ids)])["text"]
    step = Step({"text": units}, parts, Rng(0, 0))
    step.part("objective", "replaced")(step)["replaced"].mean.backward()
    assert all(parameter.grad is None for parameter in parts.get("encoder", "generator").parameters())
    assert all(parameter.grad is not None for parameter in parts.get("encoder", "main").parameters())
