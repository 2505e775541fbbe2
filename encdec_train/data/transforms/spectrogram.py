"""Sounds as pictures: log-mel spectrograms, made and cut into patches on the training device."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from encdec_train.data.config import DataConfig
from encdec_train.data.transform import Drawing
from encdec_train.data.transforms.audio import WaveformConfig, WaveformTransform
from encdec_train.data.transforms.image import lattice
from encdec_train.nn.lattice import cut, join
from encdec_train.nn.mel import frame_sizes, log_mel
from encdec_train.registry import transforms
from encdec_train.rng import Rng
from encdec_train.types import Batch, Mismatch, Plan, Spec, Units


@dataclass(kw_only=True)
class SpectrogramConfig(WaveformConfig):
    normalize: bool = False  # each sound to unit variance before anything else
    window: float = 0.025  # seconds of a frame
    hop: float = 0.01  # seconds from frame to frame
    bins: int = 128  # mel filters
    frames: int | None = None  # of a spectrogram, cut or filled with zeros; none: whole patches of what a sound gives
    patch: list[int] = field(default_factory=lambda: [16, 16])  # frames and bins
    mean: float = 0.0  # of the logarithms over the data set
    std: float = 1.0  # what they are divided by


@transforms.register("spectrogram", SpectrogramConfig)
class SpectrogramTransform(WaveformTransform):
    """view `audio`: patches (N, frames * bins of one) on a lattice of time and frequency, lowest first."""

    config: SpectrogramConfig

    def __init__(self, config: SpectrogramConfig, data: DataConfig) -> None:
        super().__init__(config, data)
        size, step = frame_sizes(self.data.rate, config.window, config.hop)
        if step < 1 or size < 2 or self.length < size:
            raise Mismatch(
                f"transform 'spectrogram': frames of {size} samples every {step} do not fit sounds of {self.length}"
            )
        time, pitch = config.patch if len(config.patch) == 2 else (0, 0)
        if min(time, pitch, config.bins) < 1 or config.std <= 0:
            raise Mismatch(
                f"transform 'spectrogram': patch {config.patch} must be frames and bins, bins {config.bins} and "
                f"std {config.std} above 0"
            )
        self.frames = config.frames or (1 + (self.length - size) // step) // time * time
        if self.frames < 1 or self.frames % time or config.bins % pitch:
            raise Mismatch(
                f"transform 'spectrogram': patches of {time} x {pitch} do not tile {self.frames} frames of "
                f"{config.bins} bins"
            )
        self.grid = (self.frames // time, config.bins // pitch)

    def specs(self) -> dict[str, Spec]:
        time, pitch = self.config.patch
        length = self.grid[0] * self.grid[1]
        return {"audio": Spec(kind="values", width=time * pitch, length=length, coords=2, grid=self.grid)}

    def finish(self, batch: Batch, rng: Rng, *, clean: bool) -> Batch:
        units, config = batch["audio"], self.config
        found = log_mel(units.values[..., 0], self.data.rate, config.bins, window=config.window, hop=config.hop)
        if units.sites.valid is not None:  # a frame is real where all of its samples are
            size, step = frame_sizes(self.data.rate, config.window, config.hop)
            real = (units.sites.valid.sum(1, keepdim=True) - size) // step + 1  # (B,1)
            place = torch.arange(found.shape[1], device=found.device)
            found = found * (place < real)[..., None]
        found = F.pad(found, (0, 0, 0, max(0, self.frames - found.shape[1])))[:, : self.frames]
        values = cut(((found - config.mean) / config.std)[..., None], config.patch)
        sites = lattice(units.sites.sample[:, :1], self.grid)
        return {**batch, "audio": Units(values=values, sites=sites)}

    def preprocess(self) -> dict[str, Any]:
        config = self.config
        return {
            **super().preprocess(),
            "kind": "spectrogram",
            "window": config.window,
            "hop": config.hop,
            "bins": config.bins,
            "frames": self.frames,
            "patch": list(config.patch),
            "mean": config.mean,
            "std": config.std,
        }

    def picture(self, values: Tensor) -> Tensor:
        """(B,N,C) -> (B,bins,frames,1), high is up."""
        return join(values, self.grid, self.config.patch).transpose(1, 2).flip(1)

    def show(self, units: Units, plan: Plan) -> Drawing | None:
        """Spectrograms and what is left of them; the loudest is white."""
        from encdec_train.data.pictures import seen_png

        low, high = units.values.amin().cpu(), units.values.amax().cpu()
        return Drawing("png", seen_png(units, plan, self.picture, lambda x: (x - low) / (high - low).clamp_min(1e-6)))

    def draw(self, units: Units, plan: Plan, prediction: Tensor) -> Drawing | None:
        """Spectrograms, what was left of them, and the predicted patches; the loudest is white, high is up."""
        if plan.mask is None or units.sites.grid is None or prediction.shape[-1:] != units.values.shape[-1:]:
            return None
        from encdec_train.data.pictures import GREY, panels_png, pasted

        shown, result, hidden = pasted(units, plan, prediction)
        low, high = shown.amin(), shown.amax()
        original, predicted = (self.picture((x - low) / (high - low).clamp_min(1e-6)) for x in (shown, result))
        seen = original.masked_fill(self.picture(hidden.expand_as(shown)), GREY)
        return Drawing("png", panels_png(original, seen, predicted))
