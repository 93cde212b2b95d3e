"""What a training recorded comes back from bytes as it was, or not at all."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from qunlearn.data import Dataset
from qunlearn.errors import CorruptFileError, InputError
from qunlearn.training.trace import Trace, check_trained, trace_of

DTYPES = [torch.float32, torch.float64, torch.int64, torch.bool]


@given(
    names=st.lists(st.text(st.characters(categories=["L", "N"]), min_size=1), max_size=4, unique=True),
    dtype=st.sampled_from(DTYPES),
    shape=st.lists(st.integers(0, 3), max_size=3),
    seed=st.integers(0, 99),
)
def test_bytes_bring_back_what_was_recorded(names: list[str], dtype: torch.dtype, shape: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tensors = {name: (9 * torch.rand(shape, generator=generator)).to(dtype) for name in names}
    trace = Trace("sisa", {"shards": 3, "vote": "mean"}, tensors, {"recipe": {"epochs": 2}, "learnt": [[True]]})
    again = Trace.from_bytes(trace.to_bytes())
    assert (again.method, again.hyperparameters, again.facts) == (trace.method, trace.hyperparameters, trace.facts)
    assert again.tensors.keys() == tensors.keys()
    assert all(
        torch.equal(again.tensors[name], t) and again.tensors[name].dtype == t.dtype for name, t in tensors.items()
    )
    assert again.to_bytes() == trace.to_bytes()


def changed_facts(content: bytes) -> bytes:
    return content.replace(b'\\"seed\\": 3', b'\\"seed\\": 4')


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: content[:-4],
        lambda content: content[:30],
        lambda content: b"",
        lambda content: b"PK" + content,
        lambda content: json.dumps({"method": "sisa"}).encode(),
        changed_facts,
    ],
    ids=["last bit", "short", "shorter", "nothing", "other", "json", "facts"],
)
def test_damaged_bytes_are_refused(spoil: object) -> None:
    content = Trace("sisa", {}, {"ids": torch.arange(9)}, {"seed": 3}).to_bytes()
    assert spoil(content) != content  # type: ignore[operator]
    with pytest.raises(CorruptFileError, match="train again"):
        Trace.from_bytes(spoil(content))  # type: ignore[operator]


def test_a_model_s_own_trace_comes_first_and_another_method_s_is_refused() -> None:
    model, own, given = nn.Linear(1, 1), Trace("sisa"), Trace("sisa")
    assert trace_of(model, given, "sisa") is given
    model.trace = own  # type: ignore[assignment]
    assert trace_of(model, given, "sisa") is own
    with pytest.raises(InputError, match="amnesiac recorded, got one of sisa"):
        trace_of(model, None, "amnesiac")
    with pytest.raises(InputError, match="got none"):
        trace_of(nn.Linear(1, 1), None, "sisa")


def test_sets_must_be_together_what_was_trained_on() -> None:
    data = Dataset(torch.zeros(6, 1), torch.zeros(6, dtype=torch.int64), ids=[4, 9, 2, 7, 1, 3])
    ids = torch.tensor([1, 2, 3, 4, 7, 9])
    check_trained(ids, data.select([0, 5]), data.select([1, 2, 3, 4]))
    with pytest.raises(InputError, match="got 5 samples, 5 of them known"):
        check_trained(ids, data.select([0]), data.select([1, 2, 3, 4]))
    with pytest.raises(InputError, match="got 6 samples, 5 of them known"):
        check_trained(torch.tensor([1, 2, 3, 4, 7, 8]), data)
