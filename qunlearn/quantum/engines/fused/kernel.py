"""The kernel: runs a tape for many samples, forwards and backwards.

A sample's state stays in cache while the tape runs over it. The backward sweep is the adjoint method: the final state
and the state ``lam = sum_o g_o O_o |psi>`` are both taken back gate by gate, and each gate's *environment*
``F[a, b] = sum conj(lam[a, .]) psi[b, .]``, with ``lam`` after the gate and ``psi`` before it, holds all its
derivatives: dL = 2 Re sum F[a, b] dM[a, b]. No state is kept for a gate, so that memory hardly grows with depth. Source
of the sweep: Jones and Gacon 2020, arXiv 2009.02823.

What depends on weights alone is made once for each set of weights, and its derivative is taken once (`finish`).
Samples come in chunks, as many as a vector has lanes: angles and matrices are made for a chunk at once, states run one
by one, then the chain rule takes the chunk at once. Sums are kept by chunk and added in order, so that results do not
depend on the number of threads. A long state is shared by a team of threads: each takes its part of every step, and
they meet after it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from qunlearn.quantum.engines.fused.angles import (
    angle_line,
    gate_matrix,
    gate_slopes,
    segment_matrix,
    segment_slopes,
    spread_slope,
)
from qunlearn.quantum.engines.fused.simd import arrive, arrived, let_others_run, load, store, total
from qunlearn.quantum.engines.fused.states import (
    add,
    adjoint_of,
    back_high,
    back_low,
    copy,
    fill,
    gather,
    inlined,
    lane_phases,
    measure,
    phase,
    product,
    product_back,
    put,
    rotate,
    rotate_sums,
    rotation_slope,
    scatter,
    sign,
    turn_high,
    turn_low,
)
from qunlearn.quantum.engines.fused.tape import PERMUTE, PHASES, PRODUCT, ROTATE, SIGNS, TURNS

PATIENCE = 2_000  # looks at the meeting before a member gives its core away
_SOURCES = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))


def _entry(function: Callable[..., Any]) -> Any:
    """Compiled, and kept on disk: under a name for the sources of all that it calls, since Numba looks at one alone."""
    function.__qualname__ += f"_{hashlib.sha256(_SOURCES).hexdigest()[:12]}"
    return njit(nogil=True, error_model="numpy", _nrt=False, cache=True)(function)


class Team(NamedTuple):
    """The threads that share a state: which one this is, of how many, how many sections, and where they meet.

    `meeting` holds how often a member has arrived; `shared` and `own` are the memory of the team and of the member.
    """

    member: int
    size: int
    sections: int
    meeting: NDArray[np.int64]
    shared: NDArray[Any]
    own: NDArray[Any]


class Room(NamedTuple):
    """Where samples are computed; the first seven are shared by a team, the rest is each member's own.

    Attributes:
        psi, lam, other: states ``(2, states)``: a sample's, the adjoint one, and one more for permutations.
        levels: product states, ``(2, 2 * states)``.
        line: ``(states,)``.
        environments: of one sample, ``(sections, gates, 8)``.
        sums: of one sample, ``(sections, diagonal gates * 4 * lanes)``.
        matrices: of one sample, ``(gates, 8)``.
        tables: phases of one sample, ``(diagonal gates, 4, 2, lanes)``.
        features, feature_slopes: of a chunk, ``(features, lanes)``.
        trig: cosines and sines of one segment, ``(most turns, 2 * lanes)``.
        parts: matrices of the segments of the gates that depend on features, ``(those segments, 8 * lanes)``.
        own, own_environments: of the gates that depend on features, ``(own gates, 8 * lanes)``.
        angles, slopes: of the diagonal gates, ``(diagonal gates, lanes)``.
        scratch: ``(rows, 8 * lanes)``.
        lanes, lane_bits: numbers in a vector, which are the samples of a chunk; the power of 2 that it is.
    """

    psi: NDArray[Any]
    lam: NDArray[Any]
    other: NDArray[Any]
    levels: NDArray[Any]
    line: NDArray[Any]
    environments: NDArray[Any]
    sums: NDArray[Any]
    matrices: NDArray[Any]
    tables: NDArray[Any]
    features: NDArray[Any]
    feature_slopes: NDArray[Any]
    trig: NDArray[Any]
    parts: NDArray[Any]
    own: NDArray[Any]
    own_environments: NDArray[Any]
    angles: NDArray[Any]
    slopes: NDArray[Any]
    scratch: NDArray[Any]
    lanes: int
    lane_bits: int


@_entry
def forward(tape: Any, features: Any, weights: Any, values: Any, finals: Any, begin: int, end: int, team: Any) -> None:
    """Expectation values of the samples of some chunks, and their final states.

    Args:
        tape: see `tape.Tape`.
        features: ``(1 or replicas, batch, features)``.
        weights: ``(1 or replicas, weights)``.
        values: gets ``(replicas, batch, observables)``.
        finals: gets ``(replicas, batch, 2, states)``, if it has rows.
        begin: the first chunk; each replica has ``ceil(batch / lanes)`` of them.
        end: the chunk after the last.
        team: see `Team`.
    """
    room = _room(tape, team)
    batch, mine = values.shape[1], -1
    for chunk in range(begin, end):
        replica, first, count = _place(chunk, batch, room.lanes)
        samples = features[0 if len(features) == 1 else replica]
        mine = _prepare(tape, room, weights, 0 if len(weights) == 1 else replica, mine)
        _prepare_chunk(tape, room, samples[first : first + count], weights[mine])
        for lane in range(count):
            _prepare_sample(tape, room, lane)
            _run(tape, room, team, samples[first + lane])
            if team.member == 0:
                row = first + lane
                measure(
                    room.psi[0], room.psi[1], room.line, tape.strings, tape.sizes[4], tape.lane_signs,
                    values[replica, row], room.lanes,
                )  # fmt: skip
                if finals.shape[1]:
                    put(finals[replica, row, 0], room.psi[0])
                    put(finals[replica, row, 1], room.psi[1])
            _meet(team)


@_entry
def backward(
    tape: Any, features: Any, weights: Any, finals: Any, slopes: Any, feature_slopes: Any, partial: Any, begin: int,
    end: int, team: Any,
) -> None:  # fmt: skip
    """Derivatives of ``sum(slopes * values)`` by features, and of each chunk what `finish` needs for those by weights.

    Args:
        tape: see `tape.Tape`.
        features: ``(1 or replicas, batch, features)``.
        weights: ``(1 or replicas, weights)``.
        finals: ``(1 or replicas, batch, 2, states)`` as `forward` left them.
        slopes: ``(replicas, batch, observables)``.
        feature_slopes: gets ``(replicas, batch, features)``, if it has rows.
        partial: gets ``(chunks, 8 * segments + diagonal gates + weights)``.
        begin: the first chunk.
        end: the chunk after the last.
        team: see `Team`.
    """
    room = _room(tape, team)
    batch, mine = slopes.shape[1], -1
    for chunk in range(begin, end):
        replica, first, count = _place(chunk, batch, room.lanes)
        samples = features[0 if len(features) == 1 else replica]
        mine = _prepare(tape, room, weights, 0 if len(weights) == 1 else replica, mine)
        _prepare_chunk(tape, room, samples[first : first + count], weights[mine])
        _clear_slopes(tape, room)
        if team.member == 0:
            fill(partial[chunk], 0)
        for lane in range(count):
            row = first + lane
            _prepare_sample(tape, room, lane)
            if team.member == 0:
                final = finals[0 if len(finals) == 1 else replica, row]
                put(room.psi[0], final[0])
                put(room.psi[1], final[1])
                _product(tape, room)
                adjoint_of(
                    room.psi[0], room.psi[1], room.lam[0], room.lam[1], room.line, tape.strings, tape.sizes[4],
                    tape.lane_signs, slopes[replica, row], room.lanes,
                )  # fmt: skip
            _meet(team)
            _run_back(tape, room, team)
            if team.member == 0:
                _collect_sample(tape, room, lane, partial[chunk])
                if tape.sizes[3] and feature_slopes.shape[1]:
                    _amplitude_slopes(room, samples[row], feature_slopes[replica, row])
            _meet(team)
        if team.member == 0:
            wanted = feature_slopes.shape[1] > 0 or tape.sizes[8] > 0
            _collect_chunk(tape, room, weights[mine], partial[chunk], wanted)
            if feature_slopes.shape[1]:
                for lane in range(count):
                    for feature in range(len(room.features)):
                        slope = room.feature_slopes[feature, lane]
                        if tape.sizes[3]:  # beside what came through the amplitudes
                            slope += feature_slopes[replica, first + lane, feature]
                        feature_slopes[replica, first + lane, feature] = slope


@_entry
def finish(tape: Any, weights: Any, partial: Any, weight_slopes: Any, team: Any) -> None:
    """Derivatives by weights, ``(replicas, weights)``, from the chunks' sums, which are added in order."""
    room = _room(tape, team)
    segments, rotations, lanes = len(tape.segments), len(tape.rotations), room.lanes
    per = len(partial) // max(len(weight_slopes), 1)
    environment = room.scratch[len(room.scratch) - 1]
    for replica in range(len(weight_slopes)):
        mine, out = weights[0 if len(weights) == 1 else replica], weight_slopes[replica]
        added = partial[replica * per]
        for chunk in range(replica * per + 1, (replica + 1) * per):
            add(added, partial[chunk])
        put(out, added[8 * segments + rotations :])
        for segment in range(segments):
            if tape.segments[segment, 2] == 0 and tape.segments[segment, 1] > tape.segments[segment, 0]:
                fill(environment, 0)  # one lane is enough
                for k in range(8):
                    environment[k * lanes] = added[8 * segment + k]
                segment_slopes(
                    tape, segment, environment, room.features, mine, room.feature_slopes, out, room.trig, room.scratch,
                    lanes,
                )  # fmt: skip
        for g in range(rotations):
            index = tape.rotations[g, 0]
            if tape.rotations[g, 3] == 0:
                out[tape.angles[index, 0]] += added[8 * segments + g] * tape.lines[index, 0]


@_entry
def shapes(tape: Any, sections: int) -> Any:
    """Rows and widths of the arrays of a `Room`, in order: those that a team shares, those of each member."""
    states, lanes = 1 << tape.sizes[0], 64 // tape.terms.itemsize
    gates, rotations, own = len(tape.gates), len(tape.rotations), len(tape.own)
    shared = (
        (2, states), (2, states), (2, states), (2, 2 * states), (1, states), (sections, gates * 8),
        (sections, rotations * 4 * lanes),
    )  # fmt: skip
    members = (
        (gates, 8), (rotations, 8 * lanes), (tape.sizes[1], lanes), (tape.sizes[1], lanes), (tape.sizes[6], 2 * lanes),
        (tape.sizes[7], 8 * lanes), (own, 8 * lanes), (own, 8 * lanes), (rotations, lanes), (rotations, lanes),
        (4 + tape.sizes[6] + 2 * tape.sizes[5], 8 * lanes),
    )  # fmt: skip
    return shared, members


@inlined
def _room(tape: Any, team: Any) -> Any:
    """The arrays of a room, cut from the two blocks that the caller has made."""
    lanes, rotations = 64 // tape.terms.itemsize, len(tape.rotations)
    shared, members = shapes(tape, team.sections)
    psi, rest = _cut(team.shared, shared[0])
    lam, rest = _cut(rest, shared[1])
    other, rest = _cut(rest, shared[2])
    levels, rest = _cut(rest, shared[3])
    line, rest = _cut(rest, shared[4])
    environments, rest = _cut(rest, shared[5])
    sums, rest = _cut(rest, shared[6])
    matrices, rest = _cut(team.own, members[0])
    tables, rest = _cut(rest, members[1])
    features, rest = _cut(rest, members[2])
    feature_slopes, rest = _cut(rest, members[3])
    trig, rest = _cut(rest, members[4])
    parts, rest = _cut(rest, members[5])
    own, rest = _cut(rest, members[6])
    own_environments, rest = _cut(rest, members[7])
    angles, rest = _cut(rest, members[8])
    slopes, rest = _cut(rest, members[9])
    scratch, rest = _cut(rest, members[10])
    return Room(
        psi, lam, other, levels, line[0], environments.reshape(team.sections, len(tape.gates), 8), sums, matrices,
        tables.reshape(rotations, 4, 2, lanes), features, feature_slopes, trig, parts, own, own_environments, angles,
        slopes, scratch, lanes, 4 if lanes == 16 else 3,
    )  # fmt: skip


@inlined
def _cut(block: Any, shape: Any) -> Any:
    size = shape[0] * shape[1]
    return block[:size].reshape(shape), block[size:]


@inlined
def _meet(team: Any) -> None:
    """Wait until every member of the team has come here."""
    if team.size > 1:
        round_ends = (arrive(team.meeting) // team.size + 1) * team.size
        tries = 0
        while arrived(team.meeting) < round_ends:
            tries += 1
            if tries > PATIENCE:  # the other may be waiting for this very core
                let_others_run()


@inlined
def _place(chunk: int, batch: int, lanes: int) -> Any:
    """Where a chunk lies: its replica, its first sample there, and how many there are."""
    per = (batch + lanes - 1) // lanes
    first = (chunk % per) * lanes
    return chunk // per, first, min(lanes, batch - first)


@inlined
def _prepare(tape: Any, room: Any, sets: Any, chosen: int, before: int) -> int:
    """What depends on weights alone (matrices, segments of other gates, phases), if another set of them was in use."""
    if chosen == before:
        return chosen
    weights = sets[chosen]
    lanes, own, part = room.lanes, 0, 0
    for gate in range(len(tape.gates)):
        begin, end = tape.gates[gate, 1], tape.gates[gate, 2]
        mixed = own < len(tape.own) and tape.own[own] == gate
        for segment in range(begin, end):
            out = room.parts[part + segment - begin] if mixed else room.scratch[len(room.scratch) - 1]
            if tape.segments[segment, 2] == 0:
                segment_matrix(tape, segment, room.features, weights, out, room.trig, room.scratch, lanes)
            if not mixed:  # a gate of weights alone has one segment, the same in every lane
                for k in range(8):
                    room.matrices[gate, k] = out[k * lanes]
        if mixed:
            own, part = own + 1, part + end - begin
    for g in range(len(tape.rotations)):
        if tape.rotations[g, 3] == 0:
            index = tape.rotations[g, 0]
            angle = tape.lines[index, 0] * weights[tape.angles[index, 0]] + tape.lines[index, 1]
            lane_phases(tape.rates[g], angle, tape.rotations[g, 1:3], room.lane_bits, room.tables[g])
    return chosen


@inlined
def _prepare_chunk(tape: Any, room: Any, samples: Any, weights: Any) -> None:
    """What depends on the samples of a chunk; lanes without a sample repeat the last."""
    for feature in range(len(room.features)):
        for lane in range(room.lanes):
            room.features[feature, lane] = samples[min(lane, len(samples) - 1), feature]
    part = 0
    for own in range(len(tape.own)):
        gate = tape.own[own]
        begin, end = tape.gates[gate, 1], tape.gates[gate, 2]
        for segment in range(begin, end):
            if tape.segments[segment, 2]:
                out = room.parts[part + segment - begin]
                segment_matrix(tape, segment, room.features, weights, out, room.trig, room.scratch, room.lanes)
        gate_matrix(tape, gate, room.parts[part:], room.own[own], room.scratch, room.lanes)
        part += end - begin
    for g in range(len(tape.rotations)):
        if tape.rotations[g, 3]:
            store(room.angles[g], 0, angle_line(tape, tape.rotations[g, 0], room.features, weights))


@inlined
def _prepare_sample(tape: Any, room: Any, lane: int) -> None:
    """A sample's matrices out of its chunk's, and its phases."""
    for own in range(len(tape.own)):
        for k in range(8):
            room.matrices[tape.own[own], k] = room.own[own, k * room.lanes + lane]
    for g in range(len(tape.rotations)):
        if tape.rotations[g, 3]:
            angle = room.angles[g, lane]
            lane_phases(tape.rates[g], angle, tape.rotations[g, 1:3], room.lane_bits, room.tables[g])


@inlined
def _part(units: int, team: Any) -> Any:
    """The units of a step that this member takes."""
    return units * team.member // team.size, units * (team.member + 1) // team.size


@inlined
def _product(tape: Any, room: Any) -> None:
    """The levels of the product state that the first step makes, if it makes one."""
    if len(tape.steps) and tape.steps[0, 0] == PRODUCT:
        matrices = room.matrices[tape.steps[0, 1] : tape.steps[0, 2]]
        product(room.levels[0], room.levels[1], matrices, len(matrices), room.lanes)


@inlined
def _start(tape: Any, room: Any, features: Any) -> None:
    """The state before the first step that is no product: a product state, amplitudes, or |0...0>."""
    fill(room.psi[0], 0)
    fill(room.psi[1], 0)
    if tape.sizes[3]:
        largest = abs(features[0])
        for value in features:
            largest = max(largest, abs(value))
        norm = features.dtype.type(0)
        for value in features:
            norm += (value / largest) ** 2
        norm = np.sqrt(norm)
        for i in range(len(features)):
            room.psi[0, i] = features[i] / largest / norm
    elif len(tape.steps) and tape.steps[0, 0] == PRODUCT:
        _product(tape, room)
        size = 1 << (tape.steps[0, 2] - tape.steps[0, 1])
        put(room.psi[0, :size], room.levels[0, size:])
        put(room.psi[1, :size], room.levels[1, size:])
    else:
        room.psi[0, 0] = 1


@inlined
def _run(tape: Any, room: Any, team: Any, features: Any) -> None:
    """The state of a sample, from its start through all steps."""
    if team.member == 0:
        _start(tape, room, features)
    _meet(team)
    re, im, lanes = room.psi[0], room.psi[1], room.lanes
    other_re, other_im = room.other[0], room.other[1]
    begin, end = _part(len(re) // lanes, team)
    first, last = _part(len(re) // (2 * lanes), team)
    for step in range(len(tape.steps)):
        kind, here, there = tape.steps[step, 0], tape.steps[step, 1], tape.steps[step, 2]
        if kind == TURNS:
            for gate in range(here, there):
                place = tape.gates[gate, 0]
                if place < room.lane_bits:
                    turn_low(re, im, place, tape.masks, room.matrices[gate], begin, end, lanes)
                else:
                    turn_high(re, im, place, room.matrices[gate], first, last, lanes)
                _meet(team)
        elif kind == SIGNS:
            sign(re, im, tape.signs[here], begin, end, lanes)
        elif kind == PHASES:
            phase(re, im, tape.phases[here], False, begin, end, lanes)
        elif kind == ROTATE:
            tables = room.tables[here:there].reshape(-1)
            rotate(re, im, tables, tape.rotations[here:there], False, begin, end, lanes, room.lane_bits)
        elif kind == PERMUTE:
            gather(re, im, other_re, other_im, tape.orders[here], begin, end, lanes)
            _meet(team)
            copy(re, im, other_re, other_im, begin, end, lanes)
        if kind != TURNS:
            _meet(team)


@inlined
def _run_back(tape: Any, room: Any, team: Any) -> None:
    """Both states back through all steps; leaves the environments and sums of every section."""
    re, im, lam_re, lam_im, lanes = room.psi[0], room.psi[1], room.lam[0], room.lam[1], room.lanes
    other_re, other_im = room.other[0], room.other[1]
    begin, end = _part(len(re) // lanes, team)
    for step in range(len(tape.steps) - 1, -1, -1):
        kind, here, there = tape.steps[step, 0], tape.steps[step, 1], tape.steps[step, 2]
        if kind == PRODUCT:
            if team.member == 0:
                product_back(
                    lam_re, lam_im, room.levels[0], room.levels[1], room.matrices[here:there],
                    room.environments[0, here:there], there - here, lanes,
                )  # fmt: skip
                for section in range(1, team.sections):
                    for gate in range(here, there):
                        fill(room.environments[section, gate], 0)
        elif kind == TURNS:
            for gate in range(there - 1, here - 1, -1):
                _turn_back(tape, room, team, gate)
                _meet(team)
        elif kind == SIGNS:
            sign(re, im, tape.signs[here], begin, end, lanes)
            sign(lam_re, lam_im, tape.signs[here], begin, end, lanes)
        elif kind == PHASES:
            phase(re, im, tape.phases[here], True, begin, end, lanes)
            phase(lam_re, lam_im, tape.phases[here], True, begin, end, lanes)
        elif kind == ROTATE:
            _rotate_back(tape, room, team, here, there)
        elif kind == PERMUTE:
            scatter(re, im, other_re, other_im, tape.orders[here], begin, end, lanes)
            _meet(team)
            copy(re, im, other_re, other_im, begin, end, lanes)
            _meet(team)
            scatter(lam_re, lam_im, other_re, other_im, tape.orders[here], begin, end, lanes)
            _meet(team)
            copy(lam_re, lam_im, other_re, other_im, begin, end, lanes)
        if kind != TURNS:
            _meet(team)


@inlined
def _turn_back(tape: Any, room: Any, team: Any, gate: int) -> None:
    place, matrix, lanes = tape.gates[gate, 0], room.matrices[gate], room.lanes
    re, im, lam_re, lam_im = room.psi[0], room.psi[1], room.lam[0], room.lam[1]
    low = place < room.lane_bits
    units = len(re) // (lanes if low else 2 * lanes)
    first, last = _part(team.sections, team)
    for section in range(first, last):
        f, begin, end = room.environments[section, gate], units * section // team.sections, 0
        end = units * (section + 1) // team.sections
        if low:
            back_low(re, im, lam_re, lam_im, place, tape.masks, matrix, f, begin, end, lanes)
        else:
            back_high(re, im, lam_re, lam_im, place, matrix, f, begin, end, lanes)


@inlined
def _rotate_back(tape: Any, room: Any, team: Any, here: int, there: int) -> None:
    re, im, lam_re, lam_im, lanes = room.psi[0], room.psi[1], room.lam[0], room.lam[1], room.lanes
    rotations, units = tape.rotations[here:there], len(re) // lanes
    first, last = _part(team.sections, team)
    for section in range(first, last):
        sums = room.sums[section, 4 * lanes * here : 4 * lanes * there]
        low, high = units * section // team.sections, units * (section + 1) // team.sections
        rotate_sums(re, im, lam_re, lam_im, rotations, sums, low, high, lanes, room.lane_bits)
    tables = room.tables[here:there].reshape(-1)
    # What this member has summed, and no more: another may not have summed its sections yet.
    begin, end = units * first // team.sections, units * last // team.sections
    rotate(re, im, tables, rotations, True, begin, end, lanes, room.lane_bits)
    rotate(lam_re, lam_im, tables, rotations, True, begin, end, lanes, room.lane_bits)


@inlined
def _clear_slopes(tape: Any, room: Any) -> None:
    for own in range(len(tape.own)):
        fill(room.own_environments[own], 0)
    for g in range(len(tape.rotations)):
        fill(room.slopes[g], 0)
    for feature in range(len(room.feature_slopes)):
        fill(room.feature_slopes[feature], 0)


@inlined
def _collect_sample(tape: Any, room: Any, lane: int, added: Any) -> None:
    """A sample's environments and slopes: those of weights alone are added up, the others go to its lane."""
    segments, width = len(tape.segments), 4 * room.lanes
    own = 0
    for gate in range(len(tape.gates)):
        environment = room.environments[0, gate]
        for section in range(1, len(room.environments)):
            add(environment, room.environments[section, gate])
        if own < len(tape.own) and tape.own[own] == gate:
            for k in range(8):
                room.own_environments[own, k * room.lanes + lane] = environment[k]
            own += 1
        else:
            begin = 8 * tape.gates[gate, 1]
            add(added[begin : begin + 8], environment)
    for g in range(len(tape.rotations)):
        sums = room.sums[0, width * g : width * (g + 1)]
        for section in range(1, len(room.sums)):
            add(sums, room.sums[section, width * g : width * (g + 1)])
        slope = rotation_slope(sums, tape.rates[g], tape.rotations[g, 1:3], room.lanes, room.lane_bits)
        if tape.rotations[g, 3]:
            room.slopes[g, lane] = slope
        else:
            added[8 * segments + g] += slope


@inlined
def _collect_chunk(tape: Any, room: Any, weights: Any, added: Any, wanted: bool) -> None:
    """The chain rule for what depends on the samples of a chunk; of angles without weights only where it is wanted."""
    lanes, segments, part = room.lanes, len(tape.segments), 0
    weight_slopes = added[8 * segments + len(tape.rotations) :]
    split = room.scratch[len(room.scratch) - tape.sizes[5] :]
    for own in range(len(tape.own)):
        gate = tape.own[own]
        begin, end = tape.gates[gate, 1], tape.gates[gate, 2]
        gate_slopes(tape, gate, room.own_environments[own], room.parts[part:], split, room.scratch, lanes)
        part += end - begin
        for segment in range(begin, end):
            environment = split[segment - begin]
            if tape.segments[segment, 2] == 0:
                for k in range(8):
                    added[8 * segment + k] += total(load(environment, k * lanes))
            elif wanted:
                segment_slopes(
                    tape, segment, environment, room.features, weights, room.feature_slopes, weight_slopes, room.trig,
                    room.scratch, lanes,
                )  # fmt: skip
    for g in range(len(tape.rotations)):
        if tape.rotations[g, 3] and wanted:
            slope, index = load(room.slopes[g], 0), tape.rotations[g, 0]
            spread_slope(tape, index, slope, room.features, weights, room.feature_slopes, weight_slopes)


@inlined
def _amplitude_slopes(room: Any, features: Any, feature_slopes: Any) -> None:
    """Through the normalisation of amplitudes: the part of 2 Re lam across the state, over the norm of the features."""
    count = len(features)
    largest = abs(features[0])
    for value in features:
        largest = max(largest, abs(value))
    norm = along = features.dtype.type(0)
    for i in range(count):
        norm += (features[i] / largest) ** 2
    norm = np.sqrt(norm)
    for i in range(count):
        along += 2 * room.lam[0, i] * (features[i] / largest / norm)
    for i in range(count):
        feature_slopes[i] = (2 * room.lam[0, i] - along * (features[i] / largest / norm)) / norm / largest
