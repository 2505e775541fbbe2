"""What a run survives, as a table: `python scripts/faults.py [--runs N] [--only NAME ...]`.

Every row is a fault that really happens to real processes; counts are of runs that were made. Writes
results/faults.json and results/faults.md after every run: it may be interrupted, and the next call goes on. Runs of the
same code add up; a row that other code made begins anew. Full disks and SLURM need root, and SLURM to be installed.
"""

from __future__ import annotations

import argparse
import atexit
import functools
import hashlib
import io
import json
import logging
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from encdec_train.data.open import open_rows
from encdec_train.data.sources.pydoc import Pydoc, PydocConfig
from encdec_train.launch import compose, prepare
from encdec_train.train import checkpoint, rundir
from encdec_train.train.callbacks.metrics import read_metrics
from encdec_train.train.run import resume, train
from encdec_train.types import Halted, Mismatch

SCRIPTS = Path(__file__).resolve().parent
RESULTS = SCRIPTS.parent / "results"
STEPS = 16
SMALL = [
    *("loader.batch=8", f"trainer.max_steps={STEPS}", "trainer.log_every=1", "checkpoint.every=3", "probe=null"),
    *("trainer.accelerator=cpu", "evaluate.rows=32", "data.limit=256", "run.name=run"),
]
PACKED = ["+recipe=bert", *SMALL, "loader.workers=1"]  # packing, dropout, a worker
PICTURES = ["+recipe=mae_vit", *SMALL]
SLURM = [*PICTURES, "trainer.max_steps=300"]  # long enough to be warned
Outcome = dict[str, Any]


def commit() -> str:
    """The last one that changed what runs here, with a `+` if that is changed since."""
    code = ["--", "encdec_train", "configs", "recipes/bert.yaml", "recipes/mae_vit.yaml", "scripts/faults.py"]
    last = ["git", "log", "-1", "--format=%H", *code]
    changed = ["git", "status", "--porcelain", *code]
    said = [subprocess.run(c, cwd=SCRIPTS.parent, capture_output=True, text=True, check=True) for c in (last, changed)]
    return said[0].stdout.strip() + ("+" if said[1].stdout.strip() else "")


COMMIT = commit()  # of the code that runs, read at the start


class Child:
    """A process that trains; a copy of this one, so that it starts at once. It does not outlive this one's `main`."""

    living: ClassVar[set[int]] = set()

    def __init__(self, work: Callable[[], Any], said: Path) -> None:
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            with said.open("w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
                os._exit(_code(work))
        Child.living.add(self.pid)

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    def over(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def wait(self) -> int:
        Child.living.discard(self.pid)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def _code(work: Callable[[], Any]) -> int:
    """As the command line ends."""
    try:
        torch.set_num_threads(1)
        work()
        return 0
    except Halted as stopped:
        print(stopped)
        return stopped.code
    except (Mismatch, ValueError) as error:
        print(error)
        return 2
    except BaseException:
        traceback.print_exc()
        return 1


def run_of(sentence: list[str], root: Path) -> tuple[Path, Callable[[], Any]]:
    """Where a run will lie, and what trains it; its data are read here once, for all that begin as copies of this."""
    config = compose([*sentence, f"run.root={root}"])
    if config.name not in _read:
        open_rows(config.data)
        _read.add(config.name)
    return root / config.name / "run", lambda: train(config)


_read: set[str] = set()


def curve(folder: Path) -> list[Any]:
    return [(line["step"], line["loss"], line["terms"]) for line in read_metrics(folder / "metrics.jsonl")]


def whole(sentence: list[str], root: Path) -> list[Any]:
    """The curve of a run that nothing happened to."""
    folder, work = run_of(sentence, root / "whole")
    if not (folder / "summary.json").exists():
        root.mkdir(exist_ok=True)
        said = root / "whole.txt"
        assert Child(work, said).wait() == 0, said.read_text()
    return curve(folder)


def wait_for(condition: Callable[[], bool], child: Child, limit: float = 300) -> bool:
    """Whether it came true before the process ended."""
    deadline = time.monotonic() + limit
    while not condition():
        if child.over() or time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def go_on(folder: Path, said: Path, *changes: str) -> int:
    return Child(lambda: resume(folder, changes), said).wait()


def kill_anywhere(root: Path, draw: random.Random) -> Outcome:
    """Kill -9 at a random moment with packing and a worker; losses bit-equal to the uninterrupted run."""
    return _killed(PACKED, root, draw)


def kill_streaming(root: Path, draw: random.Random) -> Outcome:
    """Kill -9 at a random moment with packing, two workers and rows streamed from shards; losses bit-equal."""
    shards = root.parent / "shards"
    if not shards.exists():
        shards.mkdir()
        texts = Pydoc(PydocConfig())("train")["text"][:]
        for i in range(4):
            table = pa.table({"text": texts[i:600:4]})
            pq.write_table(table, shards / f"{'test' if i == 3 else 'train'}-{i}.parquet", row_group_size=30)
    sentence = [option for option in PACKED if not option.startswith(("data.limit", "loader.workers"))]
    stream = ["data=texts", f"data.path={shards}", "data.label=null", "data.streaming=true", "data.buffer=30"]
    return _killed([*sentence, *stream, "loader.workers=2"], root, draw)


def _killed(sentence: list[str], root: Path, draw: random.Random) -> Outcome:
    expected = whole(sentence, root.parent)
    folder, work = run_of(sentence, root)
    child = Child(work, root / "said.txt")
    lines = draw.randrange(3, STEPS)  # from the first checkpoint on
    wait_for(lambda: _lines(folder) >= lines, child)
    time.sleep(draw.random() * 0.1)
    child.kill()
    child.wait()
    at = _lines(folder)
    code = go_on(folder, root / "resumed.txt")
    return {"held": code == 0 and curve(folder) == expected, "note": f"killed after line {at}"}


def _lines(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def other_world(root: Path, draw: random.Random) -> Outcome:
    """2 processes, killed; 1, killed; 2 to the end: the same steps, losses near those of one process."""
    expected = whole(PICTURES, root.parent)
    folder, work = run_of([*PICTURES, "trainer.devices=2"], root)
    child = Child(work, root / "said.txt")
    for lines, changes in ((4, ["trainer.devices=1"]), (9, ["trainer.devices=2"])):
        wait_for(lambda lines=lines: _lines(folder) >= lines, child)
        time.sleep(draw.random() * 0.05)
        child.kill()
        child.wait()
        child = Child(lambda changes=changes: resume(folder, changes), root / "resumed.txt")
    code, found = child.wait(), curve(folder)
    steps = [step for step, *_ in found] == [step for step, *_ in expected]
    far = max(abs(a[1] / b[1] - 1) for a, b in zip(found, expected, strict=True)) if steps else float("nan")
    return {"held": code == 0 and steps and far < 1e-3, "note": f"largest relative difference {far:.1e}"}


def kill_while_saving(root: Path, draw: random.Random) -> Outcome:
    """Kill -9 while a checkpoint is being written; a whole one is there, and losses are those of the other run."""
    sentence = [*PICTURES, "checkpoint.every=1"]
    expected = whole(PICTURES, root.parent)
    folder, work = run_of(sentence, root)
    child = Child(work, root / "said.txt")
    saved = folder / "checkpoints"
    count = draw.randrange(1, STEPS - 2)
    wait_for(lambda: bool(checkpoint.names(saved)) and int(checkpoint.names(saved)[-1][3:]) >= count, child)
    writing = wait_for(lambda: any(saved.glob(".*.tmp")), child)
    time.sleep(draw.random() * 0.01)
    child.kill()
    child.wait()
    left = bool(list(saved.glob(".*.tmp")))
    newest, broken = checkpoint.newest(saved)
    code = go_on(folder, root / "resumed.txt")
    held = writing and not broken and code == 0 and curve(folder) == expected
    return {"held": held, "note": f"{'half a' if left else 'no half'} checkpoint was left beside {newest.name}"}


def full_disk(root: Path, draw: random.Random) -> Outcome:
    """A small tmpfs is full while a checkpoint is written; a clear error, the one before it whole, resumable."""
    expected = whole(PICTURES, root.parent)
    disk = root / "disk"
    disk.mkdir()
    saved = next(path for path in (root.parent / "whole").rglob("checkpoints/*") if "mae_vit" in str(path))
    size = int(sum(file.stat().st_size for file in saved.iterdir()) * draw.uniform(2.2, 2.8))  # two, and a part
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], check=True)
    try:
        folder, work = run_of(PICTURES, disk)
        code = Child(work, root / "said.txt").wait()
        said = (root / "said.txt").read_text()
        clear = code == 1 and "cannot be written" in said and "MB were free" in said and "Traceback" not in said
        newest, broken = checkpoint.newest(folder / "checkpoints")
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        code = go_on(folder, root / "resumed.txt")
        return {"held": clear and not broken and code == 0 and curve(folder) == expected, "note": f"kept {newest.name}"}
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def broken_checkpoint(root: Path, draw: random.Random) -> Outcome:
    """A flipped byte or a truncated file in the newest checkpoint: found, named, the one before it used."""
    expected = whole(PICTURES, root.parent)
    folder, work = run_of(PICTURES, root)
    Child(work, root / "said.txt").wait()
    names = checkpoint.names(folder / "checkpoints")
    path = folder / "checkpoints" / names[-1] / draw.choice([*checkpoint.FILES, checkpoint.MANIFEST])
    content = bytearray(path.read_bytes())
    at = draw.randrange(len(content))
    cut = draw.random() < 0.5
    if cut:
        content = content[:at]
    else:
        content[at] ^= 1 << draw.randrange(8)
    path.write_bytes(content)
    newest, said = checkpoint.newest(folder / "checkpoints")
    named = newest.name == names[-2] and len(said) == 1 and names[-1] in said[0]
    code = go_on(folder, root / "resumed.txt")
    what = f"{path.name} {'cut' if cut else 'changed'} at byte {at}"
    return {"held": named and code == 0 and curve(folder) == expected, "note": what}


def corrupt_rows(root: Path, draw: random.Random) -> Outcome:
    """2% torn pictures: raise names one and stops, skip goes on to the end, past its share it stops."""
    pictures = root / "pictures"
    torn = set(draw.sample(range(300), 6))
    for i in range(300):
        path = pictures / f"{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (8, 8), np.uint8)).save(path)
        if i in torn:
            path.write_bytes(path.read_bytes()[:40])
    sentence = [o for o in PICTURES if not o.startswith(("loader.batch", "data.limit"))]
    sentence += ["loader.batch=64", f"data.path={pictures}", "loader.workers=1"]
    found = {}
    ways = {"raise": [], "skip": ["data.on_error=skip", "data.max_skipped=0.1"], "past": ["data.on_error=skip"]}
    for name, more in ways.items():
        _, work = run_of([*sentence, *more], root / name)
        found[name] = Child(work, root / f"{name}.txt").wait(), (root / f"{name}.txt").read_text()
    named = found["raise"][0] == 2 and any(f"{i}.png" in found["raise"][1] for i in torn)
    past = found["past"][0] == 1 and "data.max_skipped" in found["past"][1]
    quiet = not any("Traceback" in said for _, said in found.values())
    return {"held": named and past and quiet and found["skip"][0] == 0, "note": f"{len(torn)} of 300 torn"}


def dead_process(root: Path, draw: random.Random) -> Outcome:
    """One of two processes is killed: the other ends with an error within a minute."""
    folder, work = run_of([*PICTURES, "trainer.devices=2", "trainer.max_steps=5000"], root)
    child = Child(work, root / "said.txt")
    first = bool(draw.randrange(2))
    wait_for(lambda: _lines(folder) >= draw.randrange(1, 20), child)
    (other,) = [int(pid) for pid in Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()]
    os.kill(child.pid if first else other, signal.SIGKILL)
    started = time.monotonic()
    code = child.wait()
    while Path(f"/proc/{other}").exists() and time.monotonic() < started + 60:
        time.sleep(0.05)
    seconds = time.monotonic() - started
    gone = not Path(f"/proc/{other}").exists()
    said = first or (code == 1 and "was ended by SIGKILL" in (root / "said.txt").read_text())
    return {"held": gone and said, "note": f"{'first' if first else 'second'} killed, {seconds:.1f} s"}


def requeued(root: Path, draw: random.Random) -> Outcome:
    """SIGUSR1 to a job of a real SLURM: saved, requeued, on in its run directory, with an undisturbed run's curve."""
    expected = whole(SLURM, root.parent / "long")
    folder, _ = run_of(SLURM, root)
    start_slurm()
    given = [
        "--parsable",
        "--cpus-per-task=1",
        f"--output={root}/said.txt",
        str(SCRIPTS / "slurm_train.sh"),
        *SLURM,
        f"run.root={root}",
    ]
    paths = [str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = {**os.environ, "PATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    job = _said(["sbatch", *given], environment).strip()
    try:
        lines = draw.randrange(3, 150)
        begun = _until(lambda: _lines(folder) >= lines, 120)
        subprocess.run(["scancel", "--signal=USR1", job], check=True)
        _until(lambda: (folder / "summary.json").exists(), 240)
        again = "Restarts=1" in _said(["scontrol", "show", "job", job])
    finally:
        subprocess.run(["scancel", job], check=True)
    alone = [path.name for path in folder.parent.iterdir()] == [folder.name]
    held = begun and again and alone and curve(folder) == expected
    return {"held": held, "note": f"warned after line {lines}"}


def start_slurm() -> None:
    """On this machine, until `main` ends, unless there is one."""
    if "SLURM_CONF" not in os.environ:
        folder = Path(tempfile.mkdtemp())
        atexit.register(_slurm, "stop", folder)
        _slurm("start", folder)
        os.environ["SLURM_CONF"] = str(folder / "slurm.conf")


def _slurm(verb: str, folder: Path) -> None:
    subprocess.run([str(SCRIPTS / "slurm_local.sh"), verb, str(folder)], check=True)


def _said(command: list[str], environment: dict[str, str] | None = None) -> str:
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def _until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def strange_config(root: Path, draw: random.Random) -> Outcome:
    """A configuration that somebody altered: read, or refused in words; no code runs."""
    text = bytearray(draw.choice(_texts()))
    payload = f"!!python/object/apply:os.system ['touch {root}/ran']\n".encode()
    for _ in range(draw.choice([1, 1, 2, 4])):
        at = draw.randrange(len(text))
        kind = draw.choice([0, 1, 2, 3, 4, 5, 6, 6, 6])
        if kind == 0:
            text[at] = draw.randrange(256)
        elif kind == 6:  # another value
            colon = text.find(b": ", at)
            if colon >= 0:
                text[colon + 2 : text.find(b"\n", colon)] = draw.choice(
                    [b"0", b"-1", b"3", b".5", b"null", b"true", b"x"]
                )
        elif kind == 1:
            del text[at : at + draw.randrange(1, 200)]
        elif kind == 2:
            text[at:at] = draw.randbytes(draw.randrange(1, 20))
        elif kind == 3:
            colon = text.find(b": ", at)
            if colon >= 0:
                text[colon + 2 : colon + 2] = payload
        elif kind == 4:
            text[at:at] = draw.choice([b"{", b"[", b"- ", b"&a ", b"*a", b"${oc.env:HOME}", b"!!binary ", b"null"])
        else:
            text[at:at] = draw.choice([b"[", b"{a: ", b"- "]) * draw.choice([10, 300, 5000])
    path = root / "config.yaml"
    path.write_bytes(text)
    try:
        rundir.load(path)
        note = "read"
    except Mismatch:
        note = "refused"
    return {"held": os.listdir(root) == ["config.yaml"], "note": note}


@functools.cache
def _texts() -> list[bytes]:
    return [rundir.dump(compose(sentence)).encode() for sentence in (PICTURES, PACKED)]


def strange_checkpoint(root: Path, draw: random.Random) -> Outcome:
    """A checkpoint that somebody wrote, its hashes right: read, or refused in words; no code runs."""
    model, optimizer, files = _saved()
    found = root / "checkpoint"
    found.mkdir()
    name = draw.choice([*checkpoint.FILES, checkpoint.MANIFEST])
    content = bytearray(files[name])
    for _ in range(draw.randrange(1, 4)):
        at = draw.randrange(len(content))
        content[at : at + draw.randrange(0, 9)] = draw.randbytes(draw.randrange(0, 9))
    if name == "optim.pt" and draw.random() < 0.3:
        stream = io.BytesIO()
        torch.save([Payload(root / "ran")], stream)
        content = bytearray(stream.getvalue())
    hashes = {
        other: hashlib.sha256(content if other == name else files[other]).hexdigest() for other in checkpoint.FILES
    }
    written = {**files, checkpoint.MANIFEST: json.dumps(hashes).encode(), name: bytes(content)}
    for other, text in written.items():
        (found / other).write_bytes(text)
    try:
        checkpoint.verify(found)
        checkpoint.read_state(found)
        checkpoint.load_parts(found, model)
        checkpoint.load_optimizers(found, [optimizer])
        note = "read"
    except checkpoint.BrokenCheckpoint:
        note = "refused"
    return {"held": os.listdir(root) == [found.name], "note": note}


@functools.cache
def _saved() -> tuple[torch.nn.Module, torch.optim.Optimizer, dict[str, bytes]]:
    """A whole checkpoint of a small model, and what it is loaded into."""
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    with tempfile.TemporaryDirectory() as folder:
        state = {"stage_index": 0, "step": 1}
        found = checkpoint.save(Path(folder), checkpoint.snapshot(model, [optimizer], state))
        return model, optimizer, {path.name: path.read_bytes() for path in found.iterdir()}


class Payload:
    """Unpickled without care, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


FAULTS: dict[str, tuple[Callable[[Path, random.Random], Outcome], int]] = {  # and how many runs are wanted
    "kill_anywhere": (kill_anywhere, 30),
    "kill_streaming": (kill_streaming, 30),
    "other_world": (other_world, 10),
    "kill_while_saving": (kill_while_saving, 20),
    "full_disk": (full_disk, 5),
    "broken_checkpoint": (broken_checkpoint, 5),
    "requeued": (requeued, 3),
    "corrupt_rows": (corrupt_rows, 3),
    "dead_process": (dead_process, 3),
    "strange_config": (strange_config, 5000),
    "strange_checkpoint": (strange_checkpoint, 5000),
}
INPUTS = {"strange_config", "strange_checkpoint"}  # read by this program, many in a second
PER_INPUT = 60  # seconds, after which it hangs


def measure(name: str, runs: int, minutes: float) -> None:
    """So many runs more of one fault, fewer where time is out; each is written down when it is over."""
    first = begun(name).get("runs", 0)
    deadline = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory() as folder:
        if name in INPUTS:
            fuzz(name, list(range(first, first + runs)), Path(folder), deadline)
            return
        for number in range(first, first + runs):
            if time.monotonic() > deadline:
                break
            started = time.monotonic()
            outcome = one(name, number, Path(folder))
            add(name, [outcome], time.monotonic() - started)


def one(name: str, number: int, folder: Path) -> Outcome:
    """One run; its number says all that is random about it."""
    root = folder / f"{number}"
    root.mkdir()
    try:
        outcome = FAULTS[name][0](root, random.Random(f"{name}-{number}"))
    except Exception as error:
        outcome = {"held": False, "note": f"{type(error).__name__}: {error}"[:300]}
    if outcome["held"]:
        shutil.rmtree(root)
    else:
        print(name, number, outcome, *(p.read_text()[-2000:] for p in root.glob("*.txt")), flush=True)
    return outcome


def fuzz(name: str, numbers: list[int], folder: Path, deadline: float) -> None:
    """Inputs dealt out to a process for each core. One that ends its process or hangs is found, and did not hold."""
    _texts(), _saved()
    while numbers and time.monotonic() < deadline:
        now, numbers = numbers[:1000], numbers[1000:]
        started, outcomes = time.monotonic(), []
        while now:
            shares = [now[k :: os.cpu_count()] for k in range(os.cpu_count() or 1)]
            notes = [folder / f"{k}.jsonl" for k in range(len(shares))]
            work = [
                functools.partial(_share, name, share, folder, note) for share, note in zip(shares, notes, strict=True)
            ]
            children = [Child(share, folder / f"{k}.said") for k, share in enumerate(work)]
            codes = [child.wait() for child in children]
            now = []
            for share, note, code in zip(shares, notes, codes, strict=True):
                found = [json.loads(line) for line in note.read_text().splitlines()]
                left = share[len(found) :]
                if left:
                    print(name, left[0], f"ended its process with code {code}", flush=True)
                    found.append({"held": False, "note": f"ended its process with code {code}"})
                    now += left[1:]
                outcomes += found
        add(name, outcomes, time.monotonic() - started)


def _share(name: str, numbers: list[int], folder: Path, note: Path) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with note.open("w") as file:
        for number in numbers:
            signal.alarm(PER_INPUT)  # then this process ends
            file.write(json.dumps(one(name, number, folder)) + "\n")
            file.flush()


def rows() -> dict[str, Any]:
    path = RESULTS / "faults.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def begun(name: str) -> dict[str, Any]:
    """What was made of a row with this code; nothing where other code made it."""
    row: dict[str, Any] = rows().get(name, {})
    return row if row.get("commit") == COMMIT else {}


def add(name: str, outcomes: list[Outcome], seconds: float) -> None:
    """Some runs more in the two files."""
    row, (fault, wanted) = begun(name), FAULTS[name]
    notes: dict[str, int] = row.get("notes", {})
    for outcome in outcomes:
        notes[outcome["note"]] = notes.get(outcome["note"], 0) + 1
    made = {
        "fault": " ".join((fault.__doc__ or "").split()),
        "wanted": wanted,
        "runs": row.get("runs", 0) + len(outcomes),
        "held": row.get("held", 0) + sum(outcome["held"] for outcome in outcomes),
        "seconds": round(row.get("seconds", 0) + seconds, 1),
        "notes": dict(list(notes.items())[:40]),
        "date": time.strftime("%Y-%m-%d"),
        "commit": COMMIT,
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
    }
    write({**rows(), name: made})
    print(f"{name}: {made['held']} of {made['runs']} held, {wanted} wanted", flush=True)


def write(found: dict[str, Any]) -> None:
    """Rows in the order of the faults."""
    ordered = {name: found[name] for name in FAULTS if name in found}
    checkpoint.write_text(RESULTS / "faults.json", json.dumps(ordered, indent=1) + "\n")
    lines = ["# What a run survives", "", "Made by `python scripts/faults.py`; details in faults.json.", ""]
    lines += ["| fault, and what must hold | runs wanted | made | held | date | commit |"]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    for name, row in ordered.items():
        counts = f"{FAULTS[name][1]:,} | {row['runs']:,} | {row['held']:,}"
        lines.append(f"| {row['fault']} | {counts} | {row['date']} | {row['commit'][:8]}{row['commit'][40:]} |")
    lines += ["", f"Hardware: {next(iter(ordered.values()))['hardware']}, shared with other jobs.", ""]
    checkpoint.write_text(RESULTS / "faults.md", "\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, help="more of each fault; none: as many as are still wanted")
    parser.add_argument("--minutes", type=float, default=60.0, help="of each fault at most")
    parser.add_argument("--only", nargs="*", default=list(FAULTS), choices=list(FAULTS))
    given = parser.parse_args()
    prepare()
    torch.set_num_threads(1)
    logging.getLogger("encdec_train").setLevel(logging.INFO)
    logging.getLogger("encdec_train").addHandler(logging.StreamHandler(sys.stdout))
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        for name in given.only:
            measure(name, given.runs or FAULTS[name][1] - begun(name).get("runs", 0), given.minutes)
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on")
    finally:
        for pid in Child.living:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
