"""The neighbour probe: an encoder that brings the neighbour knows it, one that brings another does not."""

from __future__ import annotations

import pytest
import torch

from encdec_train.probes.neighbour import Neighbour, NeighbourConfig
from encdec_train.types import Mismatch, Vocabulary
from tests.probes.test_cloze import Frozen
from tests.texts import WORDS


class Scattered(Frozen):
    """Rows of unrelated ids."""

    def row(self, generator, sample):
        example = super().row(generator, sample)
        example.values[1:-1] = WORDS.specials + torch.randint(0, 20, (14,), generator=generator)
        return example


@pytest.mark.parametrize("ahead", [1, -1, 3])
def test_the_one_asked_for_is_found(ahead: int) -> None:
    probe = Neighbour(NeighbourConfig(ahead=ahead, classes=20, tokens=6))
    assert probe(Scattered(-ahead)) > 0.95
    assert probe(Scattered(ahead)) < 0.2 and probe(Scattered(0)) < 0.2


def test_only_text_is_asked_for() -> None:
    """Neither the token nor the place that is read is a special one."""
    probe = Neighbour(NeighbourConfig(ahead=-2, classes=20, tokens=6))
    frozen = Frozen(0)
    classes = probe.frequent(frozen, WORDS)
    for step, batch in frozen.steps("train"):
        asked = probe.ask(batch["text"], classes, step.rng)
        assert asked.sum(1).tolist() == [6] * 32
        free = batch["text"].sites.open()
        assert free[asked].all() and free.roll(-2, 1)[asked].all() and not asked[:, -2:].any()


def test_mistakes() -> None:
    with pytest.raises(Mismatch, match="the token itself"):
        Neighbour(NeighbourConfig(ahead=0))
    frozen = Frozen(0)
    frozen.transform.specs = lambda: {"text": type("S", (), {"vocabulary": None})()}
    with pytest.raises(Mismatch, match="needs ids"):
        Neighbour(NeighbourConfig()).vocabulary(frozen)
    assert Neighbour(NeighbourConfig()).vocabulary(Frozen(0, Vocabulary(size=60))).size == 60
