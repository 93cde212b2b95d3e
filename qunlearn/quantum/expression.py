"""The small language of circuit cards: integer expressions and loops over wires.

An expression knows the names that it is given, integers, ``+ - * // %``, comparisons, ``and or not``;
everything else is refused. A loop reads ``i in A..B`` or ``i in A..B step S``, both ends included.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterator, Mapping

from qunlearn.errors import InputError, UnknownNameError

_BINARY: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARE: dict[type[ast.cmpop], Callable[[int, int], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_LOOP = re.compile(r"\s*([a-z]\w*)\s+in\s+(.+?)\.\.(.+?)(?:\s+step\s+(.+?))?\s*")


def evaluate(text: str | int, names: Mapping[str, int]) -> int:
    """The integer value of an expression; a comparison gives 1 or 0.

    Raises:
        InputError: for what the language does not know, or a division by zero.
    """
    try:
        return _value(ast.parse(str(text).strip(), mode="eval").body, names)
    except (SyntaxError, ZeroDivisionError, RecursionError) as error:
        raise InputError(f"expected an integer expression such as '(i + 1) % n', got {text!r} ({error})") from error


def _value(node: ast.expr, names: Mapping[str, int]) -> int:
    match node:
        case ast.Constant(value=int(number)):
            return int(number)
        case ast.Name(id=name):
            if name not in names:
                raise UnknownNameError("variable of the card", name, names)
            return names[name]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _BINARY[type(op)](_value(left, names), _value(right, names))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, names)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return int(not _value(operand, names))
        case ast.BoolOp(op=op, values=values):
            parts = (_value(value, names) for value in values)
            return int(all(parts) if isinstance(op, ast.And) else any(parts))
        case ast.Compare(left=left, ops=ops, comparators=rest) if all(type(op) in _COMPARE for op in ops):
            numbers = [_value(part, names) for part in (left, *rest)]
            return int(all(_COMPARE[type(op)](a, b) for op, a, b in zip(ops, numbers, numbers[1:], strict=False)))
    raise InputError(f"expected integers, names, + - * // % and comparisons, got {ast.unparse(node)!r}")


def loop(text: str, names: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Every assignment of a loop ``i in A..B [step S]``, or of several joined by commas, the first outermost.

    An inner loop may use the variables of the outer ones; an empty range gives nothing.

    Raises:
        InputError: for text that is no loop, a step of zero, or a variable that is already taken.
    """
    head, _, rest = text.partition(",")
    found = _LOOP.fullmatch(head)
    if found is None:
        raise InputError(f"expected a loop such as 'i in 0..n-1' or 'i in n-1..0 step -1', got {head.strip()!r}")
    name, first, last, step_text = found.groups()
    step = evaluate(step_text or 1, names)
    if step == 0 or name in names:
        raise InputError(f"expected a new variable and a step other than 0, got {head.strip()!r}")
    stop = evaluate(last, names) + (1 if step > 0 else -1)
    for value in range(evaluate(first, names), stop, step):
        inner = {**names, name: value}
        yield from loop(rest, inner) if rest.strip() else iter((inner,))
