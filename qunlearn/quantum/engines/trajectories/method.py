"""How the runs of a circuit are done: what its values are made of, and which engine computes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial

import numpy as np
from torch import Tensor

from qunlearn.quantum.circuit import Circuit, Gate
from qunlearn.quantum.engines import find_engine, torch_engine
from qunlearn.quantum.engines.program import Program, assemble
from qunlearn.quantum.engines.schedule import Schedule
from qunlearn.quantum.engines.trajectories.branches import Floats
from qunlearn.quantum.engines.trajectories.frames import Framed, frame
from qunlearn.quantum.sampling import readout_mixture

Run = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Method:
    """What runs a circuit once the branches of all runs are drawn.

    Attributes:
        framed: the circuit with its errors as further features.
        engine: what computes the values.
        values: from features and weights to the values of Pauli strings ``(rows, strings)``, but for their signs.
        states: from features and weights to flat states ``(rows, 2**qubits)``, but for flips of wires.
        readout: what the observables are in terms of the strings, ``(strings, observables)``.
        constant: what is added to the observables, ``(observables,)``.
    """

    framed: Framed
    engine: str
    values: Run
    states: Run
    readout: Floats
    constant: Floats


@lru_cache(maxsize=256)
def find_method(circuit: Circuit, engine: str, everything: bool = False) -> Method:
    """The method of a circuit; with `everything`, also what no observable depends on is run."""
    strings, matrix = readout_mixture(circuit.observables, circuit.readout)
    known = np.array([set(word) == {"I"} for word in strings])
    if known.all():  # there must be something to measure
        known[0] = False
    bare = replace(circuit, observables=tuple(np.array(strings)[~known].tolist()), readout=())
    framed = frame(bare, everything)
    bare = replace(bare, channels=())

    @cache
    def program() -> Program:  # made when it is needed: it holds a number for each basis state and angle
        return assemble(bare, Schedule(circuit.qubits).run(framed.steps))

    def states(features: Tensor, weights: Tensor) -> Tensor:
        return torch_engine.final_state(program(), features, weights)

    gates = tuple(step for step in framed.steps if isinstance(step, Gate))
    if len(gates) < len(framed.steps) or circuit.amplitude:
        # An engine's circuits have no tilts, and no features besides amplitudes; a program may have both.
        engine, values = "torch", partial(torch_engine.evaluate, program())
    else:
        width = circuit.features + framed.turned.shape[1]
        values = partial(find_engine(engine), replace(bare, gates=gates, features=width))
    return Method(framed, engine, values, states, matrix[~known], matrix[known].sum(0))
