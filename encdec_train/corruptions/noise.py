"""Values on their way to noise, at a time that each row draws: what diffusion and flow models restore.

Ho et al. 2020, "Denoising diffusion probabilistic models" (arXiv:2006.11239), equation 4 and section 4 (1000 steps,
variances from 1e-4 to .02); Salimans and Ho 2022 (arXiv:2202.00512), appendix D (velocity); Lipman et al. 2023,
"Flow matching" (arXiv:2210.02747), and Liu et al. 2023 (arXiv:2209.03003), for the straight path.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import torch
from torch import Tensor, nn

from encdec_train.registry import corruptions
from encdec_train.step import Step
from encdec_train.types import Mismatch, Path, Plan, Sites, Spec, Units


class Way(Enum):
    """How values become noise, from time 0 to 1."""

    flow = "flow"  # (1 - t) clean + t noise
    diffusion = "diffusion"  # sqrt(a) clean + sqrt(1 - a) noise, a from the linear schedule of a thousand steps


class Wanted(Enum):
    """What is predicted."""

    noise = "noise"
    velocity = "velocity"  # flow: noise - clean; diffusion: sqrt(a) noise - sqrt(1 - a) clean


@dataclass(kw_only=True)
class NoiseConfig:
    way: Way = Way.flow
    wanted: Wanted = Wanted.velocity
    deviation: float = 1.0  # of the clean values: they are divided by it first

    def spec(self, sites: Spec) -> Spec:
        raw = sites.raw
        if raw is None or raw.kind != "values":
            raise Mismatch(f"corruption 'noise' needs values, the view gives {raw.kind if raw else sites.kind}")
        if self.deviation <= 0:
            raise Mismatch(f"corruption 'noise'.deviation: {self.deviation} is not above 0")
        return sites


@corruptions.register("noise", NoiseConfig)
class Noise(nn.Module):
    """All values of a row at one time; the plan's targets are what is to be predicted, at every site."""

    kept: Tensor

    def __init__(self, config: NoiseConfig, sites: Spec) -> None:
        super().__init__()
        self.config = config
        if config.way is Way.diffusion:
            variances = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
            self.register_buffer("kept", (1 - variances).cumprod(0).float(), persistent=False)  # a of each step

    def forward(self, units: Units, sites: Sites, step: Step, path: Path) -> Plan:
        tag, own = f"noise.{path.draw}", units.sites
        clean = units.values.float() / self.config.deviation  # (B,N,C)
        channel = torch.arange(clean.shape[-1], device=clean.device)
        noise = step.rng.normal(tag, own.sample[..., None], own.place[..., None], channel)
        time, signal, spread = self.mixture(step.rng.uniform(f"{tag}.time", own.sample[:, 0]))
        signal, spread = signal[:, None, None], spread[:, None, None]
        return Plan(
            inputs=replace(units, values=signal * clean + spread * noise),
            sites=sites,
            targets=replace(units, values=self.target(clean, noise, signal, spread)),
            time=time,
        )

    def mixture(self, chance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Times (B,) drawn by uniform numbers, and what clean values and noise are multiplied by."""
        if self.config.way is Way.flow:
            return chance, 1 - chance, chance
        number = (chance * len(self.kept)).long()
        return number / len(self.kept), self.kept[number].sqrt(), (1 - self.kept[number]).sqrt()

    def target(self, clean: Tensor, noise: Tensor, signal: Tensor, spread: Tensor) -> Tensor:
        """(B,N,C)."""
        if self.config.wanted is Wanted.noise:
            return noise
        return noise - clean if self.config.way is Way.flow else signal * noise - spread * clean
