"""What holds for every registered part, of every noun."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from torch import nn

import encdec_train
from encdec_train.data.config import DataConfig
from encdec_train.data.transform import Transform
from encdec_train.optim.schedule import OptimConfig
from encdec_train.probes.probe import ProbeConfig
from encdec_train.registry import PACKAGES, Registry, discover

discover()
PARTS = [
    pytest.param(noun, name, id=f"{noun}-{name}") for noun, registry in Registry.all.items() for name in registry.parts
]
MODULES = {
    "embedder",
    "corruption",
    "encoder",
    "bottleneck",
    "decoder",
    "head",
    "target",
    "loss",
    "objective",
}
SPECS = {"embedder", "corruption", "encoder", "bottleneck", "decoder", "head", "target"}
CONFIGS = Path(__file__).parents[1] / "configs"


def pair(noun: str, name: str) -> tuple[type, type]:
    return Registry.all[noun].parts[name]


def test_there_are_parts() -> None:
    assert {"data", "transform", *MODULES - {"bottleneck"}, "optim", "probe"} <= {
        noun for noun, registry in Registry.all.items() if registry.parts
    }
    assert len(PACKAGES) == len(Registry.all)


@pytest.mark.parametrize("noun,name", PARTS)
def test_name(noun: str, name: str) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]*", name)


@pytest.mark.parametrize("noun,name", PARTS)
def test_part_says_what_it_does(noun: str, name: str) -> None:
    _, part = pair(noun, name)
    own = part.__dict__.get("__doc__")
    assert own and len(own.split()) >= 3, f"{part.__name__} has no docstring of its own"


@pytest.mark.parametrize("noun,name", PARTS)
def test_module_says_what_it_is(noun: str, name: str) -> None:
    _, part = pair(noun, name)
    module = __import__(part.__module__, fromlist=["_"])
    assert module.__doc__ and len(module.__doc__.split()) >= 3


@pytest.mark.parametrize("noun,name", PARTS)
def test_config_is_a_keyword_only_dataclass_with_defaults(noun: str, name: str) -> None:
    config, _ = pair(noun, name)
    assert is_dataclass(config)
    assert config.__name__.endswith("Config")
    assert all(field.kw_only for field in fields(config))
    needed = [f.name for f in fields(config) if f.default is MISSING and f.default_factory is MISSING]
    assert not needed


@pytest.mark.parametrize("noun,name", PARTS)
def test_config_is_one_that_omegaconf_can_hold(noun: str, name: str) -> None:
    """Structured, typed against typos, and a dataclass equal to the default again."""
    config, _ = pair(noun, name)
    node = OmegaConf.structured(config)
    with pytest.raises(Exception, match="surely_no_field"):
        node.surely_no_field = 1
    assert OmegaConf.to_object(node) == config()
    again = OmegaConf.merge(OmegaConf.structured(config), OmegaConf.create(OmegaConf.to_yaml(node)))
    assert OmegaConf.to_object(again) == config()


@pytest.mark.parametrize("noun,name", PARTS)
def test_kind(noun: str, name: str) -> None:
    config, part = pair(noun, name)
    if noun in MODULES:
        assert issubclass(part, nn.Module)
    if noun in SPECS:
        assert callable(getattr(config, "spec", None)), f"{config.__name__} has no integer check"
    if noun == "loss":
        assert callable(getattr(config, "check", None)), f"{config.__name__} has no integer check"
    if noun == "embedder":
        assert all(callable(getattr(part, verb, None)) for verb in ("sites", "features", "place"))
    if noun == "data":
        assert issubclass(config, DataConfig)
    if noun == "transform":
        assert issubclass(part, Transform)
    if noun == "optim":
        assert issubclass(config, OptimConfig)
    if noun == "probe":
        assert hasattr(part, "metric") and hasattr(part, "protocol") and issubclass(config, ProbeConfig)


def test_config_names_are_unique() -> None:
    """An error names the class, so that two of one name would be told apart by nobody."""
    counts = Counter(config.__name__ for registry in Registry.all.values() for config, _ in registry.parts.values())
    assert [name for name, count in counts.items() if count > 1] == []


def test_registration_refuses_what_is_taken() -> None:
    registry = Registry.all["head"]
    config, part = registry.parts["linear"]
    with pytest.raises(ValueError, match="'linear' is registered twice"):
        registry.register("linear", config)(part)
    with pytest.raises(ValueError, match="already configures another part"):
        registry.register("another", config)(part)
    with pytest.raises(TypeError, match="is not a dataclass"):
        registry.register("another", int)


def test_every_module_of_a_noun_registers_something() -> None:
    """A file among the parts that registers nothing would be a helper: those live in nn/."""
    root = Path(encdec_train.__file__).parent
    known = {part.__module__ for registry in Registry.all.values() for _, part in registry.parts.values()}
    helpers = {"optim.groups", "optim.schedule", "probes.probe", "probes.measures"}
    for package in PACKAGES:
        for file in (root / package.replace(".", "/")).glob("*.py"):
            if file.stem != "__init__" and f"{package}.{file.stem}" not in helpers:
                assert f"encdec_train.{package}.{file.stem}" in known, f"{package}/{file.name}"


@pytest.mark.parametrize("noun", Registry.all)
def test_words_do_not_hide_parts(noun: str) -> None:
    """A word of a registered name would take its place in Hydra's search."""
    words = {file.stem for file in (CONFIGS / noun).glob("*.yaml")}
    assert not words & set(Registry.all[noun].parts)
