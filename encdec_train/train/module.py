"""The one LightningModule. It knows steps, terms and optimisers, and no method."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from encdec_train.build import Dry, Wiring, compute_terms, freeze, phases, total_loss
from encdec_train.config import StageConfig, TrainConfig, override
from encdec_train.data.transform import Transform
from encdec_train.optim.groups import decay_groups
from encdec_train.optim.schedule import Course, OptimConfig, decay, peak_rate, rate
from encdec_train.registry import optimizers as optimizer_registry
from encdec_train.rng import Rng, key_of
from encdec_train.step import Parts, Step
from encdec_train.train.frozen import to_device
from encdec_train.types import Batch, Term


class PretrainModule(LightningModule):
    """One stage of a run.

    Args:
        dry: tells which parameters a phase besides `main` trains.
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
        dry: Dry,
        stage: StageConfig,
        optim: OptimConfig,
        index: int,
        steps: int,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False  # one way, however many optimisers a method has
        self.config, self.parts, self.transform, self.stage = config, parts, transform, stage
        self.optim, self.steps = optim, steps
        self.horizon, self.course = steps, Course()  # where the schedule ends, and the way there
        self.key = key_of(config.seed, "stage", index) >> 1  # of all randomness of this stage
        self.phases = phases(parts, stage.objectives or list(config.objective))
        self.derive = {view: wiring.paths[name] for view, name in config.derive.items()}
        self.done = 0  # global steps of this stage
        self.last_loss: Tensor | None = None
        self.last_terms: dict[str, Term] = {}
        self.last_norm: Tensor | None = None
        self.last_rate = 0.0
        freeze(parts, stage.freeze)
        self.owned = self._split(dry)
        self.optims = {phase: override(optim, config.phase.get(phase, {}), f"phase.{phase}") for phase in self.owned}
        self.peaks = {phase: peak_rate(found, config.loader.batch) for phase, found in self.optims.items()}

    def _split(self, dry: Dry) -> dict[str, dict[str, nn.Parameter]]:
        """The trainable parameters of each phase by name; what no other phase owns belongs to `main`."""
        named = {name: p for name, p in self.parts.student.named_parameters() if p.requires_grad}
        owner = {name: phase for phase, names in dry.owned.items() for name in names}
        return {
            phase: {name: p for name, p in named.items() if owner.get(name, "main") == phase} for phase in self.phases
        }

    def configure_optimizers(self) -> Any:
        """One optimiser for each phase, in their order."""
        made = []
        for phase, named in self.owned.items():
            optim = self.optims[phase]
            made.append(optimizer_registry.part(optim)(optim)(decay_groups(named.items(), optim.weight_decay)))
        return made

    def transfer_batch_to_device(self, batch: tuple[int, Batch], device: torch.device, _: int) -> Any:
        number, views = batch
        return number, to_device(views, device)

    def training_step(self, batch: tuple[int, Batch], _: int) -> None:
        number, views = batch
        assert number == self.done, f"the loader is at step {number}, the module at {self.done}"
        step = self.make_step(number, views)
        losses, terms = [], {}
        for index, (phase, objectives) in enumerate(self.phases.items()):
            self._enter(phase)
            found = {name: self._global(term) for name, term in compute_terms(step, objectives).items()}
            loss = total_loss(found)
            self._descend(phase, index, loss)
            losses.append(loss.detach())
            terms.update(found)
        self._follow()
        self.last_loss, self.last_terms = torch.stack(losses).sum(), terms
        self.done += 1

    def _enter(self, phase: str) -> None:
        """Only this phase's parameters train; the others pass gradients on and keep none."""
        if len(self.phases) > 1:
            for other, named in self.owned.items():
                for parameter in named.values():
                    parameter.requires_grad_(other == phase)

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

    def _descend(self, phase: str, index: int, loss: Tensor) -> None:
        optimizers: Any = self.optimizers()
        optimizer = optimizers[index] if isinstance(optimizers, list) else optimizers
        optim = self.optims[phase]
        now = rate(optim, self.peaks[phase], self.place, self.horizon)
        if index == 0:
            self.last_rate = now
        for group in optimizer.param_groups:
            group["lr"] = now * group.get("scale", 1.0)
            if optim.weight_decay_end is not None and group["weight_decay"] > 0:
                group["weight_decay"] = decay(optim, self.place, self.horizon)
        optimizer.zero_grad()
        self.manual_backward(loss)
        norm = self._norm([p for p in self.owned[phase].values() if p.grad is not None])
        self.last_norm = norm if index == 0 else self.last_norm
        optimizer.step()

    def _norm(self, parameters: list[nn.Parameter]) -> Tensor | None:
        """Of the whole gradient before it is clipped, where it is to be clipped or a line of metrics is due."""
        if self.config.trainer.clip is not None:
            return torch.nn.utils.clip_grad_norm_(parameters, self.config.trainer.clip).detach()
        done, every = self.done + 1, self.config.trainer.log_every
        if done == 1 or done == self.steps or done % every == 0:
            return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        return None

    @property
    def place(self) -> float:
        """On the schedule, in steps; further than the steps that were taken where time is short."""
        return min(self.course.at(self.done), float(self.horizon))

    def _follow(self) -> None:
        """Teachers move after the student did."""
        for name, teacher in self.config.teacher.items():
            momentum = teacher.momentum
            if teacher.momentum_end is not None:
                share = 0.5 * (1 - math.cos(math.pi * self.place / self.horizon))
                momentum += (teacher.momentum_end - teacher.momentum) * share
            if momentum < 1:
                self.parts.update_teacher(name, momentum)
