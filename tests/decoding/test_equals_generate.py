"""The same weights, the same text: greedy and beam write what transformers' `generate` writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from encdec_train.decoding.given import rows_of
from encdec_train.decoding.search import SearchConfig
from encdec_train.decoding.writer import write
from encdec_train.rng import Rng
from encdec_train.step import Parts, Step
from tests.export import test_t5 as t5
from tests.recipes import test_bart as bart
from tests.recipes import test_gpt2 as gpt2

LENGTH = 12
Case = tuple[Parts, Callable, Callable]  # ours; how each goes on: ours with a search, theirs with arguments
SEARCHES = {
    "greedy": (SearchConfig(), {}),
    "beam": (SearchConfig(beam=4), {"num_beams": 4, "early_stopping": "never"}),
    "long": (
        SearchConfig(beam=3, length_penalty=2.0),
        {"num_beams": 3, "early_stopping": "never", "length_penalty": 2.0},
    ),
    "early": (SearchConfig(beam=5, early=True), {"num_beams": 5, "early_stopping": True}),
}


def shaken(model):
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    return model.eval()


def texts(low: int, high: int, lengths: tuple[int, ...] = (9, 6, 11, 4)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(low, high, (n,), generator=generator) for n in lengths]


def read_by(parts: Parts, ids: list[Tensor]) -> Callable:
    """Ours, where the texts are read."""
    units = rows_of(ids, torch.device("cpu"))

    def go(config: SearchConfig, end: int) -> list[list[int]]:
        step = Step({"text": units}, parts, Rng(0, 0))
        objective = step.part("objective", "main")
        corruption = step.part("corruption", "main")
        asked = corruption.prompt(units, units.sites)
        step.settle(objective.memory, asked)
        begin = asked.reply if asked.reply is not None else asked
        return write(step, "main", begin, config, end=end, length=LENGTH)

    return go


def writes(model, ids: list[Tensor], *, behind: int = 1, **extra) -> Callable:
    """Theirs; what stands before the written ids is left out."""
    units = rows_of(ids, torch.device("cpu"))

    def go(end: int, **arguments) -> list[list[int]]:
        out = model.generate(
            input_ids=units.values,
            attention_mask=units.sites.valid.long(),
            max_new_tokens=LENGTH,
            do_sample=False,
            pad_token_id=0,
            eos_token_id=None if end < 0 else end,
            use_cache=False,  # theirs breaks where a T5 has more blocks in its decoder than in its encoder
            **extra,
            **arguments,
        )[:, behind:].tolist()
        return [row[: row.index(end)] if end in row else row for row in out]

    return go


def t5_case() -> Case:
    theirs, ours = shaken(t5.reference()), t5.parts()
    ours.student.load_state_dict(t5.from_hf(theirs.state_dict()))
    ids = texts(t5.WORDS.specials, t5.WORDS.size)
    closed = [torch.cat([row, torch.tensor([t5.WORDS.eos])]) for row in ids]
    return ours, read_by(ours, ids), writes(theirs, closed)


def bart_case() -> Case:
    config, ours, words, positions = bart.build("bart")
    theirs = shaken(bart.MODELS["bart"](bart.arguments(config, words, positions)))
    theirs.tie_weights()
    ours.student.load_state_dict(bart.weights(theirs.state_dict(), config))
    ids = texts(words.specials, words.size)
    extra = {"decoder_start_token_id": words.eos, "forced_eos_token_id": None}
    return ours.eval(), read_by(ours, ids), writes(theirs, ids, **extra)


def gpt2_case() -> Case:
    """Prompts of one length: transformers wants padding before them."""
    config, ours, words = gpt2.build()
    theirs = shaken(gpt2.reference(config, words, gpt2.LENGTH))
    ours.student.load_state_dict(gpt2.weights(theirs.state_dict(), config.encoder["main"].depth))
    ids = texts(words.specials, words.size, (7, 7, 7, 7))
    return ours.eval(), read_by(ours, ids), writes(theirs, ids, behind=7)


@pytest.mark.parametrize("case", [t5_case, bart_case, gpt2_case])
def test_the_same_sequences(case: Callable[[], Case]) -> None:
    pytest.importorskip("transformers")
    _, ours, theirs = case()
    free = ours(SearchConfig(), -1)
    assert free == theirs(-1)
    end = Counter(i for row in free for i in set(row[2:])).most_common(1)[0][0]  # one that ends some rows early
    lengths = set()
    for name, (config, arguments) in SEARCHES.items():
        found = ours(config, end)
        assert found == theirs(end, **arguments), name
        lengths |= {len(row) for row in found}
    assert len(lengths) > 2
