"""Compute the transpose of C, from the transposes of B and of A.

    gemmir.gemm %a, %b, %c        ->     gemmir.gemm %b_t, %a_t, %c_t
      (16 x k, k x 4096, 16 x 4096)        (4096 x k, k x 16, 4096 x 16)
    gemmir.epilogue ins(%bias)           gemmir.epilogue ins(%bias_t)
      outs(%c)                             outs(%c_t)

A warpgroup multiplies 64 rows, and as few as 8 columns. So where C has few rows they are better
columns, and what was B fills the rows. Every array stays as it lies: what is exchanged are the
extents and the strides of views of them. Tiles nothing, and takes no size or leading dimension that
is known at run time only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import builtin, func, memref
from xdsl.dialects.builtin import DYNAMIC_INDEX
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass

from gemmir.errors import ScheduleError
from gemmir.ir.build import view_before
from gemmir.ir.dialect import EpilogueOp, GemmOp, memref_type, static_strides, strides_of
from gemmir.ir.index import before
from gemmir.ir.loops import require_gemms
from gemmir.ir.views import offsets_of, sizes_of, subview


@dataclass(frozen=True, kw_only=True)
class SwapPlan:
    """The product of whole arrays, and the epilogues on the whole of C behind it."""

    gemm: GemmOp
    epilogues: tuple[EpilogueOp, ...]


def plan(gemm: GemmOp) -> SwapPlan:
    """What to transpose; `ScheduleError` (GEM1226, GEM1380) where it is not whole, known arrays."""
    function = gemm.parent_op()
    if not isinstance(function, func.FuncOp):
        raise ScheduleError(
            "GEM1226",
            "swap-operands: the gemmir.gemm is one tile of a problem, or one of several products",
            "make swap-operands the first pass, or leave it out",
        )
    others = [op for op in function.body.block.ops if isinstance(op, EpilogueOp)]
    for value in (value for op in (gemm, *others) for value in op.operands):
        kind = memref_type(value)
        if DYNAMIC_INDEX in kind.get_shape() or None in strides_of(kind):
            raise ScheduleError(
                "GEM1380",
                f"swap-operands: a size or a leading dimension of {kind} is known at run time only",
                "give all of them, or leave swap-operands out",
            )
    return SwapPlan(gemm=gemm, epilogues=tuple(others))


def swap(plan: SwapPlan) -> None:
    """Rewrite the product and its epilogues on transposed views, one for each value."""
    gemm = plan.gemm
    users = [gemm, *plan.epilogues]
    used = dict.fromkeys(value for op in users for value in op.operands)
    found = {value: _transposed(gemm, value) for value in used}
    gemm.operands = [found[value] for value in (gemm.b, gemm.a, gemm.c)]
    for epilogue in plan.epilogues:
        epilogue.operands = [found[value] for value in epilogue.operands]
    _erase_unused(tuple(used))


def _transposed(gemm: GemmOp, value: SSAValue) -> SSAValue:
    """The last two dimensions of `value` exchanged, as a view of the array that it is a view of.

    Of a window it is the same window of the transpose.
    """
    if isinstance(value.owner, memref.SubviewOp):
        window = value.owner
        whole = _transposed(gemm, window.source)
        (*batch, rows, columns), (*apart, down, across) = offsets_of(window), sizes_of(window)
        begin, size = (*batch, columns, rows), (*apart, across, down)
        return subview(before(gemm), whole, begin, size)
    root = value
    while isinstance(root.owner, memref.ReinterpretCastOp):
        root = root.owner.source
    *batch, rows, columns = memref_type(value).get_shape()
    *apart, down, across = static_strides(memref_type(value))
    name = value.name_hint or "operand"
    hint = name.removesuffix("_t") if name.endswith("_t") else f"{name}_t"
    return view_before(gemm, root, (*batch, columns, rows), (*apart, across, down), hint)


def _erase_unused(values: Sequence[SSAValue]) -> None:
    """Drop the views that nothing reads any more, and what only they were made from."""
    for value in dict.fromkeys(values):
        view = value.owner
        while (
            isinstance(view, memref.ReinterpretCastOp | memref.SubviewOp) and not view.result.uses
        ):
            source = view.source.owner
            view.detach()
            view.erase()
            view = source


@dataclass(frozen=True)
class SwapOperands(ModulePass):
    """Compute the transpose of C, so that the columns of B become the rows of the product."""

    name = "gemmir-swap-operands"

    def apply(self, ctx: Context, op: builtin.ModuleOp) -> None:
        for gemm in require_gemms("swap-operands", op):
            swap(plan(gemm))
