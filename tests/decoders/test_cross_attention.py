"""Cross-attention alone: against torch's own attention, and no prediction knows of another."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from encdec_train.decoders.cross_attention import CrossAttention, CrossAttentionConfig
from encdec_train.nn.position import sincos
from encdec_train.types import Layer, Mismatch, Plan, Sites, Spec, Tokens, Units

ROWS, N, KEPT, WIDTH, MEMORY = 3, 12, 4, 16, 24


def lattice():
    coords = torch.stack(torch.meshgrid(torch.arange(3.0), torch.arange(4.0), indexing="ij"), -1).flatten(0, 1)
    place = torch.arange(N).expand(ROWS, -1)
    return Sites(sample=place, place=place, coords=coords.expand(ROWS, -1, -1))


def plan(lost):
    sites = lattice()
    where = (torch.arange(ROWS)[:, None] * N + lost).flatten()
    return Plan(inputs=Units(values=torch.zeros(ROWS, N, 1), sites=sites), sites=sites, where=where)


def memory(depth=0):
    torch.manual_seed(1)
    layers = {i: torch.randn(ROWS, 1 + KEPT, MEMORY) for i in range(depth)}
    keep = torch.arange(KEPT).expand(ROWS, -1)
    return Tokens(x=torch.randn(ROWS, 1 + KEPT, MEMORY), sites=lattice().take(keep), prefix=1, layers=layers or None)


def make(depth=0):
    """A decoder of two blocks that mixes `depth` layers of the encoder, or none."""
    torch.manual_seed(0)
    config = CrossAttentionConfig(width=WIDTH, depth=2, heads=4, mix=depth > 0)
    sites = Spec(kind="vectors", width=MEMORY, length=N, coords=2)
    kept = replace(sites, length=KEPT, rows="kept", prefix=1, layers=(Layer(MEMORY),) * depth)
    assert config.spec(kept, None, sites).width == WIDTH and config.emits(kept) == list(range(depth))
    decoder = CrossAttention(config, kept, None, sites)
    for parameter in decoder.parameters():
        nn.init.normal_(parameter, std=0.3)
    return decoder


def theirs(block, x, read):
    """The same block by torch's multi-head attention."""
    attention = nn.MultiheadAttention(WIDTH, 4, kdim=MEMORY, vdim=MEMORY, batch_first=True)
    key, value = block.cross.kv.weight.chunk(2)
    key_bias, value_bias = block.cross.kv.bias.chunk(2)
    state = {
        "q_proj_weight": block.cross.q.weight,
        "k_proj_weight": key,
        "v_proj_weight": value,
        "in_proj_bias": torch.cat([block.cross.q.bias, key_bias, value_bias]),
        "out_proj.weight": block.cross.out.weight,
        "out_proj.bias": block.cross.out.bias,
    }
    attention.load_state_dict(state)
    x = x + attention(block.cross_norm(x), read, read, need_weights=False)[0]
    hidden = nn.functional.gelu(block.mlp.up(block.mlp_norm(x)))
    return x + block.mlp.down(hidden)


@pytest.mark.parametrize("depth", [0, 3])
def test_equal_to_torch_and_a_sum_written_out(depth):
    decoder, given = make(depth), memory(depth)
    lost = torch.tensor([[5, 7], [4, 11], [9, 10]])
    x = decoder.token + sincos(lattice().coords[0][lost], WIDTH)
    for j, block in enumerate(decoder.blocks):
        read = given.x
        if depth:
            read = sum(decoder.mix.weight[j, i] * given.layers[i] for i in range(depth))
            read = decoder.mix_norms[j](read)
        x = theirs(block, x, read)
    found = decoder(given, None, plan(lost))
    torch.testing.assert_close(found.x, decoder.norm(x), atol=1e-5, rtol=1e-5)
    assert found.prefix == 0 and found.layers is None


def test_a_prediction_does_not_depend_on_what_else_is_predicted():
    decoder, given = make(), memory()
    many = decoder(given, None, plan(torch.arange(4, 12).expand(ROWS, -1))).x
    few = decoder(given, None, plan(torch.tensor([[5, 9]]).expand(ROWS, -1))).x
    torch.testing.assert_close(few, many[:, [1, 5]])


def test_every_parameter_gets_a_gradient():
    decoder = make(3)
    decoder(memory(3), None, plan(torch.tensor([[5, 7]]).expand(ROWS, -1))).x.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in decoder.parameters())


def test_what_does_not_fit_is_named():
    sites = Spec(kind="vectors", width=MEMORY, length=N, coords=2)
    with pytest.raises(Mismatch, match="its memory has all sites"):
        CrossAttentionConfig(width=16, heads=4).spec(sites, None, sites)
    kept = Spec(kind="vectors", width=8, rows="kept")
    with pytest.raises(Mismatch, match="layers of width 8, it is given no layers"):
        CrossAttentionConfig(width=16, heads=4, mix=True).spec(kept, None, sites)
    with pytest.raises(Mismatch, match=r"given layers of widths \[4, 8\]"):
        mixed = replace(kept, layers=(Layer(4), Layer(8)))
        CrossAttentionConfig(width=16, heads=4, mix=True).spec(mixed, None, sites)
