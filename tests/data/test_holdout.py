"""The held-out tenth."""

import datasets
import pytest

from encdec_train.data.holdout import held_out
from encdec_train.data.open import open_rows
from encdec_train.data.sources.files import TextsConfig


@pytest.mark.parametrize(("count", "held"), [(2, 1), (9, 1), (20, 2), (105, 10)])
def test_every_row_is_on_one_side(count, held):
    rows = datasets.Dataset.from_dict({"i": list(range(count))})
    train, test = held_out(rows, "x")
    assert len(test) == held
    assert sorted(train["i"][:] + test["i"][:]) == list(range(count))
    assert test["i"][:] == held_out(rows, "x")[1]["i"][:]


def test_cyclic_classes_are_all_held_out():
    rows = datasets.Dataset.from_dict({"label": [i % 10 for i in range(1000)]})
    assert set(held_out(rows, "x")[1]["label"]) == set(range(10))


def test_one_row_is_too_few():
    with pytest.raises(ValueError, match="x has one row only"):
        held_out(datasets.Dataset.from_dict({"i": [1]}), "x")


@pytest.mark.parametrize("test", ["test", None])
def test_it_is_held_out_once(tmp_path, monkeypatch, test):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "a.csv").write_text("text\n" + "\n".join(map(str, range(40))))
    rows = open_rows(TextsConfig(path=str(tmp_path / "a.csv"), test=test, limit=30))
    assert (len(rows["train"]), len(rows["test"])) == (30, 4)
    assert not set(rows["train"]["text"]) & set(rows["test"]["text"])
