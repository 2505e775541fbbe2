"""Self-attention relations: how alike the queries of a row are, and so its keys and its values.

Wang et al. 2021, "MiniLMv2" (arXiv:2012.15828), section 3.1. Split into heads anew, the relations of two encoders
compare, whatever their widths and numbers of attention heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from encdec_train.nn.attention import allow
from encdec_train.types import Mismatch, Sites, Spec


def relations(qkv: Tensor, heads: int, sites: Sites, length: int) -> Tensor:
    """(B,N,3*heads*length): log probabilities, one distribution over the sites of the row for each relation.

    Args:
        qkv: (B,3,N,inner).
        heads: A, that `inner` is split into.
        sites: of the N; what a site may not read has no probability.
        length: room of each distribution, at least N.
    """
    states = qkv.float().unflatten(-1, (heads, -1)).transpose(2, 3)  # (B,3,A,N,d)
    scores = states @ states.mT / states.shape[-1] ** 0.5  # (B,3,A,N,N)
    lowest = torch.finfo(scores.dtype).min
    allowed = allow(None, sites, sites, own=True)
    if allowed is not None:
        scores = scores.masked_fill(~allowed[:, None, None], lowest)
    scores = F.pad(scores, (0, length - scores.shape[-1]), value=lowest)
    return scores.log_softmax(-1).permute(0, 3, 1, 2, 4).flatten(2)


def relation_width(name: str, spec: Spec, layer: int, heads: int) -> int:
    """Values of a site's relations.

    Raises:
        Mismatch: the encoder hands out nothing that could be related, or rows have no length.
    """
    if not -len(spec.layers) <= layer < len(spec.layers):
        raise Mismatch(f"{name}.layer: {layer}, the encoder has {len(spec.layers)} layers to hand out")
    inner = spec.layers[layer].inner
    if not inner:
        raise Mismatch(f"{name} relates queries, keys and values, the encoder hands out none")
    if heads < 1 or inner % heads:
        raise Mismatch(f"{name}.split: queries of width {inner} do not divide into {heads}")
    if spec.rows != "all" or spec.prefix or not spec.length:
        raise Mismatch(f"{name} relates all sites of rows of one length, without a prefix")
    return 3 * heads * spec.length
