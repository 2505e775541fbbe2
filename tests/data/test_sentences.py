"""Where sentences end, for every kind of tokenizer."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest
import torch

from encdec_train.data.config import DataConfig
from encdec_train.data.example import collate
from encdec_train.data.sentences import Ends, sentence_of
from encdec_train.data.tokenizers import TokenizerKind
from encdec_train.data.transforms.text import Layout, Text, TextConfig
from encdec_train.rng import Rng
from encdec_train.types import Units

SENTENCES = ["The fox sees 1.5 owls in os.path today.", 'Does it (or "not?")', "It does!", "An end"]
DATA = datasets.Dataset.from_list([{"text": " ".join(SENTENCES)}] * 3)


def fitted(folder: Path, kind: TokenizerKind, **changes: object) -> Text:
    settings = {
        "kind": kind,
        "bos": kind is not TokenizerKind.byte,
        "vocabulary": 300,
        "length": 256,
        "sentences": True,
    }
    text = Text(TextConfig(**{**settings, **changes}), DataConfig())
    text.fit(DATA, folder)
    return text


def batch(text: Text) -> Units:
    items = text.items(DATA, clean=False)
    return collate([text(items[i], i, Rng(0), clean=False) for i in range(len(items))])["text"]


@pytest.mark.parametrize("kind", [TokenizerKind.bpe, TokenizerKind.byte, TokenizerKind.unigram])
def test_pieces_that_know_spaces(kind: TokenizerKind, tmp_path: Path) -> None:
    text = fitted(tmp_path, kind)
    ids = torch.tensor(text.tokenizer.encode(DATA[0]["text"], add_special_tokens=False).ids)
    found = sentence_of(ids, Ends.of(text.tokenizer, text.vocabulary))
    decoded = [text.tokenizer.decode(ids[found == i].tolist()).strip() for i in range(int(found.max()) + 1)]
    assert decoded == SENTENCES


def test_word_pieces_end_at_every_sign(tmp_path: Path) -> None:
    """Spaces are lost: a sign ends a sentence unless the word goes on."""
    text = fitted(tmp_path, TokenizerKind.wordpiece)
    ids = torch.tensor(text.tokenizer.encode("it does ! an end . so", add_special_tokens=False).ids)
    pieces = [text.tokenizer.id_to_token(i) for i in ids.tolist()]
    found = sentence_of(ids, Ends.of(text.tokenizer, text.vocabulary)).tolist()
    assert found[pieces.index("!")] == 0 and found[pieces.index("!") + 1] == 1
    assert found[pieces.index(".")] == 1 and found[-1] == 2


@pytest.mark.parametrize("layout", Layout)
def test_the_transform_tells_sentences(layout: Layout, tmp_path: Path) -> None:
    changes = {"length": 40} if layout is Layout.joined else {}
    text = fitted(tmp_path, TokenizerKind.bpe, layout=layout, **changes)
    units = batch(text)
    assert text.specs()["text"].groups and units.sites.group.shape == units.values.shape
    if layout is Layout.padded:
        assert units.sites.group.max(1).values.tolist() == [3, 3, 3]  # special tokens belong to the sentence beside
        assert (units.sites.group[:, 0] == 0).all()
    if layout is Layout.packed:
        starts = units.sites.place == 0
        assert (units.sites.group[starts & (units.sites.doc >= 0)] == 0).all()
    if layout is Layout.joined:
        eos = units.values[:, :-1] == text.vocabulary.eos
        assert (units.sites.group.diff(dim=1)[eos] == 1).all()


def test_nothing_is_told_unasked(tmp_path: Path) -> None:
    text = fitted(tmp_path, TokenizerKind.bpe, sentences=False)
    assert not text.specs()["text"].groups and batch(text).sites.group is None


def test_an_empty_document_has_no_sentence(tmp_path: Path) -> None:
    text = fitted(tmp_path, TokenizerKind.bpe)
    assert sentence_of(torch.zeros(0).long(), Ends.of(text.tokenizer, text.vocabulary)).tolist() == []
