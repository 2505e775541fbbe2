"""Are the kernels right? On a GPU against torch in float64; without one, whether they compile and fit.

python scripts/check_kernels.py --op attention --only size=64 --json results/kernels_check.json
python scripts/check_kernels.py --compile --json results/kernels_compile.json

A kernel's error may be twice that of torch in the same dtype; 20 repeats give the same bits. A compiled kernel fits
into shared memory and spills nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

REPEATS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compile", action="store_true", help="compile only")
    parser.add_argument("--op", nargs="*", help="operations; none given: all")
    parser.add_argument("--arch", nargs="*", type=int, default=[80, 90, 100], help="to compile for")
    parser.add_argument("--only", default="", help="kernels or cases whose name holds this")
    parser.add_argument("--json", type=Path, help="where results are kept")
    arguments = parser.parse_args()
    os.environ["TRITON_INTERPRET"] = "0"  # read when Triton is imported
    from kernel_cases import common

    names = arguments.op or common.operations()
    if arguments.compile:
        rows = list(compiled(names, arguments.arch, arguments.only))
    else:
        device = common.cuda("check_kernels", "; `--compile` compiles the kernels without one")
        rows = [row for name in names for row in checked(name, device, arguments.only)]
    wrong = [row for row in rows if not row["ok"]]
    common.write(arguments.json, {"environment": common.environment(), "rows": rows})
    print(f"{len(rows) - len(wrong)} of {len(rows)} are right")
    sys.exit(1 if wrong else 0)


def compiled(names: list[str], archs: list[int], only: str) -> Iterator[dict[str, Any]]:
    """What every kernel would use of every device."""
    from encdec_train.kernels.crosscompile import build

    for name in names:
        if importlib.util.find_spec(f"encdec_train.kernels.{name}_triton") is None:
            continue  # an operation that is torch alone
        kernels = importlib.import_module(f"encdec_train.kernels.{name}_triton")
        for arch in archs:
            for job in kernels.jobs(arch):
                if only in job.name:
                    built = build(job, arch)
                    row = asdict(built) | {"ok": built.fits}
                    print(row, flush=True)
                    yield row


def checked(name: str, device: Any, only: str) -> Iterator[dict[str, Any]]:
    """Every case of an operation in every dtype, with every choice of tiles that such a case may be given."""
    from kernel_cases import common

    from encdec_train.kernels import backend

    for case in common.cases(name).checks():
        if only not in case.name:
            continue
        table = case.table or name
        for dtype in case.dtypes:
            for tiles in shipped(table, dtype, case.size, device):
                with ExitStack() as stack:
                    stack.enter_context(backend.using(backend=backend.Backend.triton, strict=True))
                    stack.enter_context(nullcontext() if tiles is None else backend.pinned(table, tiles))
                    found = judged(case, dtype, device)
                row = {"op": name, "case": case.name, "dtype": str(dtype), "tiles": tiles} | found
                print(row, flush=True)
                yield row


def shipped(name: str, dtype: Any, size: int, device: Any) -> list[Any]:
    """Choices of tiles for a dtype and a size, 0 for all; [None] for an operation that has no table."""
    from encdec_train.kernels import backend

    if not (backend.CONFIGS / f"{name}.json").is_file():
        return [None]
    table, arch, kind = backend.table(name), backend.architecture(device), str(dtype).removeprefix("torch.")
    rows = [row for row in table["rows"] if (row["arch"], row["dtype"]) == (arch, kind) and size in (0, row["size"])]
    found = [table["safe"], *(row["kernels"] for row in rows)]
    return [tiles for i, tiles in enumerate(found) if tiles not in found[:i]]


def judged(case: Any, dtype: Any, device: Any) -> dict[str, Any]:
    """Errors of the kernel and of torch against float64, and whether repeats give the same bits."""
    import torch

    ours = results(case.kernel, case.inputs(dtype, device))
    again = all(
        all(torch.equal(a, b) for a, b in zip(ours, results(case.kernel, case.inputs(dtype, device)), strict=True))
        for _ in range(REPEATS)
    )
    theirs = results(case.twin, case.inputs(dtype, device))
    if case.exact:
        equal = all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
        return {"equal": equal, "repeats": again, "ok": equal and again}
    wide = [
        x.detach().double().requires_grad_(x.requires_grad) if x.is_floating_point() else x
        for x in case.inputs(dtype, device)
    ]
    truth = results(case.twin, tuple(wide))
    errors = [errors_of(x, true) for x, true in zip(ours, truth, strict=True)]
    allowed = [errors_of(x, true) for x, true in zip(theirs, truth, strict=True)]
    near = all(
        e <= 2 * a + 1e-5
        for ours, theirs in zip(errors, allowed, strict=True)
        for e, a in zip(ours, theirs, strict=True)
    )
    return {"errors": errors, "torch": allowed, "repeats": again, "ok": near and again}


def results(function: Any, inputs: Any) -> list[Any]:
    """Outputs, then the gradients of a fixed mixture of them."""
    import torch

    outputs = [x for x in function(*inputs)]
    leaves = [x for x in inputs if x.requires_grad]
    if not leaves:
        return outputs
    generator = torch.Generator().manual_seed(0)
    mixed = 0
    for x in (x for x in outputs if x.requires_grad):
        weight = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.device, torch.float32)
        mixed = mixed + (x * weight.to(x.dtype)).sum(dtype=torch.promote_types(x.dtype, torch.float32))
    return [x.detach() for x in outputs] + list(torch.autograd.grad(mixed, leaves))


def errors_of(found: Any, truth: Any) -> tuple[float, float]:
    """The largest and the mean square error, relative to the largest value and to the mean square."""
    gap = found.double() - truth.double()
    most, mean = truth.double().abs().max().item(), truth.double().square().mean().sqrt().item()
    return gap.abs().max().item() / max(most, 1e-30), gap.square().mean().sqrt().item() / max(mean, 1e-30)


if __name__ == "__main__":
    main()
