"""Rows that are held out."""

import datasets
import pytest

from encdec_train.data.holdout import held_out
from encdec_train.data.open import open_rows
from encdec_train.data.sources.files import TextsConfig
from encdec_train.types import Mismatch


@pytest.mark.parametrize(("count", "held"), [(2, 1), (9, 1), (20, 2), (105, 10)])
def test_every_row_is_on_one_side(count, held):
    rows = datasets.Dataset.from_dict({"i": list(range(count))})
    train, test = held_out(rows, "x", 0.1)
    assert len(test) == held
    assert sorted(train["i"][:] + test["i"][:]) == list(range(count))
    assert test["i"][:] == held_out(rows, "x", 0.1)[1]["i"][:]


@pytest.mark.parametrize(("wanted", "held"), [(0.25, 5), (0.01, 1), (1.0, 1), (19.0, 19)])
def test_a_share_or_a_number(wanted, held):
    rows = datasets.Dataset.from_dict({"i": list(range(20))})
    assert [len(side) for side in held_out(rows, "x", wanted)] == [20 - held, held]
    assert held_out(rows, "x", wanted, ordered=True)[1]["i"][:] == list(range(20 - held, 20))


@pytest.mark.parametrize("wanted", [-0.1, 0.0, 1.5])
def test_neither_a_share_nor_a_number(wanted):
    with pytest.raises(Mismatch, match=f"data.held_out: {wanted} is neither"):
        TextsConfig(held_out=wanted)


def test_all_rows_are_too_many():
    with pytest.raises(ValueError, match="x has 20 rows, so 20 cannot be held out"):
        held_out(datasets.Dataset.from_dict({"i": list(range(20))}), "x", 20.0)


def test_cyclic_classes_are_all_held_out():
    rows = datasets.Dataset.from_dict({"label": [i % 10 for i in range(1000)]})
    assert set(held_out(rows, "x", 0.1)[1]["label"]) == set(range(10))


def test_one_row_is_too_few():
    with pytest.raises(ValueError, match="x has one row only"):
        held_out(datasets.Dataset.from_dict({"i": [1]}), "x", 0.1)


@pytest.mark.parametrize("test", ["test", None])
def test_it_is_held_out_once(tmp_path, monkeypatch, test):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "a.csv").write_text("text\n" + "\n".join(map(str, range(40))))
    rows = open_rows(TextsConfig(path=str(tmp_path / "a.csv"), test=test, limit=30))
    assert (len(rows["train"]), len(rows["test"])) == (30, 4)
    assert not set(rows["train"]["text"]) & set(rows["test"]["text"])
