"""Rows that go on id by id give the scores that whole rows give."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from encdec_train.build import check, make_parts, make_transform
from encdec_train.data.example import Example, collate
from encdec_train.decoding.writer import Going, check_writer
from encdec_train.launch import compose
from encdec_train.rng import Rng
from encdec_train.step import Step
from encdec_train.types import Batch, Mismatch, Plan, Sites, Spec, Units, gather_rows

WRITERS = {
    **{name: [] for name in ("t5", "byt5", "ul2", "bart", "pegasus", "tsdae", "transformer_nmt", "rnnsearch", "gpt2")},
    "glm": [],
    "coca": [],
    "gpt2 prefix": ["corruption.prefix=true"],
    "gpt2 rotary": ["encoder.rotary=[100]", "encoder.windows=[0,4]", "embedder.position=none"],
    "gpt2 slopes": ["encoder.slopes=true", "embedder.position=none"],
    "gpt2 gru": ["encoder=gru", "encoder.width=64", "encoder.both=false", "encoder.depth=2"],
    "transformer_nmt shift": ["corruption.shift=true", "transform.views.target.bos=false"],
}
LENGTHS = (11, 14, 8)


def build(name: str):
    recipe, *_ = name.split()
    config = compose([f"+recipe={recipe}", *WRITERS.get(name, [])])
    transform = make_transform(config)
    torch.manual_seed(0)
    return transform, make_parts(config, check(config, transform.specs())).eval()


def batch(views: dict[str, Spec]) -> Batch:
    """Random rows of different lengths."""
    generator = torch.Generator().manual_seed(1)

    def example(spec: Spec, key: int, length: int) -> Example:
        if spec.kind != "ids":
            shape = (spec.length, spec.width)
            coords = torch.rand(spec.length, spec.coords, generator=generator)
            return Example(values=torch.randn(shape, generator=generator), sample=key, coords=coords, grid=spec.grid)
        words = spec.vocabulary
        ids = torch.randint(words.specials, words.size, (min(length, spec.max_len),), generator=generator)
        ends = torch.zeros(len(ids), dtype=torch.bool)
        if spec.fixed:
            ids[0], ids[-1], ends[0], ends[-1] = words.bos, words.eos, words.bos >= 0, True
        group = torch.arange(len(ids)) // 4 if spec.groups else None
        return Example(values=ids, sample=key, fixed=ends if spec.fixed else None, group=group, max_len=spec.max_len)

    rows = [{view: example(spec, i, n) for view, spec in views.items()} for i, n in enumerate(LENGTHS)]
    return collate(rows)


def opening(plan: Plan, lengths: torch.Tensor) -> Plan:
    """The first `lengths` (B,) sites of each row."""
    n = int(lengths.max())
    at = torch.arange(n).expand(len(lengths), -1)
    sites = replace(plan.sites.take(at), valid=at < lengths[:, None])
    values = torch.where(at < lengths[:, None], gather_rows(plan.inputs.values, at), 0)
    return Plan(inputs=Units(values=values, sites=sites), sites=sites, attend=plan.attend)


def bounds(recipe: str, plan: Plan) -> tuple[torch.Tensor, torch.Tensor]:
    """(B,) how many sites of each row are given at first, and how many there are of the piece that follows."""
    real = plan.sites.real().sum(1)
    if recipe == "glm":  # the first span behind the text
        span = plan.sites.coords[..., 1] > 0
        begins = plan.attend.prefix + 1
        later = span & (plan.sites.coords[..., 1] == 1) & (plan.sites.place >= begins[:, None])
        place = torch.arange(real.max()).expand(len(real), -1) if later.shape[1] == real.max() else plan.sites.place
        return begins, torch.minimum(real, torch.where(later, place, 10**6).amin(1))
    if plan.attend.prefix is not None:
        return plan.attend.prefix, real
    return torch.tensor([3, 1, 2]) if recipe == "gpt2" else torch.ones_like(real), real


@torch.no_grad()
@pytest.mark.parametrize("name", WRITERS)
def test_a_cache_changes_no_score(name: str) -> None:
    transform, parts = build(name)
    own = "caption" if name == "coca" else "main"
    check_writer(parts, own, transform)
    step = Step(batch(transform.specs()), parts, Rng(0, 0))
    objective = step.part("objective", own)
    scores, plan, _ = objective.predict(step)
    where = torch.arange(plan.sites.sample.numel()) if plan.where is None else plan.where
    whole = scores.new_zeros(plan.sites.sample.numel(), scores.shape[-1]).index_copy(0, where, scores)
    whole = whole.unflatten(0, plan.sites.sample.shape)
    first, last = bounds(name.split()[0], plan)
    n = plan.sites.n
    count = int((last - first).max()) + 1
    going = Going(step, own, opening(plan, first), count)
    compared = 0
    for t in range(count):
        at = (first + t - 1)[:, None]  # the site that says what comes next
        here = at[:, 0] < last
        expected = gather_rows(whole, at.clamp_max(n - 1))[:, 0]
        torch.testing.assert_close(going.scores()[here], expected[here], atol=1e-5, rtol=1e-5)
        compared += int(here.sum())
        following = (at + 1).clamp_max(n - 1)
        if t + 1 < count:
            going.append(gather_rows(plan.inputs.values, following)[:, 0])
    assert compared > 3 * len(LENGTHS)


@torch.no_grad()
@pytest.mark.parametrize("name", ["t5", "rnnsearch", "gpt2 gru"])
def test_rows_that_change_places(name: str) -> None:
    """A row goes on as it would have gone on where it was."""
    transform, parts = build(name)
    step = Step(batch(transform.specs()), parts, Rng(0, 0))
    plan = step.plan(step.part("objective", "main").path)
    ids = plan.inputs.values[:, 1]

    def going() -> Going:
        return Going(step, "main", opening(plan, torch.ones(len(ids), dtype=torch.int64)), 4)

    one, other = going(), going()
    one.append(ids)
    order = torch.tensor([2, 0, 0, 1])
    one.reorder(order)
    one.append(ids[order])
    other.append(ids)
    other.append(ids)
    torch.testing.assert_close(one.scores(), other.scores()[order])


@pytest.mark.parametrize(
    "recipe,words",
    [
        ("bert", "its path needs a corruption that goes on with rows, it is a TokenMask"),
        ("simcse", "it compares"),
        ("mae_vit", "the view 'image' is none"),
        ("mpnet", "it is a Permuted"),
    ],
)
def test_what_writes_nothing_says_why(recipe: str, words: str) -> None:
    transform, parts = build(recipe)
    with pytest.raises(Mismatch, match=f"objective 'main' writes no text: .*{words}"):
        check_writer(parts, "main", transform)


def test_more_places_than_there_are() -> None:
    _, parts = build("gpt2")
    ids = torch.full((1, 40), 9)
    sites = Sites(sample=torch.zeros_like(ids), place=torch.arange(40)[None])
    plan = Plan(inputs=Units(values=ids, sites=sites), sites=sites)
    with pytest.raises(Mismatch, match="embedder 'main' has 48 places, 49 are asked for"):
        Going(Step({}, parts, Rng(0, 0)), "main", plan, 10)
