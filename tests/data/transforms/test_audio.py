"""Sounds of every kind to fixed examples."""

import io

import numpy as np
import pytest
import soundfile
import torch
from datasets import Audio, Dataset

from encdec_train.data.config import AudioDataConfig, ImageDataConfig
from encdec_train.data.example import collate
from encdec_train.data.transforms.audio import WaveformConfig, WaveformTransform, decode
from encdec_train.rng import Rng
from encdec_train.types import Mismatch


def tone(rate, seconds, hz=100.0):
    return np.sin(2 * np.pi * hz * np.arange(round(rate * seconds)) / rate).astype(np.float32) * 0.5


def encoded(sound, rate, subtype="FLOAT"):
    file = io.BytesIO()
    soundfile.write(file, sound, rate, format="WAV", subtype=subtype)
    return file.getvalue()


def make(rate=8000, seconds=0.5, **config):
    return WaveformTransform(WaveformConfig(**config), AudioDataConfig(rate=rate, seconds=seconds))


def run(transform, source, sample=0, step=0, clean=False):
    return transform({"audio": source}, sample, Rng(0, step), clean=clean)["audio"]


def test_a_wav_file_comes_back_bit_for_bit(tmp_path):
    sound = tone(8000, 0.5)
    data = encoded(sound, 8000)
    (tmp_path / "a.wav").write_bytes(data)
    path = str(tmp_path / "a.wav")
    records = [{"bytes": data, "path": "a.wav"}, {"bytes": None, "path": path}]
    for source in (data, path, sound, list(sound), *records, {"array": sound, "sampling_rate": 8000}):
        assert np.array_equal(decode(source, 8000), sound)
    quantised = decode(encoded(sound, 8000, "PCM_16"), 8000)
    assert np.abs(quantised - sound).max() < 2.0**-15


def test_channels_are_mixed_and_rates_brought_together():
    stereo = np.stack([tone(16000, 1.0), np.zeros(16000, np.float32)], axis=1)
    found = decode(encoded(stereo, 16000), 8000)
    assert found.shape == (8000,) and found.dtype == np.float32
    middle = slice(200, -200)
    assert np.abs(found - tone(8000, 1.0) / 2)[middle].max() < 1e-3


def test_zero_mean_and_unit_variance_over_real_samples():
    transform = make()
    short, long = run(transform, tone(8000, 0.3) + 0.2), run(transform, tone(8000, 0.9) + 0.2)
    for example, count in ((short, 2400), (long, 4000)):
        assert example.values.shape == (4000, 1)
        real = example.values[:count, 0]
        assert abs(real.mean()) < 1e-5 and real.var(unbiased=False) == pytest.approx(1.0, abs=1e-4)
        assert not example.values[count:].any()
    assert long.valid is None and short.valid.sum() == 2400 and short.valid[:2400].all()
    assert run(make(normalize=False), tone(8000, 0.5)).values.max() == pytest.approx(0.5, abs=1e-3)
    assert not run(transform, np.zeros(4000, np.float32)).values.any()


def test_the_collate_says_what_is_padding():
    transform = make()
    rows = [{"audio": run(transform, tone(8000, s))} for s in (0.3, 0.5, 0.7)]
    units = collate(rows)["audio"]
    assert units.values.shape == (3, 4000, 1)
    assert units.sites.valid.sum(1).tolist() == [2400, 4000, 4000]
    assert collate(rows[1:])["audio"].sites.valid is None


def test_a_crop_is_keyed_by_sample_and_step():
    transform, sound = make(normalize=False), np.arange(8000, dtype=np.float32)
    starts = {
        (sample, step): run(transform, sound, sample, step).values[0].item()
        for sample in range(40)
        for step in range(2)
    }
    assert starts[7, 1] == run(transform, sound, 7, 1).values[0].item()
    assert len(set(starts.values())) > 70 and min(starts.values()) >= 0 and max(starts.values()) <= 4000
    assert torch.equal(run(transform, sound, clean=True).values[:, 0], torch.arange(2000.0, 6000.0))


def test_the_column_with_sounds_is_found():
    """Whatever it is called; and a column that is asked for wins."""
    clip = {"bytes": encoded(tone(8000, 0.5), 8000), "path": "a.wav"}
    rows = Dataset.from_dict({"audio": ["no"], "word": [clip], "other": [clip], "label": [3]})
    for name in ("word", "other"):
        rows = rows.cast_column(name, Audio(decode=False))
    item = make().items(rows, clean=True)[0]
    assert make()(item, 0, Rng(0), clean=True)["audio"].values.shape == (4000, 1) and item["label"] == 3
    chosen = WaveformTransform(WaveformConfig(), AudioDataConfig(column="other"))
    assert "word" in chosen.items(rows, clean=True)[0]
    with pytest.raises(ValueError, match="no column 'sounds'"):
        WaveformTransform(WaveformConfig(), AudioDataConfig(column="sounds")).items(rows, clean=True)


@pytest.mark.parametrize(
    "source, text",
    [
        ({"bytes": b"no sound", "path": "folder/broken.wav"}, "folder/broken.wav: not a readable sound"),
        ("missing.wav", "missing.wav: there is no such file"),
        ({"bytes": None, "path": None}, "sound: holds neither bytes nor a path"),
        (
            {"bytes": encoded(np.zeros(0, np.float32), 8000), "path": "empty.wav"},
            "empty.wav: holds no samples",
        ),
        (
            {"bytes": encoded(np.full(9, np.nan, np.float32), 8000), "path": "nan.wav"},
            "nan.wav: .*not finite",
        ),
    ],
)
def test_what_cannot_be_read_is_named(source, text):
    with pytest.raises(ValueError, match=text):
        decode(source, 8000)


def test_what_does_not_fit_is_named():
    with pytest.raises(Mismatch, match="needs sounds, data gives ImageDataConfig"):
        WaveformTransform(WaveformConfig(), ImageDataConfig())
    with pytest.raises(Mismatch, match="rate 0"):
        make(rate=0)
