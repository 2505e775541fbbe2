"""Patches go back to where they were cut, and only hidden ones are covered or predicted."""

import io

import numpy as np
import pytest
from PIL import Image

from encdec_train.data.pictures import masked_patches_png, panels_png, unpatch


def opened(content):
    return Image.open(io.BytesIO(content))


def patches_of(pictures, side):
    """An independent cut: patch by patch."""
    batch, height, width, _ = pictures.shape
    return np.stack(
        [
            np.stack(
                [
                    pictures[b, y : y + side, x : x + side].ravel()
                    for y in range(0, height, side)
                    for x in range(0, width, side)
                ]
            )
            for b in range(batch)
        ]
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_unpatch_undoes_the_cut(channels):
    pictures = np.random.default_rng(0).random((2, 6, 9, channels), np.float32)
    assert np.array_equal(unpatch(patches_of(pictures, 3), (2, 3), channels), pictures)


def test_unpatch_refuses_what_is_no_grid():
    with pytest.raises(ValueError, match="6 patches of 27 values are no grid of 2 x 2 with 3 channels"):
        unpatch(np.zeros((1, 6, 27)), (2, 2), 3)


def test_three_pictures_stand_beside_each_other():
    white, grey, black = np.ones((1, 96, 96, 3)), np.full((1, 96, 96, 3), 0.5), np.zeros((1, 96, 96, 3))
    sheet = np.asarray(opened(panels_png(white, grey, black)))
    assert sheet.shape == (96, 3 * 96 + 2 * 6, 4)
    assert (sheet[:, :96, :3] == 255).all() and (sheet[:, 102:198, :3] == 128).all() and (sheet[:, 204:, :3] == 0).all()
    assert (sheet[:, 96:102, 3] == 0).all()  # the gaps are clear, for light and dark pages


def test_small_pictures_are_enlarged_by_whole_pixels():
    picture = np.random.default_rng(0).random((3, 8, 8, 1))
    sheet = np.asarray(opened(panels_png(picture, picture, picture)))
    first = sheet[:96, :96, 0].reshape(8, 12, 8, 12)
    assert (first == first[:, :1, :, :1]).all()
    assert (first[:, 0, :, 0] == (picture[0, ..., 0] * 255).round()).all()


def test_only_hidden_patches_are_covered_and_predicted():
    pictures = np.random.default_rng(0).random((1, 96, 96, 3)).astype(np.float32)
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]
    values = patches_of((pictures - np.array(mean)) / np.array(std), 48)  # (1,4,6912)
    predicted = patches_of((np.ones_like(pictures) - np.array(mean)) / np.array(std), 48)
    mask = np.array([[False, True, False, False]])
    sheet = np.asarray(opened(masked_patches_png(values, predicted, mask, (2, 2), mean, std)))[..., :3].astype(int)
    original, seen, result = sheet[:, :96], sheet[:, 102:198], sheet[:, 204:]
    assert np.abs(original - (pictures[0] * 255).round()).max() <= 1
    assert (seen[:48, 48:] == 128).all() and (seen[48:] == original[48:]).all()
    assert (result[:48, 48:] == 255).all() and (result[48:] == original[48:]).all()
