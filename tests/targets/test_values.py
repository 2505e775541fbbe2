"""Raw values as a target, normalised as the papers do."""

import pytest
import torch

from encdec_train.targets.values import Values, ValuesConfig
from encdec_train.types import Mismatch, Path, Plan, Sites, Spec, Units


class View:
    """The one thing that this target reads of a step."""

    def __init__(self, values):
        n = values.shape[1]
        place = torch.arange(n).expand(len(values), -1)
        self.given = Units(values=values, sites=Sites(sample=place, place=place))

    def units(self, view):
        return self.given


def goal(values, where, **config):
    sites = Spec(kind="vectors", width=4, raw=Spec(kind="values", width=values.shape[-1]))
    ValuesConfig(**config).spec(sites)
    step, target = View(values), Values(ValuesConfig(**config), sites)
    plan = Plan(inputs=step.given, sites=step.given.sites, where=where)
    found = target(step, Path(), plan).values
    return found, target.restore(found, step, Path(), plan)


@pytest.mark.parametrize("channels", [1, 3])
def test_each_channel_is_normalised_by_itself(channels):
    """VideoMAE: mean and unbiased deviation over the pixels of a tubelet, for each colour; MAE: over all values."""
    values, where = torch.randn(2, 4, 24) * 3 + 1, torch.tensor([1, 6])
    found, restored = goal(values, where, normalize=True, channels=channels)
    for row, raw in zip(found, values.flatten(0, 1)[where], strict=True):
        for c in range(channels):
            one = raw[c::channels]
            torch.testing.assert_close(row[c::channels], (one - one.mean()) / (one.var() + 1e-6).sqrt())
    torch.testing.assert_close(restored, values.flatten(0, 1)[where])


def test_as_they_are():
    values = torch.randn(2, 4, 6)
    found, restored = goal(values, None)
    assert torch.equal(found, values.flatten(0, 1)) and restored is found


@pytest.mark.parametrize("channels", [0, 5, 24])
def test_channels_must_divide(channels):
    with pytest.raises(Mismatch, match="channels"):
        goal(torch.randn(1, 2, 24), None, normalize=True, channels=channels)
