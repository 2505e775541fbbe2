"""What probes look at: along which path, at which rows, through which weights, and how often it is encoded."""

from collections import Counter
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch

from encdec_train.probes.probe import ProbeConfig
from encdec_train.step import Step
from encdec_train.train import assembly
from encdec_train.train.frozen import Frozen, OverTime
from encdec_train.types import Mismatch
from tests.runs import assembled, small


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return assembled(small("mae_vit", folder, "evaluate.rows=50", "evaluate.batch=20"), folder)


@pytest.fixture
def encoded(monkeypatch):
    """How often each split is read."""
    counts: Counter[str] = Counter()
    steps = Frozen.steps

    def counting(self, split, **more):
        counts[split] += 1
        return steps(self, split, **more)

    monkeypatch.setattr(Frozen, "steps", counting)
    return counts


def test_rows_are_encoded_once_for_all_probes(run, encoded):
    eyes = assembly.frozen(run)
    x, y = eyes.vectors("train")
    assert x.shape == (50, 96) and y.tolist() == [int(run.rows["train"][i]["label"]) for i in range(50)]
    assert eyes.features("train") is x and eyes.of(ProbeConfig()) is eyes
    eyes.vectors("train")
    assert encoded == {"train": 1}
    run.config.probe = {name: run.config.probe[name] for name in ("knn", "linear")}
    assembly.evaluate(run)
    assert encoded == {"train": 2, "test": 1}


def test_layers_end_before_the_last_norm(run):
    eyes = assembly.frozen(run)
    layers, encoder = eyes.layers("test"), run.parts.get("encoder", "main")
    assert len(layers) == len(encoder.blocks) and encoder.config.emit == []
    step: Step = next(iter(eyes.steps("test")))[0]
    with torch.no_grad():
        tokens = step.embed(eyes.path)
        x = torch.cat([encoder.tokens.expand(20, -1, -1), tokens.x], 1) if encoder.tokens is not None else tokens.x
        for block, layer in zip(encoder.blocks, layers, strict=True):
            x = block(x, tokens.sites, prefix=x.shape[1] - tokens.sites.n, attend=None, bias=None)
            np.testing.assert_allclose(layer[:20], x[:, x.shape[1] - tokens.sites.n :].mean(1), atol=1e-5)


def test_untrained_is_the_beginning(run):
    eyes, weight = assembly.frozen(run), run.parts.get("encoder", "main").blocks[0].attention.out.weight
    before = eyes.features("test")
    with torch.no_grad():
        kept = weight.clone()
        weight.add_(1)
    moved = assembly.frozen(run)
    assert not np.allclose(moved.features("test"), before)
    np.testing.assert_array_equal(moved.untrained().features("test"), before)
    with torch.no_grad():
        weight.copy_(kept)


def test_other_data(run, tmp_path, encoded):
    """Pictures in another file, whose columns have other names, through the same transform."""
    pictures = [row["image"] for row in run.rows["train"].select(range(30))]
    rows = datasets.Dataset.from_dict({"shot": pictures, "size": [i / 2 for i in range(30)], "kind": [0, 1, None] * 10})
    rows.cast_column("shot", datasets.Image()).to_parquet(tmp_path / "train.parquet")
    rows.cast_column("shot", datasets.Image()).to_parquet(tmp_path / "test.parquet")
    eyes = assembly.frozen(run)
    probe = SimpleNamespace(data={"path": str(tmp_path), "column": "shot", "label": "size"}, path=None)
    other = eyes.of(probe)
    np.testing.assert_allclose(other.features("test"), eyes.features("train")[:30], atol=1e-5)
    assert other.numbers("test")[:, 0].tolist() == [i / 2 for i in range(30)]
    assert eyes.of(probe) is other and encoded == {"test": 1, "train": 1}
    with pytest.raises(Mismatch, match="'size' holds other numbers"):
        other.vectors("test")
    several = eyes.of(SimpleNamespace(data=probe.data, path=None, labels=["kind", "size"]))
    np.testing.assert_array_equal(several.numbers("test")[:3], [[0, 0], [1, 0.5], [np.nan, 1]])
    with pytest.raises(Mismatch, match="no columns heavy; they have shot, size, kind"):
        eyes.of(SimpleNamespace(data=probe.data, path=None, labels=["heavy"]))
    with pytest.raises(ValueError, match="there is no column 'shto'"):
        eyes.of(SimpleNamespace(data={**probe.data, "column": "shto"}, path=None))
    with pytest.raises(Mismatch, match="the shape that the encoder was built for"):
        eyes.of(SimpleNamespace(data={**probe.data, "size": 16}, path=None))
    with pytest.raises(Mismatch, match="a probe's path: there is no path 'side'; there is: main"):
        eyes.of(SimpleNamespace(data={}, path="side"))


def test_one_view_of_several(tmp_path):
    run = assembled(small("clip", tmp_path, "evaluate.rows=20"), tmp_path)
    said = run.rows["test"]["caption"][:20]
    datasets.Dataset.from_dict({"said": said}).to_parquet(tmp_path / "train.parquet")
    datasets.Dataset.from_dict({"said": said}).to_parquet(tmp_path / "test.parquet")
    eyes = assembly.frozen(run)
    alone = eyes.of(ProbeConfig(path="text", data={"path": str(tmp_path / "test.parquet"), "test": "train"}))
    both = eyes.of(ProbeConfig(path="text"))
    np.testing.assert_allclose(alone.features("test"), both.features("test"), atol=1e-5)
    assert not np.allclose(both.features("test")[:, 0], eyes.features("test")[:, 0])
    assert alone.labels == [] and alone.of(ProbeConfig(path="text")).path == both.path


def test_time_is_over(run):
    eyes = assembly.frozen(run)
    eyes.until = 0.0
    with pytest.raises(OverTime):
        eyes.features("train")
    assert run.parts.training
