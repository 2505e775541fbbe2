"""Metrics to Weights & Biases, when asked for. Never prompts: without a key the run is kept offline."""

from __future__ import annotations

import netrc
import os
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from encdec_train.config import TrainConfig
from encdec_train.train.checkpoint import write_text


class WandbSink:
    """Takes lines of metrics. The run's id is kept in the run directory, so that a resumed run goes on under it."""

    def __init__(self, folder: Path, config: TrainConfig, plain: dict[str, Any]) -> None:
        import wandb

        kept = folder / "wandb_id"
        if not kept.is_file():
            write_text(kept, secrets.token_hex(4))
        self.run = wandb.init(
            project="encdec-train",
            name=f"{config.name}/{folder.name}",
            id=kept.read_text(),
            dir=str(folder),
            config=plain,
            resume="allow",
            mode=mode(),
            settings=wandb.Settings(silent=True),
        )

    def __call__(self, line: dict[str, Any]) -> None:
        flat = {key: value for key, value in line.items() if not isinstance(value, dict)}
        for key in ("terms", "probes"):
            flat.update({f"{key}/{name}": value for name, value in line.get(key, {}).items()})
        self.run.log(flat, step=line["step"])

    def close(self) -> None:
        self.run.finish()


def mode() -> Any:
    """What WANDB_MODE says; else online with a key and offline without."""
    wanted = os.environ.get("WANDB_MODE")
    if wanted:
        return wanted
    return "online" if os.environ.get("WANDB_API_KEY") or _logged_in() else "offline"


def _logged_in() -> bool:
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        return host is not None and netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
