"""Models of timm as encoders; skipped where timm does not import."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from encdec_train.encoders.timm import Timm, TimmConfig
from encdec_train.export.encoder import load
from encdec_train.train.run import train
from encdec_train.types import Attend, Mismatch, Sites, Spec, Tokens
from tests.runs import small

try:
    import timm
except Exception as error:  # also a torchvision that does not suit torch
    pytest.skip(f"timm does not import: {error}", allow_module_level=True)

MODELS = {  # name: (side, options, width, prefix, lattice)
    "vit_tiny_patch16_224": (32, {"img_size": 32, "patch_size": 8, "depth": 2}, 192, 1, (4, 4)),
    "resnet18": (64, {}, 512, 0, (2, 2)),
    "swin_tiny_patch4_window7_224": (64, {"img_size": 64, "depths": [1, 1, 1, 1]}, 768, 0, (2, 2)),
    "convnext_atto": (64, {}, 320, 0, (2, 2)),
    "mixer_s32_224": (64, {"img_size": 64}, 512, 0, (2, 2)),
}


def pixels(side, channels=1, **changes):
    view = Spec(kind="values", width=channels, length=side * side, grid=(side, side), coords=2)
    return replace(view, kind="vectors", features=channels, raw=view, **changes)


def whole_picture(side):
    place = torch.arange(side * side).expand(2, -1)
    sites = Sites(sample=torch.tensor([[3], [4]]).expand_as(place), place=place, grid=(side, side))
    return Tokens(x=torch.randn(2, side * side, 1), sites=sites)


@pytest.mark.parametrize("model", MODELS)
def test_models_give_what_timm_does(model):
    side, options, width, prefix, grid = MODELS[model]
    config, upstream, tokens = TimmConfig(model=model, options=options), pixels(side), whole_picture(side)
    spec = config.spec(upstream)
    with torch.device("meta"):
        assert all(parameter.is_meta for parameter in Timm(config, upstream).parameters())
    ours = Timm(config, upstream)
    theirs = timm.create_model(model, num_classes=0, in_chans=1, **options).eval()
    theirs.load_state_dict(ours.model.state_dict())
    ours(tokens).x.square().sum().backward()
    assert all(parameter.grad is not None for parameter in ours.parameters())
    theirs.load_state_dict(ours.model.state_dict())  # with the running statistics
    with torch.no_grad():
        found = ours.eval()(tokens)
        expected = theirs.forward_features(tokens.x.unflatten(1, (side, side)).permute(0, 3, 1, 2))
    if model.startswith("swin"):
        expected = expected.flatten(1, 2)
    elif expected.dim() == 4:
        expected = expected.flatten(2).transpose(1, 2)
    assert (spec.width, spec.prefix, spec.grid, spec.rows) == (width, prefix, grid, "coarse")
    assert (found.prefix, found.sites.grid, found.sites.n) == (prefix, grid, spec.length)
    torch.testing.assert_close(found.x, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("config", "upstream", "said"),
    [
        (TimmConfig(model="resnet_none"), pixels(32), "'resnet_none' cannot be made"),
        (TimmConfig(options={"bogus": 1}), pixels(32), "'resnet18' cannot be made .*bogus"),
        (TimmConfig(model="vit_tiny_patch16_224"), pixels(32), r"does not read pictures of \(1, 32, 32\)"),
        (TimmConfig(), pixels(32, grid=None), "no full lattice"),
        (TimmConfig(), replace(pixels(32), width=64), "embedder 'raw'"),
    ],
)
def test_what_cannot_be_made_or_read_is_one_sentence(config, upstream, said):
    with pytest.raises(Mismatch, match=said) as caught:
        config.spec(upstream)
    assert "\n" not in str(caught.value)


def test_an_attention_pattern_is_refused():
    with pytest.raises(Mismatch, match="attention pattern"):
        Timm(TimmConfig(), pixels(32))(whole_picture(32), Attend(causal=True))


def test_agreement_of_two_crops(tmp_path):
    summary = train(
        small("simclr_resnet", tmp_path, "encoder=timm", "encoder.model=convnext_atto", "data.size=32", steps=2)
    )
    assert summary["loss"]["first"] != summary["loss"]["last"]
    folder = tmp_path / "simclr_resnet" / "run" / "encoder"
    part, saved = load(folder).parts.get("encoder", "main"), load_file(folder / "model.safetensors")
    assert all(torch.equal(value, saved[f"encoder.{name}"]) for name, value in part.state_dict().items())
