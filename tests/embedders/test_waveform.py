"""Frames, which of them are real, and what reaches the convolutions' weights."""

from dataclasses import replace

import pytest
import torch

from encdec_train.embedders.waveform import ConvNorm, Waveform, WaveformEmbedderConfig
from encdec_train.encoders.transformer import Transformer, TransformerConfig
from encdec_train.rng import Rng
from encdec_train.step import Parts, Step
from encdec_train.types import Mismatch, Path, Plan, Sites, Spec, Units

SMALL = WaveformEmbedderConfig(
    width=16,
    channels=[8, 12],
    kernels=[10, 4],
    strides=[5, 4],
    position_kernel=8,
    position_groups=4,
    dropout=0.0,
)
BASE = WaveformEmbedderConfig(width=768)


def view(length):
    return Spec(kind="values", width=1, length=length)


def make_units(lengths, n):
    place = torch.arange(n).expand(len(lengths), -1)
    valid = place < torch.tensor(lengths)[:, None]
    values = torch.randn(len(lengths), n, 1) * valid[..., None]
    sample = torch.arange(len(lengths))[:, None].expand(-1, n)
    return Units(values=values, sites=Sites(sample=sample, place=place, valid=valid))


@pytest.mark.parametrize("samples, frames", [(400, 1), (719, 1), (720, 2), (16000, 49), (250000, 781)])
def test_base_sees_400_samples_every_320(samples, frames):
    assert BASE.receptive() == 400
    assert BASE.frames(samples) == frames == BASE.spec(view(samples)).length


@pytest.mark.parametrize("samples", [25, 26, 44, 45, 46, 1609, 1610])
def test_frames_are_what_the_convolutions_make(samples):
    part = Waveform(SMALL, view(1610), mask=False)
    assert part.convolve(torch.randn(1, 1, samples)).shape[-1] == SMALL.frames(samples)


def test_the_arithmetic_of_two_layers():
    assert SMALL.receptive() == 10 + 3 * 5
    assert SMALL.frames(1605) == 80 and SMALL.frames(1604) == 79  # 25 + 79 * 20


def test_a_frame_is_real_where_all_its_samples_are():
    part = Waveform(SMALL, view(1610), mask=False)
    units = make_units([1610, 1604, 45, 44, 25, 3], 1610)
    sites = part.sites(units)
    assert sites.real().sum(1).tolist() == [80, 79, 2, 1, 1, 1]
    assert torch.equal(sites.sample[:, 0], units.sites.sample[:, 0])


def test_features_are_normalised_and_share_the_spec():
    part = Waveform(SMALL, view(200), mask=True)
    units = make_units([200, 200], 200)
    sites = part.sites(units)
    features, own = part.features(units, sites, None)
    spec = SMALL.spec(view(200))
    assert features.shape == (2, spec.length, spec.features)
    torch.testing.assert_close(features.mean(-1), torch.zeros(2, spec.length), atol=1e-5, rtol=0)
    x = part.convolve(units.values.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(own["penalty"].mean, x.square().mean())
    assert own["penalty"].weight == 10.0


def test_the_gradient_to_the_convolutions_is_scaled():
    grads = []
    for scale in (1.0, 0.1):
        torch.manual_seed(0)
        part = Waveform(replace(SMALL, gradient=scale), view(200), mask=False)
        units = make_units([200], 200)
        features, own = part.features(units, part.sites(units), None)
        (features.square().sum() * features.sum() + own["penalty"].sum + part.project(features).sum()).backward()
        grads.append({name: p.grad for name, p in part.named_parameters() if p.grad is not None})
    for name, grad in grads[0].items():
        scaled = name.startswith(("convolutions", "group_norm"))
        torch.testing.assert_close(grads[1][name], grad * (0.1 if scaled else 1.0), atol=1e-5, rtol=1e-4)


def test_masked_frames_do_not_depend_on_their_content():
    part = Waveform(SMALL, view(200), mask=True).eval()
    units = make_units([200], 200)
    sites = part.sites(units)
    hide = torch.zeros(1, sites.n, dtype=torch.bool)
    hide[:, 2:5] = True
    features, _ = part.features(units, sites, None)
    other = torch.where(hide[..., None], torch.randn_like(features), features)
    plan = Plan(inputs=units, sites=sites, replace=hide)
    assert torch.equal(part.place(features, plan).x, part.place(other, plan).x)
    assert Waveform(SMALL, view(200), mask=False).mask is None


def test_padding_does_not_reach_real_frames_through_the_positions():
    part = Waveform(SMALL, view(400), mask=False).eval()
    units = make_units([200], 400)
    sites = part.sites(units)
    features, _ = part.features(units, sites, None)
    other = torch.where(sites.valid[..., None], features, torch.randn_like(features))
    plan = Plan(inputs=units, sites=sites)
    real = sites.valid
    assert torch.equal(part.place(features, plan).x[real], part.place(other, plan).x[real])


@pytest.mark.parametrize(
    "config, spec, text",
    [
        (SMALL, Spec(kind="ids", width=30), "samples of one channel"),
        (SMALL, view(24), "sees 25 samples, the view has 24"),
        (replace(SMALL, strides=[5]), view(200), "one entry for each layer"),
        (replace(SMALL, width=18), view(200), "position_groups"),
        (replace(SMALL, kernels=[10, 0]), view(200), "at least 1"),
    ],
)
def test_what_does_not_fit_is_named(config, spec, text):
    with pytest.raises(Mismatch, match=text):
        config.spec(spec)


def test_dropping_is_refused():
    part = Waveform(SMALL, view(200), mask=False)
    units = make_units([200], 200)
    with pytest.raises(ValueError, match="replaces"):
        part.features(units, part.sites(units), torch.zeros(1, 2, dtype=torch.int64))


def test_the_step_takes_the_penalty_once():
    """An embedder's own losses reach the step with its features, and only where gradients flow."""
    part = Waveform(SMALL, view(200), mask=False)
    parts, path = Parts({"embedder": {"main": part}}), Path(view="audio", encoder=None)
    step = Step({"audio": make_units([200, 120], 200)}, parts, Rng(0))
    with torch.no_grad():
        step.features(path)
    assert not step.aux
    assert torch.equal(step.features(path), step.features(path))
    assert step.aux.keys() == {"main.penalty"} and step.aux["main.penalty"].count == 9 + 5


def test_with_layer_norms_and_several_positions_it_is_data2vecs():
    """Embedder and encoder give what transformers' Data2VecAudioModel gives with the same weights."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = replace(SMALL, norm=ConvNorm.layer, position_layers=3, position_kernel=5)
    part = Waveform(config, view(400), mask=False).eval()
    block = TransformerConfig(width=16, depth=2, heads=2, norm_first=False, final_norm=False, eps=1e-5)
    encoder = Transformer(block, config.spec(view(400))).eval()
    theirs = transformers.Data2VecAudioModel(
        transformers.Data2VecAudioConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            conv_dim=config.channels,
            conv_kernel=config.kernels,
            conv_stride=config.strides,
            conv_pos_kernel_size=5,
            num_conv_pos_embeddings=3,
            num_conv_pos_embedding_groups=4,
        )
    ).eval()
    state = {}
    names = {"project": "feature_projection.projection", "feature_norm": "feature_projection.layer_norm"}
    for i in range(2):
        names[f"convolutions.{i}"] = f"feature_extractor.conv_layers.{i}.conv"
        names[f"layer_norms.{i}"] = f"feature_extractor.conv_layers.{i}.layer_norm"
    names |= {f"position.convs.{i}": f"encoder.pos_conv_embed.layers.{i}.conv" for i in range(3)}
    names["norm"] = "encoder.layer_norm"
    for key, value in part.state_dict().items():
        module, kind = key.rsplit(".", 1)
        state[f"{names[module]}.{kind}"] = value
    for i, own in enumerate(encoder.blocks):
        here = f"encoder.layers.{i}"
        for kind in ("weight", "bias"):
            for name, piece in zip("qkv", getattr(own.attention.qkv, kind).chunk(3), strict=True):
                state[f"{here}.attention.{name}_proj.{kind}"] = piece
            for name, module in (
                ("attention.out_proj", own.attention.out),
                ("layer_norm", own.norm),
                ("feed_forward.intermediate_dense", own.mlp.up),
                ("feed_forward.output_dense", own.mlp.down),
                ("final_layer_norm", own.mlp_norm),
            ):
                state[f"{here}.{name}.{kind}"] = getattr(module, kind)
    assert theirs.load_state_dict(state, strict=False).missing_keys == ["masked_spec_embed"]
    parts = Parts({"embedder": {"main": part}, "encoder": {"main": encoder}})
    units = make_units([400, 400], 400)
    units = replace(units, sites=replace(units.sites, valid=None))
    with torch.no_grad():
        ours = Step({"main": units}, parts, Rng(0)).encode(Path())
        expected = theirs(units.values[..., 0]).last_hidden_state
    torch.testing.assert_close(ours.x, expected, atol=1e-5, rtol=1e-5)
