"""Same weights, input, mask and negatives: the same outputs and loss as transformers."""

from dataclasses import replace

import pytest
import torch

from encdec_train.corruptions.span_mask import SpanMaskConfig
from encdec_train.embedders.waveform import Waveform, WaveformEmbedderConfig
from encdec_train.encoders.transformer import Transformer, TransformerConfig
from encdec_train.export.hf.wav2vec2 import config_to_hf, from_hf, to_hf
from encdec_train.heads.linear import Linear, LinearHeadConfig
from encdec_train.losses.contrastive import Contrastive, ContrastiveConfig
from encdec_train.objectives.predict import Predict, PredictConfig
from encdec_train.rng import Rng
from encdec_train.step import Parts, Step
from encdec_train.targets.quantized import Quantized, QuantizedConfig
from encdec_train.types import Mismatch, Path, Plan, Sites, Spec, Units

transformers = pytest.importorskip("transformers")

SAMPLES, ROWS = 1610, 3
EMBEDDER = WaveformEmbedderConfig(
    width=32,
    channels=[16, 16, 24],
    kernels=[10, 3, 2],
    strides=[5, 2, 2],
    position_kernel=16,
    position_groups=4,
    dropout=0.0,
    penalty=0.0,
)
ENCODER = TransformerConfig(width=32, depth=2, heads=4, norm_first=False, final_norm=False, eps=1e-5)
TARGET = QuantizedConfig(width=12, groups=2, entries=5, code_width=20, negatives=7, dropout=0.0)
CORRUPTION, LOSS = SpanMaskConfig(), ContrastiveConfig()
PATH = Path(view="audio", corruption="main")


class Given(torch.nn.Module):
    """A corruption that hides the given frames."""

    def __init__(self, mask):
        super().__init__()
        self.mask = mask

    def forward(self, units, sites, step, path):
        mask = self.mask if sites.valid is None else self.mask & sites.valid
        where = mask.flatten().nonzero()[:, 0]
        return Plan(inputs=units, sites=sites, replace=mask, mask=mask, where=where)


def make_parts(mask):
    torch.manual_seed(0)
    view = Spec(kind="values", width=1, length=SAMPLES)
    sites = EMBEDDER.spec(view)
    parts = {
        "embedder": Waveform(EMBEDDER, view, mask=True),
        "encoder": Transformer(ENCODER, sites),
        "target": Quantized(TARGET, sites),
        "head": Linear(LinearHeadConfig(), ENCODER.spec(sites), TARGET.spec(sites), None),
        "loss": Contrastive(LOSS, TARGET.spec(sites)),
        "corruption": Given(mask),
        "objective": Predict(PredictConfig(decoder=None), "main", {"main": PATH}),
    }
    return Parts({noun: {"main": part} for noun, part in parts.items()})


def make_step(parts, valid=None):
    torch.manual_seed(1)
    key = torch.arange(ROWS)[:, None].expand(-1, SAMPLES)
    place = torch.arange(SAMPLES).expand(ROWS, -1)
    values = torch.randn(ROWS, SAMPLES, 1)
    if valid is not None:
        values = values * valid[..., None]
    units = Units(values=values, sites=Sites(sample=key, place=place, valid=valid))
    return Step({"audio": units}, parts, Rng(0, 3))


def make_hf(parts):
    config = transformers.Wav2Vec2Config(**config_to_hf(EMBEDDER, ENCODER, CORRUPTION, TARGET, LOSS))
    config._attn_implementation = "sdpa"
    model = transformers.Wav2Vec2ForPreTraining(config)
    model.load_state_dict(to_hf(parts.student.state_dict()))
    return model


def some_mask():
    torch.manual_seed(2)
    mask = torch.rand(ROWS, EMBEDDER.frames(SAMPLES)) < 0.4
    mask[0, 30:] = False
    return mask


def hf_negatives(goal, where, n):
    """Ours are indices into the predicted rows, theirs into all frames."""
    out = torch.zeros(ROWS * n, goal.negatives.shape[1], dtype=torch.long)
    out[where] = where[goal.negatives]
    return out.view(ROWS, n, -1)


@pytest.mark.parametrize("padded", [False, True])
def test_outputs_and_losses_equal_transformers(padded):
    valid = None
    if padded:
        valid = torch.arange(SAMPLES) < torch.tensor([SAMPLES, 1200, 801])[:, None]
    parts = make_parts(some_mask()).eval()
    with torch.enable_grad():
        step = make_step(parts, valid)
        terms = {**step.part("objective", "main")(step), **step.aux}
    plan = step.plan(PATH)
    goal = step.part("target", "main")(step, PATH, plan)
    hf = make_hf(parts).eval()
    theirs = hf(
        step.units("audio").values[..., 0],
        attention_mask=None if valid is None else valid.long(),
        mask_time_indices=plan.mask,
        sampled_negative_indices=hf_negatives(goal, plan.where, plan.sites.n),
        output_hidden_states=True,
    )
    real = plan.sites.real()
    assert torch.equal(
        plan.sites.real().sum(1), hf._get_feat_extract_output_lengths(step.units("audio").sites.real().sum(1))
    )
    ours = step.tokens(PATH).body
    torch.testing.assert_close(ours[real], theirs.hidden_states[-1][real], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        goal.values, theirs.projected_quantized_states.flatten(0, 1)[plan.where], atol=1e-5, rtol=1e-5
    )
    count = plan.mask.sum()
    main, diversity = terms["main"], terms["quantized.diversity"]
    torch.testing.assert_close(main.sum, theirs.contrastive_loss, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(diversity.sum, theirs.diversity_loss, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        terms["quantized.perplexity"].mean, theirs.codevector_perplexity, atol=1e-5, rtol=1e-5
    )
    total = sum(term.weight * term.mean for term in terms.values())
    torch.testing.assert_close(total, theirs.loss / count, atol=1e-5, rtol=1e-5)


def test_some_negatives_equal_the_positive():
    """The case above must contain what it is meant to compare."""
    parts = make_parts(some_mask()).eval()
    step = make_step(parts)
    goal = step.part("target", "main")(step, PATH, step.plan(PATH))
    none = goal.negatives == torch.arange(len(goal.negatives))[:, None]
    assert 0 < none.sum() < none.numel()


def test_gradients_equal_transformers():
    """In eval mode, so that no noise is drawn: the whole loss, through the convolutions too."""
    parts = make_parts(some_mask()).eval()
    step = make_step(parts)
    terms = {**step.part("objective", "main")(step), **step.aux}
    sum(term.weight * term.mean for term in terms.values()).backward()
    plan = step.plan(PATH)
    goal = step.part("target", "main")(step, PATH, plan)
    hf = make_hf(parts).eval()
    negatives = hf_negatives(goal, plan.where, plan.sites.n)
    loss = hf(
        step.units("audio").values[..., 0], mask_time_indices=plan.mask, sampled_negative_indices=negatives
    ).loss
    (loss / plan.mask.sum()).backward()
    theirs = from_hf({name: p.grad for name, p in hf.named_parameters() if p.grad is not None} | unused(hf))
    for name, parameter in parts.student.named_parameters():
        if parameter.grad is None:
            assert name.startswith("target.main.logits")  # a hard choice passes no gradient
            continue
        expected = theirs[name] * (
            EMBEDDER.gradient if name.split(".")[2] in ("convolutions", "group_norm") else 1
        )
        torch.testing.assert_close(parameter.grad, expected, atol=1e-5, rtol=1e-3, msg=name)


def unused(hf):
    return {name: torch.zeros_like(p) for name, p in hf.named_parameters() if p.grad is None}


def test_weights_go_there_and_back():
    state = make_parts(some_mask()).student.state_dict()
    back = from_hf(to_hf(state))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_base_has_the_published_size():
    with torch.device("meta"):
        model = transformers.Wav2Vec2ForPreTraining(transformers.Wav2Vec2Config())
        view = Spec(kind="values", width=1, length=16000)
        embedder = WaveformEmbedderConfig(width=768)
        encoder = TransformerConfig(norm_first=False, final_norm=False, eps=1e-5)
        sites = embedder.spec(view)
        ours = [
            Waveform(embedder, view, mask=True),
            Transformer(encoder, sites),
            Quantized(QuantizedConfig(), sites),
            Linear(LinearHeadConfig(), encoder.spec(sites), QuantizedConfig().spec(sites), None),
        ]
    count = sum(p.numel() for part in ours for p in part.parameters())
    assert count == sum(p.numel() for p in model.parameters()) == 95_044_608


def test_what_transformers_cannot_say_is_refused():
    with pytest.raises(Mismatch, match="norm_first=True"):
        config_to_hf(EMBEDDER, replace(ENCODER, norm_first=True), CORRUPTION, TARGET, LOSS)
