"""The tied head: whose table it reads, and what it refuses."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from encdec_train.embedders.ids import Ids, IdsConfig
from encdec_train.heads.tied import Tied, TiedConfig
from encdec_train.types import Mismatch, Spec
from tests.texts import view


def build(width: int = 8, upstream: int = 8, **changes: bool) -> tuple[Ids, Tied]:
    text = view()
    embedder = Ids(IdsConfig(width=width), text, mask=False)
    config = TiedConfig(**changes)
    return embedder, Tied(config, Spec(kind="vectors", width=upstream), text, embedder)


def test_plain_scores_are_products_with_the_table() -> None:
    embedder, head = build()
    x = torch.randn(5, 8)
    torch.testing.assert_close(head(x), x @ embedder.table.weight.T)
    assert not list(head.parameters())


def test_scale_divides_by_the_root_of_the_width() -> None:
    embedder, head = build(scale=True)
    x = torch.randn(5, 8)
    torch.testing.assert_close(head(x), x @ embedder.table.weight.T / 8**0.5)


def test_transform_bridges_two_widths() -> None:
    _, head = build(width=6, upstream=8, transform=True, bias=True)
    assert head(torch.randn(5, 8)).shape == (5, view().width)
    assert {name for name, _ in head.named_parameters()} == {
        "bias", "transform.linear.weight", "transform.linear.bias", "transform.norm.weight", "transform.norm.bias",
    }  # fmt: skip


def test_a_copy_of_both_is_tied_to_the_copy() -> None:
    embedder, head = build()
    copied, tied = copy.deepcopy((embedder, head))
    assert tied.table is copied.table.weight
    assert tied.table is not embedder.table.weight


def test_refuses_what_does_not_fit() -> None:
    with pytest.raises(Mismatch, match="transform=true"):
        build(width=6, upstream=8)
    with pytest.raises(Mismatch, match="embedder with a table"):
        Tied(TiedConfig(), Spec(kind="vectors", width=8), view(), nn.Linear(3, 8))
    with pytest.raises(Mismatch, match="gives values"):
        TiedConfig().spec(Spec(kind="vectors", width=8), Spec(kind="values", width=8))
