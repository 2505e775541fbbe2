"""Tokenizers: ids known beforehand, texts that come back, the same pieces every time."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from encdec_train.data.tokenizers import (
    TokenizerKind,
    byte_counts,
    load,
    read_vocabulary,
    save,
    special_tokens,
    train,
    vocabulary,
)
from encdec_train.types import Mismatch

TEXTS = [
    "The quick brown fox jumps over the lazy dog; the dog sleeps.",
    "def forward(self, x):\n    return self.norm(x) + x",
    "Ein Café in Zürich öffnet um acht, schließt um neun.",
    "Tokens, tokens and more tokens: packing packed packs.",
] * 5
KINDS = list(TokenizerKind)


def trained(kind: TokenizerKind, size: int = 400, sentinels: int = 0) -> Tokenizer:
    return train(iter(TEXTS), kind, size, sentinels)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sentinels", [0, 7])
def test_ids_are_known_before_training(kind: TokenizerKind, sentinels: int) -> None:
    known = vocabulary(kind, 400, sentinels)
    tokenizer = trained(kind, sentinels=sentinels)
    assert read_vocabulary(tokenizer, 400) == known
    assert tokenizer.get_vocab_size() <= 400
    special = special_tokens(kind, sentinels)
    for token in special[:-sentinels] if sentinels else special:
        assert tokenizer.token_to_id(token) == special.index(token)
    if sentinels:
        assert tokenizer.token_to_id("<extra_id_0>") == known.sentinel
        assert tokenizer.token_to_id("<extra_id_6>") == known.sentinel - 6


@pytest.mark.parametrize("kind", [TokenizerKind.bpe, TokenizerKind.byte])
def test_bytes_lose_nothing(kind: TokenizerKind) -> None:
    tokenizer = trained(kind)
    for text in [*TEXTS, "日本語 \t\n\x00 🦊"]:
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_every_byte_is_a_token() -> None:
    tokenizer = trained(TokenizerKind.byte)
    assert tokenizer.get_vocab_size() == 3 + 256
    assert tokenizer.encode("öfen").ids == [byte + 3 for byte in "öfen".encode()]


def test_bytes_are_numbered_as_in_byt5() -> None:
    """All but the sentinels, which transformers numbers upwards and we, as every other tokenizer here, downwards."""
    tokenizer, theirs = trained(TokenizerKind.byte, sentinels=125), ByT5Tokenizer()
    assert tokenizer.get_vocab_size() == len(theirs) == 384
    for text in [*TEXTS, "日本語 \t\n\x00 🦊"]:
        assert [*tokenizer.encode(text).ids, tokenizer.token_to_id("</s>")] == theirs(text).input_ids
    ends = [f"<extra_id_{i}>" for i in range(125)]
    assert {tokenizer.token_to_id(end) for end in ends} == set(theirs.convert_tokens_to_ids(ends))
    assert tokenizer.token_to_id("<extra_id_0>") == 383


def test_unigram_loses_only_spaces() -> None:
    tokenizer = trained(TokenizerKind.unigram)
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text).ids) == " ".join(text.split())


def test_smiles_are_cut_into_atoms_bonds_and_brackets() -> None:
    """Schwaller et al. 2018: brackets are one piece, and so are atoms of two letters and ring numbers after %."""
    text = "C[C@@H](Br)c1cc(Cl)nc%12c1CC%12N=C/F"
    tokenizer = train(iter([text]), TokenizerKind.smiles, 64)
    pieces = " ".join(tokenizer.encode(text).tokens)
    assert pieces == "C [C@@H] ( Br ) c 1 c c ( Cl ) n c %12 c 1 C C %12 N = C / F"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert tokenizer.encode("[nH]").tokens == ["<unk>"]


def test_wordpiece_lowers_and_continues() -> None:
    tokenizer = trained(TokenizerKind.wordpiece)
    assert tokenizer.encode("Tokens").tokens == tokenizer.encode("tokens").tokens
    pieces = tokenizer.encode("sleepspacked").tokens
    assert "".join(piece.removeprefix("##") for piece in pieces) == "sleepspacked"
    assert all(piece.startswith("##") for piece in pieces[1:])
    assert tokenizer.encode("日").tokens == ["[UNK]"]
    assert tokenizer.decode(tokenizer.encode("the lazy dog").ids) == "the lazy dog"


@pytest.mark.parametrize("kind", [TokenizerKind.wordpiece, TokenizerKind.bpe, TokenizerKind.byte])
def test_the_same_texts_give_the_same_tokenizer(kind: TokenizerKind) -> None:
    assert trained(kind).to_str() == trained(kind).to_str()


@pytest.mark.parametrize("kind", KINDS)
def test_saved_is_loaded_here_and_by_transformers(kind: TokenizerKind, tmp_path: Path) -> None:
    tokenizer = trained(kind)
    save(tokenizer, tmp_path / "encoder" / "tokenizer.json")
    ids = tokenizer.encode(TEXTS[0]).ids
    assert load(tmp_path / "encoder").encode(TEXTS[0]).ids == ids
    other = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "encoder" / "tokenizer.json"))
    assert other(TEXTS[0], add_special_tokens=False)["input_ids"] == ids
    assert [file.name for file in (tmp_path / "encoder").iterdir()] == ["tokenizer.json"]


def test_errors_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(Mismatch, match="100 is below the 261 that 'bpe' needs"):
        vocabulary(TokenizerKind.bpe, 100)
    with pytest.raises(Mismatch, match="below the tokenizer's"):
        read_vocabulary(trained(TokenizerKind.bpe), 300)
    with pytest.raises(FileNotFoundError, match=r"no file.*tokenizer\.json"):
        load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"not a tokenizer\.json"):
        load(tmp_path)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not TokenizerKind.smiles])
def test_bytes_of_ids_are_the_bytes_of_texts(kind: TokenizerKind) -> None:
    """Behind the first id of a text the others add the rest of it; special ids add nothing."""
    trained = train(iter(TEXTS), kind, 400)
    counts = byte_counts(trained, 410)
    assert len(counts) == 410 and counts[400:] == [0] * 10
    for text in TEXTS[:4]:
        first, *rest = trained.encode(text, add_special_tokens=False).ids
        if kind in (TokenizerKind.bpe, TokenizerKind.byte):
            assert sum(counts[i] for i in (first, *rest)) == len(text.encode())
        whole, begin = (len(trained.decode(ids).encode()) for ids in ([first, *rest], [first]))
        assert sum(counts[i] for i in rest) == whole - begin
    assert all(counts[i] == 0 for i in trained.get_added_tokens_decoder())
