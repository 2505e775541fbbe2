"""Text to rows: what goes in comes out once, where it belongs, with its own random key."""

from __future__ import annotations

import pickle
from itertools import pairwise
from pathlib import Path

import datasets
import pytest
import torch

from encdec_train.data.config import DataConfig
from encdec_train.data.example import collate
from encdec_train.data.tokenizers import TokenizerKind, save, train
from encdec_train.data.transforms.text import Layout, Text, TextConfig
from encdec_train.rng import Rng
from encdec_train.types import Mismatch, Plan, Units

WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]
COUNTS = [3, 40, 7, 25, 1, 90, 12, 12, 60, 5]  # words of each document
ROWS = [{"text": " ".join(WORDS[(i * 7 + j) % len(WORDS)] for j in range(count))} for i, count in enumerate(COUNTS)]
DATA = datasets.Dataset.from_list(ROWS)


def fitted(folder: Path, **changes: object) -> Text:
    """A tokenizer that knows every word, so that tokens are words."""
    config = TextConfig(**{"vocabulary": 300, "length": 32, "min_document": 2, **changes})
    text = Text(config, DataConfig())
    text.fit(DATA, folder)
    return text


def batch(text: Text, *, clean: bool = False) -> Units:
    items = text.items(DATA, clean=clean)
    rows = [text(items[i], i, Rng(0), clean=clean) for i in range(len(items))]
    return collate(rows)["text"]


def bodies(text: Text, units: Units) -> list[list[int]]:
    """The documents of packed rows, without their special tokens."""
    known, found = text.vocabulary, []
    for ids, doc in zip(units.values, units.sites.doc, strict=True):
        for number in range(int(doc.max()) + 1):
            document = ids[doc == number].tolist()
            assert document[0] == known.bos
            assert document[-1] == known.eos
            found.append(document[1:-1])
    return found


def chunks(text: Text, body: int) -> list[list[int]]:
    encoded = [text.tokenizer.encode(row["text"], add_special_tokens=False).ids for row in ROWS]
    cut = [ids[start : start + body] for ids in encoded for start in range(0, len(ids), body)]
    return [chunk for chunk in cut if len(chunk) >= 2]


def test_packed_rows_hold_every_chunk_once(tmp_path: Path) -> None:
    text = fitted(tmp_path)
    units = batch(text)
    assert units.values.shape[1] == 32
    assert sorted(bodies(text, units)) == sorted(chunks(text, 30))


def test_packed_rows_say_where_documents_stand(tmp_path: Path) -> None:
    text = fitted(tmp_path, max_document=20)
    units = batch(text)
    sites = units.sites
    assert sites.max_len == 20
    bounds = sites.cu_seqlens.tolist()
    assert bounds[-1] == units.values.numel()
    assert all(edge in bounds for edge in range(0, bounds[-1] + 1, 32))  # rows end where a segment ends
    doc, place, key = (field.flatten() for field in (sites.doc, sites.place, sites.sample))
    seen = set()
    for start, stop in pairwise(bounds):
        if start == stop or doc[start] < 0:
            continue
        assert len(set(doc[start:stop].tolist())) == len(set(key[start:stop].tolist())) == 1
        assert place[start:stop].tolist() == list(range(stop - start))
        seen.add(int(key[start]))
    assert len(seen) == len(chunks(text, 18))  # a key for each document
    assert torch.equal(sites.real(), sites.doc >= 0)
    special = (units.values == text.vocabulary.bos) | (units.values == text.vocabulary.eos)
    assert torch.equal(sites.fixed, special)


def test_padded_rows_are_the_packed_documents_with_their_keys(tmp_path: Path) -> None:
    packed, padded = fitted(tmp_path), fitted(tmp_path, layout=Layout.padded)
    together, alone = batch(packed), batch(padded)
    by_key = {
        int(alone.sites.sample[i, 0]): alone.values[i][alone.sites.real()[i]].tolist() for i in range(alone.sites.rows)
    }
    for ids, doc, key in zip(together.values, together.sites.doc, together.sites.sample, strict=True):
        for number in range(int(doc.max()) + 1):
            here = doc == number
            assert by_key.pop(int(key[here][0])) == ids[here].tolist()
    assert not by_key


def test_joined_rows_may_begin_alike(tmp_path: Path) -> None:
    """RoBERTa: <s> at the beginning of every row, </s> between documents, and nothing lost but the rest."""
    text = fitted(tmp_path, layout=Layout.joined, bos_rows=True, length=16)
    values, known = batch(text).values, text.vocabulary
    assert (values[:, 0] == known.bos).all() and (values[:, 1:] != known.bos).all()
    plain = batch(fitted(tmp_path, layout=Layout.joined, bos=False, length=16)).values.flatten()
    body = values[:, 1:].flatten()
    assert len(body) == (sum(count + 1 for count in COUNTS if count >= 2)) // 15 * 15
    shared = min(len(plain), len(body))
    assert torch.equal(body[:shared], plain[:shared])
    alone = batch(text, clean=True)
    assert (alone.values[:, 0] == known.bos).all()
    with pytest.raises(Mismatch, match="only rows of joined documents"):
        fitted(tmp_path, bos_rows=True).specs()


TEXTS = [
    {"text": "One is 1.5 now. Two ends here! Is it three?\nA line without a stop\nand another"},
    {"text": "A sentence that is so long that no row of this test has room for it. Short. Short again."},
] * 6


def test_joined_rows_may_hold_whole_sentences(tmp_path: Path) -> None:
    """A row ends after a sentence or a document; only what is longer than a row is cut elsewhere."""
    data = datasets.Dataset.from_list(TEXTS)
    config = TextConfig(
        kind=TokenizerKind.bpe, vocabulary=261, layout=Layout.joined, length=40, bos_rows=True, whole=True
    )
    text = Text(config, DataConfig())
    text.fit(data, tmp_path)
    items = text.items(data, clean=False)
    units = collate([text(items[i], i, Rng(0), clean=False) for i in range(len(items))])["text"]
    assert units.values.shape[1] == 40 and units.sites.valid is not None
    assert (units.values[:, 0] == text.vocabulary.bos).all()
    rows = [
        text.tokenizer.decode(row[real][1:].tolist(), skip_special_tokens=False)
        for row, real in zip(units.values, units.sites.valid, strict=True)
    ]
    joined = "".join(rows)
    assert all(row["text"] + "</s>" in joined for row in TEXTS[:2])
    inside = [row for row in rows if not row.endswith((".", "!", "?", "\n", "</s>"))]
    assert inside and all(len(row) == 39 and row in TEXTS[1]["text"] for row in inside)
    assert not any(row.endswith("1.") for row in rows)
    assert any(row.endswith("A line without a stop\nand another</s>") for row in rows)
    with pytest.raises(Mismatch, match="only rows of joined documents"):
        TextConfig(whole=True, vocabulary=300).check()


def test_joined_rows_are_full_and_in_one_stream(tmp_path: Path) -> None:
    text = fitted(tmp_path, layout=Layout.joined, bos=False, eos=False, length=16)
    units = batch(text)
    assert units.sites.valid is None
    assert units.sites.doc is None
    assert units.sites.fixed is None
    assert units.values.numel() == sum(count for count in COUNTS if count >= 2) // 16 * 16


def test_clean_rows_are_the_beginnings_in_order(tmp_path: Path) -> None:
    text = fitted(tmp_path)
    units = batch(text, clean=True)
    assert units.sites.rows == len(ROWS)
    assert units.sites.doc is None
    assert units.sites.sample[:, 0].tolist() == list(range(len(ROWS)))
    for row, ids, real in zip(ROWS, units.values, units.sites.real(), strict=True):
        encoded = text.tokenizer.encode(row["text"], add_special_tokens=False).ids
        assert ids[real].tolist() == [text.vocabulary.bos, *encoded[:30], text.vocabulary.eos]


def test_uncut_documents_keep_their_beginning(tmp_path: Path) -> None:
    text = fitted(tmp_path, cut=False)
    assert len(bodies(text, batch(text))) == sum(count >= 2 for count in COUNTS)


def test_the_order_is_the_seed(tmp_path: Path) -> None:
    same = [batch(fitted(tmp_path, seed=seed)).values for seed in (1, 1, 2)]
    assert torch.equal(same[0], same[1])
    assert not torch.equal(same[0], same[2])


def test_sizes_are_known_without_data(tmp_path: Path) -> None:
    config = TextConfig(vocabulary=30522, length=512, max_document=128)
    spec = Text(config, DataConfig()).specs()["text"]
    assert (spec.width, spec.length, spec.max_len, spec.vocabulary.mask) == (30522, 512, 128, 4)
    fit = fitted(tmp_path)
    assert fit.specs() == Text(fit.config, DataConfig()).specs()


def test_a_tokenizer_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "own.json"
    save(train(iter(row["text"] for row in ROWS), TokenizerKind.bpe, 280), file)
    config = TextConfig(tokenizer=str(file), vocabulary=None, length=32)
    text = Text(config, DataConfig())
    assert text.specs()["text"].width == 280
    text.fit(DATA, tmp_path / "encoder")
    assert (tmp_path / "encoder" / "tokenizer.json").is_file()
    assert text.preprocess()["tokenizer"] == "tokenizer.json"


def test_a_second_fit_reads_the_first(tmp_path: Path) -> None:
    fitted(tmp_path)
    before = (tmp_path / "tokenizer.json").read_bytes()
    other = datasets.Dataset.from_dict({"text": ["quite other words"] * 9})
    text = Text(TextConfig(vocabulary=300, length=32), DataConfig())
    text.fit(other, tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == before


def test_encoded_texts_are_kept(tmp_path: Path) -> None:
    first = fitted(tmp_path, cache=str(tmp_path / "cache"))
    values = batch(first).values
    files = sorted((tmp_path / "cache").iterdir())
    assert len(files) == 2
    again = fitted(tmp_path, cache=str(tmp_path / "cache"))
    again._tokenizer.encode_batch_fast = None  # type: ignore[method-assign, union-attr]
    assert torch.equal(batch(again).values, values)


def test_workers_get_no_documents(tmp_path: Path) -> None:
    text = fitted(tmp_path)
    items = text.items(DATA, clean=False)
    sent = pickle.loads(pickle.dumps(text))
    assert sent._documents == {}
    row, same = (t(items[0], 0, Rng(0), clean=False)["text"] for t in (text, sent))
    assert torch.equal(row.values, same.values)


def test_special_tokens_in_a_text_are_text(tmp_path: Path) -> None:
    text = fitted(tmp_path)
    assert text.vocabulary.mask not in text.tokenizer.encode("alpha [MASK] beta").ids


def test_drawing_shows_given_hidden_and_predicted(tmp_path: Path) -> None:
    text = fitted(tmp_path)
    units = batch(text, clean=True)
    given = units.values.clone()
    given[0, 1] = text.vocabulary.mask
    where = torch.tensor([1, 0])
    plan = Plan(
        inputs=Units(values=given, sites=units.sites),
        sites=units.sites,
        where=where,
        weight=torch.tensor([1.0, 0.0]),
    )
    scores = torch.zeros(2, 300)
    scores[:, text.tokenizer.token_to_id("delta")] = 1.0
    drawn = text.draw(units, plan, scores)
    lines = drawn.content.decode().splitlines()
    assert lines[0].split()[:4] == ["given", "[CLS]", "[MASK]", "beta"]
    assert lines[1].split() == ["hidden", "alpha"]
    assert lines[2].split() == ["predicted", "delta"]
    assert text.draw(units, plan, torch.zeros(2, 7)) is None


def test_wrong_input(tmp_path: Path) -> None:
    with pytest.raises(Mismatch, match="max_document: 64 is not between 3 and length=32"):
        TextConfig(length=32, max_document=64).check()
    with pytest.raises(ValueError, match="no document has min_document=500"):
        batch(fitted(tmp_path, min_document=500))
    text = Text(TextConfig(vocabulary=300), DataConfig(column="body"))
    with pytest.raises(ValueError, match="there is no column 'body'"):
        text.fit(DATA, tmp_path / "other")


def test_a_template_is_filled_with_columns(tmp_path: Path) -> None:
    """As if the data had held the whole text; a prompt of a user's is put there too."""
    rows = datasets.Dataset.from_dict({"de": ["alpha beta", "gamma"], "en": ["zeta", "eta theta"]})
    whole = datasets.Dataset.from_dict({"text": ["say zeta as alpha beta", "say eta theta as gamma"]})
    made = [
        Text(TextConfig(vocabulary=300, template=t, min_document=1), DataConfig()) for t in ("say {en} as {de}", None)
    ]
    found = []
    for text, data in zip(made, (rows, whole), strict=True):
        text.fit(data, tmp_path / str(text.config.template is None))
        items = text.items(data, clean=True)
        found.append([text(items[i], i, Rng(0), clean=True)["text"].values.tolist() for i in range(2)])
    assert found[0] == found[1]
    assert made[0].prompt("say zeta as alpha beta", ended=True).tolist() == found[0][0]  # two columns: as it is
    one = Text(TextConfig(vocabulary=300, template="say {en} as alpha beta"), DataConfig())
    one.fit((), tmp_path / "True")
    assert one.prompt("zeta", ended=True).tolist() == found[0][0]
    assert one.prompt("zeta", ended=False).tolist() == found[0][0][:-1]
    with pytest.raises(ValueError, match=r"there is no column 'fr'.*the data have de, en"):
        Text(TextConfig(vocabulary=300, template="{fr}"), DataConfig()).fit(rows, tmp_path / "none")
    with pytest.raises(Mismatch, match="names no column in braces"):
        Text(TextConfig(template="no braces"), DataConfig()).specs()


def test_a_prompt_may_hold_special_tokens(tmp_path: Path) -> None:
    text = fitted(tmp_path)
    known = text.vocabulary
    ids = text.prompt("alpha [MASK] beta", ended=True).tolist()
    assert ids[0] == known.bos and ids[2] == known.mask and ids[-1] == known.eos and len(ids) == 5
    assert text.text(ids) == "alpha beta" and text.start().tolist() == [known.bos]
    held = datasets.Dataset.from_dict({"text": ["alpha [MASK] beta"]})
    assert known.mask not in text.documents(held).tokens.tolist()
