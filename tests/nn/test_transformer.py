"""Words of the block: what takes turns over a stack, and that packed documents are read as if alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from encdec_train.decoders.mask_tokens import MaskTokensConfig
from encdec_train.decoders.seq2seq import Seq2SeqConfig
from encdec_train.encoders.transformer import Transformer, TransformerConfig
from encdec_train.nn.transformer import BlockConfig, narrow
from encdec_train.types import Attend, Mismatch, Sites, Spec, Tokens
from tests.texts import documents, packed, padded, unpack

LENGTHS = [12, 33, 7, 20, 18, 3, 40]
ROWS = [[0, 3, 5], [1, 2], [6], [4]]
WORDS = {
    "rotary": {"rotary": [100.0]},
    "slopes": {"slopes": True},
    "windows": {"windows": [0, 2]},
    "layer_scale": {"layer_scale": 0.1},
    "all": {"rotary": [100.0, 10.0], "windows": [3, 0], "slopes": True, "gated": True, "norm_bias": False},
}


def stack(**words: object) -> Transformer:
    torch.manual_seed(0)
    config = TransformerConfig(**{"width": 16, "depth": 3, "heads": 4, "hidden": 16, **words})  # type: ignore[arg-type]
    return Transformer(config, Spec(kind="vectors", width=16))


def line(n: int) -> Sites:
    place = torch.arange(n)[None]
    return Sites(sample=place, place=place)


def vectors(ids: torch.Tensor) -> torch.Tensor:
    return torch.randn(60, 16, generator=torch.Generator().manual_seed(1))[ids]


@pytest.mark.parametrize("segments", [True, False], ids=["segments", "dense"])
@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_packed_documents_are_read_as_if_alone(words: dict[str, object], segments: bool) -> None:
    part, docs = stack(**words), documents(LENGTHS)
    rows, alone = packed(docs, ROWS, 40), padded(docs)
    sites = rows.sites if segments else replace(rows.sites, cu_seqlens=None)
    found = unpack(part(Tokens(x=vectors(rows.values), sites=sites)).x, rows, ROWS)
    expected = part(Tokens(x=vectors(alone.values), sites=alone.sites)).x
    for i, states in found.items():
        torch.testing.assert_close(states, expected[i, : len(states)], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_every_word_changes_something(words: dict[str, object]) -> None:
    tokens = Tokens(x=torch.randn(1, 9, 16), sites=line(9))
    assert not torch.allclose(stack(**words)(tokens).x, stack()(tokens).x)


def reach(part: Transformer, attend: Attend | None = None) -> list[int]:
    """Sites that site 10 of 21 depends on."""
    x = torch.randn(1, 21, 16, requires_grad=True)
    part(Tokens(x=x, sites=line(21)), attend).x[0, 10, 0].backward()
    return x.grad[0].abs().sum(-1).nonzero().flatten().tolist()  # type: ignore[index]


def test_windows_take_turns_over_the_blocks() -> None:
    assert reach(stack(windows=[2])) == list(range(4, 17))  # three blocks of two places
    assert reach(stack(windows=[1, 2])) == list(range(6, 15))  # 1, 2, 1
    assert reach(stack(windows=[2, 0, 2])) == list(range(21))
    assert reach(stack(windows=[2], depth=1), Attend(causal=True)) == [8, 9, 10]


def test_the_narrower_window_holds() -> None:
    attend = Attend(window=3, causal=True)
    assert narrow(attend, 0) is attend and narrow(attend, 4) is attend and narrow(None, 0) is None
    narrowed, alone = narrow(attend, 2), narrow(None, 5)
    assert narrowed is not None and narrowed.window == 2 and narrowed.causal
    assert alone is not None and alone.window == 5


def test_norms_that_are_left_out() -> None:
    part = stack(first_norm=False, norm_bias=False)
    assert isinstance(part.blocks[0].norm, torch.nn.Identity)
    norms = [module for module in part.modules() if isinstance(module, torch.nn.LayerNorm)]
    assert len(norms) == 2 * 3 - 1 + 1 and all(norm.bias is None for norm in norms)


def test_first_layer_of_the_mlp_without_a_bias() -> None:
    mlp = stack(up_bias=False).blocks[0].mlp
    assert mlp.up.bias is None and mlp.down.bias is not None


def test_what_is_added_starts_smaller() -> None:
    plain, shrunk = stack(init_std=0.02), stack(init_std=0.02, shrink=True)
    for name, weight in plain.named_parameters():
        added = name.endswith(("out.weight", "down.weight"))
        torch.testing.assert_close(shrunk.get_parameter(name), weight * 6**-0.5 if added else weight)


@torch.no_grad()
def test_a_gain_stands_behind_every_sublayer() -> None:
    """As if the last layer of each sublayer had its weights and biases multiplied."""
    tokens = Tokens(x=torch.randn(1, 9, 16), sites=line(9))
    gained, plain = stack(layer_scale=1e-4), stack()
    assert all((block.gain == 1e-4).all() and (block.mlp_gain == 1e-4).all() for block in gained.blocks)
    for one, other in zip(gained.blocks, plain.blocks, strict=True):
        pairs = ((one.gain, other.attention.out), (one.mlp_gain, other.mlp.down))
        for gain, layer in pairs:
            gain.copy_(torch.rand(16))
            layer.weight.mul_(gain[:, None])
            layer.bias.copy_(torch.randn(16))
        one.attention.out.bias.copy_(other.attention.out.bias / one.gain)
        one.mlp.down.bias.copy_(other.mlp.down.bias / one.mlp_gain)
    torch.testing.assert_close(gained(tokens).x, plain(tokens).x)


@pytest.mark.parametrize(
    "words,said",
    [
        ({"slopes": True, "relative": True}, "several biases"),
        ({"windows": [-1]}, "below 0"),
        ({"rotary": [1.0]}, "not above 1"),
        ({"rotary": [10.0], "head_width": 5}, "no pairs"),
        ({"first_norm": False, "norm_first": False}, "post-norm"),
    ],
)
def test_ranges(words: dict[str, object], said: str) -> None:
    with pytest.raises(Mismatch, match=said):
        BlockConfig(**words).check("part")  # type: ignore[arg-type]


def test_who_has_no_places() -> None:
    memory = Spec(kind="vectors", width=8, rows="kept", coords=2, length=4)
    with pytest.raises(Mismatch, match="has no windows, rotary"):
        MaskTokensConfig(windows=[1], rotary=[10.0]).spec(memory, None, memory)
    with pytest.raises(Mismatch, match="stand nowhere"):
        TransformerConfig(slopes=True, prefix=1).spec(Spec(kind="vectors", width=768))
    for grid, said in ((None, "given no lattice"), ((2, 2, 2), "a lattice of 3 dimensions")):
        with pytest.raises(Mismatch, match=said):
            TransformerConfig(lattice=True).spec(Spec(kind="vectors", width=768, grid=grid))
    with pytest.raises(Mismatch, match="has no lattice"):
        Seq2SeqConfig(lattice=True).spec(memory, memory, memory)


def test_a_lattice_is_told_by_its_offsets_alone() -> None:
    """With a bias by offset and no other positions, a picture that is turned by half a turn gives turned vectors once
    the table is turned as well."""
    config = TransformerConfig(width=16, heads=2, depth=2, lattice=True, prefix=1)
    encoder = Transformer(config, Spec(kind="vectors", width=16, grid=(2, 3), length=6)).eval()
    assert encoder.bias.table.weight.shape == (3 * 5 + 3, 2) and not encoder.bias.table.weight.any()
    nn.init.normal_(encoder.bias.table.weight)
    x, place = torch.randn(2, 6, 16), torch.arange(6).expand(2, -1)
    sites = Sites(sample=place, place=place, grid=(2, 3))
    found = encoder(Tokens(x=x, sites=sites)).x
    with torch.no_grad():
        encoder.bias.table.weight[:15] = encoder.bias.table.weight[:15].flip(0).clone()
    turned = encoder(Tokens(x=x.flip(1), sites=sites)).x
    torch.testing.assert_close(turned[:, 1:].flip(1), found[:, 1:])
    torch.testing.assert_close(turned[:, 0], found[:, 0])
