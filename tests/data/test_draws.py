"""What comes at which position: the same for any number of readers, of sets in memory, in files and of several."""

import json
from dataclasses import replace
from itertools import chain

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from encdec_train.build import make_transform
from encdec_train.data.draws import draws_of, training_items
from encdec_train.data.loader import StepDataset, StepSampler, Unreadable, make_loader
from encdec_train.data.mixture import CYCLE, MixtureConfig, facts, quotas
from encdec_train.data.open import open_rows, row_name
from encdec_train.data.sources.digits import DigitsConfig
from encdec_train.data.sources.files import ImagesConfig, TextsConfig
from encdec_train.data.sources.pydoc import Pydoc, PydocConfig
from encdec_train.data.sources.stdlib import StdlibConfig
from encdec_train.launch import compose
from encdec_train.types import Halted, Mismatch

BATCH, STEPS = 8, 6
WORDS = [section[start : start + 400] for section in Pydoc(PydocConfig()).reference() for start in (0, 400)][:700]
LAYOUTS = ["packed", "joined", "padded"]
STREAM = ["data.streaming=true", "data.buffer=60"]


def shards(folder, texts=WORDS, files=3, group=40):
    """Parquet files of row groups that are not all of one size; the last file is the test split."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(files + 1):
        rows = texts[i :: files + 1]
        table = pa.table({"text": rows, "label": [len(text) % 3 for text in rows]})
        pq.write_table(table, folder / f"{'test' if i == files else 'train'}-{i}.parquet", row_group_size=group + i)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return shards(tmp_path_factory.mktemp("shards"))


def opened(where, *overrides):
    small = ["transform.length=64", "transform.vocabulary=400", "transform.fit_rows=200"]
    config = compose(["+recipe=bert", *small, *overrides])
    transform = make_transform(config)
    rows = open_rows(config.data)
    transform.fit(rows["train"], where / "encoder")
    return transform, training_items(transform, rows["train"]), rows


def texts_of(folder, *overrides):
    return ["data=texts", f"data.path={folder}", *overrides]


def mixed_of(folder, *overrides):
    """A stream, and embedded rows that are all in memory."""
    first = ["data=mixture", "+data@data.mix.own=texts", f"data.mix.own.path={folder}", "data.mix.own.weight=3"]
    first += [option.replace("data.", "data.mix.own.") for option in STREAM]
    return [*first, "+data@data.mix.code=stdlib", "data.mix.code.limit=60", *overrides]


def drawn(transform, items, *, world=1, workers=0, accumulate=1, start=0, place=None):
    """For each step keys and contents of its rows, put together from what each process draws; and the last place."""
    ranks = []
    for rank in range(world):
        draws = draws_of(items, transform, 7, place)
        dataset = StepDataset(draws, transform, 7, clean=False, label=None)
        how = {"accumulate": accumulate, "rank": rank, "world": world}
        sampler = StepSampler(draws, BATCH, start=start, stop=STEPS, **how)
        ranks.append(list(make_loader(dataset, sampler, workers=workers)))
    steps = []
    for shares in zip(*ranks, strict=True):
        views = [share.micro[m]["text"] for m in range(accumulate) for share in shares]
        width = max(view.values.shape[1] for view in views)
        wide = [torch.nn.functional.pad(view.values, (0, width - view.values.shape[1])) for view in views]
        keys = [torch.nn.functional.pad(view.sites.sample, (0, width - view.values.shape[1])) for view in views]
        steps.append((torch.cat(keys), torch.cat(wide)))
    return steps, ranks[0]


def same(found, expected):
    for (keys, ids), (other_keys, other_ids) in zip(found, expected, strict=True):
        width = min(ids.shape[1], other_ids.shape[1])  # padded rows are as long as the longest that a process has
        assert not ids[:, width:].any() and not other_ids[:, width:].any()
        real = ids[:, :width] != 0
        assert torch.equal(ids[:, :width], other_ids[:, :width])
        assert torch.equal(keys[:, :width][real], other_keys[:, :width][real])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mixed", [False, True])
def test_steps_do_not_depend_on_readers_and_go_on_anywhere(mixed, layout, folder, tmp_path):
    said = mixed_of(folder) if mixed else texts_of(folder, *STREAM)
    transform, items, _ = opened(tmp_path, *said, f"transform.layout={layout}")
    alone, own = drawn(transform, items)
    for world, workers, accumulate in ((4, 0, 1), (1, 2, 1), (2, 1, 2)):
        same(drawn(transform, items, world=world, workers=workers, accumulate=accumulate)[0], alone)
    for start in (2, 5):
        place = json.loads(json.dumps(own[start - 1].place))  # as a checkpoint has it
        assert place
        same(drawn(transform, items, world=2, start=start, place=place)[0], alone[start:])
        same(drawn(transform, items, start=start)[0], alone[start:])  # without it: the same, read from the beginning


def documents(transform, row):
    """The texts of the documents of one row."""
    ids = row["text"].values.tolist()
    text = transform.tokenizer.decode(ids, skip_special_tokens=False)
    return [part.split("[CLS]")[1].strip() for part in text.split("[SEP]") if "[CLS]" in part]


def test_an_epoch_has_every_document_once(folder, tmp_path):
    transform, items, _ = opened(tmp_path, *texts_of(folder, *STREAM), "transform.min_document=1")
    draws = draws_of(items, transform, 7)
    dataset = StepDataset(draws, transform, 7, clean=False, label=None)
    rows, position = [], 0
    while draws.find(position)[0] < draws.windows:
        rows.append(documents(transform, dataset[0, position].row))
        position += 1
    _, whole, _ = opened(tmp_path, *texts_of(folder), "transform.min_document=1")
    expected = [documents(transform, transform(row, 0, None, clean=False)) for row in whole]
    assert sorted(chain(*rows)) == sorted(chain(*expected))
    assert [documents(transform, dataset[0, position + p].row) for p in range(5)] != rows[:5]  # the next epoch


def test_going_on_opens_the_blocks_of_one_window(folder, tmp_path):
    transform, items, rows = opened(tmp_path, *texts_of(folder, *STREAM))
    _, own = drawn(transform, items)
    place = own[3].place
    fresh = open_rows(compose(["+recipe=bert", *texts_of(folder, *STREAM)]).data)["train"]
    draws = draws_of(fresh, transform, 7, place)
    dataset = StepDataset(draws, transform, 7, clean=False, label=None)
    assert fresh.opened == 0 and len(fresh) == len(rows["train"])  # rows are counted without being read
    dataset.__getitems__([(4, p) for p in draws.ids(4 * BATCH, 5 * BATCH)])
    assert 0 < fresh.opened <= 2 * draws.size


def test_a_stream_of_rows_is_sought_without_a_place(folder, tmp_path):
    """Where an item is a row, the numbers of rows in the footers say which window has a position."""
    transform, items, _ = opened(tmp_path, *texts_of(folder, *STREAM), "transform.layout=row")
    draws = draws_of(items, transform, 7)
    whole = [[tuple(tokens.tolist()) for tokens, _ in draws[p]] for p in range(2 * len(items))]
    assert sorted(whole[: len(items)]) == sorted(whole[len(items) :])  # every row once in each epoch
    assert whole[: len(items)] != whole[len(items) :] and draws.place() == {}
    late = open_rows(compose(["+recipe=bert", *texts_of(folder, *STREAM)]).data)["train"]
    far = draws_of(late, transform, 7)
    assert [tuple(tokens.tolist()) for tokens, _ in far[len(items) + 90]] == whole[len(items) + 90]
    assert late.opened == far.size


def test_mixture_has_exact_shares(folder, tmp_path):
    transform, items, _ = opened(tmp_path, *mixed_of(folder))
    draws = draws_of(items, transform, 7)
    assert draws.counts(4 * CYCLE) == {"own": 3000, "code": 1000}
    turns = [draws.turn(p) for p in range(3 * CYCLE + 37)]
    for part, name in enumerate(draws.names):
        own = [q for which, q in turns if which == part]
        assert own == list(range(len(own)))  # each set in its own order, nothing left out
        assert draws.counts(len(turns))[name] == len(own)
    ids = draws.ids(0, 40)
    assert [i % 2 for i in ids] == [part for part, _ in turns[:40]]
    assert quotas({"a": 1, "b": 1, "c": 1}) == [334, 333, 333]
    count = len(items.parts["code"])
    code = [i // 2 for i in draws.ids(0, 4 * (count + 2 * CYCLE)) if i % 2 == 1][:count]
    assert sorted(code) == list(range(count)) != code  # every item once in its own epoch, shuffled


def test_rows_of_two_sets_do_not_share_random_keys(folder, tmp_path):
    transform, items, _ = opened(tmp_path, *mixed_of(folder))
    draws = draws_of(items, transform, 7)
    dataset = StepDataset(draws, transform, 7, clean=False, label=None)
    keys = {0: set(), 1: set()}
    for index in draws.ids(0, 200):
        example = dataset[0, index].row["text"]
        keys[index % 2] |= set(example.sample[example.doc >= 0].tolist())
    assert len(keys[0]) > 200 and len(keys[1]) > 50 and not keys[0] & keys[1]


def test_mixtures_that_do_not_fit(tmp_path):
    def refused(said, **mix):
        with pytest.raises(Mismatch, match=said):
            facts(MixtureConfig(mix=mix))

    refused(r"data 'mixture'\.mix: it names no data set")
    refused(r"data\.mix\.b: it gives rows without a modality, a gives image", a=DigitsConfig(), b=StdlibConfig())
    refused(r"data\.mix\.b\.size: 32, but 8 in a", a=DigitsConfig(), b=ImagesConfig())
    refused(r"b\.weight: 1e-05 of 1\.00001 is less than one row of 1000", a=DigitsConfig(), b=DigitsConfig(weight=1e-5))
    refused(r"data\.mix\.b\.weight: -1\.0 is not above 0", a=DigitsConfig(), b=DigitsConfig(weight=-1.0))
    with pytest.raises(
        Mismatch, match=r"data\.probed: there is no 'book' \(did you mean 'books'\?\); there are a, books"
    ):
        facts(MixtureConfig(mix={"a": DigitsConfig(), "books": DigitsConfig()}, probed="book"))
    with pytest.raises(Mismatch, match=r"data\.streaming: each set of a mixture has its own, data\.mix\.a\.streaming"):
        facts(MixtureConfig(mix={"a": DigitsConfig()}, streaming=True))
    table = tmp_path / "other.parquet"
    pq.write_table(pa.table({"passage_number": [1, 2], "passage": ["a", "b"]}), table)
    other = TextsConfig(path=str(table), test="train", label=None)
    data = MixtureConfig(mix={"a": StdlibConfig(), "c": other})
    with pytest.raises(ValueError, match=r"data\.mix\.c: it has no column 'text', which a has and the transform reads"):
        open_rows(data)
    for streaming in (False, True):
        data.mix["c"] = replace(other, column="passage", streaming=streaming)
        assert open_rows(data)["train"].parts["c"][1]["text"] == "b"
    data.mix["c"] = replace(other, path=str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match=r"^data\.mix\.c\.path: .*nothing does not exist"):
        open_rows(data)


BROKEN = {7: b"\xff\xfe no text", 31: None}


def broken(folder, kind):
    """Rows of which two hold no text, and one is empty."""
    texts = [text[:200].encode() for text in WORDS[:60]]
    texts[12] = b""
    for row, value in BROKEN.items():
        texts[row] = value
    folder.mkdir(exist_ok=True)
    if kind == "parquet":
        column = pa.array(texts, pa.binary()).view(pa.string())
        pq.write_table(pa.table({"text": column}), folder / "train.parquet", row_group_size=20)
    else:
        plain = [None if t is None else t.decode("latin-1") for t in texts]
        lines = [json.dumps({"text": text}) for text in plain]
        lines[7] = '{"text": "half a pair \\ud800"}'
        (folder / "train.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("kind", ["parquet", "json"])
@pytest.mark.parametrize("layout", ["packed", "row"])
def test_broken_texts_of_a_stream(kind, layout, tmp_path):
    said = texts_of(broken(tmp_path / "data", kind), "data.test=train", "data.label=null", "data.streaming=true")
    said += [f"transform.layout={layout}", "data.on_error=skip"]
    transform, items, _ = opened(tmp_path, *said)
    found = {}
    for world, workers in ((1, 0), (2, 1)):
        skipped = []
        for rank in range(world):
            draws = draws_of(items, transform, 7)
            dataset = StepDataset(draws, transform, 7, clean=False, label=None)
            sampler = StepSampler(draws, BATCH, start=0, stop=60 // BATCH, rank=rank, world=world)
            skipped += [s for one in make_loader(dataset, sampler, workers=workers) for s in one.skipped]
        found[world] = sorted(skipped)
    windows = draws_of(items, transform, 7).find(60 // BATCH * BATCH - 1)[0] + 1
    assert found[1] == found[2]  # each is counted once, by all processes together
    if layout == "packed":  # else one that is drawn in the place of another may be broken too
        assert len(found[1]) == 2 * windows
    file = "train.parquet" if kind == "parquet" else "train.jsonl"
    for row in BROKEN:
        assert any(f"row {row} of {tmp_path / 'data' / file}: column 'text'" in said for said in found[1])
    transform.data.on_error = type(transform.data.on_error)["raise"]
    with pytest.raises(Unreadable, match=rf"^row (7|31) of .*{file}: column 'text'"):
        dataset = StepDataset(draws_of(items, transform, 7), transform, 7, clean=False, label=None)
        for position in range(60):
            dataset[0, position]


def test_broken_texts_of_a_set_in_memory(tmp_path, caplog):
    said = texts_of(broken(tmp_path / "data", "parquet"), "data.test=train", "data.label=null")
    with pytest.raises(ValueError, match=r"row 7 of the data: column 'text' is not UTF-8"):
        opened(tmp_path / "a", *said)
    config = compose(["+recipe=bert", *said, f"data.path={tmp_path / 'data'}"])
    rows = open_rows(config.data)["train"]
    assert row_name(config.data, rows.select([3, 7]), 1) == f"row 7 of {tmp_path / 'data' / 'train.parquet'}"
    stream = open_rows(replace(config.data, streaming=True))["train"]
    assert row_name(config.data, stream, 31) == f"row 31 of {tmp_path / 'data' / 'train.parquet'}"
    both = MixtureConfig(mix={"a": replace(config.data, limit=5), "b": StdlibConfig(limit=30)})
    mixed = open_rows(both)["train"]
    for position, text in enumerate(mixed[:40]["text"]):
        name = row_name(both, mixed, position)  # "a: row 3 of ..."
        assert mixed.parts[name[0]][int(name.split()[2])]["text"] == text
    _, items, _ = opened(tmp_path / "b", *said, "data.on_error=skip")
    assert set(items.left_out) == set(BROKEN)
    assert "row 31 of the data: column 'text' holds NoneType, not text" in caplog.text
    with pytest.raises(Halted, match=r"2 of 60 rows of the data cannot be read, more than data\.max_skipped=0\.001"):
        opened(tmp_path / "c", *said, "data.on_error=skip", "data.max_skipped=0.001")
    row, _, rows = opened(tmp_path / "d", *said, "data.on_error=skip", "transform.layout=row")
    dataset = StepDataset(row.items(rows["train"], clean=False), row, 7, clean=False, label=None)
    assert "row 7 of the data" in dataset[0, 7].skipped[0] and not dataset[0, 12].skipped  # an empty text is a text


def test_huge_texts_are_taken_for_mistakes(tmp_path, monkeypatch):
    monkeypatch.setattr("encdec_train.data.tokens.LONGEST", 1500)
    long = [*WORDS[:50], "a long word " * 200]
    said = texts_of(shards(tmp_path / "data", long, files=1), "data.on_error=skip")
    _, items, _ = opened(tmp_path, *said)
    assert items.left_out == {25: "column 'text' holds 2,400 characters, more than 1,500"}
