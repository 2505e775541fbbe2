"""ModernBERT against transformers: the same weights, the same text, the same masks, padded and packed."""

from __future__ import annotations

import pytest
import torch

from encdec_train.embedders.ids import IdsConfig
from encdec_train.encoders.transformer import TransformerConfig
from encdec_train.export.hf.modernbert import config_to_hf, from_hf, to_hf
from encdec_train.heads.tied import TiedConfig
from encdec_train.nn.norm import Norm
from encdec_train.step import Parts
from encdec_train.types import Mismatch
from tests.export.masked_lm import compare, gradients, make
from tests.texts import WORDS

transformers = pytest.importorskip("transformers")

WIDTH = 32
EMBEDDER = IdsConfig(width=WIDTH, norm=Norm.layer, norm_bias=False, eps=1e-5)
ENCODER = TransformerConfig(
    width=WIDTH, depth=5, heads=4, hidden=24, eps=1e-5, norm_bias=False, first_norm=False, gated=True, bias=False,
    windows=[0, 3, 3], rotary=[160000.0, 10000.0, 10000.0],
)  # fmt: skip
HEAD = TiedConfig(transform=True, transform_bias=False, bias=True, eps=1e-5)


def parts() -> Parts:
    return make(EMBEDDER, ENCODER, HEAD)


def theirs(ours: Parts) -> torch.nn.Module:
    config = transformers.ModernBertConfig(**config_to_hf(EMBEDDER, ENCODER, HEAD, WORDS))
    model = transformers.ModernBertForMaskedLM(config).eval()
    model.load_state_dict(to_hf(ours.student.state_dict()))
    return model


@pytest.mark.parametrize("in_rows", [False, True], ids=["padded", "packed"])
def test_states_and_loss_are_theirs(in_rows: bool) -> None:
    ours = parts()
    compare(ours, theirs(ours), in_rows=in_rows)


def test_gradients_are_theirs() -> None:
    ours = parts()
    expected = from_hf(gradients(ours, theirs(ours)))
    for name, parameter in ours.student.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], atol=1e-5, rtol=1e-4)


def test_there_and_back() -> None:
    state = parts().student.state_dict()
    back = from_hf(to_hf(state))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


@pytest.mark.parametrize(
    "changes,said",
    [({"windows": [0, 3, 4]}, "one window"), ({"rotary": []}, "one window"), ({"bias": True}, "bias=True")],
)
def test_what_modernbert_cannot_say(changes: dict[str, object], said: str) -> None:
    encoder = TransformerConfig(**{**vars(ENCODER), **changes})
    with pytest.raises(Mismatch, match=said):
        config_to_hf(EMBEDDER, encoder, HEAD, WORDS)
