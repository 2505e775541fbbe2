"""Names of characters: there, the same every time, split without overlap, with categories."""

from __future__ import annotations

import unicodedata

import pytest

from encdec_train.data.sources.characters import Characters, CharactersConfig
from encdec_train.types import Mismatch


def test_rows_labels_and_splits() -> None:
    source = Characters(CharactersConfig())
    train, test = source("train"), source("test")
    assert len(train) > 10_000
    assert abs(len(test) / (len(train) + len(test)) - 0.1) < 0.01
    assert not set(train["text"]) & set(test["text"])
    assert len(set(train["text"])) == len(train)
    assert source("train")[:50] == train[:50]
    assert train.features["label"].names == test.features["label"].names


def test_labels_are_the_general_category() -> None:
    rows = Characters(CharactersConfig())("test")
    for text, label in zip(rows["text"], rows["label"], strict=True):
        char = unicodedata.lookup(text.upper())
        assert rows.features["label"].int2str(label) == unicodedata.category(char)


def test_every_kind_is_in_the_first_rows() -> None:
    """Probes read the first rows only; code points stand in blocks of one script."""
    rows = Characters(CharactersConfig())("train")
    assert len(set(rows["label"][:5000])) >= len(set(rows["label"])) - 4


def test_names_are_words() -> None:
    every = [name for _, name in Characters(CharactersConfig(shortest=4)).names()]
    assert all(name.count(" ") >= 3 and name == name.lower() for name in every)
    assert not any(char.isdigit() for name in every for char in name)
    assert "latin small letter e with acute" in every and "latin small letter e" in every
    assert not [name for name in every if name.startswith("hangul syllable")]


def test_ranges() -> None:
    with pytest.raises(Mismatch, match="shortest: 0"):
        Characters(CharactersConfig(shortest=0))
