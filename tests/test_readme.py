"""What the README shows is what happens."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from encdec_train.cli import COMMANDS, main
from encdec_train.registry import Registry
from encdec_train.train.run import train
from tests.runs import small

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8") if README.is_file() else ""


def example() -> str:
    """The part that the README adds."""
    found = [block for block in re.findall(r"```python\n(.*?)```", TEXT, re.S) if "losses.register" in block]
    assert len(found) == 1
    return found[0]


def test_the_added_part_trains(tmp_path):
    """In a process of its own, so that no other test sees the part."""
    program = f"""
import sys, types
module = types.ModuleType("encdec_train.losses.log_cosh")
sys.modules[module.__name__] = module
exec(compile({example()!r}, "log_cosh.py", "exec"), module.__dict__)
from encdec_train.cli import main
sys.exit(main(["+recipe=mae_vit", "loss=log_cosh", "trainer.max_steps=2", "run.root={tmp_path}", "probe=null"]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "finished" in done.stdout


def test_the_added_part_is_what_it_says(monkeypatch):
    module = types.ModuleType("log_cosh")
    monkeypatch.setitem(sys.modules, "log_cosh", module)
    try:
        exec(compile(example(), "log_cosh.py", "exec"), module.__dict__)
        error = torch.linspace(-3, 3, 7)[:, None]
        goal = module.Goal(values=torch.zeros(7, 1))
        rows = module.LogCosh(module.LogCoshConfig(), None)(error, goal)
        torch.testing.assert_close(rows, error[:, 0].cosh().log() + F.softplus(torch.zeros(())))
    finally:
        Registry.all["loss"].parts.pop("log_cosh", None)


def table() -> list[str]:
    """The commands of the README's table: without what stands in brackets, and with each of them."""
    forms = []
    for line in re.findall(r"^\| `(encdec-train [^`]+)` \|", TEXT, re.M):
        options = re.findall(r" \[([^]]*)\]", line)
        bare = re.sub(r" \[[^]]*\]", "", line)
        forms += [bare, *(f"{bare} {option}" for option in options)]
    return [form for form in forms if not re.search(r"data(\.path)?=", form)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with two finished runs, A and B."""
    folder = tmp_path_factory.mktemp("shown")
    for name in "AB":
        train(small("mae_vit", folder / "runs", f"run.name={name}", steps=2))
    return folder


@pytest.mark.parametrize("line", table())
def test_the_commands_of_the_table(line, place, tmp_path, monkeypatch):
    """Training ones are cut short; RUN, A and B are the runs."""
    monkeypatch.chdir(place)
    monkeypatch.setattr("encdec_train.preview.SECONDS", 0.01)
    runs = {name: f"runs/mae_vit/{name}" for name in "AB"}
    names = {**runs, "RUN": runs["A"], "DIR": str(tmp_path / "out"), "STEP": "2"}
    words = [names.get(word, word) for word in shlex.split(line)[1:]]
    if words[0] not in COMMANDS:
        words += ["trainer.max_steps=2", "probe=null", "data.limit=256"]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0


def combinations() -> list[str]:
    return [line for line in TEXT.splitlines() if line.startswith("encdec-train ") and "+recipe" not in line]


@pytest.mark.parametrize("line", [line for line in combinations() if "=" in line])
def test_the_shown_combinations_train(line, tmp_path):
    words = shlex.split(line)[1:]
    with pytest.raises(SystemExit) as ended:
        main([*words, "trainer.max_steps=2", f"run.root={tmp_path}", "probe=null", "data.limit=256"])
    assert ended.value.code == 0
