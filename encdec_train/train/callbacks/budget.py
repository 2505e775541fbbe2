"""A wall-clock budget: the schedule is gone through in the time there is, so that a run ends decayed.

The place on the schedule, in steps, is a straight line over the steps that are taken, and never behind them. After
each hundredth of a stage's time its slope is chosen anew, so that at the present speed it ends with the time. After
each tenth a checkpoint is saved, which holds the line: what follows a resume, up to the next hundredth, is what was.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, Trainer

from encdec_train.config import seconds_of
from encdec_train.optim.schedule import Course
from encdec_train.train.callbacks.saver import Saver

log = logging.getLogger("encdec_train")
BENDS, SAVES = 100, 10  # in a stage's time
AGREE_EVERY = 8  # steps between two looks at the clock, where several processes must agree on the time


class Budget(Callback):
    """Bends the module's course and ends the stage when its place or the time is used up. Comes first.

    Args:
        saver: saves after each tenth; other callbacks find the module's `steps` set when a stage ends early.
        begin, end: seconds of the run's time between which the stage lies.
        elapsed: seconds of the run so far, those before a resume included.
    """

    def __init__(self, saver: Saver, *, begin: float, end: float, elapsed: Callable[[], float]) -> None:
        self.saver, self.begin, self.end, self.elapsed = saver, begin, end, elapsed
        self.since: tuple[int, float] | None = None  # step and time from which speed is measured
        self.bent = 0  # hundredths of the time after which the slope was chosen

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.bent = self._hundredths(trainer.strategy.broadcast(self.elapsed()))

    def _hundredths(self, now: float) -> int:
        return int(BENDS * (now - self.begin) / (self.end - self.begin))

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        done = pl_module.done
        if trainer.world_size > 1 and done % AGREE_EVERY:
            return
        now = trainer.strategy.broadcast(self.elapsed())
        if self.since is None:
            self.since = done, now  # the first step compiles and warms up
            return
        each = (now - self.since[1]) / max(1, done - self.since[0])
        course: Course = pl_module.course
        if done < pl_module.steps and (course.at(done) >= pl_module.horizon or now + each > self.end):
            pl_module.steps = done
            trainer.should_stop = True
        elif done < pl_module.steps and self._hundredths(now) > self.bent:
            before, self.bent = self.bent, self._hundredths(now)
            self._bend(pl_module, now, each)
            if self.bent * SAVES // BENDS > before * SAVES // BENDS:
                self.saver.save(trainer, pl_module)
                self._say(pl_module, now)
            self.since = done, trainer.strategy.broadcast(self.elapsed())

    def _bend(self, module: Any, now: float, each: float) -> None:
        """Choose the slope that reaches the horizon with the last step there is time for."""
        place = module.course.at(module.done)
        left = max(1.0, (self.end - now) / max(each, 1e-9))
        module.course = Course(step=module.done, place=place, pace=max(1.0, (module.horizon - place) / left))

    def _say(self, module: Any, now: float) -> None:
        share = 100 * module.course.at(module.done) / module.horizon
        log.info("budget: %.0f %% of the schedule after step %d, %.0f s are left", share, module.done, self.end - now)


def shares(budget: str | None, steps: list[int]) -> list[tuple[float, float]] | None:
    """Begin and end of each stage in seconds, in proportion to its steps; nothing without a budget."""
    if budget is None:
        return None
    whole, total, found, passed = seconds_of(budget), sum(steps), [], 0
    for count in steps:
        found.append((whole * passed / total, whole * (passed + count) / total))
        passed += count
    return found
