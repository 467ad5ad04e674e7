"""The parts that a loop over tiles is opened in, one for each size that its tiles have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.dialects import arith
from xdsl.dialects.builtin import IndexType
from xdsl.ir import SSAValue

from gemmir.ir.dialect import GemmOp
from gemmir.ir.index import (
    Extent,
    as_index,
    difference,
    enclosing_function,
    lower_bound,
    round_down,
    total,
)
from gemmir.ir.tile_plan import DESCENDING, LoopPlan


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Part of a loop: its bounds, and the size of its tiles where that is known."""

    begin: Extent
    end: Extent
    step: int
    size: int | None


def segments_of(builder: Builder, anchor: GemmOp, loop: LoopPlan) -> tuple[Segment, ...]:
    """The loops to open for one loop of the plan: several where the last tile is peeled off."""
    extent, step = loop.extent, loop.size
    if loop.edges == "even" and not loop.divides:
        if isinstance(extent, int):
            return _even_segments(extent, step)
        return tuple(_even_at_run_time(builder, anchor, extent, step))
    if loop.edges not in ("peel", *DESCENDING) or loop.divides:
        size = step if loop.divides else None
        return (Segment(begin=0, end=_at_least_once(builder, anchor, loop), step=step, size=size),)
    even = round_down(builder, anchor, extent, step)
    found = [Segment(begin=0, end=even, step=step, size=step)]
    if loop.edges == "peel":
        rest = extent - even if isinstance(extent, int) and isinstance(even, int) else None
        return (*found, Segment(begin=even, end=extent, step=step, size=rest))
    while step > loop.least:
        step = step - 1 if loop.edges == "exact" else 1 << ((step - 1).bit_length() - 1)
        begin = found[-1].end
        rest = difference(builder, anchor, extent, begin)
        end = total(builder, anchor, begin, round_down(builder, anchor, rest, step))
        if begin != end:
            found.append(Segment(begin=begin, end=end, step=step, size=step))
    begin = found[-1].end
    if step > 1 and begin != extent:
        rest = extent - begin if isinstance(extent, int) and isinstance(begin, int) else None
        found.append(Segment(begin=begin, end=extent, step=step, size=rest))
    return tuple(found)


def _even_segments(extent: int, most: int) -> tuple[Segment, ...]:
    """As few tiles as possible of `most` elements or fewer; the first have one more than others."""
    least, larger = divmod(extent, -(-extent // most))
    end = larger * (least + 1)
    segments = (
        Segment(begin=0, end=end, step=least + 1, size=least + 1),
        Segment(begin=end, end=extent, step=least, size=least),
    )
    return segments if larger else segments[1:]


def _even_at_run_time(
    builder: Builder, anchor: GemmOp, extent: SSAValue, most: int
) -> Iterator[Segment]:
    """A loop for each size from `most` down to 1, of which at most two have any iterations.

    Of `count` tiles extent - (size - 1) count have `size` elements or more, but 0 at least and
    `count` at most.
    """
    wide = builder.insert(arith.AddiOp(extent, as_index(anchor, most - 1))).result
    count = builder.insert(arith.DivUIOp(wide, as_index(anchor, most))).result
    begin: Extent = 0
    larger: Extent = 0
    for size in range(most, 0, -1):
        below = builder.insert(arith.MuliOp(count, as_index(anchor, size - 1))).result
        over = builder.insert(arith.SubiOp(extent, below)).result
        some = builder.insert(arith.MaxSIOp(over, as_index(anchor, 0))).result
        tiles = builder.insert(arith.MinSIOp(some, count)).result
        own = as_index(anchor, difference(builder, anchor, tiles, larger))
        length = builder.insert(arith.MuliOp(own, as_index(anchor, size))).result
        end = as_index(anchor, total(builder, anchor, begin, length))
        yield Segment(begin=begin, end=end, step=size, size=size)
        begin, larger = end, tiles


def _at_least_once(builder: Builder, anchor: GemmOp, loop: LoopPlan) -> Extent:
    """Where a loop ends: over a k that turns out to be 0 in a call there is one empty slice."""
    if loop.dimension != "k" or lower_bound(loop.extent) > 0 or isinstance(loop.extent, int):
        return loop.extent
    if not any(isinstance(x.type, IndexType) for x in enclosing_function(anchor).args):
        return loop.extent
    return builder.insert(arith.MaxSIOp(loop.extent, as_index(anchor, 1))).result
