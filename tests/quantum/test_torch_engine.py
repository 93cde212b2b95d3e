"""What is the torch engine's own: few steps, one precision, any device, states. See `test_engines` for the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from qunlearn.errors import InputError
from qunlearn.quantum.card import load_circuit
from qunlearn.quantum.circuit import Angle, Circuit, Gate
from qunlearn.quantum.engines import expectations, memory, state
from qunlearn.quantum.engines.program import compile_circuit
from qunlearn.quantum.engines.schedule import REWRITE
from qunlearn.quantum.gates import GATES
from tests.quantum.cases import dense, draw, every_circuit, random_circuit


@pytest.mark.parametrize("name", REWRITE)
def test_a_rewritten_gate_is_its_monomial_gate_in_another_basis(name: str) -> None:
    monomial, (first, second) = REWRITE[name]
    basis = torch.as_tensor(np.kron(first, second))
    angle = torch.tensor(0.7, dtype=torch.float64) if GATES[name].has_angle else None
    found = basis @ GATES[monomial].matrix(angle) @ basis.mH
    torch.testing.assert_close(found, GATES[name].matrix(angle), rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", [name for name, spec in GATES.items() if spec.wires == 2])
def test_every_two_wire_gate_is_monomial_or_rewritten(name: str) -> None:
    generic = torch.tensor(0.7, dtype=torch.float64)
    matrix = GATES[REWRITE[name][0] if name in REWRITE else name].matrix(generic)
    assert torch.equal((matrix.abs() > 1e-12).sum(1), torch.ones(4, dtype=torch.int64))


class _Types(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Collects the types of all floating and complex tensors that any operation makes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex()):
                self.seen.add(value.dtype)
        return out


@every_circuit
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_is_computed_in_another_precision(circuit: Circuit, dtype: torch.dtype) -> None:
    x, w = (value.requires_grad_() for value in draw(circuit, dtype=dtype))
    expectations(circuit, x, w, "torch")  # compiled before, in float64 or integers
    with _Types() as types:
        values = expectations(circuit, x, w, "torch")
        torch.autograd.backward(values.sum())
    assert values.dtype == dtype
    assert types.seen <= {dtype, dtype.to_complex()}


@every_circuit
def test_everything_stays_on_the_device_of_the_inputs(circuit: Circuit) -> None:
    x, w = (value.to("meta") for value in draw(circuit))  # a tensor of another device beside these raises
    assert expectations(circuit, x, w, "torch").device.type == "meta"
    assert state(circuit, x, w).device.type == "meta"


@pytest.mark.parametrize("seed", range(30))
def test_states_are_what_the_gate_matrices_say(seed: int) -> None:
    circuit = random_circuit(seed)
    x, w = draw(circuit, batch=2)
    expected = torch.stack([dense(circuit, sample, w) for sample in x])
    torch.testing.assert_close(state(circuit, x, w), expected, rtol=0, atol=1e-12)


@every_circuit
def test_states_are_normalised_and_have_one_axis_a_wire(circuit: Circuit) -> None:
    x, w = draw(circuit, batch=4)
    states = state(circuit, x, w)
    assert states.shape == (4, 2, 2, 2)
    torch.testing.assert_close(states.abs().square().sum((1, 2, 3)), torch.ones(4, dtype=torch.float64))


def test_the_limit_of_a_control_group_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "limit").write_text("1000000\n")
    monkeypatch.setattr(memory, "_CGROUP_LIMIT", tmp_path / "limit")
    assert memory.available_bytes(torch.device("cpu")) == 1000000
    circuit = load_circuit("ring-cz", qubits=13)
    with pytest.raises(InputError, match="got 13 qubits and a batch of 100"):
        expectations(circuit, torch.zeros(100, 13), torch.zeros(39), "torch")


@pytest.mark.parametrize(
    ("circuit", "stages"),
    [
        (load_circuit("ring-cz", qubits=6, depth=3), 3),  # the last ring of CZ reaches nothing
        (load_circuit("reupload", qubits=6, depth=3), 3),
        (load_circuit("sim-05", qubits=5), 2),  # all CRZ in one step
        (load_circuit("ring-cz", qubits=6, encoding="zz"), 2),
    ],
)
def test_circuits_become_few_stages(circuit: Circuit, stages: int) -> None:
    assert len(compile_circuit(circuit, True).stages) == stages


def test_controlled_rotations_onto_one_target_share_a_change_of_basis() -> None:
    gates = tuple(Gate("crx", (wire, 3), Angle(weight=wire)) for wire in range(3))
    assert len(compile_circuit(Circuit(4, gates, ("IIIY",), 0, 3), False).stages) == 2
