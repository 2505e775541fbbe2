"""PatchTST against transformers: the same weights and series, the same prediction of every patch."""

import pytest
import torch

from encdec_train.build import check, make_parts, make_transform
from encdec_train.data.example import collate
from encdec_train.launch import compose
from encdec_train.rng import Rng
from encdec_train.step import Step

transformers = pytest.importorskip("transformers")
BLOCK = {
    "attention.out": "self_attn.out_proj",
    "norm": "norm_sublayer1.batchnorm",
    "mlp.up": "ff.0",
    "mlp.down": "ff.3",
    "mlp_norm": "norm_sublayer3.batchnorm",
}


def weights(state, depth):
    """transformers' names -> ours."""
    new = {
        "embedder.main.project.weight": state["model.encoder.embedder.input_embedding.weight"],
        "embedder.main.project.bias": state["model.encoder.embedder.input_embedding.bias"],
        "embedder.main.mask.vector": state["model.encoder.embedder.input_embedding.bias"],  # what zeros become
        "embedder.main.positions.weight": state["model.encoder.positional_encoder.position_enc"],
        "head.main.weight": state["head.linear.weight"],
        "head.main.bias": state["head.linear.bias"],
    }
    for i in range(depth):
        ours, theirs = f"encoder.main.blocks.{i}", f"model.encoder.layers.{i}"
        for kind in ("weight", "bias"):
            qkv = [state[f"{theirs}.self_attn.{name}_proj.{kind}"] for name in "qkv"]
            new[f"{ours}.attention.qkv.{kind}"] = torch.cat(qkv)
        for name, other in BLOCK.items():
            for key, value in state.items():
                if key.startswith(f"{theirs}.{other}."):
                    new[f"{ours}.{name}.{key.rsplit('.', 1)[1]}"] = value
    return new


@pytest.mark.parametrize("training", [False, True])
def test_predictions_and_loss_are_those_of_transformers(training):
    config = compose(["+recipe=patchtst", "scale=paper", "data.channels=3", "data.length=48"])
    config.embedder["main"].dropout = config.encoder["main"].dropout = config.encoder["main"].hidden_dropout = 0.0
    transform = make_transform(config)
    ours = make_parts(config, check(config, transform.specs())).train(training)
    settings = transformers.PatchTSTConfig(
        num_input_channels=3,
        context_length=48,
        patch_length=12,
        patch_stride=12,
        d_model=128,
        num_attention_heads=16,
        num_hidden_layers=3,
        ffn_dim=512,
        activation_function="relu",
        random_mask_ratio=0.4,
        pre_norm=False,
        init_std=0.06,
    )
    theirs = transformers.PatchTSTForPretraining(settings).train(training)
    ours.student.load_state_dict(weights(theirs.state_dict(), 3))
    series = torch.randn(4, 48, 3).cumsum(1)
    rows = [transform(row, i, Rng(0, 0), clean=True) for i, row in enumerate(series.double().numpy())]
    batch = {"series": collate(rows)["series"]}
    step = Step(batch, ours, Rng(0, 0))
    objective = ours.get("objective", "main")
    _, plan, tokens = objective.predict(step)
    mask = plan.mask.view(4, 3, 4)

    def masked(patches):
        return patches.masked_fill(mask[..., None], 0.0), mask

    theirs.model.masking.forward = masked
    found = theirs(past_values=series)
    everywhere = ours.get("head", "main")(tokens.body).view(4, 3, 4, 12)
    assert torch.allclose(everywhere, found.prediction_output, atol=1e-5)
    term = objective(step)["main"]
    assert torch.allclose(term.mean, found.loss, atol=1e-5)
