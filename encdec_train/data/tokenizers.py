"""Tokenizers: trained here, kept as one `tokenizer.json`, or loaded from one.

The special tokens have fixed places, so that their ids, and with them the whole `Vocabulary`, are known from the
configuration alone: models are built and checked before any text is read. They come first; where the tokens are bytes,
the sentinels come last, as in ByT5, which has neither a first token nor a mask.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from encdec_train.types import Mismatch, Vocabulary

# Text is encoded before data workers are forked, never in them: no deadlock, and no warning of one.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


class TokenizerKind(Enum):
    """How text becomes pieces."""

    wordpiece = "wordpiece"  # lower case, split at spaces and punctuation (Devlin et al. 2019)
    bpe = "bpe"  # merges over bytes (Radford et al. 2019)
    unigram = "unigram"  # SentencePiece's unigram model (Kudo 2018)
    byte = "byte"  # every byte is a token, numbered as in ByT5 (Xue et al. 2022)
    smiles = "smiles"  # atoms, bonds, branches and ring numbers of molecules (Schwaller et al. 2018)


BYTES = 256
# Atoms in brackets, of two letters and of one, bonds, branches, ring numbers of two digits and of one, and the rest of
# the alphabet of SMILES: the pieces of Schwaller et al. 2018 (arXiv:1711.04810).
SMILES = r"\[[^\]]+\]|Br|Cl|[BCNOPSFIbcnops]|[()]|[-=#:$~/\\.+*?>@]|%[0-9]{2}|[0-9]"
ALPHABET = 1000  # characters that word pieces are made of, the most frequent ones (as for BERT)
_ROLES = ("pad", "unk", "bos", "eos", "mask")
_BRACKETS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_ANGLES = ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
_LEAST = ("<pad>", "</s>", "<unk>")  # of bytes
_NAMES = {"pad": (), "unk": (), "bos": ("<cls>",), "eos": ("<eos>", "<|endoftext|>"), "mask": ()}


def special_tokens(kind: TokenizerKind, sentinels: int) -> list[str]:
    """The special tokens in the order of their ids; the first sentinel has the highest id, as in T5."""
    basic = {TokenizerKind.wordpiece: _BRACKETS, TokenizerKind.byte: _LEAST}.get(kind, _ANGLES)
    return [*basic, *(f"<extra_id_{i}>" for i in reversed(range(sentinels)))]


def vocabulary(kind: TokenizerKind, size: int, sentinels: int = 0) -> Vocabulary:
    """What a tokenizer trained with this configuration will have.

    Raises:
        Mismatch: `size` cannot hold the special tokens (and the 256 bytes, where the pieces are bytes).
    """
    specials = len(special_tokens(kind, sentinels))
    least = specials + (BYTES if kind in (TokenizerKind.bpe, TokenizerKind.byte) else 1)
    if size < least:
        raise Mismatch(f"transform 'text'.vocabulary: {size} is below the {least} that '{kind.value}' needs")
    if kind is TokenizerKind.byte:
        last = least - 1 if sentinels else -1
        return Vocabulary(size=size, pad=0, eos=1, sentinel=last, sentinels=sentinels, specials=len(_LEAST))
    return Vocabulary(
        size=size,
        pad=0,
        bos=2,
        eos=3,
        mask=4,
        sentinel=specials - 1 if sentinels else -1,
        sentinels=sentinels,
        specials=specials,
        learned=True,
    )


def train(texts: Iterator[str], kind: TokenizerKind, size: int, sentinels: int = 0) -> Tokenizer:
    """A tokenizer of at most `size` tokens, learned from `texts`; fewer where the texts do not give as many.

    The same texts give the same tokenizer, except for `unigram`, whose trainer sums in no fixed order.
    """
    vocabulary(kind, size, sentinels)
    special = special_tokens(kind, sentinels)
    if kind is TokenizerKind.wordpiece:
        return _train_wordpiece(texts, size, special)
    if kind is TokenizerKind.unigram:
        return _train_unigram(texts, size, special)
    if kind is TokenizerKind.smiles:
        return _train_smiles(texts, size, special)
    if kind is TokenizerKind.byte:
        return _bytes(special)
    return _train_bpe(texts, size, special)


def _special(tokens: Iterable[str]) -> list[AddedToken]:
    return [AddedToken(token, special=True, normalized=False) for token in tokens]


def _train_wordpiece(texts: Iterator[str], size: int, special: list[str]) -> Tokenizer:
    """BERT's pieces, by merges as in BPE.

    The trainer numbers "##x" in the order of a hash table and breaks ties by number. Its result is repeatable only
    if these pieces have numbers before it starts, which special tokens do; afterwards they are ordinary again.
    """
    normalizer = normalizers.BertNormalizer()
    counts: Counter[str] = Counter()
    kept = []
    for text in texts:
        kept.append(normalizer.normalize_str(text))
        counts.update(kept[-1])
    room = max((size - len(special)) // 4, 1)
    common = sorted((char for char in counts if not char.isspace()), key=lambda char: (-counts[char], char))
    alphabet = sorted(common[: min(ALPHABET, room)])
    trained = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # type: ignore[call-arg]
    trained.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=_special([*special, *(f"##{char}" for char in alphabet)]),
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    trained.train_from_iterator(kept, trainer)
    tokenizer = Tokenizer(models.WordPiece(trained.get_vocab(), unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = trained.pre_tokenizer
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(_special(special))
    return tokenizer


def _train_unigram(texts: Iterator[str], size: int, special: list[str]) -> Tokenizer:
    """Spaces are part of the pieces, as in SentencePiece."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=size, special_tokens=_special(special), unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _train_bpe(texts: Iterator[str], size: int, special: list[str]) -> Tokenizer:
    """Merges over bytes, so that nothing is unknown; no merges where `size` leaves no room for any."""
    tokenizer = _byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=_special(special),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _train_smiles(texts: Iterator[str], size: int, special: list[str]) -> Tokenizer:
    """The pieces that occur, the most frequent ones first; other ones are unknown."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))  # type: ignore[call-arg]
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(SMILES), "isolated")
    tokenizer.decoder = decoders.Fuse()
    trainer = trainers.WordLevelTrainer(vocab_size=size, special_tokens=_special(special), show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _bytes(special: list[str]) -> Tokenizer:
    """Nothing is learned: the byte b has the id b + 3, between the first special tokens and the sentinels."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())  # one for each byte: itself, or one above for the unprintable
    above = (letter for letter in letters if ord(letter) >= BYTES)
    pieces = [chr(byte) if chr(byte) in letters else next(above) for byte in range(BYTES)]
    tokens = [*special[: len(_LEAST)], *pieces, *special[len(_LEAST) :]]
    tokenizer = _byte_level(models.BPE({token: i for i, token in enumerate(tokens)}, []))
    tokenizer.add_special_tokens(_special(special))
    return tokenizer


def _byte_level(model: models.BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def load(path: str | Path) -> Tokenizer:
    """A tokenizer from its `tokenizer.json`, or from the folder that holds one.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: the file is not a tokenizer.
    """
    file = Path(path)
    file = file / "tokenizer.json" if file.is_dir() else file
    if not file.is_file():
        raise FileNotFoundError(f"transform 'text'.tokenizer: there is no file '{file}'")
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:
        raise ValueError(f"transform 'text'.tokenizer: '{file}' is not a tokenizer.json: {error}") from error


def save(tokenizer: Tokenizer, file: Path) -> None:
    """Write `tokenizer.json` whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    tokenizer.save(str(part))
    os.replace(part, file)


def read_vocabulary(tokenizer: Tokenizer, size: int | None = None) -> Vocabulary:
    """The special ids of any tokenizer, found by their usual names.

    Args:
        tokenizer: trained anywhere.
        size: rows of the model's table; none: as many as the tokenizer has tokens.

    Raises:
        Mismatch: the tokenizer has more than `size` tokens.
    """
    ids = tokenizer.get_vocab(with_added_tokens=True)
    tokens = max(ids.values()) + 1
    if size is not None and tokens > size:
        raise Mismatch(f"transform 'text'.vocabulary: {size} is below the tokenizer's {tokens} tokens")

    def find(role: str) -> int:
        i = _ROLES.index(role)
        names = (_BRACKETS[i], _ANGLES[i], *_NAMES[role])
        return next((ids[name] for name in names if name in ids), -1)

    sentinels = sum(f"<extra_id_{i}>" in ids for i in range(len(ids)))
    leading = {token for token in (find(role) for role in _ROLES) if token >= 0}
    leading |= {ids[f"<extra_id_{i}>"] for i in range(sentinels)}
    specials = next(i for i in range(tokens + 1) if i not in leading)
    return Vocabulary(
        size=size or tokens,
        pad=max(find("pad"), 0),
        mask=find("mask"),
        bos=find("bos"),
        eos=find("eos"),
        sentinel=ids["<extra_id_0>"] if sentinels else -1,
        sentinels=sentinels,
        specials=specials,
    )


def byte_counts(tokenizer: Tokenizer, size: int) -> list[int]:
    """Bytes that each of `size` ids adds to a text behind others; 0 for special ids and for those of no token."""
    special = {i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    ordinary = [i for i in sorted(tokenizer.get_vocab().values()) if i not in special]
    found = [0] * size
    if isinstance(tokenizer.decoder, decoders.ByteLevel):  # a letter of a token is a byte
        for i in ordinary:
            found[i] = len(tokenizer.id_to_token(i) or "")
        return found
    first = next(i for i in ordinary if tokenizer.decode([i]).isalnum())
    alone = len(tokenizer.decode([first]).encode())
    for i in ordinary:
        found[i] = len(tokenizer.decode([first, i]).encode()) - alone
    return found
