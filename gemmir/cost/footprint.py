"""How much of memory the loops of a nest touch: boxes of arrays, and the lines that they are in.

A line is what a cache or a table of pages holds: 64 bytes of the one, 4096 of the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gemmir.cost.indices import Linear, LoopVariable
from gemmir.cost.nest import Access, Array, Memory


@dataclass(frozen=True, kw_only=True)
class Span:
    """Elements along a dimension: `count` of them, in `size` from `begin` on."""

    begin: Linear
    size: float
    count: float

    def over(self, variable: LoopVariable) -> Span:
        """What is touched in all iterations of a loop."""
        factor = self.begin.of.get(variable, 0.0)
        if not factor:
            return self
        step, trips = abs(factor) * variable.step, max(variable.trips, 1.0)
        of = {v: f for v, f in self.begin.of.items() if v is not variable}
        begin = Linear(constant=self.begin.constant + factor * variable.first, of=of)
        size = self.size + step * (trips - 1)
        count = min(size, self.count + step * (trips - 1)) if step <= self.size else 0.0
        return Span(begin=begin, size=size, count=count or self.count * trips)


@dataclass(frozen=True, kw_only=True)
class Box:
    """A box of an array that is touched a `share` of the times."""

    array: Array
    spans: tuple[Span, ...]
    share: float

    def over(self, variable: LoopVariable) -> Box:
        """What is touched in all iterations of a loop."""
        spans = tuple(s.over(variable) for s in self.spans)
        return Box(array=self.array, spans=spans, share=self.share)

    def union(self, other: Box) -> Box | None:
        """The box around both, None where they are apart or move in other ways."""
        if self.array is not other.array:
            return None
        spans: list[Span] = []
        for mine, its in zip(self.spans, other.spans, strict=True):
            apart = its.begin.constant - mine.begin.constant
            if mine.begin.of != its.begin.of:
                apart = 0.0
            if apart > mine.size or -apart > its.size:
                return None
            low = min(0.0, apart)
            size = max(mine.size, apart + its.size) - low
            begin = mine.begin if apart >= 0 else its.begin
            count = min(size, max(mine.count, its.count, mine.count + its.count if apart else 0))
            spans.append(Span(begin=begin, size=size, count=count))
        return Box(
            array=self.array,
            spans=tuple(spans),
            share=min(self.share + other.share, 1.0),
        )


def box_of(access: Access) -> Box:
    """The box that an access touches once."""
    spans = tuple(
        Span(begin=b, size=s, count=s) for b, s in zip(access.begin, access.size, strict=True)
    )
    return Box(array=access.array, spans=spans, share=access.share)


Boxes = dict[Memory, list[Box]]
"""What is touched of each memory."""


def merged(boxes: Iterable[Box]) -> list[Box]:
    """The same without what is counted twice: boxes that meet are one."""
    found: list[Box] = []
    for box in boxes:
        current = box
        rest: list[Box] = []
        for other in found:
            joined = other.union(current)
            if joined is None:
                rest.append(other)
            else:
                current = joined
        found = [*rest, current]
    return found


def joined(*parts: Boxes) -> Boxes:
    """What several parts touch together."""
    found: Boxes = {}
    for part in parts:
        for memory, boxes in part.items():
            found[memory] = merged([*found.get(memory, []), *boxes])
    return found


def over_loop(boxes: Boxes, variable: LoopVariable) -> Boxes:
    """What all iterations of a loop touch."""
    return {memory: merged(b.over(variable) for b in found) for memory, found in boxes.items()}


@dataclass(frozen=True, kw_only=True)
class Runs:
    """A box in memory: so many runs of adjacent bytes, `apart` bytes from one to the next."""

    count: float
    bytes: float
    apart: float


def runs_of(box: Box) -> Runs:
    """How a box lies in memory."""
    counts = [min(s.count, e) for s, e in zip(box.spans, box.array.shape, strict=True)]
    run, count, apart = box.array.item_bytes, 1.0, 0.0
    for stride, extent in sorted(_axes(box.array, counts)):
        if extent <= 1 or stride == 0:
            continue
        if stride <= run * 1.001:
            run = stride * (extent - 1) + run
        else:
            apart = apart or stride
            count *= extent
    return Runs(count=count, bytes=run, apart=apart)


def _axes(array: Array, counts: Sequence[float]) -> list[tuple[float, float]]:
    """Strides in bytes and how often each is taken."""
    if array.panel is None:
        return list(zip(array.strides, counts, strict=True))
    panel, item = array.panel, array.item_bytes
    dim, width, depth = panel.dim.data, panel.width.data, panel.depth.data
    along, across = counts[dim], counts[1 - dim]
    within = min(along, width)
    return [
        (item, min(across, depth)),
        (item * depth, within),
        (item * panel.pitch.data * depth, max(across / depth, 1.0)),
        (item * panel.stride.data, max(along / width, 1.0)),
    ]


def lines_of(boxes: Sequence[Box], line_bytes: int) -> float:
    """How many lines the boxes of one memory are in."""
    if not boxes:
        return 0.0
    total = sum(_lines(runs_of(box), line_bytes) * box.share for box in boxes)
    most = max(box.array.bytes for box in boxes)
    return min(total, most / line_bytes + 1)


def _lines(runs: Runs, line_bytes: int) -> float:
    aligned = runs.apart % line_bytes == 0 and (runs.bytes % line_bytes == 0 or runs.count == 1)
    each = math.ceil(runs.bytes / line_bytes)
    if not aligned:
        each = (runs.bytes - 1) / line_bytes + 1
    dense = (runs.apart * (runs.count - 1) + runs.bytes) / line_bytes + 1
    return min(each * runs.count, dense) if runs.count > 1 else each
