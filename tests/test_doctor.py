"""The doctor tells of the machine, and of an installation that does not work."""

import json

import pytest
import torch
from packaging.requirements import Requirement

from encdec_train import cli, doctor
from encdec_train.kernels.backend import machine_refuses


def test_a_sound_installation(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert ended.value.code == (2 if found["problems"] else 0)
    sections = {title: dict(rows) for title, rows in found["sections"].items()}
    assert {"torch", "hydra-core", "omegaconf", "datasets"} <= set(sections["versions"])
    assert {"hf", "timm", "slurm", "optim"} <= set(sections["extras"])
    assert " for this process" in sections["machine"]["cores"]
    assert "free" in sections["data"]["cache"]
    assert sections["devices"]["trainer.accelerator=auto"] in ("cpu", "cuda")


@pytest.mark.parametrize(
    ("own", "said"),
    [("1.3.2", None), ("1.4.0", "needed is"), ("1.4.0rc1", "needed is"), ("1.3.3rc1", "needed is"), (None, "is not")],
)
def test_versions(own, said, monkeypatch):
    """A release candidate within the range is no release."""
    monkeypatch.setattr(doctor, "installed", lambda name: own)
    sentence = doctor.unmet(Requirement("hydra-core>=1.3.2,<1.4"))
    assert sentence is None if said is None else said in sentence


def test_what_is_wrong_is_said_and_gives_code_2(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "installed", lambda name: "0.1" if name == "hydra-core" else "99")
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor"])
    assert ended.value.code == 2
    assert "hydra-core is 0.1, needed is <1.4,>=1.3.2; pip install" in capsys.readouterr().out


def test_a_wheel_knows_its_requirements(monkeypatch, tmp_path):
    """Without a checkout they are read from what was installed."""
    lines = ["torch>=2.9", 'triton>=3.4; sys_platform == "linux"', "timm>=1.0; extra == 'timm'"]
    monkeypatch.setattr(doctor, "PACKAGE", tmp_path / "encdec_train")
    monkeypatch.setattr(doctor, "requires", lambda name: lines)
    needed, extras = doctor.requirements()
    assert str(needed[0]) == "torch>=2.9"
    assert [str(r) for r in extras["timm"]] == ["timm>=1.0"]


def test_unknown_option(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor", "--fast"])
    assert (ended.value.code, "usage: encdec-train doctor" in capsys.readouterr().err) == (2, True)


def test_kernels_are_held_against_torch(monkeypatch):
    """In Triton's interpreter, where there is no GPU; a kernel that gives something else is a problem."""
    pytest.importorskip("triton")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if machine_refuses(device):
        pytest.skip(machine_refuses(device))
    rows, problems = doctor.twins(device)
    assert [name for name, _ in rows] == ["attention", "masking.keep"] and problems == []
    turn = iter((1.0, 2.0))
    monkeypatch.setattr(doctor, "_keep", lambda device: torch.full((1,), next(turn)))
    assert "kernel masking.keep differs from torch by 1;" in doctor.twins(device)[1][0]


def test_without_a_device_for_them_kernels_are_not_compared(monkeypatch):
    monkeypatch.setattr("encdec_train.kernels.backend.machine_refuses", lambda device: "no such thing")
    assert doctor.twins(torch.device("cpu")) == ([("all", "not compared: no such thing")], [])
