"""The reader is torch's attention with the same weights, and finds what a mean does not hold."""

import numpy as np
import torch
from torch import nn

from encdec_train.probes.attentive import Attentive, AttentiveConfig, Reader
from encdec_train.types import Sites, Tokens
from tests.probes.frozen import frozen


def test_reader_is_torchs_attention():
    torch.manual_seed(0)
    mean, deviation = torch.randn(8), torch.rand(8) + 0.5
    reader, x = Reader(8, 2, 3, mean, deviation), torch.randn(5, 6, 8)
    real = torch.arange(6) < torch.tensor([6, 3, 1, 5, 2])[:, None]
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        attention.in_proj_weight.copy_(torch.cat([torch.eye(8), reader.key_value.weight]))
        attention.in_proj_bias.copy_(torch.cat([torch.zeros(8), reader.key_value.bias]))
        attention.out_proj.weight.copy_(torch.eye(8))
        attention.out_proj.bias.zero_()
    query = reader.query.flatten()[None, None].expand(5, -1, -1)
    given = (x - mean) / deviation
    expected, _ = attention(query, given, given, key_padding_mask=~real)
    torch.testing.assert_close(reader(x, real), reader.classify(expected[:, 0]))


class Rows:
    """One token of each row is marked by its first number and tells the class; all others contradict it."""

    def __call__(self, split):
        rng = np.random.default_rng(len(split))
        for _ in range(4):
            count, n = 32, int(rng.integers(3, 7))
            y = rng.integers(0, 2, count)
            x = rng.standard_normal((count, n, 4)).astype(np.float32) * 0.1
            at = rng.integers(0, n, count)
            x[..., 1] = -(2 * y[:, None] - 1) / (n - 1)
            x[np.arange(count), at, 0] += 3
            x[np.arange(count), at, 1] = 2 * y - 1
            yield x, y


def eyes():
    def tokens(split):
        for x, _ in Rows()(split):
            key = torch.zeros(x.shape[:2], dtype=torch.int64)
            yield Tokens(x=torch.from_numpy(x), sites=Sites(sample=key, place=key)), {}

    def pooled(split):
        found = [(x.mean(1), y) for x, y in Rows()(split)]
        return tuple(np.concatenate(part) for part in zip(*found, strict=True))

    return frozen(pooled("train"), pooled("test"), tokens=tokens, device=torch.device("cpu"))


def test_what_the_mean_does_not_hold():
    before = torch.random.get_rng_state()
    found = Attentive(AttentiveConfig(heads=1, lr=3e-2, epochs=30, batch=32))(eyes())
    assert found.value > 0.95
    assert torch.equal(before, torch.random.get_rng_state())
    sums = np.concatenate([x[..., 1].sum(1) for x, _ in Rows()("test")])
    assert np.abs(sums).max() < 1.5  # what is told cancels out in the mean
