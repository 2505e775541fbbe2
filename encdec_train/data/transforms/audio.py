"""Sounds: decoded, brought to one rate and one length in a worker."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import torch

from encdec_train.data.columns import content_column
from encdec_train.data.config import AudioDataConfig, DataConfig
from encdec_train.data.example import Example, Row, crop_key
from encdec_train.data.transform import Drawing, Transform
from encdec_train.nn.mel import log_mel
from encdec_train.registry import transforms
from encdec_train.rng import Rng
from encdec_train.types import Mismatch, Plan, Spec, Units

BINS = 64  # of the spectrograms that people see


@dataclass(kw_only=True)
class WaveformConfig:
    normalize: bool = True  # each example to zero mean and unit variance over its real samples


@transforms.register("waveform", WaveformConfig)
class WaveformTransform(Transform):
    """view `audio`: rate * seconds samples of one channel; the longer is cut anywhere, the shorter padded."""

    config: WaveformConfig
    data: AudioDataConfig

    def __init__(self, config: WaveformConfig, data: DataConfig) -> None:
        if not isinstance(data, AudioDataConfig):
            raise Mismatch(f"transform 'waveform' needs sounds, data gives {type(data).__name__}")
        if data.rate < 1 or data.seconds <= 0:
            raise Mismatch(f"data: rate {data.rate} and seconds {data.seconds} must be above 0")
        super().__init__(config, data)
        self.length = round(data.rate * data.seconds)

    def specs(self) -> dict[str, Spec]:
        return {"audio": Spec(kind="values", width=1, length=self.length)}

    def items(self, rows: Sequence[dict[str, Any]], *, clean: bool) -> Sequence[Any]:
        """The rows, with the column that holds sounds under the name `audio`."""
        from datasets import Dataset

        if not isinstance(rows, Dataset):
            return rows
        column = content_column(rows, self.data.column, ("audio",))
        if column == "audio":
            return rows
        other = [name for name in rows.features if name == "audio"]
        return rows.remove_columns(other).rename_column(column, "audio")

    def __call__(self, item: Any, sample: int, rng: Rng, *, clean: bool) -> Row:
        sound = decode(item["audio"], self.data.rate)
        spare = len(sound) - self.length
        if spare > 0:
            start = spare // 2 if clean else int(rng.integers("waveform.crop", spare + 1, sample))
            sound = sound[start : start + self.length]
        if self.config.normalize:
            sound = normalize(sound)
        values = torch.zeros(self.length, 1)
        values[: len(sound), 0] = torch.from_numpy(sound)
        valid = None if spare >= 0 else torch.arange(self.length) < len(sound)
        return {"audio": Example(values=values, sample=crop_key(sample, 0), valid=valid)}

    def show(self, units: Units, plan: Plan) -> Drawing | None:
        """Spectrograms, the loudest white, and what is left of them where frames are hidden."""
        from encdec_train.data.pictures import panels_png, shades

        found = log_mel(units.values[..., 0].float().cpu(), self.data.rate, BINS)  # (B,frames,bins)
        whole = (found - found.amin()) / (found.amax() - found.amin()).clamp_min(1e-6)
        whole = whole.transpose(1, 2).flip(1)[..., None]  # (B,bins,frames,1)
        shade = shades(plan)
        if shade is None:
            return Drawing("png", panels_png(whole))
        place = torch.arange(found.shape[1]) * shade.shape[1] // found.shape[1]  # the site under each frame
        over = shade[:, place].transpose(1, 2)[..., None]  # (B,1,frames,1)
        return Drawing("png", panels_png(whole, torch.where(over.isnan(), whole, over)))

    def preprocess(self) -> dict[str, Any]:
        return {
            "kind": "audio",
            "rate": self.data.rate,
            "samples": self.length,
            "channels": 1,
            "normalize": self.config.normalize,
        }


def decode(source: Any, rate: int) -> np.ndarray:
    """A sound's encoded bytes or path, `datasets`' record of it, or samples at `rate` -> float32 (N,).

    Raises:
        ValueError: it cannot be read or is empty; names the file where there is one.
    """
    name, sound, own_rate = read(source, rate)
    if sound.ndim == 2:
        sound = sound.mean(1)
    if sound.ndim != 1 or not len(sound):
        raise ValueError(f"{name}: holds no samples, its shape is {sound.shape}")
    if not np.isfinite(sound).all():
        raise ValueError(f"{name}: holds samples that are not finite")
    return resample(sound.astype(np.float32, copy=False), own_rate, rate)


def read(source: Any, rate: int) -> tuple[str, np.ndarray, int]:
    """A name for messages, (N,) or (N,channels) samples, and their rate."""
    if isinstance(source, np.ndarray | list | tuple):
        return "sound", np.asarray(source, dtype=np.float32), rate
    if isinstance(source, dict) and source.get("array") is not None:
        name = str(source.get("path") or "sound")
        return name, np.asarray(source["array"], dtype=np.float32), int(source.get("sampling_rate") or rate)
    if isinstance(source, dict):
        name = str(source.get("path") or "sound")
        return name, *read_file(name, source["path"] if source.get("bytes") is None else source["bytes"])
    name = "sound" if isinstance(source, bytes) else str(source)
    return name, *read_file(name, source)


def read_file(name: str, source: bytes | str | None) -> tuple[np.ndarray, int]:
    """Samples (N,channels) and rate of an encoded sound, given as bytes or as a path."""
    import soundfile

    if source is None:
        raise ValueError(f"{name}: holds neither bytes nor a path")
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise ValueError(f"{name}: there is no such file")
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        return soundfile.read(file, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{name}: not a readable sound ({error.error_string})") from error


def resample(sound: np.ndarray, own_rate: int, rate: int) -> np.ndarray:
    """(N,) at `own_rate` -> (N * rate / own_rate,) by a polyphase filter."""
    if own_rate == rate:
        return sound
    from scipy.signal import resample_poly

    common = gcd(own_rate, rate)
    return resample_poly(sound, rate // common, own_rate // common).astype(np.float32)


def normalize(sound: np.ndarray) -> np.ndarray:
    """Zero mean and unit variance; silence stays silent. The constant is that of the published models."""
    centred = sound - sound.mean()
    return (centred / np.sqrt(centred.var() + 1e-7)).astype(np.float32)
