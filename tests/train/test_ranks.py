"""Losses, gradients and what parts remember: of two and of four processes as of one."""

from dataclasses import fields, is_dataclass

import pytest
import torch

from encdec_train.config import NAMED
from encdec_train.train.stages import Mark, describe_batch, legs, make_module, make_rows
from encdec_train.train.trainer import make_trainer
from tests.ranks import forked
from tests.runs import assembled, small

STEPS = 2


def without_dropout(part):
    """Dropout is drawn for each process: alone in this it is not the same for another number of them."""
    for field in fields(part) if is_dataclass(part) else ():
        value = getattr(part, field.name)
        if "drop" in field.name and isinstance(value, float):
            setattr(part, field.name, 0.0)
        elif is_dataclass(value):
            without_dropout(value)


def still(recipe, folder, *overrides):
    """A run that is ready to train, with so small a rate that weights stay what they are."""
    config = small(recipe, folder, "probe=null", "trainer.accelerator=cpu", *overrides, steps=STEPS)
    config.optim.lr = 1e-8
    for noun in NAMED:
        for part in getattr(config, noun).values():
            without_dropout(part)
    return assembled(config, folder)


def losses_and_gradients(run, world, accumulate=1):
    """Terms and gradients of each step, and all buffers at the end."""
    found = []
    run.config.trainer.devices, run.config.trainer.accumulate = world, accumulate
    module = make_module(run, legs(run.config)[0], Mark())
    descend = module._descend

    def record():
        named = [pair for owned in module.owned.values() for pair in owned.items()]
        found.append({name: parameter.grad.clone() for name, parameter in named if parameter.grad is not None})
        found.append({name: term.mean for name, term in module.seen_terms.items()})
        descend()

    module._descend = record
    make_trainer(run.config, run, []).fit(module, make_rows(run, module, STEPS))
    return found, {name: buffer for name, buffer in run.parts.named_buffers() if buffer.is_floating_point()}


def assert_same(one, other):
    found, buffers = one
    expected, expected_buffers = other
    for values, wanted in zip([*found, buffers], [*expected, expected_buffers], strict=True):
        assert values.keys() == wanted.keys()
        scale = max((float(w.abs().max()) for w in wanted.values() if w.numel()), default=1.0)
        for name, value in values.items():
            torch.testing.assert_close(
                value, wanted[name], rtol=1e-5, atol=1e-5 * scale, msg=lambda m, n=name: f"{n}: {m}"
            )


@pytest.mark.parametrize(
    "recipe,worlds",
    [
        ("mae_vit", (4,)),
        ("bert", (2, 4)),  # packed: counts differ from rank to rank
        ("simclr_resnet", (2,)),  # negatives and batch norms of all ranks
        ("byol", (2,)),
        ("mocov2", (4,)),  # one queue
        ("vq_vae", (2,)),  # one code book
        ("wav2vec2", (2,)),
        ("spark", (2,)),  # norms of a decoder, and over real cells only
        ("encodec", (2,)),  # differences weighed by the size of what they are differences of, terms by their gradients
    ],
)
def test_more_processes_change_nothing(recipe, worlds, tmp_path):
    run = still(recipe, tmp_path)
    run.config.stage = dict([run.config.stage.popitem()])
    (alone,) = forked(1, lambda: losses_and_gradients(run, 1), tmp_path)
    for world in worlds:
        for rank in forked(world, lambda world=world: losses_and_gradients(run, world), tmp_path):
            assert_same(rank, alone)


def test_micro_batches_change_nothing(tmp_path):
    """Two terms whose counts differ from micro batch to micro batch, each in its own way."""
    run = still("electra", tmp_path)
    (whole,) = forked(1, lambda: losses_and_gradients(run, 1), tmp_path)
    (parted,) = forked(1, lambda: losses_and_gradients(run, 1, accumulate=4), tmp_path)
    assert_same(parted, whole)
    for rank in forked(2, lambda: losses_and_gradients(run, 2, accumulate=2), tmp_path):
        assert_same(rank, whole)


def test_micro_batches_move_every_weight_against_its_own_gradient(tmp_path):
    """The first step of Adam, in closed form; gradients of convolutions come in another order in memory."""
    run = still("vq_vae", tmp_path, "optim.weight_decay=0", "optim.warmup=0")
    run.config.optim.lr = run.config.optim.eps = 1e-2
    run.config.trainer.accumulate = 2
    module = make_module(run, legs(run.config)[0], Mark())
    descend, moved = module._descend, []

    def compare():
        before = [(name, p, p.detach().clone(), p.grad) for name, p in module.owned["main"].items()]
        descend()
        for name, parameter, old, gradient in before:
            expected = old - module.last_rate * gradient / (gradient.abs() + 1e-2)
            torch.testing.assert_close(parameter.detach(), expected, msg=lambda m, n=name: f"{n}: {m}")
            moved.append(name)

    module._descend = compare
    make_trainer(run.config, run, []).fit(module, make_rows(run, module, 1))
    assert any("conv.weight" in name for name in moved)


@pytest.mark.parametrize(
    "recipe,names",
    [
        ("simclr_resnet", ("loss.main", "encoder.main")),
        ("encodec", ("objective.generator", "bottleneck.main")),
    ],
)
def test_what_compares_rows_sees_micro_batches_of_all_processes(recipe, names, tmp_path):
    run = still(recipe, tmp_path)
    run.config.stage = dict([run.config.stage.popitem()])
    (alone,) = forked(1, lambda: losses_and_gradients(run, 1, accumulate=2), tmp_path)
    for rank in forked(2, lambda: losses_and_gradients(run, 2, accumulate=2), tmp_path):
        assert_same(rank, alone)
    run.config.trainer.devices, run.config.trainer.accumulate = 1, 2
    said = describe_batch(run)
    assert "1 processes x 2 micro batches x 4 rows" in said[0]
    assert all(name in said[1] for name in (*names, "4 rows"))
