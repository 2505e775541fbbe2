"""Perceptrons over sites: shapes, and a site is read by itself."""

import pytest
import torch

from encdec_train.decoders.mlp import MlpDecoder, MlpDecoderConfig
from encdec_train.encoders.mlp import MlpEncoder, MlpEncoderConfig
from encdec_train.nn.mlp import Activation
from encdec_train.types import Mismatch, Sites, Spec, Tokens

SPEC = Spec(kind="vectors", width=3, length=4)


def tokens():
    return Tokens(x=torch.randn(2, 4, 3), sites=Sites(sample=torch.zeros(2, 4).long(), place=torch.zeros(2, 4).long()))


def test_layers_are_linear_and_an_activation():
    given = tokens()
    encoder = MlpEncoder(MlpEncoderConfig(hidden=[6, 5], activation=Activation.tanh), SPEC)
    decoder = MlpDecoder(MlpDecoderConfig(hidden=[6, 5], activation=Activation.tanh), SPEC, None, SPEC)
    decoder.load_state_dict(encoder.state_dict())
    first, second = encoder.layers[0], encoder.layers[2]
    there = second(first(given.x).tanh()).tanh()
    torch.testing.assert_close(encoder(given).x, there)
    torch.testing.assert_close(decoder(given, None, None).x, there)
    assert encoder.width == MlpDecoderConfig(hidden=[6, 5]).spec(SPEC, None, SPEC).width == 5


def test_what_does_not_fit_is_named():
    with pytest.raises(Mismatch, match="widths of at least 1"):
        MlpEncoderConfig(hidden=[]).spec(SPEC)
    with pytest.raises(Mismatch, match="no inputs of its own"):
        MlpDecoderConfig().spec(SPEC, SPEC, SPEC)
