"""FSDP (Zhao et al. 2023, arXiv:2304.11277): every process keeps a share of each parameter, gradient and optimiser state.

torch's second version, `fully_shard`: a parameter is a DTensor that is cut along its first dimension. The layers of
encoders and decoders, and of teachers' copies, are put together one at a time when they run; everything else is whole
from the begin of a step's forward pass to the end of its backward pass (`Parts.forward`), so that any method of a part
may be called within. Buffers are whole on all processes: what changes them sees the rows of all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from encdec_train.config import Precision
from encdec_train.nn.gather import world
from encdec_train.step import Parts

LISTS = nn.ModuleList | nn.Sequential


def shard(parts: Parts, device: torch.device, precision: Precision) -> None:
    """Cut the parameters of the first process for all of them.

    With `bf16` layers are sent in bfloat16, as autocast would use them, and gradients are summed in float32.
    """
    _send(parts, device)
    mesh = init_device_mesh(device.type, (world()[1],))
    half = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    policy = half if precision is Precision.bf16 else MixedPrecisionPolicy()
    for layer in list(layers(parts)):
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(parts, mesh=mesh)
    for module in parts.modules():
        if isinstance(module, FSDPModule):
            module.set_force_sum_reduction_for_comms(True)  # gloo has no mean


@torch.no_grad()
def _send(parts: Parts, device: torch.device) -> None:
    """Of the first process to the others, which have its weights already unless they were published ones."""
    for tensor in [*parts.parameters(), *parts.buffers()]:
        sent = tensor.to(device)
        dist.broadcast(sent, 0)
        tensor.copy_(sent)


def layers(parts: Parts) -> Iterator[nn.Module]:
    """What is put together alone: repeated layers, unless they share a parameter with something else."""
    uses = Counter(parameter for module in parts.modules() for parameter in module.parameters(recurse=False))
    for nouns in (parts.student, *parts.teachers.values()):
        for noun in ("encoder", "decoder"):
            for layer in _repeated(nouns[noun]) if noun in nouns else ():
                own = Counter(parameter for module in layer.modules() for parameter in module.parameters(recurse=False))
                if own and all(uses[parameter] == count for parameter, count in own.items()):
                    yield layer


def _repeated(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost lists of modules of one class that have modules of their own."""
    for child in module.children():
        items = list(child.children()) if isinstance(child, LISTS) else []
        kinds = {type(item) for item in items}
        if len(kinds) == 1 and not issubclass(kinds.pop(), LISTS) and any(items[0].children()):
            yield from items
        else:
            yield from _repeated(child)
