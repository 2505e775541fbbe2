"""Log-mel filter banks as Kaldi computes them (kaldi-asr, feat/feature-fbank and feat/mel-computations).

Frames wholly within the sound; each without its mean, pre-emphasised, under a Hann window, filled to a power of two;
its power spectrum through triangles that are equal in mels (1127 ln(1 + f / 700)) from 20 Hz to half the rate.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LOWEST = 20.0  # Hz
EMPHASIS = 0.97


def frame_sizes(rate: int, window: float, hop: float) -> tuple[int, int]:
    """Samples of a window and between windows that are given in seconds: rounded down, but for rounding errors."""
    return int(rate * window + 1e-6), int(rate * hop + 1e-6)


def log_mel(sound: Tensor, rate: int, bins: int, *, window: float = 0.025, hop: float = 0.01) -> Tensor:
    """(B,T) samples -> (B,frames,bins) natural logarithms of filtered power."""
    size, step = frame_sizes(rate, window, hop)
    frames = sound.float().unfold(1, size, step)  # (B,frames,size)
    frames = frames - frames.mean(-1, keepdim=True)
    frames = frames - EMPHASIS * torch.cat([frames[..., :1], frames[..., :-1]], -1)
    frames = frames * torch.hann_window(size, periodic=False, device=sound.device)
    full = 1 << (size - 1).bit_length()
    power = torch.fft.rfft(frames, full).abs().square()  # (B,frames,full/2+1)
    filters = mel_filters(full, bins, rate, sound.device)
    return (power @ filters).clamp_min(torch.finfo(torch.float32).eps).log()


def mel_filters(size: int, bins: int, rate: int, device: torch.device | None = None) -> Tensor:
    """(size/2+1,bins): triangles that overlap by half, straight in mels; the last frequency is in none of them."""
    hertz = torch.arange(size // 2 + 1, dtype=torch.float64, device=device) * rate / size
    mels = 1127.0 * torch.log1p(hertz / 700.0)[:, None]
    first, last = (1127.0 * math.log1p(end / 700.0) for end in (LOWEST, rate / 2))
    edges = torch.linspace(first, last, bins + 2, dtype=torch.float64, device=device)
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    rise, fall = (mels - low) / (middle - low), (high - mels) / (high - middle)
    filters = torch.minimum(rise, fall).clamp_min(0)
    return F.pad(filters[:-1], (0, 0, 0, 1)).float()
