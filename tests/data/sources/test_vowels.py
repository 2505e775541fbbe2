"""The synthesised vowels: repeatable, of unlike voices, and really those vowels."""

import numpy as np
import pytest
from scipy.signal import freqz

from encdec_train.data.sources.vowels import BANDWIDTHS, FORMANTS, WORDS, Vowels, VowelsConfig, resonate
from encdec_train.data.transforms.audio import decode
from encdec_train.types import Mismatch

SMALL = VowelsConfig(clips=40, voices=4)


def test_the_same_seed_makes_the_same_rows():
    first, again = Vowels(SMALL)("train"), Vowels(SMALL)("train")
    assert first["audio"][:] == again["audio"][:] and first["label"][:] == again["label"][:]
    assert first["audio"][:8] != Vowels(SMALL)("test")["audio"][:]
    assert first["audio"][:] != Vowels(VowelsConfig(clips=40, voices=4, seed=1))("train")["audio"][:]


def test_a_clip_does_not_depend_on_how_many_there_are():
    few, many = Vowels(SMALL)("train"), Vowels(VowelsConfig(clips=80, voices=4))("train")
    assert few["audio"][:] == many["audio"][:40]
    limited = Vowels(VowelsConfig(clips=40, voices=4, limit=10))
    assert limited("train")["audio"][:] == few["audio"][:10] and len(limited("test")) == 8


def test_rows_are_what_the_configuration_says():
    rows = Vowels(SMALL)("train")
    assert len(rows) == 40 and len(Vowels(SMALL)("test")) == 8
    assert set(rows["speaker"]) == {0, 1, 2, 3} and set(rows["label"]) <= set(range(len(WORDS)))
    for clip in rows["audio"][:5]:
        sound = decode(clip, SMALL.rate)
        assert sound.shape == (8000,) and 0.15 < np.abs(sound).max() < 0.95


@pytest.mark.parametrize("vowel", sorted(FORMANTS))
def test_the_resonators_stand_at_the_formants(vowel):
    """The response to one pulse is that of three two-pole filters in a row."""
    rate, hop = 8000, 40
    pulse = np.zeros((1, 4000))
    pulse[0, 0] = 1.0
    found = resonate(pulse, np.broadcast_to(np.array(FORMANTS[vowel], float), (1, 100, 3)), hop, rate)[0]
    expected = np.ones(2001, complex)
    for hz, width in zip(FORMANTS[vowel], BANDWIDTHS, strict=True):
        radius = np.exp(-np.pi * width / rate)
        poles = [1.0, -2 * radius * np.cos(2 * np.pi * hz / rate), radius**2]
        expected *= freqz([sum(poles)], poles, worN=2 * np.pi * np.arange(2001) / 4000)[1]
    np.testing.assert_allclose(np.abs(np.fft.rfft(found)), np.abs(expected), rtol=2e-3, atol=2e-3)


def test_out_of_range():
    with pytest.raises(Mismatch, match="at least 5 of 1"):
        Vowels(VowelsConfig(clips=2))
    with pytest.raises(Mismatch, match="too low"):
        Vowels(VowelsConfig(rate=4000))
