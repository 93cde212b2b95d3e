"""Angles into matrices and back, for as many samples at once as a vector has lanes.

Here a matrix is a line of 8 vectors, (0, 0), (0, 1), (1, 0), (1, 1), each real then imaginary, and lane l of them
belongs to sample l of a chunk; so is an environment. What depends on weights alone is the same in every lane. For a
product ``M = M_k ... M_1`` with environment F, so that dL = 2 Re sum F[a, b] dM[a, b], factor j has the environment
``(M_k ... M_{j+1})^T F (M_{j-1} ... M_1)^T``.
"""

from __future__ import annotations

from typing import Any

from qunlearn.quantum.engines.fused.simd import cosine, load, sine, splat, store, total
from qunlearn.quantum.engines.fused.states import compiled, fill, inlined, put


@compiled
def multiply(left: Any, right: Any, out: Any, left_transposed: bool, right_transposed: bool, lanes: int) -> None:
    """Out = left right, either of them transposed (not conjugated); `out` may be neither."""
    for row in range(2):
        first, second = (2 * row, 4 + 2 * row) if left_transposed else (4 * row, 4 * row + 2)
        pr, pi = load(left, first * lanes), load(left, (first + 1) * lanes)
        qr, qi = load(left, second * lanes), load(left, (second + 1) * lanes)
        for column in range(2):
            first, second = (4 * column, 4 * column + 2) if right_transposed else (2 * column, 4 + 2 * column)
            xr, xi = load(right, first * lanes), load(right, (first + 1) * lanes)
            yr, yi = load(right, second * lanes), load(right, (second + 1) * lanes)
            store(out, (4 * row + 2 * column) * lanes, pr * xr - pi * xi + qr * yr - qi * yi)
            store(out, (4 * row + 2 * column + 1) * lanes, pr * xi + pi * xr + qr * yi + qi * yr)


@inlined
def angle_line(tape: Any, index: int, features: Any, weights: Any) -> Any:
    """An angle of every sample: scale * weight * product of (sign * feature + shift) + offset."""
    scale, weight = tape.lines[index, 0], tape.angles[index, 0]
    value = splat(scale * weights[weight]) if weight >= 0 else splat(scale)
    for factor in range(tape.angles[index, 1], tape.angles[index, 2]):
        value = value * factor_line(tape, factor, features)
    return value + splat(tape.lines[index, 1])


@inlined
def factor_line(tape: Any, factor: int, features: Any) -> Any:
    """A factor of an angle, of every sample."""
    feature = load(features[tape.factors[factor]], 0)
    return splat(tape.slopes[factor, 0]) * feature + splat(tape.slopes[factor, 1])


@inlined
def spread_slope(
    tape: Any, index: int, slope: Any, features: Any, weights: Any, feature_slopes: Any, weight_slopes: Any
) -> None:
    """Add derivatives by an angle, a vector, times those of the angle, to the derivatives by features and weights."""
    weight, begin, end = tape.angles[index, 0], tape.angles[index, 1], tape.angles[index, 2]
    outer = slope * splat(tape.lines[index, 0])
    inner = outer * splat(weights[weight]) if weight >= 0 else outer
    for factor in range(begin, end):
        share = inner * splat(tape.slopes[factor, 0])
        for another in range(begin, end):
            if another != factor:
                share = share * factor_line(tape, another, features)
        line = feature_slopes[tape.factors[factor]]
        store(line, 0, load(line, 0) + share)
        outer = outer * factor_line(tape, factor, features)
    if weight >= 0:
        weight_slopes[weight] += total(outer)


@inlined
def trigonometry(tape: Any, segment: int, features: Any, weights: Any, trig: Any, lanes: int) -> None:
    """Cosine and sine of the angles of a segment's turns, two vectors each: ``trig[k]`` for its k-th turn."""
    begin = tape.segments[segment, 0]
    for turn in range(begin, tape.segments[segment, 1]):
        if tape.turns[turn] >= 0:
            angle = angle_line(tape, tape.turns[turn], features, weights)
            store(trig[turn - begin], 0, cosine(angle))
            store(trig[turn - begin], lanes, sine(angle))


@inlined
def turn_matrix(tape: Any, turn: int, waves: Any, derivative: bool, out: Any, lanes: int) -> None:
    """The matrix of a turn, cos T0 + sin T1 + T2, or its derivative by the angle."""
    terms = tape.terms[turn]
    c, s = load(waves, 0), load(waves, lanes)
    fixed = tape.turns[turn] < 0
    for k in range(8):
        if fixed:
            store(out, k * lanes, splat(terms[16 + k]))
        elif derivative:
            store(out, k * lanes, c * splat(terms[8 + k]) - s * splat(terms[k]))
        else:
            store(out, k * lanes, c * splat(terms[k]) + s * splat(terms[8 + k]) + splat(terms[16 + k]))


@inlined
def segment_matrix(
    tape: Any, segment: int, features: Any, weights: Any, out: Any, trig: Any, scratch: Any, lanes: int
) -> None:
    """The product of a segment's turns."""
    begin, end = tape.segments[segment, 0], tape.segments[segment, 1]
    trigonometry(tape, segment, features, weights, trig, lanes)
    if begin == end:
        fill(out, 0)
        fill(out[:lanes], 1)
        fill(out[6 * lanes : 7 * lanes], 1)
    for turn in range(begin, end):
        turn_matrix(tape, turn, trig[turn - begin], False, scratch[0] if turn > begin else out, lanes)
        if turn > begin:
            multiply(scratch[0], out, scratch[1], False, False, lanes)
            put(out, scratch[1])


@inlined
def gate_matrix(tape: Any, gate: int, parts: Any, out: Any, scratch: Any, lanes: int) -> None:
    """The product of a gate's segments; ``parts[k]`` is its k-th."""
    put(out, parts[0])
    for k in range(1, tape.gates[gate, 2] - tape.gates[gate, 1]):
        multiply(parts[k], out, scratch[0], False, False, lanes)
        put(out, scratch[0])


@inlined
def gate_slopes(tape: Any, gate: int, environment: Any, parts: Any, out: Any, scratch: Any, lanes: int) -> None:
    """The environments of a gate's segments, ``out[k]`` of the k-th; destroys that of the gate."""
    count = tape.gates[gate, 2] - tape.gates[gate, 1]
    before = scratch[1:]  # before[k] is the product of the first k + 1 segments
    put(before[0], parts[0])
    for k in range(1, count - 1):
        multiply(parts[k], before[k - 1], before[k], False, False, lanes)
    for k in range(count - 1, 0, -1):
        multiply(environment, before[k - 1], out[k], False, True, lanes)
        multiply(parts[k], environment, scratch[0], True, False, lanes)
        put(environment, scratch[0])
    put(out[0], environment)


@inlined
def segment_slopes(
    tape: Any, segment: int, environment: Any, features: Any, weights: Any, feature_slopes: Any, weight_slopes: Any,
    trig: Any, scratch: Any, lanes: int,
) -> None:  # fmt: skip
    """The chain rule from a segment's environment, which it destroys, to features and weights."""
    begin, end = tape.segments[segment, 0], tape.segments[segment, 1]
    matrix, slope_matrix, moved, before = scratch[0], scratch[1], scratch[2], scratch[3:]
    trigonometry(tape, segment, features, weights, trig, lanes)
    for turn in range(begin, end - 1):  # before[k] is the product of the first k + 1 turns
        k = turn - begin
        turn_matrix(tape, turn, trig[k], False, matrix if k else before[0], lanes)
        if k:
            multiply(matrix, before[k - 1], before[k], False, False, lanes)
    for turn in range(end - 1, begin - 1, -1):
        k = turn - begin
        if tape.turns[turn] >= 0:
            turn_matrix(tape, turn, trig[k], True, slope_matrix, lanes)
            if k:
                multiply(slope_matrix, before[k - 1], moved, False, False, lanes)
            slope = _contracted(environment, moved if k else slope_matrix, lanes)
            spread_slope(tape, tape.turns[turn], slope, features, weights, feature_slopes, weight_slopes)
        if k:
            turn_matrix(tape, turn, trig[k], False, matrix, lanes)
            multiply(matrix, environment, moved, True, False, lanes)
            put(environment, moved)


@compiled
def _contracted(environment: Any, derivative: Any, lanes: int) -> Any:
    """2 Re sum F[a, b] dM[a, b], of every sample."""
    slope = splat(environment.dtype.type(0))
    for k in range(0, 8, 2):
        re, im = load(environment, k * lanes), load(environment, (k + 1) * lanes)
        slope = slope + re * load(derivative, k * lanes) - im * load(derivative, (k + 1) * lanes)
    return slope + slope
