"""The discriminator over spectrograms: what it reads, its shapes and its layers."""

import pytest
import torch

from encdec_train.encoders.stft import Stft, StftConfig, parts
from encdec_train.nn.spectrum import spectrogram
from encdec_train.types import Mismatch, Sites, Spec, Tokens

SPEC = Spec(kind="vectors", width=1, length=256)


def tokens(rows=2):
    sites = Sites(sample=torch.zeros(rows, 256).long(), place=torch.arange(256).expand(rows, 256))
    return Tokens(x=torch.randn(rows, 256, 1), sites=sites)


def test_it_reads_real_and_imaginary_parts():
    sound = torch.randn(2, 256)
    found, there = parts(sound, 32), spectrogram(sound, 32).transpose(1, 2)
    assert torch.equal(found[:, 0], there.real) and torch.equal(found[:, 1], there.imag)


def test_scores_of_all_windows_stand_side_by_side():
    config = StftConfig(windows=[64, 16], channels=3, dilations=[1, 2], emit=list(range(8)))
    encoder, given = Stft(config, SPEC), tokens()
    found = encoder(given)
    assert len(config.spec(SPEC).layers) == 8 == len(found.layers)
    shapes = [(17, 33), (65, 9)]  # times and frequencies of the spectrograms
    sizes = [(time, (frequency + 3) // 4) for time, frequency in shapes]
    assert found.x.shape == (2, sum(time * frequency for time, frequency in sizes), 1)
    assert found.layers[0].shape == (2, 3, 17, 33) and found.layers[4].shape == (2, 3, 65, 9)
    first = encoder.scales[0](parts(given.x[..., 0], 64))[0]
    torch.testing.assert_close(found.x[:, : first[0].numel(), 0], first.flatten(1))
    assert found.sites.n == found.x.shape[1]


@pytest.mark.parametrize(
    "config,spec,said",
    [
        (StftConfig(), Spec(kind="vectors", width=2, length=9999), "one channel"),
        (StftConfig(), SPEC, "too short"),
        (StftConfig(windows=[8]), SPEC, "at least 16"),
    ],
)
def test_what_does_not_fit_is_named(config, spec, said):
    with pytest.raises(Mismatch, match=said):
        config.spec(spec)
