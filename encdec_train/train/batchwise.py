"""Which parts look at more than one row at a time: under accumulation they see micro batches."""

from __future__ import annotations

from torch.nn.modules.batchnorm import _BatchNorm

from encdec_train.nn.batch_norm import BatchNorm1d, BatchNorm2d
from encdec_train.step import Parts
from encdec_train.types import Mismatch


def names(parts: Parts) -> list[str]:
    """Full names of the parts that compare rows, or keep what they saw of a step (`batchwise`), or norm over rows."""
    found = []
    for noun, named in parts.student.items():
        for name, part in named.items():  # type: ignore[operator, union-attr]
            own = getattr(part, "batchwise", False) or any(isinstance(m, _BatchNorm) for m in part.modules())
            found += [f"{noun}.{name}"] if own else []
    return found


def check_norms(parts: Parts) -> None:
    """Batch norms see the rows of all processes; those of other libraries would not.

    Raises:
        Mismatch: a part has such a norm.
    """
    for noun, named in parts.student.items():
        for name, part in named.items():  # type: ignore[operator, union-attr]
            if any(isinstance(m, _BatchNorm) and not isinstance(m, BatchNorm1d | BatchNorm2d) for m in part.modules()):
                raise Mismatch(f"trainer.devices: {noun}.{name} has batch norms that would not see all processes' rows")
