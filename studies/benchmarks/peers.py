"""Engines side by side: each prepares a circuit, and then makes one step of training, forward and backward.

Every circuit is written from the same gate list, `Circuit.gates`. A step gives the expectation values
``(batch, observables)`` and the gradients of their sum, weighted by a fixed cotangent, for features and for weights.
All compute in single precision, except PennyLane's `default.qubit`, which widens everything to double.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

import qunlearn as qu
from benchmarks.jobs import Inputs

Outcome = tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]
#: Expectation values, gradients for features, gradients for weights.
Step = Callable[[], Outcome]


@dataclass(frozen=True)
class Peer:
    """An engine: `prepare` does, once a circuit and batch, what it needs; the step is timed.

    Attributes:
        key: what the command line and the CSV call it.
        title: what the table calls it.
        packages: distributions whose versions are reported.
        prepare: (circuit, inputs) -> step.
        compiles: whether preparing takes seconds, so that several do it at once.
    """

    key: str
    title: str
    packages: tuple[str, ...]
    prepare: Callable[[qu.Circuit, Inputs], Step]
    compiles: bool = False

    def versions(self) -> dict[str, str]:
        """Installed versions of its packages. Raises `PackageNotFoundError` where one is absent."""
        return {name: version(name) for name in self.packages}


def angle_of(angle: Any, feature: Callable[[int], Any], weight: Callable[[int], Any]) -> Any:
    """An angle in radians, scale * product(sign * feature + shift) * weight + offset, in any library's numbers."""
    if angle.constant:
        return angle.offset
    value: Any = angle.scale
    for factor in angle.factors:
        value = value * (factor.sign * feature(factor.feature) + factor.shift)
    return (value if angle.weight is None else value * weight(angle.weight)) + angle.offset


# ---- ours


def _ours(engine: str) -> Callable[[qu.Circuit, Inputs], Step]:
    def prepare(circuit: qu.Circuit, inputs: Inputs) -> Step:
        layer = qu.QuantumLayer(circuit, engine=engine, dtype=torch.float32)
        features, weights, cotangent = _tensors(inputs)
        with torch.no_grad():
            layer.weights.copy_(weights)

        def step() -> Outcome:
            values = layer(features)
            gradients = torch.autograd.grad(values, (features, layer.weights), cotangent)
            return _arrays(values, *gradients)

        return step

    return prepare


def _tensors(inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """Features and weights that need gradients, and the cotangent."""
    features, weights = (torch.tensor(array, requires_grad=True) for array in (inputs.features, inputs.weights))
    return features, weights, torch.tensor(inputs.cotangent)


def _arrays(*tensors: Tensor) -> Outcome:
    values, features, weights = (tensor.detach().numpy() for tensor in tensors)
    return values, features, weights


# ---- PennyLane


def _pennylane(device: str, method: str, *, batched: bool) -> Callable[[qu.Circuit, Inputs], Step]:
    def prepare(circuit: qu.Circuit, inputs: Inputs) -> Step:
        import pennylane as qml

        options = {"c_dtype": np.complex64} if device.startswith("lightning") else {}
        made = qml.device(device, wires=circuit.qubits, **options)
        node = qml.QNode(circuit.to_pennylane(), made, interface="torch", diff_method=method)
        features, weights, cotangent = _tensors(inputs)

        def forward() -> Tensor:
            if batched:
                return torch.stack(list(node(features, weights)), -1)
            return torch.stack([torch.stack(list(node(sample, weights))) for sample in features])

        def step() -> Outcome:
            values = forward()
            return _arrays(values, *torch.autograd.grad(values, (features, weights), cotangent.to(values.dtype)))

        return step

    return prepare


# ---- TensorCircuit-NG on JAX

#: What it calls our gates, where the name differs.
_TENSORCIRCUIT = {"id": "i", "sdg": "sd", "tdg": "td", "cx": "cnot", "p": "phase", "cp": "cphase"}
_SX = np.array([[1 + 1j, 1 - 1j], [1 - 1j, 1 + 1j]], dtype=np.complex64) / 2
_CH = np.eye(4, dtype=np.complex64)
_CH[2:, 2:] = np.array([[1, 1], [1, -1]]) / np.sqrt(2)
_MATRICES = {"sx": _SX, "ch": _CH}


def _tensorcircuit(values_of: Callable[[Any, Any, qu.Circuit], Any]) -> Callable[[qu.Circuit, Inputs], Step]:
    def prepare(circuit: qu.Circuit, inputs: Inputs) -> Step:
        import jax
        import tensorcircuit as tc

        tc.set_backend("jax")
        tc.set_dtype("complex64")

        def one(features: Any, weights: Any) -> Any:
            return values_of(jax.numpy, _tensorcircuit_circuit(tc, circuit, features, weights), circuit)

        def whole(features: Any, weights: Any, cotangent: Any) -> Any:
            values, pull = jax.vjp(jax.vmap(one, in_axes=(0, None)), features, weights)
            return values, *pull(cotangent)

        arguments = [jax.device_put(array) for array in (inputs.features, inputs.weights, inputs.cotangent)]
        compiled = jax.jit(whole).lower(*arguments).compile()

        def step() -> Outcome:
            values, features, weights = jax.block_until_ready(compiled(*arguments))
            return np.asarray(values), np.asarray(features), np.asarray(weights)

        return step

    return prepare


def _tensorcircuit_circuit(tc: Any, circuit: qu.Circuit, features: Any, weights: Any) -> Any:
    made = tc.Circuit(circuit.qubits)
    for gate in circuit.gates:
        if gate.name in _MATRICES:
            made.any(*gate.wires, unitary=_MATRICES[gate.name])
            continue
        angle = None if gate.angle is None else angle_of(gate.angle, features.__getitem__, weights.__getitem__)
        keywords = {} if angle is None else {"theta": angle}
        getattr(made, _TENSORCIRCUIT.get(gate.name, gate.name))(*gate.wires, **keywords)
    return made


def _by_contraction(jnp: Any, made: Any, circuit: qu.Circuit) -> Any:
    """Each observable by the library's own call, which contracts it with the kept state."""
    wires = [
        {letter.lower(): [wire for wire, found in enumerate(word) if found == letter] for letter in "XYZ"}
        for word in circuit.observables
    ]
    return jnp.stack([jnp.real(made.expectation_ps(**each)) for each in wires])


def _by_marginals(jnp: Any, made: Any, circuit: qu.Circuit) -> Any:
    """Products of Z from the probabilities of the state, written by hand; other observables by contraction."""
    if set("".join(circuit.observables)) - set("IZ"):
        return _by_contraction(jnp, made, circuit)
    state = made.state()
    chances = jnp.real(state * jnp.conj(state)).reshape([2] * circuit.qubits)
    return jnp.stack([_signed_sum(jnp, chances, word) for word in circuit.observables])


def _signed_sum(jnp: Any, chances: Any, word: str) -> Any:
    kept = chances.sum(axis=tuple(wire for wire, letter in enumerate(word) if letter == "I"))
    for _ in range(kept.ndim):
        kept = kept[0] - kept[1]
    return jnp.asarray(kept)


# ---- DeepQuantum


def _deepquantum(circuit: qu.Circuit, inputs: Inputs) -> Step:
    import deepquantum as dq

    features, weights, cotangent = _tensors(inputs)
    made, encoded, trained = dq.QubitCircuit(circuit.qubits), [], []
    for gate in circuit.gates:
        if gate.name == "id":
            continue
        if gate.name == "sx":
            made.any(_SX.tolist(), wires=list(gate.wires))
        elif gate.angle is None:
            getattr(made, gate.name)(*_deepquantum_wires(gate))
        elif gate.angle.factors:
            getattr(made, gate.name)(*_deepquantum_wires(gate), encode=True)
            encoded.append(gate.angle)
        else:
            getattr(made, gate.name)(*_deepquantum_wires(gate))
            trained.append((gate.angle, made.operators[-1]))
    for word in circuit.observables:
        wires = [wire for wire, letter in enumerate(word) if letter != "I"]
        made.observable(wires, basis="".join(word[wire].lower() for wire in wires))
    for angle, operator in trained:
        operator.init_para(torch.tensor(float(angle_of(angle, lambda _: 0.0, inputs.weights.__getitem__))))
    own = [operator.theta for _, operator in trained]
    place = torch.tensor([circuit.weights if angle.weight is None else angle.weight for angle, _ in trained])
    scale = torch.tensor([angle.scale for angle, _ in trained])

    def step() -> Outcome:
        columns = [angle_of(angle, lambda k: features[:, k], lambda k: weights[k]) for angle in encoded]
        made(data=torch.stack(columns, -1))
        values = made.expectation()
        direct = torch.autograd.grad(values, [features, weights, *own], cotangent, allow_unused=True)
        sums = torch.zeros(circuit.weights + 1)
        if own:
            sums.index_add_(0, place, torch.stack([_or_zero(part) for part in direct[2:]]) * scale)
        return _arrays(values, direct[0], sums[:-1] + _or_zero(direct[1]))

    return step


def _deepquantum_wires(gate: Any) -> list[Any]:
    """Two-qubit gates with a control take control and target, the others a list of wires."""
    return list(gate.wires) if len(gate.wires) == 1 or gate.name.startswith("c") else [list(gate.wires)]


def _or_zero(gradient: Tensor | None) -> Tensor:
    return torch.zeros(()) if gradient is None else gradient


_ALL = (
    Peer("fused", "fused (ours)", ("numba",), _ours("fused")),
    Peer("torch", "torch (ours)", ("torch",), _ours("torch")),
    Peer(
        "pennylane-one", "PennyLane, one by one", ("pennylane",),
        _pennylane("default.qubit", "backprop", batched=False),
    ),
    Peer(
        "pennylane", "PennyLane, broadcast", ("pennylane",),
        _pennylane("default.qubit", "backprop", batched=True),
    ),
    Peer(
        "lightning", "PennyLane lightning", ("pennylane", "pennylane_lightning"),
        _pennylane("lightning.qubit", "adjoint", batched=True),
    ),
    Peer(
        "tensorcircuit", "TensorCircuit-NG", ("tensorcircuit-ng", "jax"), _tensorcircuit(_by_contraction),
        compiles=True,
    ),
    Peer(
        "tensorcircuit-z", "TensorCircuit-NG, Z by hand", ("tensorcircuit-ng", "jax"),
        _tensorcircuit(_by_marginals), compiles=True,
    ),
    Peer("deepquantum", "DeepQuantum", ("deepquantum",), _deepquantum),
)  # fmt: skip
PEERS: dict[str, Peer] = {peer.key: peer for peer in _ALL}
OURS = ("fused", "torch")
