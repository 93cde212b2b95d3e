"""What the kernel does to one sample's state, as compiled functions of its lines.

A state is two lines of numbers, real parts and imaginary parts, each a whole number of vectors long. Bit ``place`` of
an index belongs to one wire. Wires of high places have their two halves in different vectors; those of the lowest
places in different lanes of one. A matrix is a line of 8 numbers: (0, 0), (0, 1), (1, 0), (1, 1), each real then
imaginary; so is an environment. ``begin`` and ``end`` are the units (pairs of vectors, or vectors) to work on, so that
several threads can share a state.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from qunlearn.quantum.engines.fused.simd import EXCHANGE, load, splat, store, total

#: Without Numba's reference counts: they cost more than the arithmetic, and their absence forbids hidden copies.
compiled: Any = njit(nogil=True, error_model="numpy", _nrt=False)
#: For what takes a whole tape or room, which would be copied at every call.
inlined: Any = njit(nogil=True, error_model="numpy", _nrt=False, forceinline=True)


@compiled
def put(target: Any, source: Any) -> None:
    """Target = source, number by number (assigning slices would make a copy first, to be safe from overlaps)."""
    for i in range(len(target)):
        target[i] = source[i]


@compiled
def add(target: Any, source: Any) -> None:
    """Target += source."""
    for i in range(len(target)):
        target[i] += source[i]


@compiled
def fill(target: Any, number: float) -> None:
    """The same number everywhere."""
    for i in range(len(target)):
        target[i] = number


@compiled
def turn_high(re: Any, im: Any, place: int, m: Any, begin: int, end: int, lanes: int) -> None:
    """The matrix on a wire of high place; units are pairs of vectors."""
    stride = 1 << place
    low = stride // lanes - 1
    ar, ai, br, bi = splat(m[0]), splat(m[1]), splat(m[2]), splat(m[3])
    cr, ci, dr, di = splat(m[4]), splat(m[5]), splat(m[6]), splat(m[7])
    for unit in range(begin, end):
        k = ((unit << 1) - (unit & low)) * lanes
        xr, xi, yr, yi = load(re, k), load(im, k), load(re, k + stride), load(im, k + stride)
        store(re, k, ar * xr - ai * xi + br * yr - bi * yi)
        store(im, k, ar * xi + ai * xr + br * yi + bi * yr)
        store(re, k + stride, cr * xr - ci * xi + dr * yr - di * yi)
        store(im, k + stride, cr * xi + ci * xr + dr * yi + di * yr)


@compiled
def back_high(
    re: Any, im: Any, lam_re: Any, lam_im: Any, place: int, m: Any, f: Any, begin: int, end: int, lanes: int
) -> None:
    """Both states back over a wire of high place, and the environment of its matrix."""
    stride = 1 << place
    low = stride // lanes - 1
    ar, ai, br, bi = splat(m[0]), splat(m[1]), splat(m[2]), splat(m[3])
    cr, ci, dr, di = splat(m[4]), splat(m[5]), splat(m[6]), splat(m[7])
    zero = splat(re.dtype.type(0))
    f0, f1, f2, f3, f4, f5, f6, f7 = zero, zero, zero, zero, zero, zero, zero, zero
    for unit in range(begin, end):
        k = ((unit << 1) - (unit & low)) * lanes
        xr, xi, yr, yi = load(re, k), load(im, k), load(re, k + stride), load(im, k + stride)
        pr, pi = ar * xr + ai * xi + cr * yr + ci * yi, ar * xi - ai * xr + cr * yi - ci * yr
        qr, qi = br * xr + bi * xi + dr * yr + di * yi, br * xi - bi * xr + dr * yi - di * yr
        store(re, k, pr)
        store(im, k, pi)
        store(re, k + stride, qr)
        store(im, k + stride, qi)
        xr, xi = load(lam_re, k), load(lam_im, k)
        yr, yi = load(lam_re, k + stride), load(lam_im, k + stride)
        f0, f1 = f0 + xr * pr + xi * pi, f1 + xr * pi - xi * pr
        f2, f3 = f2 + xr * qr + xi * qi, f3 + xr * qi - xi * qr
        f4, f5 = f4 + yr * pr + yi * pi, f5 + yr * pi - yi * pr
        f6, f7 = f6 + yr * qr + yi * qi, f7 + yr * qi - yi * qr
        store(lam_re, k, ar * xr + ai * xi + cr * yr + ci * yi)
        store(lam_im, k, ar * xi - ai * xr + cr * yi - ci * yr)
        store(lam_re, k + stride, br * xr + bi * xi + dr * yr + di * yi)
        store(lam_im, k + stride, br * xi - bi * xr + dr * yi - di * yr)
    f[0], f[1], f[2], f[3] = total(f0), total(f1), total(f2), total(f3)
    f[4], f[5], f[6], f[7] = total(f4), total(f5), total(f6), total(f7)


def _low(exchange: Any) -> tuple[Any, Any]:
    """`turn_low` and `back_low` for one low place, whose partner lanes `exchange` swaps."""

    @compiled
    def turn(re: Any, im: Any, zeros: Any, ones: Any, m: Any, begin: int, end: int, lanes: int) -> None:
        zero, one = load(zeros, 0), load(ones, 0)
        ar, ai = splat(m[0]) * zero + splat(m[6]) * one, splat(m[1]) * zero + splat(m[7]) * one
        br, bi = splat(m[2]) * zero + splat(m[4]) * one, splat(m[3]) * zero + splat(m[5]) * one
        for k in range(begin * lanes, end * lanes, lanes):
            xr, xi = load(re, k), load(im, k)
            yr, yi = exchange(xr), exchange(xi)
            store(re, k, ar * xr - ai * xi + br * yr - bi * yi)
            store(im, k, ar * xi + ai * xr + br * yi + bi * yr)

    @compiled
    def back(
        re: Any, im: Any, lam_re: Any, lam_im: Any, zeros: Any, ones: Any, m: Any, f: Any, begin: int, end: int,
        lanes: int,
    ) -> None:  # fmt: skip
        zero, one = load(zeros, 0), load(ones, 0)
        ar, ai = splat(m[0]) * zero + splat(m[6]) * one, splat(m[1]) * zero + splat(m[7]) * one
        br, bi = splat(m[4]) * zero + splat(m[2]) * one, splat(m[5]) * zero + splat(m[3]) * one
        sr = zero - zero
        si, tr, ti = sr, sr, sr
        for k in range(begin * lanes, end * lanes, lanes):
            xr, xi = load(re, k), load(im, k)
            yr, yi = exchange(xr), exchange(xi)
            pr, pi = ar * xr + ai * xi + br * yr + bi * yi, ar * xi - ai * xr + br * yi - bi * yr
            qr, qi = exchange(pr), exchange(pi)
            store(re, k, pr)
            store(im, k, pi)
            xr, xi = load(lam_re, k), load(lam_im, k)
            yr, yi = exchange(xr), exchange(xi)
            sr, si = sr + xr * pr + xi * pi, si + xr * pi - xi * pr
            tr, ti = tr + xr * qr + xi * qi, ti + xr * qi - xi * qr
            store(lam_re, k, ar * xr + ai * xi + br * yr + bi * yi)
            store(lam_im, k, ar * xi - ai * xr + br * yi - bi * yr)
        f[0], f[1], f[2], f[3] = total(sr * zero), total(si * zero), total(tr * zero), total(ti * zero)
        f[4], f[5], f[6], f[7] = total(tr * one), total(ti * one), total(sr * one), total(si * one)

    return turn, back


(_turn_1, _back_1), (_turn_2, _back_2), (_turn_4, _back_4), (_turn_8, _back_8) = map(_low, EXCHANGE)


@compiled
def turn_low(re: Any, im: Any, place: int, masks: Any, m: Any, begin: int, end: int, lanes: int) -> None:
    """The matrix on a wire of low place; units are vectors; ``masks[place]`` holds the lanes of bit 0 and of bit 1."""
    if place == 0:
        _turn_1(re, im, masks[0, 0], masks[0, 1], m, begin, end, lanes)
    elif place == 1:
        _turn_2(re, im, masks[1, 0], masks[1, 1], m, begin, end, lanes)
    elif place == 2:
        _turn_4(re, im, masks[2, 0], masks[2, 1], m, begin, end, lanes)
    else:
        _turn_8(re, im, masks[3, 0], masks[3, 1], m, begin, end, lanes)


@compiled
def back_low(
    re: Any, im: Any, lam_re: Any, lam_im: Any, place: int, masks: Any, m: Any, f: Any, begin: int, end: int, lanes: int
) -> None:
    """Both states back over a wire of low place, and the environment of its matrix."""
    if place == 0:
        _back_1(re, im, lam_re, lam_im, masks[0, 0], masks[0, 1], m, f, begin, end, lanes)
    elif place == 1:
        _back_2(re, im, lam_re, lam_im, masks[1, 0], masks[1, 1], m, f, begin, end, lanes)
    elif place == 2:
        _back_4(re, im, lam_re, lam_im, masks[2, 0], masks[2, 1], m, f, begin, end, lanes)
    else:
        _back_8(re, im, lam_re, lam_im, masks[3, 0], masks[3, 1], m, f, begin, end, lanes)


@compiled
def product(levels_re: Any, levels_im: Any, matrices: Any, qubits: int, lanes: int) -> None:
    """Product states of what ``matrices[place]`` make of |0>: level p, of the places below p, from index 2**p on."""
    levels_re[1], levels_im[1] = 1, 0
    for place in range(qubits):
        m = matrices[place]
        size = 1 << place
        if size < lanes:
            for j in range(size):
                xr, xi = levels_re[size + j], levels_im[size + j]
                levels_re[2 * size + j], levels_im[2 * size + j] = m[0] * xr - m[1] * xi, m[0] * xi + m[1] * xr
                levels_re[3 * size + j], levels_im[3 * size + j] = m[4] * xr - m[5] * xi, m[4] * xi + m[5] * xr
            continue
        ar, ai, cr, ci = splat(m[0]), splat(m[1]), splat(m[4]), splat(m[5])
        for j in range(size, 2 * size, lanes):
            vr, vi = load(levels_re, j), load(levels_im, j)
            store(levels_re, j + size, ar * vr - ai * vi)
            store(levels_im, j + size, ar * vi + ai * vr)
            store(levels_re, j + 2 * size, cr * vr - ci * vi)
            store(levels_im, j + 2 * size, cr * vi + ci * vr)


@compiled
def product_back(
    lam_re: Any, lam_im: Any, levels_re: Any, levels_im: Any, matrices: Any, environments: Any, qubits: int, lanes: int
) -> None:
    """The environments of the matrices of a product state; contracts ``lam`` from the highest place down."""
    for place in range(qubits - 1, -1, -1):
        m, f = matrices[place], environments[place]
        size = 1 << place
        fill(f, 0)
        if size < lanes:
            for j in range(size):
                sr, si = levels_re[size + j], levels_im[size + j]
                xr, xi, yr, yi = lam_re[j], lam_im[j], lam_re[j + size], lam_im[j + size]
                f[0], f[1] = f[0] + xr * sr + xi * si, f[1] + xr * si - xi * sr
                f[4], f[5] = f[4] + yr * sr + yi * si, f[5] + yr * si - yi * sr
                lam_re[j] = xr * m[0] + xi * m[1] + yr * m[4] + yi * m[5]
                lam_im[j] = xi * m[0] - xr * m[1] + yi * m[4] - yr * m[5]
            continue
        ar, ai, cr, ci = splat(m[0]), splat(m[1]), splat(m[4]), splat(m[5])
        f0 = splat(lam_re.dtype.type(0))
        f1, f4, f5 = f0, f0, f0
        for j in range(0, size, lanes):
            vr, vi = load(levels_re, size + j), load(levels_im, size + j)
            pr, pi, qr, qi = load(lam_re, j), load(lam_im, j), load(lam_re, j + size), load(lam_im, j + size)
            f0, f1 = f0 + pr * vr + pi * vi, f1 + pr * vi - pi * vr
            f4, f5 = f4 + qr * vr + qi * vi, f5 + qr * vi - qi * vr
            store(lam_re, j, pr * ar + pi * ai + qr * cr + qi * ci)
            store(lam_im, j, pi * ar - pr * ai + qi * cr - qr * ci)
        f[0], f[1], f[4], f[5] = total(f0), total(f1), total(f4), total(f5)


@compiled
def sign(re: Any, im: Any, table: Any, begin: int, end: int, lanes: int) -> None:
    """Each amplitude times its sign; units are vectors."""
    for k in range(begin * lanes, end * lanes, lanes):
        v = load(table, k)
        store(re, k, load(re, k) * v)
        store(im, k, load(im, k) * v)


@compiled
def phase(re: Any, im: Any, table: Any, conjugate: bool, begin: int, end: int, lanes: int) -> None:
    """Each amplitude times its phase, or the conjugate of it; units are vectors."""
    cosines, sines = table[0], table[1]
    side = splat(re.dtype.type(-1 if conjugate else 1))
    for k in range(begin * lanes, end * lanes, lanes):
        c, s, xr, xi = load(cosines, k), load(sines, k) * side, load(re, k), load(im, k)
        store(re, k, c * xr - s * xi)
        store(im, k, c * xi + s * xr)


@compiled
def gather(re: Any, im: Any, other_re: Any, other_im: Any, order: Any, begin: int, end: int, lanes: int) -> None:
    """other[i] = state[order[i]]; units are vectors."""
    for i in range(begin * lanes, end * lanes):
        other_re[i], other_im[i] = re[order[i]], im[order[i]]


@compiled
def scatter(re: Any, im: Any, other_re: Any, other_im: Any, order: Any, begin: int, end: int, lanes: int) -> None:
    """other[order[i]] = state[i]; units are vectors."""
    for i in range(begin * lanes, end * lanes):
        other_re[order[i]], other_im[order[i]] = re[i], im[i]


@compiled
def copy(re: Any, im: Any, other_re: Any, other_im: Any, begin: int, end: int, lanes: int) -> None:
    """State = other; units are vectors."""
    for k in range(begin * lanes, end * lanes, lanes):
        store(re, k, load(other_re, k))
        store(im, k, load(other_im, k))


@compiled
def lane_phases(rates: Any, angle: float, places: Any, lane_bits: int, table: Any) -> None:
    """``table (4, 2, lanes)``: phases of a diagonal gate by its bits outside a vector, and by lane within.

    The rates of a gate are 0, +r or -r for one r.
    """
    largest = max(max(abs(rates[0]), abs(rates[1])), max(abs(rates[2]), abs(rates[3])))
    cosine, sine = np.cos(angle * largest), np.sin(angle * largest)
    first, second = places[0], places[1]
    for bits in range(4):
        for lane in range(table.shape[2]):
            high = (lane >> first) & 1 if first < lane_bits else bits >> 1
            low = (lane >> second) & 1 if second < lane_bits else bits & 1
            rate = rates[2 * high + low]
            table[bits, 0, lane] = cosine if rate != 0 else 1
            table[bits, 1, lane] = sine if rate > 0 else (-sine if rate < 0 else 0)


@compiled
def rotate(
    re: Any, im: Any, tables: Any, rotations: Any, conjugate: bool, begin: int, end: int, lanes: int, lane_bits: int
) -> None:
    """Diagonal gates with angles, all in one pass; units are vectors. ``tables (gates, 4, 2, lanes)``, flat."""
    side = splat(re.dtype.type(-1 if conjugate else 1))
    for unit in range(begin, end):
        k = unit * lanes
        xr, xi = load(re, k), load(im, k)
        for g in range(len(rotations)):
            row = 2 * lanes * (4 * g + _outer_bits(rotations[g, 1], rotations[g, 2], k, lane_bits))
            c, s = load(tables, row), load(tables, row + lanes) * side
            xr, xi = c * xr - s * xi, c * xi + s * xr
        store(re, k, xr)
        store(im, k, xi)


@compiled
def rotate_sums(
    re: Any, im: Any, lam_re: Any, lam_im: Any, rotations: Any, sums: Any, begin: int, end: int, lanes: int,
    lane_bits: int,
) -> None:  # fmt: skip
    """Im conj(lam) psi summed over vectors by the bits outside, ``sums (gates, 4, lanes)``, flat."""
    fill(sums, 0)
    for unit in range(begin, end):
        k = unit * lanes
        t = load(lam_re, k) * load(im, k) - load(lam_im, k) * load(re, k)
        for g in range(len(rotations)):
            row = lanes * (4 * g + _outer_bits(rotations[g, 1], rotations[g, 2], k, lane_bits))
            store(sums, row, load(sums, row) + t)


@compiled
def rotation_slope(sums: Any, rates: Any, places: Any, lanes: int, lane_bits: int) -> Any:
    """The derivative by the angle of one diagonal gate from its ``sums (4, lanes)``, flat."""
    slope = sums.dtype.type(0)
    for bits in range(4):
        for lane in range(lanes):
            high = (lane >> places[0]) & 1 if places[0] < lane_bits else bits >> 1
            low = (lane >> places[1]) & 1 if places[1] < lane_bits else bits & 1
            slope -= 2 * rates[2 * high + low] * sums[bits * lanes + lane]
    return slope


@compiled
def _outer_bits(first: int, second: int, index: int, lane_bits: int) -> int:
    """The two bits of an index, as one number; 0 for those that lie within a vector."""
    high = (index >> first) & 1 if first >= lane_bits else 0
    low = (index >> second) & 1 if second >= lane_bits else 0
    return 2 * high + low


@compiled
def walsh(line: Any, states: int, lanes: int) -> None:
    """The Walsh-Hadamard transform over the places outside a vector: entry m becomes sum_j (-1)^(m . j) line[j]."""
    half = lanes
    while half < states:
        low = half // lanes - 1
        for unit in range(states // (2 * lanes)):
            k = ((unit << 1) - (unit & low)) * lanes
            x, y = load(line, k), load(line, k + half)
            store(line, k, x + y)
            store(line, k + half, x - y)
        half *= 2


@compiled
def measure(re: Any, im: Any, line: Any, strings: Any, diagonal: int, signs: Any, values: Any, lanes: int) -> None:
    """The expectation values of Pauli strings; those of I and Z all at once by a transform of the probabilities."""
    states = len(re)
    if diagonal:
        for k in range(0, states, lanes):
            xr, xi = load(re, k), load(im, k)
            store(line, k, xr * xr + xi * xi)
        walsh(line, states, lanes)
    for o in range(len(strings)):
        flips, signed, turns = strings[o, 0], strings[o, 1], strings[o, 2]
        if o < diagonal:
            row = signs[signed & (lanes - 1)]
            values[o] = total(load(line, signed & ~(lanes - 1)) * load(row, 0))
            continue
        value = re.dtype.type(0)
        for i in range(states):
            xr, xi = _quarter_turned(re[i ^ flips], im[i ^ flips], turns)
            value += _parity_sign(i & signed) * (re[i] * xr + im[i] * xi)
        values[o] = value


@compiled
def adjoint_of(
    re: Any, im: Any, lam_re: Any, lam_im: Any, line: Any, strings: Any, diagonal: int, signs: Any, slopes: Any,
    lanes: int,
) -> None:  # fmt: skip
    """Lam = sum_o slope_o O_o |psi>."""
    states = len(re)
    fill(line, 0)
    for o in range(diagonal):
        signed = strings[o, 1]
        row, k = signs[signed & (lanes - 1)], signed & ~(lanes - 1)
        store(line, k, load(line, k) + load(row, 0) * splat(slopes[o]))
    if diagonal:
        walsh(line, states, lanes)
    for k in range(0, states, lanes):
        v = load(line, k)
        store(lam_re, k, load(re, k) * v)
        store(lam_im, k, load(im, k) * v)
    for o in range(diagonal, len(strings)):
        flips, signed, turns = strings[o, 0], strings[o, 1], strings[o, 2]
        for i in range(states):
            xr, xi = _quarter_turned(re[i ^ flips], im[i ^ flips], turns)
            factor = _parity_sign(i & signed) * slopes[o]
            lam_re[i] += factor * xr
            lam_im[i] += factor * xi


@compiled
def _quarter_turned(re: Any, im: Any, turns: int) -> Any:
    """(-i)**turns times a number."""
    quarter = turns & 3
    if quarter == 0:
        return re, im
    if quarter == 1:
        return im, -re
    if quarter == 2:
        return -re, -im
    return -im, re


@compiled
def _parity_sign(bits: int) -> int:
    """+1 for an even number of ones, -1 for an odd one."""
    for shift in (32, 16, 8, 4, 2, 1):
        bits ^= bits >> shift
    return 1 - 2 * (bits & 1)
