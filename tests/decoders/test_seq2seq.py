"""The encoder-decoder's decoder: what reads what, padded and packed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from encdec_train.decoders.seq2seq import Seq2Seq, Seq2SeqConfig
from encdec_train.nn.norm import Norm
from encdec_train.types import Attend, Mismatch, Plan, Sites, Spec, Tokens, Units

WIDTH, MEMORY = 16, 12
VECTORS = Spec(kind="vectors", width=WIDTH)
CAUSAL = Attend(causal=True)


def decoder(**changes) -> Seq2Seq:
    torch.manual_seed(0)
    config = Seq2SeqConfig(width=WIDTH, depth=2, heads=2, norm=Norm.rms, relative=True, scale=False, **changes)
    return Seq2Seq(config, replace(VECTORS, width=MEMORY), VECTORS, VECTORS).eval()


def alone(x: Tensor) -> Tokens:
    """One document per row, all of it real."""
    key = torch.zeros(x.shape[:2], dtype=torch.int64)
    return Tokens(x=x, sites=Sites(sample=key, place=torch.arange(x.shape[1]).expand(len(x), -1)))


def packed(documents: list[Tensor], n: int, *, bounds: bool) -> Tokens:
    """One row of documents and padding."""
    lengths = [len(document) for document in documents]
    fill = n - sum(lengths)
    x = torch.cat([*documents, torch.randn(fill, documents[0].shape[1])])[None]
    doc = torch.cat([*(torch.full((k,), i) for i, k in enumerate(lengths)), torch.full((fill,), -1)])[None]
    place = torch.cat([torch.arange(k) for k in [*lengths, fill]])[None]
    ends = torch.tensor([0, *lengths, fill]).cumsum(0).int()
    sites = Sites(
        sample=torch.zeros_like(doc),
        place=place,
        valid=doc >= 0,
        doc=doc,
        cu_seqlens=ends if bounds else None,
        max_len=max(lengths),
    )
    return Tokens(x=x, sites=sites)


def run(part: Seq2Seq, memory: Tokens, inputs: Tokens) -> Tensor:
    units = Units(values=inputs.x, sites=inputs.sites)
    return part(memory, inputs, Plan(inputs=units, sites=inputs.sites, attend=CAUSAL)).x


def test_reads_the_past_and_all_of_the_memory() -> None:
    part = decoder()
    x = torch.randn(2, 7, WIDTH, requires_grad=True)
    memory = torch.randn(2, 5, MEMORY, requires_grad=True)
    run(part, alone(memory), alone(x))[0, 3].sum().backward()
    assert x.grad is not None and memory.grad is not None
    assert (x.grad[0].abs().sum(1) > 0).tolist() == [True] * 4 + [False] * 3
    assert (memory.grad[0].abs().sum(1) > 0).all()
    assert not x.grad[1].any() and not memory.grad[1].any()


def test_padding_of_the_memory_is_not_read() -> None:
    part, x, memory = decoder(), torch.randn(1, 6, WIDTH), torch.randn(1, 4, MEMORY)
    longer = alone(torch.cat([memory, torch.randn(1, 3, MEMORY)], 1))
    longer = replace(longer, sites=replace(longer.sites, valid=torch.arange(7)[None] < 4))
    torch.testing.assert_close(run(part, longer, alone(x)), run(part, alone(memory), alone(x)))


@pytest.mark.parametrize("bounds", [True, False], ids=["segments", "dense"])
def test_packed_documents_pair_up(bounds: bool) -> None:
    """Each document reads its own memory: as if it were alone."""
    part = decoder()
    xs = [torch.randn(n, WIDTH) for n in (5, 9, 3)]
    memories = [torch.randn(n, MEMORY) for n in (11, 2, 7)]
    together = run(part, packed(memories, 24, bounds=bounds), packed(xs, 20, bounds=bounds))[0]
    for out, x, memory in zip(together.split([5, 9, 3, 3]), xs, memories, strict=False):
        torch.testing.assert_close(out, run(part, alone(memory[None]), alone(x[None]))[0])


def test_what_does_not_fit_is_refused() -> None:
    config = Seq2SeqConfig(width=16, heads=4)
    with pytest.raises(Mismatch, match="reads a memory"):
        config.spec(None, VECTORS, VECTORS)
    with pytest.raises(Mismatch, match=r"objective\.inputs"):
        config.spec(VECTORS, None, VECTORS)
    with pytest.raises(Mismatch, match="does not divide"):
        Seq2SeqConfig(width=16, heads=3).spec(VECTORS, VECTORS, VECTORS)
