"""Pictures as data URIs, within a budget, so that a page stays small."""

from __future__ import annotations

import base64
import io
from pathlib import Path

LARGE = 200_000  # bytes of a file from which on it is packed anew
WIDEST = 1280  # pixels of a picture that is packed anew
QUALITY = 80  # of WebP
BUDGET = 3_000_000  # bytes of all pictures of a page


class Pictures:
    """Hands out sources until the budget is spent."""

    def __init__(self) -> None:
        self.left = BUDGET

    def source(self, file: Path) -> str:
        """Of an `img`; empty where there is no room left."""
        kind, content = "png", file.read_bytes()
        if len(content) > LARGE:
            kind, content = "webp", _packed(content)
        if len(content) > self.left:
            return ""
        self.left -= len(content)
        return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _packed(content: bytes) -> bytes:
    from PIL import Image

    picture = Image.open(io.BytesIO(content))
    picture.thumbnail((WIDEST, 8 * WIDEST))
    out = io.BytesIO()
    picture.save(out, format="WEBP", quality=QUALITY)
    return out.getvalue()
