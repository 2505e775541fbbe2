"""Views of one row: each as its own transform makes it, with the same random keys, whoever reads it."""

import json
import pickle

import datasets
import numpy as np
import pytest
import torch

from encdec_train.build import make_transform
from encdec_train.config import TrainConfig
from encdec_train.data.config import PairDataConfig
from encdec_train.data.loader import StepDataset, StepSampler, collate_step, make_loader
from encdec_train.data.open import open_rows
from encdec_train.data.sources.files import ImagesConfig, TextsConfig
from encdec_train.data.transforms.image import ImageConfig
from encdec_train.data.transforms.pair import Pair, PairConfig
from encdec_train.data.transforms.text import Layout, Text, TextConfig
from encdec_train.launch import compose
from encdec_train.rng import Rng
from encdec_train.train import rundir
from encdec_train.types import Mismatch

ROW = {"layout": Layout.row, "length": 8, "vocabulary": 60}


def sentences(**changes):
    text = {
        "source": ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
        "target": ["ein", "zwei", "drei"],
    }
    rows = [{k: " ".join(words[: 1 + (i * 5) % 9]) for k, words in text.items()} for i in range(12)]
    data = PairDataConfig(views={name: TextsConfig(column=name) for name in text})
    config = PairConfig(views={name: TextConfig(**ROW) for name in text}, **changes)
    return Pair(config, data), datasets.Dataset.from_list(rows)


def scenes():
    config = compose(["data=scenes", "data.rows=40", "transform=captions", "embedder=null"])
    transform, rows = make_transform(config), open_rows(config.data)["train"]
    return config, transform, rows


def batch_of(transform, rows, ids, *, clean=False, seed=0):
    dataset = StepDataset(transform.items(rows, clean=clean), transform, seed, clean=clean, label=None)
    (batch,) = collate_step(dataset.__getitems__([(0, i) for i in ids])).micro
    return transform.finish(batch, Rng(seed, 0), clean=clean)


def test_configurations_are_dataclasses_and_typos_are_refused():
    config, _, _ = scenes()
    assert isinstance(config, TrainConfig)
    assert isinstance(config.transform.views["text"], TextConfig)
    assert isinstance(config.transform.views["image"], ImageConfig)
    assert isinstance(config.data.views["image"], ImagesConfig)
    for typo in ("transform.views.text.lenght=3", "data.views.image.sise=3"):
        with pytest.raises(Exception, match=typo.split("=")[0].split(".")[-1]):
            compose(["data=scenes", "transform=captions", typo])
    added = compose(["data=scenes", "transform=captions", "+transform.views.txet.length=3"])
    with pytest.raises(Mismatch, match="txet is not typed"):
        make_transform(added)


def test_a_written_configuration_is_read_back(tmp_path):
    config, _, _ = scenes()
    (tmp_path / "config.yaml").write_text(rundir.dump(config))
    assert rundir.load(tmp_path / "config.yaml") == config


@pytest.mark.parametrize("clean", [False, True])
def test_views_carry_the_same_keys(tmp_path, clean):
    _, transform, rows = scenes()
    transform.fit(rows, tmp_path)
    batch = batch_of(transform, rows, [3, 17, 8], clean=clean)
    for units in (batch["image"], batch["text"]):
        assert units.sites.sample[:, 0].tolist() == [3, 17, 8]
        assert (units.sites.sample == units.sites.sample[:, :1]).all()
    assert batch["image"].values.shape == (3, 16, 108)
    text = transform.of("text")
    assert isinstance(text, Text)
    for i, row in enumerate((3, 17, 8)):
        words = text.tokenizer.decode(batch["text"].values[i].tolist(), skip_special_tokens=True)
        assert words == rows[row]["caption"]


def test_workers_change_nothing(tmp_path):
    _, transform, rows = scenes()
    transform.fit(rows, tmp_path)
    items = transform.items(rows, clean=False)
    assert len(items) == len(rows)
    found = []
    for workers in (0, 2):
        dataset = StepDataset(items, transform, 1, clean=False, label=None)
        loader = make_loader(dataset, StepSampler(dataset.draws, 8, start=0, stop=3), workers=workers)
        found.append([drawn.micro[0] for drawn in loader])
    for one, two in zip(*found, strict=True):
        for view in ("image", "text"):
            assert torch.equal(one[view].values, two[view].values)
            assert torch.equal(one[view].sites.sample, two[view].sites.sample)
    assert pickle.loads(pickle.dumps(transform)).inner == transform.inner


def test_rows_of_text_have_one_length(tmp_path):
    transform, rows = sentences()
    transform.fit(rows, tmp_path)
    batch = batch_of(transform, rows, range(12))
    for view in ("source", "target"):
        text, units = transform.of(view), batch[view]
        assert units.values.shape == (12, 8) == (12, transform.specs()[view].length)
        for i in range(12):
            ids = text.tokenizer.encode(rows[i][view]).ids[:6]  # cut, with room for beginning and end
            expected = [text.vocabulary.bos, *ids, text.vocabulary.eos]
            assert units.values[i].tolist() == expected + [0] * (8 - len(expected))
            assert units.sites.real()[i].sum() == len(expected)


def test_one_tokenizer_for_both_sides(tmp_path):
    apart, rows = sentences()
    apart.fit(rows, tmp_path / "apart")
    assert "zwei" not in apart.of("source").tokenizer.get_vocab()
    joint, rows = sentences(joint=True)
    joint.fit(rows, tmp_path / "joint")
    vocabularies = [joint.of(view).tokenizer.get_vocab() for view in ("source", "target")]
    assert vocabularies[0] == vocabularies[1] and {"two", "zwei"} <= set(vocabularies[0])
    for view in ("source", "target"):
        assert (tmp_path / "joint" / view / "tokenizer.json").is_file()
    assert set(json.loads(json.dumps(joint.preprocess()))["views"]) == {"source", "target"}


def test_views_of_files_and_nested_columns(tmp_path):
    rows = [{"translation": {"de": f"Satz {i}", "en": f"sentence {i}"}} for i in range(20)]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "train.parquet")
    words = ["data=pairs", f"data.path={tmp_path}", "+data@data.views.source=texts", "+data@data.views.target=texts"]
    columns = ["data.views.source.column=translation.de", "data.views.target.column=translation.en"]
    opened = open_rows(compose([*words, *columns]).data)
    assert opened["train"].column_names == ["translation.de", "translation.en"]
    assert opened["train"][0]["translation.en"].startswith("sentence")


@pytest.mark.parametrize(
    "views,said",
    [
        ({"source": TextConfig(**{**ROW, "layout": Layout.packed})}, "one item of each row"),
        ({"sourec": TextConfig(**ROW)}, "did you mean 'source'"),
        ({}, "the data have source, target"),
        ({"source": {"length": 3}}, "not typed"),
        ({"source": ImageConfig()}, "needs pictures"),
    ],
)
def test_what_does_not_fit_is_named(views, said):
    transform, _ = sentences()
    with pytest.raises(Mismatch, match=said):
        Pair(PairConfig(views=views), transform.data)


def test_a_single_view_is_no_pair():
    with pytest.raises(Mismatch, match="several views"):
        Pair(PairConfig(views={"text": TextConfig(**ROW)}), TextsConfig())
    with pytest.raises(Mismatch, match="differ in vocabulary"):
        views = {"source": TextConfig(**ROW), "target": TextConfig(**{**ROW, "vocabulary": 70})}
        Pair(PairConfig(views=views, joint=True), sentences()[0].data)


def test_scenes_are_the_same_each_time_and_classes_are_told_by_the_caption():
    config, _, rows = scenes()
    again = open_rows(config.data)["train"]
    assert rows["caption"] == again["caption"] and np.array_equal(
        np.array(rows[5]["image"]), np.array(again[5]["image"])
    )
    names = rows.features["label"].names
    assert all(names[label] in caption for label, caption in zip(rows["label"], rows["caption"], strict=True))
    test = open_rows(config.data)["test"]
    assert len(test) == 4 and test["caption"][:4] != rows["caption"][:4]
