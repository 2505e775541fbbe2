"""Spectrograms."""

from __future__ import annotations

import torch
from torch import Tensor


def spectrogram(sound: Tensor, window: int) -> Tensor:
    """(B,N) -> (B,window/2+1,T) complex: Hann windows a quarter of their length apart, of unit energy."""
    shape = torch.hann_window(window, device=sound.device)
    found = torch.stft(sound.float(), window, window // 4, window=shape, return_complex=True)
    return found / shape.square().sum().sqrt()
