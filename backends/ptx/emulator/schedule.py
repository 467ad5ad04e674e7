"""Which threads of a block, or of the blocks of a cluster, run next.

Of the threads that do not wait, those furthest behind run first; so threads that took different
ways meet again as soon as they can. With a generator of random numbers each warp runs on its own
instead, for a while at a time and in random order.

Copies land when no thread can go on, one at a time; with random numbers also earlier.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from typing import Final

from gemmir.backends.ptx.emulator.bulk import require_no_stores
from gemmir.backends.ptx.emulator.clocks import WARP
from gemmir.backends.ptx.emulator.cluster import Cluster
from gemmir.backends.ptx.emulator.control import WAIT
from gemmir.backends.ptx.emulator.faults import FaultError, PtxFault
from gemmir.backends.ptx.emulator.mbarrier import MBarrier
from gemmir.backends.ptx.emulator.parse import Instruction
from gemmir.backends.ptx.emulator.program import Program, Step
from gemmir.backends.ptx.emulator.state import Block, Group
from gemmir.backends.ptx.emulator.waiting import Waiting
from gemmir.backends.ptx.emulator.wgmma import require_no_products

MAX_STEPS: Final = 2_000_000
"""Instructions of one block, each for a group of threads, before it is taken to run for ever."""

LONGEST_TURN: Final = 64
"""Instructions of a warp that runs on its own, at most, before another one may."""

EARLY: Final = 0.2
"""How often a copy lands after the turn of such a warp, without need."""


@dataclass(slots=True, eq=False)
class _Strand:
    """Threads of a block that run in step: groups by the place of their next instruction.

    Those in `held` are of warps whose other lanes are still on their way to an instruction of whole
    warps.
    """

    block: Block
    groups: dict[int, Group] = field(default_factory=dict[int, Group])
    held: dict[int, tuple[Group, PtxFault]] = field(
        default_factory=dict[int, tuple[Group, PtxFault]]
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Parked:
    """Threads that wait for something else than the barrier of all threads of their block."""

    strand: _Strand
    place: int
    group: Group
    waiting: Waiting


@dataclass(eq=False)
class _Run:
    """The blocks of a cluster on their way through a program."""

    program: Program
    cluster: Cluster
    counts: list[int]
    shuffle: random.Random | None
    strands: list[_Strand]
    arrived: list[tuple[_Strand, int, Group]] = field(
        default_factory=list[tuple[_Strand, int, Group]]
    )
    parked: list[_Parked] = field(default_factory=list[_Parked])


def run_blocks(
    program: Program, cluster: Cluster, counts: list[int], shuffle: random.Random | None
) -> None:
    """Run all threads of the blocks of `cluster`; `counts` how often each step ran."""
    strands = [s for block in cluster.blocks for s in _strands(block, shuffle)]
    run = _Run(program, cluster, counts, shuffle, strands)
    steps, most = 0, MAX_STEPS * len(cluster.blocks)
    while steps < most:
        _wake(run)
        ready = [s for s in strands if s.groups]
        if ready:
            strand = ready[0] if shuffle is None else shuffle.choice(ready)
            turn = most - steps if shuffle is None else shuffle.randint(1, LONGEST_TURN)
            steps += _turn(run, strand, turn)
            if shuffle is not None and cluster.flying and shuffle.random() < EARLY:
                _land(run)
        elif not (_pass_barriers(run) or _land(run)):
            _require_end(run)
            return
    raise PtxFault("GEM1006", f"block {cluster.blocks[0].at} has not ended after {MAX_STEPS} steps")


def _strands(block: Block, shuffle: random.Random | None) -> list[_Strand]:
    if shuffle is None:
        return [_Strand(block, {0: Group(block.threads, True)})]
    warps = [block.threads[n : n + WARP] for n in range(0, block.count, WARP)]
    return [_Strand(block, {0: Group(warp, block.count <= WARP)}) for warp in warps]


def _turn(run: _Run, strand: _Strand, most: int) -> int:
    """Let a strand run until it waits, has ended or has had its turn; returns its steps."""
    steps, groups, block, counts = run.program.steps, strand.groups, strand.block, run.counts
    end = len(steps)
    for done in range(most):
        if not groups:
            return done
        place = min(groups) if len(groups) > 1 else next(iter(groups))
        if place == end:
            _end(run, block, groups.pop(place))
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
            found = _fault(block, step.instruction, fault, taken or group)
            if fault.code != "GEM1009" or rest is not None or not _may_come(run, strand):
                raise found from None
            strand.held[place] = (group, found)
            continue
        if goes is None:
            _put(strand, place + 1, group)
            continue
        assert taken is not None
        if rest is not None:
            _put(strand, place + 1, rest)
        if isinstance(goes, Waiting):
            run.parked.append(_Parked(strand, place, taken, goes))
        elif goes == WAIT:
            run.arrived.append((strand, place, taken))
        else:
            _put(strand, goes, taken)
    return most


def _may_come(run: _Run, strand: _Strand) -> bool:
    """Whether threads of a strand are elsewhere, from where they may come to an instruction."""
    if not run.program.is_asynchronous:
        return False
    return bool(strand.groups) or any(parked.strand is strand for parked in run.parked)


def _end(run: _Run, block: Block, group: Group) -> None:
    cluster = run.cluster
    cluster.ended[block.rank] = cluster.ended.get(block.rank, 0) + len(group.lanes)
    cluster.meeting.close(cluster.running)


def _split(step: Step, block: Block, group: Group) -> tuple[Group | None, Group | None]:
    """Those whose guard is true, and the others."""
    assert step.guard is not None
    chosen = step.guard(block, group)
    if chosen.all():
        return group, None
    if not chosen.any():
        return None, group
    return group.where(chosen), group.where(~chosen)


def _put(strand: _Strand, place: int, group: Group) -> None:
    held = strand.held.pop(place, None)
    if held is not None:
        group = held[0].joined(group, strand.block.count)
    there = strand.groups.get(place)
    strand.groups[place] = group if there is None else there.joined(group, strand.block.count)


def _wake(run: _Run) -> None:
    """Those whose wait is over may go on."""
    if not run.parked:
        return
    waiting: list[_Parked] = []
    for parked in run.parked:
        if parked.waiting.ready():
            place = parked.place if parked.waiting.again else parked.place + 1
            _put(parked.strand, place, parked.group)
        else:
            waiting.append(parked)
    run.parked = waiting


def _land(run: _Run) -> bool:
    """Let a copy land; false where none flies."""
    wanted: list[MBarrier] = [b for parked in run.parked for b in parked.waiting.wants]
    try:
        return run.cluster.land_one(wanted, run.shuffle)
    except FaultError as fault:
        raise PtxFault(fault.code, f"a copy to shared memory lands: {fault.message}") from None


def _pass_barriers(run: _Run) -> bool:
    """Open the barriers at which all threads of a block are, and at one place."""
    passed = False
    for block in run.cluster.blocks:
        here = [a for a in run.arrived if a[0].block is block]
        waiting, places = sum(len(group.lanes) for *_, group in here), {p for _, p, _ in here}
        if waiting < block.count or len(places) != 1:
            continue
        block.pass_barrier()
        run.arrived = [a for a in run.arrived if a[0].block is not block]
        for strand, place, group in here:
            _put(strand, place + 1, group)
        passed = True
    return passed


def _require_end(run: _Run) -> None:
    """Nothing goes on: all threads must have ended, and nothing may be left undone."""
    for strand in run.strands:
        for _, found in strand.held.values():
            raise found
    if run.parked:
        _refuse_wait(run)
    if run.arrived:
        _refuse_barrier(run, run.arrived[0][0].block)
    if run.cluster.clocks is None:
        return
    for block in run.cluster.blocks:
        try:
            require_no_products(block)
            require_no_stores(block)
            run.cluster.require_finished(block)
            _require_no_arrivals(block)
        except FaultError as fault:
            raise PtxFault(fault.code, f"block {block.at}: {fault.message}") from None


def _require_no_arrivals(block: Block) -> None:
    for barrier in block.named.values():
        if barrier.arrived:
            raise FaultError("GEM1005", f"the block ends and {barrier}")


def _refuse_wait(run: _Run) -> None:
    """All who are left wait for each other, or for nothing."""
    lines = [
        f"{_where(run, p.strand, p.place, p.group)} wait for {p.waiting.says()}" for p in run.parked
    ]
    lines += [
        f"{_where(run, *arrived)} wait for the other threads of the block"
        for arrived in run.arrived
    ]
    others = [f"{b}: {b.state}" for b in run.cluster.barriers.values()]
    lines.append("; ".join(others))
    raise PtxFault("GEM1011", "no thread can go on: " + "; ".join(line for line in lines if line))


def _where(run: _Run, strand: _Strand, place: int, group: Group) -> str:
    code = run.program.kernel.code[place]
    return (
        f"block {strand.block.at}, threads {group.lanes[0]} to {group.lanes[-1]}, line {code.line} "
        f"({_shortened(code.text)})"
    )


def _refuse_barrier(run: _Run, block: Block) -> None:
    """Not all threads have come to the barrier, or not to the same."""
    here = [a for a in run.arrived if a[0].block is block]
    waiting = sum(len(group.lanes) for *_, group in here)
    places = sorted({place for _, place, _ in here})
    found = FaultError(
        "GEM1005",
        f"{waiting} of {block.count} threads wait"
        + (f" at {len(places)} barriers" if len(places) > 1 else ", the others have ended"),
    )
    first = next(group for _, place, group in here if place == places[0])
    raise _fault(block, run.program.kernel.code[places[0]], found, first)


def _fault(block: Block, instruction: Instruction, fault: FaultError, group: Group) -> PtxFault:
    thread = int(group.lanes[min(fault.lane, len(group.lanes) - 1)])
    return PtxFault(
        fault.code,
        f"block {block.at}, thread {thread}, line {instruction.line} "
        f"({_shortened(instruction.text)}): {fault.message}",
    )


def _shortened(text: str) -> str:
    """An instruction with the middle of its lists of registers left out."""
    return re.sub(r"\{([^{},]*),([^{},]*,){5,}([^{},]*)\}", r"{\1, …,\3}", text)
