from __future__ import annotations

from collections import Counter

import pytest

from encdec_train.data.sources.motifs import MOTIFS, TOPICS, Motifs, MotifsConfig
from encdec_train.types import Mismatch

SMALL = MotifsConfig(rows=60, features=40)


def test_rows_are_the_same_every_time_and_differ_between_splits() -> None:
    first, again = Motifs(SMALL)("train"), Motifs(SMALL)("train")
    assert len(first) == 60 and first[:] == again[:]
    assert len(Motifs(SMALL)("test")) == 20
    assert Motifs(SMALL)("test")[0]["edges"] != first[0]["edges"]


def test_classes_are_balanced_and_named() -> None:
    rows = Motifs(SMALL)("train")
    assert set(Counter(rows["label"]).values()) == {10}
    assert rows.features["label"].names == [motif.name for motif in MOTIFS]


def test_rows_are_graphs() -> None:
    for row in Motifs(SMALL)("test"):
        nodes = len(row["features"])
        assert all(len(words) == 40 and 1 <= sum(words) <= SMALL.words for words in row["features"])
        sources, targets = row["edges"]
        assert len(sources) == len(targets)
        assert all(0 <= node < nodes for node in sources + targets)


def test_the_motifs_are_there() -> None:
    """Every copy brings its nodes, its edges, one edge to the tree, and all is connected."""
    for index, motif in enumerate(MOTIFS):
        row = Motifs(MotifsConfig(rewired=0.0, tree=3, copies=2)).row("train", index)
        size = len(row["features"]) - 2 * len(motif.topics)
        assert 2 <= size <= 4
        assert len(row["edges"][0]) == size - 1 + 2 * (len(motif.edges) + 1)
        reached = {0}
        pairs = list(zip(*row["edges"], strict=True))
        for _ in row["features"]:
            reached |= {b for a, b in pairs if a in reached} | {a for a, b in pairs if b in reached}
        assert len(reached) == len(row["features"])


def test_single_words_say_little_about_the_motif() -> None:
    """No motif lacks a topic, so that the words of a graph alone hardly tell which motif it is."""
    assert all(set(motif.topics) == set(range(TOPICS)) for motif in MOTIFS)


@pytest.mark.parametrize(
    "settings,said",
    [({"rows": 0}, "rows: 0"), ({"features": 3}, "3 words"), ({"signal": 1.5}, "signal: 1.5")],
)
def test_ranges(settings: dict[str, float], said: str) -> None:
    with pytest.raises(Mismatch, match=said):
        Motifs(MotifsConfig(**settings))  # type: ignore[arg-type]
