"""Many small tensors on their way from one process to another, as one.

A worker hands over every tensor by a file of shared memory of its own, for which the main process asks it anew: about a
millisecond each, more than a batch of texts takes to make. Few bytes are sent faster than such a file is opened.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import torch
from torch import Tensor

ALIGNED = 16  # bytes, a multiple of every dtype's size
FEW = 1 << 20  # bytes


def packed(value: Any) -> tuple[bytes, bytearray | Tensor]:
    """How `value` is made up, pickled, and the bytes of all tensors in it, as a tensor (n,) uint8 if they are many."""
    pieces = [torch.empty(0, dtype=torch.uint8)]
    structure = io.BytesIO()
    _Packer(structure, pieces).dump(value)
    content = torch.cat(pieces)
    return structure.getvalue(), bytearray(content.numpy()) if len(content) < FEW else content


def unpacked(structure: bytes, content: bytearray | Tensor) -> Any:
    """The value again; its tensors are views of `content`, which do not overlap."""
    if not isinstance(content, Tensor):
        content = torch.frombuffer(content or bytearray(1), dtype=torch.uint8)
    return _Unpacker(io.BytesIO(structure), content).load()


class _Packer(pickle.Pickler):
    def __init__(self, file: io.BytesIO, pieces: list[Tensor]) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.pieces, self.end = pieces, 0

    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return None
        content = value.detach().contiguous().reshape(-1).view(torch.uint8)
        begin, gap = self.end, -len(content) % ALIGNED
        self.pieces += [content, content.new_zeros(gap)] if gap else [content]
        self.end += len(content) + gap
        return begin, len(content), value.dtype, tuple(value.shape)


class _Unpacker(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, content: Tensor) -> None:
        super().__init__(file)
        self.content = content

    def persistent_load(self, told: Any) -> Tensor:
        begin, size, dtype, shape = told
        return self.content[begin : begin + size].view(dtype).view(shape)
