"""Sounds to patches of log-mel spectrograms."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from encdec_train.data.config import AudioDataConfig, ImageDataConfig
from encdec_train.data.example import collate
from encdec_train.data.transforms.spectrogram import SpectrogramConfig, SpectrogramTransform
from encdec_train.nn.mel import log_mel
from encdec_train.rng import Rng
from encdec_train.types import Mismatch, Plan


def make(rate=8000, seconds=0.45, **config):
    config = {"bins": 32, "patch": [8, 16], **config}
    return SpectrogramTransform(SpectrogramConfig(**config), AudioDataConfig(rate=rate, seconds=seconds))


def run(transform, *sounds):
    rows = [transform({"audio": sound}, i, Rng(0), clean=True) for i, sound in enumerate(sounds)]
    return transform.finish(collate(rows), Rng(0), clean=True)["audio"]


def noise(samples, seed=0):
    return np.random.default_rng(seed).standard_normal(samples).astype(np.float32)


def test_patches_are_windows_of_the_spectrogram():
    transform, sounds = make(mean=1.0, std=2.0), [noise(3600, seed) for seed in range(2)]
    units = run(transform, *sounds)
    assert units.values.shape == (2, 10, 128) and units.sites.grid == (5, 2) and units.sites.valid is None
    found = (log_mel(torch.from_numpy(np.stack(sounds)), 8000, 32) - 1.0) / 2.0
    assert found.shape[1] == 43  # of which whole patches use 40
    for place in range(10):
        time, pitch = divmod(place, 2)
        window = found[:, 8 * time : 8 * time + 8, 16 * pitch : 16 * pitch + 16]
        torch.testing.assert_close(units.values[:, place], window.flatten(1))
        assert units.sites.coords[0, place].tolist() == [time, pitch]
    spec = transform.specs()["audio"]
    assert (spec.width, spec.length, spec.grid, spec.coords) == (128, 10, (5, 2), 2)


def test_short_sounds_are_filled_with_zeros_after_the_logarithm():
    """As Audio-MAE fills: 0 before the mean is taken off, wherever no frame is wholly real."""
    transform = make(mean=-4.0, std=2.0, frames=56)
    short = noise(2000)  # 1 + (2000 - 200) // 80 = 23 frames
    units = run(transform, short, noise(3600))
    values = units.values[0].view(7, 2, 8, 16).transpose(1, 2).reshape(56, 32)
    alone = log_mel(torch.from_numpy(short)[None], 8000, 32)[0]
    torch.testing.assert_close(values[:23], (alone + 4.0) / 2.0)
    assert (values[23:] == 2.0).all()
    assert (units.values[1].view(7, 2, 8, 16).transpose(1, 2).reshape(56, 32)[43:] == 2.0).all()


def test_preprocess_tells_the_patches():
    told = make(frames=56).preprocess()
    assert told["kind"] == "spectrogram" and told["frames"] == 56 and told["patch"] == [8, 16] and told["rate"] == 8000


def test_a_drawing_shows_what_was_given_hidden_and_predicted():
    transform = make()
    units = run(transform, noise(3600))
    mask = torch.zeros(1, 10, dtype=torch.bool)
    mask[0, 9] = True
    plan = Plan(inputs=units, sites=units.sites, mask=mask, where=torch.tensor([9]))
    drawn = transform.draw(units, plan, units.values[0, 9:])
    sheet = np.asarray(Image.open(io.BytesIO(drawn.content)))[..., 0].astype(int)
    scale = sheet.shape[0] // 32
    given, seen, predicted = (sheet[::scale, x * scale :: scale][:, :40] for x in (0, 40 + 2, 2 * (40 + 2)))
    assert sheet.shape[1] == scale * (3 * 40 + 2 * 2)
    assert (given == predicted).all()
    assert (seen[:16, 32:] == 128).all() and (seen[16:] == given[16:]).all()  # high is up
    assert transform.draw(units, plan, units.values[0, 9:, :5]) is None


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"bins": 30}, "do not tile 40 frames of 30 bins"),
        ({"frames": 20}, "do not tile 20 frames"),
        ({"patch": [8]}, "must be frames and bins"),
        ({"std": 0.0}, "above 0"),
        ({"window": 1.0}, "do not fit sounds"),
    ],
)
def test_what_does_not_fit_is_named(config, text):
    with pytest.raises(Mismatch, match=text):
        make(**config)
    with pytest.raises(Mismatch, match="needs sounds"):
        SpectrogramTransform(SpectrogramConfig(), ImageDataConfig())
