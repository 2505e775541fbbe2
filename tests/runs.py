"""Small runs for tests: every recipe at demo scale, cut down to seconds."""

from __future__ import annotations

from pathlib import Path

from encdec_train.launch import compose
from encdec_train.paths import RECIPES

RECIPE_NAMES = sorted(path.stem for path in RECIPES.glob("*.yaml"))


def small(recipe: str, root: Path, *overrides: str, steps: int = 4):
    """The typed configuration of a short run under `root`, without probes unless asked for."""
    return compose(
        [
            f"+recipe={recipe}",
            f"run.root={root}",
            "run.name=run",
            "loader.batch=8",
            f"trainer.max_steps={steps}",
            "trainer.log_every=1",
            "evaluate.rows=64",
            "data.limit=256",
            *overrides,
        ]
    )
