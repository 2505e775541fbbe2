"""Frames against torch's convolutions, and what each of them sees."""

import pytest
import torch
from torch import nn

from encdec_train.embedders.frames import Frames, FramesEmbedderConfig
from encdec_train.types import Mismatch, Plan, Sites, Spec, Units

SMALL = FramesEmbedderConfig(channels=[6, 8], kernels=[10, 4], strides=[5, 4])  # sees 25 samples, one every 20


def units(samples=105):
    place = torch.arange(samples).expand(2, -1)
    return Units(values=torch.randn(2, samples, 1), sites=Sites(sample=place, place=place))


def make(given, config=SMALL, mask=False):
    return Frames(config, Spec(kind="values", width=1, length=given.sites.n), mask=mask)


def test_they_are_rectified_convolutions():
    given = units()
    part = make(given)
    stack = nn.Sequential(part.convolutions[0], nn.ReLU(), part.convolutions[1], nn.ReLU())
    x = part.features(given, part.sites(given), None)
    assert x.shape == (2, 5, 8)
    torch.testing.assert_close(x, stack(given.values.transpose(1, 2)).transpose(1, 2))


def test_a_frame_depends_on_its_own_samples_only():
    given = units()
    part = make(given)
    other = given.values.clone()
    other[:, 45:] += 1  # frames 0 and 1 see samples 0 to 44
    changed = Units(values=other, sites=given.sites)
    one, two = (part.features(u, part.sites(u), None) for u in (given, changed))
    assert torch.equal(one[:, :2], two[:, :2]) and not torch.equal(one[:, 2:], two[:, 2:])


def test_published_numbers():
    config = FramesEmbedderConfig()
    assert config.receptive() == 465 and config.frames(465 + 160) == 2
    with torch.device("meta"):
        part = Frames(config, Spec(kind="values", width=1, length=20480), mask=False)
    assert sum(p.numel() for p in part.parameters()) == 10 * 512 + (8 + 4 + 4 + 4) * 512**2 + 5 * 512


def test_hidden_frames_get_the_mask_vector():
    given = units()
    part = make(given, mask=True)
    sites = part.sites(given)
    hidden = torch.arange(5).expand(2, -1) == 3
    x = part.place(part.features(given, sites, None), Plan(inputs=given, sites=sites, replace=hidden)).x
    assert torch.equal(x[hidden], part.mask.vector.expand(2, -1))


def test_what_does_not_fit_is_named():
    with pytest.raises(Mismatch, match="one channel"):
        SMALL.spec(Spec(kind="values", width=2))
    with pytest.raises(Mismatch, match="sees 25 samples"):
        SMALL.spec(Spec(kind="values", width=1, length=24))
    given = units()
    part = make(given)
    with pytest.raises(Mismatch, match="replaces, not drops"):
        part.features(given, part.sites(given), torch.zeros(2, 1, dtype=torch.int64))
