"""How many lines a level of memory has to fetch: what of a nest is not there when it is used.

A line that was used before is still there if what has been used since fits, as with the least
recently used one replaced first. Real caches choose less well when they are full, and better when
they are too small: what is kept falls smoothly around the size. Rows that lie a power of two apart
share few sets, so that their lines need room as if they were many more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from gemmir.cost.core import Level
from gemmir.cost.footprint import (
    Box,
    Boxes,
    Runs,
    box_of,
    joined,
    lines_of,
    merged,
    over_loop,
    runs_of,
)
from gemmir.cost.nest import Access, Memory, Nest
from gemmir.schedule.cpu.model import CACHE_LINE_BYTES

SHARPNESS: Final = 8
"""How sharply what is kept falls around the size of a cache."""

Fetched = dict[tuple[Memory, int], float]
"""Lines of a memory that the accesses of a nest, by its number, fetch."""


@dataclass(kw_only=True)
class Part:
    """What runs within one iteration: accesses next to each other, or a loop."""

    boxes: Boxes
    nest: Region | None = None


@dataclass(kw_only=True)
class Region:
    """A nest with what it touches: `body` in one iteration, `whole` in all."""

    nest: Nest
    number: int
    parts: list[Part] = field(default_factory=list[Part])
    body: Boxes = field(default_factory=Boxes)
    whole: Boxes = field(default_factory=Boxes)


def regions(nest: Nest) -> Region:
    """What each loop of a nest touches."""
    numbers = {id(n): i for i, n in enumerate(nest.walk())}

    def region(n: Nest) -> Region:
        made = Region(nest=n, number=numbers[id(n)])
        loose: list[Access] = []

        def close() -> None:
            if loose:
                made.parts.append(Part(boxes=_boxes(loose)))
                loose.clear()

        for item in n.items:
            if isinstance(item, Access):
                loose.append(item)
            else:
                close()
                inside = region(item)
                made.parts.append(Part(boxes=inside.whole, nest=inside))
        close()
        made.body = joined(*(p.boxes for p in made.parts))
        made.whole = over_loop(made.body, n.variable) if n.variable else made.body
        return made

    return region(nest)


def _boxes(accesses: Sequence[Access]) -> Boxes:
    found: Boxes = {}
    for access in accesses:
        found.setdefault(access.array.memory, []).append(box_of(access))
    return {memory: merged(boxes) for memory, boxes in found.items()}


def fetched(region: Region, level: Level) -> Fetched:
    """The lines that `level` fetches while a nest runs once, with nothing there before."""
    found: Fetched = {}
    seen: list[tuple[Boxes, float]] = []
    for part in region.parts:
        if part.nest is None:
            lines = {
                (memory, region.number): lines_of(boxes, level.line_bytes)
                for memory, boxes in part.boxes.items()
            }
        else:
            lines = {
                key: count * part.nest.nest.share
                for key, count in fetched(part.nest, level).items()
            }
        lines = _without_known(lines, part, seen, level)
        for key, count in lines.items():
            found[key] = found.get(key, 0.0) + count
        seen.append((part.boxes, _bytes(part.boxes, level)))
    return _repeated(region, found, level)


def _without_known(
    lines: Fetched, part: Part, seen: Sequence[tuple[Boxes, float]], level: Level
) -> Fetched:
    """`lines` without those that earlier parts have fetched and that are still there."""
    found: Fetched = dict(lines)
    for memory, boxes in part.boxes.items():
        since = 0.0
        for earlier, size in reversed(seen):
            since += size
            if memory not in earlier:
                continue
            mine, its = (
                lines_of(boxes, level.line_bytes),
                lines_of(earlier[memory], level.line_bytes),
            )
            both = lines_of(merged([*earlier[memory], *boxes]), level.line_bytes)
            shared = max(mine + its - both, 0.0)
            kept = shared * _kept(memory, earlier, since, level)
            total = _of(found, memory)
            if total > 0:
                factor = max(total - min(kept, mine), 0.0) / total
                found = {k: n * factor if k[0] is memory else n for k, n in found.items()}
            break
    return found


def _of(lines: Fetched, memory: Memory) -> float:
    return sum(count for (of, _), count in lines.items() if of is memory)


def _repeated(region: Region, once: Fetched, level: Level) -> Fetched:
    """What all iterations of a loop fetch, if one with nothing there before fetches `once`."""
    variable = region.nest.variable
    if variable is None or variable.trips <= 1:
        return once if variable is None else {k: n * variable.trips for k, n in once.items()}
    trips, size = variable.trips, _bytes(region.body, level)
    found: Fetched = {}
    for memory in region.body:
        total = _of(once, memory)
        if total <= 0:
            continue
        body = lines_of(region.body[memory], level.line_bytes)
        whole = lines_of(region.whole[memory], level.line_bytes)
        new = max(whole - body, 0.0) / (trips - 1)
        kept = _kept(memory, region.body, size, level)
        later = kept * min(new, total) + (1 - kept) * total
        factor = (total + (trips - 1) * later) / total
        found |= {k: n * factor for k, n in once.items() if k[0] is memory}
    return found


FOLLOWED: Final = (8, 32)
"""Rows at the same time that the prefetchers of a CPU follow all of, and so many that they follow
none of. Of B of 4096 x 4096 by one row of A, 8 rows of 256 bytes come at the speed of memory, 16
at 0.6 to 0.9 of it, and 32 at 0.6 and less."""


STRIDE_BYTES: Final = 1024
"""The longest stride that prefetchers follow: several lines of a page are so far apart."""


@dataclass(frozen=True, kw_only=True)
class Stream:
    """How a nest reads a memory: `starts` for each line, and the share that nothing foresees."""

    starts: float
    unforeseen: float


def streams_of(region: Region) -> dict[tuple[Memory, int], Stream]:
    """How the accesses of each nest walk each memory.

    Rows are followed from one iteration of a loop around to the next if they are few. What a
    prefetch asks for nobody waits for.
    """
    found: dict[tuple[Memory, int], Stream] = {}

    def visit(current: Region, around: list[Region]) -> None:
        demanded = {a.array.memory for a in current.nest.accesses if a.kind != "prefetch"}
        for memory in joined(*(p.boxes for p in current.parts if p.nest is None)):
            found[memory, current.number] = (
                _stream(memory, [current, *reversed(around)])
                if memory in demanded
                else Stream(starts=0.0, unforeseen=0.0)
            )
        for part in current.parts:
            if part.nest is not None:
                visit(part.nest, [*around, current])

    visit(region, [])
    return found


def _stream(memory: Memory, around: Sequence[Region]) -> Stream:
    """How a memory is walked by the innermost of the loops `around`."""
    few, many = FOLLOWED
    starts, unforeseen, lost = 1.0, 1.0, 0.0
    for region in around:
        runs = [_walked(runs_of(box)) for box in region.whole.get(memory, [])]
        each = min(CACHE_LINE_BYTES / max(r.bytes for r in runs), 1.0)
        if region is around[0]:
            starts = each
        starts = min(starts, lost * starts + (1 - lost) * each)
        unforeseen = min(unforeseen, lost + (1 - lost) * each)
        count = sum(r.count for r in runs)
        lost = max(lost, min(max((count - few) / (many - few), 0.0), 1.0))
    return Stream(starts=starts, unforeseen=unforeseen)


def _walked(runs: Runs) -> Runs:
    """Rows that a stride takes one after the other within a page are as one."""
    if runs.count > 1 and runs.apart <= STRIDE_BYTES:
        return Runs(count=1.0, bytes=runs.bytes * runs.count, apart=runs.apart)
    return runs


def kept_between_calls(region: Region, memory: Memory, level: Level) -> float:
    """The share of a memory that is still there when the kernel is called again."""
    return _kept(memory, region.whole, _bytes(region.whole, level), level)


def _kept(memory: Memory, boxes: Boxes, since: float, level: Level) -> float:
    """The share of a memory that stays while `since` bytes are used, its own among them."""
    own = lines_of(boxes[memory], level.line_bytes) * level.line_bytes
    crowding = max((_crowding(box, level) for box in boxes[memory]), default=1.0)
    pressure = (since + own * (crowding - 1)) / level.bytes
    return 1 / (1 + pressure**SHARPNESS)


def _crowding(box: Box, level: Level) -> float:
    """How many times the room that their number says the lines of a box need, for want of sets."""
    if not level.way_bytes:
        return 1.0
    runs = runs_of(box)
    step = math.gcd(round(runs.apart), level.way_bytes) if runs.count > 1 else level.way_bytes
    starts = min(runs.count, level.way_bytes / step)
    sets = starts * max(runs.bytes, level.line_bytes) / level.way_bytes
    return 1 / min(sets, 1.0)


def _bytes(boxes: Boxes, level: Level) -> float:
    return sum(lines_of(found, level.line_bytes) for found in boxes.values()) * level.line_bytes
