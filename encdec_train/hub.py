"""The hub that published models and data sets lie on, if it can be reached."""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path

log = logging.getLogger("encdec_train")
SECONDS = 10.0  # to answer


def look_for(name: str) -> None:
    """Before a library is asked for a model or data of this name, which may be a folder."""
    if not (Path(name).is_absolute() or Path(name).exists()):
        reaches()


@lru_cache(maxsize=1)
def reaches() -> bool:
    """Whether the hub answers; if not, its libraries look into their caches only.

    They would ask for each file six times, half a minute in all, and find nothing else. Asked once a process.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=SECONDS)
    except Exception as error:  # whatever the library asks with raises: no name, no route, no answer, a proxy's refusal
        log.warning("%s does not answer (%s): only what was downloaded before is used", constants.ENDPOINT, error)
        _offline()
        return False
    return True


def _offline() -> None:
    import datasets.config
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
