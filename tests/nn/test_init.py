"""How weights start."""

from __future__ import annotations

import pytest
import torch

from encdec_train.decoders.seq2seq import Seq2Seq, Seq2SeqConfig
from encdec_train.encoders.transformer import Transformer, TransformerConfig
from encdec_train.nn.mlp import Activation
from encdec_train.nn.norm import Norm
from encdec_train.types import Spec


def test_fan_in_is_the_start_of_t5() -> None:
    """Deviations of every weight as in transformers' T5, whose own models are sampled too."""
    transformers = pytest.importorskip("transformers")
    from encdec_train.export.hf.t5 import pairs

    torch.manual_seed(0)
    theirs = transformers.T5ForConditionalGeneration(
        transformers.T5Config(vocab_size=64, d_model=128, d_kv=32, d_ff=384, num_layers=1, num_heads=4)
    ).state_dict()
    words = {
        "width": 128, "depth": 1, "heads": 4, "hidden": 384, "norm": Norm.rms, "activation": Activation.relu,
        "bias": False, "scale": False, "relative": True, "fan_in": True,
    }  # fmt: skip
    vectors = Spec(kind="vectors", width=128)
    encoder = Transformer(TransformerConfig(**words), vectors)
    decoder = Seq2Seq(Seq2SeqConfig(**words), vectors, vectors, vectors)
    ours = {f"encoder.main.{name}": value for name, value in encoder.state_dict().items()}
    ours |= {f"decoder.main.{name}": value for name, value in decoder.state_dict().items()}
    for name, others in pairs(1, 1, gated=False, tied=True).items():
        if name in ours:
            for mine, other in zip(ours[name].chunk(len(others)), others, strict=True):
                expected = theirs[other].std(correction=0).item()
                tolerance = 0.05 if mine.numel() > 1000 else 0.35
                assert mine.std(correction=0).item() == pytest.approx(expected, rel=tolerance), name
