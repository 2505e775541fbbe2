"""The adversarial wiring: phases, who trains what, and the losses of both sides."""

import pytest
import torch

from encdec_train.build import check, compute_terms, dry_run, make_parts, make_transform, phases
from encdec_train.launch import compose
from encdec_train.rng import Rng
from encdec_train.step import Step
from encdec_train.train.checkpoint import newest
from encdec_train.train.run import resume, train
from encdec_train.types import Mismatch

GAME = [
    "+recipe=mae_vit",
    "path.real={view: image, corruption: null, embedder: raw, encoder: judge}",
    "+embedder@embedder.raw=raw",
    "+encoder@encoder.judge=resnet",
    "encoder.judge.layers=[1,1]",
    "encoder.judge.channels=8",
    "encoder.judge.block=basic",
    "encoder.judge.stem=small",
    "+head@head.real=linear",
    "+loss@loss.real=hinge",
    "+objective@objective.fool=adversarial",
    "objective.fool.matching=0.5",
    "objective.fool.weight=0.1",
    "+objective@objective.tell=adversarial",
    "objective.tell.side=discriminator",
    "probe=null",
]


def game(*overrides):
    config = compose([*GAME, *overrides])
    transform = make_transform(config)
    wiring = check(config, transform.specs())
    return config, transform, wiring


def step_of(config, transform, wiring):
    parts = make_parts(config, wiring)
    images, keys = torch.rand(4, 1, 8, 8), torch.arange(4)[:, None]
    return Step({"image": transform.patches(images, keys, 1)}, parts, Rng(0, 0))


def test_the_dry_run_finds_what_the_discriminator_owns():
    config, _, wiring = game()
    dry = dry_run(config, wiring)
    owned = dry.owned["discriminator"]
    assert owned and all(name.startswith(("encoder.judge", "head.real")) for name in owned)
    assert not dry.unused
    assert config.encoder["judge"].emit == [0, 1]  # feature matching asked for them


def test_what_the_generators_parts_lose_by_themselves_is_not_the_discriminators():
    config, _, wiring = game(
        "+bottleneck@bottleneck.main=vq",
        "bottleneck.main.entries=8",
        "encoder.main.prefix=0",
        "path.real.bottleneck=null",
    )
    owned = dry_run(config, wiring).owned["discriminator"]
    assert all(name.startswith(("encoder.judge", "head.real")) for name in owned)


def test_phases_begin_with_main():
    config, transform, wiring = game()
    step = step_of(config, transform, wiring)
    assert phases(step.parts, config.objective) == {"main": ["main", "fool"], "discriminator": ["tell"]}
    assert phases(step.parts, ["tell"]) == {"discriminator": ["tell"]}


def test_hidden_places_are_fake_and_the_rest_is_real():
    config, transform, wiring = game()
    step = step_of(config, transform, wiring)
    objective = step.part("objective", "fool")
    plan = step.plan(step.part("objective", "main").path)
    fake, real = objective.fake(step).values, step.units("image").values
    assert torch.equal(fake[~plan.mask], real[~plan.mask])
    assert not torch.equal(fake[plan.mask], real[plan.mask])
    assert torch.equal(fake.flatten(0, 1)[plan.where], step.part("objective", "main").predict(step)[0])


def test_losses_equal_the_hinge_of_each_score():
    config, transform, wiring = game()
    step = step_of(config, transform, wiring)
    step.parts.eval()  # no batch statistics to move
    fool = step.part("objective", "fool")
    fake, tokens = fool.read(step, fool.fake(step))
    real, real_tokens = fool.read(step, step.units("image"))
    terms = compute_terms(step, ["fool"]) | compute_terms(step, ["tell"])
    torch.testing.assert_close(terms["fool"].mean, (1 - fake).relu().mean())
    torch.testing.assert_close(terms["tell.real"].mean, (1 - real).relu().mean())
    torch.testing.assert_close(terms["tell.fake"].mean, (1 + fake).relu().mean())
    layers = [
        (tokens.layers[i] - real_tokens.layers[i]).abs().mean() / real_tokens.layers[i].abs().mean() for i in (0, 1)
    ]
    torch.testing.assert_close(terms["fool.matching"].mean, sum(layers) / 2)
    assert terms["fool.matching"].weight == pytest.approx(0.05)


def test_the_discriminators_loss_reaches_no_other_part():
    config, transform, wiring = game()
    step = step_of(config, transform, wiring)
    sum(term.mean for term in compute_terms(step, ["tell"]).values()).backward()
    got = {name.split(".")[1] for name, p in step.parts.student.named_parameters() if p.grad is not None}
    assert got == {"judge", "real"}


def short(root, *more):
    named = [f"run.root={root}", "run.name=run", "loader.batch=8", "data.limit=64", "trainer.log_every=1"]
    return compose([*GAME, *named, "phase.discriminator={lr: 1e-4}", *more])


def test_a_run_trains_both_and_resumes_exactly(tmp_path):
    whole = train(short(tmp_path / "a", "trainer.max_steps=4"))
    assert set(whole["loss"]["terms"]) == {"main", "fool", "fool.matching", "tell.fake", "tell.real"}
    half = short(tmp_path / "b", "trainer.max_steps=4", "checkpoint.every=2", "checkpoint.keep=4")
    train(half)
    folder = tmp_path / "b" / "mae_vit" / "run"
    last = newest(folder / "checkpoints")[0]
    for file in last.iterdir():
        file.unlink()
    last.rmdir()
    assert resume(folder)["loss"] == whole["loss"]


@pytest.mark.parametrize(
    "override,said",
    [
        ("objective.fool.of=other", "of: 'other' is no objective that predicts; there is: main"),
        ("phase.critic={lr: 1e-4}", "phase.critic: no objective has this phase; there is: discriminator"),
        ("phase.discriminator={rate: 1e-4}", "rate"),
        ("objective.tell.path=nowhere", "there is no path 'nowhere'"),
    ],
)
def test_what_does_not_fit_is_named(override, said):
    with pytest.raises(Mismatch, match=said):
        config, _, wiring = game(override)
        dry_run(config, wiring)
