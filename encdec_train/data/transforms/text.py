"""Text to rows of token ids: tokenise once, cut long documents, pack short ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from encdec_train.data.columns import content_column
from encdec_train.data.config import DataConfig, OnError
from encdec_train.data.example import Example, Row
from encdec_train.data.packing import pack, shuffled
from encdec_train.data.sentences import Ends, sentence_of
from encdec_train.data.template import Filled, columns, fill
from encdec_train.data.tokenizers import TokenizerKind, byte_counts, load, read_vocabulary, save, train, vocabulary
from encdec_train.data.tokens import Broken, Documents, TokenRows, digest, encode, texts
from encdec_train.data.transform import Drawing, NoItems, Transform
from encdec_train.data.words import Openings, word_of
from encdec_train.data.written import written
from encdec_train.registry import transforms
from encdec_train.rng import Rng
from encdec_train.types import Mismatch, Plan, Spec, Units, Vocabulary

MEMO = 2  # sets of rows whose encoded texts are kept: those of both splits, or windows of a stream


class Layout(Enum):
    """How documents become training rows."""

    packed = "packed"  # several documents in a row; none reads another
    joined = "joined"  # documents run into each other and are cut into full rows (T5, GPT)
    padded = "padded"  # one document in a row, filled up to the longest of the batch
    row = "row"  # the beginning of every document, whatever its length, filled up to `length`: one for each row of data


@dataclass(kw_only=True)
class TextConfig:
    kind: TokenizerKind = TokenizerKind.wordpiece  # of the tokenizer that is trained
    vocabulary: int | None = 8192  # rows of the token table; none: as many as the tokenizer at `tokenizer` has
    sentinels: int = 0  # tokens <extra_id_0>, ... for span corruption
    tokenizer: str | None = None  # a tokenizer.json that exists; none: train one on the training rows
    fit_rows: int = 100_000  # at most so many rows, evenly spread, teach the tokenizer
    template: str | None = None  # a text made of columns of the row, `translate to German: {en}`; none: data.column
    layout: Layout = Layout.packed
    length: int = 128  # tokens of a row
    max_document: int | None = None  # tokens of one document, special ones included; none: `length`
    min_document: int = 4  # tokens, special ones excluded; shorter documents and remainders are left out
    cut: bool = True  # longer documents become several; else only their beginning is kept
    bos: bool = True  # begin every document with [CLS] or <s>
    bos_rows: bool = False  # joined documents: it begins the rows instead (RoBERTa)
    whole: bool = False  # joined documents: rows end with a sentence where they can, and are filled up (RoBERTa)
    eos: bool = True  # end it with [SEP] or </s>
    sentences: bool = False  # tell corruptions which sentence a token belongs to
    words: bool = False  # tell corruptions which tokens make a word; one that asks for it need not be told here
    seed: int = 0  # of the order in which documents are packed or joined
    cache: str | None = None  # folder that keeps encoded texts from run to run; none: encoded anew

    @property
    def document(self) -> int:
        return self.length if self.max_document is None else self.max_document

    @property
    def extra(self) -> int:
        """Special tokens of each document."""
        return self.bos + self.eos

    def check(self) -> None:
        least = self.extra + 1
        if not least <= self.document <= self.length:
            raise Mismatch(
                f"transform 'text'.max_document: {self.document} is not between {least} and length={self.length}"
            )
        if self.template is not None and not columns(self.template):
            raise Mismatch(f"transform 'text'.template: '{self.template}' names no column in braces")
        if self.sentinels < 0:
            raise Mismatch(f"transform 'text'.sentinels: {self.sentinels} is below 0")
        if self.min_document < 1:
            raise Mismatch(f"transform 'text'.min_document: {self.min_document} is below 1")
        if self.bos_rows and not (self.bos and self.layout is Layout.joined):
            raise Mismatch("transform 'text'.bos_rows: only rows of joined documents, with bos=true, can begin so")
        if self.whole and self.layout is not Layout.joined:
            raise Mismatch("transform 'text'.whole: only rows of joined documents can end so")
        if self.tokenizer is None and self.vocabulary is None:
            raise Mismatch("transform 'text'.vocabulary: give a size, or a tokenizer to take it from")


@transforms.register("text", TextConfig)
class Text(Transform):
    """View "text": ids (N,), the special ones fixed.

    An item is a row of pieces. Random keys belong to documents, not to rows, so a document gets the same masks in
    any layout that keeps it whole.
    """

    config: TextConfig

    def __init__(self, config: TextConfig, data: DataConfig) -> None:
        super().__init__(config, data)
        self._vocabulary: Vocabulary | None = None
        self._tokenizer: Tokenizer | None = None
        self._documents: dict[str, Documents] = {}
        self._ends: Ends | None = None
        self._openings: Openings | None = None

    @property
    def by_row(self) -> bool:
        return self.config.layout is Layout.row

    @property
    def vocabulary(self) -> Vocabulary:
        """Known before any text is read."""
        if self._vocabulary is None:
            config = self.config
            config.check()
            if config.tokenizer is not None:
                self._vocabulary = read_vocabulary(load(config.tokenizer), config.vocabulary)
            else:
                assert config.vocabulary is not None, "check() wants a size or a tokenizer"
                self._vocabulary = vocabulary(config.kind, config.vocabulary, config.sentinels)
            self._check_roles(self._vocabulary)
        return self._vocabulary

    def _check_roles(self, found: Vocabulary) -> None:
        for role in ("bos", "eos"):
            if getattr(self.config, role) and getattr(found, role) < 0:
                raise Mismatch(f"transform 'text'.{role}: the tokenizer has no such token; set it to false")

    @property
    def tokenizer(self) -> Tokenizer:
        if self._tokenizer is None:
            raise RuntimeError("transform 'text' has no tokenizer before fit()")
        return self._tokenizer

    def specs(self) -> dict[str, Spec]:
        config, known = self.config, self.vocabulary
        even = config.layout is not Layout.padded
        whole = config.layout in (Layout.joined, Layout.row)
        return {
            "text": Spec(
                kind="ids",
                width=known.size,
                length=config.length if even else 0,
                max_len=config.length if whole else config.document,
                vocabulary=known,
                groups=config.sentences,
                words=config.words,
                docs=config.layout is Layout.packed,
                fixed=config.bos or config.eos,
            )
        }

    def __getstate__(self) -> dict[str, Any]:
        """Workers get rows that are encoded already, or encode the windows of a stream."""
        return {**self.__dict__, "_documents": {}}

    def fit(self, rows: Sequence[dict[str, Any]], folder: Path) -> None:
        """Load the tokenizer, or train it on the rows; `folder/tokenizer.json` keeps it either way."""
        self.learn(self.sample(rows), folder)

    def learn(self, sample: Iterator[str], folder: Path) -> None:
        """`fit` on these texts, which are read only if a tokenizer is to be trained."""
        config, file = self.config, folder / "tokenizer.json"
        if file.is_file():
            tokenizer = load(file)
        elif config.tokenizer is not None:
            tokenizer = load(config.tokenizer)
        else:
            tokenizer = train(sample, config.kind, self.vocabulary.size, config.sentinels)
        found = read_vocabulary(tokenizer, self.vocabulary.size)
        if found != self.vocabulary:
            raise Mismatch(f"the tokenizer in '{file}' has {found}, the configuration says {self.vocabulary}")
        if not file.is_file():
            save(tokenizer, file)
        tokenizer.encode_special_tokens = True  # "[MASK]" in a text is text
        self._tokenizer = tokenizer
        if config.sentences or config.whole:
            self._ends = Ends.of(tokenizer, found)
        if config.words:
            self._openings = Openings.of(tokenizer, found)

    def sample(self, rows: Sequence[dict[str, Any]]) -> Iterator[str]:
        """Texts that teach a tokenizer."""
        if not len(rows):
            raise ValueError("transform 'text': there are no rows to train a tokenizer on")
        if hasattr(rows, "few"):  # a stream's other rows are not even read
            rows = rows.few(self.config.fit_rows)
        every = -(-len(rows) // self.config.fit_rows)
        seen = 0
        for batch in texts(*self.content(rows), self._broken()):
            yield from batch[-seen % every :: every]
            seen += len(batch)

    def _broken(self) -> Broken | None:
        """What takes the rows whose texts cannot be encoded; none where they are errors."""
        return {} if self.data.on_error is OnError["skip"] else None

    def content(self, rows: Any) -> tuple[Any, str]:
        """The rows with their texts, and the column that holds these."""
        if self.config.template is not None:
            return Filled(rows, self.config.template), "text"
        return rows, content_column(rows, self.data.column, ("text",))

    def documents(self, rows: Any) -> Documents:
        """The rows, encoded; the last few are kept in memory, and all in `cache` if there is one."""
        rows, column = self.content(rows)
        broken = self._broken()
        key = digest(rows, column, self.tokenizer, broken)
        found = self._documents.pop(key, None)
        if found is None:
            folder = None if self.config.cache is None else Path(self.config.cache)
            found = encode(rows, column, self.tokenizer, folder, key, broken)
        self._documents[key] = found
        while len(self._documents) > MEMO:
            del self._documents[next(iter(self._documents))]
        return found

    def items(self, rows: Sequence[dict[str, Any]], *, clean: bool) -> TokenRows:
        """Rows of pieces. `clean`: the beginning of every document, one per row, in order."""
        documents = self.documents(rows)
        config = self.config
        if clean or self.by_row:
            length = np.minimum(documents.lengths, config.document - config.extra)
            single = _single(documents.tokens, documents.bounds[:-1], length)
            return replace(single, broken=documents.broken)
        return replace(self._rows(documents), left_out=documents.broken)

    def _rows(self, documents: Documents) -> TokenRows:
        """Rows of all that is long enough, in the configured layout.

        Raises:
            NoItems: there is none.
        """
        config = self.config
        if config.layout is Layout.joined:
            return self._joined(documents)
        start, length = self._chunks(documents)
        if not len(start):
            raise NoItems(f"transform 'text': no document has min_document={config.min_document} tokens")
        if config.layout is Layout.padded:
            return _single(documents.tokens, start, length)
        packed = pack(length + config.extra, config.length, shuffled(len(length), config.seed))
        order = np.concatenate([np.asarray(row, np.int64) for row in packed])
        bounds = np.cumsum([0, *(len(row) for row in packed)], dtype=np.int64)
        return TokenRows(documents.tokens, start[order], length[order], order, bounds)

    def _chunks(self, documents: Documents) -> tuple[np.ndarray, np.ndarray]:
        """(P,) starts and (P,) lengths of what the documents are cut into, in their order."""
        body = self.config.document - self.config.extra
        lengths = documents.lengths
        parts = -(-lengths // body) if self.config.cut else np.minimum(lengths, 1)
        owner = np.repeat(np.arange(len(lengths)), parts)
        offset = (np.arange(len(owner)) - np.repeat(np.cumsum(parts) - parts, parts)) * body
        length = np.minimum(lengths[owner] - offset, body)
        kept = length >= self.config.min_document
        return (documents.bounds[:-1][owner] + offset)[kept], length[kept]

    def _joined(self, documents: Documents) -> TokenRows:
        """One stream of the shuffled documents, cut into rows; what is left at the end is dropped."""
        config, known = self.config, self.vocabulary
        bos = [known.bos] if config.bos and not config.bos_rows else []
        eos = [known.eos] if config.eos else []
        body = config.length - config.bos_rows
        pieces: list[Any] = []
        for i in shuffled(len(documents.bounds) - 1, config.seed):
            a, b = documents.bounds[i], documents.bounds[i + 1]
            if b - a >= config.min_document:
                pieces += [bos, documents.tokens[a:b], eos]
        stream = np.concatenate([np.zeros(0, np.int32), *(np.asarray(piece, np.int32) for piece in pieces)])
        if len(stream) < body:
            raise NoItems(f"transform 'text': {len(stream)} tokens do not fill one row of length={config.length}")
        cuts = np.arange(0, len(stream) + 1, body)
        if config.whole:
            cuts = cut_rows(self._sentence_ends(stream), len(stream), body)
        if config.bos_rows:
            stream = np.insert(stream[: cuts[-1]], cuts[:-1], known.bos)
            cuts = cuts + np.arange(len(cuts))
        return _single(stream, cuts[:-1], np.diff(cuts))

    def __call__(self, item: list[tuple[np.ndarray, int]], sample: int, rng: Rng, *, clean: bool) -> Row:
        layout = self.config.layout if self.by_row or not clean else Layout.padded
        if layout is Layout.packed:
            return {"text": self._packed(item)}
        tokens, key = item[0]
        if layout is Layout.row:
            return {"text": self._filled(tokens, key)}
        valid = None
        ids = torch.from_numpy(tokens.astype(np.int64)) if layout is Layout.joined else self._document(tokens)
        if layout is Layout.joined and self.config.whole:
            valid = torch.arange(self.config.length) < len(ids)
            ids = F.pad(ids, (0, self.config.length - len(ids)), value=self.vocabulary.pad)
        return {
            "text": Example(
                values=ids,
                sample=sample if clean else key,
                fixed=self._fixed(ids),
                valid=valid,
                group=self._sentences(ids),
                word=self._words(ids),
                max_len=self.config.length if layout is Layout.joined else self.config.document,
            )
        }

    def _sentences(self, ids: torch.Tensor) -> torch.Tensor | None:
        """(n,) int64 sentence of each token, if corruptions are to know."""
        return sentence_of(ids, self._ends) if self._ends is not None and self.config.sentences else None

    def _words(self, ids: torch.Tensor) -> torch.Tensor | None:
        """(n,) int64 where the word of each token begins, if corruptions are to know."""
        return None if self._openings is None else word_of(ids, self._openings)

    def _sentence_ends(self, stream: np.ndarray) -> np.ndarray:
        """(E,) int64 places of a stream after which a row may end."""
        assert self._ends is not None, "fit() comes first"
        return np.flatnonzero(np.diff(sentence_of(torch.from_numpy(stream.astype(np.int64)), self._ends))) + 1

    def _filled(self, tokens: np.ndarray, key: int) -> Example:
        """One document and padding up to the row's length."""
        document, n = self._document(tokens), self.config.length
        ids = F.pad(document, (0, n - len(document)), value=self.vocabulary.pad)
        valid = torch.arange(n) < len(document)
        return Example(
            values=ids,
            sample=key,
            fixed=self._fixed(ids),
            valid=valid,
            group=self._sentences(ids),
            word=self._words(ids),
            max_len=n,
        )

    def _packed(self, item: list[tuple[np.ndarray, int]]) -> Example:
        """Documents side by side; the padding at the end of the row is a segment of its own."""
        n = self.config.length
        ids = torch.full((n,), self.vocabulary.pad, dtype=torch.int64)
        doc = torch.full((n,), -1, dtype=torch.int64)
        sample, place, group, word = (torch.zeros(n, dtype=torch.int64) for _ in range(4))
        segments, at = [], 0
        for number, (tokens, key) in enumerate(item):
            document = self._document(tokens)
            here = slice(at, at + len(document))
            ids[here], doc[here], sample[here] = document, number, key
            place[here] = torch.arange(len(document))
            sentences, words = self._sentences(document), self._words(document)
            if sentences is not None:
                group[here] = sentences
            if words is not None:
                word[here] = words
            segments.append(len(document))
            at += len(document)
        place[at:] = torch.arange(n - at) % self.config.document  # within the table of positions
        return Example(
            values=ids,
            sample=sample,
            place=place,
            fixed=self._fixed(ids),
            doc=doc,
            group=group if self.config.sentences else None,
            word=word if self.config.words else None,
            segments=[*segments, n - at],
            max_len=self.config.document,
        )

    def prompt(self, text: str, *, ended: bool) -> torch.Tensor:
        """(n,) int64: a text of the user's as a row has it, in a template of one column; special tokens are read.

        Args:
            text: what is given.
            ended: it is all that there is; else what follows is still to be written.

        Raises:
            Mismatch: it is longer than a row.
        """
        config, known = self.config, self.vocabulary
        names = [] if config.template is None else columns(config.template)
        if config.template is not None and len(names) == 1:
            text = fill(config.template, {names[0]: text})
        self.tokenizer.encode_special_tokens = False
        body = self.tokenizer.encode(text, add_special_tokens=False).ids
        self.tokenizer.encode_special_tokens = True
        room = config.document - config.extra
        if len(body) > room:
            raise Mismatch(f"'{text[:20]}...' has {len(body)} tokens, a row has room for {room}")
        return torch.tensor([known.bos] * config.bos + body + [known.eos] * (config.eos and ended), dtype=torch.int64)

    def start(self) -> torch.Tensor:
        """(0 or 1,) int64: the id that a row begins with."""
        return torch.tensor([self.vocabulary.bos] * self.config.bos, dtype=torch.int64)

    def text(self, ids: Sequence[int], *, special: bool = False) -> str:
        """What ids say; without the special ones, unless they are asked for."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=not special)

    def byte_counts(self) -> torch.Tensor:
        """(V,) int64: bytes that each id adds to a text."""
        return torch.tensor(byte_counts(self.tokenizer, self.vocabulary.size))

    def _document(self, tokens: np.ndarray) -> torch.Tensor:
        """(n,) int64: the piece between its special tokens; nothing at all is one padding token."""
        known = self.vocabulary
        bos, eos = ([known.bos] if self.config.bos else []), ([known.eos] if self.config.eos else [])
        body = tokens if len(tokens) or bos or eos else [known.pad]
        return torch.from_numpy(np.concatenate([bos, body, eos]).astype(np.int64))

    def _fixed(self, ids: torch.Tensor) -> torch.Tensor | None:
        if not self.config.extra:
            return None  # bare text
        return (ids == self.vocabulary.bos) | (ids == self.vocabulary.eos)

    def draw(self, units: Units, plan: Plan, prediction: torch.Tensor) -> Drawing | None:
        predicted = plan.sites.sample.numel() if plan.where is None else len(plan.where)
        if prediction.shape != (predicted, self.vocabulary.size):
            return None  # no scores of tokens, or of whole rows
        text = written(self.tokenizer, units, plan, prediction)
        return Drawing("txt", text.encode())

    def show(self, units: Units, plan: Plan) -> Drawing | None:
        """What is given, and what is to be predicted."""
        return Drawing("txt", written(self.tokenizer, units, plan).encode())

    def preprocess(self) -> dict[str, Any]:
        config = self.config
        return {
            "transform": "text",
            "length": config.length,
            "bos": config.bos,
            "eos": config.eos,
            **({} if config.template is None else {"template": config.template}),
            "vocabulary": vars(self.vocabulary),
            "tokenizer": "tokenizer.json",
        }


def cut_rows(ends: np.ndarray, total: int, body: int) -> np.ndarray:
    """(R+1,) int64 bounds of rows of at most `body` tokens: the last end that fits, or wherever a row is full."""
    cuts = [0]
    while cuts[-1] + body <= total:
        last = cuts[-1] + body
        found = np.searchsorted(ends, last, side="right") - 1
        cuts.append(int(ends[found]) if found >= 0 and ends[found] > cuts[-1] else last)
    return np.array(cuts, dtype=np.int64)


def _single(tokens: np.ndarray, start: np.ndarray, length: np.ndarray) -> TokenRows:
    """One piece in each row, its number the key."""
    count = len(start)
    return TokenRows(tokens, start, length, np.arange(count), np.arange(count + 1))
