"""Clips of every kind to tubelets."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from encdec_train.data.config import ImageDataConfig, VideoDataConfig
from encdec_train.data.example import collate
from encdec_train.data.sources.moving_digits import npy
from encdec_train.data.transforms.video import VideoConfig, VideoTransform, decode
from encdec_train.rng import Rng
from encdec_train.types import Mismatch, Plan


def clip(frames=6, size=8, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (frames, size, size, channels), dtype=np.uint8)


def make(frames=6, stride=1, channels=3, tubelet=2, **data):
    data = {"size": 8, "patch": 4, "mean": [0.5] * channels, "std": [0.25] * channels, **data}
    return VideoTransform(
        VideoConfig(tubelet=tubelet), VideoDataConfig(frames=frames, stride=stride, channels=channels, **data)
    )


def run(transform, *clips, clean=True, sample=0, step=0):
    rows = [transform({"video": c}, sample + i, Rng(0, step), clean=clean) for i, c in enumerate(clips)]
    return transform.finish(collate(rows), Rng(0), clean=clean)["video"]


def saved(array, kind):
    file = io.BytesIO()
    first, *rest = [Image.fromarray(frame.squeeze()) for frame in array]
    first.save(file, format=kind, save_all=True, append_images=rest, lossless=True)
    return file.getvalue()


def test_tubelets_are_windows_of_the_normalised_clip():
    transform, clips = make(), [clip(seed=i) for i in range(2)]
    units = run(transform, *clips)
    assert units.values.shape == (2, 12, 2 * 4 * 4 * 3) and units.sites.grid == (3, 2, 2)
    values = (np.stack(clips) / 255.0 - 0.5) / 0.25
    for place in range(12):
        t, y, x = place // 4, place // 2 % 2, place % 2
        window = values[:, 2 * t : 2 * t + 2, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4]
        np.testing.assert_allclose(units.values[:, place], window.reshape(2, -1), atol=1e-5)
        assert units.sites.coords[0, place].tolist() == [t, y, x]
    spec = transform.specs()["video"]
    assert (spec.width, spec.length, spec.coords, spec.grid) == (96, 12, 3, (3, 2, 2))


def test_an_array_a_file_and_its_record_hold_the_same_clip(tmp_path):
    given = clip()
    (tmp_path / "a.npy").write_bytes(npy(given))
    tiff = saved(given, "TIFF")
    for source in (given, given.tolist(), npy(given), str(tmp_path / "a.npy"), {"bytes": tiff, "path": "a.tiff"}):
        assert np.array_equal(decode(source), given)
    grey = clip(channels=1)
    assert np.array_equal(decode(saved(grey, "TIFF"))[..., :1], grey)
    assert decode(saved(given, "WEBP")).shape == given.shape


def test_frames_are_strided_from_the_middle_or_from_anywhere():
    transform = make(frames=2, stride=3, channels=1, tubelet=1)
    count = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 1), np.uint8)

    def shown(units):
        return ((units.values.view(2, -1)[:, 0] * 0.25 + 0.5) * 255).round().int().tolist()

    assert shown(run(transform, count)) == [3, 6]
    starts = [shown(run(transform, count, clean=False, sample=s)) for s in range(60)]
    assert {a for a, _ in starts} == set(range(7)) and all(b - a == 3 for a, b in starts)
    assert shown(run(transform, count, clean=False, sample=5)) == starts[5]
    assert shown(run(transform, count[:2])) == [0, 1]  # a short clip stands still at its end


def test_frames_are_brought_to_size():
    units = run(make(channels=1, mean=[0.0], std=[1.0]), np.full((6, 20, 31, 3), 255, np.uint8))
    assert units.values.shape == (1, 12, 32) and torch.equal(units.values, torch.ones(1, 12, 32))


def test_a_drawing_lays_the_frames_side_by_side():
    transform, given = make(), clip()
    units = run(transform, given)
    mask = torch.zeros(1, 12, dtype=torch.bool)
    mask[0, [1, 5, 9]] = True  # upper right, in all frames
    keep = torch.tensor([[0, 2, 3, 4, 6, 7, 8, 10, 11]])
    where = torch.tensor([1, 5])  # the third is hidden and not predicted
    plan = Plan(inputs=units, sites=units.sites, mask=mask, keep=keep, where=where)
    sheet = np.asarray(Image.open(io.BytesIO(transform.draw(units, plan, units.values[0, [1, 5]]).content)))
    scale, gap = 12, round(0.06 * 96)
    wide = 24 * scale + gap
    first, seen, last = (sheet[::scale, x : x + 24 * scale : scale, :3] for x in (0, wide, 2 * wide))
    frames = np.concatenate(list(given[::2]), axis=1)
    assert (np.abs(first.astype(int) - frames) <= 1).all()
    for t in range(3):
        assert (seen[:4, 8 * t + 4 : 8 * t + 8] == 128).all()
    assert (np.abs(last[:, :20].astype(int) - frames[:, :20]) <= 1).all() and (last[:4, 20:] == 128).all()


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("missing.mp4", "missing.mp4: there is no such file"),
        ({"bytes": None, "path": None}, "there is no such file"),
        (np.zeros((2, 3)), "is float64 of shape"),
    ],
)
def test_what_cannot_be_read_is_named(source, text):
    with pytest.raises(ValueError, match=text):
        decode(source)


def test_other_containers_need_a_reader():
    with pytest.raises(ValueError, match=r"folder/a.mp4: (no moving picture|not a readable clip)"):
        decode({"bytes": b"\x00\x00\x00\x18ftypmp42" + bytes(64), "path": "folder/a.mp4"})


def test_what_does_not_fit_is_named():
    with pytest.raises(Mismatch, match="needs clips, data gives ImageDataConfig"):
        VideoTransform(VideoConfig(), ImageDataConfig())
    with pytest.raises(Mismatch, match="tubelets of 4 x 4 x 4 do not tile clips of 6 x 8 x 8"):
        make(tubelet=4)
