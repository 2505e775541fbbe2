"""No corruption waits for the device: no shape, branch or loop depends on data, and nothing is copied from the host."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from encdec_train.kernels.backend import Backend, using
from encdec_train.registry import Registry, discover
from encdec_train.rng import Rng
from encdec_train.types import Path, Sites, Spec, Units, Vocabulary, map_tensors

discover()
ROWS, N, GRID = 3, 64, (8, 8)
WORDS = Vocabulary(size=1000, mask=4, bos=2, eos=1, sentinel=999, sentinels=100, specials=5)
NAMES = sorted(set(Registry.all["corruption"].parts) - {"sampled"})  # which reads what an objective predicts
OF_VALUES = {"node_mask", "noise"}
ON_LATTICES = {"block_mask", "multi_block"}
OF_ONE_LENGTH = {"drop", "grid_mask", "site_mask"}
BARE = {"span_corruption", "mixed_spans", "blank_infilling"}  # texts that have no special tokens yet
SETTINGS = {
    "node_mask": {"swap": 0.1},
    "block_mask": {"smallest": 4},
    "noise_text": {"mask": 0.1, "infill": 0.2, "permute": 0.5, "rotate": 0.5},
}


class Keyed:
    def __init__(self, device):
        self.rng = Rng(3, torch.zeros((), dtype=torch.int64, device=device))


def made(name):
    """A corruption, and a view that it takes."""
    config, part = Registry.all["corruption"].parts[name]
    grid = GRID if name in ON_LATTICES else None
    raw = Spec(kind="ids", width=1000, length=N, vocabulary=WORDS, groups=True)
    if name in OF_VALUES:
        raw = Spec(kind="values", width=2, length=N)
    place = torch.arange(N).expand(ROWS, N)
    sites = Sites(
        sample=torch.arange(ROWS)[:, None].expand(ROWS, N),
        place=place,
        valid=None if name in ON_LATTICES | OF_ONE_LENGTH else place < torch.tensor([[64], [40], [21]]),
        fixed=None if name in BARE else place == 0,
        group=place // 9,
        grid=grid,
    )
    values = torch.ones(ROWS, N, 2) if name in OF_VALUES else place + 9
    spec = Spec(kind="vectors", width=2, length=N, grid=grid, groups=True, raw=raw)
    return part(config(**SETTINGS.get(name, {})), spec), Units(values=values, sites=sites)


def refuse(*_, **__):
    raise AssertionError("a copy from the host")


@pytest.mark.parametrize("name", NAMES)
def test_on_a_device_without_data(name, monkeypatch):
    part, units = made(name)
    plan = part(units, units.sites, Keyed("cpu"), Path())
    units = map_tensors(units, lambda x: x.to("meta"))
    part = part.to("meta")
    part(units, units.sites, Keyed("meta"), Path())  # makes the tables that are copied once
    step = Keyed("meta")
    for copies in ("tensor", "as_tensor", "from_numpy"):
        monkeypatch.setattr(torch, copies, refuse)
    empty = part(units, units.sites, step, Path())
    for field in ("keep", "replace", "mask", "where", "weight"):
        one, other = getattr(plan, field), getattr(empty, field)
        assert (one is None) == (other is None)
        assert one is None or one.shape == other.shape


class Operations(TorchDispatchMode):
    """Counts the operations of torch that compute or copy something."""

    VIEWS = ("view", "expand", "unsqueeze", "slice", "select", "detach", "alias", "transpose", "empty", "new_empty")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function.overloadpacket.__name__ not in self.VIEWS
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("name", "most"),
    [("block_mask", 8), ("drop", 8), ("multi_block", 8), ("span_corruption", 50), ("span_mask", 8), ("token_mask", 8)],
)
def test_kernels_stand_for_most_operations(name, most):
    part, units = made(name)
    part(units, units.sites, Keyed("cpu"), Path())  # makes tables
    counts = []
    for backend in (Backend.reference, Backend.triton):
        with using(backend=backend, strict=True), Operations() as operations:
            part(units, units.sites, Keyed("cpu"), Path())
        counts.append(operations.count)
    assert counts[1] <= most < counts[0] / 3


@pytest.mark.parametrize("name", ["span_mask", "token_mask"])
def test_as_one_graph(name):
    part, units = made(name)

    def run(units, step):
        plan = part(units, units.sites, step, Path())
        return plan.inputs.values, plan.where, plan.mask

    step, compiled = Keyed("cpu"), torch.compile(run, fullgraph=True, backend="aot_eager")
    for one, other in zip(run(units, step), compiled(units, step), strict=True):
        assert torch.equal(one, other)
