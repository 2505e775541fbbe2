"""What onnxruntime makes of an exported graph is what the run's encoder makes of the same input."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from encdec_train.data.example import Example, collate
from encdec_train.export.encoder import load
from encdec_train.export.onnx import save as onnx
from encdec_train.handover import export
from encdec_train.library import need
from encdec_train.train.run import train
from encdec_train.types import Mismatch
from tests.runs import small

runtime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def texts(run):
    """Two texts, the second shorter, as the loader hands them over."""
    ids = [torch.randint(10, 100, (n,), generator=torch.Generator().manual_seed(n)) for n in (11, 7)]
    batch = collate([{"text": Example(values=x, sample=0, max_len=24)} for x in ids])
    return batch, {"input_ids": batch["text"].values, "attention_mask": batch["text"].sites.real().long()}


def sounds(run):
    length = json.loads((run / "encoder" / "preprocess.json").read_text())["samples"] // 2
    sound = [torch.randn(n, 1, generator=torch.Generator().manual_seed(n)) for n in (length, length * 2 // 3)]
    batch = collate([{"audio": Example(values=x, sample=0)} for x in sound])
    real = batch["audio"].sites.real().long()
    return batch, {"input_values": batch["audio"].values[..., 0], "attention_mask": real}


def pictures(run):
    """Normalised and cut by hand here, by the graph there."""
    said = json.loads((run / "encoder" / "preprocess.json").read_text())
    side, patch = said["size"], said["patch"]
    pixels = np.random.default_rng(0).integers(0, 256, (2, side, side, 1), dtype=np.uint8)
    whole = (torch.from_numpy(pixels).float() / 255 - said["mean"][0]) / said["std"][0]
    cut = whole.unfold(1, patch, patch).unfold(2, patch, patch).flatten(1, 2).flatten(2)
    place = torch.stack(torch.meshgrid(torch.arange(side // patch), torch.arange(side // patch), indexing="ij"), -1)
    rows = [Example(values=x, sample=0, coords=place.flatten(0, 1).float(), grid=(side // patch,) * 2) for x in cut]
    return collate([{"image": row} for row in rows]), {"pixels": torch.from_numpy(pixels)}


FEW = ["embedder.channels=[8,8]", "embedder.kernels=[10,4]", "embedder.strides=[5,4]"]  # convolutions


@pytest.mark.parametrize(
    ("recipe", "overrides", "make", "shapes"),
    [
        ("t5", [], texts, {"input_ids": ["batch", "length"], "attention_mask": ["batch", "length"]}),
        ("mae_vit", [], pictures, {"pixels": ["batch", 8, 8, 1]}),
        ("wav2vec2", FEW, sounds, {"input_values": ["batch", "length"], "attention_mask": ["batch", "length"]}),
    ],
)
@torch.no_grad()
def test_equal_outputs(recipe, overrides, make, shapes, tmp_path):
    """For lengths and numbers of rows that it was not traced with, against the encoder of the run itself."""
    with torch.enable_grad():
        train(small(recipe, tmp_path, "probe=null", "encoder.depth=1", *overrides, steps=2))
    run, out = tmp_path / recipe / "run", tmp_path / "out"
    assert export(run, "onnx", out) == next(iter(shapes))
    batch, given = make(run)
    tokens = load(run / "encoder")(batch)
    session = runtime.InferenceSession(str(out / "model.onnx"), providers=["CPUExecutionProvider"])
    states, vector = session.run(None, {name: x.numpy() for name, x in given.items()})
    real = tokens.sites.real()
    own = tokens.body[real]
    assert own.abs().max() > 0.1
    assert np.abs(states[:, tokens.prefix :][real] - own.numpy()).max() < 1e-4
    mean = (tokens.body * real[..., None]).sum(1) / real.sum(1, keepdim=True)
    assert np.abs(vector - mean.numpy()).max() < 1e-4
    described = json.loads((out / "preprocess.json").read_text())
    assert {name: said["shape"] for name, said in described["inputs"].items()} == shapes
    assert f'"{next(iter(shapes))}": ...' in (out / "README.md").read_text()
    assert (out / "tokenizer.json").is_file() == (recipe == "t5")


class Branches(torch.nn.Module):
    """Reads a number in order to decide."""

    def forward(self, *given):
        x = given[0]
        return (x, x) if x.sum() > 0 else (-x, x)


def test_what_is_no_graph_is_said(tmp_path):
    entrance = SimpleNamespace(examples={"x": torch.ones(3, 2)}, long=False)
    with pytest.raises(Mismatch, match=r"cannot be written as a graph \(.*data-dependent"):
        onnx._write(Branches(), entrance, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_comparison_sees_a_difference(tmp_path):
    class Two(torch.nn.Module):
        def __init__(self, add):
            super().__init__()
            self.add = add

        def forward(self, *given):
            return given[0] + self.add, given[0] * 2

    entrance = SimpleNamespace(examples={"x": torch.ones(3, 2)}, long=False)
    file = tmp_path / "model.onnx"
    assert onnx._write(Two(1.0), entrance, file) == {"x": ["batch", 2]}
    onnx._compare(runtime, file, Two(1.0), entrance, varies=False)
    with pytest.raises(Mismatch, match="onnxruntime gives other outputs"):
        onnx._compare(runtime, file, Two(1.001), entrance, varies=False)


def test_without_the_library():
    with pytest.raises(Mismatch, match=r"^export --to onnx needs no_such_library: pip install 'encdec-train\[onnx\]'"):
        need("no_such_library", "onnx", "export --to onnx")
