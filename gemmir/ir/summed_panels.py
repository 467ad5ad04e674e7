"""C summed in panels of a packed buffer, and copied out when the sum is complete.

    gemmir.gemm %a, %b, %c     ->     gemmir.gemm %a, %b, %panels          (m x n, in panels of 32)
                                      scf.for %j = 0 to n step 32:
                                          gemmir.epilogue ins(%panels[:, %j :]) outs(%c[:, %j :])

Where slices of k add to a C of a few rows, its rows lie a power of two apart: their tiles fall into
the same few sets of a cache and drive each other out. In panels a tile is adjacent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.dialects import arith
from xdsl.dialects.builtin import MemRefType
from xdsl.ir import SSAValue

from gemmir.errors import ScheduleError
from gemmir.ir.attributes import PanelAttr, Space, SpaceAttr
from gemmir.ir.dialect import GemmOp, Number, accumulator_type, memref_type
from gemmir.ir.index import Extent, as_index, before
from gemmir.ir.loops import open_loop
from gemmir.ir.views import extents, subview

Allocate = Callable[[GemmOp, MemRefType[Number]], SSAValue]
WriteBack = Callable[[Builder, SSAValue, SSAValue, GemmOp], None]


@dataclass(frozen=True, kw_only=True)
class SumPlan:
    """The buffer that C is summed in."""

    made: MemRefType[Number]
    width: int


def plan_sum(gemm: GemmOp, to: Space, width: int) -> SumPlan:
    """Decide the buffer; `ScheduleError` (GEM1314) where C cannot be summed in one."""
    found = extents(gemm.c)
    is_begun = gemm.first is not None or isinstance(memref_type(gemm.c).memory_space, SpaceAttr)
    if len(found) != 2 or is_begun or gemm.scales or not all(isinstance(e, int) for e in found):
        raise ScheduleError(
            "GEM1314",
            f"promote: operand=c to={to} needs the whole sum of a C of known size",
            "put it before tile of k, behind tile of the batch, and leave blocks with scales and "
            "clipped tiles out",
        )
    rows, columns = (max(e, 1) for e in found if isinstance(e, int))
    whole = -(-columns // width) * width
    return SumPlan(
        made=MemRefType(
            accumulator_type(memref_type(gemm.a).element_type),
            (rows, whole),
            PanelAttr(1, width, rows * width),
            SpaceAttr(to),
        ),
        width=width,
    )


def sum_in_panels(gemm: GemmOp, plan: SumPlan, allocate: Allocate, write_back: WriteBack) -> None:
    """Let `gemm` sum into panels, and write those back to C one after another."""
    buffer = allocate(gemm, plan.made)
    buffer.name_hint = "c_packed"
    builder = before(gemm)
    rows, columns = extents(gemm.c)
    panels = subview(builder, buffer, (0, 0), (rows, columns))
    builder.insert(GemmOp(gemm.a, gemm.b, panels, precision=gemm.precision))
    bounds = (as_index(gemm, 0), as_index(gemm, columns), as_index(gemm, plan.width))
    start, inner = open_loop(builder, "n", bounds)
    start.name_hint = "j"
    size = _size(inner, gemm, start, columns, plan.width)
    here = ((0, start), (rows, size))
    panel = subview(inner, panels, *here, one_panel=True)
    target = subview(inner, gemm.c, *here)
    write_back(inner, panel, target, gemm)
    gemm.detach()
    gemm.erase()


def _size(builder: Builder, gemm: GemmOp, start: SSAValue, columns: Extent, width: int) -> Extent:
    """The columns of the panel at `start`: fewer in a last one."""
    if isinstance(columns, int) and columns % width == 0:
        return width
    rest = builder.insert(arith.SubiOp(as_index(gemm, columns), start)).result
    return builder.insert(arith.MinSIOp(as_index(gemm, width), rest)).result


def in_one_panel(builder: Builder, value: SSAValue) -> SSAValue:
    """`value` as a strided window, where it is all of a single panel of a packed C.

    Raises `ScheduleError` (GEM0310) where it is wider.
    """
    if not isinstance(memref_type(value).layout, PanelAttr):
        return value
    return subview(builder, value, (0, 0), extents(value), one_panel=True)
