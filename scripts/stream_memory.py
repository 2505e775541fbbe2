"""Memory, speed and reading of a streamed run of the loader: `python scripts/stream_memory.py [--rows 100000]`.

Writes parquet shards of random words, streams them through the text transform (packed) and the loader with one worker,
and looks at the resident memory of both processes on the way. Writes results/stream_memory.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from encdec_train.build import make_transform
from encdec_train.data.draws import Stream, draws_of, training_items
from encdec_train.data.loader import StepDataset, StepSampler, make_loader
from encdec_train.data.open import open_rows
from encdec_train.launch import compose, prepare
from encdec_train.train import rundir

RESULTS = Path(__file__).resolve().parent.parent / "results"
FILE, GROUP, BATCH, BUFFER = 10_000, 500, 50, 2000
LOOKS = 10  # at the memory, after the first


def write_shards(folder: Path, rows: int) -> None:
    """Documents of 5 to 50 words, a file at a time."""
    words = np.array(["".join(chr(97 + (i // 26**k) % 26) for k in range(3)) for i in range(2000)])
    for number in range(rows // FILE):
        random = np.random.default_rng(number)
        texts = [" ".join(words[random.integers(0, 2000, n)]) for n in random.integers(5, 50, FILE)]
        pq.write_table(pa.table({"text": texts}), folder / f"train-{number}.parquet", row_group_size=GROUP)


def resident(pid: int) -> float:
    """MiB that a process holds."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def workers() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def measure(folder: Path, rows: int) -> dict[str, Any]:
    """An epoch through the loader; memory after each tenth of it."""
    stream = [f"data.path={folder}", "data.label=null", "data.test=train", "data.streaming=true"]
    words = ["transform.length=128", "transform.vocabulary=1000", "transform.fit_rows=2000"]
    config = compose(["+recipe=bert", "data=texts", *stream, f"data.buffer={BUFFER}", *words])
    transform = make_transform(config)
    train = open_rows(config.data)["train"]
    with tempfile.TemporaryDirectory() as scratch:
        transform.fit(train, Path(scratch))
    draws = draws_of(training_items(transform, train), transform, 0)
    assert isinstance(draws, Stream)
    dataset = StepDataset(draws, transform, 0, clean=False, label=None)
    sampler = StepSampler(draws, BATCH, start=0, stop=10**6)
    looks: list[dict[str, Any]] = []
    started, packed = time.perf_counter(), 0
    for drawn in make_loader(dataset, sampler, workers=1):
        packed += BATCH
        taken = drawn.place[""][0] * draws.size * GROUP  # rows in the windows before this one
        if taken >= (len(looks) + 1) * rows // LOOKS:
            (worker,) = workers()
            looks.append({"rows": taken, "worker_mib": resident(worker), "main_mib": resident(os.getpid())})
        if taken >= rows:
            break
    seconds = time.perf_counter() - started
    return {
        "rows": rows,
        "packed_rows": packed,
        "window_rows": draws.size * GROUP,
        "seconds": round(seconds, 1),
        "rows_per_s": round(rows / seconds),
        "looks": [{key: round(value, 1) for key, value in look.items()} for look in looks],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    given = parser.parse_args()
    prepare()
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder), given.rows)
        found = measure(Path(folder), given.rows)
    found["commit"], found["date"] = rundir.commit(), time.strftime("%Y-%m-%d")
    found["hardware"] = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, one worker"
    (RESULTS / "stream_memory.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
