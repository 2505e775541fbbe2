"""The transformer encoder: ViT, BERT, T5's encoder and wav2vec 2.0's context network, by its words.

Vaswani et al. 2017 (post-norm), Dosovitskiy et al. 2021 (ViT), Raffel et al. 2020 (relative bias, RMS norm).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encdec_train.nn.adaptive import AdaptiveBlock, AdaptiveNorm, TimeEmbedding, init_adaptive
from encdec_train.nn.cache import Cache
from encdec_train.nn.norm import Norm
from encdec_train.nn.transformer import Block, BlockConfig, init_blocks, make_bias, stack_norm
from encdec_train.registry import encoders
from encdec_train.types import Attend, Layer, Mismatch, Spec, Tokens


@dataclass(kw_only=True)
class TransformerConfig(BlockConfig):
    adaptive: bool = False  # norms and gates follow the noise level of a row (Peebles and Xie 2023)
    causal: bool = False  # a site reads only itself and those before it, whatever the plan says
    init: str | None = None  # begin with these weights, the embedder too: a folder, a run or a name on the hub
    prefix: int = 0  # class and register tokens put before the sites
    input_norm: bool = False  # a norm of all that comes in, the prefix too (CLIP)
    init_std: float | None = None  # of linear weights; none: Xavier uniform, or by fan-in
    final_dropout: float = 0.0  # after the last norm (T5)
    layer_drop: float = 0.0  # chance that a block is skipped (Fan et al. 2020, "LayerDrop")
    emit: list[int] = field(default_factory=list)  # blocks whose output is kept in `Tokens.layers`
    emit_qkv: list[int] = field(default_factory=list)  # blocks whose queries, keys and values are kept in `Tokens.qkv`

    def spec(self, upstream: Spec) -> Spec:
        self.check("encoder 'transformer'")
        if upstream.kind != "vectors":
            raise Mismatch(f"encoder 'transformer' needs vectors, it is given {upstream.kind}")
        if not 0 <= self.layer_drop < 1:
            raise Mismatch(f"encoder 'transformer'.layer_drop: {self.layer_drop} is not in [0, 1)")
        if self.adaptive and not (self.norm_first and self.final_norm and self.norm is Norm.layer):
            raise Mismatch("encoder 'transformer'.adaptive: norms that adapt are layer norms before each sublayer")
        if self.adaptive and (self.dropout or self.fan_in or self.shrink or self.layer_scale is not None):
            raise Mismatch(
                "encoder 'transformer'.adaptive: blocks that adapt know neither dropout, fan_in, shrink nor layer_scale"
            )
        if self.slopes and self.prefix + upstream.prefix:
            raise Mismatch("encoder 'transformer'.slopes: prefix tokens stand nowhere, so they are at no distance")
        if self.lattice and (upstream.grid is None or len(upstream.grid) != 2):
            given = "no lattice" if upstream.grid is None else f"a lattice of {len(upstream.grid)} dimensions"
            raise Mismatch(f"encoder 'transformer'.lattice needs a full one of two dimensions, it is given {given}")
        inner = 0 if self.adaptive else self.heads * (self.head_width or self.width // self.heads)
        layers = (Layer(self.width, inner=inner),) * self.depth
        return replace(upstream, width=self.width, prefix=upstream.prefix + self.prefix, edges=False, layers=layers)


@encoders.register("transformer", TransformerConfig)
class Transformer(nn.Module):
    """A stack of blocks. `width` is D."""

    def __init__(self, config: TransformerConfig, upstream: Spec) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        same = upstream.width == config.width
        self.project = nn.Identity() if same else nn.Linear(upstream.width, config.width)
        self.tokens = nn.Parameter(torch.empty(config.prefix, config.width)) if config.prefix else None
        self.input_norm = stack_norm(config) if config.input_norm else nn.Identity()
        self.time = TimeEmbedding(config.width) if config.adaptive else None
        self.blocks = nn.ModuleList(
            (AdaptiveBlock if config.adaptive else Block)(config, index=i) for i in range(config.depth)
        )
        self.norm = stack_norm(config) if config.final_norm else nn.Identity()
        if config.adaptive:
            self.norm = AdaptiveNorm(config.width, config.eps)
        before = upstream.prefix + config.prefix
        self.bias = make_bias(config, bidirectional=True, grid=upstream.grid, prefix=before)
        init_blocks(self, config, config.init_std)
        init_adaptive(self)
        if self.tokens is not None:
            nn.init.normal_(self.tokens, std=0.02)

    def maybe(self, x: Tensor, y: Tensor) -> Tensor:
        """The block's output, or its input; chosen without reading the draw, every block in the graph."""
        if not (self.training and self.config.layer_drop):
            return y
        skip = torch.rand((), device=x.device) < self.config.layer_drop
        return torch.where(skip, x, y)

    @property
    def keeps(self) -> bool:
        """Whether it can go on with a row by a cache: prefix tokens would come again, adaptive blocks keep nothing."""
        return self.tokens is None and self.time is None

    def forward(self, tokens: Tokens, attend: Attend | None = None, cache: Cache | None = None) -> Tokens:
        x, prefix = self.project(tokens.x), tokens.prefix + self.config.prefix
        if self.config.causal:
            attend = Attend(causal=True) if attend is None else replace(attend, causal=True)
        if self.tokens is not None:
            x = torch.cat([self.tokens.to(x.dtype).expand(x.shape[0], -1, -1), x], 1)
        x = self.input_norm(x)
        bias = None if self.bias is None else self.bias(tokens.sites, prefix)
        cond: dict[str, Any] = {} if self.time is None else {"cond": self.time(tokens)}
        going = {} if cache is None else {"cache": cache}
        layers: dict[int, Tensor] = {}
        qkv: dict[int, Tensor] = {}
        again = None if tokens.position is None else F.pad(tokens.position, (0, 0, prefix, 0))
        block: Any
        for i, block in enumerate(self.blocks):
            if i and again is not None:
                x = x + again
            if i in self.config.emit_qkv:
                qkv[i] = block.qkv(x)  # type: ignore[operator]
            y = block(x, tokens.sites, prefix=prefix, attend=attend, bias=bias, **cond, **going)
            x = self.maybe(x, y)
            if i in self.config.emit:
                layers[i] = x
        x = self.norm(x, **cond)
        if self.config.final_dropout:
            x = F.dropout(x, self.config.final_dropout, self.training)
        return replace(tokens, x=x, prefix=prefix, position=None, layers=layers or None, qkv=qkv or None)
