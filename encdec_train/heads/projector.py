"""A projector: the perceptron between the representation and a loss on vectors.

Chen et al. 2020 (SimCLR, arXiv:2002.05709), section 2.1. Their code (google-research/simclr, model_util.py)
puts a batch norm after every layer, the last one with a scale but without a shift.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from torch import Tensor, nn

from encdec_train.nn.batch_norm import BatchNorm1d
from encdec_train.nn.mlp import Activation
from encdec_train.registry import heads
from encdec_train.types import Mismatch, Spec


class BatchNorm(Enum):
    """Batch normalisation after a linear layer, and what it learns."""

    none = "none"  # no norm: the linear layer has a bias
    full = "full"  # scale and shift
    scale = "scale"  # scale only
    plain = "plain"  # nothing


@dataclass(kw_only=True)
class ProjectorConfig:
    layers: int = 2  # linear layers
    hidden: int | None = None  # width of all but the last; none: as wide as what comes in
    width: int = 128  # of the last
    hidden_norm: BatchNorm = BatchNorm.full  # before the activation of all but the last layer
    final_norm: BatchNorm = BatchNorm.none  # after the last layer
    activation: Activation = Activation.relu  # of all but the last layer
    final_activation: bool = False  # after the last layer too

    def spec(self, upstream: Spec, goal: Spec | None) -> Spec:
        for name in ("layers", "width", "hidden"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise Mismatch(f"head 'projector'.{name}: {value} is below 1")
        return replace(upstream, kind="vectors", width=self.width)


@heads.register("projector", ProjectorConfig)
class Projector(nn.Module):
    """(B,D) -> (B,C), in float32 or what autocast makes of it."""

    def __init__(self, config: ProjectorConfig, upstream: Spec, goal: Spec | None, embedder: nn.Module | None) -> None:
        super().__init__()
        hidden = config.hidden or upstream.width
        widths = [upstream.width, *[hidden] * (config.layers - 1), config.width]
        norms = [config.hidden_norm] * (config.layers - 1) + [config.final_norm]
        self.linears = nn.ModuleList(
            nn.Linear(before, after, bias=kind is BatchNorm.none)
            for before, after, kind in zip(widths, widths[1:], norms, strict=False)
        )
        self.norms = nn.ModuleList(map(batch_norm, norms, widths[1:]))
        self.activation, self.final_activation = config.activation.fn, config.final_activation

    def forward(self, x: Tensor) -> Tensor:
        last = len(self.linears) - 1
        for i, (linear, norm) in enumerate(zip(self.linears, self.norms, strict=True)):
            x = norm(linear(x))
            if i < last or self.final_activation:
                x = self.activation(x)
        return x


def batch_norm(kind: BatchNorm, width: int) -> nn.Module:
    """(B,C) -> (B,C) over the batch."""
    if kind is BatchNorm.none:
        return nn.Identity()
    norm = BatchNorm1d(width, affine=kind is not BatchNorm.plain)
    if kind is BatchNorm.scale:
        norm.register_parameter("bias", None)
    return norm
