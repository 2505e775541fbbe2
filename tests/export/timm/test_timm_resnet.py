import pytest
import torch

from encdec_train.encoders.resnet import ResidualBlock, ResNet, ResNetConfig
from encdec_train.export.timm.resnet import from_timm, to_timm
from encdec_train.types import Sites, Spec, Tokens


def encoder(config, side=64):
    return ResNet(config, Spec(kind="vectors", width=3, length=side * side, grid=(side, side))).eval()


@pytest.mark.parametrize("block", list(ResidualBlock))
def test_names_go_there_and_back(block):
    with torch.device("meta"):
        state = encoder(ResNetConfig(layers=[2, 1], block=block)).state_dict()
    named = to_timm(state)
    assert {"conv1.weight", "bn1.running_var", "layer1.1.conv2.weight", "layer2.0.downsample.1.bias"} <= set(named)
    assert list(from_timm({**named, "fc.weight": None, "fc.bias": None})) == list(state)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("resnet50", ResNetConfig()),
        ("resnet18", ResNetConfig(layers=[2, 2, 2, 2], block=ResidualBlock.basic)),
    ],
)
def test_it_equals_timm_with_timms_weights(name, config):
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # a torchvision that does not fit this torch raises the latter
        pytest.skip(f"timm: {error}")
    torch.manual_seed(0)
    theirs = timm.create_model(name, pretrained=False).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.2, 0.6)
            torch.nn.init.normal_(module.bias, std=0.1)
    ours = encoder(config)
    ours.load_state_dict(from_timm(theirs.state_dict()))
    theirs.load_state_dict(to_timm(ours.state_dict()), strict=False)
    picture = torch.randn(2, 3, 64, 64)
    values = picture.flatten(2).transpose(1, 2)
    sites = Sites(sample=torch.zeros(2, 4096).long(), place=torch.arange(4096).expand(2, -1), grid=(64, 64))
    with torch.no_grad():
        found = ours(Tokens(x=values, sites=sites)).x
        expected = theirs.forward_features(picture).flatten(2).transpose(1, 2)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
