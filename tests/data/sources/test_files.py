"""`open_files`: every kind of path, the splits, the labels, and what is said of wrong input."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile
import yaml
from PIL import Image

from encdec_train.data.columns import content_column
from encdec_train.data.local import split_of
from encdec_train.data.sources.files import ImagesConfig, SoundsConfig, TextsConfig, open_files
from encdec_train.paths import CONFIGS
from encdec_train.registry import sources


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def paint(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 6, 3), value, np.uint8)).save(path)


def pictures(folder):
    for split, count in (("train", 3), ("val", 2)):
        for label in ("cat", "dog"):
            for i in range(count):
                paint(folder / split / label / f"{i}.png", i)
    return folder


def test_image_folder_has_classes_and_splits(tmp_path):
    config = ImagesConfig(path=str(pictures(tmp_path)))
    train, test = open_files(config, "train"), open_files(config, "test")
    assert (len(train), len(test)) == (6, 4)  # no test split: validation stands for it
    assert train.features["label"].names == ["cat", "dog"]
    assert train["label"][:] == [0, 0, 0, 1, 1, 1]
    assert train[1]["image"].size == (6, 4)
    assert np.asarray(train[1]["image"]).max() == 1
    assert content_column(train, None, ["image"]) == "image"


def test_image_folder_survives_workers(tmp_path):
    train = open_files(ImagesConfig(path=str(pictures(tmp_path))), "train")
    assert pickle.loads(pickle.dumps(train))[0]["image"].size == (6, 4)
    assert train.select([5])[0]["label"] == 1


def test_a_tenth_is_held_out_the_same_every_time(tmp_path):
    (tmp_path / "lines.txt").write_text("\n".join(f"line {i}" for i in range(50)))
    config = TextsConfig(path=str(tmp_path / "lines.txt"))
    train, test = open_files(config, "train")["text"][:], open_files(config, "test")["text"][:]
    assert (len(train), len(test)) == (45, 5)
    assert sorted(train + test) == sorted(f"line {i}" for i in range(50))
    assert test == open_files(config, "test")["text"][:]
    everything = TextsConfig(path=config.path, test="train")
    assert len(open_files(everything, "train")) == 50  # a named split: nothing is held out


def test_text_is_cut_at_blank_lines(tmp_path):
    (tmp_path / "train.txt").write_text("first\npassage\n\nsecond\n")
    (tmp_path / "test.txt").write_text("third\n\nfourth")
    train = open_files(TextsConfig(path=str(tmp_path)), "train")
    assert train["text"][:] == ["first\npassage", "second\n"]


def test_text_in_class_folders_is_one_row_per_file(tmp_path):
    for split in ("train", "test"):
        for label in ("neg", "pos"):
            (tmp_path / split / label).mkdir(parents=True)
            (tmp_path / split / label / "1.txt").write_text(f"{split}\n\n{label}")
    test = open_files(TextsConfig(path=str(tmp_path)), "test")
    assert test[:] == {"text": ["test\n\nneg", "test\n\npos"], "label": [0, 1]}


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl", "parquet", "arrow", "saved"])
def test_tables(tmp_path, kind):
    rows = {"id": [1, 2, 3], "sentence": ["a", "b", "c"], "label": ["good", "bad", "good"]}
    train, test = datasets.Dataset.from_dict(rows), datasets.Dataset.from_dict(rows).select([1])
    if kind == "saved":
        datasets.DatasetDict(train=train, test=test).save_to_disk(str(tmp_path / "it"))
    for name, part in (("train", train), ("test", test)):
        file = tmp_path / "it" / f"{name}.{kind}"
        file.parent.mkdir(exist_ok=True)
        if kind in ("csv", "tsv"):
            part.to_csv(file, sep="," if kind == "csv" else "\t")
        elif kind in ("json", "jsonl"):
            part.to_json(file)
        elif kind == "parquet":
            part.to_parquet(file)
        elif kind == "arrow":
            with datasets.arrow_writer.ArrowWriter(path=str(file), features=part.features) as writer:
                for row in part:
                    writer.write(row)
                writer.finalize()
    config = TextsConfig(path=str(tmp_path / "it"))
    opened = open_files(config, "train")
    assert opened[2] == {"id": 3, "text": "c", "label": 1}
    assert open_files(config, "test")["label"][:] == [0]  # the same numbers as in training
    assert opened.features["label"].names == ["bad", "good"]


def test_sounds_are_left_to_soundfile(tmp_path):
    for label in ("one", "two"):
        (tmp_path / label).mkdir()
        for i in range(2):
            soundfile.write(tmp_path / label / f"{i}.wav", np.zeros(80), 8000)
    row = open_files(SoundsConfig(path=str(tmp_path), test="train"), "train")[3]
    assert row["label"] == 1
    assert soundfile.info(row["audio"]["path"]).samplerate == 8000


@pytest.mark.parametrize("typed", [True, False])
def test_pictures_and_sounds_within_parquet(tmp_path, typed):
    paint(tmp_path / "a.png")
    soundfile.write(tmp_path / "a.wav", np.zeros(80), 8000)
    row = {
        "image": [{"bytes": (tmp_path / "a.png").read_bytes(), "path": "a.png"}],
        "audio": [{"bytes": (tmp_path / "a.wav").read_bytes(), "path": "a.wav"}],
    }
    rows = datasets.Dataset.from_dict(row)
    if typed:
        rows = rows.cast_column("image", datasets.Image()).cast_column("audio", datasets.Audio())
    rows.to_parquet(tmp_path / "x.parquet")
    opened = open_files(ImagesConfig(path=str(tmp_path / "x.parquet"), test="train"), "train")
    assert opened[0]["image"].size == (6, 4)
    assert opened[0]["audio"]["bytes"][:4] == b"RIFF"
    assert content_column(opened, None, ["audio"]) == "audio"


def test_the_content_has_one_name_unless_it_is_named(tmp_path):
    paint(tmp_path / "a.png")
    value = {"bytes": (tmp_path / "a.png").read_bytes(), "path": None}
    row = {"title": ["a"], "img": [value], "TEXT": ["b"]}
    datasets.Dataset.from_dict(row).to_parquet(tmp_path / "x.parquet")
    path = str(tmp_path / "x.parquet")
    row = open_files(ImagesConfig(path=path, test="train"), "train")[0]
    assert list(row) == ["title", "image", "TEXT"] and row["image"].size == (6, 4)
    assert list(open_files(TextsConfig(path=path, test="train"), "train")[0]) == ["title", "img", "text"]
    named = open_files(TextsConfig(path=path, test="train", column="title"), "train")
    assert named[0]["title"] == "a" and "TEXT" in named[0]
    assert "holds text, the transform reads image" in complaint(ImagesConfig(path=path, test="train", column="title"))


def test_joined_splits(tmp_path):
    for name in ("train", "validation", "test"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": name}))
    joined = open_files(TextsConfig(path=str(tmp_path), train="train+validation"), "train")
    assert joined["text"][:] == ["train", "validation"]
    assert open_files(TextsConfig(path=str(tmp_path)), "validation")["text"][:] == ["validation"]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000-of-00002.parquet", "train"),
        ("valid/a/1.png", "validation"),
        ("Test/1.png", "test"),
        ("training_set.csv", "train"),
        ("trained.csv", None),
        ("a/b.csv", None),
    ],
)
def test_split_names(name, split):
    assert split_of(Path(name)) == split


def complaint(config, split="train"):
    with pytest.raises(ValueError) as caught:
        open_files(config, split)
    return str(caught.value)


def test_wrong_paths(tmp_path):
    assert f"{tmp_path}/no does not exist" in complaint(ImagesConfig(path=str(tmp_path / "no")))
    assert "pictures.parquet does not exist" in complaint(ImagesConfig(path="pictures.parquet"))
    assert f"the folder {tmp_path} is empty" in complaint(ImagesConfig(path=str(tmp_path)))
    (tmp_path / "a.xyz").write_text("?")
    assert "1 of '.xyz'" in complaint(ImagesConfig(path=str(tmp_path)))
    assert "a.xyz is of no known kind; allowed are parquet" in complaint(ImagesConfig(path=str(tmp_path / "a.xyz")))
    assert "not given" in complaint(ImagesConfig())
    (tmp_path / "a.txt").write_text("one\ntwo")
    assert "data.subset: 'en'" in complaint(TextsConfig(path=str(tmp_path / "a.txt"), subset="en"))


def test_broken_files_are_named(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"no parquet at all")
    assert f"{tmp_path}/x.parquet cannot be read as parquet" in complaint(TextsConfig(path=str(tmp_path)))
    (tmp_path / "x.json").write_text('{"a": ')
    assert "x.json cannot be read as json" in complaint(TextsConfig(path=str(tmp_path / "x.json")))
    (tmp_path / "x.csv").write_text("")
    assert "x.csv is an empty file" in complaint(TextsConfig(path=str(tmp_path / "x.csv")))


def test_files_with_different_columns(tmp_path):
    datasets.Dataset.from_dict({"a": ["1"]}).to_parquet(tmp_path / "a.parquet")
    datasets.Dataset.from_dict({"b": ["1"]}).to_parquet(tmp_path / "b.parquet")
    assert "not all have the same columns" in complaint(TextsConfig(path=str(tmp_path)))


def test_a_broken_picture_is_named_when_it_is_read(tmp_path):
    paint(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:5000])
    rows = open_files(ImagesConfig(path=str(tmp_path), test="train"), "train")  # bad, cut, good
    assert rows[2]["image"].size == (6, 4)
    with pytest.raises(ValueError, match=r"bad\.png cannot be read: it is not a picture"):
        rows[0]
    with pytest.raises(ValueError, match=r"cut\.png cannot be read"):
        rows[1]


def test_missing_splits_columns_and_labels(tmp_path):
    (tmp_path / "train.csv").write_text("text,stars\na,1\nb,2\n")
    path = str(tmp_path)
    assert "has no split 'trian' (did you mean 'train'?); it has train" in complaint(
        TextsConfig(path=path, train="trian")
    )
    assert "data.test: " in complaint(TextsConfig(path=path, test="holdout"), "test")
    assert "no column 'star' (did you mean 'stars'?); it has text, stars" in complaint(
        TextsConfig(path=path, label="star")
    )
    rows = open_files(TextsConfig(path=path, label="stars"), "train")
    with pytest.raises(ValueError, match="there are text \\(text\\), stars \\(number\\)"):
        content_column(rows, "txt", ["text"])
    with pytest.raises(ValueError, match="no column holds image"):
        content_column(rows, None, ["image"])
    with pytest.raises(ValueError, match="'stars' holds number, the transform reads text"):
        content_column(rows, "stars", ["text"])


def test_one_row_cannot_be_held_out(tmp_path):
    (tmp_path / "a.csv").write_text("text\na\n")
    assert "one row only" in complaint(TextsConfig(path=str(tmp_path / "a.csv")), "test")


def test_no_network(monkeypatch):
    def unreachable(*_):
        raise ConnectionError("Couldn't reach 'some/data' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    said = complaint(ImagesConfig(path="some/data"))
    assert "'some/data' is neither a path here nor a data set that the hub gives now" in said
    assert "Couldn't reach" in said


def test_progress_bars_are_left_as_they_were(tmp_path):
    (tmp_path / "a.csv").write_text("text\na\nb\n")
    open_files(TextsConfig(path=str(tmp_path / "a.csv")), "train")
    assert datasets.utils.logging.is_progress_bar_enabled()


def test_importing_the_source_does_not_import_datasets():
    code = "import encdec_train.data.sources.files, sys; sys.exit('datasets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_data_word_names_a_registered_part_and_known_fields():
    for file in sorted((CONFIGS / "data").glob("*.yaml")):
        word = yaml.safe_load(file.read_text())
        name = word.pop("defaults")[0].removesuffix("@_here_")
        if name in ("images", "texts", "sounds", "graphs"):
            sources.parts[name][0](**word)
            assert file.stem not in sources.parts
