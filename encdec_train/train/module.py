"""The one LightningModule. It knows steps, terms and optimisers, and no method."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule
from torch import Tensor

from encdec_train.build import Wiring, compute_terms
from encdec_train.config import StageConfig, TrainConfig
from encdec_train.data.transform import Transform
from encdec_train.optim.groups import decay_groups
from encdec_train.optim.schedule import OptimConfig, peak_rate, rate
from encdec_train.registry import optimizers as optimizer_registry
from encdec_train.rng import Rng, key_of
from encdec_train.step import Parts, Step
from encdec_train.train.frozen import to_device
from encdec_train.types import Batch, Term


class PretrainModule(LightningModule):
    """One stage of a run.

    Args:
        optim: the optimiser's configuration with the stage's overrides.
        name, index: of the stage.
        steps: of the whole stage; the schedule ends there.
    """

    def __init__(
        self,
        config: TrainConfig,
        wiring: Wiring,
        parts: Parts,
        transform: Transform,
        *,
        stage: StageConfig,
        optim: OptimConfig,
        index: int,
        steps: int,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False  # one way, however many optimisers a method has
        self.config, self.parts, self.transform, self.stage = config, parts, transform, stage
        self.optim, self.steps = optim, steps
        self.peak = peak_rate(optim, config.loader.batch)
        self.key = key_of(config.seed, "stage", index) >> 1  # of all randomness of this stage
        self.active = stage.objectives or list(config.objective)
        self.derive = {view: wiring.paths[name] for view, name in config.derive.items()}
        self.done = 0  # global steps of this stage
        self.last_loss: Tensor | None = None
        self.last_terms: dict[str, Term] = {}
        self.last_norm: Tensor | None = None
        self.last_rate = 0.0
        self._freeze()

    def _freeze(self) -> None:
        for noun, named in self.parts.student.items():
            for name, part in named.items():  # type: ignore[operator, union-attr]
                part.frozen = f"{noun}.{name}" in self.stage.freeze
                part.requires_grad_(not part.frozen)

    def configure_optimizers(self) -> Any:
        groups = decay_groups(self.parts.student.named_parameters(), self.optim.weight_decay)
        return optimizer_registry.part(self.optim)(self.optim)(groups)

    def transfer_batch_to_device(self, batch: tuple[int, Batch], device: torch.device, _: int) -> Any:
        number, views = batch
        return number, to_device(views, device)

    def training_step(self, batch: tuple[int, Batch], _: int) -> None:
        number, views = batch
        assert number == self.done, f"the loader is at step {number}, the module at {self.done}"
        step = self.make_step(number, views)
        terms = {name: self._global(term) for name, term in compute_terms(step, self.active).items()}
        loss = sum((term.weight * term.mean for term in terms.values()), torch.zeros((), device=self.device))
        self._descend(loss)
        self._follow()
        self.last_loss, self.last_terms = loss.detach(), terms
        self.done += 1

    def make_step(self, number: int, views: Batch) -> Step:
        """The step with its randomness; dropout is the only draw on torch's own generator."""
        torch.manual_seed(key_of(self.key, "dropout", number, self.global_rank) & ((1 << 63) - 1))
        rng = Rng(self.key, torch.full((), number, dtype=torch.int64, device=self.device))
        return Step(self.transform.finish(views, rng, clean=False), self.parts, rng, self.derive)

    def _global(self, term: Term) -> Term:
        """Divide by the count of all ranks: a mean per rank is wrong where counts differ.

        Gradients are averaged over ranks afterwards, hence the factor.
        """
        if not (dist.is_available() and dist.is_initialized()):
            return term
        count = term.count.detach().clone()
        dist.all_reduce(count)
        return Term(term.sum * dist.get_world_size(), count, term.weight)

    def _descend(self, loss: Tensor) -> None:
        optimizer: Any = self.optimizers()
        self.last_rate = rate(self.optim, self.peak, self.done, self.steps)
        for group in optimizer.param_groups:
            group["lr"] = self.last_rate * group.get("scale", 1.0)
        optimizer.zero_grad()
        self.manual_backward(loss)
        if self.config.trainer.clip is not None:
            parameters = [p for p in self.parts.student.parameters() if p.grad is not None]
            self.last_norm = torch.nn.utils.clip_grad_norm_(parameters, self.config.trainer.clip).detach()
        optimizer.step()

    def _follow(self) -> None:
        """Teachers move after the student did."""
        for name, teacher in self.config.teacher.items():
            momentum = teacher.momentum
            if teacher.momentum_end is not None:
                share = 0.5 * (1 - math.cos(math.pi * self.done / self.steps))
                momentum += (teacher.momentum_end - teacher.momentum) * share
            if momentum < 1:
                self.parts.update_teacher(name, momentum)
