"""What all tests share: a fixed start for the weights they make, one thread for each of the processes that pytest runs
side by side, and Triton's interpreter where there is no GPU."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported, here and in the processes that tests start

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is first imported, which torch alone does not do


@pytest.fixture(autouse=True)
def fixed_start():
    """A test may set them; a copy of a process (fork) in which several threads had worked hangs."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
