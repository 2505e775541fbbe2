"""Rows that stay in their files: the same rows as in memory, read block by block."""

import io
import json
import tarfile

import datasets
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from encdec_train.build import make_transform
from encdec_train.data import shards
from encdec_train.data.draws import clean_items, draws_of
from encdec_train.data.loader import StepDataset, StepSampler, make_loader
from encdec_train.data.open import open_rows
from encdec_train.data.shards import look
from encdec_train.data.sources.files import ImagesConfig, SeriesConfig, TextsConfig
from encdec_train.data.transform import Transform
from encdec_train.launch import compose
from encdec_train.types import Mismatch


def png(value):
    stream = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def parquet(folder, rows=30, group=7, torn=()):
    """Pictures of one value each, with that value as the class."""
    folder.mkdir(parents=True, exist_ok=True)
    features = datasets.Features(image=datasets.Image(), label=datasets.Value("int64"))
    for name, values in (("train-0", range(rows)), ("train-1", range(rows, 2 * rows)), ("test-0", range(5))):
        pictures = [png(i)[:20] if i in torn else png(i) for i in values]
        columns = {"image": [{"bytes": data, "path": None} for data in pictures], "label": list(values)}
        table = datasets.Dataset.from_dict(columns, features=features).data.table
        pq.write_table(table, folder / f"{name}.parquet", row_group_size=group)
    return folder


def values(rows):
    return [(int(np.asarray(row["image"]).max()), row["label"]) for row in rows]


def test_parquet_is_what_it_is_in_memory(tmp_path):
    config = ImagesConfig(path=str(parquet(tmp_path / "data")), streaming=True)
    rows = open_rows(config)
    whole = open_rows(ImagesConfig(path=config.path))
    train = rows["train"]
    assert len(train) == 60 and train.opened == 0
    assert [block.rows for block in train.blocks] == [7, 7, 7, 7, 2] * 2
    assert values(train[i] for i in range(60)) == values(whole["train"]) == [(i, i) for i in range(60)]
    assert train.features["label"] == whole["train"].features["label"] and train.column_names == ["image", "label"]
    assert values(train.__getitems__([3, 58, 8, 3])) == [(3, 3), (58, 58), (8, 8), (3, 3)]
    assert train[5:16]["label"] == list(range(5, 16)) and train[-1]["label"] == 59
    assert values(rows["test"][i] for i in range(5)) == [(i, i) for i in range(5)]
    assert values(train.select(range(10))[i] for i in range(10)) == [(i, i) for i in range(10)]
    assert 10 <= len(train.few(10)) <= 20
    with pytest.raises(IndexError):
        train[60]


def test_row_groups_that_a_step_reads(tmp_path):
    config = ImagesConfig(path=str(parquet(tmp_path / "data")), streaming=True, buffer=14, size=8, patch=4)
    train = open_rows(config)["train"]
    transform = make_transform(compose(["+recipe=mae_vit", "data=images", "data.size=8", "data.patch=4"]))
    draws = draws_of(train, transform, 0)
    assert (draws.size, draws.windows) == (2, 5)
    epochs = [[row["label"] for row in draws.read(range(60 * e, 60 * e + 60))] for e in (0, 1)]
    assert train.opened == 20  # each group once in each epoch
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(60)) and epochs[0] != epochs[1]
    numbers, before = draws.order(0)
    first = [train.blocks[i] for i in numbers[:2]]
    own = {b.first + k + 30 * ("train-1" in b.file) for b in first for k in range(b.rows)}
    assert set(epochs[0][: before[1]]) == own  # the first window has its two groups, whole and mixed
    assert [draws[61]["label"], draws[2]["label"]] == [epochs[1][1], epochs[0][2]]  # anywhere, in any order


def test_a_torn_picture_of_a_stream(tmp_path):
    said = [f"data.path={parquet(tmp_path / 'data', torn={11, 40})}", "data.streaming=true", "data.buffer=20"]
    config = compose(["+recipe=mae_vit", "data=images", "data.size=8", "data.patch=4", *said, "data.on_error=skip"])
    transform = make_transform(config)
    found = {}
    for world, workers in ((1, 0), (2, 1)):
        steps = []
        for rank in range(world):
            draws = draws_of(open_rows(config.data)["train"], transform, 3)
            dataset = StepDataset(draws, transform, 3, clean=False, label=None)
            sampler = StepSampler(draws, 6, start=0, stop=10, rank=rank, world=world)
            steps.append(list(make_loader(dataset, sampler, workers=workers)))
        found[world] = [
            torch.cat([one.micro[0]["image"].values for one in shares]) for shares in zip(*steps, strict=True)
        ]
        skipped = sorted(s for shares in steps for one in shares for s in one.skipped)
        assert len(skipped) == 2  # the rows that stand for them are counted once
        file = tmp_path / "data" / "train-1.parquet"
        assert any(said.startswith(f"row 10 of {file}: data.path: the picture") for said in skipped)
    torch.testing.assert_close(found[1], found[2], rtol=0, atol=0)


def tar(folder, rows=23):
    folder.mkdir()
    with tarfile.open(folder / "train-0.tar", "w") as archive:
        for i in range(rows):
            members = {"jpg": png(i), "cls": str(i % 3).encode(), "txt": f"picture {i}".encode()}
            for suffix, content in members.items():
                member = tarfile.TarInfo(f"some/{i:04d}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return folder


def test_tar_files_of_webdataset(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "ROWS", 5)
    said = {"label": "cls", "test": "train"}
    rows = open_rows(ImagesConfig(path=str(tar(tmp_path / "data")), streaming=True, **said))["train"]
    assert [block.rows for block in rows.blocks] == [5, 5, 5, 5, 3]
    found = [rows[i] for i in (0, 22, 7)]
    assert [int(np.asarray(row["image"]).max()) for row in found] == [0, 22, 7]
    assert [(row["cls"], row["txt"], row["__key__"]) for row in found][1] == (1, "picture 22", "some/0022")


def test_lines_of_json(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "ROWS", 4)
    lines = [{"text": f"text {i}", "n": i} for i in range(9)]
    lines[6] = {"n": 6}
    (tmp_path / "rows.jsonl").write_text("\n\n".join(json.dumps(line) for line in lines))
    rows = open_rows(TextsConfig(path=str(tmp_path / "rows.jsonl"), streaming=True, test="train", label=None))["train"]
    assert [block.rows for block in rows.blocks] == [4, 4, 1]
    assert [rows[i]["n"] for i in range(9)] == list(range(9))
    assert [rows[i]["text"] for i in (5, 6, 8)] == ["text 5", None, "text 8"]


def test_files_that_are_not_on_this_machine():
    """Addresses as the hub's files have them go the same way as paths."""
    store = fsspec.filesystem("memory")
    stream = io.BytesIO()
    pq.write_table(pa.table({"text": [f"text {i}" for i in range(10)]}), stream, row_group_size=4)
    store.pipe("/far/train.parquet", stream.getvalue())
    rows = look("parquet", ["memory://far/train.parquet"], 100)
    assert len(rows) == 10 and rows[9]["text"] == "text 9"


def test_whole_blocks_are_held_out(tmp_path):
    table = pa.table({"text": [f"text number {i}" for i in range(100)]})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=5)
    config = TextsConfig(path=str(tmp_path), streaming=True, label=None)
    rows, again = open_rows(config), open_rows(config)
    train, test = (rows[split][: len(rows[split])]["text"] for split in ("train", "test"))
    assert (len(train), len(test)) == (90, 10) and not set(train) & set(test)
    assert again["test"][:10]["text"] == test
    config.held_out = 30  # rows
    assert [len(rows) for rows in open_rows(config).values()] == [70, 30]


def test_what_cannot_be_streamed(tmp_path):
    with pytest.raises(Mismatch, match=r"data\.streaming: an embedded data set is in memory"):
        open_rows(compose(["data.streaming=true"]).data)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "rows.csv").write_text("text\na\n")
    with pytest.raises(ValueError, match=r"csv files cannot be streamed; allowed are parquet, json, webdataset"):
        open_rows(TextsConfig(path=str(tmp_path / "a"), streaming=True))
    with pytest.raises(ValueError, match=r"rows of one long series follow each other"):
        open_rows(SeriesConfig(path=str(tmp_path / "a"), streaming=True))
    (tmp_path / "list.json").write_text('[{"text": "a"}]')
    with pytest.raises(ValueError, match=r"list\.json cannot be read as json: it is one list; each line must be a row"):
        open_rows(TextsConfig(path=str(tmp_path / "list.json"), streaming=True))
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "rows.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(ValueError, match=r"rows\.parquet cannot be read as parquet"):
        open_rows(TextsConfig(path=str(tmp_path / "torn"), streaming=True))
    for name, column in (("train-0", "text"), ("train-1", "words")):
        pq.write_table(pa.table({column: ["a", "b"], "label": ["x", "y"]}), tmp_path / f"{name}.parquet")
    rows = look("parquet", [str(tmp_path / f"train-{i}.parquet") for i in (0, 1)], 10)
    assert rows[0]["text"] == "a"
    with pytest.raises(
        ValueError, match=r"train-1\.parquet has the columns words, label, other files have text, label"
    ):
        rows[3]
    classes = open_rows(TextsConfig(path=str(tmp_path / "train-0.parquet"), streaming=True, test="train"))["train"]
    with pytest.raises(ValueError, match=r"the classes in 'label' are words"):
        classes[0]


def test_probes_read_their_rows_when_they_come_to_them(tmp_path):
    config = compose(["+recipe=bert", "data=texts", f"data.path={tmp_path}", "data.streaming=true", "data.label=null"])
    table = pa.table({"text": [f"text number {i} is here" for i in range(100)]})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=10)
    rows = open_rows(config.data)["train"]
    transform = make_transform(config)
    transform.fit(rows, tmp_path / "encoder")
    found = clean_items(transform, rows)
    rows.opened = 0
    ids = transform(found[25], 25, None, clean=True)["text"].values.tolist()
    assert rows.opened == 1 and len(found) == 90
    assert transform.tokenizer.decode(ids) == rows[25]["text"]


class Counted(Transform):
    """Rows as they are."""


def test_memory_is_that_of_one_window(tmp_path):
    """Of 60 MB of text, 1.2 MB at a time; scripts/stream_memory.py looks at the memory of whole processes."""
    text = "x" * 60_000
    for i in range(10):
        table = pa.table({"text": [f"{i} {k} {text}" for k in range(100)]})
        pq.write_table(table, tmp_path / f"train-{i}.parquet", row_group_size=10)
    config = TextsConfig(path=str(tmp_path), label=None, test="train", streaming=True, buffer=20)
    draws = draws_of(open_rows(config)["train"], Counted(None, config), 0)
    before, most, seen = pa.total_allocated_bytes(), 0, set()
    for position in range(0, 1000, 5):
        seen.add(draws[position]["text"][:10].rpartition(" ")[0])
        most = max(most, pa.total_allocated_bytes() - before)
    assert len(seen) == 200 and draws.windows == 50
    assert most < 4 * 20 * len(text)  # a window, and a little for what is being read
