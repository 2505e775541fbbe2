"""Series: windows, normalisation and patches against their definitions, from rows and from a csv file."""

import datasets
import numpy as np
import pytest
import torch

from encdec_train.data.config import DataConfig
from encdec_train.data.open import open_rows
from encdec_train.data.sources.files import SeriesConfig
from encdec_train.data.transforms.series import SeriesTransform, SeriesTransformConfig
from encdec_train.rng import Rng
from encdec_train.types import Mismatch


def transform(column=None, length=12, channels=2, patch=4, **config):
    data = SeriesConfig(column=column, length=length, channels=channels, patch=patch)
    return SeriesTransform(SeriesTransformConfig(**config), data)


def test_sites_are_the_patches_of_one_channel_after_the_other():
    values = np.arange(24.0).reshape(12, 2)
    found = transform(normalize=False)(values, 7, Rng(0, 0), clean=False)["series"]
    assert found.values.tolist() == [values[i : i + 4, c].tolist() for c in range(2) for i in (0, 4, 8)]
    assert found.place.tolist() == [0, 1, 2, 0, 1, 2] and found.doc.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.coords[:, 0].tolist() == found.place.tolist()
    assert len(set(found.sample.tolist())) == 2 and found.sample[0] == 7  # channels draw for themselves
    spec = transform().specs()["series"]
    assert (spec.width, spec.length, spec.max_len, spec.coords) == (4, 6, 3, 1)


def test_each_channel_is_normalised_by_itself():
    values = np.random.default_rng(0).normal(5, [[2.0, 30.0]], (12, 2))
    found = transform()(values, 0, Rng(0, 0), clean=True)["series"].values.view(2, 12).double()
    centred = torch.from_numpy((values - values.mean(0)).T)
    assert torch.allclose(found, centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt(), atol=1e-6)
    still = transform()(np.ones((12, 2)), 0, Rng(0, 0), clean=True)["series"].values
    assert not still.any()


def test_longer_rows_are_cut_anywhere_and_at_their_end_for_probes():
    part = transform("x", channels=1, normalize=False)
    row = {"x": list(range(40))}

    def first(step, clean):
        return part(row, 3, Rng(0, step), clean=clean)["series"].values[0, 0].item()

    assert {first(step, True) for step in range(5)} == {28.0}
    starts = {first(step, False) for step in range(300)}
    assert starts == set(map(float, range(29))) and first(1, False) == first(1, False)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (list(range(5)), "5 steps is shorter"),
        ([[1.0] * 3] * 20, "has not 1 channels"),
        ([float("nan")] * 20, "missing"),
    ],
)
def test_rows_that_do_not_fit(value, said):
    with pytest.raises(ValueError, match=said):
        transform("x", channels=1)({"x": value}, 0, Rng(0, 0), clean=False)


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A csv file with 100 steps of two channels and their dates."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    file = tmp_path / "a.csv"
    file.write_text("date,a,b\n" + "\n".join(f"2016-07-01 {i},{i},{-i}" for i in range(100)))
    return str(file)


@pytest.mark.parametrize("test", ["test", None])
def test_a_table_is_one_long_series_whose_end_is_held_out(table, test):
    data = SeriesConfig(path=table, channels=2, length=8, patch=4, test=test)
    part, rows = SeriesTransform(SeriesTransformConfig(normalize=False), data), open_rows(data)
    assert rows["train"]["a"][:] == list(range(90)) and rows["test"]["a"][:] == list(range(90, 100))
    windows, clean = part.items(rows["train"], clean=False), part.items(rows["train"], clean=True)
    assert len(windows) == 83 and len(clean) == 11
    assert windows[5].tolist() == [[i, -i] for i in range(5, 13)] and clean[2][0].tolist() == [16, -16]
    assert part(clean[2], 2, Rng(0, 0), clean=True)["series"].values.tolist()[0] == [16, 17, 18, 19]


@pytest.mark.parametrize(
    ("settings", "said"), [({"channels": 3}, "2 columns of numbers: a, b"), ({"length": 96}, "has 90")]
)
def test_tables_that_do_not_fit(table, settings, said):
    data = SeriesConfig(**{"path": table, "channels": 2, "length": 8, "patch": 4, **settings})
    with pytest.raises(ValueError, match=said):
        SeriesTransform(SeriesTransformConfig(), data).items(open_rows(data)["train"], clean=False)


def test_refuses_what_cannot_be():
    with pytest.raises(Mismatch, match="no whole patches"):
        transform(length=13)
    with pytest.raises(Mismatch, match="needs series"):
        SeriesTransform(SeriesTransformConfig(), DataConfig())
