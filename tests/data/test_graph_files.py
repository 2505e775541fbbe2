"""Graphs from a file with the columns of the hub's graph classification sets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from encdec_train.data.example import collate
from encdec_train.data.loader import StepDataset
from encdec_train.data.open import open_rows
from encdec_train.data.sources.files import GraphsConfig
from encdec_train.data.transforms.graph import Graph, GraphConfig


@pytest.fixture
def config(tmp_path: Path) -> GraphsConfig:
    rows = [
        {
            "edge_index": [list(range(n)), [(i + 1) % n for i in range(n)]],
            "node_feat": [[float(i % 3 == k) for k in range(3)] for i in range(n)],
            "y": [n % 2],
            "num_nodes": n,
        }
        for n in range(3, 23)
    ]
    file = tmp_path / "rings.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    return GraphsConfig(path=str(file), test=None, column="node_feat", edges="edge_index", features=3, label="y")


def test_rows_become_padded_graphs_with_labels(config: GraphsConfig) -> None:
    rows = open_rows(config)
    assert len(rows["train"]) == 18 and len(rows["test"]) == 2
    data = StepDataset(rows["train"], Graph(GraphConfig(), config), 0, clean=True, label=config.label)
    batch = collate([data[0, i].row for i in range(18)])
    sites = batch["graph"].sites
    sizes = torch.tensor(rows["train"]["num_nodes"][:])
    assert torch.equal(sites.real().sum(1), sizes)
    assert sites.edges is not None and sites.edges.shape[1] == 2 * sizes.sum()
    assert torch.equal(batch["label"].values[:, 0], (sizes % 2).double())


def test_a_wrong_width_is_named(config: GraphsConfig) -> None:
    config.features = 4
    data = StepDataset(open_rows(config)["train"], Graph(GraphConfig(), config), 0, clean=True, label=None)
    with pytest.raises(ValueError, match=r"expected nodes of 4 features \(data.features\)"):
        data[0, 0]
