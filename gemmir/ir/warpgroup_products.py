"""From a GEMM on tiles in shared memory to the products of a warpgroup.

    gemmir.gemm %a, %b, %acc   ->   %y = nvgpu.warpgroup.mma %a, %b, %x      in the loop over k
                                    %z = nvgpu.warpgroup.wait groups 1 %y
                                    %w = nvgpu.warpgroup.wait groups 0 %z    behind it

The TMA has filled up the tiles with zeros, so that products are whole instructions.
"""

from __future__ import annotations

from xdsl.builder import Builder
from xdsl.dialects import memref, scf
from xdsl.dialects.builtin import FixedBitwidthType, MemRefType
from xdsl.ir import Operation, SSAValue

from gemmir.errors import ScheduleError
from gemmir.ir.attributes import SwizzleAttr
from gemmir.ir.dialect import GemmOp, Number, enclosing_ops, is_shared, memref_type, product_name
from gemmir.ir.index import before
from gemmir.ir.nvgpu import matrix_shape
from gemmir.ir.views import offsets_of, subview
from gemmir.ir.warpgroup import MOST_COLUMNS, WarpgroupMmaOp, WarpgroupWaitOp, WarpSpecializeOp

WGMMA_DTYPES = ("f16", "bf16", "tf32", "e4m3", "e5m2", "i8", "u8")
"""What a warpgroup multiplies, as `Gemm.dtype` says it: PTX ISA 9.0, section "wgmma.mma_async"."""

UNDER_WAY = 1
"""Products that are under way while the next stage is awaited."""

PAIR_BYTES = 2
"""Elements of this size may lie either way for a warpgroup."""


def require_warpgroup(gemm: GemmOp, columns: int) -> None:
    """A warpgroup multiplies what lies in shared memory, swizzled, and so many columns at once.

    `ScheduleError` (GEM1280 to GEM1282, GEM1298) if not.
    """
    if columns > MOST_COLUMNS:
        raise ScheduleError(
            "GEM1298",
            f"vectorize: with=wgmma multiplies {MOST_COLUMNS} columns at once, and a tile has "
            f"{columns}",
            f"tile n by at most {MOST_COLUMNS}, or n over warpgroups",
        )
    element = product_name(memref_type(gemm.a).element_type, gemm.precision)
    if element not in WGMMA_DTYPES:
        raise ScheduleError(
            "GEM1280",
            f"vectorize: with=wgmma has no instruction for {element}",
            f"use {', '.join(WGMMA_DTYPES)}, or another unit",
        )
    for name, value, along_k in (("a", gemm.a, 1), ("b", gemm.b, 0)):
        of = memref_type(value)
        if not isinstance(of.layout, SwizzleAttr) or not is_shared(value):
            raise ScheduleError(
                "GEM1281",
                f"vectorize: with=wgmma reads {name} from swizzled tiles in shared memory",
                f"put promote{{operand={name} to=shared layout=swizzle:128}} before vectorize",
            )
        if of.layout.dim.data != along_k and _item_bytes(of) != PAIR_BYTES:
            raise ScheduleError(
                "GEM1282",
                f"vectorize: with=wgmma reads {element} along k, and {name} is adjacent along "
                f"{'mn'[name == 'b']}",
                "use trans_b without trans_a, a type of 16 bits, or with=mma",
            )
    if not any(isinstance(o, WarpSpecializeOp) for o in enclosing_ops(gemm)):
        raise ScheduleError(
            "GEM1281",
            "vectorize: with=wgmma is the work of a warpgroup that others copy for",
            "put pipeline{loop=k stages=… with=tma specialize=true} before vectorize",
        )


def _item_bytes(of: MemRefType[Number]) -> int:
    element = of.element_type
    assert isinstance(element, FixedBitwidthType)
    return element.size


def begin_product(gemm: GemmOp, total: SSAValue, *, under_way: int = UNDER_WAY) -> SSAValue:
    """Multiply all of the slice of k that is in shared memory, past whose end there are zeros.

    The sum goes on from `total`, whose rows and columns are whole instructions.
    """
    builder = before(gemm)
    a, b = _shared_tiles(builder, gemm, matrix_shape(total))
    product = builder.insert(WarpgroupMmaOp(a, b, total, gemm.precision))
    return builder.insert(WarpgroupWaitOp(under_way, product.result)).result


def finished(total: SSAValue) -> SSAValue:
    """The sum when all products are done, behind the loop over k and before what needs that."""
    loop = total.owner
    assert isinstance(loop, scf.ForOp)
    end = loop.next_op
    while end is not None and not _uses(end, loop):
        end = end.next_op
    assert end is not None
    return before(end).insert(WarpgroupWaitOp(0, total)).result


def _uses(op: Operation, loop: scf.ForOp) -> bool:
    return any(value.owner is loop for inner in op.walk() for value in inner.operands)


def _shared_tiles(
    builder: Builder, gemm: GemmOp, shape: tuple[int, int]
) -> tuple[SSAValue, SSAValue]:
    """A and B as they lie in shared memory, with these rows and columns and a whole slice of k."""
    windows = [v.owner for v in (gemm.a, gemm.b)]
    first, second = (w for w in windows if isinstance(w, memref.SubviewOp))
    depth = min(memref_type(first.source).get_shape()[1], memref_type(second.source).get_shape()[0])
    a = subview(builder, first.source, offsets_of(first), (shape[0], depth))
    return a, subview(builder, second.source, offsets_of(second), (depth, shape[1]))
