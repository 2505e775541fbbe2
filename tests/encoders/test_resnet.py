from dataclasses import replace

import pytest
import torch

from encdec_train.encoders.resnet import ResidualBlock, ResNet, ResNetConfig, Stem
from encdec_train.nn.lattice import cut
from encdec_train.types import Mismatch, Sites, Spec, Tokens

TINY = {"layers": [1, 1], "channels": 4, "block": ResidualBlock.basic, "stem": Stem.small}


def vectors(grid, width=3, **changes):
    return Spec(kind="vectors", width=width, length=grid[0] * grid[1], grid=grid, coords=2, **changes)


def tokens(grid, width=3, rows=2):
    n = grid[0] * grid[1]
    key = torch.tensor([5, 9])[:rows, None].expand(rows, n)
    sites = Sites(sample=key, place=torch.arange(n).expand(rows, n), grid=grid)
    return Tokens(x=torch.randn(rows, n, width), sites=sites)


def test_resnet50_has_the_parameters_of_torchvisions_without_its_classifier():
    with torch.device("meta"):
        model = ResNet(ResNetConfig(), vectors((224, 224)))
    assert sum(p.numel() for p in model.parameters()) == 25_557_032 - 2_049_000
    assert model.width == ResNetConfig().width == 2048


def test_resnet18_and_a_double_width():
    with torch.device("meta"):
        config = ResNetConfig(layers=[2, 2, 2, 2], block=ResidualBlock.basic)
        small = ResNet(config, vectors((224, 224)))
        wide = ResNet(ResNetConfig(multiplier=2), vectors((224, 224)))
    assert sum(p.numel() for p in small.parameters()) == 11_689_512 - 513_000  # torchvision's resnet18
    assert small.width == 512 and wide.width == 4096


@pytest.mark.parametrize("stem", list(Stem))
@pytest.mark.parametrize("grid", [(32, 32), (17, 24)])
def test_what_comes_out_is_what_the_spec_says(stem, grid):
    config = ResNetConfig(**{**TINY, "stem": stem})
    model, given = ResNet(config, vectors(grid)), tokens(grid)
    spec, found = config.spec(vectors(grid)), model(given)
    assert found.x.shape == (2, spec.length, spec.width)
    assert found.sites.grid == spec.grid
    assert spec.rows == "coarse"
    assert found.sites.sample[:, 0].tolist() == [5, 9]
    assert found.sites.place[1].tolist() == list(range(spec.length))


def test_sites_are_in_row_major_order():
    """A change in the upper right corner reaches only sites near that corner."""
    torch.manual_seed(0)
    model, given = ResNet(ResNetConfig(**TINY), vectors((16, 16))).eval(), tokens((16, 16))
    changed = given.x.clone()
    changed[:, 15] += 1
    difference = (model(Tokens(x=changed, sites=given.sites)).x - model(given).x).abs().sum(-1)
    reached = difference.unflatten(1, (8, 8)) > 0
    assert reached[:, 0, 7].any()
    assert not reached[:, 4:].any() and not reached[:, :, :4].any()


def test_zero_init_makes_blocks_without_projection_the_identity():
    config = ResNetConfig(**{**TINY, "layers": [2]})
    block = ResNet(config, vectors((8, 8))).stages[0][0]
    x = torch.rand(2, 4, 8, 8)
    assert torch.equal(block(x), x)
    config.zero_init = False
    assert not torch.equal(ResNet(config, vectors((8, 8))).stages[0][0](x), x)


def test_stages_that_are_asked_for_are_kept():
    model = ResNet(ResNetConfig(**TINY, emit=[0, 1]), vectors((8, 8)))
    found = model(tokens((8, 8)))
    assert found.layers[0].shape == (2, 64, 4)
    assert torch.equal(found.layers[1], found.x)


def test_every_parameter_gets_a_gradient():
    model = ResNet(ResNetConfig(**TINY), vectors((8, 8)))
    model(tokens((8, 8))).x.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    ("upstream", "named"),
    [
        (Spec(kind="ids", width=9), "vectors"),
        (Spec(kind="vectors", width=9, length=4), "lattice"),
        (Spec(kind="vectors", width=9, length=4, grid=(4,)), "1 dimensions"),
        (vectors((4, 4), prefix=1), "prefix"),
    ],
)
def test_what_it_cannot_read_is_refused(upstream, named):
    with pytest.raises(Mismatch, match=named):
        ResNetConfig().spec(upstream)


@pytest.mark.parametrize("changes", [{"layers": []}, {"layers": [1, 0]}, {"channels": 0}])
def test_values_out_of_range_are_refused(changes):
    with pytest.raises(Mismatch, match=next(iter(changes))):
        ResNetConfig(**changes).spec(vectors((8, 8)))


def test_dropped_sites_are_refused():
    given = tokens((8, 8))
    kept = Tokens(x=given.x[:, :9], sites=given.sites.take(torch.arange(9).expand(2, 9)))
    with pytest.raises(Mismatch, match="lattice"):
        ResNet(ResNetConfig(**TINY), vectors((8, 8)))(kept)


def holes(side, block, rows=3):
    """(rows,side*side) bool: half of the blocks are real."""
    count = (side // block) ** 2
    kept = torch.stack([torch.randperm(count) < count // 2 for _ in range(rows)])
    return kept.view(rows, side // block, -1).repeat_interleave(block, 1).repeat_interleave(block, 2).flatten(1)


def hollow_tokens(side, block):
    n, valid = side * side, holes(side, block)
    sites = Sites(sample=torch.zeros(3, n), place=torch.zeros(3, n), valid=valid, grid=(side, side))
    return Tokens(x=torch.randn(3, n, 3), sites=sites)


def sparse(model, given, block):
    """Every layer followed by its mask, and norms over gathered cells: torch's own layers, written out."""
    grid = given.sites.grid
    kept = given.sites.valid.view(3, *grid)[:, ::block, ::block]

    def real(x):
        times = x.shape[-1] // kept.shape[-1]
        return kept.repeat_interleave(times, 1).repeat_interleave(times, 2)

    def masked(x):
        return x * real(x)[:, None]

    def normed(norm, x):
        where, plain = real(x), torch.nn.BatchNorm1d(norm.num_features)
        plain.load_state_dict(norm.state_dict())
        plain.train(norm.training)
        out = torch.zeros_like(x).permute(0, 2, 3, 1).contiguous()
        out[where] = plain(x.permute(0, 2, 3, 1)[where])
        return out.permute(0, 3, 1, 2)

    def layer(convolve, norm, x):
        return normed(norm, masked(convolve(x)))

    x = masked(given.x.unflatten(1, grid).permute(0, 3, 1, 2))
    x = masked(model.pool(layer(model.stem, model.norm, x).relu()))
    for stage in model.stages:
        for block in stage:
            y = x
            for i, (convolve, norm) in enumerate(zip(block.convs, block.norms, strict=True)):
                y = layer(convolve, norm, y.relu() if i else y)
            x = (y + (x if block.shortcut is None else layer(*block.shortcut, x))).relu()
    return x.flatten(2).transpose(1, 2)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("block", list(ResidualBlock))
@pytest.mark.parametrize(("stem", "stride"), [(Stem.small, 2), (Stem.imagenet, 8)])
def test_holes_are_those_of_masked_layers_and_gathered_norms(training, block, stem, stride):
    torch.manual_seed(0)
    config = ResNetConfig(**{**TINY, "stem": stem, "block": block, "layers": [1, 2], "zero_init": False})
    model, given = ResNet(config, vectors((32, 32))).train(training), hollow_tokens(32, stride)
    wanted = sparse(model, given, stride)
    found = model(given)
    torch.testing.assert_close(found.x, wanted, atol=1e-5, rtol=1e-4)
    assert torch.equal(found.sites.valid, given.sites.valid.view(3, 32, 32)[:, ::stride, ::stride].flatten(1))
    assert (found.x[~found.sites.valid] == 0).all() and found.x.abs().sum() > 0


def test_what_stands_in_a_hole_is_never_read():
    torch.manual_seed(0)
    model, given = ResNet(ResNetConfig(**TINY, emit=[0, 1]), vectors((16, 16))), hollow_tokens(16, 2)
    other = torch.where(given.sites.valid[..., None], given.x, 100.0)
    one, two = model(given), model(replace(given, x=other))
    assert torch.equal(one.x, two.x) and torch.equal(one.layers[0], two.layers[0])
    dense = replace(given.sites, valid=None)
    assert not torch.allclose(model(replace(given, sites=dense)).x, model(replace(given, x=other, sites=dense)).x)


@pytest.mark.parametrize("training", [True, False])
def test_without_holes_it_is_the_dense_network(training):
    torch.manual_seed(0)
    model, given = ResNet(ResNetConfig(**TINY), vectors((16, 16))).train(training), hollow_tokens(16, 2)
    whole = replace(given.sites, valid=torch.ones_like(given.sites.valid))
    dense = replace(given.sites, valid=None)
    found, wanted = (model(replace(given, sites=sites)) for sites in (whole, dense))
    torch.testing.assert_close(found.x, wanted.x, atol=1e-5, rtol=1e-4)
    assert found.sites.valid.all() and wanted.sites.valid is None


def test_patches_are_laid_out_as_the_pixels_of_one_picture():
    torch.manual_seed(0)
    config = ResNetConfig(**TINY, patch=4)
    pixels, grid = torch.randn(2, 8, 12, 3), (2, 3)
    model = ResNet(config, vectors(grid, width=48)).eval()
    patched = model(Tokens(x=cut(pixels, (4, 4)), sites=tokens(grid).sites))
    plain = ResNet(ResNetConfig(**TINY), vectors((8, 12))).eval()
    plain.load_state_dict(model.state_dict())
    assert torch.equal(patched.x, plain(Tokens(x=pixels.flatten(1, 2), sites=tokens((8, 12)).sites)).x)
    assert patched.sites.grid == config.spec(vectors(grid, width=48)).grid == (4, 6)
    with pytest.raises(Mismatch, match="no 4 x 4 pixels"):
        config.spec(vectors(grid, width=50))


def test_resnet50_equals_transformers():
    """An independent implementation (Hugging Face transformers) with the same random weights."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    theirs = transformers.ResNetModel(transformers.ResNetConfig()).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.2, 0.6)  # deep sums stay in range
            torch.nn.init.normal_(module.bias, std=0.1)
    ours = ResNet(ResNetConfig(), vectors((64, 64))).eval()
    ours.load_state_dict({our_name(name): value for name, value in theirs.state_dict().items()})
    given = tokens((64, 64))
    with torch.no_grad():
        found = ours(given).x
        picture = given.x.unflatten(1, (64, 64)).permute(0, 3, 1, 2)
        expected = theirs(picture).last_hidden_state.flatten(2).transpose(1, 2)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def our_name(name):
    """transformers' name of a ResNet weight -> ours."""
    if name.startswith("embedder"):
        kind, rest = name.removeprefix("embedder.embedder.").split(".", 1)
        return f"{ {'convolution': 'stem', 'normalization': 'norm'}[kind] }.{rest}"
    _, _, stage, _, block, part, rest = name.split(".", 6)
    if part == "shortcut":
        kind, rest = rest.split(".", 1)
        return f"stages.{stage}.{block}.shortcut.{ {'convolution': 0, 'normalization': 1}[kind] }.{rest}"
    index, kind, rest = rest.split(".", 2)
    return f"stages.{stage}.{block}.{ {'convolution': 'convs', 'normalization': 'norms'}[kind] }.{index}.{rest}"
