"""A run that begins with what another has learned."""

from __future__ import annotations

import shutil

import pytest
import torch

from encdec_train.build import check, make_transform
from encdec_train.train import begin, checkpoint
from encdec_train.train.assembly import read_parts
from encdec_train.train.run import resume, train
from encdec_train.train.rundir import load
from encdec_train.types import Mismatch
from tests.runs import small

LESS = ("probe=null", "data.limit=200")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    root = tmp_path_factory.mktemp("pretrained")
    train(small("t5", root, *LESS, steps=2))
    return root / "t5" / "run"


def weights(folder):
    config = load(folder / "config.yaml")
    _, transform, parts = read_parts(config, folder, checkpoint.newest(folder / "checkpoints")[0])
    return transform, parts.student.state_dict()


def test_all_parts_of_the_same_names_and_the_tokenizer(pretrained, tmp_path):
    """With a rate of next to nothing, what comes out is what went in; the first step is what made it."""
    summary = train(small("t5_finetune", tmp_path, *LESS, f"init={pretrained}", "optim.lr=1e-30", steps=1))
    folder = tmp_path / "t5_finetune" / "run"
    transform, found = weights(folder)
    _, given = weights(pretrained)
    assert set(found) == set(given) and any(name.startswith("decoder.") for name in found)
    assert all(torch.equal(found[name], given[name]) for name in found)
    own = (pretrained / "encoder" / "tokenizer.json").read_bytes()
    for view in ("source", "target"):
        assert (folder / "encoder" / view / "tokenizer.json").read_bytes() == own
    assert (
        transform.of("source").text(transform.of("source").prompt("nine", ended=False).tolist())
        == "write in digits: nine"
    )
    shutil.rmtree(folder / "checkpoints")  # it died before its first checkpoint
    assert resume(folder)["loss"]["first"] == summary["loss"]["first"]


@pytest.mark.parametrize(
    "changes,words",
    [
        (["encoder.width=32"], "it has width=64, here 32"),
        (["decoder.activation=gelu"], "decoder.main: it has activation=Activation.relu, here Activation.gelu"),
        (["init=/nowhere/at/all"], "/nowhere/at/all: no such folder"),
    ],
)
def test_what_is_another_thing(pretrained, tmp_path, changes, words):
    config = small("t5_finetune", tmp_path, f"init={pretrained}", *changes)
    transform = make_transform(config)
    wiring = check(config, transform.specs())
    with pytest.raises(Mismatch, match=words):
        begin.read(config, wiring, transform)
    assert not list(tmp_path.iterdir())


def test_another_vocabulary(pretrained, tmp_path):
    names = [f"transform.views.{view}.vocabulary=512" for view in ("source", "target")]
    with pytest.raises(Mismatch, match="vocabulary: 512 is below the tokenizer's 1024 tokens"):
        train(small("t5_finetune", tmp_path / "runs", *LESS, f"init={pretrained}", *names))
    assert not (tmp_path / "runs").exists()


def test_a_part_that_has_no_weights_there_begins_anew(pretrained, tmp_path):
    config = small("t5_finetune", tmp_path, f"init={pretrained}", "head=linear")
    transform = make_transform(config)
    starts = begin.read(config, check(config, transform.specs()), transform)
    assert set(starts) == {"embedder.main", "encoder.main", "decoder.main"}


def test_another_thing_altogether(pretrained, tmp_path):
    config = small("mae_vit", tmp_path, f"init={pretrained}")
    transform = make_transform(config)
    wiring = check(config, transform.specs())
    with pytest.raises(Mismatch, match=r"embedder\.main is a IdsConfig, here it is a LinearEmbedderConfig"):
        begin.read(config, wiring, transform)
