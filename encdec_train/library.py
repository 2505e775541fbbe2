"""The optional libraries, each imported where it is used."""

from __future__ import annotations

import importlib
from typing import Any

from encdec_train.types import Mismatch


def need(library: str, extra: str, wanted_by: str) -> Any:
    """The library, or one sentence.

    Raises:
        Mismatch: it is not installed, or does not import.
    """
    try:
        return importlib.import_module(library)
    except (ImportError, RuntimeError) as error:  # a torchvision that does not fit this torch raises the latter
        why = "" if isinstance(error, ModuleNotFoundError) and error.name == library else f" ({error})"
        raise Mismatch(f"{wanted_by} needs {library}{why}: pip install 'encdec-train[{extra}]'") from error
