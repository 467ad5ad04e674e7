"""Which threads of a block run next.

Of the threads that do not wait at a barrier, those furthest behind run first; so threads that took
different ways meet again as soon as they can. With a generator of random numbers each warp runs on
its own instead, for a while at a time and in random order.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final

from gemmir.backends.ptx.emulator.control import WAIT
from gemmir.backends.ptx.emulator.faults import FaultError, PtxFault
from gemmir.backends.ptx.emulator.marks import WARP
from gemmir.backends.ptx.emulator.parse import Instruction
from gemmir.backends.ptx.emulator.program import Program, Step
from gemmir.backends.ptx.emulator.state import Block, Group

MAX_STEPS: Final = 2_000_000
"""Instructions of one block, each for a group of threads, before it is taken to run for ever."""

LONGEST_TURN: Final = 64
"""Instructions of a warp that runs on its own, at most, before another one may."""


@dataclass(slots=True, eq=False)
class _Strand:
    """Threads that run in step: groups by the place of their next instruction."""

    groups: dict[int, Group] = field(default_factory=dict[int, Group])


@dataclass(eq=False)
class _Run:
    """A block on its way through a program."""

    program: Program
    block: Block
    at: tuple[int, int, int]
    counts: list[int]
    strands: list[_Strand]
    arrived: list[tuple[_Strand, int, Group]] = field(
        default_factory=list[tuple[_Strand, int, Group]]
    )


def run_block(
    program: Program,
    block: Block,
    at: tuple[int, int, int],
    counts: list[int],
    shuffle: random.Random | None,
) -> None:
    """Run all threads of `block`, the one at `at` in the grid; `counts` how often each step ran."""
    whole = Group(block.threads, True)
    if shuffle is None:
        strands = [_Strand({0: whole})]
    else:
        warps = [
            Group(block.threads[n : n + WARP], block.count <= WARP)
            for n in range(0, block.count, WARP)
        ]
        strands = [_Strand({0: warp}) for warp in warps]
    run = _Run(program, block, at, counts, strands)
    steps = 0
    while steps < MAX_STEPS:
        ready = [s for s in strands if s.groups]
        if not ready:
            if not run.arrived:
                return
            _release(run)
            continue
        strand = ready[0] if shuffle is None else shuffle.choice(ready)
        turn = MAX_STEPS - steps if shuffle is None else shuffle.randint(1, LONGEST_TURN)
        steps += _turn(run, strand, turn)
    raise PtxFault("GEM1006", f"block {at} has not ended after {MAX_STEPS} steps")


def _turn(run: _Run, strand: _Strand, most: int) -> int:
    """Let a strand run until it waits, has ended or has had its turn; returns its steps."""
    steps, groups, block, counts = run.program.steps, strand.groups, run.block, run.counts
    end = len(steps)
    for done in range(most):
        if not groups:
            return done
        place = min(groups) if len(groups) > 1 else next(iter(groups))
        if place == end:
            del groups[place]
            continue
        group = groups.pop(place)
        step = steps[place]
        taken, rest = group, None
        try:
            if step.guard is not None:
                taken, rest = _split(step, block, group)
            goes = None
            if taken is not None:
                counts[place] += len(taken.lanes)
                goes = step.run(block, taken)
        except FaultError as fault:
            raise _fault(run, step.instruction, fault, taken or group) from None
        if goes is None:
            _put(run, strand, place + 1, group)
            continue
        assert taken is not None
        if rest is not None:
            _put(run, strand, place + 1, rest)
        if goes == WAIT:
            run.arrived.append((strand, place, taken))
        else:
            _put(run, strand, goes, taken)
    return most


def _split(step: Step, block: Block, group: Group) -> tuple[Group | None, Group | None]:
    """Those whose guard is true, and the others."""
    assert step.guard is not None
    chosen = step.guard(block, group)
    if chosen.all():
        return group, None
    if not chosen.any():
        return None, group
    return group.where(chosen), group.where(~chosen)


def _put(run: _Run, strand: _Strand, place: int, group: Group) -> None:
    there = strand.groups.get(place)
    strand.groups[place] = group if there is None else there.joined(group, run.block.count)


def _release(run: _Run) -> None:
    """All threads must wait, and at one barrier."""
    waiting = sum(len(group.lanes) for _, _, group in run.arrived)
    places = sorted({place for _, place, _ in run.arrived})
    if waiting < run.block.count or len(places) > 1:
        found = FaultError(
            "GEM1005",
            f"{waiting} of {run.block.count} threads wait"
            + (f" at {len(places)} barriers" if len(places) > 1 else ", the others have ended"),
        )
        first = next(group for _, place, group in run.arrived if place == places[0])
        raise _fault(run, run.program.kernel.code[places[0]], found, first)
    run.block.pass_barrier()
    for strand, place, group in run.arrived:
        _put(run, strand, place + 1, group)
    run.arrived.clear()


def _fault(run: _Run, instruction: Instruction, fault: FaultError, group: Group) -> PtxFault:
    thread = int(group.lanes[min(fault.lane, len(group.lanes) - 1)])
    return PtxFault(
        fault.code,
        f"block {run.at}, thread {thread}, line {instruction.line} "
        f"({instruction.text}): {fault.message}",
    )
