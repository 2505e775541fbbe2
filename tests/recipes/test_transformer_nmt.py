"""The sentence on two views against torch's own Transformer with the same weights; and what its words promise."""

import torch
from torch import nn

from encdec_train.build import check, make_parts, make_transform
from encdec_train.data.open import open_rows
from encdec_train.data.sources.numerals import spoken
from encdec_train.launch import compose
from encdec_train.nn.position import sincos
from encdec_train.rng import Rng
from encdec_train.step import Step
from encdec_train.types import Sites, Units

SOURCE, TARGET = [6, 3, 5], [4, 8, 2]  # lengths


def units(lengths, n, seed):
    place = torch.arange(n).expand(len(lengths), -1)
    valid = place < torch.tensor(lengths)[:, None]
    ids = torch.randint(5, 200, (len(lengths), n), generator=torch.Generator().manual_seed(seed)) * valid
    return Units(values=ids, sites=Sites(sample=place, place=place, valid=valid, max_len=n))


def build():
    config = compose(["+recipe=transformer_nmt"])
    parts = make_parts(config, check(config, make_transform(config).specs()))
    for parameter in parts.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, std=0.1)
    return parts.eval()


def copy_block(ours, theirs, *, cross):
    a, b = ours.attention, theirs.self_attn
    b.in_proj_weight.copy_(a.qkv.weight), b.in_proj_bias.copy_(a.qkv.bias)
    b.out_proj.load_state_dict(a.out.state_dict())
    norms = [ours.norm, ours.mlp_norm]
    if cross:
        a, b = ours.cross, theirs.multihead_attn
        (
            b.in_proj_weight.copy_(torch.cat([a.q.weight, a.kv.weight])),
            b.in_proj_bias.copy_(torch.cat([a.q.bias, a.kv.bias])),
        )
        b.out_proj.load_state_dict(a.out.state_dict())
        norms = [ours.norm, ours.cross_norm, ours.mlp_norm]
    for i, norm in enumerate(norms, 1):
        getattr(theirs, f"norm{i}").load_state_dict(norm.state_dict())
    theirs.linear1.load_state_dict(ours.mlp.up.state_dict())
    theirs.linear2.load_state_dict(ours.mlp.down.state_dict())


@torch.no_grad()
def test_predictions_and_loss_equal_torch():
    parts = build()
    encoder, decoder = parts.get("encoder", "main"), parts.get("decoder", "main")
    options = {"dim_feedforward": 256, "dropout": 0.0, "batch_first": True, "layer_norm_eps": 1e-6}
    theirs = nn.Transformer(64, 2, 2, 2, **options).eval()
    theirs.encoder.norm = theirs.decoder.norm = None
    for stack, blocks, cross in ((theirs.encoder, encoder.blocks, False), (theirs.decoder, decoder.blocks, True)):
        for layer, block in zip(stack.layers, blocks, strict=True):
            copy_block(block, layer, cross=cross)
    batch = {"source": units(SOURCE, 6, 0), "target": units(TARGET, 8, 1)}
    table = parts.get("embedder", "main").table.weight

    def embed(view):
        ids = batch[view].values
        return table[ids] * 8 + sincos(torch.arange(ids.shape[1])[:, None], 64)

    padding = [~batch[view].sites.valid for view in ("source", "target")]
    causal = torch.ones(8, 8, dtype=torch.bool).triu(1)
    states = theirs(
        embed("source"),
        embed("target"),
        tgt_mask=causal,
        src_key_padding_mask=padding[0],
        tgt_key_padding_mask=padding[1],
        memory_key_padding_mask=padding[0],
    )
    step = Step(batch, parts, Rng(0, 0))
    objective = parts.get("objective", "main")
    prediction, _, _ = objective.predict(step)
    real = batch["target"].sites.valid
    torch.testing.assert_close(prediction.view(3, 8, -1)[real], (states @ table.T)[real], rtol=1e-4, atol=1e-4)
    counted = real[:, 1:]  # the first token is given, and what follows the last is not asked for
    expected = nn.functional.cross_entropy(
        (states @ table.T)[:, :-1][counted], batch["target"].values[:, 1:][counted], label_smoothing=0.1
    )
    term = objective(step)["main"]
    assert term.count == sum(TARGET) - len(TARGET)
    torch.testing.assert_close(term.mean, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_nobody_reads_what_follows():
    parts = build()
    batch = {"source": units(SOURCE, 6, 0), "target": units([8, 8, 8], 8, 1)}
    changed = batch["target"].values.clone()
    changed[:, 5:] = 7
    other = {**batch, "target": Units(values=changed, sites=batch["target"].sites)}
    one, two = (parts.get("objective", "main").predict(Step(b, parts, Rng(0, 0)))[0] for b in (batch, other))
    one, two = one.view(3, 8, -1), two.view(3, 8, -1)
    torch.testing.assert_close(one[:, :5], two[:, :5])
    assert not torch.equal(one[:, 5:], two[:, 5:])


def test_both_sides_share_one_table_and_one_tokenizer(tmp_path):
    config = compose(["+recipe=transformer_nmt", "data.rows=500"])
    transform = make_transform(config)
    rows = open_rows(config.data)["train"]
    transform.fit(rows, tmp_path)
    assert (tmp_path / "source" / "tokenizer.json").read_text() == (tmp_path / "target" / "tokenizer.json").read_text()
    tokenizer = transform.of("source").tokenizer
    longest = max(len(tokenizer.encode(spoken(n)).ids) for n in (777_777, 373_373, 117_117))
    assert longest < transform.specs()["source"].length


def test_numbers_are_spoken():
    assert spoken(0) == "zero" and spoken(15) == "fifteen" and spoken(40) == "forty"
    assert spoken(42_007) == "forty two thousand and seven"
    assert spoken(120_340) == "one hundred and twenty thousand three hundred and forty"
    assert len({spoken(n) for n in range(0, 1_000_000, 37)}) == len(range(0, 1_000_000, 37))


def test_a_number_is_in_one_split_only():
    rows = open_rows(compose(["data=numerals", "data.rows=3000", "transform=translation", "embedder=null"]).data)
    assert not set(rows["train"]["digits"]) & set(rows["test"]["digits"])
    assert all(
        spoken(int(d.replace(" ", ""))) == w
        for d, w in zip(*(rows["test"][k] for k in ("digits", "words")), strict=True)
    )
