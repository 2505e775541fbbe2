"""Learned queries: transformers' pooling head with the same weights, padding that nobody reads, specs."""

from types import SimpleNamespace

import pytest
import torch

from encdec_train.bottlenecks.pooled import PooledConfig
from encdec_train.bottlenecks.resampled import Resampled, ResampledConfig
from encdec_train.rng import Rng
from encdec_train.types import Mismatch, Sites, Spec, Tokens

SPEC = Spec(kind="vectors", width=16, length=5)


def tokens(valid=None):
    place = torch.arange(5).expand(3, -1)
    return Tokens(x=torch.randn(3, 5, 16), sites=Sites(sample=place, place=place, valid=valid))


def test_it_equals_the_head_of_siglip():
    siglip = pytest.importorskip("transformers.models.siglip.modeling_siglip")
    config = SimpleNamespace(
        hidden_size=16, num_attention_heads=4, intermediate_size=64, layer_norm_eps=1e-6, hidden_act="gelu_pytorch_tanh"
    )
    theirs = siglip.SiglipMultiheadAttentionPoolingHead(config).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    state = theirs.state_dict()
    weight, bias = (state[f"attention.in_proj_{kind}"].split([16, 32]) for kind in ("weight", "bias"))
    ours = Resampled(ResampledConfig(heads=4, mlp=True), SPEC)
    ours.load_state_dict(
        {
            "queries": state["probe"][0],
            **{f"attention.q.{k}": v[0] for k, v in (("weight", weight), ("bias", bias))},
            **{f"attention.kv.{k}": v[1] for k, v in (("weight", weight), ("bias", bias))},
            **{f"attention.out.{k}": state[f"attention.out_proj.{k}"] for k in ("weight", "bias")},
            **{f"norm.{k}": state[f"layernorm.{k}"] for k in ("weight", "bias")},
            **{f"mlp.up.{k}": state[f"mlp.fc1.{k}"] for k in ("weight", "bias")},
            **{f"mlp.down.{k}": state[f"mlp.fc2.{k}"] for k in ("weight", "bias")},
        }
    )
    given = tokens()
    torch.testing.assert_close(ours(given, Rng(0)).x[:, 0], theirs(given.x), rtol=1e-5, atol=1e-5)


def test_padding_is_not_read_and_several_queries_come_out():
    part = Resampled(ResampledConfig(heads=2, queries=3), SPEC)
    given = tokens(torch.arange(5) < torch.tensor([5, 2, 3])[:, None])
    found = part(given, Rng(0))
    assert found.x.shape == (3, 3, 16) and found.sites.n == 3 and found.prefix == 0
    changed = torch.where(given.sites.valid[..., None], given.x, 7.0)
    torch.testing.assert_close(part(Tokens(x=changed, sites=given.sites), Rng(0)).x, found.x)


def test_specs():
    assert ResampledConfig(heads=4).spec(SPEC).rows == "one"
    assert ResampledConfig(heads=4, queries=3).spec(SPEC).length == 3
    for config in (ResampledConfig(heads=3), ResampledConfig(heads=4, queries=0)):
        with pytest.raises(Mismatch, match="resampled"):
            config.spec(SPEC)


def test_packed_documents_are_not_mixed():
    for config in (ResampledConfig(heads=2), PooledConfig()):
        with pytest.raises(Mismatch, match="packs several documents"):
            config.spec(Spec(kind="vectors", width=8, length=16, docs=True))
