import subprocess
import sys

import pytest
import torch

from encdec_train.data.augment import AugmentConfig, augment, blur, crop_box, cut, grey, jitter
from encdec_train.rng import Rng
from encdec_train.types import Mismatch

KEYS = torch.arange(1000, 1064)
FULL = AugmentConfig(
    rotate=10,
    jitter=0.8,
    brightness=0.8,
    contrast=0.8,
    saturation=0.8,
    hue=0.2,
    grayscale=0.2,
    blur=0.5,
    solarize=0.2,
    noise=0.1,
)


def nothing(**changes):
    return AugmentConfig(**{"scale_min": 1.0, "flip": False, **changes})


@pytest.fixture
def pictures():
    torch.manual_seed(0)
    return torch.rand(len(KEYS), 3, 12, 12)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_row_alone_equals_the_row_in_a_batch(pictures, channels):
    images, rng = pictures[:, :channels], Rng(1, 5)
    together = augment(images, KEYS, rng, FULL, 16)
    order = torch.arange(len(KEYS)).flip(0)
    reordered = augment(images[order], KEYS[order], rng, FULL, 16)
    alone = torch.cat([augment(images[i : i + 1], KEYS[i : i + 1], rng, FULL, 16) for i in range(len(KEYS))])
    assert together.shape == (len(KEYS), channels, 16, 16)
    assert together.min() >= 0 and together.max() <= 1
    torch.testing.assert_close(alone, together, atol=1e-6, rtol=0)
    torch.testing.assert_close(reordered.flip(0), together, atol=1e-6, rtol=0)


def test_draws_depend_on_key_step_and_seed_and_not_on_the_global_generator(pictures):
    first = augment(pictures, KEYS, Rng(1, 5), FULL, 12)
    torch.manual_seed(123)
    assert torch.equal(first, augment(pictures, KEYS, Rng(1, 5), FULL, 12))
    for other in (Rng(1, 6), Rng(2, 5)):
        assert (augment(pictures, KEYS, other, FULL, 12) - first).abs().mean() > 0.01
    assert (augment(pictures, KEYS + 9999, Rng(1, 5), FULL, 12) - first).abs().mean() > 0.01


def test_crops_lie_inside_with_area_and_aspect_in_range():
    keys, config = torch.arange(20000), AugmentConfig(scale_min=0.08, ratio=4 / 3)
    left, top, w, h = crop_box(keys, Rng(0), config, 30, 40).unbind(1)
    slack = 1e-3
    assert left.min() >= 0 and top.min() >= 0
    assert (left + w).max() <= 40 + slack and (top + h).max() <= 30 + slack
    area, ratio = w * h / 1200, w / h
    assert area.min() >= 0.08 - slack and area.max() <= 1 + slack
    assert ratio.min() >= 0.75 - slack and ratio.max() <= 4 / 3 + slack


def test_crops_follow_the_definition_where_every_box_fits():
    """Area uniform, log aspect uniform and independent of it, place uniform in what is left."""
    keys, config = torch.arange(40000), AugmentConfig(scale_min=0.1, scale_max=0.5, ratio=4 / 3)
    left, _, w, h = crop_box(keys, Rng(3), config, 32, 32).unbind(1)
    area = (w * h / 1024 - 0.1) / 0.4
    ratio = (w / h).log() / (4 / 3 * torch.ones(())).log()
    place = left / (32 - w)
    for drawn, low in ((area, 0.0), (ratio, -1.0), (place, 0.0)):
        uniform = torch.linspace(low, 1, len(keys))
        assert (drawn.sort().values - uniform).abs().max() < 0.02  # Kolmogorov and Smirnov
    assert torch.corrcoef(torch.stack([area, ratio, place])).fill_diagonal_(0).abs().max() < 0.03


def test_a_crop_that_never_fits_is_the_largest_middle_one():
    config = AugmentConfig(scale_min=1.0, ratio=4 / 3)
    box = crop_box(KEYS, Rng(0), config, 10, 40)
    expected = torch.tensor([(40 - 40 / 3) / 2, 0, 40 / 3, 10]).expand_as(box)
    torch.testing.assert_close(box, expected)


def test_a_crop_reads_the_pixels_of_its_box():
    """On a linear ramp bilinear sampling is exact: each output pixel is the ramp at its own centre."""
    ramp = (torch.arange(64) + 0.5).expand(64, 64) / 64
    images = torch.stack([ramp, ramp.T, ramp])[None].expand(len(KEYS), -1, -1, -1)
    config = AugmentConfig(scale_min=0.2, scale_max=0.5)
    left, top, w, h = crop_box(KEYS, Rng(7), config, 64, 64).unbind(1)
    found = cut(images, KEYS, Rng(7), config, 16)
    centre = (torch.arange(16) + 0.5) / 16
    across = (left[:, None] + centre * w[:, None]).clamp(0.5, 63.5) / 64
    down = (top[:, None] + centre * h[:, None]).clamp(0.5, 63.5) / 64
    torch.testing.assert_close(found[:, 0], across[:, None].expand(-1, 16, 16), atol=1e-5, rtol=0)
    torch.testing.assert_close(found[:, 1], down[:, :, None].expand(-1, 16, 16), atol=1e-5, rtol=0)


def test_turning_by_a_right_angle_is_rot90(pictures, monkeypatch):
    """With the draw fixed at its upper end, 90 degrees either way move every pixel onto a pixel."""
    monkeypatch.setattr(
        Rng, "uniform", lambda self, tag, *keys: torch.ones(()).expand(torch.broadcast_shapes(*[k.shape for k in keys]))
    )
    turned = cut(pictures, KEYS, Rng(0), nothing(rotate=90.0, ratio=1.0), 12)
    torch.testing.assert_close(turned, torch.rot90(pictures, 1, (2, 3)), atol=1e-5, rtol=0)


def test_flips_are_exact_and_for_half_of_the_rows():
    keys = torch.arange(2000)
    images = torch.rand(2000, 1, 4, 4)
    found = augment(images, keys, Rng(0), nothing(flip=True), 4)
    flipped, kept = ((found == other).flatten(1).all(1) for other in (images.flip(-1), images))
    assert (flipped ^ kept).all()
    assert 0.45 < flipped.float().mean() < 0.55


def test_nothing_asked_for_changes_nothing(pictures):
    assert torch.equal(augment(pictures, KEYS, Rng(0), nothing(), 12), pictures)


def draw(tag):
    return Rng(4, 2).uniform(f"augment.{tag}", KEYS)


def test_jitter_equals_kornia(pictures):
    """Each operation alone, with the factor that was drawn, against kornia's own."""
    enhance = pytest.importorskip("kornia.enhance")
    rng = Rng(4, 2)
    for name, theirs in (
        ("brightness", enhance.adjust_brightness_accumulative),
        ("contrast", enhance.adjust_contrast_with_mean_subtraction),
        ("saturation", enhance.adjust_saturation_with_gray_subtraction),
    ):
        found = jitter(pictures, KEYS, rng, AugmentConfig(**{name: 0.4}))
        expected = theirs(pictures, 0.6 + 0.8 * draw(name))
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    found = jitter(pictures, KEYS, rng, AugmentConfig(hue=0.1))
    expected = enhance.adjust_hue(pictures, (0.2 * draw("hue") - 0.1) * 2 * torch.pi)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_hue_by_a_third_of_the_circle_moves_the_channels(pictures, monkeypatch):
    monkeypatch.setattr(Rng, "uniform", lambda self, tag, *keys: torch.ones(keys[0].shape))
    turned = jitter(pictures, KEYS, Rng(0), AugmentConfig(hue=1 / 3))
    torch.testing.assert_close(turned, pictures.roll(1, dims=1), atol=1e-5, rtol=0)


def test_grayscale_is_luma_in_all_channels(pictures):
    found = augment(pictures, KEYS, Rng(0), nothing(grayscale=1.0), 12)
    luma = 0.299 * pictures[:, 0] + 0.587 * pictures[:, 1] + 0.114 * pictures[:, 2]
    torch.testing.assert_close(grey(pictures)[:, 0], luma, atol=1e-6, rtol=0)
    torch.testing.assert_close(found, luma[:, None].expand(-1, 3, -1, -1), atol=1e-6, rtol=0)


def test_probabilities_are_met():
    keys, images = torch.arange(4000), torch.full((4000, 3, 2, 2), 0.7)
    images[:, 0] = 0.2
    found = augment(images, keys, Rng(0), nothing(solarize=0.2), 2)
    changed = (found != images).flatten(1).any(1)
    assert 0.17 < changed.float().mean() < 0.23
    assert torch.equal(found[changed], torch.where(images >= 0.5, 1 - images, images)[changed])


def test_blur_is_the_gaussian_of_the_drawn_deviation():
    """An impulse becomes the kernel itself."""
    images = torch.zeros(len(KEYS), 1, 31, 31)
    images[:, :, 15, 15] = 1
    config = AugmentConfig(blur=1.0, blur_kernel=0.75)
    sigma = 0.1 + 1.9 * draw("sigma")
    along = torch.exp(-(torch.arange(-11.0, 12.0) ** 2) / (2 * sigma[:, None] ** 2))
    along = along / along.sum(1, keepdim=True)
    kernel = along[:, :, None] * along[:, None, :]
    found = blur(images, KEYS, Rng(4, 2), config)[:, 0, 4:27, 4:27]
    torch.testing.assert_close(found, kernel, atol=1e-5, rtol=0)


def test_noise_has_the_drawn_deviation():
    images = torch.full((len(KEYS), 1, 64, 64), 0.5)
    found = augment(images, KEYS, Rng(4, 2), nothing(noise=0.1), 64)
    torch.testing.assert_close(found.flatten(1).std(1), 0.1 * draw("deviation"), atol=3e-3, rtol=0)


def test_resizing_without_a_crop_is_antialiased():
    stripes = (torch.arange(16) % 2).float().expand(1, 1, 16, 16)
    found = augment(stripes, KEYS[:1], Rng(0), nothing(), 8)
    assert (found[..., 1:-1] - 0.5).abs().max() < 0.13


def test_it_compiles_to_one_graph(pictures):
    explained = torch._dynamo.explain(
        lambda x: augment(x, KEYS, Rng(0), nothing(scale_min=0.3, flip=True, noise=0.1), 8)
    )
    assert explained(pictures).graph_break_count == 0


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"crops": 0}, "crops"),
        ({"scale_min": 0.0}, "scale"),
        ({"scale_max": 1.5}, "scale"),
        ({"ratio": 0.5}, "ratio"),
        ({"jitter": 1.2}, "jitter"),
        ({"hue": 0.6}, "hue"),
        ({"blur_min": 3.0}, "blur"),
        ({"noise": -0.1}, "noise"),
    ],
)
def test_values_out_of_range_are_refused(changes, named):
    with pytest.raises(Mismatch, match=named):
        AugmentConfig(**changes).check()


def test_importing_it_imports_no_kornia():
    code = "import encdec_train.data.augment, sys; sys.exit('kornia' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
