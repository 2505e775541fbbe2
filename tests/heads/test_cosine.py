"""The cosine head against torch's cosine similarity."""

import pytest
import torch
import torch.nn.functional as F

from encdec_train.heads.cosine import Cosine, CosineConfig
from encdec_train.types import Mismatch, Spec

VECTORS, IDS = Spec(kind="vectors", width=8), Spec(kind="ids", width=5)


def test_scores_are_cosines_over_the_temperature():
    head = Cosine(CosineConfig(width=6, temperature=0.5), VECTORS, IDS, None)
    x = torch.randn(7, 8)
    expected = F.cosine_similarity(head.project(x)[:, None], head.classes[None], dim=-1) / 0.5
    torch.testing.assert_close(head(x), expected)


def test_what_does_not_fit_is_named():
    with pytest.raises(Mismatch, match="no target of ids"):
        CosineConfig().spec(VECTORS, None)
    with pytest.raises(Mismatch, match="temperature: 0 is not above 0"):
        CosineConfig(temperature=0).spec(VECTORS, IDS)
