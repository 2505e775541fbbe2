"""Whether a token was replaced: what tells a true one from a plausible mistake.

Clark et al. 2020, "ELECTRA" (arXiv:2003.10555), section 2. A draw that happens to be right counts as true.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from encdec_train.registry import targets
from encdec_train.step import Step
from encdec_train.types import Goal, Mismatch, Path, Plan, Spec


@dataclass(kw_only=True)
class ReplacedConfig:
    def spec(self, sites: Spec) -> Spec:
        if sites.raw is None or sites.raw.kind != "ids":
            raise Mismatch(f"target 'replaced' compares ids, the view gives {sites.raw.kind if sites.raw else 'none'}")
        return replace(sites, kind="values", width=1, raw=None)


@targets.register("replaced", ReplacedConfig)
class Replaced(nn.Module):
    """(M,1): 1 where the id that the encoder reads is not the view's own. The sites must be those of the view."""

    def __init__(self, config: ReplacedConfig, sites: Spec) -> None:
        super().__init__()

    def forward(self, step: Step, path: Path, plan: Plan) -> Goal:
        own, read = step.units(path.view).values, plan.inputs.values
        if own.shape != read.shape:
            raise Mismatch(
                f"target 'replaced' compares site by site, the view has {own.shape[1]}, the plan {read.shape[1]}"
            )
        changed = (read != own).flatten()
        changed = changed if plan.where is None else changed[plan.where]
        return Goal(values=changed.float()[:, None], weight=plan.weight)
