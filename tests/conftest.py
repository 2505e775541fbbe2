"""What all tests share: a fixed start for the weights they make, and Triton's interpreter where there is no GPU."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is first imported, which torch alone does not do


@pytest.fixture(autouse=True)
def fixed_weights():
    torch.manual_seed(0)
