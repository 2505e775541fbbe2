"""Span corruption against its definition, in numpy, one document after the other."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from encdec_train.corruptions.span_corruption import SpanCorruption, SpanCorruptionConfig
from encdec_train.data.example import Example, collate
from encdec_train.kernels.spans import alternate
from encdec_train.nn.rewrite import documents
from encdec_train.rng import Rng
from encdec_train.step import Parts, Step
from encdec_train.types import Mismatch, Path, Plan, Spec, Units, Vocabulary

WORDS = Vocabulary(size=1000, pad=0, eos=1, sentinel=999, sentinels=100, specials=2)
VIEW = Spec(kind="ids", width=WORDS.size, vocabulary=WORDS)


def reference(length: int, density: float, mean: float, rng: np.random.Generator) -> np.ndarray:
    """Noise mask of one document, from the definition."""
    noise = min(max(int(np.round(length * density)), 1), length - 1)
    spans = max(int(np.round(noise / mean)), 1)

    def cut(total: int) -> np.ndarray:
        breaks = np.sort(rng.choice(total - 1, spans - 1, replace=False)) + 1
        return np.diff(np.concatenate([[0], breaks, [total]]))

    parts = np.stack([cut(length - noise), cut(noise)], 1).reshape(-1)
    return np.repeat(np.arange(len(parts)) % 2, parts).astype(bool)


def packed(lengths: list[list[int]], row: int, first: int = 0) -> Units:
    """Rows of packed documents; document k has the key `first + k` and ids that tell document and place."""
    rows, key = [], first
    for row_lengths in lengths:
        ids, sample, place, doc = (torch.zeros(row, dtype=torch.int64) for _ in range(4))
        doc -= 1
        at = 0
        for number, length in enumerate(row_lengths):
            span = slice(at, at + length)
            ids[span] = text(key, length)
            sample[span], place[span], doc[span] = key, torch.arange(length), number
            at, key = at + length, key + 1
        rows.append(
            {
                "text": Example(
                    values=ids,
                    sample=sample,
                    place=place,
                    doc=doc,
                    segments=[*row_lengths, row - at],
                    max_len=max(map(max, lengths)),
                )
            }
        )
    return collate(rows)["text"]


def text(key: int, length: int) -> torch.Tensor:
    return 2 + (torch.arange(length) * 7 + key * 31) % 800


def plain(lengths: list[int], first: int = 0) -> Units:
    rows = [{"text": Example(values=text(first + i, n), sample=first + i)} for i, n in enumerate(lengths)]
    return collate(rows)["text"]


def plan(units: Units, step: int = 0, draw: int = 0, **config) -> Plan:
    part = SpanCorruption(SpanCorruptionConfig(**config), VIEW)
    steps = Step({"text": units}, Parts({}), Rng(0, step))
    return part(units, units.sites, steps, Path(view="text", corruption="main", draw=draw))


def sequences(units: Units) -> list[list[int]]:
    """The documents of all rows, in order."""
    sites, found = units.sites, []
    for b in range(sites.rows):
        ids = units.values[b][sites.real()[b]].tolist()
        doc = [0] * len(ids) if sites.doc is None else sites.doc[b][sites.real()[b]].tolist()
        for number in dict.fromkeys(doc):
            found.append([i for i, d in zip(ids, doc, strict=True) if d == number])
    return found


def reassemble(source: list[int], target: list[int]) -> tuple[list[int], int]:
    """The original text, and how many sentinels were used; each must come once on both sides, in order."""
    assert source[-1] == WORDS.eos and target[-1] == WORDS.eos
    spans: dict[int, list[int]] = {}
    for token in target[:-1]:
        if token > WORDS.sentinel - WORDS.sentinels:
            spans[token] = []
        else:
            spans[list(spans)[-1]].append(token)
    assert list(spans) == [WORDS.sentinel - i for i in range(len(spans))]
    assert [token for token in source if token > WORDS.sentinel - WORDS.sentinels] == list(spans)
    out: list[int] = []
    for token in source[:-1]:
        out += spans.get(token, [token])
    return out, len(spans)


def test_lengths_of_the_paper() -> None:
    """568 tokens make a source of 512 and a target of 114, as in the authors' configuration."""
    config = SpanCorruptionConfig()
    assert config.capacity(568, 568, packed=False) == (512, 114)
    made = plan(plain([568] * 3))
    assert made.inputs.values.shape == (3, 512) and made.sites.valid is None
    assert made.reply.inputs.values.shape == (3, 114) and made.reply.weight is None


@pytest.mark.parametrize("density,mean", [(0.15, 3.0), (0.5, 3.0), (0.15, 8.0), (0.9, 1.0)])
def test_nothing_is_lost(density: float, mean: float) -> None:
    lengths = [[40, 12, 100], [152], [10, 10, 10, 31, 60], [7, 33, 90]]
    units = packed(lengths, 160)
    made = plan(units, density=density, mean_length=mean)
    config = SpanCorruptionConfig(density=density, mean_length=mean)
    kept = [(key, n) for key, n in enumerate(n for row in lengths for n in row) if n >= config.min_length]
    sources, targets = sequences(made.inputs), sequences(made.reply.targets)
    assert len(sources) == len(targets) == len(kept)
    for (key, n), source, target in zip(kept, sources, targets, strict=True):
        original, spans = reassemble(source, target)
        assert original == text(key, n).tolist()
        assert spans == config.spans(n)
        assert len(source) == config.source(n) and len(target) == config.target(n)


def test_packed_is_the_same_as_alone() -> None:
    lengths = [[40, 12, 50], [60, 33], [10]]
    flat = [n for row in lengths for n in row]
    together, alone = plan(packed(lengths, 128)), plan(plain(flat))
    assert sequences(together.inputs) == sequences(alone.inputs)
    assert sequences(together.reply.targets) == sequences(alone.reply.targets)
    assert sequences(together.reply.inputs) == sequences(alone.reply.inputs)
    other = plan(packed([[40], [12, 50, 60], [33, 10]], 200))
    assert sequences(other.inputs) == sequences(together.inputs)
    assert torch.equal(together.inputs.sites.place[0, :36], torch.arange(36))


def test_another_step_or_draw_has_other_spans() -> None:
    units = plain([200] * 2)
    first = plan(units).inputs.values
    assert torch.equal(first, plan(units).inputs.values)
    assert not torch.equal(first, plan(units, step=1).inputs.values)
    assert not torch.equal(first, plan(units, draw=1).inputs.values)


def test_bounds_of_packed_rows() -> None:
    lengths = [[64, 64], [30, 5, 20], [128], [50]]
    made = plan(packed(lengths, 128))
    config = SpanCorruptionConfig()
    for units, size in ((made.inputs, config.source), (made.reply.inputs, config.target)):
        sites, room = units.sites, units.sites.n
        expected = []
        for row in lengths:
            new = [size(n) for n in row]
            expected += [*new, room - sum(new)]
        assert sites.cu_seqlens.diff().tolist() == expected
        assert sites.cu_seqlens.dtype == torch.int32
        assert sites.max_len == size(128)
        for b in range(sites.rows):
            real = sites.doc[b] >= 0
            assert torch.equal(real, sites.valid[b])
            assert torch.equal(sites.place[b][real] == 0, _starts(sites.doc[b][real]))
    assert made.inputs.sites.doc[1].unique().tolist() == made.reply.sites.doc[1].unique().tolist() == [-1, 0, 2]


def _starts(doc: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch.tensor([True]), doc[1:] != doc[:-1]])


def test_decoder_reads_the_target_shifted_right() -> None:
    made = plan(packed([[40, 12], [50]], 64))
    inputs, targets = sequences(made.reply.inputs), sequences(made.reply.targets)
    assert [document[1:] for document in inputs] == [document[:-1] for document in targets]
    assert all(document[0] == WORDS.pad for document in inputs)
    weight = made.reply.weight.view(made.reply.inputs.values.shape)
    assert torch.equal(weight.bool(), made.reply.sites.valid)
    assert made.reply.attend.causal and made.reply.where is None and made.attend is None


def test_no_row_overflows() -> None:
    """The capacity is reached by some filling of a row and passed by none."""
    config = SpanCorruptionConfig(min_length=10)
    room = config.capacity(40, 30, packed=True)
    fillings = [row for count in range(1, 5) for row in _fillings(40, 30, count)]
    assert max(sum(map(config.source, row)) for row in fillings) == room[0]
    assert max(sum(map(config.target, row)) for row in fillings) == room[1]


def _fillings(row: int, longest: int, count: int) -> list[list[int]]:
    if count == 0:
        return [[]]
    return [
        [n, *rest]
        for n in range(10, min(row, longest) + 1)
        for rest in ([[]] if row - n < 10 else [[], *_fillings(row - n, longest, count - 1)])
    ]


def masks(length: int, count: int, density: float, mean: float) -> np.ndarray:
    """(count,length) noise masks, each of another document."""
    units = plain([length] * count)
    config = SpanCorruptionConfig(density=density, mean_length=mean)
    docs = documents(units.sites, 2)
    noise = torch.full_like(docs.item, config.noise(length))
    spans = torch.full_like(docs.item, config.spans(length))
    return alternate(units.sites.sample, docs.number, docs.item, noise, spans, Rng(3), "t")[0].numpy()


def test_counts_and_span_lengths_follow_the_definition() -> None:
    length, density, mean, count = 120, 0.15, 3.0, 4000
    ours = masks(length, count, density, mean)
    rng = np.random.default_rng(0)
    theirs = np.stack([reference(length, density, mean, rng) for _ in range(count)])
    assert (ours.sum(1) == 18).all() and (theirs.sum(1) == 18).all()
    for value in (True, False):  # noise spans, then the text between them
        a, b = _run_lengths(ours, value), _run_lengths(theirs, value)
        assert len(a) == len(b) == 6 * count
        at = np.arange(1, 40)
        distance = np.abs((a[:, None] <= at).mean(0) - (b[:, None] <= at).mean(0)).max()
        assert distance < 1.63 * math.sqrt(2 / count)  # Kolmogorov-Smirnov at 1%, one independent run a row
    assert np.abs(ours.mean(0) - theirs.mean(0)).max() < 0.05  # as likely at every place
    assert not ours[:, 0].any() and ours[:, -1].all()


def _run_lengths(mask: np.ndarray, value: bool) -> np.ndarray:
    out = []
    for row in mask:
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row == value, [0]])))
        out.append(np.diff(edges)[::2])
    return np.concatenate(out)


def test_every_segmentation_is_as_likely() -> None:
    """13 tokens, 6 of them noise in 3 spans: 10 ways to cut the noise times 15 for the text."""
    count = 15000
    ours = masks(13, count, 0.45, 2.0)
    found, times = np.unique(ours, axis=0, return_counts=True)
    ways = len(list(combinations(range(5), 2))) * len(list(combinations(range(6), 2)))
    assert len(found) == ways == 150
    expected = count / ways
    chi = ((times - expected) ** 2 / expected).sum()
    assert chi < 149 + 4 * math.sqrt(2 * 149)


@pytest.mark.parametrize(
    "config,view,words",
    [
        ({"density": 0.0}, VIEW, "density"),
        ({"density": 1.0}, VIEW, "density"),
        ({"mean_length": 0.5}, VIEW, "mean_length"),
        ({"min_length": 1}, VIEW, "min_length"),
        ({}, Spec(kind="values", width=3), "ids"),
        ({}, Spec(kind="ids", width=9, vocabulary=Vocabulary(size=9, eos=1)), "sentinels"),
        (
            {},
            Spec(kind="ids", width=9, vocabulary=Vocabulary(size=9, sentinel=8, sentinels=2)),
            "end-of-sequence",
        ),
    ],
)
def test_what_does_not_fit_is_refused(config: dict, view: Spec, words: str) -> None:
    with pytest.raises(Mismatch, match=words):
        SpanCorruptionConfig(**config).spec(view)


def test_too_few_sentinels_are_refused() -> None:
    few = Spec(kind="ids", width=99, vocabulary=Vocabulary(size=99, eos=1, sentinel=98, sentinels=3))
    units = plain([200])
    part = SpanCorruption(SpanCorruptionConfig(), few)
    with pytest.raises(Mismatch, match="10 spans, the vocabulary has 3"):
        SpanCorruptionConfig().spec(replace(few, max_len=200))
    with pytest.raises(Mismatch, match="10 spans, the vocabulary has 3"):
        part(units, units.sites, Step({}, Parts({}), Rng(0)), Path())


def test_a_document_too_short_is_an_empty_row() -> None:
    made = plan(plain([4, 30]))
    assert sequences(made.inputs)[0] != [] and len(sequences(made.inputs)) == 1
    assert made.sites.valid.sum(1).tolist() == [0, SpanCorruptionConfig().source(30)]
