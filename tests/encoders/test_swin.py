import math

import pytest
import torch

from encdec_train.build import check, make_transform
from encdec_train.encoders.swin import Swin, SwinConfig, WindowAttention, unwindows, windows
from encdec_train.launch import compose
from encdec_train.train.run import train
from encdec_train.types import Attend, Mismatch, Sites, Spec, Tokens
from tests.runs import small

TINY = {"channels": 8, "layers": [2, 2], "heads": [2, 4], "window": 3}


def vectors(grid, width=8, **changes):
    return Spec(kind="vectors", width=width, length=grid[0] * grid[1], grid=grid, coords=2, **changes)


def tokens(grid, width=8, rows=2):
    n = grid[0] * grid[1]
    key = torch.tensor([5, 9])[:rows, None].expand(rows, n)
    sites = Sites(sample=key, place=torch.arange(n).expand(rows, n), grid=grid)
    return Tokens(x=torch.randn(rows, n, width), sites=sites)


def test_swin_tiny_has_the_published_size():
    """28,288,354 with a classifier of 768 x 1000 + 1000 (torchvision's and timm's count) and 4,704 in the patches."""
    with torch.device("meta"):
        model = Swin(SwinConfig(), vectors((56, 56), 96))
    assert sum(p.numel() for p in model.parameters()) == 28_288_354 - 769_000 - 4_704
    assert model.width == SwinConfig().width == 768


@pytest.mark.parametrize("grid", [(12, 12), (9, 14), (7, 4), (2, 2)])
@pytest.mark.parametrize("width", [8, 1])
def test_what_comes_out_is_what_the_spec_says(grid, width):
    config = SwinConfig(**TINY, emit=[0, 1])
    model, given = Swin(config, vectors(grid, width)), tokens(grid, width)
    spec, found = config.spec(vectors(grid, width)), model(given)
    assert found.x.shape == (2, spec.length, spec.width)
    assert found.sites.grid == spec.grid and math.prod(spec.grid) == spec.length
    assert spec.rows == "coarse"
    assert found.sites.sample[:, 0].tolist() == [5, 9]
    for i, layer in enumerate(spec.layers):
        assert found.layers[i].shape == (2, math.prod(layer.grid), layer.width)
    found.x.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_windows_are_tiles_and_come_back():
    x = torch.arange(2 * 6 * 9).view(2, 6, 9, 1)
    tiles = windows(x, 3)
    assert tiles.shape == (2, 6, 9, 1)
    assert torch.equal(tiles[0, 1, :, 0].view(3, 3), x[0, :3, 3:6, 0])
    assert torch.equal(unwindows(tiles, 3, (6, 9)), x)


def test_a_site_reads_its_own_window_only():
    """A change reaches the window that it is in: the plain one, or the shifted one, never around the edge."""
    x = torch.randn(1, 6, 6, 8)
    changed = x.clone()
    changed[0, 0, 0] += 1
    for shift, reached in ((0, 3), (1, 1)):  # shifted by one, the first row and column are alone in their windows
        layer = WindowAttention(8, 2, 3, shift)
        touched = ((layer(changed) - layer(x)) != 0).any(-1)[0]
        expected = torch.zeros(6, 6, dtype=torch.bool)
        expected[:reached, :reached] = True
        assert torch.equal(touched, expected)


def test_rows_that_skip_half_a_block_keep_what_came_in():
    config = SwinConfig(**{**TINY, "layers": [2], "heads": [2]}, drop_path=0.5)
    model = Swin(config, vectors((6, 6)))
    first, last = model.stages[0]
    assert (first.drop, last.drop) == (0.0, 0.5)
    y = last.train().maybe(torch.ones(400, 2, 2, 1))[:, 0, 0, 0]
    assert set(y.tolist()) == {0.0, 2.0} and 140 < (y == 0).sum() < 260
    assert torch.equal(last.eval().maybe(y), y)


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
        SwinConfig().spec(upstream)


@pytest.mark.parametrize(
    "changes",
    [{"layers": []}, {"heads": [2]}, {"heads": [2, 5]}, {"channels": 0}, {"window": 0}, {"drop_path": 1.0}],
)
def test_values_out_of_range_are_refused(changes):
    with pytest.raises(Mismatch, match=next(iter(changes))):
        SwinConfig(**{**TINY, **changes}).spec(vectors((8, 8)))


def test_dropped_sites_and_attention_patterns_are_refused():
    model, given = Swin(SwinConfig(**TINY), vectors((8, 8))), tokens((8, 8))
    with pytest.raises(Mismatch, match="lattice"):
        model(Tokens(x=given.x[:, :9], sites=given.sites.take(torch.arange(9).expand(2, 9))))
    with pytest.raises(Mismatch, match="attention pattern"):
        model(given, Attend(causal=True))


@pytest.mark.parametrize("side", [48, 40])  # windows tile the lattices of 12 and 6, and do not tile those of 10 and 5
def test_swin_equals_transformers(side):
    """An independent implementation (Hugging Face transformers) with the same random weights."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    settings = transformers.SwinConfig(
        image_size=side, patch_size=4, embed_dim=8, depths=[2, 2], num_heads=[2, 4], window_size=3
    )
    theirs = transformers.SwinModel(settings).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    grid = (side // 4, side // 4)
    ours = Swin(SwinConfig(**TINY, emit=[0]), vectors(grid)).eval()
    ours.load_state_dict(our_state(theirs.state_dict()))
    picture = torch.randn(2, 3, side, side)
    with torch.no_grad():
        patches = theirs.embeddings.patch_embeddings.projection(picture).flatten(2).transpose(1, 2)
        given = Tokens(x=patches, sites=tokens(grid).sites)
        found, expected = ours(given), theirs(picture)
    assert expected.last_hidden_state.abs().max() > 0.1
    torch.testing.assert_close(found.x, expected.last_hidden_state, atol=1e-5, rtol=1e-5)


def our_state(state):
    """The weights of transformers' SwinModel under our names."""
    names = {
        "layernorm_before": "attention_norm",
        "layernorm_after": "mlp_norm",
        "attention.o_proj": "attention.out",
        "mlp.fc1": "mlp.up",
        "mlp.fc2": "mlp.down",
    }
    found = {}
    for name, value in state.items():
        top, _, rest = name.partition(".")
        if top == "embeddings":
            if rest.startswith("norm"):
                found[name.replace("embeddings.norm", "input_norm")] = value
        elif top == "layernorm":
            found[f"norm.{rest}"] = value
        else:
            _, stage, part, rest = rest.split(".", 3)
            if part == "downsample":  # ours begins the next stage
                found[f"stages.{int(stage) + 1}.0.{rest.replace('reduction', 'project')}"] = value
                continue
            block, _, rest = rest.partition(".")
            where = f"stages.{stage}.{int(block) + (int(stage) > 0)}"
            if "q_proj" in rest:
                own = f"encoder.layers.{stage}.blocks.{block}.{rest}"
                parts = [state[own.replace("q_proj", f"{one}_proj")] for one in "qkv"]
                found[f"{where}.attention.qkv.{rest.rsplit('.', 1)[1]}"] = torch.cat(parts)
            elif rest.endswith("relative_position_bias_table"):
                found[f"{where}.attention.table"] = value
            elif not ("k_proj" in rest or "v_proj" in rest):
                for theirs, ours in names.items():
                    rest = rest.replace(theirs, ours)
                found[f"{where}.{rest}"] = value
    return found


def test_agreement_of_two_crops_of_digits(tmp_path):
    summary = train(small("simclr_resnet", tmp_path, "encoder=swin_tiny", "data=digits", steps=2))
    assert summary["loss"]["first"] != summary["loss"]["last"]


def test_patches_cannot_be_predicted_from_a_coarser_lattice():
    config = compose(["encoder=swin_tiny", "data=digits"])
    with pytest.raises(Mismatch, match="coarse sites come back, the target has others: a decoder is needed"):
        check(config, make_transform(config).specs())
