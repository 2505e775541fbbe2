"""Kernels run for real: on a GPU where there is one, else in Triton's interpreter (float32 and float64 only there)."""

from collections.abc import Iterator

import pytest
import torch

from encdec_train.kernels import backend


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture
def kernels() -> Iterator[None]:
    """Whatever has a kernel runs in it, or fails."""
    with backend.using(backend=backend.Backend.triton, strict=True):
        yield


@pytest.fixture
def forget() -> Iterator[None]:
    """Fallbacks that a test provokes are not remembered."""
    before = dict(backend._fallbacks)
    backend._fallbacks.clear()
    yield
    backend._fallbacks.clear()
    backend._fallbacks.update(before)
