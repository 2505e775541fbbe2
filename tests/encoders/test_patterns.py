"""Encoders that do not attend: what a corruption forbids to read is not read, or refused in words."""

import pytest
import torch

from encdec_train.encoders.conv import ConvEncoder, ConvEncoderConfig
from encdec_train.encoders.gru import Gru, GruConfig
from encdec_train.encoders.mlp import MlpEncoder, MlpEncoderConfig
from encdec_train.types import Attend, Mismatch, Sites, Spec, Tokens

SPEC = Spec(kind="vectors", width=6, length=12, grid=(12,))
PLACE = torch.arange(12).expand(2, -1)
TOKENS = Tokens(x=torch.randn(2, 12, 6), sites=Sites(sample=PLACE, place=PLACE, grid=(12,)))
CAUSAL = Attend(causal=True)
MAKE = {
    "gru": lambda: Gru(GruConfig(width=8, both=False), SPEC),
    "conv": lambda: ConvEncoder(
        ConvEncoderConfig(width=8, channels=[4, 8], strides=[1], blocks=[0, 0], causal=True), SPEC
    ),
    "mlp": lambda: MlpEncoder(MlpEncoderConfig(hidden=[8]), SPEC),
}


@pytest.mark.parametrize("name", MAKE)
def test_what_follows_is_not_read(name):
    encoder = MAKE[name]().eval()
    later = TOKENS.x.clone()
    later[:, 7:] += 1.0
    whole, changed = (encoder(Tokens(x=x, sites=TOKENS.sites), CAUSAL).x for x in (TOKENS.x, later))
    torch.testing.assert_close(whole[:, :7], changed[:, :7])
    assert not torch.allclose(whole[:, 7:], changed[:, 7:])


@pytest.mark.parametrize(
    "attend",
    [Attend(causal=True, window=2), Attend(causal=True, prefix=torch.ones(2)), Attend(seen=torch.ones(2, 12, 12))],
)
@pytest.mark.parametrize("name", ["gru", "conv"])
def test_other_patterns_are_refused(name, attend):
    with pytest.raises(Mismatch, match="pattern"):
        MAKE[name]()(TOKENS, attend)


def test_both_directions_are_refused():
    with pytest.raises(Mismatch, match="pattern"):
        Gru(GruConfig(width=8), SPEC)(TOKENS, CAUSAL)
    with pytest.raises(Mismatch, match="pattern"):
        ConvEncoder(ConvEncoderConfig(width=8, channels=[4, 8], strides=[1], blocks=[0, 0]), SPEC)(TOKENS, CAUSAL)
