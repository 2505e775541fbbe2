"""Differences of mel spectrograms at several window lengths.

Défossez et al. 2022, "High fidelity neural audio compression" (arXiv:2210.13438), section 3.4, "reconstruction loss":
L1 and L2 of mel spectrograms of 64 bins, windows of 2^5 to 2^11 samples, a quarter of a window apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from encdec_train.nn.spectrum import spectrogram
from encdec_train.registry import losses
from encdec_train.types import Goal, Mismatch, Spec


@dataclass(kw_only=True)
class SpectralConfig:
    windows: list[int] = field(default_factory=lambda: [2**power for power in range(5, 12)])  # samples
    bins: int = 64  # mel bins; fewer where a window has not so many frequencies
    rate: int = 24000  # samples per second, for the mel scale

    def check(self, prediction: Spec, goal: Spec | None) -> None:
        if goal is None or goal.kind == "ids" or goal.width != 1 or prediction.width != 1:
            raise Mismatch("loss 'spectral' compares waveforms of one channel")
        if not goal.length:
            raise Mismatch("loss 'spectral' needs rows of one length, the view's vary")
        if not self.windows or min(self.windows) < 4 or max(self.windows) > goal.length:
            raise Mismatch(f"loss 'spectral'.windows: {self.windows} do not fit rows of {goal.length} samples")
        if self.bins < 1 or self.rate < 1:
            raise Mismatch("loss 'spectral': bins and rate must be at least 1")


@losses.register("spectral", SpectralConfig)
class Spectral(nn.Module):
    """(B*N,1) samples of whole rows against as many -> (B*N,), the same for all samples of a row."""

    def __init__(self, config: SpectralConfig, goal: Spec) -> None:
        super().__init__()
        self.config, self.length = config, goal.length
        for window in config.windows:
            bank = mel_bank(window, min(config.bins, window // 4), config.rate)
            self.register_buffer(f"bank_{window}", bank, persistent=False)

    def forward(self, prediction: Tensor, goal: Goal) -> Tensor:
        x, y = (found.float().view(-1, self.length) for found in (prediction, goal.values))
        return self.rows(x, y).repeat_interleave(self.length)

    def trivial(self, goal: Goal) -> tuple[str, Tensor]:
        """Of silence."""
        return "silence", self(torch.zeros_like(goal.values), goal).double().mean()

    def rows(self, x: Tensor, y: Tensor) -> Tensor:
        """(B,) for waveforms (B,N)."""
        found = []
        for window in self.config.windows:
            mel = [self.mel(sound, window) for sound in (x, y)]  # (B,bins,T)
            found.append((mel[0] - mel[1]).abs().mean((1, 2)) + (mel[0] - mel[1]).square().mean((1, 2)))
        return torch.stack(found).mean(0)

    def mel(self, sound: Tensor, window: int) -> Tensor:
        """(B,bins,T) of (B,N)."""
        return getattr(self, f"bank_{window}") @ spectrogram(sound, window).abs()


def mel_bank(window: int, bins: int, rate: int) -> Tensor:
    """(bins,window/2+1): triangles of height 1 on the mel scale of O'Shaughnessy, 2595 log10(1 + f / 700)."""
    top = 2595 * math.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, bins + 2) / 2595) - 1)  # Hz
    frequency = torch.linspace(0, rate / 2, window // 2 + 1)
    low, peak, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    return torch.minimum((frequency - low) / (peak - low), (high - frequency) / (high - peak)).clamp_min(0)
