"""The recurrent encoder against torch's own on packed sequences of unlike lengths."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from encdec_train.encoders.gru import Gru, GruConfig
from encdec_train.types import Mismatch, Sites, Spec, Tokens

SPEC = Spec(kind="vectors", width=5, length=7)
LENGTHS = torch.tensor([7, 3, 1, 6])


def tokens(padded=True):
    place = torch.arange(7).expand(4, -1)
    valid = place < LENGTHS[:, None] if padded else None
    return Tokens(x=torch.randn(4, 7, 5), sites=Sites(sample=place, place=place, valid=valid))


@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize("depth", [1, 2])
def test_it_equals_torch(both, depth):
    ours = Gru(GruConfig(width=8, depth=depth, both=both), SPEC)
    theirs = nn.GRU(5, 4 if both else 8, depth, batch_first=True, bidirectional=both)
    with torch.no_grad():
        for i in range(depth):
            for stack, suffix in ((ours.ahead, ""), (ours.back, "_reverse")):
                for name, value in stack[i].named_parameters() if len(stack) else ():
                    getattr(theirs, name.replace("l0", f"l{i}{suffix}")).copy_(value)
    given = tokens()
    packed = pack_padded_sequence(given.x, LENGTHS, batch_first=True, enforce_sorted=False)
    expected, _ = pad_packed_sequence(theirs(packed)[0], batch_first=True)
    found = ours(given).x
    torch.testing.assert_close(found[given.sites.valid], expected[given.sites.valid])
    whole = tokens(padded=False)
    torch.testing.assert_close(ours(whole).x, theirs(whole.x)[0])


def test_what_does_not_fit_is_named():
    for config, spec in ((GruConfig(width=7), SPEC), (GruConfig(), Spec(kind="vectors", width=5, prefix=1))):
        with pytest.raises(Mismatch, match="gru"):
            config.spec(spec)
    with pytest.raises(Mismatch, match="set both=false"):
        GruConfig(width=8).spec(Spec(kind="vectors", width=5, ahead=1))
    assert GruConfig(width=8, both=False).spec(Spec(kind="vectors", width=5, ahead=1)).width == 8
    place = torch.zeros(1, 3, dtype=torch.int64)
    packed = Tokens(x=torch.zeros(1, 3, 5), sites=Sites(sample=place, place=place, doc=place))
    with pytest.raises(Mismatch, match="packed"):
        Gru(GruConfig(width=8), SPEC)(packed)
