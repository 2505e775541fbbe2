"""Vectors and labels in the place of an encoder and its data."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np


def frozen(train, test, **more):
    """What a probe looks at: (x, y) of both splits, y (n,) or (n,L)."""
    held = {"train": train, "test": test}

    def numbers(split):
        y = np.asarray(held[split][1], dtype=np.float64)
        return y[:, None] if y.ndim == 1 else y

    return SimpleNamespace(
        config=SimpleNamespace(seed=0),
        features=lambda split: held[split][0],
        numbers=numbers,
        vectors=lambda split: (held[split][0], numbers(split)[:, 0].astype(np.int64)),
        **more,
    )


def clusters(rows, classes=4, width=8, distance=1.0, seed=0):
    """(rows,width) float32 about one centre for each class, and their classes."""
    centres = np.random.default_rng(7).standard_normal((classes, width)) * distance
    generator = np.random.default_rng(seed)
    y = generator.integers(0, classes, rows)
    return (centres[y] + generator.standard_normal((rows, width))).astype(np.float32), y
