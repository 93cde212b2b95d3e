"""Noise as data: which channels strike where, as a model that turns a circuit into a noisy one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qunlearn.errors import InputError, UnknownNameError
from qunlearn.quantum.channels import CHANNELS, ChannelSpec, channel
from qunlearn.quantum.circuit import Channel, Circuit, Gate
from qunlearn.quantum.gates import GATES

__all__ = ["CHANNELS", "PLACES", "ChannelSpec", "NoiseModel", "Strike", "channel"]

Readout = tuple[tuple[float, float], ...]
Place = tuple[str, tuple[int, ...] | None]
#: After every gate, every gate on one or on two wires; on every wire after each upload of features, after each
#: layer, before the first and after the last gate. The name of a gate is a place too.
PLACES = ("gate", "one-qubit", "two-qubit", "encoding", "layer", "start", "end")
_ON_ALL_WIRES = ("encoding", "layer", "start", "end")
_STRIKE_KEYS = ("channel", "strengths", "after", "wires")


@dataclass(frozen=True)
class Strike:
    """One kind of noise and where it strikes.

    Attributes:
        channel: a row of `CHANNELS`.
        strengths: its parameters, in the order of the table.
        after: one of `PLACES`, or the name of a gate. Depolarizing strikes both wires of a two-qubit gate together;
            all else strikes wire by wire.
        wires: only gates on exactly these wires, in order; or, for places that strike every wire, only these wires.
    """

    channel: str
    strengths: tuple[float, ...]
    after: str = "two-qubit"
    wires: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        channel(self.channel).check(self.strengths)
        check_place(self.after)
        if any(not isinstance(wire, int) for wire in self.wires or ()):
            raise InputError(f"expected numbers of wires for noise, got {self.wires!r}")
        # So that 50 and 50.0 are written alike.
        object.__setattr__(self, "strengths", tuple(float(value) for value in self.strengths))

    @classmethod
    def read(cls, table: Mapping[str, Any]) -> Strike:
        """The strike of a table with the attributes as keys; ``strengths`` may be a single number."""
        if not isinstance(table, Mapping) or "channel" not in table or "strengths" not in table:
            raise InputError(f"expected a table with channel and strengths for a strike of noise, got {table!r}")
        for key in table:
            if key not in _STRIKE_KEYS:
                raise UnknownNameError("key of a strike of noise", key, _STRIKE_KEYS)
        spec, wires = channel(table["channel"]), table.get("wires")
        strengths = read_strengths(spec, table["strengths"])
        return cls(spec.name, strengths, table.get("after", "two-qubit"), None if wires is None else tuple(wires))

    def targets(self, circuit: Circuit) -> Iterator[tuple[int, tuple[int, ...]]]:
        """(index of a gate, wires) for every place that is struck, in order; index -1 is before the first gate."""
        if any(not 0 <= wire < circuit.qubits for wire in self.wires or ()):
            raise InputError(f"expected noise on wires from 0 to {circuit.qubits - 1}, got {list(self.wires or ())}")
        if self.after not in _ON_ALL_WIRES:
            for number, gate in enumerate(circuit.gates):
                if self._meets(gate) and self.wires in (None, gate.wires):
                    yield number, gate.wires
            return
        wires = range(circuit.qubits) if self.wires is None else self.wires
        for number in _moments(circuit, self.after):
            yield from ((number, (wire,)) for wire in wires)

    def _meets(self, gate: Gate) -> bool:
        sizes = {"one-qubit": 1, "two-qubit": 2, "gate": len(gate.wires)}
        return gate.name == self.after or sizes.get(self.after) == len(gate.wires)

    def channels(self, circuit: Circuit) -> Iterator[Channel]:
        """The channels that it puts into a circuit."""
        widest = CHANNELS[self.channel].widest
        for number, wires in self.targets(circuit):
            for group in [wires] if len(wires) <= widest else [(wire,) for wire in wires]:
                yield Channel(self.channel, group, self.strengths, number)


def check_place(after: object) -> None:
    """Refuse what is no place for noise, naming the nearest."""
    if after not in PLACES and after not in GATES:
        raise UnknownNameError("place of noise", after, (*PLACES, *GATES))


def _moments(circuit: Circuit, after: str) -> list[int]:
    """Indices of the gates after which a place on all wires comes."""
    if after in ("start", "end"):
        return [-1 if after == "start" else len(circuit.gates) - 1]
    if after == "layer":
        last = {gate.layer: number for number, gate in enumerate(circuit.gates) if gate.layer is not None}
        return sorted(last.values())
    found = [-1] if circuit.amplitude else []
    uploading = False
    for number, gate in enumerate(circuit.gates):
        if gate.angle is not None and gate.angle.factors:
            if uploading:
                found.pop()  # the upload goes on
            found.append(number)
            uploading = True
        elif gate.angle is not None and gate.angle.weight is not None:
            uploading = False
    return found


@dataclass(frozen=True)
class NoiseModel:
    """What strikes a circuit, and the readout errors of its wires.

    Attributes:
        strikes: in the order in which they act where they meet.
        readout: the probability of reading a bit wrongly, the same for all wires; or for each wire
            (P(read 1 | 0), P(read 0 | 1)).
    """

    strikes: tuple[Strike, ...] = ()
    readout: Readout | float = 0.0

    def __post_init__(self) -> None:
        pairs = self.readout if isinstance(self.readout, tuple) else ((self.readout, self.readout),)
        for pair in pairs:
            if len(pair) != 2 or not all(isinstance(p, int | float) and 0 <= p <= 1 for p in pair):
                raise InputError(f"expected readout errors from 0 to 1, got {self.readout!r}")

    @classmethod
    def of(cls, *, readout: Any = 0.0, after: str = "two-qubit", **channels: Any) -> NoiseModel:
        """A model from channels by name, with underscores: ``of(depolarizing=0.01, readout=0.02)``.

        Args:
            readout: a number, a pair (P(read 1 | 0), P(read 0 | 1)), or such a pair for each wire.
            after: where all the channels strike; see `Strike`.
            channels: a number, or for channels of several strengths a list or a table by name.
        """
        return cls.read({**channels, "readout": readout, "after": after})

    @classmethod
    def read(cls, table: Mapping[str, Any], places: Mapping[str, Sequence[Place]] | None = None) -> NoiseModel:
        """A model from a table of channels by name, such as ``{"depolarizing": 0.01, "after": "gate"}``.

        Other keys: ``readout``, ``after``, and ``strikes``, a list of tables with the attributes of `Strike`.

        Args:
            table: as read from TOML or JSON.
            places: for a channel's name, where it strikes unless the table says ``after``: the attributes `after`
                and `wires` of `Strike`.

        Raises:
            UnknownNameError: for an unknown channel or place, with the nearest known name.
            InputError: for strengths out of range.
        """
        if not isinstance(table, Mapping):
            raise InputError(f'expected noise as a table such as {{"depolarizing": 0.01}}, got {table!r}')
        rest = dict(table)
        readout, strikes = _read_readout(rest.pop("readout", 0.0)), rest.pop("strikes", [])
        after = rest.pop("after", None)
        check_place("two-qubit" if after is None else after)
        found = [Strike.read(strike) for strike in strikes]
        for key, value in rest.items():
            name = str(key).replace("_", "-")
            if name not in CHANNELS:
                known = [k.replace("-", "_") for k in CHANNELS] if "-" not in str(key) else CHANNELS
                raise UnknownNameError("channel", key, (*known, "readout", "after", "strikes"))
            strengths = read_strengths(CHANNELS[name], value)
            where = places.get(name, ()) if places and after is None else ()
            found += [Strike(name, strengths, *place) for place in where or [(after or "two-qubit", None)]]
        return cls(tuple(found), readout)

    def to_dict(self) -> dict[str, Any]:
        """The model as JSON values, from which `from_dict` makes an equal one."""
        strikes: list[dict[str, Any]] = []
        for strike in self.strikes:
            wires = {} if strike.wires is None else {"wires": list(strike.wires)}
            strikes.append(
                {"channel": strike.channel, "strengths": list(strike.strengths), "after": strike.after, **wires}
            )
        readout = [list(pair) for pair in self.readout] if isinstance(self.readout, tuple) else self.readout
        return {"strikes": strikes, "readout": readout}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> NoiseModel:
        """The model that `to_dict` wrote."""
        return cls.read(data)

    def apply(self, circuit: Circuit) -> Circuit:
        """The circuit with this noise, in place of any that it had; what has strength zero is left out."""
        channels = [made for strike in self.strikes if _is_felt(strike) for made in strike.channels(circuit)]
        channels.sort(key=lambda made: made.after)  # stable: strikes keep their order where they meet
        readout = self._pairs(circuit.qubits)
        if not any(share for pair in readout for share in pair):
            readout = ()
        if not channels and not readout:
            return circuit.without_noise()
        return dataclasses.replace(circuit, channels=tuple(channels), readout=readout)

    def _pairs(self, qubits: int) -> Readout:
        if not isinstance(self.readout, tuple):
            return ((float(self.readout),) * 2,) * qubits
        pairs = self.readout * qubits if len(self.readout) == 1 else self.readout
        if len(pairs) != qubits:
            raise InputError(f"expected readout errors of {qubits} wires, or one for all, got {len(pairs)}")
        return tuple((float(zero), float(one)) for zero, one in pairs)


def _is_felt(strike: Strike) -> bool:
    """Whether its channel does anything at all."""
    transfer = CHANNELS[strike.channel].transfer(strike.strengths)
    return not np.array_equal(transfer, np.eye(len(transfer)))


def read_strengths(spec: ChannelSpec, value: Any) -> tuple[float, ...]:
    """A channel's strengths, given as a number, as a list in the order of the table, or as a table by name."""
    if isinstance(value, Mapping):
        for key in value:
            if key not in spec.parameters:
                raise UnknownNameError(f"strength of {spec.name}", key, spec.parameters)
        missing = [name for name in spec.parameters[: len(spec.parameters) - spec.optional] if name not in value]
        if missing:
            raise InputError(f"{spec.name}: expected {', '.join(spec.parameters)}, got no {missing[0]}")
        value = [value.get(name, 0.0) for name in spec.parameters]
    values = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    spec.check(values)
    return tuple(float(number) for number in values)


def _read_readout(value: Any) -> Readout | float:
    """Readout errors, given as a number, as a pair for all wires, or as a pair for each wire."""
    if isinstance(value, bool) or not isinstance(value, int | float | Sequence) or isinstance(value, str):
        raise InputError(f"expected readout as a number, a pair, or a pair for each wire, got {value!r}")
    if isinstance(value, int | float):
        return float(value)
    if all(isinstance(part, int | float) for part in value):
        value = [value]
    if not value or any(not isinstance(pair, Sequence) or len(pair) != 2 for pair in value):
        raise InputError(
            f"expected readout as a number, a pair (P(read 1 | 0), P(read 0 | 1)), or one for each wire, got {value!r}"
        )
    pairs = tuple((pair[0], pair[1]) for pair in value)
    return NoiseModel(readout=pairs).readout
