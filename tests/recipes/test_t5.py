"""The sentence `t5`, at the paper's size."""

from __future__ import annotations

import pytest
import torch

from encdec_train.build import check, count_parameters, dry_run, make_parts, make_transform
from encdec_train.export.hf.t5 import config_to_hf
from encdec_train.launch import compose


def test_paper_size_is_the_released_model() -> None:
    """As many parameters as transformers' T5-base, whose arguments follow from our words."""
    transformers = pytest.importorskip("transformers")
    config = compose(["+recipe=t5", "scale=paper"])
    transform = make_transform(config)
    wiring = check(config, transform.specs())
    with torch.device("meta"):
        counts = count_parameters(make_parts(config, wiring))
        arguments = config_to_hf(config.encoder["main"], config.decoder["main"], transform.vocabulary)
        theirs = transformers.T5ForConditionalGeneration(transformers.T5Config(**arguments))
    base = transformers.T5Config(d_model=768, d_ff=3072, num_layers=12, num_heads=12).to_dict()
    for name in set(arguments) - {"eos_token_id"}:
        assert arguments[name] == base.get(name, 0), name
    assert sum(counts.values()) == theirs.num_parameters() == 222_903_552 == config.paper.params


@pytest.mark.parametrize("scale", ["demo", "rung", "paper"])
def test_every_parameter_gets_a_gradient(scale: str) -> None:
    config = compose(["+recipe=t5", f"scale={scale}"])
    wiring = check(config, make_transform(config).specs())
    assert dry_run(config, wiring).unused == []
