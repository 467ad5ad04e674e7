"""Emitters of arith and math: an operator or a function of jnp for each op."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from xdsl.dialects import arith
from xdsl.dialects.builtin import DenseIntOrFPElementsAttr, FloatAttr, IntegerAttr, VectorType
from xdsl.ir import Operation

from gemmir.backends.pallas.emitter import (
    ATOM,
    BOTH,
    CHOICE,
    CONDITION,
    PRODUCT,
    SIGN,
    SUM,
    Emitter,
    Expr,
    Table,
    element_of,
)
from gemmir.backends.pallas.types import jax_number, jax_type
from gemmir.errors import BackendError

_OPERATORS: Final[Mapping[str, tuple[str, int]]] = {
    arith.AddfOp.name: ("+", SUM),
    arith.AddiOp.name: ("+", SUM),
    arith.SubfOp.name: ("-", SUM),
    arith.SubiOp.name: ("-", SUM),
    arith.MulfOp.name: ("*", PRODUCT),
    arith.MuliOp.name: ("*", PRODUCT),
    arith.DivfOp.name: ("/", PRODUCT),
    arith.AndIOp.name: ("&", BOTH),
}

_FUNCTIONS: Final[Mapping[str, str]] = {
    arith.XOrIOp.name: "jnp.bitwise_xor",
    arith.MaximumfOp.name: "jnp.maximum",
    arith.MinimumfOp.name: "jnp.minimum",
    arith.MaxSIOp.name: "jnp.maximum",
    arith.MinSIOp.name: "jnp.minimum",
    arith.DivUIOp.name: "lax.div",
    arith.RemUIOp.name: "lax.rem",
    "math.exp": "jnp.exp",
    "math.tanh": "jnp.tanh",
}
"""Indices are never negative, so that lax.div and lax.rem, which have signs, divide them right."""

_OF_PYTHON: Final = {"jnp.minimum": "min", "jnp.maximum": "max"}
"""What a function is called of numbers, of which a kernel must not make arrays."""

_COMPARISONS: Final = ("==", "!=", "<", "<=", ">", ">=", "<", "<=", ">", ">=")
"""By the number of the predicate; the last four are of numbers without sign, which indices are."""


def _constant(e: Emitter, op: arith.ConstantOp) -> None:
    value = op.value
    if isinstance(value, DenseIntOrFPElementsAttr):
        numbers = value.get_values()
        if any(n != numbers[0] for n in numbers[1:]):
            raise BackendError(
                "GEM0463",
                f"a constant {op.result.type} with different elements",
                "use one number for all of them, or an operand of the kernel",
            )
        number = numbers[0]
        assert isinstance(number, int | float)
        text = jax_number(number, value.get_element_type())
    else:
        assert isinstance(value, IntegerAttr | FloatAttr)
        text = jax_number(value.value.data, element_of(op.result))
    level = SIGN if text.startswith("-") else ATOM
    e.values[op.result] = Expr(text=text, level=level, is_literal=True)


def typed(op: Operation, exprs: Sequence[Expr]) -> list[Expr]:
    """Operands of a vector op; where all are numbers the first gets its type, which Python's lack.

    Operands whose axes lie otherwise than those of the first matrix are transposed.
    """
    first = op.operands[-1]
    if isinstance(first.type, VectorType) and all(x.is_literal for x in exprs):
        text = f"{jax_type(element_of(first))}({exprs[0].text})"
        return [Expr(text=text), *exprs[1:]]
    arrays = [x for x in exprs if x.shape]
    whole = next((x for x in arrays if 1 not in x.shape), arrays[0] if arrays else None)
    return [_turned(x, whole.transposed) if whole and x.shape else x for x in exprs]


def _turned(x: Expr, transposed: bool) -> Expr:
    """`x` with its axes in the order of the IR, or in the other one."""
    if x.transposed == transposed:
        return x
    text = f"{x.within(ATOM)}.T"
    return replace(x, text=text, level=ATOM, shape=x.shape[::-1], transposed=transposed)


def in_order(x: Expr, transposed: bool) -> Expr:
    """`x` with its axes in the order of what it is written to."""
    return _turned(x, transposed) if x.shape else x


def _made(text: str, level: int, operands: Sequence[Expr]) -> Expr:
    """An elementwise result: as large as the operands together."""
    arrays = [x for x in operands if x.shape]
    if not arrays:
        return Expr(text=text, level=level, is_literal=all(x.is_literal for x in operands))
    rows, columns = (max(x.shape[axis] for x in arrays) for axis in (0, 1))
    return Expr(text=text, level=level, shape=(rows, columns), transposed=arrays[0].transposed)


def _elementwise(make: Callable[[Sequence[Expr]], tuple[str, int]]):
    def emit(e: Emitter, op: Operation) -> None:
        def expr(exprs: Sequence[Expr]) -> Expr:
            operands = typed(op, exprs)
            return _made(*make(operands), operands)

        e.define(op, op.operands, expr)

    return emit


def _operator(word: str, level: int):
    """Operators of a level go from left to right."""
    return _elementwise(lambda x: (f"{x[0].within(level)} {word} {x[1].within(level + 1)}", level))


def _function(name: str):
    """A function of JAX, or that of Python where all operands are numbers."""

    def make(x: Sequence[Expr]) -> tuple[str, int]:
        known = all(operand.is_literal for operand in x)
        return f"{_OF_PYTHON.get(name, name) if known else name}({listed(x)})", ATOM

    return _elementwise(make)


def listed(exprs: Sequence[Expr]) -> str:
    """Expressions as the operands of a call."""
    return ", ".join(x.text for x in exprs)


def _compare(e: Emitter, op: arith.CmpiOp) -> None:
    word = _COMPARISONS[op.predicate.value.data]
    _elementwise(lambda x: (f"{x[0].within(SUM)} {word} {x[1].within(SUM)}", CONDITION))(e, op)


def _convert(e: Emitter, op: Operation) -> None:
    name = jax_type(element_of(op.results[0]))

    def make(x: Sequence[Expr]) -> tuple[str, int]:
        if x[0].is_literal:
            return f"{name}({x[0].text})", ATOM
        return f"{x[0].within(ATOM)}.astype({name})", ATOM

    _elementwise(make)(e, op)


def _select(e: Emitter, op: arith.SelectOp) -> None:
    """A choice that is known when the kernel is traced is Python's own."""

    def make(x: Sequence[Expr]) -> tuple[str, int]:
        test, yes, no = x
        if test.is_literal:
            return f"{yes.within(BOTH)} if {test.text} else {no.within(BOTH)}", CHOICE
        return f"jnp.where({listed(x)})", ATOM

    _elementwise(make)(e, op)


def _same(e: Emitter, op: arith.IndexCastOp) -> None:
    """Indices are i32 in a kernel."""
    e.define(op, op.operands, lambda x: x[0])


ARITHMETIC: Final[Table] = {
    **{name: _operator(*how) for name, how in _OPERATORS.items()},
    **{name: _function(function) for name, function in _FUNCTIONS.items()},
    arith.CmpiOp.name: _compare,
    arith.ConstantOp.name: _constant,
    arith.ExtFOp.name: _convert,
    arith.IndexCastOp.name: _same,
    arith.NegfOp.name: _elementwise(lambda x: (f"-{x[0].within(SIGN)}", SIGN)),
    arith.SelectOp.name: _select,
    arith.TruncFOp.name: _convert,
}
