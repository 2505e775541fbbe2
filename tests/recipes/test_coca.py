"""The two objectives of the sentence: they share the towers, and the caption is written from what was read."""

import torch

from encdec_train.build import check, compute_terms, make_parts, make_transform
from encdec_train.data.transforms.image import lattice
from encdec_train.launch import compose
from encdec_train.rng import Rng
from encdec_train.step import Step
from encdec_train.types import Sites, Units


def build():
    config = compose(["+recipe=coca"])
    return config, make_parts(config, check(config, make_transform(config).specs())).eval()


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    keys, place = torch.arange(4)[:, None], torch.arange(16).expand(4, -1)
    valid = place < torch.tensor([16, 5, 9, 12])[:, None]
    ids = torch.randint(5, 256, (4, 16), generator=generator) * valid
    return {
        "image": Units(values=torch.randn(4, 16, 108, generator=generator), sites=lattice(keys, (4, 4))),
        "text": Units(values=ids, sites=Sites(sample=keys.expand(-1, 16), place=place, valid=valid, max_len=16)),
    }


def test_each_tower_runs_once():
    config, parts = build()
    calls = []
    for name in ("image", "text"):
        parts.get("encoder", name).register_forward_pre_hook(lambda *_, name=name: calls.append(name))
    terms = compute_terms(Step(batch(), parts, Rng(0, 0)), config.objective)
    assert sorted(calls) == ["image", "text"]
    assert terms["caption"].weight == 2.0 and terms["main"].weight == 1.0
    assert terms["main"].count == 4 and terms["caption"].count == 16 + 5 + 9 + 12 - 4


@torch.no_grad()
def test_captions_are_read_from_left_to_right_and_from_the_picture():
    _, parts = build()
    views, objective = batch(), parts.get("objective", "caption")
    changed = views["text"].values.clone()
    changed[0, 9:] = 7
    text = {**views, "text": Units(values=changed, sites=views["text"].sites)}
    image = {**views, "image": batch(1)["image"]}
    one, other, seen = (
        objective.predict(Step(b, parts, Rng(0, 0)))[0].view(4, 16, -1)[0] for b in (views, text, image)
    )
    torch.testing.assert_close(one[:9], other[:9])
    assert not torch.allclose(one[9:], other[9:])
    assert not torch.allclose(one[:9], seen[:9])
