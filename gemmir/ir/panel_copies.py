"""Copies into panels, block by block: `gemmir.pack` as loops over vectors.

    gemmir.pack %b into %panels   ->   scf.for %k … step 8
      (k x n, panels of 16)              scf.for %j … step 16
                                           %x = vector.transfer_read %b[%k, %j] : vector<8x16xf32>
                                           vector.transfer_write %x, %panels[%k, %j]

Elements are converted, and multiplied by their scales, on the way. A last panel that is clipped is
filled up with zeros, vector by vector, and so is a last group of neighbours along k. A few rows of
a window into one panel are copied without a loop. Copies into shared memory are those of
`gemmir.ir.team_copies`.

Panels of one element, whose source is adjacent across them, are filled by squares, which are turned
in registers: the elements of a row go into a panel each.

    gemmir.pack %b into %panels   ->   scf.for %k … step 8
      (k x 4, panels of 1)                 %x = vector.transfer_read %b[%k, 0] : vector<8x4xf32>
                                           vector.transfer_write %x, %panels[%k, 0]
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast

from xdsl.builder import Builder
from xdsl.dialects import arith, vector
from xdsl.dialects.builtin import IntegerType, VectorType
from xdsl.ir import Operation, SSAValue

from gemmir.ir.attributes import PanelAttr
from gemmir.ir.conversions import converted
from gemmir.ir.dialect import Number, PackOp, memref_type, strides_of
from gemmir.ir.index import Extent, as_index, before, round_down, round_up
from gemmir.ir.loops import open_loop
from gemmir.ir.scales import of_columns
from gemmir.ir.transfers import read, write
from gemmir.ir.views import chain, extents, subview, total_offsets

COPY_BLOCK = 8
"""Elements that a transposing copy takes at once from each row of its source: half a cache line
of f32, so that rows are read by vectors."""

SQUARE_BYTES = 32
"""A side of a square that is turned in registers. By vectors of 32 bytes Zen 4 makes two shuffles a
cycle, and one of 64."""

SQUARE_ELEMENT_BYTES = 4
"""Squares of narrower elements would take more vectors than there are registers."""


@dataclass(frozen=True, kw_only=True)
class PackPlan:
    """How to walk a copy: panels of `width` along `dim`, `block` elements across at a time.

    Of what remains across, `rest` are copied at a time, the last of them filled up with zeros, and
    so is what is behind up to a whole `step`. A
    clipped panel is copied by `lanes` elements along `dim`: each vector has a mask of its own.
    With `are_turned` panels have one element, and `width` is how many of them are filled at once.
    """

    dim: int
    width: int
    lanes: int
    block: int
    rest: int
    step: int
    panels_inside: bool
    are_turned: bool = False


def plan_pack(pack: PackOp, lanes: int) -> PackPlan:
    """Follow the rows of the source: where panels cut them, all panels of a row come in turn.

    A block has one row of scales, and of two elements a byte it has both.
    """
    layout = memref_type(chain(pack.target)[0]).layout
    assert isinstance(layout, PanelAttr)
    dim, width = layout.dim.data, layout.width.data
    source = memref_type(pack.source)
    rows_run_across = strides_of(source)[1 - dim] == 1
    if _are_turned(pack, layout):
        return _plan_squares(pack, layout)
    depth = COPY_BLOCK if pack.depth is None else pack.depth.value.data
    is_plain = source.element_type == memref_type(pack.target).element_type
    block = math.gcd(COPY_BLOCK, depth) if rows_run_across or is_plain else 1
    rest = 2 if rows_run_across and source.element_type == IntegerType(4) else 1
    group = layout.depth.data
    if group > 1:
        block, rest = (max(COPY_BLOCK * 2, group) if rows_run_across else group), group
    if _is_window(pack):
        width, rows = (memref_type(pack.target).get_shape()[d] for d in (dim, 1 - dim))
        block = rows if 0 < rows <= block else block
    return PackPlan(
        dim=dim,
        width=width,
        lanes=width if rows_run_across or group > 1 or width % lanes else lanes,
        block=block,
        rest=rest,
        step=layout.step.data,
        panels_inside=not rows_run_across,
    )


def _are_turned(pack: PackOp, layout: PanelAttr) -> bool:
    """Whether panels of one element are filled from rows that go across several of them."""
    source, target = memref_type(pack.source), memref_type(pack.target)
    dim, element = layout.dim.data, source.element_type
    is_copy = element == target.element_type and pack.scales is None and not _is_window(pack)
    is_single = layout.width.data == layout.depth.data == layout.step.data == 1
    are_several = strides_of(source)[dim] == 1 and extents(pack.source)[dim] != 1
    is_wide = element.size >= SQUARE_ELEMENT_BYTES
    return is_copy and is_single and are_several and is_wide


def _plan_squares(pack: PackOp, layout: PanelAttr) -> PackPlan:
    """Squares, or narrower where there are few panels; what remains of rows is one block."""
    dim, element = layout.dim.data, memref_type(pack.source).element_type
    along, across = extents(pack.source)[dim], extents(pack.source)[1 - dim]
    side = SQUARE_BYTES // element.size
    width = min(side, 2 ** (along - 1).bit_length()) if isinstance(along, int) else side
    rest = across % side if isinstance(across, int) else 1
    return PackPlan(
        dim=dim,
        width=width,
        lanes=width,
        block=side,
        rest=rest,
        step=1,
        panels_inside=True,
        are_turned=True,
    )


def vectorize_pack(pack: PackOp, plan: PackPlan) -> None:
    """Copy block by block; a last panel that is clipped is filled up with zeros."""
    whole = extents(pack.source)
    along, across = whole[plan.dim], whole[1 - plan.dim]

    def panels(builder: Builder) -> Iterator[Strip]:
        if _is_window(pack):
            start = as_index(pack, 0)
            return iter((Strip(start=start, body=builder, is_whole=along == plan.width),))
        return _strips(builder, pack, "mn"[plan.dim], along, plan.width, plan.width)

    def blocks(builder: Builder) -> Iterator[Strip]:
        return _strips(builder, pack, "k", across, plan.block, plan.rest, plan.step)

    outer, inner = (blocks, panels) if plan.panels_inside else (panels, blocks)
    for first in outer(before(pack)):
        for second in inner(first.body):
            panel, block = (second, first) if plan.panels_inside else (first, second)
            _copy_block(second.body, pack, plan, panel, block)
    pack.detach()
    pack.erase()


@dataclass(frozen=True, kw_only=True)
class Strip:
    """A loop over whole steps of an extent, or over what remains of it."""

    start: SSAValue
    body: Builder
    is_whole: bool


def _strips(
    builder: Builder,
    anchor: Operation,
    dimension: str,
    extent: Extent,
    step: int,
    rest_step: int,
    filled: int = 1,
) -> Iterator[Strip]:
    """Open a loop over the whole steps of `extent` and one over the rest, where there are any.

    The rest ends at a multiple of `filled`. One step alone needs no loop.
    """
    end = round_down(builder, anchor, extent, step)
    last = round_up(builder, anchor, extent, filled)
    for begin, stop, by, is_whole in ((0, end, step, True), (end, last, rest_step, False)):
        if begin == stop:
            continue
        if isinstance(begin, int) and isinstance(stop, int) and stop - begin <= by:
            yield Strip(start=as_index(anchor, begin), body=builder, is_whole=is_whole)
        else:
            bounds = (as_index(anchor, begin), as_index(anchor, stop), as_index(anchor, by))
            start, body = open_loop(builder, dimension, bounds)
            yield Strip(start=start, body=body, is_whole=is_whole)


def _is_window(pack: PackOp) -> bool:
    """Whether a copy goes into a part of one panel."""
    return not isinstance(memref_type(pack.target).layout, PanelAttr)


def _copy_block(builder: Builder, pack: PackOp, plan: PackPlan, panel: Strip, block: Strip) -> None:
    """Copy one block of one panel, a clipped one by vectors."""
    if plan.are_turned:
        whole = subview(builder, pack.target, (0, 0), extents(pack.target), one_panel=True)
        _copy_vector(builder, pack, plan, (panel, block), (whole, panel.start))
        return
    target = pack.target if _is_window(pack) else _one_panel(builder, pack, plan, panel)
    step = plan.width if panel.is_whole else plan.lanes
    for first in range(0, plan.width, step):
        start = panel.start
        if first > 0:
            start = builder.insert(arith.AddiOp(start, as_index(pack, first))).result
        strip = replace(panel, start=start)
        _copy_vector(builder, pack, replace(plan, width=step), (strip, block), (target, first))


def _copy_vector(
    builder: Builder,
    pack: PackOp,
    plan: PackPlan,
    at: tuple[Strip, Strip],
    to: tuple[SSAValue, Extent],
) -> None:
    """Copy `plan.width` elements of a panel of each of a block, to a place of a target."""
    (panel, block), (target, first) = at, to
    size = plan.block if block.is_whole else plan.rest
    begin: tuple[Extent, Extent] = (panel.start, block.start)
    place: tuple[Extent, Extent] = (first, block.start)
    shape = (plan.width, size)
    full = (panel.is_whole, block.is_whole or size == 1 or plan.are_turned)
    if plan.dim == 1:
        begin, place = (begin[1], begin[0]), (place[1], place[0])
        shape, full = (shape[1], shape[0]), (full[1], full[0])
    value = read(builder, pack, pack.source, begin, shape, full)
    value = converted(builder, value, memref_type(target).element_type)
    if pack.scales is not None:
        value = _multiplied_by_scales(builder, pack, value, pack.scales, (block, panel))
    write(builder, pack, value, target, place, full if plan.are_turned else (True, True))


def _one_panel(builder: Builder, pack: PackOp, plan: PackPlan, panel: Strip) -> SSAValue:
    """The panel that begins where `panel` is, in all of its length."""
    buffer, views = chain(pack.target)
    first = total_offsets(builder, views)[plan.dim]
    start = panel.start
    if first != 0:
        start = builder.insert(arith.AddiOp(as_index(views[0], first), start)).result
    corner: tuple[Extent, Extent] = (start, 0)
    sizes: tuple[Extent, Extent] = (plan.width, extents(buffer)[1 - plan.dim])
    if plan.dim == 1:
        corner, sizes = (corner[1], corner[0]), (sizes[1], sizes[0])
    return subview(builder, buffer, corner, sizes, one_panel=True)


def _multiplied_by_scales(
    builder: Builder, pack: PackOp, value: SSAValue, scales: SSAValue, at: tuple[Strip, Strip]
) -> SSAValue:
    """The vector `value` of rows of k, which lie in one block, times the scales of its columns."""
    assert pack.depth is not None
    of = cast("VectorType[Number]", value.type)
    (k, columns), (rows, width) = at, of.get_shape()
    block = builder.insert(arith.DivUIOp(k.start, as_index(pack, pack.depth.value.data))).result
    row = of_columns(builder, scales, block)
    factors = read(builder, pack, row, (0, columns.start), (1, width), (True, columns.is_whole))
    if rows > 1:
        factors = builder.insert(vector.BroadcastOp(factors, of)).vector
    return builder.insert(arith.MulfOp(value, factors)).result
