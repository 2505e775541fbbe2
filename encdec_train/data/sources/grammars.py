"""Small languages out of the box: one vocabulary, many grammars; which grammar is the label.

Languages order subject, verb and object in six ways, and put the head of a phrase first or last (Greenberg 1963,
"Some universals of grammar"). Both together give twelve. A document is a few sentences about a small cast, all in one
language:

    the object first, heads last     old cat wo fox ga sees. fox wo old cat ga helps.
    the verb first, heads first      sees ga fox wo cat old. helps ga cat old wo fox.

What is said does not depend on the language, so the words of a document tell nothing of its label: their order does.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from random import Random
from typing import TYPE_CHECKING, Any

from encdec_train.data.config import DataConfig
from encdec_train.registry import sources
from encdec_train.rng import key_of
from encdec_train.types import Mismatch

if TYPE_CHECKING:
    from datasets import Dataset

NOUNS = ("ant", "bear", "cat", "dog", "eel", "fox", "goat", "hen", "jay", "lion", "mole", "owl")
VERBS = ("asks", "calls", "finds", "helps", "knows", "likes", "meets", "sees")
ADJECTIVES = ("big", "cold", "kind", "new", "old", "red")
SUBJECT, OBJECT = "ga", "wo"  # stand at a noun and say what it is
LANGUAGES = tuple(f"{''.join(order)}_{head}" for order in permutations("svo") for head in ("first", "last"))


@dataclass(frozen=True)
class Sentence:
    """What is said, in no language yet."""

    verb: str
    subject: tuple[str, str | None]  # noun and adjective
    object: tuple[str, str | None]


@dataclass(kw_only=True)
class GrammarsConfig(DataConfig):
    column: str | None = "text"
    rows: int = 3000  # documents of the training split; the test split has a fifth
    sentences: int = 4  # of a document
    nouns: int = 3  # of a document's cast
    verbs: int = 2  # that it uses
    adjective: float = 0.5  # chance of a noun to have its adjective

    def check(self) -> None:
        for name, least, most in (
            ("rows", 5, None),
            ("sentences", 1, None),
            ("nouns", 2, len(NOUNS)),
            ("verbs", 1, len(VERBS)),
        ):
            value = getattr(self, name)
            if value < least or (most is not None and value > most):
                raise Mismatch(f"data 'grammars'.{name}: {value} is not {least} to {most or 'many'}")
        if not 0 <= self.adjective <= 1:
            raise Mismatch(f"data 'grammars'.adjective: {self.adjective} is not in [0, 1]")


@sources.register("grammars", GrammarsConfig)
class Grammars:
    """Rows of `text` (a document) and `label` (its language)."""

    def __init__(self, config: GrammarsConfig) -> None:
        config.check()
        self.config = config

    def __call__(self, split: str) -> Dataset:
        from datasets import ClassLabel, Dataset, Features, Value

        count = self.config.rows if split == self.config.train else self.config.rows // 5
        features = Features(text=Value("string"), label=ClassLabel(names=list(LANGUAGES)))
        return Dataset.from_list([self.row(split, i) for i in range(count)], features=features)

    def row(self, split: str, index: int) -> dict[str, Any]:
        """One document; languages take turns, so that every split is balanced."""
        label = index % len(LANGUAGES)
        said = self.think(Random(key_of("grammars", split, index)))
        return {"text": " ".join(speak(sentence, LANGUAGES[label]) for sentence in said), "label": label}

    def think(self, random: Random) -> list[Sentence]:
        """What a document says: a cast of nouns, each with its adjective, and what they do to each other."""
        config = self.config
        cast = {noun: random.choice(ADJECTIVES) for noun in random.sample(NOUNS, config.nouns)}
        verbs = random.sample(VERBS, config.verbs)

        def phrase(noun: str) -> tuple[str, str | None]:
            return noun, cast[noun] if random.random() < config.adjective else None

        said = []
        for _ in range(config.sentences):
            subject, other = random.sample(list(cast), 2)
            said.append(Sentence(random.choice(verbs), phrase(subject), phrase(other)))
        return said


def speak(sentence: Sentence, language: str) -> str:
    """A sentence in one language, with a full stop."""
    order, _, head = language.partition("_")

    def phrase(noun: str, adjective: str | None, role: str) -> list[str]:
        words = [role, noun, *([adjective] if adjective else [])]
        return words if head == "first" else words[::-1]

    parts = {
        "s": phrase(*sentence.subject, SUBJECT),
        "o": phrase(*sentence.object, OBJECT),
        "v": [sentence.verb],
    }
    return " ".join(word for role in order for word in parts[role]) + "."
