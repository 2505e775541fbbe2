"""The small languages: the same words in every language, in the order that the label says."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from encdec_train.data.sources.grammars import (
    ADJECTIVES,
    LANGUAGES,
    NOUNS,
    OBJECT,
    SUBJECT,
    VERBS,
    Grammars,
    GrammarsConfig,
    Sentence,
    speak,
)
from encdec_train.types import Mismatch


def test_what_is_said_is_the_same_in_all_languages() -> None:
    for said in Grammars(GrammarsConfig()).think(Random(0)):
        spoken = [speak(said, language) for language in LANGUAGES]
        bags = {tuple(sorted(text.rstrip(".").split())) for text in spoken}
        assert len(bags) == 1 and len(set(spoken)) == len(LANGUAGES)


def test_examples() -> None:
    said = Sentence("sees", ("fox", None), ("cat", "old"))
    assert speak(said, "osv_last") == "old cat wo fox ga sees."
    assert speak(said, "vso_first") == "sees ga fox wo cat old."


def test_rows_follow_their_label() -> None:
    rows = Grammars(GrammarsConfig(rows=120))("train")
    assert Counter(rows["label"]) == dict.fromkeys(range(12), 10)
    kinds = {**dict.fromkeys(VERBS, "v"), SUBJECT: "s", OBJECT: "o"}
    for row in rows:
        name = rows.features["label"].int2str(row["label"])
        for sentence in row["text"].split(". "):
            words = sentence.rstrip(".").split()
            assert "".join(kinds[word] for word in words if word in kinds) == name[:3]
            nouns = [i for i, word in enumerate(words) if word in NOUNS]
            beside = -1 if name.endswith("first") else 1  # where a noun's role stands
            assert {words[i + beside] for i in nouns} == {SUBJECT, OBJECT}


def test_a_document_has_its_cast() -> None:
    for row in Grammars(GrammarsConfig(rows=60, nouns=3, verbs=2))("train"):
        words = row["text"].replace(".", "").split()
        assert len({word for word in words if word in NOUNS}) <= 3
        assert len({word for word in words if word in VERBS}) <= 2
        assert len({word for word in words if word in ADJECTIVES}) <= 3
        assert row["text"].count(".") == 4


def test_rows_are_repeatable_and_splits_differ() -> None:
    source = Grammars(GrammarsConfig(rows=60))
    assert source("train")["text"] == source("train")["text"]
    assert len(source("test")) == 12
    assert not set(source("train")["text"]) & set(source("test")["text"])


@pytest.mark.parametrize("name,value", [("rows", 4), ("sentences", 0), ("nouns", 1), ("nouns", 13), ("adjective", 1.5)])
def test_out_of_range(name: str, value: float) -> None:
    with pytest.raises(Mismatch, match=name):
        Grammars(GrammarsConfig(**{name: value}))
