"""Views of memrefs: extents, subviews and the chains that lead from an array to a tile."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.builder import Builder
from xdsl.dialects import arith, memref
from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    MemRefType,
    NoneAttr,
    StridedLayoutAttr,
)
from xdsl.ir import SSAValue

from gemmir.errors import ScheduleError
from gemmir.ir.attributes import PanelAttr, SwizzleAttr
from gemmir.ir.dialect import Number, memref_type, strides_of
from gemmir.ir.index import Extent, as_index, upper_bound


def _mixed(static: Sequence[int], dynamic: Sequence[SSAValue]) -> tuple[Extent, ...]:
    values = iter(dynamic)
    return tuple(next(values) if s == DYNAMIC_INDEX else s for s in static)


def offsets_of(view: memref.SubviewOp) -> tuple[Extent, ...]:
    """The offsets of a subview, static and dynamic ones mixed."""
    return _mixed(view.static_offsets.get_values(), view.offsets)


def sizes_of(view: memref.SubviewOp | memref.ReinterpretCastOp) -> tuple[Extent, ...]:
    """The sizes of a subview or cast, static and dynamic ones mixed."""
    return _mixed(view.static_sizes.get_values(), view.sizes)


def cast_strides(cast: memref.ReinterpretCastOp) -> tuple[Extent, ...]:
    """The strides of a cast, static and dynamic ones mixed."""
    return _mixed(cast.static_strides.get_values(), cast.strides)


def extents(value: SSAValue) -> tuple[Extent, ...]:
    """The extents of a memref; dynamic ones are found at the subview or cast that made it."""
    shape = memref_type(value).get_shape()
    if DYNAMIC_INDEX not in shape:
        return shape
    assert isinstance(value.owner, memref.SubviewOp | memref.ReinterpretCastOp)
    sizes = sizes_of(value.owner)
    return sizes[len(sizes) - len(shape) :]


def subview(
    builder: Builder,
    source: SSAValue,
    offsets: Sequence[Extent],
    sizes: Sequence[Extent],
    *,
    drop_batch: bool = False,
    one_panel: bool = False,
) -> SSAValue:
    """A window into `source`; with `drop_batch` its first dimension, of size 1, is dropped.

    A window of a swizzled matrix has its layout. One that begins at the origin of a panel layout
    keeps it, unless `one_panel` says that it is a single panel, and so does one that begins further
    on in the first panel and is wider than it; one inside a single panel is strided, and so is any
    other where panels are single rows or columns. Every window into panels of some depth keeps
    their layout. Raises `ScheduleError` (GEM0310) for any other window into panels.
    """
    result = _subview_type(memref_type(source), offsets, sizes, one_panel)
    if drop_batch:
        result = MemRefType(
            result.element_type,
            result.get_shape()[1:],
            StridedLayoutAttr(strides_of(result)[1:], result.get_offset()),
            result.memory_space,
        )
    view = memref.SubviewOp.get(source, offsets, sizes, [1] * len(sizes), result)
    view.result.name_hint = source.name_hint
    return builder.insert(view).result


def _subview_type(
    source: MemRefType[Number],
    offsets: Sequence[Extent],
    sizes: Sequence[Extent],
    one_panel: bool,
) -> MemRefType[Number]:
    shape = [s if isinstance(s, int) else DYNAMIC_INDEX for s in sizes]
    at_origin = all(isinstance(o, int) and o == 0 for o in offsets)
    layout = source.layout
    if isinstance(layout, SwizzleAttr):
        pass
    elif isinstance(layout, PanelAttr):
        dim = layout.dim.data
        extent, start = sizes[dim], offsets[dim]
        in_place = one_panel and layout.depth.data == 1
        is_wide = isinstance(extent, int) and extent > layout.width.data
        from_first = isinstance(start, int) and start == 0
        keeps = layout.depth.data > 1 or at_origin or (is_wide and from_first)
        if in_place or not keeps:
            offset = 0 if at_origin else None
            layout = StridedLayoutAttr(_strides_in_panel(layout, sizes), offset)
    elif not (at_origin and isinstance(layout, NoneAttr) and tuple(shape) == source.get_shape()):
        layout = StridedLayoutAttr(strides_of(source), _offset_in(source, offsets))
    return MemRefType(source.element_type, shape, layout, source.memory_space)


def _offset_in(source: MemRefType[Number], offsets: Sequence[Extent]) -> int | None:
    """Where a window begins, None where that is dynamic; a step of 0 leads nowhere."""
    total = source.get_offset()
    for offset, stride in zip(offsets, strides_of(source), strict=True):
        if offset == 0 or stride == 0 or total is None:
            continue
        total = total + offset * stride if isinstance(offset, int) and stride is not None else None
    return total


def _strides_in_panel(layout: PanelAttr, sizes: Sequence[Extent]) -> tuple[int, int]:
    dim, width = layout.dim.data, layout.width.data
    if width == 1:
        apart, along = layout.stride.data, layout.pitch.data
        return (apart, along) if dim == 0 else (along, apart)
    bound = upper_bound(sizes[dim])
    if bound is None or bound > width:
        raise ScheduleError(
            "GEM0310",
            f"a tile of {bound or 'unknown size'} along {'mn'[dim]} does not lie in one panel "
            f"of {width}",
            f"tile {'mn'[dim]} by {width} after the promotion, or promote after tiling",
        )
    return (1, layout.pitch.data) if dim == 0 else (layout.pitch.data, 1)


def chain(value: SSAValue) -> tuple[SSAValue, list[memref.SubviewOp]]:
    """The array that a tile was cut from, and the subviews in between, outermost first."""
    views: list[memref.SubviewOp] = []
    while isinstance(value.owner, memref.SubviewOp):
        views.append(value.owner)
        value = value.owner.source
    return value, views[::-1]


def cut_from(value: SSAValue, root: SSAValue) -> list[memref.SubviewOp] | None:
    """The subviews that cut `value` from `root`, outermost first; None where it is no part."""
    views: list[memref.SubviewOp] = []
    while value is not root:
        if not isinstance(value.owner, memref.SubviewOp):
            return None
        views.append(value.owner)
        value = value.owner.source
    return views[::-1]


def total_offsets(builder: Builder, views: Sequence[memref.SubviewOp]) -> tuple[Extent, Extent]:
    """Where in its root the matrix begins that a chain of subviews cuts out."""
    total: list[Extent] = [0, 0]
    for view in views:
        for dim, offset in enumerate(offsets_of(view)):
            before = total[dim]
            if before == 0 or offset == 0:
                total[dim] = offset if before == 0 else before
            else:
                at = [as_index(view, e) for e in (before, offset)]
                total[dim] = builder.insert(arith.AddiOp(at[0], at[1])).result
    return total[0], total[1]


def follow(builder: Builder, source: SSAValue, views: Sequence[memref.SubviewOp]) -> SSAValue:
    """Cut from `source`, of the same shape, the tile that the chain `views` cuts from its root."""
    for view in views:
        ranks = len(memref_type(view.source).get_shape()), len(memref_type(view.result).get_shape())
        source = subview(
            builder, source, offsets_of(view), sizes_of(view), drop_batch=ranks[0] > ranks[1]
        )
    return source
