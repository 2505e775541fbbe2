"""Small runs for tests: every recipe at demo scale, cut down to seconds."""

from __future__ import annotations

from pathlib import Path

from encdec_train.build import check, dry_run, make_transform
from encdec_train.data.open import open_rows
from encdec_train.launch import compose
from encdec_train.paths import RECIPES
from encdec_train.train import rundir
from encdec_train.train.assembly import assemble

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


def assembled(config, folder: Path):
    """A run under `folder` that is ready to train, without what comes before the first step and after the last."""
    transform = make_transform(config)
    wiring = check(config, transform.specs())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(rundir.dump(config), encoding="utf-8")
    return assemble(config, transform, wiring, dry_run(config, wiring), open_rows(config.data), folder)
