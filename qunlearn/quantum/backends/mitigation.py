"""Error mitigation in three steps: construct the circuits, execute them (elsewhere), combine their counts.

Readout errors are inverted from measured calibration circuits; gate noise is extrapolated away from circuits whose
two-qubit gates were folded after transpiling; dynamical decoupling and twirling are the Sampler's own options.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from qunlearn.errors import InputError, NumericalError, UnknownNameError, UnsupportedError
from qunlearn.quantum.backends.extrapolation import EXTRAPOLATORS, extrapolate
from qunlearn.quantum.backends.transpiling import REGISTER, Prepared, bind, outcomes

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SEQUENCES = ("XX", "XpXm", "XY4")
_SELF_INVERSE = {"cx", "cz", "ecr", "swap"}
_LEAST_CONTRAST = 0.02  # of P(read 0 | 0) - P(read 0 | 1), below which a readout tells nothing


@dataclass(frozen=True)
class Cost:
    """What mitigation adds to a run.

    Attributes:
        circuits: how many circuits each circuit becomes.
        calibration: circuits added for each layout, whatever the number of samples.
        two_qubit_gates: how many two-qubit gates are run for each one of the circuit, over all its copies.
        errors: by what the standard error of a value is multiplied, at least, by the extrapolation; 1 without.
    """

    circuits: int
    calibration: int
    two_qubit_gates: int
    errors: float

    def total(self, rows: int, bases: int = 1, layouts: int = 1) -> int:
        """The circuits of `rows` rows of angles in `bases` bases, calibration included."""
        return rows * bases * self.circuits + layouts * self.calibration


@dataclass(frozen=True)
class Mitigation:
    """What is done against errors; nothing by default.

    Attributes:
        readout: measure each wire's confusion matrix with two calibration circuits, and invert them.
        zne: factors by which two-qubit noise is stretched, odd, from 1 on, such as (1, 3, 5); () for none.
            Source: Temme, Bravyi & Gambetta 2017, arXiv 1612.02058; folding: Giurgica-Tiron et al. 2020,
            arXiv 2005.10921, here of two-qubit gates only.
        extrapolator: of zne, to noise 0: "linear" (least squares; few shots, little noise), "richardson" (exact for
            polynomials, costs most shots) or "exponential" (a decay to 0, as depolarizing noise makes it; linear where
            the values don't show one).
        dynamical_decoupling: "XX", "XpXm" or "XY4" on idle qubits, or None.
        twirling: of two-qubit gates and measurements by random Paulis. It rounds the shots up, see `shots_taken`.

    Raises:
        InputError: for an option out of range.
    """

    readout: bool = False
    zne: tuple[int, ...] = ()
    extrapolator: Literal["linear", "richardson", "exponential"] = "exponential"
    dynamical_decoupling: str | None = None
    twirling: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "zne", tuple(self.zne))
        odd = all(isinstance(f, int) and f > 0 and f % 2 for f in self.zne)
        if self.zne and not (odd and self.zne[0] == 1 and len(self.zne) > 1 and sorted(set(self.zne)) == [*self.zne]):
            raise InputError(f"expected zne as rising odd factors from 1 on, such as (1, 3, 5), got {self.zne}")
        if self.extrapolator not in EXTRAPOLATORS:
            raise UnknownNameError("extrapolator", self.extrapolator, EXTRAPOLATORS)
        if self.dynamical_decoupling not in (None, *SEQUENCES):
            raise UnknownNameError("decoupling sequence", self.dynamical_decoupling, SEQUENCES)

    @property
    def factors(self) -> tuple[int, ...]:
        """By what noise is stretched in the copies of a circuit; (1,) without extrapolation."""
        return self.zne or (1,)

    def cost(self) -> Cost:
        """What this adds to a run."""
        return Cost(
            circuits=len(self.factors),
            calibration=2 if self.readout else 0,
            two_qubit_gates=sum(self.factors),
            errors=_error_growth(self.factors, self.extrapolator) if self.zne else 1.0,
        )

    def sampler_options(self) -> dict[str, Any]:
        """The options of the runtime's Sampler for decoupling and twirling."""
        options: dict[str, Any] = {}
        if self.dynamical_decoupling is not None:
            options["dynamical_decoupling"] = {"enable": True, "sequence_type": self.dynamical_decoupling}
        if self.twirling:
            options["twirling"] = {"enable_gates": True, "enable_measure": True}
        return options

    def shots_taken(self, shots: int) -> int:
        """The shots that the Sampler really takes of a circuit: with twirling, whole randomizations."""
        if not self.twirling:
            return shots
        each = max(64, math.ceil(shots / 32))
        return each * math.ceil(shots / each)

    def to_dict(self) -> dict[str, Any]:
        """The options as JSON takes them; ``Mitigation(**options)`` reads them."""
        return {**asdict(self), "zne": list(self.zne)}


def _error_growth(factors: tuple[int, ...], extrapolator: str) -> float:
    ones = np.ones((len(factors), 1))
    _, slopes = extrapolate(factors, ones, ones, extrapolator)
    return float(np.sqrt((slopes**2).sum()))


@dataclass(frozen=True, eq=False)
class Piece:
    """One circuit of the work.

    Attributes:
        kind: "main", "folded" (of an extrapolation), or "calibration" (of the readout).
        factor: by what its noise is stretched.
        basis: index of the basis; of a calibration, of the first basis with its layout.
        state: what a calibration prepares on every wire, 0 or 1; None for others.
        circuit: in the device's gates, register ``"c"`` with wire i in bit i.
    """

    kind: Literal["main", "folded", "calibration"]
    factor: int
    basis: int
    state: int | None
    circuit: QuantumCircuit

    @property
    def takes_rows(self) -> bool:
        """Whether the circuit is run once for every row of angles; a calibration is run once."""
        return self.kind != "calibration"


@dataclass(frozen=True, eq=False)
class Work:
    """All circuits of a prepared circuit under a mitigation, in the order in which they are run."""

    prepared: Prepared
    mitigation: Mitigation
    pieces: tuple[Piece, ...]

    def pubs(self, angles: Floats) -> list[tuple[Any, ...]]:
        """One PUB a piece, with the rows ``(rows, K)`` as broadcast parameters where the piece takes them."""
        return [bind(piece.circuit, angles) if piece.takes_rows else (piece.circuit,) for piece in self.pieces]

    def counts(self, results: Sequence[Any], rows: int | None = None) -> list[Ints]:
        """What the Sampler's results of `pubs` counted, ``(rows, 2**qubits)`` a piece, ``(1, ...)`` a calibration."""
        qubits = self.prepared.circuit.qubits
        return [
            outcomes(result, qubits, rows if piece.takes_rows else None)
            for piece, result in zip(self.pieces, results, strict=True)
        ]

    def circuits(self, rows: int) -> int:
        """How many circuits run for so many rows of angles."""
        return sum(rows if piece.takes_rows else 1 for piece in self.pieces)


def construct(prepared: Prepared, mitigation: Mitigation) -> Work:
    """The circuits that a mitigation needs.

    Raises:
        UnsupportedError: for folding two-qubit gates that are not their own inverse.
    """
    pieces = [
        Piece("main" if factor == 1 else "folded", factor, basis, None, fold(circuit, factor))
        for factor in mitigation.factors
        for basis, circuit in enumerate(prepared.isa)
    ]
    for basis in sorted({prepared.layouts.index(layout) for layout in prepared.layouts} if mitigation.readout else ()):
        width, layout = prepared.isa[basis].num_qubits, prepared.layouts[basis]
        pieces += [Piece("calibration", 1, basis, state, _calibration(width, layout, state)) for state in (0, 1)]
    return Work(prepared, mitigation, tuple(pieces))


def fold(circuit: QuantumCircuit, factor: int) -> QuantumCircuit:
    """The circuit with every two-qubit gate G as G (G^-1 G)^((factor - 1) / 2); after transpiling, so that it stays.

    Raises:
        InputError: for a factor that is even or below 1.
        UnsupportedError: for a two-qubit gate that is not its own inverse, which the device may lack.
    """
    if factor < 1 or factor % 2 == 0:
        raise InputError(f"expected an odd factor of at least 1, got {factor}")
    if factor == 1:
        return circuit
    folded = circuit.copy_empty_like()
    for row in circuit.data:
        two = len(row.qubits) == 2 and row.operation.name != "barrier"
        if two and row.operation.name not in _SELF_INVERSE:
            raise UnsupportedError(
                f"expected two-qubit gates that are their own inverse for folding, got {row.operation.name}; take the "
                "device without fractional gates"
            )
        for _ in range(factor if two else 1):
            folded._append(row)
    return folded


def _calibration(width: int, layout: Sequence[int], state: int) -> QuantumCircuit:
    """All wires prepared in 0 or in 1, on the qubits where they are measured."""
    from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister

    made = QuantumCircuit(QuantumRegister(width, "q"), ClassicalRegister(len(layout), REGISTER))
    if state:
        made.x(layout)
    made.measure(layout, range(len(layout)))
    return made


@dataclass(frozen=True)
class Confusion:
    """Measured readout errors of the wires, and what is not known of them.

    Attributes:
        up: P(read 1 | 0) of every wire, ``(qubits,)``.
        down: P(read 0 | 1) of every wire, ``(qubits,)``.
        variances: of both, ``(qubits, 2)``.
    """

    up: Floats
    down: Floats
    variances: Floats

    @classmethod
    def measured(cls, zeros: Ints, ones: Ints) -> Confusion:
        """From the counts ``(2**qubits,)`` of the circuits that prepare 0 and 1 on all wires.

        Raises:
            NumericalError: for a wire whose readout hardly depends on its state.
        """
        up, down = _frequency_of_one(zeros), 1 - _frequency_of_one(ones)
        for wire in np.flatnonzero(np.abs(1 - up - down) < _LEAST_CONTRAST):
            raise NumericalError(
                f"expected a readout that tells 0 from 1, got P(1|0) = {up[wire]:.3f} and P(0|1) = {down[wire]:.3f} on "
                f"wire {wire}; take another layout"
            )
        smooth = [((c * n + 1) / (n + 2), n) for c, n in ((up, zeros.sum()), (down, ones.sum()))]
        return cls(up, down, np.stack([p * (1 - p) / n for p, n in smooth], axis=1))

    def letters(self, wire: int) -> Floats:
        """What outcome 0 and 1 of a wire count for Z, ``(3, 2)``: the value, its slopes by `up` and by `down`."""
        p, q = self.up[wire], self.down[wire]
        d = 1 - p - q
        return np.array(
            [
                [(1 + p - q) / d, (p - q - 1) / d],
                [2 * (1 - q) / d**2, -2 * q / d**2],
                [2 * p / d**2, 2 * (p - 1) / d**2],
            ]
        )


def _frequency_of_one(counts: Ints) -> Floats:
    """How often each wire was read as 1, ``(qubits,)``, from counts ``(2**qubits,)``."""
    qubits = counts.shape[-1].bit_length() - 1
    grid = counts.reshape((2,) * qubits) / counts.sum()
    return np.array([np.take(grid, 1, axis=wire).sum() for wire in range(qubits)])


def combine(work: Work, counts: Sequence[Ints]) -> tuple[Floats, Floats]:
    """Expectation values and their standard errors, both ``(rows, observables)``.

    The errors are those of the shots, of the calibration where there is one (which all rows share), and of the
    extrapolation for given noise; that real noise may not follow the extrapolator's law is not in them.

    Args:
        work: what was run.
        counts: for every piece in order, ``(rows, 2**qubits)``, or ``(1, 2**qubits)`` for a calibration.
    """
    circuit, factors = work.prepared.circuit, work.mitigation.factors
    found = {(p.kind == "calibration", p.factor, p.basis, p.state): c for p, c in zip(work.pieces, counts, strict=True)}
    rows = len(found[False, 1, 0, None])
    values, errors = np.empty((2, rows, len(circuit.observables)))
    for number, basis in enumerate(work.prepared.bases):
        words = [circuit.observables[index] for index in basis.observables]
        confusion = None
        if work.mitigation.readout:
            first = work.prepared.layouts.index(work.prepared.layouts[number])
            confusion = Confusion.measured(*(found[True, 1, first, state][0] for state in (0, 1)))
        read = [_read(found[False, factor, number, None], words, confusion) for factor in factors]
        columns = list(basis.observables)
        values[:, columns], errors[:, columns] = _to_zero(read, work.mitigation, confusion)
    return values, errors


@dataclass(frozen=True)
class _Read:
    """Values ``(rows, words)``, variances by shots, and slopes by the readout errors ``(rows, words, qubits, 2)``."""

    values: Floats
    variances: Floats
    slopes: Floats


def _read(counts: Ints, words: Sequence[str], confusion: Confusion | None) -> _Read:
    """Means of what every shot counts for each word, readout errors inverted where they are known."""
    rows, qubits = len(counts), counts.shape[1].bit_length() - 1
    shots = counts.sum(1, keepdims=True)
    frequencies = counts / shots
    values, variances = np.empty((2, rows, len(words)))
    slopes = np.zeros((rows, len(words), qubits, 2))
    for column, word in enumerate(words):
        wires = [wire for wire, letter in enumerate(word) if letter != "I"]
        table = {w: np.array([[1.0, -1.0]]) if confusion is None else confusion.letters(w) for w in wires}
        one_shot = _outcomes(qubits, {w: table[w][0] for w in wires})
        values[:, column] = frequencies @ one_shot
        second = frequencies @ one_shot**2
        variances[:, column] = np.clip(second - values[:, column] ** 2, 0, None) / np.maximum(shots[:, 0] - 1, 1)
        for wire in wires if confusion is not None else ():
            for which in (0, 1):
                changed = {w: table[w][1 + which if w == wire else 0] for w in wires}
                slopes[:, column, wire, which] = frequencies @ _outcomes(qubits, changed)
    return _Read(values, variances, slopes)


def _outcomes(qubits: int, letters: dict[int, Floats]) -> Floats:
    """What every outcome counts, ``(2**qubits,)``: the product over wires of what their bits count."""
    product: Floats = np.ones(1)
    for wire in range(qubits):
        product = np.multiply.outer(product, letters.get(wire, np.ones(2))).ravel()
    return product


def _to_zero(read: list[_Read], mitigation: Mitigation, confusion: Confusion | None) -> tuple[Floats, Floats]:
    """Values and standard errors at noise 0, or as they are where nothing is extrapolated."""
    values, variances = np.stack([r.values for r in read]), np.stack([r.variances for r in read])
    if mitigation.zne:
        best, by_value = extrapolate(mitigation.zne, values, np.sqrt(variances), mitigation.extrapolator)
    else:
        best, by_value = values[0], np.ones_like(values)
    total = (by_value**2 * variances).sum(0)
    if confusion is not None:
        by_readout = np.einsum("frw,frwqs->rwqs", by_value, np.stack([r.slopes for r in read]))
        total = total + (by_readout**2 * confusion.variances).sum((2, 3))
    return best, np.sqrt(total)
