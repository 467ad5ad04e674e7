"""Sums whose lanes go along k: a dot product of rows of A and columns of B, as wide as the unit.

    gemmir.gemm %a, %b, %acc   ->   scf.for %k … step 8 iter_args(%x = 0)
      (4 x k, k x 2, 4 x 2)             %ak = vector.transfer_read %a[0, %k]      : vector<4x8xf32>
                                        %bk = vector.transfer_read %b[%k, 0]      : vector<2x8xf32>
                                        %y  = gemmir.pairproduct %ak, %bk, %x     : vector<8x8xf32>
                                    %z = gemmir.lanesum %y                        : vector<4x2xf32>

For a tile with fewer columns than the unit has lanes, and a B whose columns are adjacent along k.
The read of B exchanges its dimensions. What of k does not fill a vector is read with zeros. Where
several products are added to a lane at once, vectors of A and B are as many times as long.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.dialects import scf
from xdsl.dialects.builtin import IntegerType, StringAttr, VectorType, i16
from xdsl.ir import Block, Region, SSAValue

from gemmir.errors import ScheduleError
from gemmir.ir.attributes import PanelAttr
from gemmir.ir.carried_sums import carried_from
from gemmir.ir.conversions import converted
from gemmir.ir.dialect import (
    SIGN_TAKEN,
    GemmOp,
    LaneSumOp,
    Number,
    PairProductOp,
    UnsignedOp,
    memref_type,
    strides_of,
)
from gemmir.ir.index import INDEX, as_index, at_end, before, round_down
from gemmir.ir.loops import DIMENSION, carry
from gemmir.ir.partial_sums import loops_inside
from gemmir.ir.transfers import read, splat
from gemmir.ir.views import chain, extents, subview

ALONG_K = "k"


def lines_of(gemm: GemmOp) -> None:
    """Let `gemm` read packed rows of A and columns of B as strided windows."""
    for position, value in enumerate((gemm.a, gemm.b)):
        if isinstance(memref_type(value).layout, PanelAttr):
            window = subview(before(gemm), value, (0, 0), extents(value), one_panel=True)
            gemm.operands[position] = window


def require_adjacent(gemm: GemmOp, width: int) -> None:
    """`ScheduleError` where lanes cannot be along k.

    GEM1316 where k is not adjacent, or lanes are no power of two; GEM1381 where the sum goes on
    from C.
    """
    if carried_from(chain(gemm.c)[0]) is not None:
        raise ScheduleError(
            "GEM1381",
            "vectorize: along=k sums in lanes, and the sum goes on from what C holds",
            "leave carry out of promote, or along out of vectorize",
        )
    if width < 2 or width & (width - 1):
        raise ScheduleError(
            "GEM1316",
            f"vectorize: along=k adds {width} lanes in halves",
            f"use width={max(1 << (width.bit_length() - 1), 2)}",
        )
    lines_of(gemm)
    for name, value, dim in (("a", gemm.a, 1), ("b", gemm.b, 0)):
        if not _is_adjacent(value, dim) and extents(gemm.a)[1] not in (0, 1):
            raise ScheduleError(
                "GEM1316",
                f"vectorize: along=k, and {name} is not adjacent along k",
                f"put promote{{operand={name} to=l2 layout=panel:1}} before it, or leave along out",
            )


def _is_adjacent(value: SSAValue, dim: int) -> bool:
    """Whether neighbours along `dim` are; what still lies in panels has some depth."""
    of = memref_type(value)
    return not isinstance(of.layout, PanelAttr) and strides_of(of)[dim] == 1


def sum_lanes(
    gemm: GemmOp,
    accumulator: SSAValue,
    width: int,
    *,
    depth: int = 1,
    exponent: int = 0,
    is_unsigned: bool = False,
) -> SSAValue:
    """The tile of C as one vector, summed in `width` lanes over all loops over k around `gemm`.

    To each lane `depth` products are added at once. Elements of B that are integers count times
    2**exponent, or 128 more where it `is_unsigned`.
    """
    rows, columns = memref_type(accumulator).get_shape()
    zero = splat(gemm, 0, VectorType(gemm.summed, (rows * columns, width)))
    outer = loops_inside(gemm, accumulator)
    begin, finish = carry(outer, [zero])
    k = extents(gemm.a)[1]
    builder = before(gemm)
    taken = width * depth
    whole = round_down(builder, gemm, k, taken)
    kinds = dot_factors(gemm) if depth > 1 else (gemm.summed, gemm.summed)
    if is_unsigned and depth > 1:
        kinds = kinds[0], SIGN_TAKEN[1]
    add = _Adding(
        gemm=gemm,
        shape=(rows, columns),
        taken=taken,
        kinds=kinds,
        exponent=exponent,
        is_unsigned=is_unsigned,
    )
    (total,) = begin
    if whole != 0:
        body = Block(arg_types=[INDEX, total.type])
        inner = at_end(body)
        step = add(inner, body.args[0], body.args[1], is_whole=True)
        inner.insert(scf.YieldOp(step))
        begin_at, end, by = (as_index(gemm, e) for e in (0, whole, taken))
        loop = scf.ForOp(begin_at, end, by, [total], Region(body))
        loop.attributes[DIMENSION] = StringAttr("k")
        total = builder.insert(loop).results[0]
    if whole != k:
        total = add(builder, as_index(gemm, whole), total, is_whole=False)
    (total,) = finish([total])
    if outer:
        builder = _behind(total)
    return builder.insert(LaneSumOp(total, rows, columns)).result


def _behind(value: SSAValue) -> Builder:
    """A builder that inserts right behind the loop that makes `value`."""
    owner = value.owner
    assert isinstance(owner, scf.ForOp) and owner.next_op is not None
    return before(owner.next_op)


def read_unsigned(gemm: GemmOp) -> bool:
    """Whether B is one of bytes that count 128 more; `gemm` then reads the bytes themselves."""
    view = gemm.b.owner
    if not isinstance(view, UnsignedOp):
        return False
    gemm.operands[1] = view.source
    view.detach()
    view.erase()
    return True


@dataclass(frozen=True, kw_only=True)
class _Adding:
    """Adds the products of a tile of `shape` for `taken` elements along k to the lanes of sums.

    Factors are multiplied as `kinds`, those of B with 128 added where it `is_unsigned`.
    """

    gemm: GemmOp
    shape: tuple[int, int]
    taken: int
    kinds: tuple[Number, Number]
    exponent: int
    is_unsigned: bool

    def __call__(
        self, builder: Builder, k: SSAValue, total: SSAValue, *, is_whole: bool
    ) -> SSAValue:
        gemm, (rows, columns), taken = self.gemm, self.shape, self.taken
        full = extents(gemm.a)[0] == rows, extents(gemm.b)[1] == columns
        lhs = read(builder, gemm, gemm.a, (0, k), (rows, taken), (full[0], is_whole))
        at = (k, 0)
        rhs = read(builder, gemm, gemm.b, at, (columns, taken), (full[1], is_whole), exchanged=True)
        lhs = converted(builder, lhs, self.kinds[0])
        rhs = converted(builder, rhs, SIGN_TAKEN[1]) if self.is_unsigned else rhs
        rhs = converted(builder, rhs, self.kinds[1], exponent=self.exponent)
        return builder.insert(PairProductOp(lhs, rhs, total)).result


def dot_factors(gemm: GemmOp) -> tuple[Number, Number]:
    """As what A and B are multiplied where neighbours are added at once: bytes by i16 as i16."""
    a, b = (memref_type(v).element_type for v in (gemm.a, gemm.b))
    are_integers = isinstance(a, IntegerType) and isinstance(b, IntegerType)
    return (i16, i16) if are_integers and i16 in (a, b) else (a, b)
