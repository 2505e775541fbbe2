"""Log-mel filter banks against transformers' own, and in closed form."""

import numpy as np
import pytest
import torch

from encdec_train.nn.mel import log_mel, mel_filters


@pytest.mark.parametrize(("bins", "seconds"), [(128, 1.0), (40, 0.33)])
def test_equal_to_the_extractor_of_audio_spectrogram_transformers(bins, seconds):
    """Kaldi's filter banks, as that class computes them in NumPy and doubles."""
    transformers = pytest.importorskip("transformers")
    sound = np.random.default_rng(0).standard_normal(round(16000 * seconds)).astype(np.float32) * 0.1
    found = log_mel(torch.from_numpy(sound)[None], 16000, bins)[0]
    extractor = transformers.ASTFeatureExtractor(do_normalize=False, max_length=len(found), num_mel_bins=bins)
    theirs = extractor(sound, sampling_rate=16000, return_tensors="np")["input_values"][0]
    np.testing.assert_allclose(found.numpy(), theirs, atol=1e-3)


def test_triangles_add_up_to_one_between_the_first_and_the_last_peak():
    filters = mel_filters(512, 20, 8000)
    assert filters.shape == (257, 20) and (filters >= 0).all() and (filters <= 1).all()
    peaks = filters.argmax(0)
    inside = filters[peaks[0] + 1 : peaks[-1] - 1].sum(1)
    torch.testing.assert_close(inside, torch.ones_like(inside))
    assert (peaks.diff() > 0).all() and not filters[0].any() and not filters[-1].any()


def test_a_tone_is_loudest_in_its_own_filter():
    rate, hertz = 8000, 1000.0
    sound = torch.sin(2 * torch.pi * hertz * torch.arange(rate) / rate)[None]
    found = log_mel(sound, rate, 32)
    assert found.shape == (1, 98, 32)
    own = mel_filters(256, 32, rate)[round(hertz / rate * 256)].argmax()
    assert (found.argmax(-1) == own).all()


def test_silence_is_the_least_number_and_doubling_adds_log_four():
    assert torch.equal(log_mel(torch.zeros(1, 400), 8000, 16), torch.full((1, 3, 16), 2.0**-23).log())
    sound = torch.randn(2, 800)
    torch.testing.assert_close(
        log_mel(2 * sound, 8000, 16) - log_mel(sound, 8000, 16), torch.full((2, 8, 16), 4.0).log()
    )
