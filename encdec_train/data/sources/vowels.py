"""Synthesised words of vowels, spoken by many voices: speech data that needs no download.

Source and filter (Fant 1960): a train of glottal pulses and some breath pass three resonators in a row
(Klatt 1980) whose formants glide from vowel to vowel. A voice has a pitch and a length of vocal tract,
which scales all formants; the vowels' own are near the means of men in Peterson and Barney (1952).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np
import torch

from encdec_train.data.config import AudioDataConfig
from encdec_train.registry import sources
from encdec_train.rng import Rng
from encdec_train.types import Mismatch

if TYPE_CHECKING:
    from datasets import Dataset

FORMANTS = {  # Hz
    "i": (270, 2290, 3010),
    "e": (530, 1840, 2480),
    "a": (730, 1090, 2440),
    "o": (570, 840, 2410),
    "u": (300, 870, 2240),
}
BANDWIDTHS = (60.0, 90.0, 150.0)  # Hz
# Words of the same vowels differ in their order alone: no average of local features tells them apart.
WORDS = [a + b + c for a, b, c in permutations("aiu", 3)] + [a + b + c for a, b, c in permutations("eoa", 3)]
FRAME = 0.005  # seconds for which the resonators stand still


@dataclass(kw_only=True)
class VowelsConfig(AudioDataConfig):
    rate: int = 8000
    seconds: float = 1.0
    seed: int = 0  # of the voices and of what they say
    clips: int = 2000  # in the training split; a fifth of that in the test split
    voices: int = 40  # in the training split; as many others in the test split
    noise: float = 0.1  # of a clip's deviation, at most, of white noise


@sources.register("vowels", VowelsConfig)
class Vowels:
    """Rows {audio: a wav file, label: which of the words, speaker}; the voices of the two splits differ."""

    def __init__(self, config: VowelsConfig) -> None:
        if config.clips < 5 or config.voices < 1:
            raise Mismatch(f"data 'vowels': {config.clips} clips of {config.voices} voices; at least 5 of 1 are needed")
        if config.rate < 7000:
            raise Mismatch(f"data 'vowels'.rate: {config.rate} is too low for formants up to 3500 Hz")
        self.config = config

    def __call__(self, split: str) -> Dataset:
        from datasets import Audio, ClassLabel, Dataset, Features, Value

        clips = self.config.clips
        clips = clips // 5 if split == "test" else min(clips, self.config.limit or clips)
        rng = Rng(self.config.seed, int(split == "test"))
        clip = torch.arange(clips)
        voice = rng.integers("vowels.voice", self.config.voices, clip)
        word = rng.integers("vowels.word", len(WORDS), clip)
        sounds = synthesise(self.config, rng, voice.numpy(), word.numpy())
        rows = {
            "audio": [wav(sound, self.config.rate) for sound in sounds],
            "label": word.tolist(),
            "speaker": voice.tolist(),
        }
        features = {"audio": Value("binary"), "label": ClassLabel(names=WORDS), "speaker": Value("int64")}
        found = Dataset.from_dict(rows, features=Features(features))
        return found.cast_column("audio", Audio(sampling_rate=self.config.rate, decode=False))


def synthesise(config: VowelsConfig, rng: Rng, voice: np.ndarray, word: np.ndarray) -> np.ndarray:
    """float32 (clips, rate * seconds): one word in each clip."""
    time = np.arange(0, config.seconds, FRAME)  # (F,)
    draw = Draw(rng, len(voice))
    bounds = vowel_bounds(draw, config.seconds)  # (clips,4): start of each vowel, and the end
    loudness = np.clip(np.minimum(time - bounds[:, :1], bounds[:, 3:] - time) / 0.04, 0, 1)  # (clips,F)
    for join in (1, 2):  # vowels are parted by a dip
        loudness = loudness * (1 - 0.6 * np.exp(-(((time - bounds[:, join : join + 1]) / 0.02) ** 2)))
    hop = round(config.rate * FRAME)
    length = round(config.rate * config.seconds)
    source = excitation(draw, voice, time, hop, config.rate)
    source *= np.repeat(loudness, hop, axis=1)
    sound = resonate(source, formant_tracks(draw, voice, word, bounds, time), hop, config.rate)[:, :length]
    sound = sound / sound.std(axis=1, keepdims=True)
    sound += draw("noise")[:, None] * config.noise * draw.noise("white", sound.shape[1])
    peak = np.abs(sound).max(axis=1, keepdims=True)
    return (sound / peak * (0.2 + 0.7 * draw("level"))[:, None]).astype(np.float32)


class Draw:
    """Uniform numbers by name: one for each clip, or for each clip by its voice."""

    def __init__(self, rng: Rng, clips: int) -> None:
        self.rng, self.clip = rng, torch.arange(clips)

    def __call__(self, tag: str, by: np.ndarray | None = None) -> np.ndarray:
        """(clips,) in [0, 1)."""
        key = self.clip if by is None else torch.from_numpy(by)
        return self.rng.uniform(f"vowels.{tag}", key).double().numpy()

    def noise(self, tag: str, length: int) -> np.ndarray:
        """(clips,length) normal: windows of one long noise, each from a place of its own."""
        spare = 1 << 16
        long = self.rng.normal(f"vowels.{tag}", torch.arange(spare + length)).numpy()
        start = (self(tag + ".start") * spare).astype(int)
        return np.lib.stride_tricks.sliding_window_view(long, length)[start]


def vowel_bounds(draw: Draw, seconds: float) -> np.ndarray:
    """(clips,4) seconds: three vowels of unlike lengths fill six to eight tenths of a clip."""
    share = np.stack([0.7 + 0.6 * draw(f"length.{i}") for i in range(3)], axis=1)
    total = (0.6 + 0.2 * draw("total")) * seconds
    start = draw("start") * (seconds - total)
    ends = np.cumsum(share, axis=1) / share.sum(axis=1, keepdims=True) * total[:, None]
    return start[:, None] + np.concatenate([np.zeros((len(start), 1)), ends], axis=1)


def formant_tracks(draw: Draw, voice: np.ndarray, word: np.ndarray, bounds: np.ndarray, time: np.ndarray) -> np.ndarray:
    """(clips,F,3) Hz: from vowel to vowel in 40 ms, scaled by the vocal tract, each a little off its mean."""
    table = np.array([[FORMANTS[vowel] for vowel in name] for name in WORDS], dtype=float)  # (words,3,3)
    goal = table[word]  # (clips,3 vowels,3 formants)
    for vowel in range(3):
        for formant in range(3):
            goal[:, vowel, formant] *= 0.95 + 0.1 * draw(f"target.{vowel}.{formant}")
    track = np.repeat(goal[:, None, 0], len(time), axis=1)
    for join in (1, 2):
        glide = 1 / (1 + np.exp(-(time - bounds[:, join : join + 1]) / 0.01))  # (clips,F)
        track = track + glide[..., None] * (goal[:, join] - goal[:, join - 1])[:, None]
    return track * (0.9 + 0.3 * draw("tract", voice))[:, None, None]


def excitation(draw: Draw, voice: np.ndarray, time: np.ndarray, hop: int, rate: int) -> np.ndarray:
    """(clips,F*hop): pulses at a falling and wavering pitch, smoothed to the slope of a voice, and breath."""
    base = 90.0 * 2 ** (1.6 * draw("pitch", voice) + 0.3 * (draw("mood") - 0.5))
    fall = -0.4 * draw("fall")[:, None] * time / time[-1]
    waver = 0.05 * np.sin(2 * np.pi * ((3 + 3 * draw("waver"))[:, None] * time + draw("phase")[:, None]))
    pitch = np.repeat(base[:, None] * 2 ** (fall + waver), hop, axis=1)  # (clips,F*hop) Hz
    turns = np.floor(np.cumsum(pitch / rate, axis=1))
    pulses = np.diff(turns, axis=1, prepend=0) * np.sqrt(rate / pitch)  # equal power at any pitch
    return pulses + 0.1 * draw.noise("breath", pitch.shape[1])


def resonate(source: np.ndarray, formants: np.ndarray, hop: int, rate: int) -> np.ndarray:
    """(clips,T): `source` through one resonator after another; `formants` (clips,F,3) hold for `hop` samples.

    y[t] = a x[t] + b y[t-1] + c y[t-2] for all clips at once.
    """
    sound = np.ascontiguousarray(source.T, dtype=np.float32)  # (T,clips)
    for formant, width in enumerate(BANDWIDTHS):
        radius = np.exp(-np.pi * width / rate)
        b = (2 * radius * np.cos(2 * np.pi * formants[..., formant] / rate)).T.astype(np.float32)  # (F,clips)
        c = np.float32(-(radius**2))
        last = before = np.zeros_like(sound[0])
        for t in range(len(sound)):
            gain = 1 - b[t // hop] - c
            last, before = gain * sound[t] + b[t // hop] * last + c * before, last
            sound[t] = last
    return sound.T


def wav(sound: np.ndarray, rate: int) -> bytes:
    """(N,) in [-1, 1] -> a 16-bit wav file."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, sound, rate, format="WAV", subtype="PCM_16")
    return file.getvalue()
