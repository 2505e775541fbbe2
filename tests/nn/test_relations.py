"""Relations against a loop over rows, documents and heads."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from encdec_train.nn.relations import relation_width, relations
from encdec_train.types import Layer, Mismatch, Spec
from tests.texts import documents, packed, padded

LENGTHS = [12, 30, 7]


def test_equals_a_loop() -> None:
    docs = documents(LENGTHS)
    units = padded(docs)
    qkv = torch.randn(3, 3, 30, 8)
    found = relations(qkv, 2, units.sites, 40).unflatten(-1, (3, 2, 40))  # (B,N,3,A,length)
    for row, n in enumerate(LENGTHS):
        for kind in range(3):
            for head in range(2):
                x = qkv[row, kind, :n, 4 * head : 4 * head + 4]
                expected = (x @ x.T / 2).softmax(-1)
                torch.testing.assert_close(found[row, :n, kind, head, :n].exp(), expected)
                assert not found[row, :n, kind, head, n:].exp().any()


def test_packed_documents_do_not_relate() -> None:
    units = packed(documents(LENGTHS), [[0, 2], [1]], 32)
    found = relations(torch.randn(2, 3, 32, 4), 1, units.sites, 32).exp().unflatten(-1, (3, 32))
    assert not found[0, :12, :, 12:].any() and not found[0, 12:19, :, :12].any()
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 32, 3))


def test_width() -> None:
    spec = Spec(kind="vectors", width=8, length=10, layers=(Layer(8, inner=12), Layer(8)))
    assert relation_width("x", spec, 0, 4) == 120
    for changed, layer, split, words in (
        (spec, 2, 4, "x.layer: 2, the encoder has 2"),
        (spec, -1, 4, "hands out none"),
        (spec, 0, 5, "12 do not divide into 5"),
        (replace(spec, length=0), 0, 4, "rows of one length"),
        (replace(spec, rows="kept"), 0, 4, "rows of one length"),
    ):
        with pytest.raises(Mismatch, match=words):
            relation_width("x", changed, layer, split)
