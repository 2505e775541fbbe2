"""Token masking against its definition."""

from __future__ import annotations

import math

import pytest
import torch

from encdec_train.corruptions.token_mask import TokenMask, TokenMaskConfig
from encdec_train.embedders.ids import Ids, IdsConfig
from encdec_train.kernels.masking import fill
from encdec_train.rng import Rng
from encdec_train.step import Parts, Step
from encdec_train.types import Mismatch, Path, Plan, Spec, Units, Vocabulary
from tests.texts import WORDS, documents, packed, padded, unpack, view

MAIN = Path(view="text", corruption="main", encoder=None)
LENGTHS = [12, 30, 7, 20, 18, 3]
ROWS = [[0, 3, 5], [1, 2], [4]]


def plan_of(units: Units, *, step: int = 0, draw: int = 0, **changes: float) -> Plan:
    text = view()
    config = TokenMaskConfig(**changes)
    embedder = IdsConfig(width=8)
    parts = Parts(
        {
            "embedder": {"main": Ids(embedder, text, mask=False)},
            "corruption": {"main": TokenMask(config, embedder.spec(text))},
        }
    )
    path = Path(view="text", corruption="main", encoder=None, draw=draw)
    return Step({"text": units}, parts, Rng(1, step)).plan(path)


def many() -> Units:
    return padded(documents([200] * 300))


def within(found: float, share: float, count: int) -> bool:
    """Less than four standard deviations of a binomial share away."""
    return abs(found - share) < 4 * math.sqrt(share * (1 - share) / count)


@pytest.mark.parametrize("ratio", [0.15, 0.4])
def test_share_of_the_predicted(ratio: float) -> None:
    units = many()
    plan = plan_of(units, ratio=ratio)
    candidates = units.sites.open()
    assert within(plan.mask[candidates].float().mean().item(), ratio, int(candidates.sum()))


def test_hidden_replaced_and_kept() -> None:
    units = many()
    plan = plan_of(units)
    before, after = units.values[plan.mask], plan.inputs.values[plan.mask]
    count, ordinary = len(before), WORDS.size - WORDS.specials
    assert within((after == WORDS.mask).float().mean().item(), 0.8, count)
    # a random token is the old one by chance once in `ordinary` draws
    assert within((after == before).float().mean().item(), 0.1 + 0.1 / ordinary, count)
    other = after[(after != WORDS.mask) & (after != before)]
    assert other.min() >= WORDS.specials
    assert other.max() < WORDS.size
    drawn = torch.bincount(other, minlength=WORDS.size)[WORDS.specials :].float()
    expected = drawn.sum() / ordinary
    chi = ((drawn - expected).square() / expected).sum().item()
    assert chi < ordinary + 4 * math.sqrt(2 * ordinary)


def test_only_the_predicted_change_and_special_tokens_and_padding_never() -> None:
    for units in (padded(documents(LENGTHS)), packed(documents(LENGTHS), ROWS, 40)):
        for step in range(20):
            plan = plan_of(units, step=step, ratio=0.9)
            assert not (plan.mask & ~units.sites.open()).any()
            assert torch.equal(plan.inputs.values[~plan.mask], units.values[~plan.mask])


def test_where_names_the_predicted_and_the_rest_weighs_nothing() -> None:
    units = padded(documents(LENGTHS))
    plan = plan_of(units, ratio=0.3)
    used = plan.weight > 0
    assert torch.equal(plan.where[used], plan.mask.flatten().nonzero()[:, 0])
    assert plan.weight.sum() == plan.mask.sum()
    assert (plan.where[~used] == 0).all()
    assert len(plan.where) == TokenMaskConfig(ratio=0.3).capacity(units.values.numel())


def test_a_document_gets_the_same_masks_alone_packed_and_padded() -> None:
    docs = documents(LENGTHS)
    alone, together = padded(docs), packed(docs, ROWS, 40)
    first, second = plan_of(alone, ratio=0.4), plan_of(together, ratio=0.4)
    read, hidden = unpack(second.inputs.values, together, ROWS), unpack(second.mask, together, ROWS)
    for key, ids in enumerate(docs):
        assert torch.equal(read[key], first.inputs.values[key, : len(ids)])
        assert torch.equal(hidden[key], first.mask[key, : len(ids)])


def test_steps_and_draws_differ() -> None:
    units = many()
    masks = [plan_of(units).mask, plan_of(units, step=1).mask, plan_of(units, draw=1).mask]
    assert not torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
    assert torch.equal(masks[0], plan_of(units).mask)


def test_what_finds_no_room_is_not_hidden() -> None:
    picked = torch.tensor([[True, False, True], [True, True, False]])
    mask, where, weight = fill(picked, 3)
    assert mask.tolist() == [[True, False, True], [True, False, False]]
    assert where.tolist() == [0, 2, 3]
    assert weight.tolist() == [1, 1, 1]
    mask, where, weight = fill(picked, 6)
    assert torch.equal(mask, picked)
    assert where.tolist() == [0, 2, 3, 4, 0, 0]
    assert weight.tolist() == [1, 1, 1, 1, 0, 0]


def test_capacity_is_enough_and_not_more_than_there_is() -> None:
    assert TokenMaskConfig(ratio=0.5).capacity(4) == 4
    capacity = TokenMaskConfig().capacity(4096)
    assert 0.15 * 4096 < capacity < 0.19 * 4096


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"ratio": 0.0}, "ratio: 0.0"), ({"hide": 0.8, "random": 0.3}, "hide=0.8 and random=0.3")],
)
def test_values_out_of_range(changes: dict[str, float], said: str) -> None:
    with pytest.raises(Mismatch, match=said):
        TokenMaskConfig(**changes).spec(IdsConfig(width=8).spec(view()))


def test_needs_a_mask_token_and_ids() -> None:
    blind = view(words=Vocabulary(size=9))
    with pytest.raises(Mismatch, match="mask token"):
        TokenMaskConfig().spec(IdsConfig(width=8).spec(blind))
    values = Spec(kind="values", width=3)
    with pytest.raises(Mismatch, match="needs ids"):
        TokenMaskConfig().spec(Spec(kind="vectors", width=8, raw=values))
