import pytest
import torch

from encdec_train.data.augment import AugmentConfig, augment
from encdec_train.data.config import ImageDataConfig
from encdec_train.data.example import collate, crop_key, crop_keys
from encdec_train.data.transforms.image import ImageConfig, ImageTransform, decode
from encdec_train.rng import Rng
from encdec_train.types import Mismatch

DATA = ImageDataConfig(size=8, mean=[0.5, 0.4, 0.3], std=[0.2, 0.3, 0.4])
CROPS = AugmentConfig(crops=3, scale_min=0.3)
RNG = Rng(0, torch.tensor(4))


def transform(**changes):
    return ImageTransform(ImageConfig(patch=1, augment=CROPS, **changes), DATA)


def pictures(count=4, side=8):
    return torch.randint(0, 256, (count, side, side, 3), generator=torch.Generator().manual_seed(0)).byte()


def batch(made, images, clean=False, first=0):
    rows = [made({"image": x.numpy()}, first + i, RNG, clean=clean) for i, x in enumerate(images)]
    return made.finish(collate(rows), RNG, clean=clean)["image"]


def test_crops_are_rows_crop_major_with_keys_of_their_own():
    made, images = transform(), pictures()
    units = batch(made, images)
    spec = made.specs()["image"]
    assert units.crops == spec.crops == 3
    assert units.values.shape == (12, spec.length, spec.width) == (12, 64, 3)
    assert units.sites.grid == spec.grid == (8, 8)
    keys = [crop_key(sample, crop) for crop in range(3) for sample in range(4)]
    assert units.sites.sample[:, 0].tolist() == keys
    floats = images.permute(0, 3, 1, 2).float() / 255
    expected = augment(floats.repeat(3, 1, 1, 1), torch.tensor(keys), RNG, CROPS, 8)
    found = units.values.transpose(1, 2).unflatten(2, (8, 8))
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (DATA.mean, DATA.std))
    torch.testing.assert_close(found * std + mean, expected, atol=1e-6, rtol=0)


def test_a_sample_is_cut_alike_in_any_batch():
    made, images = transform(), pictures()
    together, alone = batch(made, images), batch(made, images[2:3], first=2)
    torch.testing.assert_close(together.values[2::4], alone.values, atol=1e-6, rtol=0)


def test_clean_pictures_are_not_augmented():
    units = batch(transform(), pictures(), clean=True)
    assert units.crops == 1
    found = units.values * torch.tensor(DATA.std) + torch.tensor(DATA.mean)
    torch.testing.assert_close(found.unflatten(1, (8, 8)), pictures().float() / 255, atol=1e-6, rtol=0)


def test_crops_are_cut_from_a_larger_square_where_one_is_asked_for():
    config = AugmentConfig(crops=2, source=16)
    made = ImageTransform(ImageConfig(patch=2, augment=config), DATA)
    row = made({"image": pictures(1, 16)[0].numpy()}, 0, RNG, clean=False)
    assert row["image"].grid == (16, 16, 3)
    assert made({"image": pictures(1, 16)[0].numpy()}, 0, RNG, clean=True)["image"].grid == (8, 8, 3)
    assert made.finish(collate([row]), RNG, clean=False)["image"].values.shape == (2, 16, 12)


def test_further_views_are_other_versions_of_the_same_pictures():
    local = AugmentConfig(crops=2, size=4, scale_min=0.1, scale_max=0.3)
    made = ImageTransform(ImageConfig(patch=2, augment=CROPS, more={"local": local, "same": CROPS}), DATA)
    batch = collate([made({"image": x.numpy()}, i, RNG, clean=False) for i, x in enumerate(pictures())])
    views = made.finish(batch, RNG, clean=False)
    alone = ImageTransform(ImageConfig(patch=2, augment=CROPS), DATA).finish(batch, RNG, clean=False)
    torch.testing.assert_close(views["image"].values, alone["image"].values, atol=0, rtol=0)
    for name, spec in made.specs().items():
        units = views[name]
        assert (units.crops, *units.values.shape) == (spec.crops, 4 * spec.crops, spec.length, spec.width)
        assert units.sites.grid == spec.grid
    keys = [crop_key(sample, crop) for crop in (3, 4) for sample in range(4)]
    assert views["local"].sites.sample[:, 0].tolist() == keys
    assert not torch.isclose(views["same"].values, views["image"].values).all()
    assert set(made.finish(batch, RNG, clean=True)) == {"image"}


def test_coordinates_of_a_smaller_view_cover_the_same_square():
    made = ImageTransform(ImageConfig(patch=2, augment=CROPS, more={"local": AugmentConfig(size=4)}), DATA)
    units = made.patches(torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, dtype=torch.int64), 1)
    assert units.sites.coords[0].tolist() == [[0.5, 0.5], [0.5, 2.5], [2.5, 0.5], [2.5, 2.5]]  # of 4 x 4


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (ImageConfig(more={"local": AugmentConfig()}), "of the first"),
        (ImageConfig(augment=AugmentConfig(size=4)), "data set's size"),
        (ImageConfig(augment=CROPS, more={"local": AugmentConfig(size=5)}), "do not tile view 'local' of 5"),
        (ImageConfig(augment=CROPS, more={"local": AugmentConfig(source=9)}), "local.source"),
        (ImageConfig(augment=CROPS, more={"image": AugmentConfig()}), "is the first view"),
        (ImageConfig(augment=CROPS, more={"local": AugmentConfig(size=0)}), "size: 0 is below 1"),
    ],
)
def test_views_that_do_not_fit_are_named(config, said):
    with pytest.raises(Mismatch, match=said):
        ImageTransform(config, DATA)


@pytest.mark.parametrize("crop", [0, 1, 5])
def test_keys_on_the_device_are_those_of_the_workers(crop):
    samples = [0, 7, -3, 2**62 + 1]
    assert crop_keys(torch.tensor(samples), crop).tolist() == [crop_key(s, crop) for s in samples]


def test_bad_values_are_refused_when_it_is_made():
    with pytest.raises(Mismatch, match=r"augment\.crops: 0"):
        ImageTransform(ImageConfig(augment=AugmentConfig(crops=0)), DATA)


def test_decoded_pictures_may_be_written_to():
    """torch warns of tensors over read-only memory, which is what Pillow hands out."""
    assert decode(pictures(1)[0].numpy(), 8, 3).flags.writeable
