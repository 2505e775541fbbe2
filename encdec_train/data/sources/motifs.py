"""Motif graphs: a random tree with copies of one motif hung on it; which motif is the label.

In the manner of GNNExplainer's tree and Barabasi-Albert benchmarks (Ying et al. 2019, arXiv:1903.03894),
with features like those of a citation graph: every node carries a set of words. A node speaks of the topic
of its place in the motif, but half of its words are noise, and motifs share topics. So one node says
little, a node with its neighbours says much, and that is what masked feature prediction can learn.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np

from encdec_train.data.config import GraphDataConfig
from encdec_train.registry import sources
from encdec_train.rng import key_of
from encdec_train.types import Mismatch

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Motif:
    """A small graph: the topic of each node, and its edges."""

    name: str
    topics: tuple[int, ...]
    edges: tuple[tuple[int, int], ...]


MOTIFS = (
    Motif("house", (0, 1, 1, 2, 2), ((0, 1), (0, 2), (1, 2), (1, 3), (2, 4), (3, 4))),
    Motif("cycle", (0, 1, 2, 0, 1, 2), ((0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0))),
    Motif("star", (0, 2, 2, 2, 1, 1), ((0, 1), (0, 2), (0, 3), (0, 4), (0, 5))),
    Motif("clique", (0, 0, 1, 1, 2), tuple((i, j) for i in range(5) for j in range(i))),
    Motif("grid", (2, 1, 0, 0, 1, 2), ((0, 1), (1, 2), (3, 4), (4, 5), (0, 3), (1, 4), (2, 5))),
    Motif("path", (1, 0, 2, 2, 0, 1), ((0, 1), (1, 2), (2, 3), (3, 4), (4, 5))),
)
TOPICS = 3  # of motifs; the tree's nodes speak of one more


@dataclass(kw_only=True)
class MotifsConfig(GraphDataConfig):
    rows: int = 1500  # graphs of the training split; the test split has a third
    features: int = 128  # words of the vocabulary
    copies: int = 3  # motifs in one graph
    tree: int = 10  # nodes of the tree, give or take a third
    words: int = 20  # words that a node draws
    signal: float = 0.5  # chance that a word is of the node's topic; else it is any word
    rewired: float = 0.1  # edges between random nodes, for each edge of the graph

    def check(self) -> None:
        for name in ("rows", "copies", "tree", "words"):
            if getattr(self, name) < 1:
                raise Mismatch(f"data 'motifs'.{name}: {getattr(self, name)} is below 1")
        if self.features < TOPICS + 1:
            raise Mismatch(f"data 'motifs'.features: {self.features} words do not cover {TOPICS + 1} topics")
        for name in ("signal", "rewired"):
            if not 0 <= getattr(self, name) <= 1:
                raise Mismatch(f"data 'motifs'.{name}: {getattr(self, name)} is not in [0, 1]")


@sources.register("motifs", MotifsConfig)
class Motifs:
    """Rows of `features` (N lists of numbers), `edges` (sources, destinations) and `label` (the motif)."""

    def __init__(self, config: MotifsConfig) -> None:
        config.check()
        self.config = config

    def __call__(self, split: str) -> Dataset:
        from datasets import ClassLabel, Dataset, Features, Sequence, Value

        count = self.config.rows if split == self.config.train else max(1, self.config.rows // 3)
        features = Features(
            {
                "features": Sequence(Sequence(Value("uint8"))),
                "edges": Sequence(Sequence(Value("int32"))),
                "label": ClassLabel(names=[motif.name for motif in MOTIFS]),
            }
        )
        return Dataset.from_list([self.row(split, i) for i in range(count)], features=features)

    def row(self, split: str, index: int) -> dict[str, Any]:
        """One graph; classes take turns, so that every split is balanced."""
        random = Random(key_of("motifs", split, index))
        label = index % len(MOTIFS)
        topics, edges = self.grow(MOTIFS[label], random)
        order = list(range(len(topics)))
        random.shuffle(order)  # a node's number says nothing
        new = {old: place for place, old in enumerate(order)}
        return {
            "features": np.stack([self.speak(topics[old], random) for old in order]),
            "edges": [[new[a] for a, _ in edges], [new[b] for _, b in edges]],
            "label": label,
        }

    def grow(self, motif: Motif, random: Random) -> tuple[list[int], list[tuple[int, int]]]:
        """Topics of the nodes and edges of one graph: a tree, then the motifs, then a few random edges."""
        spread = self.config.tree // 3
        size = self.config.tree + random.randint(-spread, spread)
        topics = [TOPICS] * size
        edges = [(node, random.randrange(node)) for node in range(1, size)]
        for _ in range(self.config.copies):
            start = len(topics)
            topics += motif.topics
            edges += [(start + a, start + b) for a, b in motif.edges]
            edges.append((start + random.randrange(len(motif.topics)), random.randrange(size)))
        for _ in range(round(self.config.rewired * len(edges))):
            edges.append((random.randrange(len(topics)), random.randrange(len(topics))))
        return topics, edges

    def speak(self, topic: int, random: Random) -> np.ndarray:
        """(C,) uint8, a set of words as zeros and ones: some of the topic's own words, some of all words."""
        total = self.config.features
        own = total // (TOPICS + 1)
        said = np.zeros(total, np.uint8)
        for _ in range(self.config.words):
            if random.random() < self.config.signal:
                said[topic * own + int(random.random() * own)] = 1
            else:
                said[int(random.random() * total)] = 1
        return said
