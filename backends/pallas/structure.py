"""Emitters of products and of steps that only some of the grid does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from xdsl.dialects import scf
from xdsl.dialects.builtin import Float32Type
from xdsl.ir import Region, SSAValue

from gemmir.backends.pallas.arithmetic import in_order, listed
from gemmir.backends.pallas.emitter import (
    ATOM,
    SUM,
    Emitter,
    Expr,
    Table,
    element_of,
    shape_of,
)
from gemmir.backends.pallas.types import jax_type
from gemmir.dtypes import Precision
from gemmir.errors import BackendError
from gemmir.ir.dialect import YieldOp
from gemmir.ir.index import constant_of, upper_bound
from gemmir.ir.pallas import DotOp


def _dot(e: Emitter, op: DotOp) -> None:
    """A product of matrices that lie either way: what is transposed is so in the unit."""
    _require_matrices(e, op)
    precision = None if op.precision is None else op.precision.data
    if precision is Precision.BF16X3:
        _sum_of_products(e, op)
    elif precision is Precision.BF16X1:
        e.define(op, op.operands, lambda x: _product(op, list(map(_hi, x)), narrow=True))
    else:
        e.define(op, op.operands, lambda x: _product(op, x, narrow=False))


def _product(op: DotOp, x: Sequence[Expr], *, narrow: bool) -> Expr:
    """One product; of f32 in all digits, unless `narrow` says that it is rounded already.

    B of one column lies as such: JAX 0.10.2 has no product of types below f32 with one row of it.
    """
    rows, columns = shape_of(op.result)
    options = f"preferred_element_type={jax_type(element_of(op.result))}"
    if isinstance(element_of(op.lhs), Float32Type) and not narrow:
        options = f"precision=lax.Precision.HIGHEST, {options}"
    left, right = x if columns > 1 else (x[0], in_order(x[1], transposed=False))
    text = f"jnp.dot({listed((left, right))}, {options})"
    if left.transposed or right.transposed:
        along = f"(({int(not left.transposed)},), ({int(right.transposed)},))"
        text = f"lax.dot_general({listed((left, right))}, ({along}, ((), ())), {options})"
    return Expr(text=text, shape=(rows, columns))


def _sum_of_products(e: Emitter, op: DotOp) -> None:
    """Both factors as sums of two numbers of bf16; lo times lo is less than what is rounded off."""
    (x_hi, x_lo), (y_hi, y_lo) = (_split(e, value) for value in op.operands)
    pairs = ((x_hi, y_hi), (x_hi, y_lo), (x_lo, y_hi))
    stem = op.result.name_hint or "product"
    parts = [e.named(f"{stem}_part", _product(op, pair, narrow=True)) for pair in pairs]
    first, second, third = (part.text for part in parts)
    text = f"{first} + ({second} + {third})"
    e.define(op, (), lambda _: replace(parts[0], text=text, level=SUM))


def _split(e: Emitter, value: SSAValue) -> tuple[Expr, Expr]:
    """A matrix of f32 as two of bf16: rounded, and what that leaves."""
    stem = value.name_hint or "x"
    x = e.named(stem, e.expr(value))
    hi = e.named(f"{stem}_hi", _hi(x))
    rest = f"({x.text} - {hi.text}.astype(jnp.float32)).astype(jnp.bfloat16)"
    return hi, e.named(f"{stem}_lo", replace(x, text=rest))


def _hi(x: Expr) -> Expr:
    """A matrix of f32, rounded to bf16."""
    return replace(x, text=f"{x.within(ATOM)}.astype(jnp.bfloat16)", level=ATOM)


def _require_matrices(e: Emitter, op: DotOp) -> None:
    """A product needs all elements of its operands."""
    for operand in op.operands:
        found = e.values[operand]
        assert isinstance(found, Expr)
        shape = shape_of(operand)
        lying = shape[::-1] if found.transposed else shape
        if found.shape != lying:
            raise BackendError(
                "GEM0465",
                f"a product of {operand.type}, of which only {found.shape or '1 number'} is there",
                "use operands whose strides are not 0",
            )


def _if(e: Emitter, op: scf.IfOp) -> None:
    if op.results:
        raise BackendError(
            "GEM0466",
            f"scf.if has {len(op.results)} results in a kernel",
            "select between values, or write them",
        )
    condition = e.expr(op.cond)
    e.settle()
    _when(e, condition.text, op.true_region)
    if op.false_region.blocks:
        _when(e, f"jnp.logical_not({condition.text})", op.false_region)


def _when(e: Emitter, condition: str, region: Region) -> None:
    if len(region.block.ops) < 2:
        return
    if e.lines and e.lines[-1] and not e.lines[-1].endswith(":"):
        e.line("")
    e.line(f"@pl.when({condition})")
    e.line("def _():")
    with e.inner():
        e.ops(region.block.ops)


def _for(e: Emitter, op: scf.ForOp) -> None:
    """A loop of Python, which JAX unrolls; steps that there may not be are made on a condition."""
    bounds = [constant_of(op.lb), upper_bound(op.ub), constant_of(op.step)]
    if op.results or None in bounds:
        raise BackendError(
            "GEM0475",
            "a loop in a kernel that may have any number of steps, or that has results",
            "tile by sizes that divide the block",
        )
    index = op.body.block.args[0]
    name = e.names.new(index.name_hint, "i")
    e.values[index] = Expr(text=name, is_literal=True)
    end = None if constant_of(op.ub) is not None else e.expr(op.ub).within(SUM)
    e.settle()
    e.line(f"for {name} in range({', '.join(map(str, bounds))}):")
    with e.inner():
        if end is None:
            e.ops(op.body.block.ops)
        else:
            _when(e, f"{name} < {end}", op.body)


def _nothing(e: Emitter, op: YieldOp | scf.YieldOp) -> None:
    """The end of a body."""


STRUCTURE: Final[Table] = {
    DotOp.name: _dot,
    YieldOp.name: _nothing,
    scf.ForOp.name: _for,
    scf.IfOp.name: _if,
    scf.YieldOp.name: _nothing,
}
