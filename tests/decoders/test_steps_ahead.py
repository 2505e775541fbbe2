"""One linear map for each number of steps, against the maps one by one."""

import pytest
import torch

from encdec_train.decoders.steps_ahead import StepsAheadDecoder, StepsAheadDecoderConfig
from encdec_train.types import Mismatch, Plan, Sites, Spec, Tokens

SITES = Spec(kind="vectors", width=3, length=5, features=3)
MEMORY = Spec(kind="vectors", width=4, length=5, ahead=2)


def test_every_origin_has_its_maps_in_the_order_of_the_plan():
    part = StepsAheadDecoder(StepsAheadDecoderConfig(), MEMORY, None, SITES)
    place = torch.arange(5).expand(2, -1)
    memory = Tokens(x=torch.randn(2, 1 + 5, 4), sites=Sites(sample=place, place=place), prefix=1)
    plan = Plan(inputs=None, sites=memory.sites, where=torch.arange(12))
    found = part(memory, None, plan).at(plan.where)
    maps = part.linear.weight.unflatten(0, (2, 3))  # (steps,features,D)
    expected = [maps[k] @ memory.body[b, t] for b in range(2) for t in range(3) for k in range(2)]
    torch.testing.assert_close(found, torch.stack(expected))
    assert part.linear.bias is None


@pytest.mark.parametrize(
    "memory,inputs,sites,said",
    [
        (None, None, SITES, "reads a memory"),
        (MEMORY, MEMORY, SITES, "no inputs of its own"),
        (Spec(kind="vectors", width=4), None, SITES, "must be 'steps_ahead'"),
        (Spec(kind="vectors", width=4, ahead=2, rows="coarse"), None, SITES, "has coarse"),
        (MEMORY, None, Spec(kind="vectors", width=3), "has none"),
    ],
)
def test_what_does_not_fit_is_named(memory, inputs, sites, said):
    with pytest.raises(Mismatch, match=said):
        StepsAheadDecoderConfig().spec(memory, inputs, sites)
