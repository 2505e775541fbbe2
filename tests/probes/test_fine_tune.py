"""Fine-tuning: who learns how fast, and that a copy learns what a frozen encoder does not know."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from encdec_train.probes.fine_tune import FineTune, FineTuneConfig, by_layer, layers_of, rate
from encdec_train.train.assembly import frozen
from tests.runs import assembled, small


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1))
        self.blocks = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
        self.norm = nn.LayerNorm(2)


def test_layers_of_an_encoder():
    encoder = Encoder()
    found = layers_of(encoder)
    assert [len(level) for level in found] == [3, 2, 4]  # the token with the first, the norm with the last
    assert found[0][0] is encoder.token and found[2][-1] is encoder.norm.bias
    assert [len(level) for level in layers_of(nn.Linear(2, 2))] == [2]


def test_rates_of_the_layers():
    encoder, embedder = Encoder(), nn.Linear(2, 2)
    held = {"embedder": embedder, "encoder": encoder}
    tuned = SimpleNamespace(
        path=SimpleNamespace(embedder="main", encoder="main", bottleneck=None, teacher=None),
        parts=SimpleNamespace(get=lambda noun, name, teacher: held[noun]),
    )
    scales = {id(p): scale for parameters, scale in by_layer(tuned, 0.5) for p in parameters}
    assert len(scales) == len(list(encoder.parameters())) + 2
    assert scales[id(embedder.weight)] == 0.5**4
    assert [scales[id(block.weight)] for block in encoder.blocks] == [0.5**3, 0.5**2, 0.5]


def test_the_schedule_warms_up_and_ends():
    assert rate(0.0) < 0.2 and rate(0.1) == 1.0 and rate(0.55) == pytest.approx(0.5) and rate(0.999) < 1e-4


def test_a_copy_learns(tmp_path):
    run = assembled(small("mae_vit", tmp_path, "evaluate.rows=400", "data.limit=400", "evaluate.batch=400"), tmp_path)
    before = {name: value.clone() for name, value in run.parts.state_dict().items()}
    draws = torch.random.get_rng_state()
    eyes = frozen(run)
    found = FineTune(FineTuneConfig(epochs=5, lr=3e-3, batch=32))(eyes)
    assert found.value > 0.7  # of ten classes
    once, again, none = (FineTune(FineTuneConfig(epochs=1, lr=lr))(eyes).value for lr in (1e-3, 1e-3, 0.0))
    assert once == again != none < 0.3
    assert all(torch.equal(value, before[name]) for name, value in run.parts.state_dict().items())
    assert torch.equal(draws, torch.random.get_rng_state()) and run.parts.training
