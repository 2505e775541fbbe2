"""The sentences `bart` and `pegasus` against transformers: the same weights, the same text, the same scores."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from encdec_train.build import check, count_parameters, make_parts, make_transform
from encdec_train.config import TrainConfig
from encdec_train.data.example import Example, collate
from encdec_train.launch import compose
from encdec_train.rng import Rng
from encdec_train.step import Parts, Step
from encdec_train.types import Mismatch, Units, Vocabulary

transformers = pytest.importorskip("transformers")

State = dict[str, Tensor]
NAMES = {  # of a layer: ours, theirs
    "attention.out": "self_attn.out_proj",
    "norm": "self_attn_layer_norm",
    "cross.q": "encoder_attn.q_proj",
    "cross.out": "encoder_attn.out_proj",
    "cross_norm": "encoder_attn_layer_norm",
    "mlp.up": "fc1",
    "mlp.down": "fc2",
    "mlp_norm": "final_layer_norm",
}


def layer(theirs: State, ours: str, prefix: str, *, cross: bool) -> State:
    """The weights of one block under our names; several projections stand in one matrix here."""
    out = {}
    for kind in ("weight", "bias"):
        for mine, name in NAMES.items():
            if cross or "cross" not in mine:
                out[f"{ours}.{mine}.{kind}"] = theirs[f"{prefix}.{name}.{kind}"]
        own = [theirs[f"{prefix}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
        out[f"{ours}.attention.qkv.{kind}"] = torch.cat(own)
        if cross:
            both = [theirs[f"{prefix}.encoder_attn.{part}_proj.{kind}"] for part in "kv"]
            out[f"{ours}.cross.kv.{kind}"] = torch.cat(both)
    return out


def weights(theirs: State, config: TrainConfig) -> State:
    """All that ours has. Both tables of positions of BART begin with two rows that are never read."""
    out = {"embedder.main.table.weight": theirs["model.shared.weight"]}
    for noun, embedder in (("encoder", "main"), ("decoder", "reply")):
        for i in range(getattr(config, noun)["main"].depth):
            out |= layer(theirs, f"{noun}.main.blocks.{i}", f"model.{noun}.layers.{i}", cross=noun == "decoder")
        for kind in ("weight", "bias"):
            if "reply" in config.embedder:
                out[f"embedder.{embedder}.norm.{kind}"] = theirs[f"model.{noun}.layernorm_embedding.{kind}"]
            else:
                out[f"{noun}.main.norm.{kind}"] = theirs[f"model.{noun}.layer_norm.{kind}"]
        if "reply" in config.embedder:
            out[f"embedder.{embedder}.positions.weight"] = theirs[f"model.{noun}.embed_positions.weight"][2:]
    return out


def arguments(config: TrainConfig, words: Vocabulary, positions: int) -> dict:
    encoder, decoder = config.encoder["main"], config.decoder["main"]
    found = {
        "vocab_size": words.size,
        "max_position_embeddings": positions,
        "d_model": encoder.width,
        "pad_token_id": words.pad,
        "bos_token_id": words.bos,
        "eos_token_id": words.eos,
        "activation_function": encoder.activation.value,
        "scale_embedding": config.embedder["main"].scale,
    }
    for name, stack in (("encoder", encoder), ("decoder", decoder)):
        found |= {
            f"{name}_layers": stack.depth,
            f"{name}_attention_heads": stack.heads,
            f"{name}_ffn_dim": 4 * stack.width,
        }
    return found


def build(recipe: str, *overrides: str) -> tuple[TrainConfig, Parts, Vocabulary, int]:
    """Ours, and how many places its tables have."""
    config = compose([f"+recipe={recipe}", *overrides])
    transform = make_transform(config)
    wiring = check(config, transform.specs())
    view = transform.specs()["text"]
    return config, make_parts(config, wiring), transform.vocabulary, config.embedder["main"].positions or view.max_len


MODELS: dict[str, Callable] = {
    "bart": lambda found: transformers.BartForConditionalGeneration(transformers.BartConfig(**found)),
    "pegasus": lambda found: transformers.PegasusForConditionalGeneration(transformers.PegasusConfig(**found)),
}


def rows(words: Vocabulary) -> Units:
    """Documents of three sentences between the special tokens."""
    generator = torch.Generator().manual_seed(0)
    examples = []
    for key, n in enumerate((30, 46, 18, 27)):
        body = torch.randint(words.specials, words.size, (n,), generator=generator)
        ids = torch.cat([torch.tensor([words.bos]), body, torch.tensor([words.eos])])
        fixed = (ids == words.bos) | (ids == words.eos)
        group = torch.arange(n + 2) * 3 // (n + 2)
        examples.append({"text": Example(values=ids, sample=key, fixed=fixed, group=group, max_len=48)})
    return collate(examples)["text"]


@torch.no_grad()
@pytest.mark.parametrize("recipe", MODELS)
def test_equals_transformers(recipe: str) -> None:
    torch.manual_seed(0)
    config, ours, words, positions = build(recipe)
    theirs = MODELS[recipe](arguments(config, words, positions)).eval()
    for name, parameter in theirs.named_parameters():  # norms too, but not what is fixed
        if recipe == "bart" or "embed_positions" not in name:
            parameter.add_(0.1 * torch.randn_like(parameter))
    theirs.tie_weights()
    ours.student.load_state_dict(weights(theirs.state_dict(), config))
    ours.eval()

    step = Step({"text": rows(words)}, ours, Rng(0, 3))
    objective = step.part("objective", "main")
    scores, plan, _ = objective.predict(step)
    source, real = step.plan(objective.memory).inputs, plan.targets.sites.real()
    labels = plan.targets.values.masked_fill(~real, -100)
    out = theirs(
        input_ids=source.values,
        attention_mask=source.sites.real().long(),
        decoder_input_ids=plan.inputs.values,
        labels=labels,
    )
    memory = step.encode(objective.memory).x
    here = source.sites.real()
    torch.testing.assert_close(memory[here], out.encoder_last_hidden_state[here], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(scores.view(*real.shape, -1)[real], out.logits[real], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(objective(step)["main"].mean, out.loss, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "recipe,overrides,released",
    [
        ("bart", [], 139_420_416),
        ("bart", ["encoder=bart_large", "decoder=bart_large"], 406_291_456),
        ("pegasus", [], 568_699_904),
    ],
)
def test_paper_size_is_the_released_model(recipe: str, overrides: list[str], released: int) -> None:
    """As many parameters as transformers', whose arguments follow from our words; BART's two idle rows apart."""
    with torch.device("meta"):
        config, ours, words, positions = build(recipe, "scale=paper", *overrides)
        theirs = MODELS[recipe](arguments(config, words, positions if recipe == "bart" else 512))
    counts = count_parameters(ours)
    fixed = sum(p.numel() for n, p in theirs.named_parameters() if "embed_positions" in n) if recipe == "pegasus" else 0
    idle = 2 * 2 * config.encoder["main"].width if recipe == "bart" else 0
    assert sum(counts.values()) == theirs.num_parameters() - fixed - idle
    assert abs(sum(counts.values()) / released - 1) < 1e-4


def test_the_decoder_shares_the_table_and_nothing_else() -> None:
    config, parts, _, _ = build("bart")
    main, reply = parts.get("embedder", "main"), parts.get("embedder", "reply")
    assert reply.table is main.table
    assert [name for name, _ in reply.named_parameters()] == ["positions.weight", "norm.weight", "norm.bias"]
    parts.add_teacher("ema", ["embedder.main", "embedder.reply"])
    copies = [parts.get("embedder", name, "ema") for name in ("main", "reply")]
    assert copies[1].table is copies[0].table and copies[0].table is not main.table
    assert isinstance(parts.to("meta"), nn.Module) and parts.get("embedder", "reply").table.weight.is_meta
    assert config.embedder["reply"].width == config.encoder["main"].width


@pytest.mark.parametrize("shares,words", [("nobody", "no embedder 'nobody'"), ("reply", "'reply' has no table")])
def test_whose_table_is_not_there(shares: str, words: str) -> None:
    with pytest.raises(Mismatch, match=words):
        build("bart", f"embedder.reply.shares={shares}")
