"""The grid is real: random sentences of registered parts train a step, or are refused before any data is touched."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import fields, replace
from random import Random
from typing import Any

import pytest

from encdec_train.build import check, dry_run, make_transform
from encdec_train.config import NAMED, RunConfig, StageConfig, TrainConfig, TrainerConfig
from encdec_train.launch import compose
from encdec_train.registry import Registry, discover
from encdec_train.train.run import train
from encdec_train.types import Mismatch
from tests.runs import RECIPE_NAMES

discover()
DRAWS, BATCHES = 200, 8
MOST = 2e10  # operations of a step that is taken
OPTIONAL = ("corruption", "bottleneck", "decoder")
PARTS = [noun for noun in NAMED if noun not in ("objective", "probe")]
SIZES = {"width": 32, "depth": 2, "heads": 2, "hidden": 32, "channels": 8, "code_width": 32, "groups": 2, "layers": 2}
FILES = {name for name, (_, part) in Registry.all["data"].parts.items() if part.__module__.endswith(".files")}
outcomes: Counter[str] = Counter()


def small(config: Any) -> Any:
    """The part at a size that takes no time; what it says in lists stays as long as it is, but narrow."""
    changes: dict[str, Any] = {}
    for f in fields(config):
        value = getattr(config, f.name)
        if f.name in SIZES and isinstance(value, int) and not isinstance(value, bool):
            changes[f.name] = min(value, SIZES[f.name])
        elif f.name == "channels" and isinstance(value, list):
            changes[f.name] = [16] * len(value)
    return replace(config, **changes)


def part(noun: str, random: Random) -> Any:
    names = [name for name in Registry.all[noun].parts if noun != "data" or name not in FILES]
    return small(Registry.all[noun].parts[random.choice(names)][0]())


def anything(random: Random) -> TrainConfig:
    """Every noun at random."""
    config = TrainConfig(data=part("data", random), transform=part("transform", random))
    for noun in PARTS:
        if noun not in OPTIONAL or random.random() < 0.5:
            getattr(config, noun)["main"] = part(noun, random)
    config.objective["main"] = Registry.all["objective"].parts[random.choice(["predict", "agree"])][0]()
    return config


def variation(random: Random) -> TrainConfig:
    """A recipe with one of its nouns exchanged, or several."""
    config = compose([f"+recipe={random.choice(RECIPE_NAMES)}"])
    for noun in random.sample(PARTS, random.choice([1, 1, 1, 2, 3])):
        named = getattr(config, noun)
        if noun in OPTIONAL and random.random() < 0.3:
            named.clear()
        else:
            named[random.choice(list(named) or ["main"])] = part(noun, random)
    return config


def cut(config: TrainConfig, root: Any) -> TrainConfig:
    """One step of few rows."""
    config.data = replace(config.data, limit=64)
    config.loader = replace(config.loader, batch=4, workers=0)
    config.trainer = TrainerConfig(max_steps=1, log_every=1)
    config.run = RunConfig(root=str(root), name="run")
    config.optim = config.optim or Registry.all["optim"].parts["adamw"][0]()
    config.stage = config.stage or {"main": StageConfig()}
    config.probe = {}
    config.evaluate = replace(config.evaluate, rows=64)
    return config


@pytest.mark.parametrize("batch", range(BATCHES))
def test_random_sentences(batch, tmp_path):
    for number in range(batch, DRAWS, BATCHES):
        random = Random(number)
        config = cut((variation if number % 4 else anything)(random), tmp_path / str(number))
        said = {noun: list(getattr(config, noun).values()) for noun in PARTS}
        try:
            wiring = check(config, make_transform(config).specs())
            flops = dry_run(config, wiring).flops
        except Mismatch as mismatch:
            outcomes["refused"] += 1
            for line in str(mismatch).splitlines():
                named = re.search(rf"\b({'|'.join([*Registry.all, 'path', 'stage', 'evaluate', 'derive'])})\b", line)
                assert named or "parameters get no gradient" in line, (number, line, said)
            continue
        except Exception as error:
            raise AssertionError(f"draw {number}: {type(error).__name__}: {error}; {said}") from error
        if flops > MOST:  # such as the covariance of all samples of a sound, which no machine here can hold
            outcomes["large"] += 1
            continue
        try:
            loss = train(config)["loss"]["last"]
        except Exception as error:
            raise AssertionError(f"draw {number} came through the check: {error!r}; {said}") from error
        assert math.isfinite(loss), (number, said)
        outcomes["trained"] += 1


def test_both_outcomes_are_common():
    """Otherwise the draws would show little."""
    if sum(outcomes.values()) == DRAWS:
        assert outcomes["trained"] > DRAWS // 10 and outcomes["refused"] > DRAWS // 10, outcomes
        assert outcomes["large"] < DRAWS // 20, outcomes
