"""Which tokens make a word, against what a collator of transformers takes for one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import datasets
import pytest
import torch
from tokenizers.processors import ByteLevel
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

from encdec_train.build import check, dry_run, make_transform
from encdec_train.corruptions.token_mask import TokenMask, TokenMaskConfig
from encdec_train.data.config import DataConfig
from encdec_train.data.example import collate
from encdec_train.data.tokenizers import TokenizerKind
from encdec_train.data.transforms.text import Layout, Text, TextConfig
from encdec_train.data.words import word_of
from encdec_train.launch import compose
from encdec_train.rng import Rng
from encdec_train.types import Mismatch, Units
from encdec_train.types import Path as Way

PLAIN = "the reviewers reconsidered seventeen manuscripts about photosynthesis before breakfast on thursday " * 4
SIGNS = 'He said: "don\'t re-read it," and left (twice). '
DATA = datasets.Dataset.from_list([{"text": PLAIN}, {"text": PLAIN[40:]}, {"text": SIGNS + PLAIN}])


class Keyed:
    def __init__(self, step: int = 0) -> None:
        self.rng = Rng(0, step)


def fitted(folder: Path, kind: TokenizerKind = TokenizerKind.wordpiece, **changes: object) -> Text:
    settings = {"kind": kind, "vocabulary": 300 if kind is TokenizerKind.bpe else 90, "length": 512, "words": True}
    text = Text(TextConfig(**{**settings, **changes}), DataConfig())
    text.fit(DATA, folder)
    return text


def batch(text: Text, rows: datasets.Dataset = DATA) -> Units:
    items = text.items(rows, clean=False)
    return collate([text(items[i], i, Rng(0), clean=False) for i in range(len(items))])["text"]


def collator(text: Text, ratio: float = 0.15) -> DataCollatorForLanguageModeling:
    names = {"pad_token": 0, "unk_token": 1, "cls_token": 2, "sep_token": 3, "mask_token": 4}
    special = {name: text.tokenizer.id_to_token(i) for name, i in names.items()}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=text.tokenizer, **special)
    return DataCollatorForLanguageModeling(
        tokenizer, whole_word_mask=True, mlm_probability=ratio, mask_replace_prob=1.0, random_replace_prob=0.0, seed=0
    )


def starts(rows: list[int]) -> list[bool]:
    return [a != b for a, b in zip([-1, *rows], rows, strict=False)]


@pytest.mark.parametrize(
    ("kind", "written"), [(TokenizerKind.wordpiece, PLAIN), (TokenizerKind.bpe, PLAIN), (TokenizerKind.bpe, SIGNS)]
)
def test_words_are_those_of_transformers(kind: TokenizerKind, written: str, tmp_path: Path) -> None:
    text = fitted(tmp_path, kind)
    if kind is TokenizerKind.bpe:
        text.tokenizer.post_processor = ByteLevel(trim_offsets=True)  # as transformers' own tokenizers of bytes have it
    found = text.tokenizer.encode(written.strip(), add_special_tokens=False)
    offsets = torch.tensor([found.offsets]).numpy()
    special = torch.zeros(1, len(found.ids)).numpy()
    theirs, _ = collator(text)._calc_word_ids_and_prob_mask(offsets, special)
    ours = word_of(torch.tensor(found.ids), text._openings)
    assert starts(ours.tolist()) == starts(theirs[0].tolist())
    assert len(ours.unique()) == len(written.split()) < len(ours)


def test_word_pieces_part_at_signs_too(tmp_path: Path) -> None:
    """Spaces are lost to them: the words are those of BERT's authors."""
    text = fitted(tmp_path)
    pieces = [text.tokenizer.id_to_token(i) for i in text.tokenizer.encode(SIGNS, add_special_tokens=False).ids]
    words = word_of(torch.tensor([text.tokenizer.token_to_id(piece) for piece in pieces]), text._openings)
    assert starts(words.tolist()) == [not piece.startswith("##") for piece in pieces]


@pytest.mark.parametrize("layout", Layout)
def test_every_layout_tells_the_same_words(layout: Layout, tmp_path: Path) -> None:
    text = fitted(tmp_path, layout=layout, length=64 if layout is Layout.joined else 512)
    units = batch(text)
    sites = units.sites
    assert text.specs()["text"].words and sites.word.shape == units.values.shape
    real = sites.real()
    pieces = [[text.tokenizer.id_to_token(i) for i in row] for row in units.values.tolist()]
    inside = torch.tensor([[piece.startswith("##") for piece in row] for row in pieces])
    first = (sites.place == 0) | ~inside
    assert torch.equal((sites.word == sites.place)[real], first[real])
    assert (sites.word <= sites.place).all() and (sites.word.diff(dim=1)[~first[:, 1:] & real[:, 1:]] == 0).all()


def test_nothing_is_told_unasked(tmp_path: Path) -> None:
    text = fitted(tmp_path, words=False)
    spec = text.specs()["text"]
    assert not spec.words and batch(text).sites.word is None
    with pytest.raises(Mismatch, match="words=true"):
        TokenMaskConfig(whole_words=True).spec(replace(spec, kind="vectors", raw=spec))


def test_words_are_hidden_whole_as_often_as_by_transformers(tmp_path: Path) -> None:
    """The share of the tokens that are predicted, over many draws, and every word of every draw."""
    text = fitted(tmp_path, layout=Layout.padded)
    units, spec = batch(text), text.specs()["text"]
    config = TokenMaskConfig(ratio=0.2, whole_words=True)
    part = TokenMask(config, config.spec(replace(spec, kind="vectors", raw=spec)))
    masks = torch.stack([part(units, units.sites, Keyed(step), Way()).mask for step in range(200)])  # (200,B,N)
    free = units.sites.open()
    for row in range(units.sites.rows):
        for word in units.sites.word[row][free[row]].unique():
            these = masks[:, row, (units.sites.word[row] == word) & free[row]]
            assert torch.equal(these.all(1), these.any(1))
    ours = masks[:, free].float().mean().item()
    other = collator(text, 0.2)
    inputs = [text.tokenizer.encode(row["text"], add_special_tokens=False) for row in DATA]
    examples = [
        {"input_ids": x.ids, "offset_mapping": x.offsets, "special_tokens_mask": [0] * len(x.ids)} for x in inputs[:1]
    ]
    theirs = torch.stack([other([dict(example) for example in examples])["labels"] >= 0 for _ in range(200)])
    assert abs(ours - 0.2) < 0.01 and abs(theirs.float().mean().item() - 0.2) < 0.015
    assert masks.flatten(1).sum(1).max() < config.capacity(units.values.numel())


def test_a_corruption_that_asks_for_words_is_told() -> None:
    """One override is enough, and a step runs with it on the meta device."""
    assert not make_transform(compose(["+recipe=bert"])).specs()["text"].words
    config = compose(["+recipe=bert", "corruption.main.whole_words=true"])
    views = make_transform(config).specs()
    assert views["text"].words and dry_run(config, check(config, views)).unused == []
