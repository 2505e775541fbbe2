"""The table of faults counts what was made: inputs that end a process too, over several calls with the same code."""

import importlib.util
import json
import os
import signal
import time
from pathlib import Path

import pytest

from encdec_train.launch import prepare

SCRIPT = Path(__file__).parents[1] / "scripts" / "faults.py"
SOON = 1e9


@pytest.fixture
def faults(tmp_path, monkeypatch):
    """The script, with results of its own."""
    spec = importlib.util.spec_from_file_location("faults", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    prepare()
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(module, "COMMIT", "a" * 40)
    return module


@pytest.mark.parametrize("name", ["strange_config", "strange_checkpoint"])
def test_strange_inputs_are_read_or_refused(name, faults):
    faults.measure(name, 40, minutes=1)
    row = faults.rows()[name]
    assert (row["runs"], row["held"]) == (40, 40)
    assert set(row["notes"]) == {"read", "refused"} and sum(row["notes"].values()) == 40


def test_an_input_that_ends_its_process_did_not_hold(faults, tmp_path, monkeypatch):
    def strange(root, draw):
        if root.name == "3":
            os.kill(os.getpid(), signal.SIGKILL)
        if root.name == "5":
            time.sleep(60)
        if root.name == "6":
            raise OSError("odd")
        return {"held": True, "note": "read"}

    monkeypatch.setitem(faults.FAULTS, "strange_config", (strange, 9))
    monkeypatch.setattr(faults, "PER_INPUT", 1)
    faults.fuzz("strange_config", list(range(9)), tmp_path, SOON)
    row = faults.rows()["strange_config"]
    assert (row["runs"], row["held"]) == (9, 6)
    ends = {f"ended its process with code {-signal.SIGKILL}": 1, f"ended its process with code {-signal.SIGALRM}": 1}
    assert row["notes"] == {"read": 6, "OSError: odd": 1, **ends}


def test_calls_add_up_until_the_code_is_another(faults, monkeypatch):
    seen = []

    def fault(root, draw):
        """It must hold."""
        seen.append((int(root.name), draw.random()))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return {"held": True, "note": "done"}

    monkeypatch.setitem(faults.FAULTS, "full_disk", (fault, 1000))
    faults.measure("full_disk", 1, minutes=1)
    with pytest.raises(KeyboardInterrupt):
        faults.measure("full_disk", 2, minutes=1)
    faults.measure("full_disk", 1, minutes=1)
    assert [number for number, _ in seen] == [0, 1, 2, 2]  # the one that was broken off is made again
    assert len({drawn for _, drawn in seen}) == 3
    row = json.loads((faults.RESULTS / "faults.json").read_text())["full_disk"]
    assert (row["runs"], row["held"], row["wanted"]) == (3, 3, 1000)
    assert "| It must hold. | 1,000 | 3 | 3 |" in (faults.RESULTS / "faults.md").read_text()
    monkeypatch.setattr(faults, "COMMIT", "b" * 40)
    faults.measure("full_disk", 1, minutes=1)
    assert (faults.rows()["full_disk"]["runs"], seen[-1][0]) == (1, 0)
