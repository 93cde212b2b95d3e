"""What is the fused engine's own: threads, memory, processes, the compiled kernel, and what it refuses."""

from __future__ import annotations

import math
import multiprocessing
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.func import grad, hessian, jacfwd, jvp, vmap

from qunlearn.errors import UnsupportedError
from qunlearn.quantum.card import load_circuit
from qunlearn.quantum.circuit import Angle, Circuit, Factor, Gate
from qunlearn.quantum.engines import expectations
from qunlearn.quantum.engines.fused import runner
from tests.quantum.cases import CIRCUITS, SMALL, draw, every_circuit, exact, gradients

types = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["single", "double"])
LONG = 15  # qubits of a state that threads share


def everything(circuit: Circuit, x: Tensor, w: Tensor) -> list[Tensor]:
    """Values, and gradients by features and weights."""
    x, w = x.detach().clone().requires_grad_(), w.detach().clone().requires_grad_()
    values = expectations(circuit, x, w, "fused")
    return [values.detach(), *gradients(values, x, w)]


def long_circuit(qubits: int = LONG) -> Circuit:
    """Every kind of step on wires far apart and near, in a state that threads share."""
    gates = [Gate("rx", (wire,), Angle(factors=(Factor(wire % 3),), weight=wire % 5)) for wire in range(qubits)]
    gates += [Gate("cx", (0, qubits - 1)), Gate("cz", (1, 2)), Gate("cp", (qubits - 2, 3), Angle(offset=0.3))]
    gates += [Gate("ry", (wire,), Angle(weight=5 + wire % 4)) for wire in range(qubits)]
    gates += [Gate("crz", (0, qubits - 1), Angle(weight=2)), Gate("rzz", (4, 5), Angle(factors=(Factor(1),)))]
    gates += [Gate("crx", (qubits - 1, 0), Angle(weight=8)), Gate("h", (qubits // 2,))]
    words = ["Z" + "I" * (qubits - 1), "I" * (qubits - 1) + "Z", "XY" + "I" * (qubits - 3) + "X", "ZZ" * (qubits // 2)]
    return Circuit(qubits, tuple(gates), tuple(word.ljust(qubits, "Z") for word in words), 3, 9)


# Threads.


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets torch's number of threads; puts it back at the end."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@types
@pytest.mark.parametrize(
    ("circuit", "batch"),
    [
        (CIRCUITS["reupload"], 203),
        (CIRCUITS["iqp"], 61),
        (CIRCUITS["amplitude"], 77),
        (CIRCUITS["paulis"], 5),
        (long_circuit(), 2),
        (load_circuit("ring-cz", qubits=LONG, encoding="amplitude", features=9), 2),
    ],
    ids=["reupload", "iqp", "amplitude", "one chunk", "long", "long amplitude"],
)
def test_any_number_of_threads_gives_the_same_bits(
    circuit: Circuit,
    batch: int,
    dtype: torch.dtype,
    threads: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runner, "WORTH", 1)
    inputs = draw(circuit, batch, dtype)
    threads(1)
    expected = everything(circuit, *inputs)
    for number in (2, 3, 5, 7) * (
        5 if circuit.qubits == LONG else 1
    ):  # long states: a race would be lost at times only
        threads(number)
        for one, other in zip(everything(circuit, *inputs), expected, strict=True):
            assert torch.equal(one, other)


def test_replicas_give_the_same_bits_with_any_number_of_threads(
    threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "WORTH", 1)
    circuit = CIRCUITS["reupload"]
    x, w = draw(circuit, 20)
    many = torch.stack([w + 0.1 * k for k in range(7)])
    found = []
    for number in (1, 2, 3):
        threads(number)
        leaf = many.clone().requires_grad_()
        values = vmap(lambda one: expectations(circuit, x, one, "fused"))(leaf)
        found.append((values.detach(), gradients(values, leaf)[0]))
    for values, slopes in found[1:]:
        assert torch.equal(values, found[0][0])
        assert torch.equal(slopes, found[0][1])


@pytest.mark.parametrize("circuit", [CIRCUITS["reupload"], long_circuit()], ids=["short", "long"])
def test_threads_are_woken_for_enough_work_alone(
    circuit: Circuit, threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads(2)
    monkeypatch.setattr(runner, "_pools", {})
    monkeypatch.setattr(runner, "WORTH", 10**12)
    everything(circuit, *draw(circuit, 40 if circuit.qubits < LONG else 1))
    assert not runner._pools
    monkeypatch.setattr(runner, "WORTH", 1)
    everything(circuit, *draw(circuit, 40 if circuit.qubits < LONG else 1))
    assert list(runner._pools) == [1]  # beside this thread


@pytest.mark.parametrize("circuit", [CIRCUITS["reupload"], long_circuit()], ids=["short", "long"])
def test_calls_from_several_threads_at_once(
    circuit: Circuit, threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "WORTH", 1)
    threads(2)
    batches = [draw(circuit, batch) for batch in (2, 1, 3)]
    expected = [everything(circuit, *inputs) for inputs in batches]
    ready = threading.Barrier(len(batches))

    def call(number: int) -> bool:
        ready.wait()
        found = [everything(circuit, *batches[number]) for _ in range(2)]
        return all(torch.equal(a, b) for one in found for a, b in zip(one, expected[number], strict=True))

    with ThreadPoolExecutor(len(batches)) as pool:
        assert list(pool.map(call, range(len(batches)))) == [True] * len(batches)


def _call_in_a_child(circuit: Circuit, inputs: tuple[Tensor, Tensor], pipe: Connection) -> None:
    pipe.send([tensor.tolist() for tensor in everything(circuit, *inputs)])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
# The warning is Python's own, about processes that have threads; that is what is tested here.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_process_that_is_forked_after_use_still_computes(
    threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "WORTH", 1)
    threads(2)
    circuit = CIRCUITS["reupload"]
    inputs = draw(circuit, 40)
    expected = [tensor.tolist() for tensor in everything(circuit, *inputs)]
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe()
    child = context.Process(target=_call_in_a_child, args=(circuit, inputs, theirs))
    child.start()
    try:
        assert mine.poll(60)
        assert mine.recv() == expected
    finally:
        child.kill()
        child.join()


# Memory.


@types
@every_circuit
@pytest.mark.parametrize("kept", [0, 3000])
def test_final_states_that_are_not_kept_are_run_again(
    circuit: Circuit, kept: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = draw(circuit, 37, dtype)
    expected = everything(circuit, *inputs)
    monkeypatch.setattr(runner, "KEPT", kept)
    for one, other in zip(everything(circuit, *inputs), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-13)


def test_replicas_whose_states_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = CIRCUITS["reupload"]
    x, w = draw(circuit, 21)
    many = torch.stack([w, w + 1, w - 1])

    def slopes(one: Tensor) -> Tensor:
        slope: Tensor = grad(lambda weights: expectations(circuit, x, weights, "fused").square().sum())(one)
        return slope

    expected = vmap(slopes)(many)
    monkeypatch.setattr(runner, "KEPT", 3000)
    torch.testing.assert_close(vmap(slopes)(many), expected, rtol=0, atol=1e-13)


def test_weights_that_change_before_the_backward_pass_are_noticed() -> None:
    x, w = (value.requires_grad_() for value in draw(SMALL))
    values = expectations(SMALL, x, w, "fused")
    with torch.no_grad():
        w.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.backward(values.sum())


# Long states.


@types
@pytest.mark.parametrize("qubits", [15, pytest.param(16, marks=pytest.mark.slow)])
def test_long_states_are_those_of_the_torch_engine(qubits: int, dtype: torch.dtype) -> None:
    circuit = long_circuit(qubits)
    inputs = draw(circuit, 2, dtype)
    found = everything(circuit, *inputs)
    x, w = (value.double().requires_grad_() for value in inputs)
    values = expectations(circuit, x, w, "torch")
    for one, other in zip(found, (values, *gradients(values, x, w)), strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one.double(), other.detach(), rtol=0, atol=3e-5 if dtype == torch.float32 else 1e-11)


def test_a_long_product_state_is_known_in_closed_form() -> None:
    """RY(x w) on every wire: <Z> = cos(x w), and a word of many Z is their product."""
    gates = tuple(Gate("ry", (wire,), Angle(factors=(Factor(wire),), weight=wire)) for wire in range(LONG))
    circuit = Circuit(LONG, gates, ("Z" * LONG, "IZ" + "I" * (LONG - 2), "IIX" + "I" * (LONG - 3)), LONG, LONG)
    x, w = (0.2 * value for value in draw(circuit, 2))
    values, by_features, by_weights = everything(circuit, x, w)
    cosines = (x * w).cos()
    expected = torch.stack([cosines.prod(1), cosines[:, 1], (x * w)[:, 2].sin()], 1)
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-13)
    mix = torch.rand(2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.5
    slopes = -(mix[:, :1] * cosines.prod(1, keepdim=True)) * (x * w).tan()
    slopes[:, 1] -= mix[:, 1] * (x * w)[:, 1].sin()
    slopes[:, 2] += mix[:, 2] * (x * w)[:, 2].cos()
    torch.testing.assert_close(by_features, slopes * w, rtol=0, atol=1e-13)
    torch.testing.assert_close(by_weights, (slopes * x).sum(0), rtol=0, atol=1e-13)


# Angles.


@types
@pytest.mark.parametrize("size", [1e-6, 10.0, 1e3, 1e5])
def test_angles_of_any_size(size: float, dtype: torch.dtype) -> None:
    """<Z> and <X> after RY(x) are cos x and sin x, to a few units in the last place of the angle itself."""
    circuit = Circuit(1, (Gate("ry", (0,), Angle(factors=(Factor(0),))),), ("Z", "X"), 1, 0)
    x = (torch.linspace(-size, size, 1001, dtype=torch.float64) + size / 7).to(dtype).unsqueeze(1)
    values = expectations(circuit, x, torch.empty(0, dtype=dtype), "fused").double()
    expected = torch.cat([x.double().cos(), x.double().sin()], 1)
    torch.testing.assert_close(values, expected, rtol=0, atol=8 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_feature_that_is_no_number_shows(value: float) -> None:
    x, w = draw(CIRCUITS["reupload"], 20)
    x[3, 1] = value
    values = expectations(CIRCUITS["reupload"], x, w, "fused")
    assert values.isnan().any(1).tolist() == [row == 3 for row in range(20)]


# What it refuses.


def loss(w: Tensor, x: Tensor) -> Tensor:
    return expectations(SMALL, x, w, "fused").square().sum()


@pytest.mark.parametrize(
    "transform",
    [
        lambda w, x: jvp(lambda a: jvp(lambda b: loss(b, x), (a,), (a.sin(),))[1], (w,), (w,)),
        lambda w, x: jacfwd(jacfwd(loss))(w, x),
        lambda w, x: jacfwd(hessian(loss))(w, x),
        lambda w, x: jacfwd(jacfwd(grad(loss)))(w, x),
    ],
    ids=["jvp", "jacfwd", "hessian", "grad"],
)
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_forward_mode_inside_forward_mode_is_refused(transform: Callable[[Tensor, Tensor], Tensor]) -> None:
    x, w = draw(SMALL)
    with pytest.raises(UnsupportedError, match="at most one forward-mode derivative, got one inside another"):
        transform(w, x)
    assert loss(w, x).isfinite()  # nothing is left behind


def test_batched_gradients_of_autograd_are_refused() -> None:
    x, w = draw(SMALL)
    values = expectations(SMALL, x, w.requires_grad_(), "fused").flatten()
    with pytest.raises(UnsupportedError, match=re.escape("is_grads_batched=True of torch.autograd.grad")):
        torch.autograd.grad(values, w, torch.eye(len(values), dtype=torch.float64), is_grads_batched=True)


@pytest.mark.parametrize("elsewhere", ["features", "weights", "both"])
def test_tensors_of_another_device_are_refused(elsewhere: str) -> None:
    x, w = draw(SMALL)
    x = x if elsewhere == "weights" else x.to("meta")
    w = w if elsewhere == "features" else w.to("meta")
    with pytest.raises(UnsupportedError, match="tensors on the CPU for engine 'fused', got meta; use engine='torch'"):
        expectations(SMALL, x, w, "fused")


def test_auto_is_fused_on_the_cpu_and_torch_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = draw(SMALL)
    calls: list[Circuit] = []
    forward = runner.forward

    def counted(circuit: Circuit, *arguments: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(circuit)
        return forward(circuit, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(runner, "forward", counted)
    torch.testing.assert_close(expectations(SMALL, x, w), exact(SMALL, x, w), rtol=0, atol=1e-13)
    assert calls == [SMALL]
    assert expectations(SMALL, x.to("meta"), w.to("meta")).device.type == "meta"
    assert calls == [SMALL]


# The compiled kernel.

_USE = """
import json, torch
from qunlearn.quantum.card import load_circuit
from qunlearn.quantum.engines import expectations
from qunlearn.quantum.engines.fused import kernel
circuit = load_circuit("ring-cz", qubits=2)
w = torch.rand(circuit.weights, requires_grad=True)
expectations(circuit, torch.rand(3, 2), w, "fused").sum().backward()
compiled = [kernel.forward, kernel.backward, kernel.finish]
print(json.dumps([[sum(f.stats.cache_hits.values()), sum(f.stats.cache_misses.values())] for f in compiled]))
"""


@pytest.mark.slow
def test_a_second_process_takes_the_compiled_kernel_from_disk(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    first, second = (
        subprocess.run([sys.executable, "-c", _USE], env=environment, capture_output=True, text=True, check=True)
        for _ in range(2)
    )
    assert (first.stdout.strip(), second.stdout.strip()) == ("[[0, 1], [0, 1], [0, 1]]", "[[1, 0], [1, 0], [1, 0]]")
    assert "compiling the circuit engine for float32" in first.stderr
    assert second.stderr == ""
