"""What the right answer is, in wider arithmetic, and how far a correct kernel may be from it.

Where the problem is known as a `Gemm`, that says both. For IR whose epilogue is known by its ops
only, the IR itself is computed in wider arithmetic, and the bound is carried through each op of the
epilogue: a running error analysis (Higham, Accuracy and Stability of Numerical Algorithms, 2nd
ed., section 3.3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from xdsl.dialects import arith, func, memref
from xdsl.dialects import math as math_dialect
from xdsl.dialects.builtin import FloatAttr, IntAttr, ModuleOp, StridedLayoutAttr
from xdsl.ir import Operation, SSAValue

from gemmir.arrays import Operand, Operands, strided
from gemmir.dtypes import BY_MLIR, ELEMENTS, PRODUCTS, ElementType
from gemmir.errors import ParseError
from gemmir.gemm import Gemm
from gemmir.gemm import Operand as GemmOperand
from gemmir.int4 import unpack_int4
from gemmir.ir.arguments import layout_of, size_arguments
from gemmir.ir.build import build
from gemmir.ir.context import parse_module
from gemmir.ir.dialect import (
    EpilogueOp,
    GemmOp,
    YieldOp,
    memref_type,
    product_name,
    static_strides,
)
from gemmir.ir.versions import settle
from gemmir.sizes import Layout, known, sizes_of

Array = npt.NDArray[Any]

EXP_ROUNDINGS: Final = 16
"""Roundings of one exponential: a polynomial of degree 6 and the reduction of its argument."""


@dataclass(frozen=True, kw_only=True)
class Element:
    """One element of a result and how far it may be from what is expected."""

    index: tuple[int, ...]
    got: float
    expected: float
    error: float
    bound: float

    @property
    def ratio(self) -> float:
        """Error over bound: more than 1, or NaN, is wrong."""
        if self.error == 0:
            return 0.0
        return self.error / self.bound if self.bound else float("inf")

    def __str__(self) -> str:
        at = ", ".join(map(str, self.index))
        return (
            f"element [{at}] is {self.got:.9g}, expected {self.expected:.9g}: "
            f"off by {self.error:.3g}, and the bound is {self.bound:.3g}"
        )


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A result against the right one: the element with the largest error, the first wrong one.

    Both are None where there is no element, and `first_wrong` where none is wrong.
    """

    largest: Element | None
    first_wrong: Element | None


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The right answer and its bound, in the shape of what `view` makes of an output array.

    `origin` says in words where they come from.
    """

    origin: str
    expected: Array
    bound: Array
    view: Callable[[Array], Array]

    def compare(self, output: Array) -> Comparison:
        """Compare every element of an output array."""
        if self.expected.size == 0:
            return Comparison(largest=None, first_wrong=None)
        got = self.view(output)
        with np.errstate(all="ignore"):
            error = np.abs(got.astype(self.expected.dtype) - self.expected)
            overflows = ~np.isfinite(self.expected.astype(output.dtype)) & ~np.isfinite(got)
            wrong = ~((error <= self.bound) | overflows)
        size = np.where(overflows, 0, np.where(np.isnan(error), np.inf, error))

        def element(flat: int) -> Element:
            at = tuple(int(i) for i in np.unravel_index(flat, self.expected.shape))
            return Element(
                index=at,
                got=float(got[at]),
                expected=float(self.expected[at]),
                error=float(error[at]),
                bound=float(self.bound[at]),
            )

        first = element(int(wrong.argmax())) if wrong.any() else None
        return Comparison(largest=element(int(size.argmax())), first_wrong=first)


def _depth(gemm: Gemm, a: Array) -> int:
    """The k of stored A."""
    return a.shape[-2 if gemm.trans_a else -1]


def _flat(operand: Operand) -> Array:
    """The elements of an array from the first on, each of its own."""
    halves = operand.argument.element.per_byte > 1
    return unpack_int4(operand.flat) if halves else operand.flat


def says_all(problem: Gemm, source: str) -> bool:
    """Whether `problem` says everything that the gemm-level text `source` does."""
    return str(build(problem)) + "\n" == source


def reference_of(
    source: str, problem: Gemm | None, operands: Operands, *, emulated: bool = True
) -> Reference:
    """The right answer of the gemm-level text `source` on `operands`.

    `emulated` says that no GPU is asked, whose tensor cores may sum in fewer bits.
    Raises `ParseError` GEM0209 where the text says neither by its `problem` nor by its ops what is
    to be computed, as that of a later level does.
    """
    if problem is not None and says_all(problem, source):
        return reference_of_gemm(problem, operands, emulated=emulated)
    module = parse_module(source)
    _settle(module, operands)
    return _Wide(module, operands, emulated=emulated).reference()


def _settle(module: ModuleOp, operands: Operands) -> None:
    """Put the sizes of `operands` in place of those that are arguments."""
    for function in (op for op in module.ops if isinstance(op, func.FuncOp)):
        sizes = size_arguments(function)
        attributes = function.arg_attrs.data if function.arg_attrs is not None else ()
        arguments = function.body.block.args[: len(operands.by_name)]
        stated = (
            [
                layout_of(memref_type(argument), own.data)
                for argument, own in zip(arguments, attributes, strict=False)
            ]
            if sizes
            else []
        )
        found = (
            [
                Layout(name=name, shape=o.argument.shape, strides=o.argument.strides)
                for name, o in operands.by_name.items()
            ]
            if sizes
            else []
        )
        for name, number in sizes_of(sizes, stated, found).items():
            settle(sizes[name], number)


def reference_of_gemm(gemm: Gemm, operands: Operands, *, emulated: bool = True) -> Reference:
    """The right answer of `gemm` on `operands`; `emulated` as above."""
    arrays = {name: operand.array for name, operand in operands.by_name.items()}
    *_, c = arrays.values()
    sizes = {"m": c.shape[-2], "n": c.shape[-1], "k": _depth(gemm, arrays["a"])}

    def stored(o: GemmOperand) -> tuple[int, ...]:
        return ELEMENTS[o.dtype].stored_shape(known(o.shape, lambda n: sizes[n.name]))

    wanted = [(o.name, stored(o)) for o in gemm.operands]
    found = [(name, array.shape) for name, array in arrays.items()]
    if wanted != found:
        raise ParseError(
            "GEM0210", f"the IR takes {_described(found)}, and the problem {_described(wanted)}"
        )
    wide = np.dtype(np.longdouble if gemm.dtype == "f64" else np.float64)
    with np.errstate(all="ignore"):
        return Reference(
            origin=f"Gemm.reference in {wide}",
            expected=np.asarray(gemm.reference(arrays)),
            bound=np.asarray(gemm.error_bound(arrays, emulated=emulated)),
            view=lambda output: output,
        )


def _described(operands: list[tuple[str, tuple[int, ...]]]) -> str:
    return ", ".join(f"{name} {' x '.join(map(str, shape))}" for name, shape in operands)


@dataclass(frozen=True, kw_only=True)
class Bounded:
    """Wide values, and a bound of how far correct narrow ones are from them."""

    value: Array
    error: Array


class _Wide:
    """Computes a gemm-level module in wider arithmetic, with bounds."""

    def __init__(self, module: ModuleOp, operands: Operands, *, emulated: bool) -> None:
        functions = [o for o in module.walk() if isinstance(o, func.FuncOp) and o.body.blocks]
        if len(functions) != 1:
            raise _unknown(f"has {len(functions)} functions")
        self.ops = list(functions[0].body.block.ops)
        self.emulated = emulated
        arguments = zip(functions[0].body.block.args, operands.by_name.values(), strict=True)
        self.flat: dict[SSAValue, Array] = {v: _flat(operand) for v, operand in arguments}
        output = _element_of(functions[0].body.block.args[-1])
        self.summed = ELEMENTS[output.accumulator]
        if self.summed.is_integer:
            raise _unknown("sums integers")
        self.wide = np.dtype(np.longdouble if self.summed.name == "f64" else np.float64)
        self.written: SSAValue | None = None
        self.result = Bounded(value=np.zeros(0), error=np.zeros(0))
        self.depth = 0

    def reference(self) -> Reference:
        """Run the module."""
        with np.errstate(all="ignore"):
            for op in self.ops:
                self._run(op)
        if self.written is None:
            raise _unknown("has no gemmir.gemm")
        written = self.written
        return Reference(
            origin=f"the gemm-level IR in {self.wide}, with running error bounds",
            expected=self.result.value,
            bound=self.result.error + self.summed.least_normal * (self.depth + 4),
            view=lambda output: self._view(written, output),
        )

    def _run(self, op: Operation) -> None:
        if isinstance(op, GemmOp) and op.scales:
            raise _unknown("has scales of blocks")
        if isinstance(op, GemmOp) and op.first is None and self.written is None:
            self._gemm(op)
        elif isinstance(op, EpilogueOp) and op.output is self.written:
            self._epilogue(op)
        elif not isinstance(op, memref.ReinterpretCastOp | func.ReturnOp):
            raise _unknown(f"has {op.name}")

    def _view(self, value: SSAValue, array: Array | None = None) -> Array:
        """What `value` shows of its argument's memory, or of `array` in place of that."""
        source = value
        while isinstance(source.owner, memref.ReinterpretCastOp):
            source = source.owner.source
        made = memref_type(value)
        layout = made.layout
        at = layout.offset if isinstance(layout, StridedLayoutAttr) else IntAttr(0)
        if source not in self.flat or not isinstance(at, IntAttr):
            raise _unknown(f"shows {made} of something else than an argument")
        flat = self.flat[source]
        if array is not None:
            flat = strided(array, (flat.size,), (1,))
        return strided(flat[at.data :], made.get_shape(), static_strides(made))

    def _exact(self, value: SSAValue) -> Bounded:
        if value is self.written:
            return self.result
        wide = self._view(value).astype(self.wide)
        return Bounded(value=wide, error=np.zeros_like(wide))

    def _gemm(self, op: GemmOp) -> None:
        a, b, c = (self._exact(value).value for value in (op.a, op.b, op.c))
        alpha, beta = op.alpha.value.data, op.beta.value.data
        self.depth = a.shape[-1]
        element = memref_type(op.a).element_type
        product = PRODUCTS[product_name(element, op.precision)]
        gamma = product.gamma(self.depth + 4, emulated=self.emulated)
        value, magnitude = alpha * (a @ b), abs(alpha) * (np.abs(a) @ np.abs(b))
        if beta:
            value, magnitude = value + beta * c, magnitude + abs(beta) * np.abs(c)
        error = gamma * magnitude + abs(alpha) * product.underflow(a, b)
        self.result = self._stored(op.c, Bounded(value=value, error=error))
        self.written = op.c

    def _stored(self, target: SSAValue, x: Bounded) -> Bounded:
        """`x` after it is rounded to the type of `target`, where that is narrower than the sum."""
        element = _element_of(target)
        return x if element is self.summed else _narrowed(x, element)

    def _epilogue(self, op: EpilogueOp) -> None:
        block = op.body.block
        operands = map(self._exact, (*op.inputs, op.output))
        known: dict[SSAValue, Bounded] = dict(zip(block.args, operands, strict=True))
        for inner in block.ops:
            if isinstance(inner, YieldOp):
                assert inner.value is not None
                self.result = known[inner.value]
                return
            known[inner.results[0]] = self._apply(inner, [known[v] for v in inner.operands])

    def _apply(self, op: Operation, operands: list[Bounded]) -> Bounded:
        if isinstance(op, arith.ConstantOp) and isinstance(op.value, FloatAttr):
            value = np.asarray(op.value.value.data, self.wide)
            return Bounded(value=value, error=self.summed.unit * np.abs(value))
        if isinstance(op, arith.TruncFOp):
            return _narrowed(operands[0], BY_MLIR[str(op.result.type)])
        rule = RULES.get(type(op))
        if rule is None:
            raise _unknown(f"has {op.name} in its epilogue")
        roundings, carry = rule
        value, error = carry(*operands)
        slack = roundings * self.summed.unit * (np.abs(value) + error)
        return Bounded(value=value, error=error + slack)


def _element_of(value: SSAValue) -> ElementType:
    """The element type of a memref; `ParseError` GEM0209 where no array has it."""
    spelled = str(memref_type(value).element_type)
    if spelled not in BY_MLIR:
        raise _unknown(f"has elements of {spelled}")
    return BY_MLIR[spelled]


def _narrowed(x: Bounded, element: ElementType) -> Bounded:
    """`x` after it is rounded to `element`."""
    slack = element.unit * (np.abs(x.value) + x.error) + element.least
    return Bounded(value=x.value, error=x.error + slack)


def _unknown(reason: str) -> ParseError:
    return ParseError(
        "GEM0209",
        f"what the text computes is not known: it {reason}",
        "give the problem too: --m --n --k …",
    )


Carried = tuple[Array, Array]


def _same(x: Bounded) -> Carried:
    return x.value, x.error


def _added(x: Bounded, y: Bounded) -> Carried:
    return x.value + y.value, x.error + y.error


def _subtracted(x: Bounded, y: Bounded) -> Carried:
    return x.value - y.value, x.error + y.error


def _multiplied(x: Bounded, y: Bounded) -> Carried:
    error = np.abs(x.value) * y.error + np.abs(y.value) * x.error + x.error * y.error
    return x.value * y.value, error


def _divided(x: Bounded, y: Bounded) -> Carried:
    value = x.value / y.value
    least = np.abs(y.value) - y.error
    error = np.where(least > 0, (x.error + np.abs(value) * y.error) / least, np.inf)
    return value, error


def _negated(x: Bounded) -> Carried:
    return -x.value, x.error


def _larger(x: Bounded, y: Bounded) -> Carried:
    return np.maximum(x.value, y.value), np.maximum(x.error, y.error)


def _smaller(x: Bounded, y: Bounded) -> Carried:
    return np.minimum(x.value, y.value), np.maximum(x.error, y.error)


def _exponential(x: Bounded) -> Carried:
    value = np.exp(x.value)
    return value, value * np.expm1(x.error)


RULES: Final[Mapping[type[Operation], tuple[int, Callable[..., Carried]]]] = {
    arith.AddfOp: (1, _added),
    arith.ExtFOp: (0, _same),
    arith.SubfOp: (1, _subtracted),
    arith.MulfOp: (1, _multiplied),
    arith.DivfOp: (1, _divided),
    arith.NegfOp: (0, _negated),
    arith.MaximumfOp: (0, _larger),
    arith.MinimumfOp: (0, _smaller),
    math_dialect.ExpOp: (EXP_ROUNDINGS, _exponential),
}
"""For each op of an epilogue: its own roundings, and its value with the error of its operands."""
