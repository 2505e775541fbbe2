"""Quantisers against brute force, and the moving averages against their recursion."""

import pytest
import torch

from encdec_train.bottlenecks.vq import Vq, VqConfig, nearest
from encdec_train.rng import Rng
from encdec_train.types import Mismatch, Sites, Spec, Tokens

UPSTREAM = Spec(kind="vectors", width=6, length=5)


def tokens(rows=4, n=5, valid=None, first=0):
    sample = torch.arange(first, first + rows)[:, None].expand(rows, n)
    sites = Sites(sample=sample, place=torch.arange(n).expand(rows, n), valid=valid)
    x = torch.randn(50, n, 6, generator=torch.Generator().manual_seed(0))[first : first + rows]
    return Tokens(x=x.clone().requires_grad_(), sites=sites)


def made(**config):
    torch.manual_seed(0)
    part = Vq(VqConfig(**config), UPSTREAM)
    for book in part.books:
        book.entries.data.normal_()
    return part


def brute(x, entries):
    return torch.tensor([int(torch.stack([(row - e).square().sum() for e in entries]).argmin()) for row in x])


def test_the_nearest_entry_is_that_of_brute_force():
    x, entries = torch.randn(40, 6), torch.randn(9, 6)
    assert torch.equal(nearest(x, entries), brute(x, entries))


def test_each_book_quantises_what_is_left_over():
    part, given = made(entries=7, books=3).eval(), tokens()
    found, rest, total = part(given, Rng(0, 0)), given.x.detach().flatten(0, 1), 0.0
    for number, book in enumerate(part.books):
        code = brute(rest, book.entries)
        assert torch.equal(found.codes[..., number].flatten(), code)
        rest, total = rest - book.entries[code], total + book.entries[code]
    torch.testing.assert_close(found.x.flatten(0, 1), total)
    assert VqConfig(entries=7).spec(UPSTREAM).codes == 7


def test_the_gradient_passes_straight_through_and_commitment_draws_to_the_entries():
    part, given = made(entries=7), tokens()
    found = part(given, Rng(0, 0))
    (found.x * torch.arange(6.0)).sum().backward(retain_graph=True)
    torch.testing.assert_close(given.x.grad, torch.arange(6.0).expand(4, 5, 6))
    given.x.grad = None
    found.aux["commitment"].mean.backward()
    torch.testing.assert_close(given.x.grad, 2 * (given.x - found.x).detach() / (20 * 6))


def test_entries_that_follow_the_gradient():
    """Equation 3 of van den Oord et al. 2017, with means for sums."""
    part, given = made(entries=7, decay=None, restart=0.0), tokens()
    found = part(given, Rng(0, 0))
    sum(term.weight * term.mean for term in found.aux.values()).backward()
    x, entries = given.x.detach().flatten(0, 1), part.books[0].entries.detach().clone().requires_grad_()
    (x - entries[brute(x, entries)]).square().mean().backward()
    torch.testing.assert_close(part.books[0].entries.grad, entries.grad)


def test_moving_averages_follow_real_sites():
    valid = torch.ones(4, 5, dtype=torch.bool)
    valid[1, 2:] = False
    part, given = made(entries=7, decay=0.9, restart=0.0), tokens(valid=valid)
    book, x = part.books[0], given.x.detach()[valid]
    before, uses, sums = book.entries.clone(), torch.ones(7), book.sums.clone()
    found = part(given, Rng(0, 0))
    one_hot = torch.nn.functional.one_hot(brute(x, before), 7).float()
    uses, sums = 0.9 * uses + 0.1 * one_hot.sum(0), 0.9 * sums + 0.1 * one_hot.T @ x
    torch.testing.assert_close(book.entries, sums / uses[:, None])
    assert torch.equal(found.codes[valid][:, 0], brute(x, before))
    distance = (x - before[brute(x, before)]).square().mean(-1)
    torch.testing.assert_close(found.aux["commitment"].mean, distance.mean())


def test_nothing_moves_without_gradient_or_in_eval_mode():
    part, given = made(entries=7, decay=0.5), tokens()
    before = part.books[0].entries.clone()
    with torch.no_grad():
        part(given, Rng(0, 0))
    part.eval()(given, Rng(0, 0))
    assert torch.equal(part.books[0].entries, before)


def test_idle_entries_become_real_sites_the_same_in_any_order():
    valid = torch.ones(4, 5, dtype=torch.bool)
    valid[0] = False
    given = tokens(valid=valid)
    part = made(entries=12, decay=0.9, restart=2.0)
    part.books[0].entries[3:] += 100  # nothing is near these
    part(given, Rng(0, 0))
    real = given.x.detach()[valid]
    distance = torch.cdist(part.books[0].entries[3:], real).min(1).values
    assert distance.max() < 1e-5
    assert torch.cdist(part.books[0].entries[3:], given.x.detach()[0]).min() > 1e-3
    again = made(entries=12, decay=0.9, restart=2.0)
    again.books[0].entries[3:] += 100
    sites = Sites(sample=given.sites.sample.flip(0), place=given.sites.place, valid=valid.flip(0))
    again(Tokens(x=given.x.flip(0), sites=sites), Rng(0, 0))
    torch.testing.assert_close(again.books[0].entries, part.books[0].entries)


def test_all_entries_come_into_use():
    torch.manual_seed(0)
    part = Vq(VqConfig(entries=16, decay=0.9), UPSTREAM)
    for step in range(20):
        found = part(tokens(rows=40), Rng(0, step))
    assert len(found.codes.unique()) >= 12


def test_rows_draw_how_many_books_they_use():
    part, given = made(entries=7, books=4, draws=[1, 4]), tokens(rows=30)
    used = part.used(given.sites, Rng(0, 0))
    assert set(used.tolist()) == {1, 4}
    alone = tokens(rows=1, first=5)
    assert part.used(alone.sites, Rng(0, 0)) == used[5]
    entries = [book.entries.clone() for book in part.books]
    found = part(given, Rng(0, 0))
    for row in range(30):
        total = sum(entries[q][found.codes[row, :, q]] for q in range(int(used[row])))
        torch.testing.assert_close(found.x[row], total)
    assert part.eval().used(given.sites, Rng(0, 0)) is None


@pytest.mark.parametrize(
    "config,said",
    [
        (VqConfig(entries=1), "at least 1 of 2"),
        (VqConfig(decay=1.0), r"decay: 1.0 is not in \[0, 1\)"),
        (VqConfig(decay=None), "follow the gradient"),
        (VqConfig(draws=[2]), "not within 1 to 1"),
        (VqConfig(commitment=-1.0), "must not be below 0"),
    ],
)
def test_what_does_not_fit_is_named(config, said):
    with pytest.raises(Mismatch, match=said):
        config.spec(UPSTREAM)
