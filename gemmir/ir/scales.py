"""Scales of blocks: how tiles of a product have them, and as operands of an epilogue.

    gemmir.gemm %a, %b, %c scales(%s) depth 128      %s   : memref<KB x NB x m x 128>
    gemmir.gemm %a_1, %b_1, %c_1 scales(%s_1) …      %s_1 : memref<1 x 1 x tm x 128> of a tile that
                                                            is inside of one block along k and n
                                                     %w   : memref<KB x 1 x m x n> of weights, whose
                                                            columns have each their own
    gemmir.epilogue ins(%part, %s_2) outs(%c_1)      %s_2 : memref<tm x tn>

Columns of a block have the same scale: the last stride is 0, and of that dimension a tile has the
whole, wherever in a block it lies. Where each column has its own scale there is one block of them
all along n, and a tile has those of its columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from xdsl.builder import Builder
from xdsl.dialects import arith, memref
from xdsl.dialects.builtin import DYNAMIC_INDEX, MemRefType, StridedLayoutAttr
from xdsl.ir import SSAValue

from gemmir.ir.dialect import GemmOp, memref_type, static_strides
from gemmir.ir.index import Extent, as_index, upper_bound
from gemmir.ir.views import extents, subview

Cuts = Mapping[str, tuple[Extent, Extent]]
"""For each dimension that is cut, where a tile begins and how long it is."""


def block_sizes(gemm: GemmOp) -> dict[str, int]:
    """How many elements along k and n have one scale; empty where there are no scales.

    Where each column has its own, tiles may be cut anywhere along n.
    """
    if gemm.depth is None:
        return {}
    sizes = {"k": gemm.depth.value.data}
    if not by_column(gemm):
        sizes["n"] = memref_type(gemm.scales[0]).get_shape()[3]
    return sizes


def by_column(gemm: GemmOp) -> bool:
    """Whether the scales of `gemm` are those of single columns."""
    return any(static_strides(memref_type(scale))[3] for scale in gemm.scales)


def scales_of_tile(builder: Builder, gemm: GemmOp, cuts: Cuts) -> list[SSAValue]:
    """The scales of the tile of `gemm` that `cuts` describes, which begins where blocks do.

    Or it lies inside of one.
    """
    sizes = block_sizes(gemm)
    if not gemm.scales or not cuts.keys() & {"m", "n", "k"}:
        return list(gemm.scales)
    offsets: list[Extent] = [0, 0, 0, 0]
    lengths = list(extents(gemm.scales[0]))
    for axis, name in enumerate("kn"):
        if name in cuts and name in sizes:
            offsets[axis], lengths[axis] = _blocks(
                builder, gemm, cuts[name], sizes[name], lengths[axis]
            )
    if "m" in cuts:
        offsets[2], lengths[2] = cuts["m"]
    if "n" in cuts and by_column(gemm):
        offsets[3], lengths[3] = cuts["n"]
    return [subview(builder, scale, offsets, lengths) for scale in gemm.scales]


def _blocks(
    builder: Builder, gemm: GemmOp, cut: tuple[Extent, Extent], size: int, count: Extent
) -> tuple[Extent, Extent]:
    """The first block of a part of k or n, and how many there are; of an empty part any."""
    offset, length = cut
    bound = upper_bound(length)
    if bound is not None and bound <= size:
        blocks: Extent = 1
    elif isinstance(length, int):
        blocks = -(-length // size)
    else:
        more = builder.insert(arith.AddiOp(length, as_index(gemm, size - 1))).result
        blocks = builder.insert(arith.DivUIOp(more, as_index(gemm, size))).result
    if isinstance(offset, int):
        return offset // size, blocks
    first = builder.insert(arith.DivUIOp(offset, as_index(gemm, size))).result
    if not isinstance(length, int) and isinstance(count, int):
        last = as_index(gemm, max(count - 1, 0))
        first = builder.insert(arith.MinSIOp(first, last)).result
    return first, blocks


def is_one_block(gemm: GemmOp) -> bool:
    """Whether `gemm` has scales, and each of them is the same for all of k and of n."""
    shapes = [memref_type(scale).get_shape()[:2] for scale in gemm.scales]
    return bool(shapes) and all(shape == (1, 1) for shape in shapes)


def spread(builder: Builder, scale: SSAValue, sizes: Sequence[Extent]) -> SSAValue:
    """The scales of one block as a matrix of rows and columns."""
    source = memref_type(scale)
    shape = [DYNAMIC_INDEX if isinstance(s, SSAValue) else s for s in sizes]
    layout = StridedLayoutAttr(static_strides(source)[2:], source.get_offset())
    made = MemRefType(source.element_type, shape, layout, source.memory_space)
    view = memref.SubviewOp.get(scale, (0, 0, 0, 0), (1, 1, *sizes), (1, 1, 1, 1), made)
    view.result.name_hint = scale.name_hint
    return builder.insert(view).result


def of_columns(builder: Builder, scale: SSAValue, block: Extent) -> SSAValue:
    """The scales of all columns in a block of k, as a matrix of one row."""
    source = memref_type(scale)
    columns = extents(scale)[3]
    shape = [1, DYNAMIC_INDEX if isinstance(columns, SSAValue) else columns]
    layout = StridedLayoutAttr(static_strides(source)[2:], None)
    made = MemRefType(source.element_type, shape, layout, source.memory_space)
    view = memref.SubviewOp.get(scale, (block, 0, 0, 0), (1, 1, 1, columns), (1, 1, 1, 1), made)
    view.result.name_hint = scale.name_hint
    return builder.insert(view).result


def widened(builder: Builder, scales: SSAValue, columns: int) -> SSAValue | None:
    """What `spread` made, with so many columns; None where it is something else, or has less."""
    view = scales.owner
    if not isinstance(view, memref.SubviewOp):
        return None
    source = memref_type(view.source)
    is_spread = len(source.get_shape()) == 4 and static_strides(source)[3] == 0
    if not is_spread or source.get_shape()[3] < columns:
        return None
    return spread(builder, view.source, (extents(scales)[0], columns))
