"""Convolutions over complex spectrograms of a waveform at several window lengths: a discriminator.

Défossez et al. 2022, "High fidelity neural audio compression" (arXiv:2210.13438), section 3.4 and figure 2.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encdec_train.nn.spectrum import spectrogram
from encdec_train.registry import encoders
from encdec_train.types import Attend, Layer, Mismatch, Sites, Spec, Tokens


@dataclass(kw_only=True)
class StftConfig:
    windows: list[int] = field(default_factory=lambda: [2048, 1024, 512, 256, 128])  # samples, one network each
    channels: int = 32
    dilations: list[int] = field(default_factory=lambda: [1, 2, 4])  # in time, of the layers that halve the frequencies
    slope: float = 0.2  # of the leaky rectifier
    width: int = 1  # what comes out: scores
    emit: list[int] = field(default_factory=list)  # layers kept in `Tokens.layers`, window by window

    def spec(self, upstream: Spec) -> Spec:
        name = "encoder 'stft'"
        if upstream.kind != "vectors" or upstream.width != 1 or upstream.prefix:
            raise Mismatch(f"{name} hears waveforms of one channel, it is given width {upstream.width}")
        if not self.dilations or min(self.windows, default=0) < 16:
            raise Mismatch(f"{name}: windows {self.windows} of at least 16 samples and dilations are needed")
        if not upstream.length or upstream.length <= max(self.windows) // 2:
            raise Mismatch(f"{name}: rows of {upstream.length or 'varying'} samples are too short for {self.windows}")
        layers = (Layer(self.channels),) * (len(self.windows) * (len(self.dilations) + 2))
        return replace(upstream, width=self.width, length=0, rows="coarse", grid=None, coords=0, layers=layers)


@encoders.register("stft", StftConfig)
class Stft(nn.Module):
    """(B,N,1) samples -> (B,n,width): all places of all spectrograms, window by window. `width` is D."""

    def __init__(self, config: StftConfig, upstream: Spec) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        self.scales = nn.ModuleList(Scale(config) for _ in config.windows)

    def forward(self, tokens: Tokens, attend: Attend | None = None) -> Tokens:
        if attend is not None:
            raise Mismatch("encoder 'stft' reads whole windows: the corruption's attention pattern has no meaning here")
        found, layers = [], {}
        for number, (window, scale) in enumerate(zip(self.config.windows, self.scales, strict=True)):
            score, hidden = scale(parts(tokens.x[..., 0], window))
            found.append(score.flatten(2).transpose(1, 2))  # (B,T*F,width)
            layers.update({number * len(hidden) + i: layer for i, layer in enumerate(hidden)})
        x = torch.cat(found, 1)
        rows, n = x.shape[:2]
        place = torch.arange(n, device=x.device).expand(rows, n)
        sites = Sites(sample=tokens.sites.sample[:, :1].expand(rows, n), place=place)
        kept = {i: layer for i, layer in layers.items() if i in self.config.emit}
        return replace(tokens, x=x, sites=sites, layers=kept or None)


class Scale(nn.Module):
    """The network of one window length."""

    def __init__(self, config: StftConfig) -> None:
        super().__init__()
        channels, self.slope = config.channels, config.slope
        layers = [conv(2, channels, (3, 9))]
        layers += [conv(channels, channels, (3, 9), (1, 2), (dilation, 1)) for dilation in config.dilations]
        layers += [conv(channels, channels, (3, 3))]
        self.layers = nn.ModuleList(layers)
        self.score = conv(channels, config.width, (3, 3))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B,2,T,F) -> scores (B,width,T,f) and the hidden layers."""
        hidden = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), self.slope)
            hidden.append(x)
        return self.score(x), hidden


def conv(
    before: int,
    after: int,
    kernel: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
) -> nn.Module:
    """A weight-normalised convolution over time and frequency that keeps the lattice, but for its stride."""
    padding = ((kernel[0] - 1) * dilation[0] // 2, (kernel[1] - 1) * dilation[1] // 2)
    return nn.utils.parametrizations.weight_norm(nn.Conv2d(before, after, kernel, stride, padding, dilation))


def parts(sound: Tensor, window: int) -> Tensor:
    """(B,N) -> (B,2,T,window/2+1): real and imaginary parts of the spectrogram."""
    return torch.view_as_real(spectrogram(sound, window)).permute(0, 3, 2, 1)
