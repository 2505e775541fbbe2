"""Permuted prediction: the order, who reads whom, and two streams against transformers' MPNet."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from encdec_train.corruptions.permuted import Permuted, PermutedConfig
from encdec_train.data.example import Example, collate
from encdec_train.embedders.ids import Ids, IdsConfig, IdsPosition
from encdec_train.encoders.transformer import Transformer, TransformerConfig
from encdec_train.export.hf.pairs import affine, layers, split
from encdec_train.nn.attention import allow
from encdec_train.nn.norm import Norm
from encdec_train.rng import Rng
from encdec_train.step import Parts, Step
from encdec_train.types import Attend, Mismatch, Path, Plan, Units
from tests.texts import WORDS, documents, fixed, padded, view

MAIN = Path(view="text", corruption="main")
LENGTHS = [12, 30, 7, 20, 3]
EMBEDDER = IdsConfig(width=16, position=IdsPosition.learned, positions=32, norm=Norm.layer, eps=1e-5)
ENCODER = TransformerConfig(
    width=16, depth=3, heads=4, hidden=24, eps=1e-5, norm_first=False, final_norm=False, relative=True
)


def parts(**changes: float) -> Parts:
    torch.manual_seed(0)
    text = view(max_len=32)
    sites = EMBEDDER.spec(text)
    found = Parts(
        {
            "embedder": {"main": Ids(EMBEDDER, text, mask=False)},
            "corruption": {"main": Permuted(PermutedConfig(**changes), sites)},
            "encoder": {"main": Transformer(ENCODER, sites)},
        }
    )
    for parameter in found.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return found.eval()


def plan_of(units: Units, **changes: float) -> Plan:
    return Step({"text": units}, parts(**changes), Rng(1, 2)).plan(MAIN)


def order_of(plan: Plan, row: int) -> list[int]:
    """The places that are predicted, first to last."""
    rows, room = plan.sites.rows, len(plan.where) // plan.sites.rows
    used = plan.weight.view(rows, room)[row].bool()
    return plan.sites.place[row, -room:][used].tolist()


def test_each_row_predicts_its_share_of_open_tokens() -> None:
    units = padded(documents(LENGTHS))
    plan = plan_of(units, ratio=0.3)
    room = round(30 * 0.3)
    assert plan.sites.n == 30 + 2 * room and len(plan.where) == len(LENGTHS) * room
    for row, length in enumerate(LENGTHS):
        order = order_of(plan, row)
        assert len(set(order)) == len(order) == round((length - 2) * 0.3)
        assert all(0 < place < length - 1 for place in order)  # never [CLS], [SEP] or padding
    truth = plan.targets.values.flatten()[plan.where][plan.weight.bool()]
    expected = [units.values[row, place] for row in range(len(LENGTHS)) for place in order_of(plan, row)]
    assert truth.tolist() == [int(token) for token in expected]
    assert torch.equal(plan.mask.flatten().nonzero()[:, 0], plan.where[plan.weight.bool()])


def test_a_row_is_the_same_alone_and_in_a_batch() -> None:
    docs = documents(LENGTHS)
    plan = plan_of(padded(docs), ratio=0.3)
    for row, ids in enumerate(docs):
        example = Example(values=ids, sample=row, fixed=fixed(ids), max_len=32)
        alone = plan_of(collate([{"text": example}])["text"], ratio=0.3)
        order = order_of(alone, 0)
        assert order == order_of(plan, row)
        hidden = [
            plan.inputs.values[row, 30 : 30 + len(order)],
            alone.inputs.values[0, len(ids) : len(ids) + len(order)],
        ]
        assert torch.equal(*hidden)


def test_who_reads_whom_is_the_authors_mask() -> None:
    """Three of seven are predicted, as in the comment of microsoft/MPNet's `make_query_and_content_mask`."""
    plan = one_row()
    order = [place for place in range(7) if place not in order_of(plan, 0)] + order_of(plan, 0)
    reads = allow(plan.attend, plan.sites, plan.sites, own=True)[0].int()
    by_order = [*order, *range(7, 13)]
    assert reads[by_order][:, by_order].tolist() == MASK


MASK = [
    [int(cell) for cell in row.replace(" ", "")]
    for row in """
    1111 000 111 000
    1111 000 111 000
    1111 000 111 000
    1111 000 111 000
    1111 100 011 000
    1111 110 001 000
    1111 111 000 000
    1111 000 111 000
    1111 000 111 000
    1111 000 111 000
    1111 000 111 000
    1111 100 011 000
    1111 110 001 000
""".strip().splitlines()
]  # rows and columns: x1 to x7, m5 m6 m7, q5 q6 q7


def one_row() -> Plan:
    """Seven open tokens, of which three are predicted."""
    ids = torch.arange(WORDS.specials, WORDS.specials + 7)
    units = collate([{"text": Example(values=ids, sample=3, max_len=32)}])["text"]
    return plan_of(units, ratio=3 / 7)


def test_without_holes_the_streams_are_xlnets() -> None:
    """Yang et al. 2019, equations of section 2.3: content reads z <= t, a query z < t, the first query itself alone."""
    rank = torch.tensor([[2, 1, 3, 2, 1, 3]])
    query = torch.tensor([[False] * 3 + [True] * 3])
    sites = replace(one_row().sites.take(torch.arange(6)[None]), doc=None, valid=None)
    expected = ["110000", "010000", "111000", "010000", "000010", "110000"]
    found = allow(Attend(rank=rank, query=query), sites, sites, own=True)[0].int()
    assert found.tolist() == [[int(cell) for cell in row] for row in expected]


def test_a_prediction_does_not_depend_on_what_comes_later() -> None:
    units = padded(documents([20]))
    found, hide = parts(ratio=0.3, hide=1.0, random=0.0), {"ratio": 0.3, "hide": 1.0, "random": 0.0}
    order = order_of(plan_of(units, **hide), 0)

    def states(place: int | None) -> torch.Tensor:
        ids = units.values.clone()
        if place is not None:
            ids[0, place] = WORDS.specials + (ids[0, place] - WORDS.specials + 1) % (WORDS.size - WORDS.specials)
        tokens = Step({"text": replace(units, values=ids)}, found, Rng(1, 2)).encode(MAIN)
        return tokens.x[0, 20 + 6 :]  # behind all tokens and 6 holes

    before = states(None)
    for number, place in enumerate(order):
        changed = (states(place) != before).any(-1)[: len(order)]
        assert changed.tolist() == [later > number for later in range(len(order))]


def test_the_streams_are_those_of_transformers_layers() -> None:
    """Their layers over content and queries with the mask written out; the first query is their masked model's."""
    transformers = pytest.importorskip("transformers")
    docs = documents(LENGTHS)
    units, ours = padded(docs), parts(ratio=0.3)
    step = Step({"text": units}, ours, Rng(1, 2))
    plan, found = step.plan(MAIN), step.encode(MAIN).x
    config = transformers.MPNetConfig(
        vocab_size=WORDS.size,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=24,
        max_position_embeddings=32 + 2,
        layer_norm_eps=1e-5,
    )
    theirs = transformers.MPNetModel(config, add_pooling_layer=False).eval()
    state = split(NAMES, ours.student.state_dict())
    positions = ours.get("embedder", "main").positions.weight
    state["embeddings.position_embeddings.weight"] = F.pad(positions, (0, 0, 2, 0))  # theirs begin behind the padding
    theirs.load_state_dict(state)
    in_order = theirs.encoder.compute_position_bias(torch.zeros(1, 32, 16))
    room = (plan.sites.n - 30) // 2
    for row, length in enumerate(LENGTHS):
        order = order_of(plan, row)
        count = len(order)
        kept = [*range(length), *range(30, 30 + count), *range(30 + room, 30 + room + count)]
        place = torch.tensor([*range(length), *order, *order])
        embedded = theirs.embeddings(input_ids=plan.inputs.values[row : row + 1, kept], position_ids=place[None] + 2)
        bias = in_order[:, :, place][:, :, :, place]
        hidden = torch.zeros(len(kept), len(kept)).masked_fill(~streams(length, order), -torch.inf)
        x = embedded
        for layer in theirs.encoder.layer:
            x = layer(x, hidden, position_bias=bias)[0]
        torch.testing.assert_close(found[row, kept], x[0], atol=1e-5, rtol=1e-5)
        if count:
            masked = docs[row].clone()
            masked[order] = plan.inputs.values[row, 30 : 30 + count]
            whole = theirs(input_ids=masked[None], position_ids=torch.arange(length)[None] + 2).last_hidden_state[0]
            first = found[row, 30 + room]
            torch.testing.assert_close(first, whole[order[0]], atol=1e-5, rtol=1e-5)


def streams(length: int, order: list[int]) -> torch.Tensor:
    """Who reads whom, site by site."""
    sites = [("x", place) for place in range(length)] + [(kind, place) for kind in "mq" for place in order]

    def reads(reader: tuple[str, int], read: tuple[str, int]) -> bool:
        kind, place = reader
        turn = order.index(place) if place in order else -1
        known = {"x": order[: turn + 1], "m": [], "q": order[: max(turn, 0)]}[kind]
        what, where = read
        return (what == "x" and (where not in order or where in known)) or (what == "m" and where not in known)

    return torch.tensor([[reads(reader, read) for read in sites] for reader in sites])


BLOCK = {
    "attention.qkv": ("attention.attn.q", "attention.attn.k", "attention.attn.v"),
    "attention.out": ("attention.attn.o",),
    "norm": ("attention.LayerNorm",),
    "mlp.up": ("intermediate.dense",),
    "mlp.down": ("output.dense",),
    "mlp_norm": ("output.LayerNorm",),
}
NAMES = {
    "embedder.main.table.weight": ("embeddings.word_embeddings.weight",),
    **affine("embedder.main.norm", "embeddings.LayerNorm"),
    "encoder.main.bias.table.weight": ("encoder.relative_attention_bias.weight",),
}
for i in range(ENCODER.depth):
    NAMES.update(layers(f"encoder.main.blocks.{i}", f"encoder.layer.{i}", BLOCK))


def test_what_cannot_be_ordered() -> None:
    with pytest.raises(Mismatch, match="packs several"):
        PermutedConfig().spec(EMBEDDER.spec(replace(view(), docs=True)))
    with pytest.raises(Mismatch, match="ratio"):
        PermutedConfig(ratio=0.0).spec(EMBEDDER.spec(view()))
    with pytest.raises(Mismatch, match="shares of one whole"):
        PermutedConfig(hide=0.9, random=0.2).spec(EMBEDDER.spec(view()))
