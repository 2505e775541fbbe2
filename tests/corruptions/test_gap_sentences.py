"""Gap sentences against ROUGE by counting words, one document after the other."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

from encdec_train.corruptions.gap_sentences import Choice, GapSentences, GapSentencesConfig, common
from encdec_train.data.example import Example, collate
from encdec_train.rng import Rng
from encdec_train.step import Parts, Step
from encdec_train.types import Mismatch, Path, Plan, Spec, Units, Vocabulary

WORDS = Vocabulary(size=60, pad=0, bos=2, eos=3, mask=4, specials=5)
VIEW = Spec(kind="ids", width=WORDS.size, vocabulary=WORDS, groups=True)

Document = list[list[int]]


def documents(count: int, words: int = 30) -> list[Document]:
    generator = torch.Generator().manual_seed(0)

    def draw(low: int, high: int, size: int = 1) -> list[int]:
        return torch.randint(low, high, (size,), generator=generator).tolist()

    return [[draw(5, 5 + words, draw(2, 8)[0]) for _ in range(draw(1, 9)[0])] for _ in range(count)]


def rows(found: list[Document], first: int = 0) -> Units:
    examples = []
    for i, document in enumerate(found):
        ids = torch.tensor([token for sentence in document for token in sentence] + [WORDS.eos])
        group = torch.tensor([j for j, sentence in enumerate(document) for _ in sentence] + [len(document) - 1])
        examples.append({"text": Example(values=ids, sample=first + i, fixed=ids == WORDS.eos, group=group)})
    return collate(examples)["text"]


def plan(units: Units, step: int = 0, **config) -> Plan:
    part = GapSentences(GapSentencesConfig(**config), VIEW)
    path = Path(view="text", corruption="main")
    return part(units, units.sites, Step({"text": units}, Parts({}), Rng(0, step)), path)


def rouge1_f1(sentence: list[int], rest: list[int]) -> float:
    """As it is defined: clipped counts of words, precision, recall and their harmonic mean."""
    overlap = (Counter(sentence) & Counter(rest)).total()
    if not overlap:
        return 0.0
    precision, recall = overlap / len(sentence), overlap / len(rest)
    return 2 * precision * recall / (precision + recall)


def expected(document: Document, ratio: float) -> list[int]:
    """The principal sentences, in the order of the text; of equals the first."""
    scores = []
    for i, sentence in enumerate(document):
        rest = [token for j, other in enumerate(document) if j != i for token in other]
        scores.append(rouge1_f1(sentence, rest))
    count = min(max(round(len(document) * ratio), 1), len(document) - 1)
    return sorted(sorted(range(len(document)), key=lambda i: (-round(scores[i], 9), i))[:count])


def sides(made: Plan) -> list[tuple[list[int], list[int]]]:
    """Source and target of each row, without padding."""
    target = made.reply.targets
    return [
        (a[ra].tolist(), b[rb].tolist())
        for a, ra, b, rb in zip(
            made.inputs.values, made.inputs.sites.real(), target.values, target.sites.real(), strict=True
        )
    ]


def written(document: Document, gaps: list[int]) -> tuple[list[int], list[int]]:
    source = [token for i, sentence in enumerate(document) for token in ([WORDS.mask] if i in gaps else sentence)]
    target = [token for i in gaps for token in document[i]]
    return [*source, WORDS.eos], [*target, WORDS.eos] if gaps else []


@pytest.mark.parametrize("ratio", [0.3, 0.45, 0.9])
def test_principal_sentences_are_those_of_rouge(ratio: float) -> None:
    found = documents(60)
    for document, row in zip(found, sides(plan(rows(found), ratio=ratio)), strict=True):
        assert row == written(document, expected(document, ratio) if len(document) > 1 else [])


def test_score_is_rouge() -> None:
    """2c / L is F1 itself, so that the counts alone rank the sentences."""
    found = documents(40, words=8)
    units = rows(found)
    group = torch.where(units.sites.open(), units.sites.group, -1)
    for document, counts in zip(found, common(units.values, group), strict=True):
        length = sum(map(len, document))
        for i, sentence in enumerate(document):
            rest = [token for j, other in enumerate(document) if j != i for token in other]
            assert 2 * int(counts[i]) / length == pytest.approx(rouge1_f1(sentence, rest) if rest else 0.0)


def test_lead_sentences_are_the_first() -> None:
    found = documents(20)
    for document, row in zip(found, sides(plan(rows(found), choice=Choice.lead, ratio=0.5)), strict=True):
        count = min(max(round(len(document) / 2), 1), len(document) - 1)
        assert row == written(document, list(range(count)))


def test_random_sentences_are_as_likely() -> None:
    document = [[5 + 7 * i + j for j in range(5)] for i in range(5)]
    made = sides(plan(rows([document] * 2000), choice=Choice.random, ratio=0.4))
    seen = Counter((row[1][0] - 5) // 7 for row in made) + Counter((row[1][5] - 5) // 7 for row in made)
    assert all(len(row[1]) == 11 for row in made)
    assert all(abs(seen[i] - 800) < 5 * 22 for i in range(5))


@pytest.mark.parametrize("choice", Choice)
def test_a_row_is_the_same_alone_and_in_a_batch(choice: Choice) -> None:
    found = documents(12)
    together = sides(plan(rows(found), choice=choice))
    alone = [sides(plan(rows([document], first=i), choice=choice))[0] for i, document in enumerate(found)]
    assert together == alone


def test_the_decoder_writes_them_behind_the_padding_id() -> None:
    made = plan(rows(documents(8)))
    target, inputs = made.reply.targets.values, made.reply.inputs.values
    real = made.reply.sites.valid
    assert (inputs[:, 0] == WORDS.pad).all() and made.reply.attend.causal
    assert torch.equal(inputs[:, 1:][real[:, 1:]], target[:, :-1][real[:, 1:]])
    assert torch.equal(made.reply.weight.bool().view_as(real), real)


def test_what_the_decoder_cannot_hold_is_cut() -> None:
    found = documents(20)
    whole, short = plan(rows(found), ratio=0.5), plan(rows(found), ratio=0.5, length=6)
    assert short.reply.targets.values.shape[1] == 6
    for a, b in zip(sides(whole), sides(short), strict=True):
        assert b == (a[0], a[1][:6])


@pytest.mark.parametrize(
    "config,view,words",
    [
        ({"ratio": 0.0}, VIEW, "ratio"),
        ({"length": 1}, VIEW, "length"),
        ({}, replace(VIEW, groups=False), "sentences"),
        ({}, replace(VIEW, vocabulary=Vocabulary(size=9, eos=1)), "no mask token"),
        ({}, replace(VIEW, vocabulary=Vocabulary(size=9, mask=1)), "no end-of-sequence"),
        ({}, Spec(kind="values", width=3), "values"),
    ],
)
def test_what_does_not_fit_is_refused(config: dict, view: Spec, words: str) -> None:
    with pytest.raises(Mismatch, match=words):
        GapSentencesConfig(**config).spec(view)
