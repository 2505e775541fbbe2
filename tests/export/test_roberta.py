"""RoBERTa against transformers: the same weights, the same text, the same masks, padded and packed."""

from __future__ import annotations

import pytest
import torch

from encdec_train.embedders.ids import IdsConfig, IdsPosition
from encdec_train.encoders.transformer import TransformerConfig
from encdec_train.export.hf.roberta import OURS, POSITIONS, config_to_hf, from_hf, to_hf
from encdec_train.heads.tied import TiedConfig
from encdec_train.nn.norm import Norm
from encdec_train.step import Parts
from encdec_train.types import Mismatch
from tests.export.masked_lm import LENGTH, compare, gradients, make
from tests.texts import WORDS

transformers = pytest.importorskip("transformers")

WIDTH = 32
EMBEDDER = IdsConfig(width=WIDTH, position=IdsPosition.learned, positions=LENGTH, norm=Norm.layer, eps=1e-5)
ENCODER = TransformerConfig(width=WIDTH, depth=3, heads=4, hidden=48, eps=1e-5, norm_first=False, final_norm=False)
HEAD = TiedConfig(transform=True, bias=True, eps=1e-5)


def parts() -> Parts:
    return make(EMBEDDER, ENCODER, HEAD)


def theirs(ours: Parts) -> torch.nn.Module:
    config = transformers.RobertaConfig(**config_to_hf(EMBEDDER, ENCODER, HEAD, WORDS, LENGTH))
    model = transformers.RobertaForMaskedLM(config).eval()
    model.load_state_dict(to_hf(ours.student.state_dict(), pad=WORDS.pad))
    return model


@pytest.mark.parametrize("in_rows", [False, True], ids=["padded", "packed"])
def test_states_and_loss_are_theirs(in_rows: bool) -> None:
    ours = parts()
    compare(ours, theirs(ours), in_rows=in_rows)


def test_gradients_are_theirs() -> None:
    ours = parts()
    found = gradients(ours, theirs(ours))
    expected = from_hf(found, pad=WORDS.pad) | {OURS: found[POSITIONS][WORDS.pad + 1 :]}
    for name, parameter in ours.student.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], atol=1e-5, rtol=1e-4)


def test_there_and_back() -> None:
    state = parts().student.state_dict()
    back = from_hf(to_hf(state, pad=1), pad=1)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_what_roberta_cannot_say() -> None:
    encoder = TransformerConfig(**{**vars(ENCODER), "rotary": [10000.0]})
    with pytest.raises(Mismatch, match=r"rotary=\[10000.0\]"):
        config_to_hf(EMBEDDER, encoder, HEAD, WORDS, LENGTH)
    with pytest.raises(Mismatch, match="types=2"):
        config_to_hf(IdsConfig(**{**vars(EMBEDDER), "types": 2}), ENCODER, HEAD, WORDS, LENGTH)
