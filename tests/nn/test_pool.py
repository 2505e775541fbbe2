"""One vector for each row: the first, the last real one, the mean of the real ones."""

import torch

from encdec_train.nn.pool import Pool, pool
from encdec_train.types import Sites, Tokens


def tokens(lengths, prefix=0, n=4):
    place = torch.arange(n).expand(len(lengths), n)
    valid = None if min(lengths) == n else place < torch.tensor(lengths)[:, None]
    return Tokens(
        x=torch.randn(len(lengths), prefix + n, 3), sites=Sites(sample=place, place=place, valid=valid), prefix=prefix
    )


def test_last_is_the_last_real_site():
    for prefix in (0, 1):
        found = tokens([4, 2, 1], prefix)
        expected = torch.stack([found.x[0, prefix + 3], found.x[1, prefix + 1], found.x[2, prefix]])
        torch.testing.assert_close(pool(found, Pool.last), expected)
    whole = tokens([4, 4])
    torch.testing.assert_close(pool(whole, Pool.last), whole.x[:, 3])


def test_mean_and_first():
    found = tokens([4, 2], prefix=1)
    torch.testing.assert_close(pool(found, Pool.cls), found.x[:, 0])
    torch.testing.assert_close(pool(found, Pool.mean)[1], found.x[1, 1:3].mean(0))
