"""The sentence `encodec`: codes alone bring a waveform back, and each phase trains its own side."""

from __future__ import annotations

import torch

from encdec_train.build import check, dry_run, make_parts, make_transform
from encdec_train.launch import compose
from encdec_train.rng import Rng
from encdec_train.step import Step
from encdec_train.types import Sites, Units

CONFIG = compose(["+recipe=encodec"])
WIRING = check(CONFIG, make_transform(CONFIG).specs())


def step() -> Step:
    torch.manual_seed(0)
    place = torch.arange(2000).expand(2, -1)
    sites = Sites(sample=torch.arange(2)[:, None].expand(2, 2000), place=place)
    return Step({"audio": Units(values=torch.randn(2, 2000, 1), sites=sites)}, make_parts(CONFIG, WIRING), Rng(0, 0))


def test_the_decoder_hears_what_the_codes_say() -> None:
    """50 frames of 4 books of 64 entries for a quarter of a second: 4.8 kbit/s."""
    now = step()
    now.parts.eval()
    objective = now.part("objective", "main")
    memory, quantiser = now.tokens(objective.memory), now.part("bottleneck", "main")
    assert memory.codes.shape == (2, 50, 4) and memory.codes.max() < 64
    said = sum(book.entries[memory.codes[..., i]] for i, book in enumerate(quantiser.books))
    torch.testing.assert_close(memory.x, said)
    assert objective.predict(now)[0].shape == (2 * 2000, 1)


def test_the_discriminator_is_trained_by_its_own_phase() -> None:
    """Though it hears predictions through a quantiser, which brings a loss of its own."""
    owned = dry_run(CONFIG, WIRING).owned
    assert list(owned) == ["discriminator"]
    assert owned["discriminator"] and all(name.startswith("encoder.real.") for name in owned["discriminator"])
