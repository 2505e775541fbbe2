"""The convolutional encoder and decoder: shapes, and EnCodec's networks with the same weights in transformers."""

import pytest
import torch

from encdec_train.decoders.upsample import Upsample, UpsampleConfig
from encdec_train.encoders.conv import ConvEncoder, ConvEncoderConfig
from encdec_train.nn.mlp import Activation
from encdec_train.types import Mismatch, Plan, Sites, Spec, Tokens, Units

LINE = Spec(kind="vectors", width=1, length=64, raw=Spec(kind="values", width=1, length=64))
SPEECH = {
    "channels": [4, 8, 16, 32, 64],
    "strides": [2, 4, 5, 8],
    "blocks": [1, 1, 1, 1, 0],
    "edge_kernel": 7,
    "shortcut": True,
    "activation": Activation.elu,
    "causal": True,
    "reflect": True,
    "lstm": 2,
}


def line(rows, n):
    sites = Sites(sample=torch.zeros(rows, n).long(), place=torch.arange(n).expand(rows, n))
    return Tokens(x=torch.randn(rows, n, 1), sites=sites)


def picture(rows, h, w, channels):
    return Spec(kind="vectors", width=channels, length=h * w, grid=(h, w), raw=Spec(kind="values", width=channels))


def copy_convolutions(there, ours):
    """Weights of the layers in their order; the two libraries keep them under other names."""
    mine = [m for m in ours.modules() if isinstance(m, torch.nn.Conv1d | torch.nn.ConvTranspose1d | torch.nn.LSTM)]
    theirs = [m for m in there.modules() if isinstance(m, torch.nn.Conv1d | torch.nn.ConvTranspose1d | torch.nn.LSTM)]
    assert len(mine) == len(theirs)
    with torch.no_grad():
        for a, b in zip(mine, theirs, strict=True):
            a.load_state_dict(b.state_dict())


@pytest.mark.parametrize("causal", [True, False])
def test_the_networks_of_encodec(causal):
    transformers = pytest.importorskip("transformers")
    from transformers.models.encodec.modeling_encodec import EncodecDecoder, EncodecEncoder

    torch.manual_seed(0)
    config = transformers.EncodecConfig(
        num_filters=4, hidden_size=16, use_causal_conv=causal, norm_type="time_group_norm"
    )
    length = 3200
    spec = Spec(kind="vectors", width=1, length=length, raw=Spec(kind="values", width=1, length=length))
    words = {**SPEECH, "causal": causal}
    encoder = ConvEncoder(ConvEncoderConfig(width=16, **words), spec)
    coarse = encoder.config.spec(spec)
    decoder = Upsample(UpsampleConfig(**words), coarse, None, spec)
    there = EncodecEncoder(config), EncodecDecoder(config)
    for module in [m for part in there for m in part.modules() if hasattr(m, "norm_type")]:
        module.norm_type = "none"
    for one, other in zip(there, (encoder, decoder), strict=True):
        copy_convolutions(one, other)
    given = line(2, length)
    memory = encoder(given)
    assert memory.x.shape == (2, 10, 16) and coarse.length == 10
    torch.testing.assert_close(memory.x, there[0](given.x.transpose(1, 2)).transpose(1, 2), atol=1e-5, rtol=1e-5)
    plan = Plan(inputs=Units(values=given.x, sites=given.sites), sites=given.sites)
    found = decoder(memory, None, plan).x
    torch.testing.assert_close(found, there[1](memory.x.transpose(1, 2)).transpose(1, 2), atol=1e-5, rtol=1e-5)


def test_the_published_size_of_encodec():
    """transformers' own default configuration, without its code books."""
    transformers = pytest.importorskip("transformers")

    with torch.device("meta"):
        model = transformers.EncodecModel(transformers.EncodecConfig())
        spec = Spec(kind="vectors", width=1, length=24000, raw=Spec(kind="values", width=1, length=24000))
        words = {**SPEECH, "channels": [32, 64, 128, 256, 512], "weight_norm": True}
        encoder = ConvEncoder(ConvEncoderConfig(width=128, **words), spec)
        decoder = Upsample(UpsampleConfig(**words), encoder.config.spec(spec), None, spec)
    for mine, there in ((encoder, model.encoder), (decoder, model.decoder)):
        assert sum(p.numel() for p in mine.parameters()) == sum(p.numel() for p in there.parameters())


@pytest.mark.parametrize("resize", [False, True])
@pytest.mark.parametrize("h,w", [(8, 8), (7, 10)])
def test_a_picture_comes_back_at_its_size(h, w, resize):
    spec = picture(2, h, w, 3)
    words = {"channels": [4, 8, 8], "strides": [2, 2], "blocks": [1, 0, 1]}
    encoder = ConvEncoder(ConvEncoderConfig(width=5, **words), spec)
    coarse = encoder.config.spec(spec)
    assert coarse.grid == (-(-h // 4), -(-w // 4)) and coarse.rows == "coarse"
    place = torch.arange(h * w).expand(2, -1)
    sites = Sites(sample=torch.arange(2)[:, None].expand(2, h * w), place=place, grid=(h, w))
    memory = encoder(Tokens(x=torch.randn(2, h * w, 3), sites=sites))
    assert memory.sites.grid == coarse.grid and memory.x.shape == (2, coarse.length, 5)
    assert memory.sites.coords.shape == (2, coarse.length, 2)
    decoder = Upsample(UpsampleConfig(resize=resize, **words), coarse, None, spec)
    plan = Plan(inputs=Units(values=torch.zeros(2, h * w, 3), sites=sites), sites=sites)
    assert decoder(memory, None, plan).x.shape == (2, h * w, 3)


def test_causal_convolutions_do_not_hear_the_future():
    words = {"channels": [4, 4], "strides": [2], "blocks": [1, 1], "causal": True, "lstm": 1}
    encoder, given = ConvEncoder(ConvEncoderConfig(width=3, **words), LINE), line(1, 64)
    before = encoder(given).x
    given.x[:, 40:] += 1
    after = encoder(given).x
    torch.testing.assert_close(after[:, :20], before[:, :20])
    assert (after[:, 20:] - before[:, 20:]).abs().max() > 0


@pytest.mark.parametrize(
    "config,spec,said",
    [
        (ConvEncoderConfig(blocks=[1]), LINE, "one entry for each level"),
        (ConvEncoderConfig(kernel=4), LINE, "must be odd"),
        (ConvEncoderConfig(compress=3), LINE, "does not divide all"),
        (ConvEncoderConfig(lstm=1), picture(2, 8, 8, 3), "runs along a line"),
        (ConvEncoderConfig(), Spec(kind="vectors", width=1), "in rows of one length"),
        (ConvEncoderConfig(), Spec(kind="vectors", width=1, length=8, grid=(2, 2, 2)), "it is given 3"),
    ],
)
def test_what_does_not_fit_is_named(config, spec, said):
    with pytest.raises(Mismatch, match=said):
        config.spec(spec)


def test_a_memory_of_another_size_is_refused():
    with pytest.raises(Mismatch, match="comes from"):
        UpsampleConfig().spec(Spec(kind="vectors", width=4, length=9), None, LINE)
