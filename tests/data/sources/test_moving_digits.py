"""Digits that drift: repeatable, really moving as their label says, and telling nothing in single frames."""

import io

import numpy as np
import pytest

from encdec_train.data.sources.moving_digits import DIRECTIONS, MovingDigits, MovingDigitsConfig
from encdec_train.types import Mismatch

SMALL = MovingDigitsConfig(clips=200)


def clips(rows):
    return np.stack([np.load(io.BytesIO(clip)) for clip in rows["video"][:]])


def test_the_same_seed_makes_the_same_rows_and_a_limit_cuts_them():
    first, again = MovingDigits(SMALL)("train"), MovingDigits(SMALL)("train")
    assert first["video"][:] == again["video"][:] and first["label"][:] == again["label"][:]
    assert len(first) == 200 and len(MovingDigits(SMALL)("test")) == 50
    few = MovingDigits(MovingDigitsConfig(clips=200, limit=10))("train")
    assert few["video"][:] == first["video"][:10]
    assert MovingDigits(MovingDigitsConfig(clips=200, seed=1))("train")["label"][:] != first["label"][:]


@pytest.mark.parametrize("hold", [1, 2])
def test_every_clip_moves_as_its_label_says(hold):
    config = MovingDigitsConfig(clips=40, hold=hold)
    rows = MovingDigits(config)("train")
    for clip, label in zip(clips(rows), rows["label"][:], strict=True):
        assert clip.shape == (8, 16, 16, 1) and clip.dtype == np.uint8
        down, right = list(DIRECTIONS.values())[label]
        moves = [
            speed
            for speed in range(config.slowest, config.fastest + 1)
            if all(
                np.array_equal(np.roll(clip[t - hold], (speed * down, speed * right), (0, 1)), clip[t])
                for t in range(hold, 8)
            )
        ]
        assert len(moves) == 1
        assert all(np.array_equal(clip[t], clip[t - 1]) == (t % hold > 0) for t in range(1, 8))


def test_digits_are_those_of_the_pictures_and_the_splits_share_none():
    from sklearn.datasets import load_digits

    images = (load_digits().images * (255 / 16)).round().astype(np.uint8)
    known = {image.tobytes(): i for i, image in enumerate(images)}
    for split, own in (("train", {0, 1, 2, 3}), ("test", {4})):
        rows = MovingDigits(SMALL)(split)
        for clip in clips(rows)[:20, 0, :, :, 0]:
            found = [
                known[moved.tobytes()] % 5
                for y in range(16)
                for x in range(16)
                if (moved := np.roll(clip, (-y, -x), (0, 1))[:8, :8].copy()).tobytes() in known
            ]
            assert set(found) & own


def test_where_a_digit_starts_says_nothing_of_its_direction():
    source = MovingDigits(MovingDigitsConfig(clips=4000))
    rows = source("train")
    labels, mass = np.array(rows["label"][:]), clips(rows)[:, 0, :, :, 0].astype(float)
    means = np.stack([mass[labels == label].mean(0) for label in range(len(DIRECTIONS))])
    counts = np.bincount(labels)
    assert counts.min() > 400
    spread = mass.std() / np.sqrt(counts.min())
    assert np.abs(means - mass.mean(0)).max() < 5 * spread


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"zoom": 3}, "do not fit frames"),
        ({"fastest": 8}, "half of the size"),
        ({"slowest": 0}, "speeds from 0"),
        ({"channels": 3}, "at least 4 of 1 channel"),
        ({"hold": 0}, "held for 0"),
    ],
)
def test_out_of_range(config, text):
    with pytest.raises(Mismatch, match=text):
        MovingDigits(MovingDigitsConfig(**config))
