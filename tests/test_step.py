"""The step's memo and the contract's less simple cases: weights, named parts, teachers, bottlenecks, stages."""

import math

import pytest
import torch

from encdec_train.build import check, compute_terms, dry_run, make_parts, make_transform
from encdec_train.config import PathConfig, StageConfig, TeacherConfig
from encdec_train.data.draws import Draws
from encdec_train.data.loader import StepSampler
from encdec_train.heads.linear import Linear
from encdec_train.launch import compose
from encdec_train.rng import Rng
from encdec_train.step import Parts, Step
from encdec_train.train.checkpoint import newest, read_state
from encdec_train.train.run import train
from encdec_train.train.rundir import read_json
from encdec_train.types import Mismatch, Path
from tests.runs import small


def build(*overrides, paths=None, teachers=None):
    config = compose(["+recipe=mae_vit", *overrides])
    config.path.update(paths or {})
    config.teacher.update(teachers or {})
    transform = make_transform(config)
    wiring = check(config, transform.specs())
    return config, transform, wiring, make_parts(config, wiring)


def pictures(transform, count=4):
    images, keys = torch.rand(count, 1, 8, 8), torch.arange(count)[:, None]
    return {"image": transform.patches(images, keys, 1)}


def counting(part):
    """Count the calls of a part."""
    part.calls = 0

    def count(*_):
        part.calls += 1

    part.register_forward_pre_hook(count)
    return part


TWO = [
    "+objective@objective.again=predict",
    "objective.again.weight=0.5",
    "+head@head.other=linear",
    "objective.again.head=other",
]


def test_two_objectives_share_one_forward():
    config, transform, _, parts = build(*TWO)
    encoder, decoder = counting(parts.get("encoder", "main")), counting(parts.get("decoder", "main"))
    step = Step(pictures(transform), parts, Rng(0, 0))
    terms = compute_terms(step, config.objective)
    assert encoder.calls == 1
    assert decoder.calls == 2  # each objective decodes for itself
    assert set(terms) == {"main", "again"}
    assert (terms["main"].weight, terms["again"].weight) == (1.0, 0.5)


def test_another_draw_is_another_pass_with_other_masks():
    _, transform, _, parts = build()
    encoder = counting(parts.get("encoder", "main"))
    step = Step(pictures(transform), parts, Rng(0, 0))
    first, second = (Path(view="image", corruption="main", draw=draw) for draw in (0, 1))
    assert step.encode(first) is step.encode(first)
    assert not torch.equal(step.plan(first).mask, step.plan(second).mask)
    step.encode(second)
    assert encoder.calls == 2


def test_only_kept_patches_are_embedded():
    _, transform, _, parts = build()
    seen = []
    project = parts.get("embedder", "main").project
    project.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape))
    Step(pictures(transform), parts, Rng(0, 0)).encode(Path(view="image", corruption="main"))
    assert seen == [(4, 4, 4)]  # a quarter of 16 patches


def test_teacher_follows_and_gets_no_gradient():
    _, transform, wiring, parts = build(
        paths={"teacher": PathConfig(corruption=None, teacher="ema")}, teachers={"ema": TeacherConfig(momentum=0.9)}
    )
    student, teacher = (parts.get("encoder", "main", name) for name in (None, "ema"))
    assert student is not teacher and not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    step = Step(pictures(transform), parts, Rng(0, 0))
    assert not step.encode(wiring.paths["teacher"]).x.requires_grad
    before = teacher.blocks[0].mlp.up.weight.clone()
    with torch.no_grad():
        student.blocks[0].mlp.up.weight.add_(1.0)
    parts.update_teacher("ema", 0.9)
    torch.testing.assert_close(teacher.blocks[0].mlp.up.weight, before + 0.1)
    assert parts.get("decoder", "main", "ema") is parts.get("decoder", "main")  # no copy: falls through


def normed(**teacher):
    """Parts whose one encoder is a batch norm and a dropout, and a teacher's copy of them."""
    encoder = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Dropout(0.5))
    parts = Parts({"encoder": {"main": encoder}})
    parts.add_teacher("ema", ["encoder.main"], **teacher)
    return parts.train(), encoder, parts.get("encoder", "main", "ema")


def test_a_teacher_reads_the_students_running_statistics():
    parts, student, teacher = normed()
    x = torch.randn(8, 3) + 2
    student(x)
    torch.testing.assert_close(teacher(x), x / math.sqrt(1 + 1e-5))  # it did not follow yet
    parts.update_teacher("ema", 0.9)
    torch.testing.assert_close(teacher[0].running_mean, 0.1 * x.mean(0))
    assert not any(module.training for module in teacher.modules())


def test_a_teacher_with_statistics_of_its_own():
    """Those of its batch, in training; its running ones are never the student's, and its dropout is off."""
    parts, student, teacher = normed(own_statistics=True)
    x, y = torch.randn(8, 3) + 2, torch.randn(8, 3) - 2
    with torch.no_grad():
        found = teacher(x)
    torch.testing.assert_close(found, (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt())
    student(y)
    with torch.no_grad():
        student[0].weight.add_(1.0)
    parts.update_teacher("ema", 0.9)
    torch.testing.assert_close(teacher[0].weight, torch.full((3,), 1.1))
    torch.testing.assert_close(teacher[0].running_mean, 0.1 * x.mean(0))
    assert not any(module.training for module in parts.eval().teachers.modules())
    parts.refresh_teacher("ema")
    torch.testing.assert_close(teacher.state_dict(), student.state_dict())


def test_bottleneck_gives_one_site():
    _, transform, wiring, parts = build(
        "+bottleneck@bottleneck.one=pooled", paths={"pooled": PathConfig(corruption=None, bottleneck="one")}
    )
    step = Step(pictures(transform), parts, Rng(0, 0))
    whole, one = step.encode(wiring.paths["pooled"]), step.tokens(wiring.paths["pooled"])
    assert one.x.shape == (4, 1, 96) and one.sites.n == 1
    torch.testing.assert_close(one.x[:, 0], whole.body.mean(1))


def test_stages_freeze_and_pick_objectives(tmp_path):
    config = small(
        "mae_vit",
        tmp_path,
        *TWO,
        "probe=null",
        "stage.main.objectives=[main]",
        "stage.main.unused=[head.other]",
        steps=2,
    )
    config.stage["second"] = StageConfig(steps=3, objectives=["again"], freeze=["encoder.main"], overrides={"lr": 0.01})
    summary = train(config)
    assert summary["steps"] == 4
    checkpoints = tmp_path / "mae_vit" / "run" / "checkpoints"
    state = read_state(newest(checkpoints)[0])
    assert (state["stage"], state["stage_index"], state["step"]) == ("second", 1, 2)
    from safetensors.torch import load_file

    first, last = (load_file(checkpoints / name / "model.safetensors") for name in ("00-00000002", "01-00000002"))
    changed = {name for name in first if not torch.equal(first[name], last[name])}
    assert changed and not any(name.startswith("student.encoder.main") for name in changed)
    assert any(name.startswith("student.head.other") for name in changed)
    assert read_json(tmp_path / "mae_vit" / "run" / "untrained.json") == {}


def test_a_parameter_without_gradient_is_an_error(monkeypatch):
    config, _, wiring, _ = build()
    build_head = Linear.__init__

    def with_stray(self, *arguments):
        build_head(self, *arguments)
        self.stray = torch.nn.Parameter(torch.zeros(3))

    monkeypatch.setattr(Linear, "__init__", with_stray)
    with pytest.raises(Mismatch, match=r"head\.main\.stray"):
        dry_run(config, wiring)
    config.stage["main"].unused = ["head.main.stray"]
    assert dry_run(config, wiring).unused == ["head.main.stray"]


@pytest.mark.parametrize("world", [1, 2, 4])
def test_order_does_not_depend_on_the_world(world):
    whole = StepSampler(Draws(range(50), 3), 8, start=0, stop=20)
    ranks = [list(StepSampler(Draws(range(50), 3), 8, start=0, stop=20, rank=r, world=world)) for r in range(world)]
    for step in range(20):
        found = sorted(item for rank in ranks for _, item in rank[step])
        assert found == sorted(whole.ids(step))


def test_every_item_once_per_epoch_and_a_late_start_is_the_same_stream():
    sampler = StepSampler(Draws(range(12), 0), 4, start=0, stop=6)
    stream = [item for batch in sampler for _, item in batch]
    assert sorted(stream[:12]) == sorted(stream[12:]) == list(range(12))
    assert stream[:12] != stream[12:]
    assert list(StepSampler(Draws(range(12), 0), 4, start=4, stop=6)) == list(sampler)[4:]


def test_unknown_path_and_part_are_named_together():
    config = compose(["+recipe=mae_vit", "objective.memory=mian", "stage.main.freeze=[encoder.min]"])
    with pytest.raises(Mismatch) as error:
        check(config, make_transform(config).specs())
    assert "there is no path 'mian' (did you mean 'main'?)" in str(error.value)
    assert "there is no encoder 'min' (did you mean 'main'?)" in str(error.value)
