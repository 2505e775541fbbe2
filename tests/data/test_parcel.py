"""What is packed comes out as it was, of one piece of memory."""

import pickle

import pytest
import torch

from encdec_train.data import parcel
from encdec_train.data.loader import Drawn
from encdec_train.data.parcel import packed, unpacked
from encdec_train.types import Sites, Units

VALUES = [
    torch.arange(7),
    torch.tensor([True, False, True]),
    torch.randn(3, 5, dtype=torch.float64),
    torch.randn(2, 3, 4).to(torch.bfloat16),
    torch.tensor(3.5),
    torch.empty(2, 0, 3),
    torch.randint(0, 256, (5,), dtype=torch.uint8),
    torch.arange(24).view(4, 6).t(),
]


@pytest.mark.parametrize("value", VALUES, ids=[f"{value.dtype}-{tuple(value.shape)}" for value in VALUES])
def test_a_tensor_beside_others(value):
    given = {"a": torch.ones(1, dtype=torch.bool), "b": (value, "text", None), "c": [value]}
    structure, content = packed(given)
    assert isinstance(content, bytearray)
    found = unpacked(structure, content)
    assert list(found) == list(given) and found["b"][1:] == ("text", None)
    for one in (found["b"][0], found["c"][0]):
        assert one.dtype == value.dtype and one.shape == value.shape and torch.equal(one, value)


def test_many_bytes_are_a_tensor(monkeypatch):
    monkeypatch.setattr(parcel, "FEW", 100)
    structure, content = packed([torch.arange(50), torch.ones(2)])
    assert isinstance(content, torch.Tensor) and content.dtype == torch.uint8 and content.dim() == 1
    numbers, ones = unpacked(structure, content)
    assert numbers.tolist() == list(range(50)) and ones.tolist() == [1, 1]


def test_no_tensors():
    assert unpacked(*packed({"a": 1})) == {"a": 1}


def test_tensors_do_not_overlap():
    first, second = unpacked(*packed([torch.zeros(3), torch.zeros(3)]))
    first += 1
    assert first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr()
    assert second.tolist() == [0, 0, 0]


def test_a_step_is_one_tensor():
    sample = torch.arange(6).view(2, 3)
    units = Units(values=torch.randn(2, 3, 4), sites=Sites(sample=sample, place=sample, valid=sample > 1, max_len=3))
    found = pickle.loads(pickle.dumps(Drawn(7, [{"x": units}], ("torn",), {"set": (1, 2)})))
    assert (found.step, found.skipped, found.place) == (7, ("torn",), {"set": (1, 2)})
    there = found.micro[0]["x"]
    tensors = (there.values, there.sites.sample, there.sites.place, there.sites.valid)
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == 1
    for tensor, wanted in zip(tensors, (units.values, sample, sample, sample > 1), strict=True):
        assert torch.equal(tensor, wanted)
    assert there.sites.max_len == 3
