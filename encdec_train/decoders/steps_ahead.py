"""One linear map for each number of steps ahead: what stands there, told from the memory of a site.

van den Oord et al. 2018, "Contrastive predictive coding" (arXiv:1807.03748), section 2.2, equation 3: W_k c_t, which is
compared with the content of site t + k.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from encdec_train.nn.transformer import init_linear
from encdec_train.registry import decoders
from encdec_train.types import Mismatch, Plan, Spec, Tokens


@dataclass(kw_only=True)
class StepsAheadDecoderConfig:
    def spec(self, memory: Spec | None, inputs: Spec | None, sites: Spec) -> Spec:
        name = "decoder 'steps_ahead'"
        if memory is None or inputs is not None:
            raise Mismatch(f"{name} reads a memory and has no inputs of its own")
        if not memory.ahead:
            raise Mismatch(f"{name} predicts sites ahead: the memory's corruption must be 'steps_ahead'")
        if memory.rows != "all":
            raise Mismatch(f"{name} reads all sites, the memory has {memory.rows}")
        if not sites.features:
            raise Mismatch(f"{name} predicts the content of sites, their embedder has none")
        return replace(memory, width=sites.features, rows="predicted", length=0, prefix=0, layers=())


@decoders.register("steps_ahead", StepsAheadDecoderConfig)
class StepsAheadDecoder(nn.Module):
    """memory (B,N,D) -> (B,(N-K)*K,features): of every origin all K steps, as in the plan's `where`."""

    def __init__(self, config: StepsAheadDecoderConfig, memory: Spec, inputs: Spec | None, sites: Spec) -> None:
        super().__init__()
        self.steps = memory.ahead
        self.linear = nn.Linear(memory.width, self.steps * sites.features, bias=False)
        init_linear(self)

    def forward(self, memory: Tokens, inputs: Tokens | None, plan: Plan) -> Tokens:
        known = memory.body[:, : -self.steps]  # origins: sites with K after them
        x = self.linear(known).unflatten(-1, (self.steps, -1)).flatten(1, 2)
        return replace(memory, x=x, prefix=0, index=plan.where, layers=None)
