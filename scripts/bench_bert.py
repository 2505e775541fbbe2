"""Real tokens per second of BERT-base on texts of 32 to 512 tokens: ours, packed, against transformers.

Both sides get the same documents, the same shapes, the same fused AdamW and start from the same weights; a step is
collation, forward, backward and update. transformers uses BertForMaskedLM with DataCollatorForLanguageModeling in two
ways: the documents of our row padded to the longest of them, and batches of like lengths from the same pool.
The sides take turns in changing order, because the speed of a shared machine drifts: trust the paired ratios only.

    python scripts/bench_bert.py --data FOLDER_OR_FILE_WITH_TEXT --rounds 6
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from encdec_train.build import check, compute_terms, make_parts, make_transform
from encdec_train.config import TrainConfig
from encdec_train.data.example import collate
from encdec_train.data.open import open_rows
from encdec_train.data.packing import pack, shuffled
from encdec_train.data.transforms.text import Text
from encdec_train.export.hf.bert import config_to_hf, to_hf
from encdec_train.launch import compose
from encdec_train.rng import Rng
from encdec_train.step import Parts, Step

SHORTEST, LONGEST = 32, 512  # tokens of a document, special ones included
Piece = tuple[np.ndarray, int]  # tokens of a document without special ones, and its random key
Work = Callable[[], torch.Tensor]  # collate and run forward, to the loss


def documents(text: Text, rows: Any, count: int) -> list[Piece]:
    """Documents of log-uniform length, each the beginning of a row of the data that is long enough."""
    encoded = text.documents(rows)
    whole = np.flatnonzero(encoded.lengths >= LONGEST)
    if len(whole) < count:
        raise SystemExit(f"{len(whole)} texts have {LONGEST} tokens, {count} are needed")
    u = Rng(0).uniform("length", torch.arange(count)).numpy()
    lengths = (SHORTEST * (LONGEST / SHORTEST) ** u).astype(int) - text.config.extra
    starts = encoded.bounds[whole[:count]]
    return [(encoded.tokens[a : a + n], key) for key, (a, n) in enumerate(zip(starts, lengths, strict=True))]


def packed(text: Text, pieces: list[Piece], rounds: int) -> list[list[Piece]]:
    """The documents of each of our rows, the fullest rows first; the last ones are not used."""
    lengths = [len(tokens) + text.config.extra for tokens, _ in pieces]
    rows = pack(lengths, text.config.length, shuffled(len(lengths), 0))
    rows.sort(key=lambda row: -sum(lengths[i] for i in row))
    return [[pieces[i] for i in row] for row in rows[:rounds]]


def bucketed(batches: list[list[Piece]]) -> list[list[Piece]]:
    """The same documents in as many batches, each of like lengths, in a shuffled order."""
    pool = sorted((piece for batch in batches for piece in batch), key=lambda piece: len(piece[0]))
    cuts = np.array_split(np.arange(len(pool)), len(batches))
    order = shuffled(len(cuts), 1)
    return [[pool[i] for i in cuts[number]] for number in order]


def fill(batches: list[list[Piece]], extra: int) -> float:
    """Share of real tokens in padded batches."""
    lengths = [[len(tokens) + extra for tokens, _ in batch] for batch in batches]
    return sum(map(sum, lengths)) / sum(max(row) * len(row) for row in lengths)


def ours(config: TrainConfig, text: Text, parts: Parts) -> Callable[[int, list[Piece]], Work]:
    def prepare(number: int, row: list[Piece]) -> Work:
        def work() -> torch.Tensor:
            batch = collate([text(row, 0, Rng(0), clean=False)])
            step = Step(batch, parts, Rng(0, torch.tensor(number)))
            return compute_terms(step, config.objective)["main"].mean

        return work

    return prepare


def theirs(config: TrainConfig, text: Text, parts: Parts, file: Path) -> tuple[torch.nn.Module, Any]:
    from transformers import BertConfig, BertForMaskedLM, DataCollatorForLanguageModeling, PreTrainedTokenizerFast

    main = (config.embedder["main"], config.encoder["main"], config.head["main"])
    model = BertForMaskedLM(BertConfig(**config_to_hf(*main, text.vocabulary, LONGEST)))
    model.load_state_dict(to_hf(parts.student.state_dict()), strict=False)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(file), mask_token="[MASK]", **names)
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=config.corruption["main"].ratio)
    known = text.vocabulary

    def prepare(number: int, pieces: list[Piece]) -> Work:
        rows = [{"input_ids": [known.bos, *tokens.tolist(), known.eos]} for tokens, _ in pieces]
        return lambda: model(**collator(rows)).loss

    return model.train(), prepare


def one_step(work: Work, optimizer: torch.optim.Optimizer, bf16: bool) -> float:
    started = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = work()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=None, help="text to read; none: the embedded English, as often as needed")
    parser.add_argument("--tokenizer", default=None, help="a tokenizer.json with word pieces; none: train one")
    parser.add_argument("--limit", type=int, default=4000, help="rows of the data that are read")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--length", type=int, default=2048, help="tokens of our packed row, one for each step")
    parser.add_argument("--dropout", type=float, default=0.0, help="of both sides")
    parser.add_argument("--bf16", action="store_true")
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments), indent=1))


def setup(arguments: argparse.Namespace, folder: Path) -> tuple[TrainConfig, Text, Parts, Any]:
    """BERT-base as the recipe has it, with the tokenizer of the data."""
    data = ["data=stdlib"] if arguments.data is None else ["data=texts", f"data.path={arguments.data}"]
    config = compose(
        [
            "+recipe=bert",
            "scale=paper",
            *data,
            f"data.limit={arguments.limit}",
            "data.label=null",
            f"transform.length={arguments.length}",
            f"transform.max_document={LONGEST}",
            f"transform.tokenizer={arguments.tokenizer or 'null'}",
            f"embedder.dropout={arguments.dropout}",
            f"encoder.dropout={arguments.dropout}",
            f"encoder.attention_dropout={arguments.dropout}",
        ]
    )
    text = make_transform(config)
    assert isinstance(text, Text)
    rows = open_rows(config.data)["train"]
    text.fit(rows, folder)
    return config, text, make_parts(config, check(config, text.specs())), rows


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        config, text, parts, rows = setup(arguments, Path(name))
        model, padded = theirs(config, text, parts, Path(name) / "tokenizer.json")
        packs = packed(text, documents(text, rows, 16 * (arguments.rounds + 1)), arguments.rounds + 1)
        buckets = bucketed(packs[1:])
        buckets = [packs[0], *buckets]
        optimizers = {
            side: torch.optim.AdamW(module.parameters(), lr=1e-4, fused=True)
            for side, module in (("ours", parts.student), ("theirs", model))
        }
        sides = {
            "ours packed": (ours(config, text, parts), packs, optimizers["ours"]),
            "theirs padded": (padded, packs, optimizers["theirs"]),
            "theirs bucketed": (padded, buckets, optimizers["theirs"]),
        }
        extra = text.config.extra
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        tokens: dict[str, list[int]] = {side: [] for side in sides}
        for number in range(arguments.rounds + 1):
            order = list(sides) if number % 2 else list(reversed(sides))
            for side in order:
                prepare, batches, optimizer = sides[side]
                spent = one_step(prepare(number, batches[number]), optimizer, arguments.bf16)
                if number:  # the first round warms up
                    seconds[side].append(spent)
                    tokens[side].append(sum(len(piece) + extra for piece, _ in batches[number]))
    speed = {side: [n / s for n, s in zip(tokens[side], seconds[side], strict=True)] for side in sides}

    def ratio(other: str) -> dict[str, float]:
        pairs = [a / b for a, b in zip(speed["ours packed"], speed[other], strict=True)]
        total = sum(seconds[other]) / sum(tokens[other]) * sum(tokens["ours packed"]) / sum(seconds["ours packed"])
        return {"of the totals": round(total, 3), "median of pairs": round(statistics.median(pairs), 3)}

    return {
        "real_tokens_per_second": {side: round(sum(tokens[side]) / sum(seconds[side]), 1) for side in sides},
        "ours_over": {side: ratio(side) for side in sides if side != "ours packed"},
        "fill": {
            "ours packed": round(sum(tokens["ours packed"]) / (arguments.length * arguments.rounds), 3),
            "theirs padded": round(fill(packs[1:], extra), 3),
            "theirs bucketed": round(fill(buckets[1:], extra), 3),
        },
        "documents": sum(map(len, packs[1:])),
        "real_tokens": sum(tokens["ours packed"]),
        "rounds": arguments.rounds,
        "parameters": {
            "ours": sum(p.numel() for p in parts.student.parameters()),
            "theirs": sum(p.numel() for p in model.parameters()),
        },
        "dropout": arguments.dropout,
        "dtype": "bf16 autocast" if arguments.bf16 else "fp32",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "machine": platform.processor() or platform.machine(),
    }


if __name__ == "__main__":
    main()
