"""The mixture against plain span corruption, and against the text that it must give back."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from encdec_train.corruptions.mixed_spans import DenoiserConfig, MixedSpans, MixedSpansConfig
from encdec_train.corruptions.span_corruption import SpanCorruption, SpanCorruptionConfig
from encdec_train.data.example import Example, collate
from encdec_train.rng import Rng
from encdec_train.step import Parts, Step
from encdec_train.types import Mismatch, Path, Plan, Spec, Units, Vocabulary

WORDS = Vocabulary(size=1000, pad=0, eos=1, sentinel=999, sentinels=100, specials=2)
VIEW = Spec(kind="ids", width=WORDS.size, vocabulary=WORDS)
REGULAR, EXTREME, PREFIX = 0, 1, 2
TABLE = [
    DenoiserConfig(share=2.0, density=0.15, mean_length=3.0, mode=REGULAR),
    DenoiserConfig(share=1.0, density=0.5, mean_length=8.0, mode=EXTREME),
    DenoiserConfig(share=1.0, density=0.25, mean_length=None, mode=PREFIX),
]


def plain(lengths: list[int], first: int = 0) -> Units:
    def text(key: int, length: int) -> torch.Tensor:
        return 2 + (torch.arange(length) * 7 + key * 31) % 800

    rows = [{"text": Example(values=text(first + i, n), sample=first + i)} for i, n in enumerate(lengths)]
    return collate(rows)["text"]


def plan(units: Units, part: object, step: int = 0) -> Plan:
    steps = Step({"text": units}, Parts({}), Rng(0, step))
    return part(units, units.sites, steps, Path(view="text", corruption="main"))  # type: ignore[operator]


def mixed(denoisers: list[DenoiserConfig] = TABLE) -> MixedSpans:
    return MixedSpans(MixedSpansConfig(denoisers=denoisers), VIEW)


def sides(made: Plan) -> list[tuple[list[int], list[int]]]:
    """Source and target of every row, without padding."""
    assert made.reply is not None and made.reply.targets is not None

    def rows(units: Units) -> list[list[int]]:
        return [ids[real].tolist() for ids, real in zip(units.values, units.sites.real(), strict=True)]

    return list(zip(rows(made.inputs), rows(made.reply.targets), strict=True))


def restored(source: list[int], target: list[int]) -> list[int]:
    """The text, with every sentinel of the source replaced by what the target says of it."""
    assert source[-1] == target[-1] == WORDS.eos
    spans: dict[int, list[int]] = {}
    for token in target[:-1]:
        if token > WORDS.sentinel - WORDS.sentinels + 3:
            spans[token] = []
        else:
            spans[list(spans)[-1]].append(token)
    assert list(spans) == [WORDS.sentinel - i for i in range(len(spans))]
    return [word for token in source[1:-1] for word in spans.get(token, [token])]


def test_every_denoiser_is_plain_span_corruption_behind_its_mode() -> None:
    units = plain([60, 33, 90, 12])
    for denoiser in TABLE[:2]:
        ours = sides(plan(units, mixed([denoiser])))
        config = SpanCorruptionConfig(density=denoiser.density, mean_length=denoiser.mean_length or 0)
        theirs = sides(plan(units, SpanCorruption(config, VIEW)))
        mode = WORDS.sentinel - WORDS.sentinels + 1 + denoiser.mode
        assert ours == [([mode, *source], target) for source, target in theirs]


def test_one_span_is_the_end() -> None:
    units = plain([40, 20])
    for (source, target), ids, real in zip(
        sides(plan(units, mixed(TABLE[2:]))), units.values, units.sites.real(), strict=True
    ):
        text = ids[real].tolist()
        kept = len(text) - len(text) // 4
        assert source == [900 + PREFIX, *text[:kept], WORDS.sentinel, WORDS.eos]
        assert target == [WORDS.sentinel, *text[kept:], WORDS.eos]


def test_nothing_is_lost_and_the_mode_tells_how_much_is_hidden() -> None:
    units = plain([64] * 200)
    hidden = {900 + d.mode: SpanCorruptionConfig(density=d.density).noise(64) for d in TABLE}
    for (source, target), ids in zip(sides(plan(units, mixed())), units.values, strict=True):
        assert restored(source, target) == ids.tolist()
        assert sum(token < 900 for token in target[:-1]) == hidden[source[0]]


def test_shares() -> None:
    modes = torch.tensor([source[0] - 900 for source, _ in sides(plan(plain([16] * 4000), mixed()))])
    found = torch.bincount(modes, minlength=3) / len(modes)
    assert torch.allclose(found, torch.tensor([0.5, 0.25, 0.25]), atol=0.03)


def test_capacities_do_not_depend_on_the_draw() -> None:
    units = plain([64] * 4)
    shapes = {
        (made.inputs.values.shape, made.reply.targets.values.shape)
        for made in (plan(units, mixed(), step) for step in range(20))
    }
    assert len(shapes) == 1
    parts = MixedSpansConfig(denoisers=TABLE).parts()
    ((source, target),) = shapes
    assert source[1] == 1 + max(part.source(64) for part in parts)
    assert target[1] == max(part.target(64) for part in parts)


def test_a_row_is_the_same_alone_and_in_a_batch() -> None:
    together = sides(plan(plain([30, 50, 41, 64]), mixed()))
    for i, length in enumerate([30, 50, 41, 64]):
        assert sides(plan(plain([length], first=i), mixed())) == together[i : i + 1]
    assert sides(plan(plain([30, 50, 41, 64]), mixed(), step=1)) != together


def test_what_does_not_fit() -> None:
    def refused(*denoisers: DenoiserConfig, sites: Spec = VIEW) -> str:
        with pytest.raises(Mismatch) as error:
            MixedSpansConfig(denoisers=list(denoisers)).spec(sites)
        return str(error.value)

    assert "table is empty" in refused()
    assert "denoisers[0].share: 0" in refused(DenoiserConfig(share=0))
    assert "denoisers[1].mode: -1" in refused(DenoiserConfig(), DenoiserConfig(mode=-1))
    assert "density: 2" in refused(DenoiserConfig(density=2))
    assert "has 97 sentinels" in refused(
        DenoiserConfig(density=0.5, mean_length=1.0, mode=2), sites=replace(VIEW, max_len=400)
    )
    assert MixedSpansConfig(denoisers=TABLE).spec(VIEW).raw == VIEW


def test_packed_rows_are_refused() -> None:
    units = plain([30])
    packed = replace(units, sites=replace(units.sites, doc=torch.zeros_like(units.values)))
    with pytest.raises(ValueError, match="one document in each"):
        plan(packed, mixed())
