"""Noise on text against its definition, one document after the other in plain Python."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch

from encdec_train.corruptions.noise_text import NoiseText, NoiseTextConfig
from encdec_train.data.example import Example, collate
from encdec_train.rng import Rng
from encdec_train.step import Parts, Step
from encdec_train.types import Mismatch, Path, Plan, Spec, Units, Vocabulary

WORDS = Vocabulary(size=2000, pad=0, bos=2, eos=3, mask=4, specials=5)
VIEW = Spec(kind="ids", width=WORDS.size, vocabulary=WORDS, groups=True)
SENTENCE = 6  # tokens


def text(key: int, length: int) -> list[int]:
    """Ids that differ within a document."""
    return [5 + (key * 131 + i) % 1900 for i in range(length)]


def rows(lengths: list[int], first: int = 0) -> Units:
    """Documents between their special tokens, in sentences of six tokens."""
    examples = []
    for i, n in enumerate(lengths):
        ids = torch.tensor([WORDS.bos, *text(first + i, n), WORDS.eos])
        group = torch.tensor([0, *(j // SENTENCE for j in range(n)), (n - 1) // SENTENCE])
        fixed = (ids == WORDS.bos) | (ids == WORDS.eos)
        examples.append({"text": Example(values=ids, sample=first + i, fixed=fixed, group=group)})
    return collate(examples)["text"]


def plan(units: Units, step: int = 0, **config) -> Plan:
    part = NoiseText(NoiseTextConfig(**config), VIEW)
    path = Path(view="text", corruption="main")
    return part(units, units.sites, Step({"text": units}, Parts({}), Rng(0, step)), path)


def bodies(units: Units) -> list[list[int]]:
    """The rows without their special tokens, which must stand at the ends."""
    found = []
    for ids, real in zip(units.values, units.sites.real(), strict=True):
        row = ids[real].tolist()
        assert row[0] == WORDS.bos and row[-1] == WORDS.eos
        assert not {WORDS.bos, WORDS.eos, WORDS.pad} & set(row[1:-1])
        assert (ids[~real] == WORDS.pad).all()
        found.append(row[1:-1])
    return found


LENGTHS = [40, 7, 25, 1, 33, 12, 40]


def test_masked_tokens_are_a_share() -> None:
    for key, (row, n) in enumerate(zip(bodies(plan(rows(LENGTHS), mask=0.3).inputs), LENGTHS, strict=True)):
        assert row.count(WORDS.mask) == round(n * 0.3)
        assert all(token in (WORDS.mask, clean) for token, clean in zip(row, text(key, n), strict=True))


def test_deleted_tokens_are_a_share() -> None:
    for key, (row, n) in enumerate(zip(bodies(plan(rows(LENGTHS), delete=0.3).inputs), LENGTHS, strict=True)):
        assert len(row) == n - round(n * 0.3)
        rest = iter(text(key, n))
        assert all(token in rest for token in row)  # in order


def test_every_token_is_as_likely() -> None:
    count, n = 4000, 10
    made = plan(rows([n] * count), mask=0.3).inputs.values[:, 1:-1] == WORDS.mask
    assert (made.sum(1) == 3).all()
    assert (made.float().mean(0) - 0.3).abs().max() < 5 * math.sqrt(0.21 / count)


def spans_of(row: list[int], clean: list[int]) -> list[list[int]]:
    """What the masks of a row stand for; two masks never touch."""
    found, at = [], 0
    for i, token in enumerate(row):
        if token == WORDS.mask:
            assert i + 1 == len(row) or row[i + 1] != WORDS.mask
            end = clean.index(row[i + 1]) if i + 1 < len(row) else len(clean)
            found.append(clean[at:end])
            at = end
        else:
            assert token == clean[at]
            at += 1
    assert at == len(clean)
    return found


def test_spans_become_one_mask_each() -> None:
    for step in range(20):
        for key, (row, n) in enumerate(zip(bodies(plan(rows(LENGTHS), step, infill=0.3).inputs), LENGTHS, strict=True)):
            spans = spans_of(row, text(key, n))
            assert sum(map(len, spans)) <= round(n * 0.3)
            assert len(row) <= n


def test_span_lengths_are_poisson() -> None:
    """All but the last of a row, which is cut: where 60 tokens are wanted the rest still follows the distribution."""
    count, n = 300, 200
    made = plan(rows([n] * count), infill=0.3).inputs
    spans = [spans_of(row, text(key, n)) for key, row in enumerate(bodies(made))]
    assert all(sum(map(len, row)) == 60 for row in spans)
    lengths = Counter(len(span) for row in spans for span in row)
    total = lengths.total()
    assert total / count == pytest.approx(60 / 3, rel=0.05)
    for k in range(8):
        chance = math.exp(-3) * 3**k / math.factorial(k)
        assert lengths[k] / total == pytest.approx(chance, abs=0.02)


def test_spans_stand_anywhere() -> None:
    """A text of 8 tokens, 2 of them in spans: its masks stand before, between and behind with nothing in favour."""
    count = 6000
    made = bodies(plan(rows([20] * count), infill=0.05, mean_length=1.0).inputs)
    one = [row.index(WORDS.mask) for row in made if len(row) == 20 and WORDS.mask in row]  # one token, one mask
    times = torch.bincount(torch.tensor(one), minlength=20)
    expected = len(one) / 20
    assert ((times - expected) ** 2 / expected).sum() < 19 + 4 * math.sqrt(2 * 19)


def sentences(row: list[int]) -> list[tuple[int, ...]]:
    return [tuple(row[i : i + SENTENCE]) for i in range(0, len(row), SENTENCE)]


def test_sentences_are_permuted() -> None:
    n = 4 * SENTENCE
    seen = Counter()
    for row, key in zip(bodies(plan(rows([n] * 2400), permute=1.0).inputs), range(2400), strict=True):
        clean = sentences(text(key, n))
        order = tuple(clean.index(sentence) for sentence in sentences(row))
        assert sorted(order) == [0, 1, 2, 3]
        seen[order] += 1
    assert len(seen) == 24
    assert sum((k - 100) ** 2 / 100 for k in seen.values()) < 23 + 4 * math.sqrt(2 * 23)


def test_a_share_of_the_documents_is_permuted_or_rotated() -> None:
    count, n = 2000, 5 * SENTENCE
    for name, chance in (("permute", 0.5 * (1 - 1 / 120)), ("rotate", 0.5 * (1 - 1 / n))):
        made = bodies(plan(rows([n] * count), **{name: 0.5}).inputs)
        moved = sum(row != text(key, n) for key, row in enumerate(made))
        assert moved / count == pytest.approx(chance, abs=5 * math.sqrt(0.25 / count))


def test_documents_are_rotated() -> None:
    firsts = Counter()
    for key, row in enumerate(bodies(plan(rows([10] * 2000), rotate=1.0).inputs)):
        clean = text(key, 10)
        first = clean.index(row[0])
        assert row == clean[first:] + clean[:first]
        firsts[first] += 1
    assert len(firsts) == 10 and min(firsts.values()) > 140


def test_kinds_go_together() -> None:
    config = {"mask": 0.1, "delete": 0.1, "infill": 0.3, "permute": 1.0, "rotate": 0.5}
    made = bodies(plan(rows(LENGTHS), **config).inputs)
    for key, (row, n) in enumerate(zip(made, LENGTHS, strict=True)):
        words = [token for token in row if token != WORDS.mask]
        assert len(set(words)) == len(words) and set(words) <= set(text(key, n)) and len(row) <= n
        assert len(words) >= n - round(n * 0.3) - 2 * round(n * 0.1)


@pytest.mark.parametrize("name", ["mask", "delete", "infill", "permute", "rotate"])
def test_a_row_is_the_same_alone_and_in_a_batch(name: str) -> None:
    together = bodies(plan(rows(LENGTHS), **{name: 0.3}).inputs)
    alone = [bodies(plan(rows([n], first=i), **{name: 0.3}).inputs)[0] for i, n in enumerate(LENGTHS)]
    assert together == alone
    assert bodies(plan(rows(LENGTHS), step=1, **{name: 0.3}).inputs) != together


def test_the_decoder_writes_the_clean_text() -> None:
    units = rows(LENGTHS)
    reply = plan(units, infill=0.3, permute=1.0).reply
    assert reply.targets is units and reply.attend.causal
    assert (reply.inputs.values[:, 0] == WORDS.eos).all()
    real = units.sites.valid[:, 1:]
    assert torch.equal(reply.inputs.values[:, 1:][real], units.values[:, :-1][real])
    assert torch.equal(reply.weight.bool().view_as(units.values), units.sites.valid)


@pytest.mark.parametrize(
    "config,view,words",
    [
        ({}, VIEW, "does nothing"),
        ({"mask": 1.5}, VIEW, "mask: 1.5"),
        ({"infill": 0.3, "mean_length": 0.0}, VIEW, "mean_length"),
        ({"permute": 1.0}, Spec(kind="ids", width=9, vocabulary=WORDS), "sentences"),
        ({"mask": 0.1}, Spec(kind="ids", width=9, vocabulary=Vocabulary(size=9)), "no mask token"),
        ({"delete": 0.1}, Spec(kind="values", width=3), "values"),
    ],
)
def test_what_does_not_fit_is_refused(config: dict, view: Spec, words: str) -> None:
    with pytest.raises(Mismatch, match=words):
        NoiseTextConfig(**config).spec(view)
