"""A folder with `model.onnx`, and the proof that onnxruntime gives the same outputs as ours.

The graph holds the device's side of the preprocessing (normalisation, patches, spectrograms), the embedder, the
encoder and the pooling: raw inputs in, states (B,prefix+N,D) and one vector (B,D) out. It is traced on the processor,
where every operation that has a kernel takes its torch twin.
"""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from encdec_train.data.transform import Transform
from encdec_train.export.encoder import Encoder
from encdec_train.export.held import Held
from encdec_train.export.hf.save import equal
from encdec_train.export.onnx.doors import Door, door
from encdec_train.kernels import backend
from encdec_train.library import need
from encdec_train.nn.borrowed import line
from encdec_train.nn.pool import Pool, pool
from encdec_train.rng import Rng
from encdec_train.step import Parts
from encdec_train.types import Mismatch

LARGE = 2**30  # bytes of weights from which on they lie in a file of their own; a graph may have 2 GiB at most
OUTPUTS = {
    "states": "the encoder's states, its prefix tokens first",
    "vector": "one for each row, pooled as the run's probes do",
}


def save(folder: Path, kept: Held, parts: Parts, transform: Transform, how: Pool, tokenizer: Path | None) -> str:
    """Write the graph and its preprocessing, run it, compare. Returns the name of its first input.

    Args:
        folder: exists, empty.
        kept: what of the run is handed over.
        parts: with their weights, on the processor.
        transform: of the run, fitted.
        how: tokens become one vector.
        tokenizer: file of the evaluated view's tokenizer, if it has one.

    Raises:
        Mismatch: it cannot be written as a graph, or onnxruntime gives other outputs.
    """
    wanted_by = "export --to onnx"
    need("onnxscript", "onnx", wanted_by)
    runtime = need("onnxruntime", "onnx", wanted_by)
    view = transform.of(kept.path.view)
    entrance = door(view, kept.ours.view)
    graph = Graph(kept, parts, view, entrance, how).eval()
    with _quiet(), backend.using(backend=backend.Backend.reference):
        shapes = _write(graph, entrance, folder / "model.onnx")
    _compare(runtime, folder / "model.onnx", graph, entrance, varies="length" in shapes[next(iter(shapes))])
    described = {**view.preprocess(), "inputs": _described(shapes, entrance), "outputs": OUTPUTS}
    (folder / "preprocess.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    if tokenizer is not None:
        shutil.copyfile(tokenizer, folder / "tokenizer.json")
    return next(iter(entrance.examples))


class Graph(nn.Module):
    """Raw inputs to states and a vector."""

    def __init__(self, kept: Held, parts: Parts, view: Transform, entrance: Door, how: Pool) -> None:
        super().__init__()
        path = kept.path
        encoder = None if path.encoder is None else parts.get("encoder", path.encoder, path.teacher)
        self.encoder = Encoder(parts.get("embedder", path.embedder, path.teacher), encoder, path.view)
        self.view, self.entrance, self.how, self.name = view, entrance, how, path.view

    def forward(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        """(B,prefix+N,D) and (B,D)."""
        inner = next(iter(self.view.specs()))  # beside other views it goes by another name
        batch = self.view.finish({inner: self.entrance.enter(*given)}, Rng(0, 0), clean=True)
        tokens = self.encoder({self.name: batch[inner]})
        return tokens.x, pool(tokens, self.how)


def _write(graph: Graph, entrance: Door, file: Path) -> dict[str, list[int | str]]:
    """Trace and write. Returns the shape of each input, with the names of the axes that may vary.

    Raises:
        Mismatch: what the parts do is no graph, or one for a single number of rows.
    """
    given, names = tuple(entrance.examples.values()), list(entrance.examples)
    batch, length = torch.export.Dim.DYNAMIC, torch.export.Dim.AUTO
    axes = {0: batch, 1: length} if entrance.long else {0: batch}
    try:
        with torch.no_grad():
            traced = torch.export.export(graph, given, dynamic_shapes=((axes,) * len(given),), strict=False)
            free = [_free(traced, i) for i in range(len(given))]
            program: Any = torch.onnx.export(
                traced,
                given,
                dynamo=True,
                verbose=False,
                input_names=names,
                output_names=list(OUTPUTS),
                dynamic_shapes=tuple({i: ("batch", "length")[i] for i in found} for found in free),
            )
    except Exception as error:  # whatever torch says of an operation that is none of a graph's
        raise Mismatch(f"export --to onnx: these parts cannot be written as a graph ({line(error)})") from error
    size = sum(weight.nbytes for weight in graph.state_dict().values())
    program.save(file, external_data=size > LARGE)
    return {
        name: [("batch", "length")[i] if i in found else side for i, side in enumerate(example.shape)]
        for name, example, found in zip(names, given, free, strict=True)
    }


def _free(traced: torch.export.ExportedProgram, i: int) -> list[int]:
    """The axes of an input that were not settled while it was traced."""
    name = traced.graph_signature.user_inputs[i]
    node = next(node for node in traced.graph.nodes if node.name == name)
    return [axis for axis, side in enumerate(node.meta["val"].shape) if isinstance(side, torch.SymInt)]


@torch.no_grad()
def _compare(runtime: Any, file: Path, graph: Graph, entrance: Door, *, varies: bool) -> None:
    """The same inputs through both: all rows, one row, more rows, and where lengths may vary two thirds of them.

    Raises:
        Mismatch: the outputs differ.
    """
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    whole = list(entrance.examples.values())
    tried = [whole, [x[:1] for x in whole], [torch.cat([x, x[:2]]) for x in whole]]
    if varies:
        tried.append([x[:, : max(1, x.shape[1] * 2 // 3)] for x in whole])
    for given in tried:
        arrays = {name: x.numpy() for name, x in zip(entrance.examples, given, strict=True)}
        for found, expected in zip(session.run(None, arrays), graph(*given), strict=True):
            equal("onnxruntime", torch.from_numpy(found), expected)


def _described(shapes: dict[str, list[int | str]], entrance: Door) -> dict[str, dict[str, Any]]:
    """Name, type, shape and meaning of the inputs."""
    kinds: dict[str, Sequence[str]] = {name: str(x.dtype).split(".") for name, x in entrance.examples.items()}
    return {
        name: {"type": kinds[name][-1], "shape": shape, "what": entrance.said[name]} for name, shape in shapes.items()
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch says of itself while it traces."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)
