from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from encdec_train.heads.prototypes import Prototypes, PrototypesConfig
from encdec_train.types import Mismatch, Spec

UPSTREAM = Spec(kind="vectors", width=6)


def test_unit_prototypes_give_cosines() -> None:
    head, x = Prototypes(PrototypesConfig(count=5), UPSTREAM, None, None), torch.randn(4, 6)
    expected = F.cosine_similarity(x[:, None], head.directions[None], dim=-1)
    torch.testing.assert_close(head(x), expected)
    assert [name for name, _ in head.named_parameters()] == ["directions"]


def test_it_is_torchs_weight_norm() -> None:
    head, x = Prototypes(PrototypesConfig(count=5, unit=False), UPSTREAM, None, None), torch.randn(4, 6)
    assert head.lengths is not None
    nn.init.uniform_(head.lengths, 0.5, 2)
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(6, 5, bias=False))
    with torch.no_grad():
        layer.parametrizations.weight.original0.copy_(head.lengths)
        layer.parametrizations.weight.original1.copy_(head.directions)
    torch.testing.assert_close(head(x), layer(F.normalize(x, dim=-1)))


def test_spec() -> None:
    assert PrototypesConfig(count=5).spec(UPSTREAM, None).width == 5
    with pytest.raises(Mismatch, match="count: 1"):
        PrototypesConfig(count=1).spec(UPSTREAM, None)
