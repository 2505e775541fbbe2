"""What all tests share: a fixed start for the weights they make."""

import pytest
import torch


@pytest.fixture(autouse=True)
def fixed_weights():
    torch.manual_seed(0)
