"""What a stage asks for before its first step, on the recipe that asks for all of it."""

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from encdec_train.build import check, make_parts, make_transform
from encdec_train.config import StageConfig
from encdec_train.launch import compose
from encdec_train.train import checkpoint
from encdec_train.train.run import resume, train
from encdec_train.train.stages import train_stages
from encdec_train.types import Mismatch
from tests.runs import assembled, small

FEW = ["checkpoint.every=2", "checkpoint.keep=9", "probe=null", "target.cepstra.clusters=4", "target.hidden.clusters=6"]


@pytest.fixture(scope="module")
def hubert(tmp_path_factory):
    """Two stages of two steps."""
    root = tmp_path_factory.mktemp("hubert")
    return root / "hubert" / "run", train(small("hubert", root, *FEW, steps=2))


def weights(folder, name):
    config = compose(["+recipe=hubert", *FEW])
    parts = make_parts(config, check(config, make_transform(config).specs()))
    checkpoint.load_parts(folder / "checkpoints" / name, parts)
    return parts


def same(one, two):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_parts_are_fitted_copied_and_reset(hubert):
    folder, summary = hubert
    assert set(summary["loss"]["terms"]) == {"hidden"}
    first, second = weights(folder, "00-00000002"), weights(folder, "01-00000002")
    assert first.get("target", "cepstra").centres.any() and not first.get("target", "hidden").centres.any()
    assert second.get("target", "hidden").centres.any()
    assert same(second.get("encoder", "main", "first"), first.get("encoder", "main"))  # copied when stage two began
    assert not same(second.get("encoder", "main"), first.get("encoder", "main"))  # and begun anew


def test_a_run_cut_between_the_stages_goes_on_the_same(hubert, tmp_path):
    _, summary = hubert
    train(small("hubert", tmp_path, *FEW, steps=2))
    folder = tmp_path / "hubert" / "run"
    last = folder / "checkpoints" / "01-00000002"
    for file in last.iterdir():
        file.unlink()
    last.rmdir()
    assert resume(folder)["loss"] == summary["loss"]


@pytest.mark.parametrize(
    "stage,said",
    [
        (StageConfig(fit=["target.other"]), "stage.hidden.fit: there is no target 'other'"),
        (StageConfig(fit=["target.hidden", "encoder.main"]), "'encoder.main' has nothing that is fitted to data"),
        (StageConfig(fit=[]), "target.hidden: is fitted to data before a stage: name it in stage.<name>.fit"),
        (StageConfig(fit=["target.hidden"], reset=["encoder"]), "stage.hidden.reset: 'encoder' is not noun.name"),
        (StageConfig(fit=["target.hidden"], overrides={"rate": 1.0}), "stage.hidden.overrides: Key 'rate' not in"),
    ],
)
def test_what_does_not_fit_is_named(stage, said):
    config = compose(["+recipe=hubert"])
    config.stage["hidden"] = stage
    with pytest.raises(Mismatch, match=said):
        check(config, make_transform(config).specs())


def test_a_stage_begins_in_training_mode_but_for_what_is_frozen(tmp_path):
    run = assembled(small("ldm", tmp_path, "probe=null", steps=1), tmp_path)
    train_stages(run, None, 0.0)
    assert not any(run.parts.get(noun, "main").training for noun in ("encoder", "bottleneck", "decoder"))
    assert any(part.training for part in run.parts.student["encoder"].values())
    run = assembled(small("byol", tmp_path / "byol", "probe=null", steps=1), tmp_path / "byol")
    train_stages(run, None, 0.0)
    norms = [m.training for m in run.parts.teachers.modules() if isinstance(m, _BatchNorm)]
    assert norms and all(norms)  # a teacher with statistics of its own
