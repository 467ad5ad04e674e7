"""The arith dialect: constants, integer and floating-point arithmetic, each element on its own.

Floating-point ops round once, in the type of their operands. Integers wrap; index is unbounded.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import numpy as np
from xdsl.dialects import arith
from xdsl.dialects.builtin import (
    DenseIntOrFPElementsAttr,
    FloatAttr,
    IndexType,
    IntegerAttr,
    IntegerType,
    UnrealizedConversionCastOp,
    i1,
)
from xdsl.ir import Attribute, Operation

from gemmir.evaluate.fault import FaultError
from gemmir.evaluate.frame import Frame, Meanings, Step
from gemmir.evaluate.values import Array, Element, bits, dtype_of, element_type

Comparison: TypeAlias = Callable[[Element, Element], Element]


def elementwise(function: Callable[..., Element]) -> Callable[[Frame, Operation], Step]:
    """The meaning of an op of one result that `function` computes from its operands."""

    def step(*operands: Element) -> tuple[Element]:
        return (function(*operands),)

    def meaning(frame: Frame, op: Operation) -> Step:
        return step

    return meaning


def _constant(frame: Frame, op: arith.ConstantOp) -> Step:
    value = _constant_value(op)
    return lambda: (value,)


def _constant_value(op: arith.ConstantOp) -> Element:
    attribute = op.value
    if isinstance(attribute, DenseIntOrFPElementsAttr):
        return _dense_value(attribute)
    if not isinstance(attribute, IntegerAttr | FloatAttr):
        raise FaultError("GEM0903", "the constant is neither a number nor dense")
    number = attribute.value.data
    of: Attribute = op.result.type
    if of == IndexType():
        return int(number)
    if of == i1:
        return bool(number)
    return dtype_of(of).type(number)


def _dense_value(attribute: DenseIntOrFPElementsAttr[Any]) -> Element:
    dtype = dtype_of(attribute.type)
    shape = attribute.get_shape()
    if attribute.is_splat():
        return np.full(shape, attribute.get_values()[0], dtype)
    return np.array(attribute.get_values(), dtype).reshape(shape)


def _divide(a: Element, b: Element) -> Element:
    return a / b


def _and(a: Element, b: Element) -> Element:
    return a & b


def _or(a: Element, b: Element) -> Element:
    return a | b


def _xor(a: Element, b: Element) -> Element:
    return a ^ b


def _shift_left(a: Element, b: Element) -> Element:
    return a << b


def _where(condition: Element, chosen: Element, otherwise: Element) -> Element:
    where: Array = np.asarray(condition)
    yes: Array = np.asarray(chosen)
    no: Array = np.asarray(otherwise)
    return np.where(where, yes, no)[()]


def _maximum(a: Element, b: Element) -> Element:
    """NaN if either is; +0 above -0, which NumPy leaves open."""
    return _where((a == 0) & (b == 0), a + b, np.maximum(a, b))


def _minimum(a: Element, b: Element) -> Element:
    """NaN if either is; -0 below +0, which NumPy leaves open."""
    return _where((a == 0) & (b == 0), -(-a - b), np.minimum(a, b))


def _select(condition: Element, chosen: Element, otherwise: Element) -> Element:
    if np.ndim(condition) == 0:
        return chosen if condition else otherwise
    return _where(condition, chosen, otherwise)


def _least(a: Element, b: Element) -> Element:
    return _select(a <= b, a, b)


def _greatest(a: Element, b: Element) -> Element:
    return _select(a >= b, a, b)


def _remainder(a: Element, b: Element) -> Element:
    """Of the division that rounds towards zero, so that the sign is that of `a`."""
    if np.any(b == 0):
        raise FaultError("GEM0903", "the remainder of a division by 0")
    return _select(a < 0, -(-a % abs(b)), a % abs(b))


def _divide_unsigned(a: Element, b: Element) -> Element:
    return divmod(*_not_negative(a, b))[0]


def _remainder_unsigned(a: Element, b: Element) -> Element:
    return divmod(*_not_negative(a, b))[1]


def _not_negative(a: Element, b: Element) -> tuple[int, int]:
    """Both as numbers; only an index that is the same signed and unsigned is divided."""
    if not isinstance(a, int) or not isinstance(b, int) or a < 0 or b <= 0:
        raise FaultError("GEM0903", f"{a} divided by {b} is no unsigned division of indices")
    return a, b


INTEGER_COMPARISONS: Final[tuple[Comparison, ...]] = (
    operator.eq,
    operator.ne,
    operator.lt,
    operator.le,
    operator.gt,
    operator.ge,
    operator.lt,
    operator.le,
    operator.gt,
    operator.ge,
)
"""By predicate: eq, ne, four signed comparisons, the same unsigned."""
_FIRST_UNSIGNED: Final = 6


def _cmpi(frame: Frame, op: arith.CmpiOp) -> Step:
    predicate = op.predicate.value.data
    compare = INTEGER_COMPARISONS[predicate]
    if predicate < _FIRST_UNSIGNED:
        return elementwise(compare)(frame, op)
    width = bits(op.lhs.type)

    def step(a: Element, b: Element) -> tuple[Element]:
        return (compare(_unsigned(a, width), _unsigned(b, width)),)

    return step


def _unsigned(value: Element, width: int) -> Element:
    """`value` read as an unsigned number of `width` bits."""
    if isinstance(value, int):
        return value % 2**width
    return value.view(np.dtype(f"u{width // 8}"))


def _ordered(a: Element, b: Element) -> Element:
    return (a == a) & (b == b)


def _less_or_greater(a: Element, b: Element) -> Element:
    return (a < b) | (a > b)


def _always(answer: bool) -> Comparison:
    return lambda a, b: np.full(np.broadcast(a, b).shape, answer)[()]


def _unless(compare: Comparison) -> Comparison:
    return lambda a, b: np.logical_not(compare(a, b))


FLOAT_COMPARISONS: Final[tuple[Comparison, ...]] = (
    _always(False),
    operator.eq,
    operator.gt,
    operator.ge,
    operator.lt,
    operator.le,
    _less_or_greater,
    _ordered,
    _unless(_less_or_greater),
    _unless(operator.le),
    _unless(operator.lt),
    _unless(operator.ge),
    _unless(operator.gt),
    operator.ne,
    _unless(_ordered),
    _always(True),
)
"""By predicate: false, six ordered and ord, six unordered (ueq to une) and uno, true."""


def _cmpf(frame: Frame, op: arith.CmpfOp) -> Step:
    return elementwise(FLOAT_COMPARISONS[op.predicate.value.data])(frame, op)


def _fptosi(frame: Frame, op: arith.FPToSIOp) -> Step:
    """Rounds towards zero; NaN and what does not fit become the least integer, as on x86-64."""
    target = dtype_of(op.result.type)
    least = np.iinfo(target).min

    def step(x: Element) -> tuple[Element]:
        fits = (x >= float(least)) & (x < -float(least))
        return (np.where(fits, x, float(least)).astype(target)[()],)

    return step


def _convert(frame: Frame, op: arith.ExtFOp | arith.TruncFOp) -> Step:
    """To a wider type exactly, to a narrower one rounded to nearest even."""
    target = dtype_of(op.result.type)

    def step(x: Element) -> tuple[Element]:
        return (np.asarray(x).astype(target)[()],)

    return step


def _extsi(frame: Frame, op: arith.ExtSIOp) -> Step:
    target = dtype_of(op.result.type)

    def widen(x: Element) -> Element:
        return np.asarray(x).astype(target)[()]

    def spread(x: Element) -> Element:
        return -widen(x)

    return elementwise(spread if bits(op.input.type) == 1 else widen)(frame, op)


def _extui(frame: Frame, op: arith.ExtUIOp) -> Step:
    target, width = dtype_of(op.result.type), bits(op.input.type)

    def widen(x: Element) -> Element:
        return np.asarray(x if width == 1 else _unsigned(x, width)).astype(target)[()]

    return elementwise(widen)(frame, op)


def _index_cast(frame: Frame, op: arith.IndexCastOp) -> Step:
    if op.result.type == IndexType():
        return elementwise(int)(frame, op)
    made = dtype_of(op.result.type)

    def narrow(x: int) -> Element:
        return np.asarray(x).astype(made)[()]

    return elementwise(narrow)(frame, op)


def _bitcast(frame: Frame, op: arith.BitcastOp) -> Step:
    target = dtype_of(op.result.type)

    def step(x: Element) -> tuple[Element]:
        return (x.view(target),)

    return step


def _cast(frame: Frame, op: UnrealizedConversionCastOp) -> Step:
    """Between integers with and without a sign, of the same bits."""
    (source,), (target,) = op.operand_types, op.result_types
    if bits(source) != bits(target) or not isinstance(element_type(target), IntegerType):
        raise FaultError("GEM0903", f"{source} is not {target} under another name")
    dtype = dtype_of(target)

    def step(x: Element) -> tuple[Element]:
        return (np.asarray(x).view(dtype)[()],)

    return step


MEANINGS: Final[Meanings] = {
    arith.ConstantOp: _constant,
    arith.AddfOp: elementwise(operator.add),
    arith.SubfOp: elementwise(operator.sub),
    arith.MulfOp: elementwise(operator.mul),
    arith.DivfOp: elementwise(_divide),
    arith.NegfOp: elementwise(operator.neg),
    arith.MaximumfOp: elementwise(_maximum),
    arith.MinimumfOp: elementwise(_minimum),
    arith.AddiOp: elementwise(operator.add),
    arith.SubiOp: elementwise(operator.sub),
    arith.MuliOp: elementwise(operator.mul),
    arith.RemSIOp: elementwise(_remainder),
    arith.DivUIOp: elementwise(_divide_unsigned),
    arith.RemUIOp: elementwise(_remainder_unsigned),
    arith.MaxSIOp: elementwise(_greatest),
    arith.MinSIOp: elementwise(_least),
    arith.AndIOp: elementwise(_and),
    arith.OrIOp: elementwise(_or),
    arith.XOrIOp: elementwise(_xor),
    arith.ShLIOp: elementwise(_shift_left),
    arith.CmpiOp: _cmpi,
    arith.CmpfOp: _cmpf,
    arith.SelectOp: elementwise(_select),
    arith.FPToSIOp: _fptosi,
    arith.ExtFOp: _convert,
    arith.ExtSIOp: _extsi,
    arith.ExtUIOp: _extui,
    arith.TruncFOp: _convert,
    arith.BitcastOp: _bitcast,
    arith.IndexCastOp: _index_cast,
    UnrealizedConversionCastOp: _cast,
}
