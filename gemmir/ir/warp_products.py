"""Products of a warp on the tensor cores of a GPU, of tiles that lie in shared memory.

gemmir.gemm %a, %b, %acc   ->   scf.for %k … step 16 iter_args(%x = 0)
  (64 x 32, 32 x 32, 64 x 32)       %ak = nvgpu.ldmatrix "a" %a[0, %k]   : vector<64x16xbf16>
                                    %bk = nvgpu.ldmatrix "b" %b[%k, 0]   : vector<16x32xbf16>
                                    %y  = nvgpu.mma.sync %ak, %bk, %x    : vector<64x32xf32>
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from xdsl.dialects import memref, scf
from xdsl.dialects.builtin import StringAttr, VectorType, f64
from xdsl.ir import Block, Region, SSAValue

from gemmir.dtypes import Precision
from gemmir.errors import ScheduleError
from gemmir.ir.accumulators import GemmPlan
from gemmir.ir.attributes import PrecisionAttr
from gemmir.ir.dialect import (
    THREADS,
    WARPS,
    ForallOp,
    GemmOp,
    enclosing_ops,
    is_shared,
    memref_type,
    product_name,
)
from gemmir.ir.index import INDEX, as_index, at_end, before
from gemmir.ir.loops import DIMENSION
from gemmir.ir.nvgpu import LdMatrixOp, MmaSyncOp
from gemmir.ir.views import extents, offsets_of, subview

MMA_SHAPES: Mapping[str, tuple[tuple[int, int, int], ...]] = {
    "f16": ((16, 8, 16), (16, 8, 8)),
    "bf16": ((16, 8, 16),),
    "tf32": ((16, 8, 8),),
    "e4m3": ((16, 8, 32),),
    "e5m2": ((16, 8, 32),),
    "i8": ((16, 8, 32),),
    "u8": ((16, 8, 32),),
    "f64": ((8, 8, 4),),
}
"""m, n and k of the instructions of the tensor cores, by what they multiply, the longest first.

PTX ISA 9.0, section "Matrix multiply-accumulate operation using mma instruction".
"""

PAIRED_DOUBLES = 2
"""Products of f64 along k that are fed together: two elements of a lane are one 128-bit load."""


def _listed(shape: Sequence[int]) -> str:
    return ",".join(map(str, shape))


def require_one_type(products: Sequence[GemmOp], with_: str) -> None:
    """`ScheduleError` GEM0375 where A and B differ, which units of blocks do not multiply."""
    for gemm in products:
        a, b = (memref_type(v).element_type for v in (gemm.a, gemm.b))
        if a != b:
            raise ScheduleError(
                "GEM0375",
                f"vectorize: with={with_} has no instruction for {a} by {b}",
                "use a CPU, or give B the type of A",
            )


def refuse_shape(shape: Sequence[int] | None, with_: str) -> None:
    """`ScheduleError` GEM0378 where a `shape` is given to a unit whose instructions have one."""
    if shape is not None:
        raise ScheduleError(
            "GEM0378", f"vectorize: shape={_listed(shape)} and with={with_}", "leave shape out"
        )


def mma_shape(gemm: GemmOp, wanted: tuple[int, ...] | None) -> tuple[int, int, int]:
    """The shape of the instruction, `wanted` where that is given."""
    element = product_name(memref_type(gemm.a).element_type, gemm.precision)
    if element not in MMA_SHAPES:
        raise ScheduleError(
            "GEM0375",
            f"vectorize: with=mma has no instruction for {element}",
            f"use {', '.join(MMA_SHAPES)}, or with=fma",
        )
    known = MMA_SHAPES[element]
    if wanted is not None and wanted not in known:
        raise ScheduleError(
            "GEM0378",
            f"vectorize: shape={_listed(wanted)} is no instruction for {element}",
            f"use shape={' or shape='.join(map(_listed, known))}",
        )
    units = [o.over.data for o in enclosing_ops(gemm) if isinstance(o, ForallOp)]
    if WARPS not in units or THREADS in units:
        raise ScheduleError(
            "GEM0376",
            "vectorize: with=mma is the work of a warp, and the tile is one of "
            + (f"{units[0]}" if units else "no unit"),
            "tile over blocks and then over warps, and not over threads",
        )
    for name, value in (("a", gemm.a), ("b", gemm.b)):
        if extents(gemm.a)[1] != 0 and not is_shared(value):
            raise ScheduleError(
                "GEM0376",
                f"vectorize: with=mma reads {name} from shared memory",
                f"put promote{{operand={name} to=shared layout=swizzle:64}} before vectorize",
            )
    return next(shape for shape in known if wanted in (None, shape))


def multiply_of_warp(
    gemm: GemmOp, plan: GemmPlan, mma: tuple[int, int, int], begin: list[SSAValue]
) -> list[SSAValue]:
    """Sum over all of the slice of k that is in shared memory, past whose end there are zeros."""
    if plan.k == 0:
        return begin
    builder = before(gemm)
    element = memref_type(gemm.a).element_type
    tiles: list[SSAValue] = []
    for value, whole in ((gemm.a, (plan.rows, None)), (gemm.b, (None, plan.columns))):
        assert isinstance(value.owner, memref.SubviewOp)
        room = memref_type(value.owner.source).get_shape()
        sizes = [extent or depth for extent, depth in zip(whole, room, strict=True)]
        tiles.append(subview(builder, value.owner.source, offsets_of(value.owner), sizes))
    a, b = tiles
    depth = min(memref_type(a).get_shape()[1], memref_type(b).get_shape()[0])
    step = mma[2]
    if element == f64 and depth % (PAIRED_DOUBLES * step) == 0:
        step *= PAIRED_DOUBLES
    body = Block(arg_types=[INDEX, *[v.type for v in begin]])
    inner = at_end(body)
    k, total = body.args
    zero = as_index(gemm, 0)
    lhs = inner.insert(LdMatrixOp("a", a, (zero, k), VectorType(element, (plan.rows, step))))
    rhs = inner.insert(LdMatrixOp("b", b, (k, zero), VectorType(element, (step, plan.columns))))
    is_tf32 = plan.precision == PrecisionAttr(Precision.TF32)
    updated = inner.insert(MmaSyncOp(lhs.result, rhs.result, total, mma, tf32=is_tf32))
    inner.insert(scf.YieldOp(updated.result))
    lower, upper, by = (as_index(gemm, e) for e in (0, depth, step))
    loop = scf.ForOp(lower, upper, by, begin, Region(body))
    loop.attributes[DIMENSION] = StringAttr("k")
    builder.insert(loop)
    return list(loop.results)
