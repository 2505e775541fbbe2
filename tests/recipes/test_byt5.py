"""The sentence `byt5`, at the paper's size."""

from __future__ import annotations

import pytest
import torch

from encdec_train.build import check, count_parameters, make_parts, make_transform
from encdec_train.corruptions.span_corruption import SpanCorruptionConfig
from encdec_train.export.hf.t5 import config_to_hf
from encdec_train.launch import compose


def test_paper_size_is_the_released_model() -> None:
    """The released model's config.json, and as many parameters; transformers ties the head when it counts."""
    transformers = pytest.importorskip("transformers")
    config = compose(["+recipe=byt5", "scale=paper"])
    transform = make_transform(config)
    wiring = check(config, transform.specs())
    released = {
        "d_model": 1536,
        "d_ff": 3968,
        "d_kv": 64,
        "num_layers": 18,
        "num_decoder_layers": 6,
        "num_heads": 12,
        "feed_forward_proj": "gated-gelu",
        "vocab_size": 384,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "decoder_start_token_id": 0,
        "relative_attention_num_buckets": 32,
    }
    arguments = config_to_hf(config.encoder["main"], config.decoder["main"], transform.vocabulary)
    assert {name: arguments[name] for name in released} == released
    with torch.device("meta"):
        counts = count_parameters(make_parts(config, wiring))
        theirs = transformers.T5ForConditionalGeneration(transformers.T5Config(**arguments))
    assert counts["head.main"] == 384 * 1536
    names = {name for name, _ in theirs.named_parameters()}
    untied = counts["head.main"] if "lm_head.weight" not in names else 0
    assert sum(counts.values()) == theirs.num_parameters() + untied == 581_653_248


def test_rows_become_the_paper_sources() -> None:
    config = compose(["+recipe=byt5", "scale=paper"])
    spans = config.corruption["main"]
    assert isinstance(spans, SpanCorruptionConfig)
    assert (spans.source(config.transform.length), spans.target(config.transform.length)) == (1024, 189)
