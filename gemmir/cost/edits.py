"""Small changes of a schedule: one number, one word or one pass at a time.

A change keeps what belongs together: where a panel is as wide as the register tile, both change.
Whether a change is legal is for `check_fits` and the passes to say; here it only has to make sense.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from xdsl.passes import ModulePass

from gemmir.machine import CpuMachine, Machine
from gemmir.passes.pipeline import Pipeline
from gemmir.passes.prefetch import Prefetch
from gemmir.passes.promote import CACHES, Promote
from gemmir.passes.tile import Tile
from gemmir.passes.unroll import Unroll
from gemmir.passes.vectorize import Vectorize
from gemmir.schedule import Schedule

Passes = tuple[ModulePass, ...]

UNROLLS: Final = (1, 2, 4, 8)
ROW_STEPS: Final = (-4, -2, -1, 1, 2, 4)
"""Rows of a register tile that are tried beside its own, on a CPU."""

EDGES: Final = ("clip", "peel", "overlap", "even")
MOST_STAGES: Final = 6
SIDES: Final = {"m": "a", "n": "b"}
"""The operand whose panels are cut along a dimension of C."""


@dataclass(frozen=True, kw_only=True)
class Edit:
    """A change of a schedule: the passes that go, those that come instead, and what comes out."""

    removed: tuple[str, ...]
    added: tuple[str, ...]
    schedule: Schedule

    @property
    def text(self) -> str:
        """The change in one line."""
        if not self.added:
            return f"without {' '.join(self.removed)}"
        if not self.removed:
            return f"with {' '.join(self.added)}"
        return f"{' '.join(self.removed)} -> {' '.join(self.added)}"


def edits(schedule: Schedule, machine: Machine) -> Iterator[Edit]:
    """The changes of a schedule, each once, in a fixed order."""
    seen = {str(schedule)}
    for passes in _changed(schedule.passes, machine):
        made = Schedule(passes)
        if str(made) in seen:
            continue
        seen.add(str(made))
        before, after = list(schedule.steps), list(made.steps)
        removed = [s for s in before if s not in after]
        added = [s for s in after if s not in before]
        if not removed and not added:
            removed, added = before, after
        yield Edit(removed=tuple(removed), added=tuple(added), schedule=made)


def _changed(passes: Passes, machine: Machine) -> Iterator[Passes]:
    for place, p in enumerate(passes):
        if isinstance(p, Tile):
            yield from _tiles(passes, place, p, machine)
        elif isinstance(p, Unroll):
            for factor in UNROLLS:
                made = () if factor == 1 else (replace(p, factor=factor),)
                yield _with(passes, place, *made)
        elif isinstance(p, Prefetch):
            yield _with(passes, place)
            for ahead in (p.ahead // 2, p.ahead * 2):
                if ahead:
                    yield _with(passes, place, replace(p, ahead=ahead))
        elif isinstance(p, Pipeline):
            for stages in (p.stages - 1, p.stages + 1):
                if 1 < stages <= MOST_STAGES:
                    yield _with(passes, place, replace(p, stages=stages))
        elif isinstance(p, Promote):
            yield from _promotions(passes, place, p, machine)
        elif isinstance(p, Vectorize) and not any(isinstance(o, Unroll) for o in passes):
            for factor in UNROLLS[1:] if isinstance(machine, CpuMachine) else ():
                yield _with(passes, place, p, Unroll(loop="k", factor=factor))


def _with(passes: Passes, place: int, *made: ModulePass) -> Passes:
    """The passes with others in the place of one."""
    return (*passes[:place], *made, *passes[place + 1 :])


def _tiles(passes: Passes, place: int, p: Tile, machine: Machine) -> Iterator[Passes]:
    for number, (loop, size) in enumerate(zip(p.loops, p.sizes, strict=True)):
        in_registers = isinstance(machine, CpuMachine) and _is_innermost(passes, place, loop)
        for other in _sizes(passes, loop, size, in_registers=in_registers):
            sizes = (*p.sizes[:number], other, *p.sizes[number + 1 :])
            made = _with(passes, place, replace(p, sizes=sizes))
            yield _with_panels(made, loop, size, other)
    if len(p.loops) == 2 and p.over is None:
        yield _with(passes, place, replace(p, loops=p.loops[::-1], sizes=p.sizes[::-1]))
    after = passes[place + 1] if place + 1 < len(passes) else None
    if isinstance(after, Tile) and not set(after.loops) & set(p.loops) and p.over is after.over:
        yield (*passes[:place], after, p, *passes[place + 2 :])
    if isinstance(machine, CpuMachine):
        for edges in EDGES:
            yield _with(passes, place, replace(p, edges=edges))
        yield from _packed(passes, place, p)


def _is_innermost(passes: Passes, place: int, loop: str) -> bool:
    """Whether a tile is the last one along a loop of C."""
    later = (p for p in passes[place + 1 :] if isinstance(p, Tile))
    return loop in SIDES and not any(loop in p.loops for p in later)


def _sizes(passes: Passes, loop: str, size: int, *, in_registers: bool) -> Iterator[int]:
    if in_registers and loop == "m":
        yield from (size + step for step in ROW_STEPS if size + step > 0)
        return
    if in_registers:
        widths = [p.width for p in passes if isinstance(p, Vectorize) and p.width]
        lanes = widths[0] if widths else 8
        yield from (size + step for step in (-lanes, lanes) if size + step > 0)
    for other in (size // 2, size * 2):
        if other:
            yield other


def _with_panels(passes: Passes, loop: str, size: int, other: int) -> Passes:
    """The passes with panels as wide as the tile, where they were so before."""
    operand = SIDES.get(loop)

    def fitting(p: ModulePass) -> ModulePass:
        if not isinstance(p, Promote) or p.operand not in (operand, "c") or p.layout is None:
            return p
        kind, _, width = p.layout.partition(":")
        count, deep, depth = width.partition("x")
        if kind != "panel" or count != str(size) or (p.operand == "c" and loop != "n"):
            return p
        return replace(p, layout=f"panel:{other}{deep}{depth}")

    return tuple(fitting(p) for p in passes)


def _promotions(passes: Passes, place: int, p: Promote, machine: Machine) -> Iterator[Passes]:
    if not isinstance(machine, CpuMachine):
        return
    if p.operand == "c" and p.to == "registers":
        yield _with(passes, place, replace(p, prefetch=not p.prefetch))
    elif p.to in CACHES:
        yield _with(passes, place)


def _packed(passes: Passes, place: int, p: Tile) -> Iterator[Passes]:
    """The passes with a or b in panels as wide as the register tile, before it is cut."""
    promoted = {q.operand for q in passes if isinstance(q, Promote)}
    for loop, size in zip(p.loops, p.sizes, strict=True):
        operand = SIDES.get(loop)
        if operand is None or operand in promoted or not _is_innermost(passes, place, loop):
            continue
        to = "l2" if operand == "b" else "l3"
        pack = Promote(operand=operand, to=to, layout=f"panel:{size}")
        yield (*passes[:place], pack, *passes[place:])
