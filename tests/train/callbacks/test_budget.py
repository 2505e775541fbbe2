"""A budget of time: the schedule is gone through when the time is up, whatever the speed; resumes keep the course."""

import json
import shutil
from itertools import pairwise
from types import SimpleNamespace

import pytest

from encdec_train import cli
from encdec_train.config import seconds_of
from encdec_train.optim.schedule import Course, Schedule, rate
from encdec_train.optim.sgd import SgdConfig
from encdec_train.train.callbacks.budget import Budget, shares
from encdec_train.train.module import PretrainModule
from encdec_train.train.run import resume, train
from encdec_train.types import Mismatch
from tests.runs import small


def simulate(horizon, end, seconds_of_step):
    """The places of a stage whose step t takes `seconds_of_step(t)`, and the time at its end."""
    clock = [0.0]
    trainer = SimpleNamespace(world_size=1, should_stop=False, strategy=SimpleNamespace(broadcast=lambda value: value))
    module = SimpleNamespace(done=0, steps=horizon, horizon=horizon, course=Course())
    budget = Budget(SimpleNamespace(save=lambda *_: None), begin=0.0, end=end, elapsed=lambda: clock[0])
    budget.on_train_start(trainer, module)
    places = []
    while not trainer.should_stop and module.done < module.steps:
        places.append(module.course.at(module.done))
        clock[0] += seconds_of_step(module.done)
        module.done += 1
        budget.on_train_batch_end(trainer, module)
    return places, clock[0]


@pytest.mark.parametrize(
    "seconds_of_step",
    [lambda t: 0.1, lambda t: 0.1 if t < 300 else 0.2, lambda t: 0.2 if t < 100 else 0.05],
    ids=["even", "slower", "faster"],
)
def test_it_ends_decayed_and_in_time(seconds_of_step):
    places, now = simulate(horizon=10_000, end=100.0, seconds_of_step=seconds_of_step)
    assert now <= 100.0
    assert places[-1] >= 0.99 * 10_000
    assert all(b - a >= 1 for a, b in pairwise(places))
    last = rate(SgdConfig(lr=1.0, schedule=Schedule.cosine), 1.0, places[-1], 10_000)
    assert last < 1e-3


def test_with_time_enough_nothing_changes():
    places, now = simulate(horizon=50, end=100.0, seconds_of_step=lambda t: 0.1)
    assert places == list(range(50)) and now == pytest.approx(5.0)


def test_times():
    assert [seconds_of(text) for text in ("90s", "20m", "1.5h", "2d")] == [90, 1200, 5400, 172_800]
    for wrong in ("20", "m", "-3m", "0s", "20 minutes"):
        with pytest.raises(Mismatch, match="is no time"):
            seconds_of(wrong)
    assert shares("100s", [30, 10]) == [(0.0, 75.0), (75.0, 100.0)]
    assert shares(None, [1]) is None


def test_a_typo_is_refused(capsys, tmp_path):
    with pytest.raises(SystemExit) as ended:
        cli.main(["+recipe=mae_vit", "budget=20x", f"run.root={tmp_path / 'runs'}"])
    assert ended.value.code == 2 and "budget: '20x' is no time" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_run_ends_early_and_decayed_and_goes_on_the_same(tmp_path, monkeypatch):
    clock = [0.0]
    whole = PretrainModule.training_step

    def tenth_of_a_second(self, batch, index):
        clock[0] += 0.1
        return whole(self, batch, index)

    monkeypatch.setattr(PretrainModule, "training_step", tenth_of_a_second)
    for module in ("run", "stages"):
        monkeypatch.setattr(f"encdec_train.train.{module}.time", SimpleNamespace(perf_counter=lambda: clock[0]))
    steps = ["stage.main.steps=100000", "trainer.max_steps=null", "optim.warmup=0", "checkpoint.keep=99"]
    summary = train(small("mae_vit", tmp_path, "probe=null", "budget=6s", *steps))
    folder = tmp_path / "mae_vit" / "run"
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert 55 <= summary["steps"] <= 60 and lines[-1]["step"] == summary["steps"]
    assert lines[-1]["lr"] < 0.05 * lines[0]["lr"]
    again = resume(folder)  # nothing is left to do
    assert again["steps"] == summary["steps"]
    kept = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert len(kept) >= 9
    for name in kept[3:]:
        shutil.rmtree(folder / "checkpoints" / name)
    resume(folder)
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    first = int(kept[2].split("-")[1])
    following = [[(line["loss"], line["lr"]) for line in of if line["step"] == first + 1] for of in (lines, found)]
    assert following[0] == following[1] and following[0]
