"""Cepstra against scipy, and their frames against those of a convolutional embedder."""

import numpy as np
import pytest
import scipy.fft
import torch

from encdec_train.embedders.mfcc import Mfcc, MfccConfig, differences
from encdec_train.embedders.waveform import WaveformEmbedderConfig
from encdec_train.nn.mel import log_mel
from encdec_train.types import Mismatch, Plan, Sites, Spec, Units

VIEW = Spec(kind="values", width=1, length=4000)
SMALL = MfccConfig(rate=8000, window=200, hop=80, bins=20, cepstra=13)


def units(rows=2, n=4000, real=None):
    sites = Sites(
        sample=torch.arange(rows)[:, None].expand(rows, n),
        place=torch.arange(n).expand(rows, n),
        valid=None if real is None else torch.arange(n) < torch.tensor(real)[:, None],
    )
    return Units(values=torch.randn(rows, n, 1), sites=sites)


def test_cepstra_are_the_cosine_transform_of_log_mels():
    given = units()
    found = Mfcc(SMALL, VIEW, mask=False).features(given, None, None)[..., :13]
    mels = log_mel(given.values[..., 0], 8000, 20, window=200 / 8000, hop=80 / 8000)
    np.testing.assert_allclose(found, scipy.fft.dct(mels.double().numpy(), norm="ortho")[..., :13], atol=1e-4)


def test_differences_are_slopes():
    line = 3.0 * torch.arange(10.0)[None, :, None].expand(2, 10, 4)
    torch.testing.assert_close(differences(line)[:, 2:-2], torch.full((2, 6, 4), 3.0))
    torch.testing.assert_close(differences(torch.ones(1, 5, 2)), torch.zeros(1, 5, 2), rtol=0, atol=1e-6)


@pytest.mark.parametrize("samples", [400, 719, 720, 16000, 15999])
def test_frames_are_those_of_the_waveform_embedder(samples):
    assert MfccConfig().frames(samples) == WaveformEmbedderConfig().frames(samples)


def test_sites_hide_padding():
    part = Mfcc(SMALL, VIEW, mask=False)
    given = units(real=[4000, 1000])
    sites = part.sites(given)
    assert sites.valid.sum(1).tolist() == [SMALL.frames(4000), SMALL.frames(1000)]
    tokens = part.place(part.features(given, sites, None), Plan(inputs=given, sites=sites))
    assert tokens.x.shape == (2, sites.n, 39) == (2, SMALL.spec(VIEW).length, SMALL.spec(VIEW).width)


def test_what_does_not_fit_is_named():
    with pytest.raises(Mismatch, match="samples of one channel"):
        MfccConfig().spec(Spec(kind="ids", width=9))
    with pytest.raises(Mismatch, match="a frame sees 400 samples, the view has 399"):
        MfccConfig().spec(Spec(kind="values", width=1, length=399))
