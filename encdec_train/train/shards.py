"""FSDP (Zhao et al. 2023, arXiv:2304.11277): a process keeps a share of each parameter, gradient and optimiser state.

torch's second version, `fully_shard`: a parameter is a DTensor that is cut along its first dimension. The layers of
encoders and decoders, and of teachers' copies, are put together one at a time when they run; everything else is whole
from the begin of a step's forward pass to the end of its backward pass (`Parts.forward`), so that any method of a part
may be called within. Buffers are whole on all processes: what changes them sees the rows of all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from encdec_train.config import TrainConfig
from encdec_train.nn.gather import world
from encdec_train.registry import optimizers as optimizer_registry
from encdec_train.step import Parts
from encdec_train.types import Mismatch

Result = TypeVar("Result")
LISTS = nn.ModuleList | nn.Sequential


def check(config: TrainConfig) -> None:
    """What a share of the model is enough for.

    Raises:
        Mismatch: something asks for whole parameters while the run goes on.
    """
    if getattr(optimizer_registry.part(config.optim), "whole", False):
        name = optimizer_registry.name(config.optim)
        raise Mismatch(f"trainer.strategy: fsdp cuts parameters, and optim '{name}' measures whole ones; use ddp")
    if config.trainer.compile:
        raise Mismatch("trainer.compile: layers that trainer.strategy=fsdp puts together are not compiled; use ddp")
    if config.checkpoint.best not in (None, "loss"):
        raise Mismatch(
            f"checkpoint.best: probe '{config.checkpoint.best}' reads whole parts, which no process has between steps "
            "with trainer.strategy=fsdp; it can be loss"
        )
    online = [name for name, part in config.probe.items() if part.every is not None]
    if online:
        raise Mismatch(
            f"probe.{online[0]}.every: probes read whole parts, which no process has between steps with "
            "trainer.strategy=fsdp; leave it out"
        )


def check_parts(parts: Parts) -> None:
    """Every parameter can be cut.

    Raises:
        Mismatch: one has no dimension.
    """
    for name, parameter in parts.named_parameters():
        if parameter.dim() == 0:
            raise Mismatch(f"trainer.strategy: fsdp cannot cut {name}, a parameter without a dimension; use ddp")


def shard(parts: Parts, device: torch.device) -> None:
    """Cut the parameters, for all processes those of the first. They stay float32, and so do sums of gradients."""
    _send(parts, device)
    mesh = init_device_mesh(device.type, (world()[1],))
    for layer in list(layers(parts)):
        fully_shard(layer, mesh=mesh)
        for method in getattr(layer, "entries", ()):
            register_fsdp_forward_method(layer, method)
    fully_shard(parts, mesh=mesh)
    for module in parts.modules():
        if isinstance(module, FSDPModule):
            module.set_force_sum_reduction_for_comms(True)  # gloo has no mean
            module.set_gradient_divide_factor(1.0)


@torch.no_grad()
def _send(parts: Parts, device: torch.device) -> None:
    """From the first process to the others, which have its weights already unless they were published ones."""
    for tensor in [*parts.parameters(), *parts.buffers()]:
        sent = tensor.to(device)
        dist.broadcast(sent, 0)
        tensor.copy_(sent)


def layers(parts: Parts) -> Iterator[nn.Module]:
    """What is put together by itself: repeated layers, but those that share a parameter with something else."""
    uses = _uses(parts)
    nouns: Any
    for nouns in (parts.student, *parts.teachers.values()):
        for noun in ("encoder", "decoder"):
            for layer in _repeated(nouns[noun]) if noun in nouns else ():
                own = _uses(layer)
                if own and all(uses[parameter] == count for parameter, count in own.items()):
                    yield layer


def _uses(module: nn.Module) -> Counter[nn.Parameter]:
    """How often each parameter stands in a module."""
    return Counter(parameter for _, parameter in module.named_parameters(remove_duplicate=False))


def _repeated(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost lists of modules of one class that have modules of their own."""
    for child in module.children():
        items = list(child.children()) if isinstance(child, LISTS) else []
        kinds = {type(item) for item in items}
        if len(kinds) == 1 and not issubclass(kinds.pop(), LISTS) and any(items[0].children()):
            yield from items
        else:
            yield from _repeated(child)


def read(parts: Parts, work: Callable[[], Result]) -> Result:
    """What `work` gives, which reads parts outside of a training step; they are cut again afterwards."""
    found: Result = parts(work)
    if isinstance(parts, FSDPModule):
        parts.reshard()
    return found


def whole(norm: Tensor) -> Tensor:
    """A norm over the shares of all processes, where it was taken of shares."""
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def count(parts: nn.Module) -> int:
    """Processes that have a share of these parts."""
    return world()[1] if isinstance(parts, FSDPModule) else 1


def is_cut(value: Any) -> bool:
    """Whether a process has a part of this tensor only."""
    return isinstance(value, DTensor) and any(placement.is_shard() for placement in value.placements)


def mine(values: Mapping[Any, Any]) -> dict[Any, Any]:
    """Of named values those that this process keeps: its shares, and on the first one what is whole on all."""
    first = world()[0] == 0
    kept = {name: value for name, value in values.items() if first or is_cut(value)}
    return {name: value.to_local() if isinstance(value, DTensor) else value for name, value in kept.items()}


def mine_of(optimizer: dict[str, Any]) -> dict[str, Any]:
    """Of an optimiser's state what this process keeps."""
    return {**optimizer, "state": {index: mine(values) for index, values in optimizer["state"].items()}}


def join(kept: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What processes kept, in their order, together: what only the first one has is whole."""
    first, *others = kept
    return {
        name: torch.cat([value, *(other[name] for other in others)]) if any(name in o for o in others) else value
        for name, value in first.items()
    }


def load(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Whole weights into a module, or this process's shares of them where it is cut."""
    like = module.state_dict()
    module.load_state_dict({name: cut(value, like.get(name)) for name, value in weights.items()})


def load_optimizer(optimizer: torch.optim.Optimizer, kept: Sequence[dict[str, Any]]) -> None:
    """The states that processes kept into an optimiser, or this process's share of them where parameters are cut."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = {}
    for index in kept[0]["state"]:
        found, parameter = join([one["state"].get(index, {}) for one in kept]), parameters[index]
        state[index] = {name: cut(v, parameter) if _is_like(v, parameter) else v for name, v in found.items()}
    optimizer.load_state_dict({**kept[0], "state": state})


def _is_like(value: Any, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == parameter.shape


def cut(value: Tensor, like: Tensor | None) -> Tensor:
    """This process's share of a whole tensor, where the other one is a share of its like; else the whole."""
    if not isinstance(like, DTensor):
        return value
    shares, rank = value.chunk(like.device_mesh.size()), like.device_mesh.get_local_rank()
    own = shares[rank] if rank < len(shares) else value[:0]
    return DTensor.from_local(
        own.to(like.device, copy=True),  # not a view, or the whole would stay
        like.device_mesh,
        like.placements,
        run_check=False,
        shape=value.shape,
        stride=value.stride(),
    )
