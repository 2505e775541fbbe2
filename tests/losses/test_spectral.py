"""Mel spectrograms against sums written out, and against torchaudio's or transformers' filters where there are some."""

import math

import numpy as np
import pytest
import torch

from encdec_train.losses.spectral import Spectral, SpectralConfig, mel_bank
from encdec_train.nn.spectrum import spectrogram
from encdec_train.types import Goal, Mismatch, Spec

GOAL = Spec(kind="values", width=1, length=256)


def made(**config):
    return Spectral(SpectralConfig(windows=[32, 64], bins=8, rate=8000, **config), GOAL)


def test_a_spectrogram_is_a_sum_of_windowed_waves():
    sound, window = torch.randn(2, 64, dtype=torch.float64).float(), 16
    padded = np.pad(sound.numpy(), ((0, 0), (8, 8)), mode="reflect")
    shape = 0.5 - 0.5 * np.cos(2 * math.pi * np.arange(16) / 16)
    frames = np.stack([padded[:, 4 * t : 4 * t + 16] for t in range(17)], 2) * shape[None, :, None]
    there = np.fft.rfft(frames, axis=1) / math.sqrt((shape**2).sum())
    torch.testing.assert_close(spectrogram(sound, window), torch.from_numpy(there).to(torch.complex64))


def test_the_filters_are_those_of_transformers():
    audio = pytest.importorskip("transformers.audio_utils")
    there = audio.mel_filter_bank(129, 16, 0.0, 4000.0, 8000, norm=None, mel_scale="htk")
    torch.testing.assert_close(mel_bank(256, 16, 8000), torch.from_numpy(there.T).float(), atol=1e-4, rtol=1e-3)


def test_the_loss_is_the_mean_of_both_distances_over_windows():
    x, y = torch.randn(3, 256), torch.randn(3, 256)
    rows = made()(x.flatten()[:, None], Goal(values=y.flatten()[:, None])).view(3, 256)
    assert torch.equal(rows, rows[:, :1].expand(3, 256))
    there = torch.zeros(3)
    for window in (32, 64):
        bank = mel_bank(window, 8, 8000)
        difference = bank @ spectrogram(x, window).abs() - bank @ spectrogram(y, window).abs()
        there += (difference.abs() + difference**2).flatten(1).mean(1) / 2
    torch.testing.assert_close(rows[:, 0], there)


def test_equal_sounds_differ_by_nothing_and_a_sign_is_not_heard():
    x = torch.randn(256, 1)
    assert made()(x, Goal(values=x)).abs().max() == 0
    assert made()(-x, Goal(values=x)).abs().max() < 1e-5


def test_the_trivial_loss_is_that_of_silence():
    x = torch.randn(512, 1)
    name, value = made().trivial(Goal(values=x))
    assert name == "silence"
    assert float(value) == pytest.approx(float(made()(torch.zeros_like(x), Goal(values=x)).mean()), rel=1e-5)


@pytest.mark.parametrize(
    "config,goal,said",
    [
        (SpectralConfig(), Spec(kind="values", width=2, length=9999), "one channel"),
        (SpectralConfig(), Spec(kind="values", width=1), "the view's vary"),
        (SpectralConfig(), GOAL, "do not fit rows of 256"),
    ],
)
def test_what_does_not_fit_is_named(config, goal, said):
    with pytest.raises(Mismatch, match=said):
        config.check(Spec(kind="vectors", width=1), goal)
