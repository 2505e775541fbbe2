"""The sentence `ul2`, at the paper's size."""

from __future__ import annotations

import pytest

from encdec_train.build import check, dry_run, make_transform
from encdec_train.corruptions.mixed_spans import MixedSpansConfig
from encdec_train.launch import compose


def test_no_denoiser_makes_a_source_longer_than_the_paper_s() -> None:
    config = compose(["+recipe=ul2", "scale=paper"])
    mixture, length = config.corruption["main"], config.transform.length
    assert isinstance(mixture, MixedSpansConfig)
    assert max(1 + part.source(length) for part in mixture.parts()) == 512  # the mode token leads
    assert max(part.target(length) for part in mixture.parts()) == 380


def test_a_fifth_of_the_rows_is_continued() -> None:
    table = compose(["+recipe=ul2"]).corruption["main"].denoisers
    total = sum(row.share for row in table)
    assert len(table) == 7 and [row.share / total for row in table if row.mean_length is None] == [0.2]
    assert {row.mode for row in table} == {0, 1, 2}


@pytest.mark.parametrize("scale", ["demo", "paper"])
def test_every_parameter_gets_a_gradient(scale: str) -> None:
    config = compose(["+recipe=ul2", f"scale={scale}"])
    wiring = check(config, make_transform(config).specs())
    dry = dry_run(config, wiring)
    assert dry.unused == []
    if scale == "paper":
        assert abs(sum(dry.parameters.values()) / 20e9 - 1) < 0.03
