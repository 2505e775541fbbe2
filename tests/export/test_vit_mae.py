"""Same weights, same pictures, same mask: transformers' ViTMAE and ours agree to 1e-5."""

import pytest
import torch

from encdec_train.corruptions.drop import Drop, DropConfig
from encdec_train.decoders.mask_tokens import MaskTokens, MaskTokensConfig
from encdec_train.embedders.linear import Linear, LinearEmbedderConfig
from encdec_train.encoders.transformer import Transformer, TransformerConfig
from encdec_train.export.hf import vit_mae
from encdec_train.heads.linear import Linear as Head
from encdec_train.heads.linear import LinearHeadConfig
from encdec_train.losses.mse import Mse, MseConfig
from encdec_train.objectives.predict import Predict, PredictConfig
from encdec_train.registry import discover
from encdec_train.rng import Rng
from encdec_train.step import Parts, Step
from encdec_train.targets.values import Values, ValuesConfig
from encdec_train.types import Path, Sites, Spec, Units

transformers = pytest.importorskip("transformers")
SIDE, PATCH, RATIO = 4, 8, 0.75


def images_to_units(pixels):
    """(B,3,H,W) -> patches of rows, columns, channels."""
    rows = pixels.shape[0]
    values = pixels.unflatten(2, (SIDE, PATCH)).unflatten(4, (SIDE, PATCH))
    values = values.permute(0, 2, 4, 3, 5, 1).reshape(rows, SIDE * SIDE, -1)
    axes = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    coords = torch.stack(axes, -1).flatten(0, 1).float().expand(rows, -1, -1)
    place = torch.arange(SIDE * SIDE).expand(rows, -1)
    sample = torch.arange(rows)[:, None].expand(-1, SIDE * SIDE)
    return Units(values=values, sites=Sites(sample=sample, place=place, coords=coords, grid=(SIDE, SIDE)))


def ours():
    discover()
    view = Spec(kind="values", width=PATCH * PATCH * 3, length=SIDE * SIDE, coords=2, grid=(SIDE, SIDE))
    embedder = LinearEmbedderConfig(width=48)
    encoder = TransformerConfig(width=48, depth=3, heads=4, prefix=1, eps=1e-12)
    decoder = MaskTokensConfig(width=32, depth=2, heads=2, eps=1e-12)
    sites = embedder.spec(view)
    memory = encoder.spec(DropConfig(ratio=RATIO).spec(sites))
    return Parts(
        {
            "embedder": {"main": Linear(embedder, view, mask=False)},
            "corruption": {"main": Drop(DropConfig(ratio=RATIO), sites)},
            "encoder": {"main": Transformer(encoder, sites)},
            "decoder": {"main": MaskTokens(decoder, memory, None, sites)},
            "head": {"main": Head(LinearHeadConfig(), decoder.spec(memory, None, sites), view, None)},
            "target": {"main": Values(ValuesConfig(normalize=True), sites)},
            "loss": {"main": Mse(MseConfig(), view)},
            "objective": {"main": Predict(PredictConfig(), "main", {"main": Path(view="image", corruption="main")})},
        }
    )


def theirs():
    config = transformers.ViTMAEConfig(
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=192,
        image_size=SIDE * PATCH,
        patch_size=PATCH,
        mask_ratio=RATIO,
        norm_pix_loss=True,
        decoder_hidden_size=32,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=128,
    )
    torch.manual_seed(0)
    model = transformers.ViTMAEForPreTraining(config).eval()
    for part in (*model.modules(), *model.parameters()):
        part._is_hf_initialized = False  # a model made by its constructor leaves the positions at zero
    model.vit.embeddings.initialize_weights()
    model.decoder.initialize_weights(SIDE * SIDE)
    return model


def run_both(model, parts):
    pixels = torch.randn(3, 3, SIDE * PATCH, SIDE * PATCH)
    units = images_to_units(pixels)
    step = Step({"image": units}, parts, Rng(0, 0))
    path = Path(view="image", corruption="main")
    plan = step.plan(path)
    # their noise is sorted: the kept sites must come first, in our order
    noise = torch.arange(SIDE * SIDE).float().expand(3, -1) + 100.0 * plan.mask
    with torch.no_grad():
        found = model(pixel_values=pixels, noise=noise, output_hidden_states=True)
        term = parts.get("objective", "main")(step)["main"]
        hidden = model.vit(pixel_values=pixels, noise=noise).last_hidden_state
        tokens = step.encode(path)
    return found.loss, term.sum / term.count, hidden, tokens.x


def test_equal_with_their_weights():
    model, parts = theirs(), ours()
    parts.student.load_state_dict(vit_mae.from_hf(model.state_dict()))
    their_loss, our_loss, their_hidden, our_hidden = run_both(model, parts)
    torch.testing.assert_close(our_hidden, their_hidden, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(our_loss, their_loss, atol=1e-5, rtol=1e-5)


def test_there_and_back():
    model, parts = theirs(), ours()
    state = parts.student.state_dict()
    named = vit_mae.to_hf(state, grid=(SIDE, SIDE), patch=PATCH)
    model.load_state_dict(named)  # strict: every weight of theirs is there
    back = vit_mae.from_hf(named)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
    their_loss, our_loss, _, _ = run_both(model, parts)
    torch.testing.assert_close(our_loss, their_loss, atol=1e-5, rtol=1e-5)
