"""Arithmetic and conditions over the names of a space, read safely and computed exactly.

The syntax is Python's, of which these are allowed: numbers, names, quoted text, `+ - * / // % **`,
comparisons and chains of them, `and or not`, `x if condition else y`, `x in (a, b)`, and the
functions of `FUNCTIONS`. Nothing else can be said, so that a file of a space runs no code. Numbers
are whole or fractions, without rounding: 10 / 4 is 5/2, and 10 // 4 is 2.
"""

from __future__ import annotations

import ast
import keyword
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from gemmir.errors import ScheduleError

Value = int | Fraction | str
"""What an expression gives; a condition gives True or False, which are 1 and 0."""

Names = Mapping[str, Value]
Evaluate = Callable[[Names], Value]

MOST_POWER: Final = 64
"""The largest exponent: numbers of a space are sizes, and larger ones would only take memory."""

_MARKED: Final = re.compile(r"""('[^']*'|"[^"]*")|\?(?=[A-Za-z_])""")
"""The mark of a hole, which an expression may do without, outside of quotes."""


class UndefinedError(Exception):
    """An expression has no value here: it divides by zero, or computes with text."""


@dataclass(frozen=True, kw_only=True)
class Expression:
    """An expression as it is written, the names that it uses, and how it is computed."""

    text: str
    names: tuple[str, ...]
    evaluate: Evaluate

    def __str__(self) -> str:
        return self.text


def _whole(value: Value) -> Value:
    """A fraction that is a whole number as one."""
    return value.numerator if isinstance(value, Fraction) and value.denominator == 1 else value


def _number(value: Value) -> int | Fraction:
    if isinstance(value, str):
        raise UndefinedError(f"{value!r} is no number")
    return value


def _divide(a: Any, b: Any) -> Value:
    return Fraction(a) / b


def _power(a: Any, b: Any) -> Value:
    if not isinstance(b, int) or not 0 <= b <= MOST_POWER:
        raise UndefinedError(f"an exponent of {b}, and it is a whole number up to {MOST_POWER}")
    return a**b


def _log2(x: Any) -> Value:
    if not isinstance(x, int) or x < 1 or x & (x - 1):
        raise UndefinedError(f"log2 of {x}, which is no power of 2")
    return x.bit_length() - 1


def _gcd(*whole: Any) -> Value:
    return math.gcd(*whole)


def _lcm(*whole: Any) -> Value:
    return math.lcm(*whole)


FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "abs": abs,
    "ceil": math.ceil,
    "floor": math.floor,
    "gcd": _gcd,
    "lcm": _lcm,
    "log2": _log2,
    "max": max,
    "min": min,
}
"""What an expression may call; `log2` is of powers of 2."""

Compute = Callable[[Any, Any], Any]

_BINARY: Final[Mapping[type[ast.operator], Compute]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: _divide,
    ast.FloorDiv: lambda a, b: a // b,
    ast.Mod: lambda a, b: a % b,
    ast.Pow: _power,
}
_UNARY: Final[Mapping[type[ast.unaryop], Callable[[Any], Any]]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_ORDER: Final[Mapping[type[ast.cmpop], Callable[[Any, Any], bool]]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def is_name(text: str) -> bool:
    """Whether `text` can name a hole."""
    return text.isidentifier() and text.isascii() and not keyword.iskeyword(text)


def parse_expression(text: str, line: int) -> Expression:
    """The expression that `text` spells; `ScheduleError` GEM1402 with `line` where it is none."""
    plain = _MARKED.sub(lambda found: found[1] or "", text.strip())
    try:
        tree = ast.parse(plain, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise _unreadable(line, text, reason) from None
    names: dict[str, None] = {}
    evaluate = _Reader(text=text.strip(), line=line, names=names).read(tree.body)
    return Expression(text=text.strip(), names=tuple(names), evaluate=evaluate)


def _unreadable(line: int, text: str, reason: str) -> ScheduleError:
    return ScheduleError(
        "GEM1402",
        f"line {line}: {text.strip()!r} is no expression: {reason}",
        "use numbers, names, + - * / // % **, comparisons, and, or, not, if else, and "
        + ", ".join(FUNCTIONS),
    )


@dataclass(frozen=True, kw_only=True)
class _Reader:
    """Makes functions of the nodes of an expression, and notes the names that they use."""

    text: str
    line: int
    names: dict[str, None]

    def read(self, node: ast.expr) -> Evaluate:
        """The function that computes `node`."""
        made = getattr(self, f"_{type(node).__name__.lower()}", None)
        if made is None:
            raise self._refused(f"{ast.unparse(node)} is not allowed")
        return made(node)

    def _refused(self, reason: str) -> ScheduleError:
        return _unreadable(self.line, self.text, reason)

    def _constant(self, node: ast.Constant) -> Evaluate:
        value = node.value
        if not isinstance(value, int | str):
            raise self._refused(f"{value!r} is neither a whole number nor text")
        return lambda names: value

    def _name(self, node: ast.Name) -> Evaluate:
        name = node.id
        self.names[name] = None
        return lambda names: names[name]

    def _binop(self, node: ast.BinOp) -> Evaluate:
        left, right = self.read(node.left), self.read(node.right)
        compute = _BINARY.get(type(node.op))
        if compute is None:
            raise self._refused(f"{ast.unparse(node)} is not allowed")

        def evaluate(names: Names) -> Value:
            try:
                return _whole(compute(_number(left(names)), _number(right(names))))
            except ZeroDivisionError:
                raise UndefinedError("it divides by 0") from None

        return evaluate

    def _unaryop(self, node: ast.UnaryOp) -> Evaluate:
        inner = self.read(node.operand)
        if isinstance(node.op, ast.Not):
            return lambda names: not inner(names)
        compute = _UNARY.get(type(node.op))
        if compute is None:
            raise self._refused(f"{ast.unparse(node)} is not allowed")
        return lambda names: compute(_number(inner(names)))

    def _boolop(self, node: ast.BoolOp) -> Evaluate:
        parts = [self.read(value) for value in node.values]
        if isinstance(node.op, ast.And):
            return lambda names: all(part(names) for part in parts)
        return lambda names: any(part(names) for part in parts)

    def _compare(self, node: ast.Compare) -> Evaluate:
        first = self.read(node.left)
        rest = [
            self._comparison(op, right)
            for op, right in zip(node.ops, node.comparators, strict=True)
        ]

        def evaluate(names: Names) -> Value:
            left = first(names)
            for holds, right in rest:
                other = right(names)
                if not holds(left, other):
                    return False
                left = other
            return True

        return evaluate

    def _comparison(
        self, op: ast.cmpop, right: ast.expr
    ) -> tuple[Callable[[Any, Any], bool], Callable[[Names], Any]]:
        if isinstance(op, ast.In | ast.NotIn):
            if not isinstance(right, ast.Tuple | ast.List):
                raise self._refused(f"{ast.unparse(right)} is no list of choices")
            members = [self.read(member) for member in right.elts]
            wanted = isinstance(op, ast.In)
            return (
                lambda left, others: (left in others) is wanted,
                lambda names: [member(names) for member in members],
            )
        if isinstance(op, ast.Eq | ast.NotEq):
            equal = isinstance(op, ast.Eq)
            return lambda left, other: (left == other) is equal, self.read(right)
        compare = _ORDER.get(type(op))
        if compare is None:
            raise self._refused(f"{ast.unparse(right)} is compared in a way that is not allowed")
        return lambda left, other: compare(_number(left), _number(other)), self.read(right)

    def _ifexp(self, node: ast.IfExp) -> Evaluate:
        test, then, other = self.read(node.test), self.read(node.body), self.read(node.orelse)
        return lambda names: then(names) if test(names) else other(names)

    def _call(self, node: ast.Call) -> Evaluate:
        name = node.func.id if isinstance(node.func, ast.Name) else ast.unparse(node.func)
        if name not in FUNCTIONS or node.keywords:
            raise self._refused(f"{name} is no function of it")
        function = FUNCTIONS[name]
        arguments: Sequence[Evaluate] = [self.read(argument) for argument in node.args]

        def evaluate(names: Names) -> Value:
            values = [_number(argument(names)) for argument in arguments]
            try:
                return function(*values)
            except (TypeError, ValueError):
                shown = ", ".join(map(str, values))
                raise UndefinedError(f"{name}({shown}) has no value") from None

        return evaluate
