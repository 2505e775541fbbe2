"""A checkpoint that is written beside the training is the one that would have been written while training waits."""

import errno
import multiprocessing
import os
import signal
import threading
import time

import pytest

from encdec_train.train import checkpoint
from encdec_train.train.background import Background
from encdec_train.train.module import PretrainModule
from encdec_train.train.stages import train_stages
from encdec_train.types import Halted
from tests.train.test_guard import STEPS, goes_on, losses, run_of

FIRST = "00-00000002"


@pytest.fixture
def hold(monkeypatch):
    """A checkpoint is written after the step behind it only; says how many are being written, now and at most."""
    save, step, taken, busy = checkpoint.save, PretrainModule.training_step, [0], [0, 0]

    def slowly(folder, found, *group):
        busy[0] += 1
        busy[1] = max(busy)
        deadline = time.monotonic() + 60
        while taken[0] <= found.state["step"] < STEPS and time.monotonic() < deadline:
            time.sleep(0.001)
        save(folder, found, *group)
        busy[0] -= 1

    def training_step(self, batch, index):
        found = step(self, batch, index)
        taken[0] = self.done
        return found

    monkeypatch.setattr(checkpoint, "save", slowly)
    monkeypatch.setattr(PretrainModule, "training_step", training_step)
    return busy


@pytest.fixture(autouse=True)
def signals():
    """A run that ends by a full disk ends the process, too; until then the handlers of its trainer stay."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def files(folder):
    """Contents by checkpoint and file, but for the seconds that a run took."""
    return {
        (path.parent.name, path.name): path.read_bytes()
        for pattern in ("*/model.safetensors", "*/optim.pt")
        for path in (folder / "checkpoints").glob(pattern)
    }


def test_background_and_foreground_write_the_same(tmp_path, hold, monkeypatch):
    train_stages(run_of(tmp_path / "beside"), None, 0.0)
    assert hold == [0, 1]  # none is left, and there were never two
    monkeypatch.undo()
    train_stages(run_of(tmp_path / "waiting", "checkpoint.background=false"), None, 0.0)
    assert len(files(tmp_path / "beside")) == 2 * STEPS // 2
    assert files(tmp_path / "beside") == files(tmp_path / "waiting")
    for name in checkpoint.names(tmp_path / "beside" / "checkpoints"):
        checkpoint.verify(tmp_path / "beside" / "checkpoints" / name)


@pytest.mark.parametrize("at", [4, STEPS])
def test_a_full_disk_ends_the_run(at, tmp_path, monkeypatch):
    """In the next step, and at the end where there is none."""
    write, threads = checkpoint.save_file, []

    def save_file(tensors, path):
        threads.append(threading.current_thread().name)
        if path.parent.name == f".00-{at:08d}.tmp":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", save_file)
    with pytest.raises(Halted, match=rf"00-{at:08d}: the checkpoint cannot be written, .* MB were free .*No space"):
        train_stages(run_of(tmp_path), None, 0.0)
    assert checkpoint.names(tmp_path / "checkpoints") == [f"00-{step:08d}" for step in range(2, at, 2)]
    assert threads == ["checkpoint"] * (at // 2)
    assert losses(tmp_path)[-1][0] <= at + 2  # the next step, or the one that was under way


def test_a_full_disk_is_named_whoever_met_it_first(tmp_path, monkeypatch):
    """A line of metrics finds no space while a checkpoint is about to."""
    step, full = PretrainModule.training_step, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def save_file(tensors, path):
        time.sleep(0.3)
        raise full

    def training_step(self, batch, index):
        if self.done == 2:
            raise full
        return step(self, batch, index)

    monkeypatch.setattr(checkpoint, "save_file", save_file)
    monkeypatch.setattr(PretrainModule, "training_step", training_step)
    with pytest.raises(Halted, match="00-00000002: the checkpoint cannot be written"):
        train_stages(run_of(tmp_path), None, 0.0)


def test_a_signal_waits_for_it(tmp_path, monkeypatch):
    save, step = checkpoint.save, PretrainModule.training_step

    def slowly(folder, found, *group):
        time.sleep(0.3)
        save(folder, found, *group)

    def training_step(self, batch, index):
        if self.done == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch, index)

    monkeypatch.setattr(checkpoint, "save", slowly)
    monkeypatch.setattr(PretrainModule, "training_step", training_step)
    with pytest.raises(SystemExit):
        train_stages(run_of(tmp_path), None, 0.0)
    assert checkpoint.names(tmp_path / "checkpoints") == [FIRST, "00-00000003"]


def test_a_fault_waits_for_it(tmp_path, monkeypatch):
    save, step = checkpoint.save, PretrainModule.training_step

    def slowly(folder, found, *group):
        time.sleep(0.3)
        save(folder, found, *group)

    def training_step(self, batch, index):
        if self.done == 2:
            raise RuntimeError("the fault")
        return step(self, batch, index)

    monkeypatch.setattr(checkpoint, "save", slowly)
    monkeypatch.setattr(PretrainModule, "training_step", training_step)
    with pytest.raises(RuntimeError, match="the fault"):
        train_stages(run_of(tmp_path), None, 0.0)
    assert checkpoint.names(tmp_path / "checkpoints") == [FIRST]


def killed(folder):
    sync = checkpoint.sync

    def last(path):
        sync(path)
        if path.name == ".00-00000004.tmp":
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoint.sync = last
    train_stages(run_of(folder), None, 0.0)


def test_killed_while_it_is_written(tmp_path, monkeypatch):
    """Everything is written but the name."""
    train_stages(run_of(tmp_path / "whole"), None, 0.0)
    child = multiprocessing.get_context("spawn").Process(target=killed, args=(tmp_path / "killed",))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    saved = tmp_path / "killed" / "checkpoints"
    assert [path.name for path in saved.glob(".*.tmp")] == [".00-00000004.tmp"]
    assert checkpoint.newest(saved) == (saved / FIRST, [])
    goes_on(tmp_path / "killed")
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    assert not list(saved.glob(".*.tmp"))


def test_one_thing_at_a_time():
    done, one, gate = [], Background("one"), threading.Event()
    one.start(lambda: done.append(gate.wait(60)))
    one.check()  # it goes on
    threading.Timer(0.05, gate.set).start()
    one.start(lambda: done.append(1 / 0))
    assert done == [True]
    with pytest.raises(ZeroDivisionError):
        one.wait()
    one.wait()
    one.check()
