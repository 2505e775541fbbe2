"""The jobs of a sweep: each notes what became of it, and the end names those that failed and how one goes on alone.

`<sweep>/<number>/job.json` holds the overrides of a job, its run directory, its status and its error, also where the
job ran on another machine, or was killed.
"""

from __future__ import annotations

import logging
import shlex
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from encdec_train.errors import explain
from encdec_train.train.rundir import is_run, read_json, write_json
from encdec_train.types import Halted

log = logging.getLogger("encdec_train")
JOB = "job.json"
begun: list[Path] = []  # folders of sweeps that this process launched


class Begun(Callback):
    """Hydra's call at the start of a sweep (`configs/train.yaml`)."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        begun.append(Path(config.hydra.sweep.dir))


class Job:
    """One job while it runs.

    Args:
        folder: of its own, under the sweep's.
        overrides: of its command line.
    """

    def __init__(self, folder: Path, overrides: Sequence[str]) -> None:
        self.path = folder / JOB
        self.facts: dict[str, Any] = {"overrides": list(overrides), "run": None, "status": "running", "error": None}

    def __enter__(self) -> Job:
        self._note()
        return self

    def tell(self, run: Path) -> None:
        """Its run directory."""
        self._note(run=str(run))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._note(status="finished")
        elif isinstance(error, Exception):
            said = str(error) if isinstance(error, Halted) else explain(error)
            log.error("%s", said or "".join(traceback.format_exception(error)))
            self._note(status="failed", error=said or f"{type(error).__name__}: {error}")
        else:
            self._note(status="interrupted")

    def _note(self, **facts: Any) -> None:
        self.facts.update(facts)
        write_json(self.path, self.facts)


def failures(sweep: Path) -> list[str]:
    """A sentence for each job that did not finish: which it is, why, and the command that goes on with it alone."""
    jobs = {int(path.parent.name): read_json(path) for path in sweep.glob(f"*/{JOB}")}
    common = set.intersection(*(set(job["overrides"]) for job in jobs.values())) if jobs else set()
    found = []
    for number, job in sorted(jobs.items()):
        if job["status"] != "finished":
            own = " ".join(override for override in job["overrides"] if override not in common)
            why = job["error"] or f"still {job['status']}, or ended without a word"
            found.append(f"job {number} ({own}): {why}; alone: {_command(job)}")
    return found


def _command(job: dict[str, Any]) -> str:
    """It goes on where it has a run; else it begins."""
    if job["run"] is not None and is_run(Path(job["run"])):
        return shlex.join(["encdec-train", "resume", job["run"]])
    return shlex.join(["encdec-train", *job["overrides"]])


def check(error: Exception | None = None) -> None:
    """After a sweep, which may have ended in an error.

    Raises:
        Halted: some jobs did not finish.
    """
    found = [sentence for sweep in begun for sentence in failures(sweep)]
    if found:
        raise Halted("\n".join([f"{len(found)} of the sweep's jobs did not finish:", *found])) from error
