"""What a circuit is: frozen data, with no way to run itself.

Engines, PennyLane, Qiskit and OpenQASM 3 all read this one description. Wire i is axis i of the state.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from qunlearn.errors import CorruptFileError, InputError
from qunlearn.quantum.channels import channel as channel_spec
from qunlearn.quantum.gates import gate as gate_spec

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

    from qunlearn.quantum.noise import NoiseModel

FORMAT = 1


@dataclass(frozen=True)
class Factor:
    """One factor of an angle: sign * feature + shift (the feature is in the unit that the encoding states)."""

    feature: int
    sign: float = 1.0
    shift: float = 0.0


@dataclass(frozen=True)
class Angle:
    """An angle in radians: scale * product(factors) * weight + offset; absent parts count as 1.

    With no factor and no weight the angle is the constant `offset`, whatever the scale.
    """

    scale: float = 1.0
    factors: tuple[Factor, ...] = ()
    weight: int | None = None
    offset: float = 0.0

    @property
    def constant(self) -> bool:
        """Whether neither features nor weights enter."""
        return not self.factors and self.weight is None


@dataclass(frozen=True)
class Gate:
    """A gate of the table on some wires; `layer` is the 0-based layer it belongs to, or None."""

    name: str
    wires: tuple[int, ...]
    angle: Angle | None = None
    layer: int | None = None

    def __str__(self) -> str:
        return f"{self.name}{list(self.wires)}"


@dataclass(frozen=True)
class Channel:
    """A channel of the table that strikes some wires after a gate.

    Attributes:
        name: a row of `CHANNELS`.
        wires: on which it acts, together; one wire, or two for depolarizing.
        strengths: its parameters, in the order of the table.
        after: index of the gate after which it strikes, -1 for before the first. Where several strike after one
            gate, they do in the order in which the circuit lists them.
    """

    name: str
    wires: tuple[int, ...]
    strengths: tuple[float, ...]
    after: int

    def __str__(self) -> str:
        return f"{self.name}{list(self.wires)}"


@dataclass(frozen=True)
class Circuit:
    """A circuit at a given size: hashable, comparable, and a JSON round trip.

    Attributes:
        qubits: number of wires, at least 1.
        gates: in the order in which they act.
        observables: Pauli strings such as ``"ZII"``; character i acts on wire i.
        features: how many scalars a sample has.
        weights: how many scalars are trained; index in program order.
        amplitude: whether the state starts as the features, zero-padded to ``2**qubits`` and normalised,
            instead of as ``|0...0>``.
        card: name of the card it was made from, or "".
        depth: number of layers.
        settings: the other knobs it was made with, as sorted (name, value) pairs.
        channels: the noise between the gates; () for none.
        readout: for each wire the probabilities (of reading 1 where it is 0, of reading 0 where it is 1); () for none.

    Raises:
        InputError: for a gate outside the table, on wrong wires, or with a feature or weight out of range; for a
            channel outside its table, on wrong wires, or with strengths out of range.
    """

    qubits: int
    gates: tuple[Gate, ...]
    observables: tuple[str, ...]
    features: int
    weights: int
    amplitude: bool = False
    card: str = ""
    depth: int = 0
    settings: tuple[tuple[str, str], ...] = field(default=())
    channels: tuple[Channel, ...] = ()
    readout: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        if self.qubits < 1:
            raise InputError(f"expected at least 1 qubit, got {self.qubits}")
        for number, gate in enumerate(self.gates):
            self._check_gate(number, gate)
        if self.amplitude and not 1 <= self.features <= 2**self.qubits:
            raise InputError(
                f"expected 1 to {2**self.qubits} features for amplitude encoding on {self.qubits} qubits, "
                f"got {self.features}"
            )
        if not self.observables:
            raise InputError("expected at least one observable, got none")
        for observable in self.observables:
            if len(observable) != self.qubits or set(observable) - set("IXYZ"):
                raise InputError(
                    f"expected a Pauli string of {self.qubits} characters from I, X, Y, Z, got {observable!r}"
                )
        for number, channel in enumerate(self.channels):
            self._check_channel(number, channel)
        self._check_readout()

    @cached_property
    def _hash(self) -> int:
        noise = (self.channels, self.readout) if self.noisy else ()
        return hash((self.qubits, self.gates, self.observables, self.features, self.weights, self.amplitude, *noise))

    def __hash__(self) -> int:
        return self._hash  # kept: engines look compiled circuits up on every call

    @cached_property
    def _json(self) -> str:
        data = asdict(self)
        for key in ("channels", "readout"):  # left out where there are none, so that what was written stays the same
            if not data[key]:
                del data[key]
        return json.dumps({"format": FORMAT, **data}, sort_keys=True)

    def __reduce__(self) -> tuple[Any, ...]:
        # Without the kept hash, which differs between processes.
        return Circuit, tuple(getattr(self, f.name) for f in fields(self))

    def __deepcopy__(self, memo: dict[int, Any]) -> Circuit:
        return self

    def _check_gate(self, number: int, gate: Gate) -> None:
        place, spec = f"gate {number} ({gate})", gate_spec(gate.name)
        if len(gate.wires) != spec.wires or len(set(gate.wires)) != len(gate.wires):
            raise InputError(f"{place}: expected {spec.wires} different wires, got {list(gate.wires)}")
        if any(not 0 <= wire < self.qubits for wire in gate.wires):
            raise InputError(f"{place}: expected wires from 0 to {self.qubits - 1}, got {list(gate.wires)}")
        if (gate.angle is not None) != spec.has_angle:
            raise InputError(f"{place}: expected {'an angle' if spec.has_angle else 'no angle'}")
        if gate.angle is None:
            return
        weight = gate.angle.weight
        if weight is not None and not 0 <= weight < self.weights:
            raise InputError(f"{place}: expected a weight from 0 to {self.weights - 1}, got {weight}")
        for factor in gate.angle.factors:
            if not 0 <= factor.feature < self.features:
                raise InputError(f"{place}: expected a feature from 0 to {self.features - 1}, got {factor.feature}")

    def _check_channel(self, number: int, channel: Channel) -> None:
        place = f"channel {number} ({channel})"
        spec, wires = channel_spec(channel.name), channel.wires
        if len(set(wires)) != len(wires) or any(not 0 <= wire < self.qubits for wire in wires):
            raise InputError(f"{place}: expected different wires from 0 to {self.qubits - 1}, got {list(wires)}")
        if not -1 <= channel.after < len(self.gates):
            raise InputError(f"{place}: expected after from -1 to {len(self.gates) - 1}, got {channel.after}")
        spec.check(channel.strengths, len(wires))

    def _check_readout(self) -> None:
        if len(self.readout) not in (0, self.qubits):
            raise InputError(f"expected readout errors of {self.qubits} wires or of none, got {len(self.readout)}")
        for wire, pair in enumerate(self.readout):
            if len(pair) != 2 or not all(0 <= share <= 1 for share in pair):
                raise InputError(
                    f"expected two probabilities from 0 to 1 as readout error of wire {wire}, P(read 1 | 0) and "
                    f"P(read 0 | 1), got {pair!r}"
                )

    @property
    def noisy(self) -> bool:
        """Whether it has channels or readout errors."""
        return bool(self.channels or self.readout)

    @cached_property
    def steps(self) -> tuple[Gate | Channel, ...]:
        """Gates and channels, in the order in which they act."""
        struck: dict[int, list[Channel]] = {}
        for channel in self.channels:
            struck.setdefault(channel.after, []).append(channel)
        found: list[Gate | Channel] = [*struck.get(-1, [])]
        for number, gate in enumerate(self.gates):
            found += [gate, *struck.get(number, [])]
        return tuple(found)

    def without_noise(self) -> Circuit:
        """The same circuit without channels and readout errors."""
        return replace(self, channels=(), readout=()) if self.noisy else self

    def with_noise(self, noise: NoiseModel | Mapping[str, Any]) -> Circuit:
        """The same circuit with this noise, in place of any that it had.

        >>> from qunlearn.quantum.card import load_circuit
        >>> noisy = load_circuit("ring-cz", qubits=3).with_noise({"depolarizing": 0.01, "readout": 0.02})
        >>> len(noisy.channels), noisy.readout[0]
        (3, (0.02, 0.02))

        Args:
            noise: a `NoiseModel`, or a table such as ``{"depolarizing": 0.01, "after": "two-qubit"}`` (see
                `NoiseModel.read`). Noise of strength zero leaves no trace.
        """
        from qunlearn.quantum.noise import NoiseModel

        model = noise if isinstance(noise, NoiseModel) else NoiseModel.read(noise)
        return model.apply(self)

    def to_json(self) -> str:
        """The circuit as JSON text, from which `from_json` makes an equal one."""
        return self._json

    @classmethod
    def from_json(cls, text: str) -> Circuit:
        """The circuit that `to_json` wrote. Raises `CorruptFileError` where the text is something else."""
        return _read(text)

    def to_pennylane(self) -> Callable[..., Any]:
        """A function (features, weights) that returns expectation values, to wrap in a QNode.

        Features ``(batch, features)`` or ``(features,)``, weights ``(weights,)``.
        """
        from qunlearn.quantum import convert

        return convert.to_pennylane(self)

    def to_qiskit(self) -> QuantumCircuit:
        """A Qiskit circuit with ParameterVectors ``x`` and ``w``. Bind them by object, never by position."""
        from qunlearn.quantum import convert

        return convert.to_qiskit(self)

    def to_openqasm3(self) -> str:
        """The circuit as OpenQASM 3 text with one ``input`` for every feature and weight."""
        from qunlearn.quantum import convert

        return convert.to_openqasm3(self)

    @classmethod
    def from_pennylane(cls, source: Any, *, features: int = 0, weights: int | tuple[int, ...] = 0) -> Circuit:
        """A circuit from a PennyLane quantum function of (features, weights), or from a tape.

        `features` and `weights` are how many of them it takes; weights may also be the shape of an array.
        """
        from qunlearn.quantum import convert

        return convert.from_pennylane(source, features=features, weights=weights)

    @classmethod
    def from_qiskit(cls, source: QuantumCircuit) -> Circuit:
        """A circuit from a Qiskit circuit; a ParameterVector ``x`` becomes the features, all else weights."""
        from qunlearn.quantum import convert

        return convert.from_qiskit(source)

    @classmethod
    def from_openqasm3(cls, text: str) -> Circuit:
        """A circuit from OpenQASM 3 text."""
        from qunlearn.quantum import convert

        return convert.from_openqasm3(text)

    def __str__(self) -> str:
        from qunlearn.quantum.describe import draw

        return draw(self)


@lru_cache(maxsize=64)
def _read(text: str) -> Circuit:
    """The circuit of a JSON text; a study reads the same one for every model."""
    try:
        data = json.loads(text)
        if data.pop("format") != FORMAT:
            raise KeyError("format")
        data["gates"] = tuple(_read_gate(row) for row in data["gates"])
        data["observables"] = tuple(data["observables"])
        data["settings"] = tuple((name, value) for name, value in data["settings"])
        data["channels"] = tuple(_read_channel(row) for row in data.get("channels", ()))
        data["readout"] = tuple((float(one), float(zero)) for one, zero in data.get("readout", ()))
        return Circuit(**data)
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptFileError(f"expected a circuit as JSON (format {FORMAT}), got {text[:60]!r}") from error


def _read_gate(row: dict[str, Any]) -> Gate:
    angle = row["angle"]
    if angle is not None:
        factors = tuple(Factor(**factor) for factor in angle["factors"])
        angle = Angle(angle["scale"], factors, angle["weight"], angle["offset"])
    return Gate(row["name"], tuple(row["wires"]), angle, row["layer"])


def _read_channel(row: dict[str, Any]) -> Channel:
    strengths = tuple(float(value) for value in row["strengths"])
    return Channel(row["name"], tuple(row["wires"]), strengths, row["after"])
