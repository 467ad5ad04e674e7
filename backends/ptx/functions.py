"""Emitters of what a GPU has units for: exponentials and reciprocals of f32, in few instructions.

`ex2.approx` and `rcp.approx` are off by about one unit in the last place, and know no denormal
numbers. PTX ISA 9.0, sections "ex2" and "rcp".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from xdsl.dialects import arith
from xdsl.dialects.builtin import DenseIntOrFPElementsAttr, FloatAttr, f32
from xdsl.dialects.math import ExpOp
from xdsl.ir import Operation, SSAValue

from gemmir.backends.llvm.arithmetic import ARITHMETIC
from gemmir.backends.llvm.emitter import Emitter, Table, element_of, no_instruction, set_rows
from gemmir.backends.llvm.text import float_literal

LOG2_E: Final = 1 / math.log(2)
LN_2: Final = math.log(2)
LOW: Final = -87.3
HIGH: Final = 88.72
"""Where exp is still normal and finite."""


def _exp(e: Emitter, op: ExpOp) -> None:
    """2 to the power of x / ln 2; what that was rounded by is made up for, to first order.

    In a denominator that is at least 1 that does not matter: the larger the exponential, the less
    is the quotient.
    """
    if element_of(op.result.type) != f32:
        raise no_instruction(op)
    is_exact = not all(_is_denominator(use.operation) for use in op.result.uses)
    _by_element(e, op.result, [op.operand], lambda x: _exp_of(e, *x, is_exact=is_exact))


def _exp_of(e: Emitter, x: str, *, is_exact: bool) -> str:
    text = e.text
    if not is_exact:
        return _unit(e, "ex2", text.value(f"fmul float {x}, {_literal(LOG2_E)}"))
    for bound, order in ((HIGH, "ogt"), (LOW, "olt")):
        beyond = text.value(f"fcmp {order} float {x}, {_literal(bound)}")
        x = text.value(f"select i1 {beyond}, float {_literal(bound)}, float {x}")
    nearest = float_of(LOG2_E)
    power = text.value(f"fmul float {x}, {_literal(nearest)}")
    text.declare("float @llvm.fma.f32(float, float, float)")
    minus = text.value(f"fneg float {power}")
    rest = _fma(e, x, _literal(nearest), minus)
    rest = _fma(e, x, _literal(LOG2_E - nearest), rest)
    found = _unit(e, "ex2", power)
    return _fma(e, found, text.value(f"fmul float {rest}, {_literal(LN_2)}"), found)


def float_of(value: float) -> float:
    """The nearest f32."""
    return f32.unpack(f32.pack([value]), 1)[0]


def _fma(e: Emitter, x: str, y: str, z: str) -> str:
    return e.text.value(f"call float @llvm.fma.f32(float {x}, float {y}, float {z})")


def _divide(e: Emitter, op: arith.DivfOp) -> None:
    """By a denominator that is at least 1: times its reciprocal."""
    if element_of(op.result.type) == f32 and _is_at_least_one(op.rhs.owner):
        _by_element(
            e,
            op.result,
            [op.lhs, op.rhs],
            lambda x: e.text.value(f"fmul float {x[0]}, {_unit(e, 'rcp', x[1])}"),
        )
    else:
        ARITHMETIC[op.name](e, op)


def _is_denominator(op: Operation) -> bool:
    """Whether `op` is 1 + exp(x) and only divides."""
    return _is_at_least_one(op) and all(
        isinstance(use.operation, arith.DivfOp) and use.index == 1 for use in op.results[0].uses
    )


def _is_at_least_one(op: object) -> bool:
    """Whether `op` adds an exponential to a constant that is at least 1."""
    if not isinstance(op, arith.AddfOp):
        return False
    pairs = ((op.lhs, op.rhs), (op.rhs, op.lhs))
    return any(isinstance(x.owner, ExpOp) and _least(y) >= 1 for x, y in pairs)


def _least(value: SSAValue) -> float:
    """The number that a constant is everywhere; minus infinity of what is none."""
    found = value.owner.value if isinstance(value.owner, arith.ConstantOp) else None
    if isinstance(found, FloatAttr):
        return found.value.data
    if isinstance(found, DenseIntOrFPElementsAttr):
        return min(map(float, found.get_values()))
    return -math.inf


def _literal(value: float) -> str:
    return float_literal(value, f32)


def _unit(e: Emitter, name: str, x: str) -> str:
    intrinsic = f"@llvm.nvvm.{name}.approx.ftz.f"
    e.text.declare(f"float {intrinsic}(float)")
    return e.text.value(f"call float {intrinsic}(float {x})")


def _by_element(
    e: Emitter,
    result: SSAValue,
    operands: Sequence[SSAValue],
    function: Callable[[Sequence[str]], str],
) -> None:
    """`function` of every element: the units have no vectors."""
    text, t = e.text, e.row_type(result.type)
    lanes = e.shape(result.type)[1]
    rows: list[str] = []
    for row in zip(*map(e.rows, operands), strict=True):
        if lanes == 1:
            rows.append(function(row))
            continue
        made = "poison"
        for lane in range(lanes):
            one = [text.value(f"extractelement {t} {x}, i64 {lane}") for x in row]
            made = text.value(f"insertelement {t} {made}, float {function(one)}, i64 {lane}")
        rows.append(made)
    set_rows(e, result, rows)


FUNCTIONS: Table = {
    ExpOp.name: _exp,
    arith.DivfOp.name: _divide,
}
