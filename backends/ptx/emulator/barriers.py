"""Barriers of some threads of a block and of all of a cluster.

PTX ISA, sections "bar / barrier" and "barrier.cluster".
"""

from __future__ import annotations

from typing import Final

import numpy as np

from gemmir.backends.ptx.emulator.clocks import WARP
from gemmir.backends.ptx.emulator.faults import FaultError
from gemmir.backends.ptx.emulator.named import NamedBarrier
from gemmir.backends.ptx.emulator.parse import Instruction
from gemmir.backends.ptx.emulator.scope import Action, Scope, refuse, require_operands
from gemmir.backends.ptx.emulator.state import Block, Group
from gemmir.backends.ptx.emulator.values import Array
from gemmir.backends.ptx.emulator.waiting import Waiting

MOST: Final = 16
"""The barriers of a block."""


def some_barrier(scope: Scope, i: Instruction, *, waits: bool) -> Action:
    """bar.sync and bar.arrive with a number, and with how many threads, whole warps, meet there."""
    require_operands(i, *((1, 2) if waits else (2,)))
    number = scope.source(i.operands[0], "u32")
    expected = scope.source(i.operands[1] if len(i.operands) == 2 else str(scope.count), "u32")
    aligned = i.name[0] == "bar" or "aligned" in i.name

    def run(block: Block, group: Group) -> Waiting | None:
        if aligned:
            group.require_warps()
        asked = number(block, group), expected(block, group)
        turns: list[tuple[NamedBarrier, int]] = []
        for which in np.unique(asked[0]).tolist():
            lanes = np.flatnonzero(asked[0] == which)
            barrier = _named(block, which, asked[1][lanes])
            turns.append((barrier, barrier.turn))
            _arrive(block, barrier, group.lanes[lanes], int(asked[1][lanes[0]]), waits=waits)
        open_ = [(b, turn) for b, turn in turns if b.turn == turn]
        if not waits or not open_:
            return None
        return Waiting(
            ready=lambda: all(b.turn != turn for b, turn in open_),
            says=lambda: "; ".join(str(b) for b, turn in open_ if b.turn == turn),
            again=False,
        )

    return run


def _named(block: Block, number: int, expected: Array) -> NamedBarrier:
    if number >= MOST:
        raise FaultError("GEM1005", f"there is no barrier {number}; a block has {MOST}")
    if (expected != expected[0]).any() or int(expected[0]) % WARP or not expected[0]:
        raise FaultError(
            "GEM1005", f"barrier {number} is for {int(expected[0])} threads, not for whole warps"
        )
    return block.named.setdefault(number, NamedBarrier(number))


def _arrive(
    block: Block, barrier: NamedBarrier, lanes: Array, expected: int, *, waits: bool
) -> None:
    clock = block.release(lanes)
    if barrier.arrive(lanes + block.first, expected, clock, waits=waits):
        barrier.open(block.cluster.shared_clocks.acquire)


def cluster_barrier(scope: Scope, i: Instruction) -> Action:
    """barrier.cluster.arrive and barrier.cluster.wait."""
    require_operands(i, 0)
    words = [w for w in i.name[2:] if w != "aligned"]
    aligned = i.name[-1] == "aligned"
    if words in (["arrive"], ["arrive", "release"], ["arrive", "relaxed"]):
        relaxed = "relaxed" in words
        return lambda block, group: _arrive_at_cluster(block, group, aligned, relaxed)
    if words in (["wait"], ["wait", "acquire"]):
        return lambda block, group: _wait_for_cluster(block, group, aligned)
    raise refuse(i)


def _arrive_at_cluster(block: Block, group: Group, aligned: bool, relaxed: bool) -> None:
    if aligned:
        group.require_warps()
    cluster, clocks = block.cluster, block.cluster.shared_clocks
    meeting = cluster.meeting
    clock = clocks.nothing() if relaxed else block.release(group.lanes)
    if relaxed:
        authors = set((group.lanes + block.first).tolist())
        fenced = [b for b in cluster.barriers.values() if b.fenced is not None]
        meeting.published += [b for b in fenced if b.author in authors]
    for lane, code in enumerate((group.lanes + block.first).tolist()):
        if code in meeting.turns and meeting.turns[code] > meeting.waited.get(code, 0):
            raise FaultError("GEM1005", "it arrives twice, with no barrier.cluster.wait", lane)
        meeting.turns[code] = meeting.turn + 1
    meeting.here += len(group.lanes)
    meeting.gathered = clock if meeting.gathered is None else np.maximum(meeting.gathered, clock)
    meeting.close(cluster.running)


def _wait_for_cluster(block: Block, group: Group, aligned: bool) -> Waiting | None:
    if aligned:
        group.require_warps()
    meeting = block.cluster.meeting
    codes = group.lanes + block.first
    turns = [meeting.turns.get(code, 0) for code in codes.tolist()]
    for lane, (code, turn) in enumerate(zip(codes.tolist(), turns, strict=True)):
        if turn <= meeting.waited.get(code, 0):
            raise FaultError("GEM1005", "barrier.cluster.wait follows no arrive", lane)
    last = max(turns)
    if meeting.turn < last:
        return Waiting(
            ready=lambda: meeting.turn >= last,
            says=lambda: f"the barrier of the cluster, where {meeting.here} threads are",
            again=True,
        )
    assert meeting.clock is not None
    block.cluster.shared_clocks.acquire(codes, meeting.clock)
    for barrier in meeting.published:
        barrier.told.update(codes.tolist())
    meeting.waited.update(zip(codes.tolist(), turns, strict=True))
    return None
