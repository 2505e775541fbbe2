import pytest
import torch
import torch.nn.functional as F

from encdec_train.heads.projector import BatchNorm, Projector, ProjectorConfig
from encdec_train.types import Mismatch, Spec

UPSTREAM = Spec(kind="vectors", width=6, rows="coarse")


def build(**changes):
    torch.manual_seed(0)
    return Projector(ProjectorConfig(**changes), UPSTREAM, None, None)


def test_simclr_with_norms_is_the_closed_form():
    head, x = build(width=3, final_norm=BatchNorm.scale), torch.randn(8, 6)

    def normalize(y):
        return (y - y.mean(0)) / (y.var(0, unbiased=False) + 1e-5).sqrt()

    with torch.no_grad():
        head.norms[0].weight.uniform_(0.5, 2)
        head.norms[0].bias.normal_()
        head.norms[1].weight.uniform_(0.5, 2)
        first, second = (layer.weight for layer in head.linears)
        hidden = F.relu(normalize(x @ first.T) * head.norms[0].weight + head.norms[0].bias)
        expected = normalize(hidden @ second.T) * head.norms[1].weight
        torch.testing.assert_close(head(x), expected)


def test_without_norms_it_is_a_perceptron_with_biases():
    head, x = build(layers=3, hidden=5, width=2, hidden_norm=BatchNorm.none), torch.randn(4, 6)
    reference = torch.nn.Sequential(head.linears[0], torch.nn.ReLU(), head.linears[1], torch.nn.ReLU(), head.linears[2])
    assert [layer.bias is not None for layer in head.linears] == [True] * 3
    torch.testing.assert_close(head(x), reference(x))


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (BatchNorm.none, {"linears.0.weight", "linears.0.bias"}),
        (BatchNorm.full, {"linears.0.weight", "norms.0.weight", "norms.0.bias"}),
        (BatchNorm.scale, {"linears.0.weight", "norms.0.weight"}),
        (BatchNorm.plain, {"linears.0.weight"}),
    ],
)
def test_what_the_last_norm_learns(kind, names):
    head = build(layers=1, final_norm=kind)
    head(torch.randn(4, 6)).square().sum().backward()
    assert {name for name, p in head.named_parameters() if p.grad is not None} == names


def test_scale_only_survives_the_conversion_to_synchronised_norms():
    head = torch.nn.SyncBatchNorm.convert_sync_batchnorm(build(final_norm=BatchNorm.scale))
    assert isinstance(head.norms[1], torch.nn.SyncBatchNorm)
    assert head.norms[1].bias is None


def test_resnet50s_projector_of_simclr():
    with torch.device("meta"):
        head = Projector(ProjectorConfig(final_norm=BatchNorm.scale), Spec(kind="vectors", width=2048), None, None)
    assert sum(p.numel() for p in head.parameters()) == 2048**2 + 2 * 2048 + 2048 * 128 + 128


def test_spec_and_refusals():
    assert ProjectorConfig(width=7).spec(UPSTREAM, None).width == 7
    with pytest.raises(Mismatch, match=r"layers: 0"):
        ProjectorConfig(layers=0).spec(UPSTREAM, None)
