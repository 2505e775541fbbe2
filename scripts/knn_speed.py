"""Seconds that the k-NN probe takes for 50,000 rows of 512 numbers and 10,000 queries.

python scripts/knn_speed.py [THREADS]
"""

from __future__ import annotations

import resource
import sys
import time

import numpy as np
import torch

from encdec_train.probes.knn import Knn, KnnConfig


def main() -> None:
    """Print wall-clock and processor time."""
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
    generator = np.random.default_rng(0)
    x, queries = (generator.standard_normal((n, 512), dtype=np.float32) for n in (50_000, 10_000))
    y = generator.integers(0, 10, len(x))
    wall, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    Knn(KnnConfig()).predict(x, y, queries)
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{time.perf_counter() - wall:.1f} s, {cpu:.1f} s of processor time, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
