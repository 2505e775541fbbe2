"""The recurrent decoder against its equations, one row and one step at a time."""

import pytest
import torch

from encdec_train.decoders.attention_gru import AttentionGru, AttentionGruConfig
from encdec_train.types import Mismatch, Plan, Sites, Spec, Tokens, Units

MEMORY, INPUTS = Spec(kind="vectors", width=6, length=5), Spec(kind="vectors", width=4, length=7)
CONFIG = AttentionGruConfig(width=3, hidden=8, align=9)


def tokens(n, width, lengths=None):
    place = torch.arange(n).expand(3, -1)
    valid = None if lengths is None else place < torch.tensor(lengths)[:, None]
    x = torch.randn(3, n, width, dtype=torch.float64)
    return Tokens(x=x, sites=Sites(sample=place, place=place, valid=valid))


def plan(inputs):
    return Plan(inputs=Units(values=inputs.x, sites=inputs.sites), sites=inputs.sites)


def written_out(part, memory, inputs):
    """(N,width): one row. Gates as in torch's GRU cell."""
    p = {name: value.double() for name, value in part.named_parameters()}

    def linear(name, x):
        return p[f"{name}.weight"] @ x + p.get(f"{name}.bias", 0)

    state, out = linear("start", memory[0]).tanh(), []
    for x in inputs:
        energies = [linear("energy", (linear("query", state) + linear("key", h)).tanh())[0].exp() for h in memory]
        seen = sum(e * h for e, h in zip(energies, memory, strict=True)) / sum(energies)
        pairs = linear("out", torch.cat([state, x, seen]))
        out.append(torch.maximum(pairs[::2], pairs[1::2]))
        given = p["cell.weight_ih"] @ torch.cat([x, seen]) + p["cell.bias_ih"]
        kept = p["cell.weight_hh"] @ state + p["cell.bias_hh"]
        reset, update = ((given[i * 8 : i * 8 + 8] + kept[i * 8 : i * 8 + 8]).sigmoid() for i in (0, 1))
        new = (given[16:] + reset * kept[16:]).tanh()
        state = (1 - update) * new + update * state
    return torch.stack(out)


@torch.no_grad()
def test_it_equals_its_equations():
    part = AttentionGru(CONFIG, MEMORY, INPUTS, INPUTS).double()
    memory, inputs = tokens(5, 6, [5, 2, 4]), tokens(7, 4)
    found = part(memory, inputs, plan(inputs)).x
    for row, length in enumerate((5, 2, 4)):
        torch.testing.assert_close(found[row], written_out(part, memory.x[row, :length], inputs.x[row]))


@torch.no_grad()
def test_nobody_reads_what_follows():
    part = AttentionGru(CONFIG, MEMORY, INPUTS, INPUTS).double()
    memory, inputs = tokens(5, 6), tokens(7, 4)
    changed = Tokens(x=inputs.x.clone(), sites=inputs.sites)
    changed.x[:, 4:] += 1
    one, two = (part(memory, given, plan(given)).x for given in (inputs, changed))
    assert torch.equal(one[:, :4], two[:, :4]) and not torch.equal(one[:, 4:], two[:, 4:])


def test_what_does_not_fit_is_named():
    for memory, inputs in ((None, INPUTS), (MEMORY, None), (Spec(kind="vectors", width=6, prefix=1), INPUTS)):
        with pytest.raises(Mismatch, match="attention_gru"):
            CONFIG.spec(memory, inputs, INPUTS)
    with pytest.raises(Mismatch, match="at least 1"):
        AttentionGruConfig(hidden=0).spec(MEMORY, INPUTS, INPUTS)
