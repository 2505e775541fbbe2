"""The FLOPs that MFU is reckoned with, against the formula written out: two for a multiplication with its addition.

Of a linear layer from a to b values over n sites 2nab, of attention between n and m sites of width d 4nmd; the gradient
costs as much again for the weights and once more for what was read, which the first layer does not need.
"""

from __future__ import annotations

import torch

from encdec_train.build import check, dry_run, make_parts, make_transform, meta_batch
from encdec_train.launch import compose
from encdec_train.rng import Rng
from encdec_train.step import Step

ROWS = 2


def counted(recipe):
    """Of a row: the dry run's count; the configuration, the views, and a step whose plans have the real shapes."""
    config = compose([f"+recipe={recipe}"])
    wiring = check(config, make_transform(config).specs())
    with torch.device("meta"):
        parts = make_parts(config, wiring)
        step = Step(meta_batch(wiring.views, {}, ROWS), parts, Rng(0, 0))
    return dry_run(config, wiring, rows=ROWS).flops / ROWS, config, wiring, step


def block(d, queries, keys):
    """One block of width d that reads `keys` sites and gives `queries` of them, with a hidden layer of 4d."""
    return 2 * d * d * (2 * queries + 2 * keys) + 4 * queries * keys * d + 2 * 8 * d * d * queries


def cross(d, queries, keys):
    return 2 * d * d * (2 * queries + 2 * keys) + 4 * queries * keys * d


def test_a_masked_vision_transformer():
    """Only kept patches are encoded; the decoder's one block reads all and gives those that are predicted."""
    found, config, wiring, step = counted("mae_vit")
    view, encoder, decoder = wiring.views["image"], config.encoder["main"], config.decoder["main"]
    patch, patches, kept = view.width, view.length, step.plan(wiring.paths["main"]).keep.shape[1]
    hidden = patches - kept
    assert (kept, decoder.depth) == (4, 1)
    embed = 2 * kept * patch * encoder.width
    forward = embed + encoder.depth * block(encoder.width, kept + 1, kept + 1)
    forward += 2 * (kept + 1) * encoder.width * decoder.width  # into the decoder, with the class token
    forward += block(decoder.width, hidden, patches + 1)
    forward += 2 * hidden * decoder.width * patch
    assert found == 3 * forward - embed


def test_an_encoder_of_words():
    """The head scores the predicted places alone."""
    found, config, wiring, step = counted("bert")
    plan, encoder = step.plan(wiring.paths["main"]), config.encoder["main"]
    n, words, predicted = plan.sites.n, wiring.views["text"].width, len(plan.where) / ROWS
    forward = encoder.depth * block(encoder.width, n, n)
    forward += predicted * (2 * encoder.width**2 + 2 * encoder.width * words)
    assert found == 3 * forward


def test_an_encoder_with_a_decoder():
    found, config, wiring, step = counted("t5")
    n, m = step.plan(wiring.paths["main"]).sites.n, step.plan(wiring.paths["reply"]).sites.n
    encoder, decoder, words = config.encoder["main"], config.decoder["main"], wiring.views["text"].width
    forward = encoder.depth * block(encoder.width, n, n)
    forward += decoder.depth * (block(decoder.width, m, m) + cross(decoder.width, m, n))
    forward += 2 * m * decoder.width * words
    assert found == 3 * forward
