"""Lines and points as pictures for people, drawn without a plotting library."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

INK, PALE, PAPER = (29, 28, 26), (222, 218, 211), (255, 255, 255)
RADIUS = 1  # of a point, in pixels


def lines(values: np.ndarray, hidden: np.ndarray | None, *, height: int = 64, width: int = 480) -> np.ndarray:
    """(B,C,T) numbers -> (B,C*height,width,3) in [0,1]: a line for each channel, on grey where it is hidden.

    Args:
        values: one series of C channels in each row.
        hidden: (B,C,T) bool; there is no line there. None: all is drawn.
        height: pixels of one channel.
        width: pixels of all steps.
    """
    batch, channels, steps = values.shape
    covered = np.zeros(values.shape, bool) if hidden is None else hidden
    sheets = []
    for row in range(batch):
        sheet = Image.new("RGB", (width, channels * height), PAPER)
        draw = ImageDraw.Draw(sheet)
        for channel in range(channels):
            one, away = values[row, channel], covered[row, channel]
            low, high = float(one.min()), float(one.max())
            across = np.linspace(0, width - 1, steps)
            down = channel * height + 4 + (height - 9) * (high - one) / max(high - low, 1e-12)
            box = width / steps
            for step in np.flatnonzero(away):
                x = step * box
                draw.rectangle([x, channel * height, x + box, (channel + 1) * height - 1], fill=PALE)
            for first, last in _runs(~away):
                draw.line(list(zip(across[first:last], down[first:last], strict=True)), fill=INK, width=2)
        sheets.append(np.asarray(sheet, np.float32) / 255)
    return np.stack(sheets)


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """Bounds of the stretches that are True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def points(groups: np.ndarray, shown: np.ndarray, *, side: int = 160) -> np.ndarray:
    """(B,N,G,3) points in groups -> (B,side,side,3) in [0,1], seen from the side and a little from above.

    Args:
        groups: points of a cloud, about the origin and within a distance of about 1.
        shown: (B,N) bool: groups that are drawn.
        side: of the picture in pixels.
    """
    sheets = []
    for cloud, drawn in zip(groups, shown, strict=True):
        sheet = Image.new("RGB", (side, side), PAPER)
        draw = ImageDraw.Draw(sheet)
        x, y, z = cloud[drawn].reshape(-1, 3).T
        across, down = x + 0.4 * y, -z + 0.3 * y
        for at in np.stack([across, down], -1) * 0.33 * side + side / 2:
            draw.ellipse([*(at - RADIUS), *(at + RADIUS)], fill=INK)
        sheets.append(np.asarray(sheet, np.float32) / 255)
    return np.stack(sheets)
