"""The sentence `aim`: who reads whom, what is counted, and the size of the released encoder."""

from dataclasses import replace

import pytest
import torch

from encdec_train.build import check, count_parameters, make_parts, make_transform
from encdec_train.data.transforms.image import lattice
from encdec_train.launch import compose
from encdec_train.rng import Rng
from encdec_train.step import Step
from encdec_train.types import Units

ROWS, N = 6, 16


@pytest.fixture(scope="module")
def parts():
    torch.manual_seed(0)
    config = compose(["+recipe=aim"])
    return make_parts(config, check(config, make_transform(config).specs()))


def run(parts, units):
    """(B,N,4) predictions and their plan."""
    step = Step({"image": units}, parts, Rng(0, 0))
    prediction, plan, _ = parts.get("objective", "main").predict(step)
    return prediction.detach().view(ROWS, N, -1), plan, parts.get("objective", "main")(step)["main"]


def pictures():
    return Units(values=torch.randn(ROWS, N, 4), sites=lattice(torch.arange(ROWS)[:, None], (4, 4)))


@pytest.mark.parametrize("changed", range(0, N, 3))
def test_a_patch_is_read_from_its_own_place_on_or_by_all_of_the_prefix(parts, changed):
    units = pictures()
    values = units.values.clone()
    values[:, changed] += 1
    before, plan, _ = run(parts, units)
    after, _, _ = run(parts, replace(units, values=values))
    moved = ~torch.isclose(before, after, atol=1e-6).all(-1)  # (B,N)
    place = torch.arange(N)
    reads = (place >= changed) | (changed < plan.attend.prefix[:, None])
    assert torch.equal(moved, reads)


def test_the_loss_is_that_of_what_follows_the_prefix(parts):
    units = pictures()
    prediction, plan, term = run(parts, units)
    errors = [
        (prediction[row, site - 1] - units.values[row, site]).square().mean()
        for row, prefix in enumerate(plan.attend.prefix.tolist())
        for site in range(prefix, N)
    ]
    torch.testing.assert_close(term.mean, torch.stack(errors).mean())
    assert term.count == len(errors) == ROWS * N - plan.attend.prefix.sum()


def test_a_clean_picture_is_read_both_ways(parts):
    """As the probes read it."""
    units = pictures()
    path = replace(parts.get("objective", "main").path, corruption=None)
    values = units.values.clone()
    values[:, -1] += 1
    one, two = (
        Step({"image": given}, parts, Rng(0, 0)).tokens(path).x for given in (units, replace(units, values=values))
    )
    assert not torch.isclose(one, two, atol=1e-6).all(-1).any()


def test_paper_size_is_the_released_encoder():
    """aim-v1/aim/v1/torch/models.py, `aim_600M`, counted by hand: patches and their norm, 24 blocks, the last norm."""
    config = compose(["+recipe=aim", "scale=paper"])
    with torch.device("meta"):
        counts = count_parameters(make_parts(config, check(config, make_transform(config).specs())))
    width = 1536
    block = 12 * width * width + 4 * width
    expected = (14 * 14 * 3 + 1) * width + 2 * width + 24 * block + 2 * width
    assert counts["embedder.main"] + counts["encoder.main"] == expected == config.paper.params
