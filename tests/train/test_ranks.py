"""Losses, gradients and what parts remember: of two and of four processes as of one."""

from dataclasses import fields, is_dataclass

import pytest
import torch

from encdec_train.build import check, dry_run, make_transform
from encdec_train.config import NAMED
from encdec_train.data.open import open_rows
from encdec_train.train.run import Leg, Mark, _assemble, make_module, make_rows, make_trainer
from tests.ranks import forked
from tests.runs import small

STEPS = 2


def without_dropout(part):
    """Dropout is drawn for each process: alone in this it is not the same for another number of them."""
    for field in fields(part) if is_dataclass(part) else ():
        value = getattr(part, field.name)
        if "drop" in field.name and isinstance(value, float):
            setattr(part, field.name, 0.0)
        elif is_dataclass(value):
            without_dropout(value)


def assembled(recipe, folder, *overrides):
    """A run that is ready to train, with so small a rate that weights stay what they are."""
    config = small(recipe, folder, "probe=null", "trainer.accelerator=cpu", *overrides, steps=STEPS)
    config.optim.lr = 1e-8
    for noun in NAMED:
        for part in getattr(config, noun).values():
            without_dropout(part)
    transform = make_transform(config)
    wiring = check(config, transform.specs())
    (folder / "encoder").mkdir(parents=True)
    return _assemble(config, transform, wiring, dry_run(config, wiring), open_rows(config.data), folder)


def losses_and_gradients(run, world, accumulate=1):
    """Terms and gradients of each step, and all buffers at the end."""
    found = []
    run.config.trainer.devices, run.config.trainer.accumulate = world, accumulate
    for index, (name, stage) in enumerate(run.config.stage.items()):
        module = make_module(run, Leg(name, stage, index, STEPS, 0, 0.0), Mark())
        descend = module._descend

        def record(module=module, descend=descend):
            gradients = {
                name: parameter.grad.clone()
                for named in module.owned.values()
                for name, parameter in named.items()
                if parameter.grad is not None
            }
            found.append(gradients)
            descend()

        module._descend = record
        trainer = make_trainer(run.config, run, [])
        trainer.fit(module, make_rows(run, module, STEPS))
        found.append({name: term.mean.detach() for name, term in module.last_terms.items()})
        if index == 0:
            break
    return found, {name: buffer for name, buffer in run.parts.named_buffers() if buffer.is_floating_point()}


def assert_same(one, other):
    found, buffers = one
    expected, expected_buffers = other
    for values, wanted in zip([*found, buffers], [*expected, expected_buffers], strict=True):
        assert values.keys() == wanted.keys()
        scale = max((float(w.abs().max()) for w in wanted.values() if w.numel()), default=1.0)
        for name, value in values.items():
            torch.testing.assert_close(value, wanted[name], rtol=1e-5, atol=1e-5 * scale, msg=lambda m, n=name: f"{n}: {m}")


RECIPES = ["mae_vit", "bert", "simclr_resnet", "byol", "mocov2", "vq_vae", "barlow_twins", "wav2vec2", "graphmae", "coca", "patchtst", "sae_topk", "electra", "hubert", "siglip", "i_jepa", "minilm", "retromae_v2", "t5"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_more_processes_change_nothing(recipe, tmp_path):
    run = assembled(recipe, tmp_path)
    (alone,) = forked(1, lambda: losses_and_gradients(run, 1), tmp_path)
    for world in (2, 4):
        for rank in forked(world, lambda world=world: losses_and_gradients(run, world), tmp_path):
            assert_same(rank, alone)
