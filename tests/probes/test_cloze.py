"""The cloze probe: an encoder that reads the neighbour knows the hidden token, one that does not is at chance."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from encdec_train.data.example import Example, collate
from encdec_train.embedders.ids import Ids, IdsConfig
from encdec_train.probes.cloze import Cloze, ClozeConfig
from encdec_train.rng import Rng
from encdec_train.step import Parts, Step
from encdec_train.types import Attend, Batch, Mismatch, Path, Tokens, Units, Vocabulary
from tests.texts import WORDS, fixed, view


class Shift(nn.Module):
    """Every site gets the vector of the site before it, or its own."""

    def __init__(self, by: int) -> None:
        super().__init__()
        self.by = by

    def forward(self, tokens: Tokens, attend: Attend | None = None) -> Tokens:
        return Tokens(x=tokens.x.roll(self.by, 1), sites=tokens.sites)


class Frozen:
    """Rows where every ordinary id is followed by its successor, with gaps."""

    def __init__(self, by: int, words: Vocabulary = WORDS) -> None:
        torch.manual_seed(0)
        embedder = Ids(IdsConfig(width=64, init_std=1.0), view(), mask=False)
        self.parts = Parts({"embedder": {"main": embedder}, "encoder": {"main": Shift(by)}})
        self.path = Path(view="text")
        self.transform = SimpleNamespace(specs=lambda: {"text": view(words=words)})

    def steps(self, split: str) -> Iterator[tuple[Step, Batch]]:
        generator = torch.Generator().manual_seed(len(split))
        for start in range(4):
            rows = [{"text": self.row(generator, start * 32 + i)} for i in range(32)]
            batch = collate(rows)
            yield Step(batch, self.parts, Rng(0, start)), batch

    def row(self, generator: torch.Generator, sample: int) -> Example:
        start = int(torch.randint(0, 20, (), generator=generator))
        body = WORDS.specials + (start + torch.arange(14)) % 20
        ids = torch.cat([torch.tensor([WORDS.bos]), body, torch.tensor([WORDS.eos])])
        return Example(values=ids, sample=sample, fixed=fixed(ids))


def test_context_is_what_counts() -> None:
    probe = Cloze(ClozeConfig(classes=20, tokens=3))
    assert probe(Frozen(1)) > 0.85  # what follows [CLS] cannot be known
    assert probe(Frozen(0)) < 0.15  # every hidden token looks the same


def picked(probe: Cloze) -> Iterator[tuple[Units, Tensor]]:
    frozen = Frozen(0)
    classes = probe.frequent(frozen, WORDS)
    for step, batch in frozen.steps("train"):
        yield batch["text"], probe.pick(batch["text"], classes, step.rng)


def test_what_is_hidden() -> None:
    for units, chosen in picked(Cloze(ClozeConfig(classes=20, tokens=3))):
        assert (chosen.sum(1) == 3).all()
        assert not (chosen & ~units.sites.open()).any()
        assert not (chosen[:, 1:] & chosen[:, :-1]).any()


def test_only_frequent_tokens_are_hidden() -> None:
    probe = Cloze(ClozeConfig(classes=2, tokens=3))
    classes = probe.frequent(Frozen(0), WORDS)
    assert len(classes) == 2
    for units, chosen in picked(probe):
        assert torch.isin(units.values[chosen], classes).all()


def test_needs_a_mask_token() -> None:
    with pytest.raises(Mismatch, match="mask token"):
        Cloze(ClozeConfig())(Frozen(0, Vocabulary(size=WORDS.size)))
