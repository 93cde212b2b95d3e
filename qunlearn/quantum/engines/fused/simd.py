"""Vectors for Numba: 64 bytes of float32 or float64 in one value, with explicit loads, shuffles and sums.

Numba leaves vectors to LLVM's loop vectoriser, which cannot prove that the halves of a state do not overlap.
Here a kernel says what it means: ``load``, ``+``, ``-``, ``*``, ``store``. LLVM splits a vector where the
processor's registers are narrower. Products and sums may be contracted to fused multiply-adds.
"""

from __future__ import annotations

import math
import operator
from typing import Any

from llvmlite import ir
from llvmlite.binding import address_of_symbol
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

BYTES = 64  # of a vector
LANE_BITS = {4: 4, 8: 3}  # by the size of a real number: log2 of how many a vector holds


_intrinsic: Any = intrinsic


class Vector(types.Type):
    """The Numba type of a vector of `lanes` numbers of type `scalar`."""

    def __init__(self, scalar: types.Float) -> None:
        self.scalar = scalar
        self.lanes = BYTES * 8 // scalar.bitwidth
        super().__init__(name=f"Vector({scalar}, {self.lanes})")


def _llvm_type(vector: Vector) -> ir.VectorType:
    return ir.VectorType(ir.FloatType() if vector.scalar.bitwidth == 32 else ir.DoubleType(), vector.lanes)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, _llvm_type(vector))


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any, vector: Vector) -> Any:
    data = cgutils.create_struct_proxy(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _llvm_type(vector).as_pointer())


def _is_line(array: Any) -> bool:
    return isinstance(array, types.Array) and array.ndim == 1 and array.layout == "C"


@_intrinsic
def load(typing_context: Any, array: Any, index: Any) -> Any:
    """The vector that begins at ``array[index]`` of a contiguous one-dimensional array; no bounds are checked."""
    if not _is_line(array):
        return None
    vector = Vector(array.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _address(context, builder, signature.args[0], arguments[0], arguments[1], vector)
        loaded = builder.load(place, typ=_llvm_type(vector))
        loaded.align = vector.scalar.bitwidth // 8
        return loaded

    return vector(array, types.intp), generate


@_intrinsic
def store(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
    """Write a vector to ``array[index]`` and what follows."""
    if not _is_line(array) or not isinstance(value, Vector):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _address(context, builder, signature.args[0], arguments[0], arguments[1], value)
        builder.store(arguments[2], place, align=value.scalar.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


@_intrinsic
def splat(typing_context: Any, number: Any) -> Any:
    """A vector with the same number in every lane."""
    if not isinstance(number, types.Float):
        return None
    vector = Vector(number)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        empty = ir.Constant(_llvm_type(vector), ir.Undefined)
        first = builder.insert_element(empty, arguments[0], ir.Constant(ir.IntType(32), 0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), vector.lanes), [0] * vector.lanes)
        return builder.shuffle_vector(first, empty, mask)

    return vector(number), generate


@_intrinsic
def total(typing_context: Any, value: Any) -> Any:
    """The sum of all lanes, by halves."""
    if not isinstance(value, Vector):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        left, width = arguments[0], value.lanes
        while width > 1:
            width //= 2
            parts = []
            for begin in (0, width):
                mask = ir.Constant(ir.VectorType(ir.IntType(32), width), list(range(begin, begin + width)))
                parts.append(builder.shuffle_vector(left, left, mask))
            left = builder.fadd(parts[0], parts[1])
        return builder.extract_element(left, ir.Constant(ir.IntType(32), 0))

    return value.scalar(value), generate


def _exchange(distance: int) -> Any:
    @_intrinsic
    def exchanged(typing_context: Any, value: Any) -> Any:
        if not isinstance(value, Vector):
            return None

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            order = [lane ^ distance for lane in range(value.lanes)]
            mask = ir.Constant(ir.VectorType(ir.IntType(32), value.lanes), order)
            return builder.shuffle_vector(arguments[0], arguments[0], mask)

        return value(value), generate

    return exchanged


EXCHANGE = tuple(_exchange(1 << bit) for bit in range(4))  # lane i gets what lane i xor 2**bit held


#: How sine and cosine are computed, by bits of a number: pi / 2 in three parts, so that multiples of it can be taken
#: away exactly, and the coefficients of both series on [-pi / 4, pi / 4]. Source: Moshier, Cephes (sinf.c, sin.c).
_WAVES: dict[int, tuple[list[float], list[float], list[float]]] = {
    32: (
        [1.5703125, 4.837512969970703125e-4, 7.54978995489188216e-8],
        [-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1],
        [2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2],
    ),
    64: (
        [1.57079625129699707031, 7.54978941586159635335e-8, 5.39030285815811905290e-15],
        [1.58962301576546568060e-10, -2.50507477628578072866e-8, 2.75573136213857245213e-6,
         -1.98412698295895385996e-4, 8.33333333332211858878e-3, -1.66666666666666307295e-1],
        [-1.13585365213876817300e-11, 2.08757008419747316778e-9, -2.75573141792967388112e-7,
         2.48015872888517045348e-5, -1.38888888888730564116e-3, 4.16666666666665929218e-2],
    ),
}  # fmt: skip


def _wave(quarters: int) -> Any:
    """sin(x + quarters * pi / 2), to two units in the last place for angles up to some thousands."""

    @_intrinsic
    def wave(typing_context: Any, value: Any) -> Any:
        if not isinstance(value, Vector):
            return None

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            real, bits = _llvm_type(value), value.scalar.bitwidth
            whole = ir.VectorType(ir.IntType(bits), value.lanes)
            half_pi, odd, even = _WAVES[bits]

            def constant(number: float, kind: Any = real) -> Any:
                return ir.Constant(kind, [number] * value.lanes)

            def fused(a: Any, b: Any, c: Any) -> Any:
                product = builder.fmul(a, b, flags=("contract",))
                return builder.fadd(product, c, flags=("contract",))

            def series(square: Any, coefficients: list[float]) -> Any:
                found = constant(coefficients[0])
                for coefficient in coefficients[1:]:
                    found = fused(found, square, constant(coefficient))
                return found

            shape = f"v{value.lanes}f{bits}"

            def called(name: str, result: Any, argument: Any) -> Any:
                function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, [real]), name)
                return builder.call(function, [argument])

            count = called(f"llvm.rint.{shape}", real, builder.fmul(arguments[0], constant(2 / math.pi)))
            rest = arguments[0]
            for part in half_pi:
                rest = fused(count, constant(-part), rest)
            # Saturating, since converting a number that does not fit is undefined otherwise.
            quadrant = called(f"llvm.fptosi.sat.v{value.lanes}i{bits}.{shape}", whole, count)
            quadrant = builder.add(quadrant, constant(quarters, whole))
            square = builder.fmul(rest, rest)
            sine = fused(builder.fmul(rest, square), series(square, odd), rest)
            cosine = fused(square, constant(-0.5), constant(1.0))
            cosine = fused(builder.fmul(square, square), series(square, even), cosine)
            zero = constant(0, whole)
            crossed = builder.icmp_signed("!=", builder.and_(quadrant, constant(1, whole)), zero)
            negative = builder.icmp_signed("!=", builder.and_(quadrant, constant(2, whole)), zero)
            chosen = builder.select(crossed, cosine, sine)
            return builder.select(negative, builder.fneg(chosen), chosen)

        return value(value), generate

    return wave


sine, cosine = _wave(0), _wave(1)


def _define(symbol: Any, name: str) -> None:
    """Gives an operator a meaning for two vectors of one type."""

    @infer_global(symbol)
    class Operation(AbstractTemplate):
        def generic(self, arguments: Any, keywords: Any) -> Any:
            left, right = arguments
            return signature(left, left, right) if isinstance(left, Vector) and left == right else None

    @lower_builtin(symbol, Vector, Vector)
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return getattr(builder, name)(*arguments, flags=("contract",))


_define(operator.add, "fadd")
_define(operator.sub, "fsub")
_define(operator.mul, "fmul")


@_intrinsic
def arrive(typing_context: Any, meeting: Any) -> Any:
    """Add one to ``meeting[0]``, an int64, seen by all threads at once; what it was before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = cgutils.create_struct_proxy(signature.args[0])(context, builder, arguments[0]).data
        return builder.atomic_rmw("add", data, ir.Constant(ir.IntType(64), 1), "seq_cst")

    return types.int64(meeting), generate


@_intrinsic
def arrived(typing_context: Any, meeting: Any) -> Any:
    """What ``meeting[0]`` is now, whatever the compiler believes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = cgutils.create_struct_proxy(signature.args[0])(context, builder, arguments[0]).data
        return builder.load_atomic(data, ordering="seq_cst", align=8, typ=ir.IntType(64))

    return types.int64(meeting), generate


@_intrinsic
def let_others_run(typing_context: Any) -> Any:
    """Give the core to another thread that waits for it, where the system has a call for that (POSIX)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if address_of_symbol("sched_yield") is not None:
            kind = ir.FunctionType(ir.IntType(32), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), generate
