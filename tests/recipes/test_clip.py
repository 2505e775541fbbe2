"""Same weights, same pictures, same captions: transformers' CLIP and the recipe agree, vectors and loss."""

import pytest
import torch

from encdec_train.build import check, make_parts, make_transform
from encdec_train.data.transforms.image import lattice
from encdec_train.export.hf.clip import BLOCK
from encdec_train.export.hf.pairs import Pairs, affine, join, layers
from encdec_train.launch import compose
from encdec_train.rng import Rng
from encdec_train.step import Step
from encdec_train.types import Sites, Units

transformers = pytest.importorskip("transformers")
PATCH, SIDE, WORDS = 6, 4, 256


def theirs():
    size = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2}
    size |= {"hidden_act": "gelu", "initializer_factor": 5.0}
    config = transformers.CLIPConfig(
        text_config={**size, "vocab_size": WORDS, "max_position_embeddings": 16, "eos_token_id": 3},
        vision_config={**size, "image_size": PATCH * SIDE, "patch_size": PATCH},
        projection_dim=64,
    )
    return transformers.CLIPModel(config).eval()


def ours(state):
    config = compose(["+recipe=clip", "embedder.image.position=learned"])
    parts = make_parts(config, check(config, make_transform(config).specs()))
    pairs: Pairs = {"head.image.weight": ("visual_projection.weight",), "head.text.weight": ("text_projection.weight",)}
    for name, model, last in (("image", "vision_model", "post_layernorm"), ("text", "text_model", "final_layer_norm")):
        pairs |= affine(f"encoder.{name}.norm", f"{model}.{last}")
        for i in range(2):
            pairs |= layers(f"encoder.{name}.blocks.{i}", f"{model}.encoder.layers.{i}", BLOCK)
    pairs |= affine("encoder.image.input_norm", "vision_model.pre_layrnorm")
    pairs["embedder.text.table.weight"] = ("text_model.embeddings.token_embedding.weight",)
    pairs["embedder.text.positions.weight"] = ("text_model.embeddings.position_embedding.weight",)
    found = join(pairs, state)
    vision = "vision_model.embeddings"
    place = state[f"{vision}.position_embedding.weight"]
    found["encoder.image.tokens"] = (state[f"{vision}.class_embedding"] + place[0])[None]
    found["embedder.image.positions.weight"] = place[1:]
    found["embedder.image.project.weight"] = state[f"{vision}.patch_embedding.weight"].permute(0, 2, 3, 1).flatten(1)
    found["embedder.image.project.bias"] = torch.zeros(64)
    found["loss.main.log_scale"] = state["logit_scale"][None]
    parts.student.load_state_dict(found)
    return parts.eval()


def test_vectors_and_loss_equal_transformers():
    model = theirs()
    parts = ours(model.state_dict())
    pictures, ids = torch.randn(5, 3, PATCH * SIDE, PATCH * SIDE), torch.randint(5, WORDS, (5, 16))
    lengths = torch.tensor([16, 4, 9, 2, 7])
    place = torch.arange(16).expand(5, -1)
    valid = place < lengths[:, None]
    ids = torch.where(place == lengths[:, None] - 1, 3, ids) * valid
    values = pictures.unflatten(2, (SIDE, PATCH)).unflatten(4, (SIDE, PATCH)).permute(0, 2, 4, 3, 5, 1)
    keys = torch.arange(5)[:, None]
    batch = {
        "image": Units(values=values.reshape(5, SIDE * SIDE, -1), sites=lattice(keys, (SIDE, SIDE))),
        "text": Units(values=ids, sites=Sites(sample=keys.expand(-1, 16), place=place, valid=valid, max_len=16)),
    }
    with torch.no_grad():
        expected = model(input_ids=ids, pixel_values=pictures, attention_mask=valid.long(), return_loss=True)
        step = Step(batch, parts, Rng(0, 0))
        (image,), (text,) = parts.get("objective", "main").sides(step)
        term = parts.get("objective", "main")(step)["main"]
    unit = torch.nn.functional.normalize
    torch.testing.assert_close(unit(image, dim=-1), expected.image_embeds, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(unit(text, dim=-1), expected.text_embeds, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(term.mean, expected.loss, rtol=1e-5, atol=1e-5)
