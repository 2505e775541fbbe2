"""Step time of MAE ViT-B/16 on random pictures: ours against transformers' ViTMAEForPreTraining in a plain loop.

Both sides have the same shapes, the same fused AdamW and the same batch; a step is forward, backward and update. The
sides take turns, and the order alternates, because the speed of a shared machine drifts: trust the paired ratios only.

    python scripts/bench_mae.py --rounds 6
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import time
from collections.abc import Callable

import torch

from encdec_train.build import check, compute_terms, make_parts, make_transform
from encdec_train.launch import compose
from encdec_train.rng import Rng
from encdec_train.step import Step

Side = Callable[[int, torch.Tensor], torch.Tensor]  # (round, pictures) -> loss


def ours(learning_rate: float) -> tuple[Side, torch.optim.Optimizer, int]:
    config = compose(["+recipe=mae_vit", "scale=paper", "transform.augment=null"])
    transform = make_transform(config)
    parts = make_parts(config, check(config, transform.specs()))

    def loss(number: int, pictures: torch.Tensor) -> torch.Tensor:
        keys = torch.arange(len(pictures))[:, None]
        units = transform.patches(pictures, keys, 1)
        step = Step({"image": units}, parts, Rng(0, torch.tensor(number)))
        return compute_terms(step, ["main"])["main"].mean

    parameters = list(parts.student.parameters())
    return loss, torch.optim.AdamW(parameters, lr=learning_rate, fused=True), sum(p.numel() for p in parameters)


def theirs(learning_rate: float) -> tuple[Side, torch.optim.Optimizer, int]:
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    model = ViTMAEForPreTraining(ViTMAEConfig(norm_pix_loss=True)).train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, fused=True)
    return lambda _, pictures: model(pixel_values=pictures).loss, optimizer, sum(p.numel() for p in parameters)


def one_step(side: Side, optimizer: torch.optim.Optimizer, number: int, pictures: torch.Tensor, bf16: bool) -> float:
    started = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = side(number, pictures)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--only", choices=["ours", "theirs"], help="one side alone, for its peak memory")
    arguments = parser.parse_args()
    makers = {"ours": ours, "theirs": theirs}
    sides = {name: make(1e-4) for name, make in makers.items() if arguments.only in (None, name)}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(arguments.rounds + 1):
        pictures = torch.randn(arguments.batch, 3, 224, 224, generator=torch.Generator().manual_seed(number))
        order = list(sides) if number % 2 else list(reversed(sides))
        for name in order:
            side, optimizer, _ = sides[name]
            spent = one_step(side, optimizer, number, pictures, arguments.bf16)
            if number:  # the first round warms up
                seconds[name].append(spent)
    report = {
        "batch": arguments.batch,
        "dtype": "bf16 autocast" if arguments.bf16 else "fp32",
        "parameters": {name: count for name, (_, _, count) in sides.items()},
        "median_seconds": {name: round(statistics.median(values), 3) for name, values in seconds.items()},
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "machine": platform.processor() or platform.machine(),
    }
    if len(sides) == 2:
        ratios = [b / a for a, b in zip(seconds["ours"], seconds["theirs"], strict=True)]
        report["theirs_over_ours"] = {
            "median": round(statistics.median(ratios), 3),
            "all": [round(ratio, 3) for ratio in ratios],
        }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
