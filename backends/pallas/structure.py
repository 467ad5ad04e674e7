"""Emitters of products and of steps that only some of the grid does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from xdsl.dialects import scf
from xdsl.dialects.builtin import Float32Type
from xdsl.ir import Region

from gemmir.backends.pallas.arithmetic import listed
from gemmir.backends.pallas.emitter import Emitter, Expr, Table, element_of, shape_of
from gemmir.backends.pallas.types import jax_type
from gemmir.errors import BackendError
from gemmir.ir.dialect import YieldOp
from gemmir.ir.pallas import DotOp


def _dot(e: Emitter, op: DotOp) -> None:
    """A product of matrices that lie either way: what is transposed is so in the unit."""
    rows, columns = shape_of(op.result)
    precision = ""
    if isinstance(element_of(op.lhs), Float32Type):
        precision = "precision=lax.Precision.HIGHEST, "
    options = f"{precision}preferred_element_type={jax_type(element_of(op.result))}"

    def make(x: Sequence[Expr]) -> Expr:
        left, right = x
        if left.transposed or right.transposed:
            along = int(not left.transposed), int(right.transposed)
            text = (
                f"lax.dot_general({listed(x)}, ((({along[0]},), ({along[1]},)), ((), ())), "
                f"{options})"
            )
        else:
            text = f"jnp.dot({listed(x)}, {options})"
        return Expr(text=text, shape=(rows, columns))

    _require_matrices(e, op)
    e.define(op, op.operands, make)


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
    if e.lines and e.lines[-1]:
        e.line("")
    e.line(f"@pl.when({condition})")
    e.line("def _():")
    with e.inner():
        e.ops(region.block.ops)


def _nothing(e: Emitter, op: YieldOp | scf.YieldOp) -> None:
    """The end of a body."""


STRUCTURE: Final[Table] = {
    DotOp.name: _dot,
    YieldOp.name: _nothing,
    scf.IfOp.name: _if,
    scf.YieldOp.name: _nothing,
}
