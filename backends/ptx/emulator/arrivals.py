"""mbarrier and mapa: PTX ISA, sections "mbarrier" and "mapa"."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from gemmir.backends.ptx.emulator.clocks import BARRIERS
from gemmir.backends.ptx.emulator.faults import FaultError
from gemmir.backends.ptx.emulator.marks import BARRIER
from gemmir.backends.ptx.emulator.mbarrier import MOST_ARRIVALS, MBarrier
from gemmir.backends.ptx.emulator.memory import WINDOW
from gemmir.backends.ptx.emulator.parse import Instruction
from gemmir.backends.ptx.emulator.scope import Action, Decode, Read, Scope, refuse, require_operands
from gemmir.backends.ptx.emulator.state import Block, Group
from gemmir.backends.ptx.emulator.values import Array
from gemmir.backends.ptx.emulator.waiting import Waiting

BYTES: Final = 8
"""The size of an mbarrier."""

_HERE: Final = ("shared", "shared::cta")
_SCOPES: Final = ("cta", "cluster")


def _words(i: Instruction, *, orders: tuple[str, ...]) -> tuple[list[str], bool]:
    """The words that say what is done, and whether it may be in another block."""
    if i.name[-1] != "b64":
        raise refuse(i)
    words = list(i.name[1:-1])
    space = words.pop() if words[-1].startswith("shared") else ""
    if space not in (*_HERE, "shared::cluster", ""):
        raise refuse(i)
    if len(words) > 2 and words[-1] in _SCOPES and words[-2] in orders:
        del words[-2:]
    return words, space == "shared::cluster"


def _mbarrier(scope: Scope, i: Instruction, place: int) -> Action:
    kind = i.name[1] if len(i.name) > 1 else ""
    decode = _KINDS.get(kind)
    if decode is None:
        raise refuse(i)
    return decode(scope, i)


def _init(scope: Scope, i: Instruction) -> Action:
    require_operands(i, 2)
    if i.name[2:-1] not in (("shared",), ("shared::cta",), ()) or i.name[-1] != "b64":
        raise refuse(i)
    address, count = scope.address(i.operands[0]), scope.source(i.operands[1], "u32")

    def run(block: Block, group: Group) -> None:
        counts, addresses = count(block, group), block.shared.local(address(block, group))
        stamp = block.stamp(group)
        rows = block.shared.rows(addresses, BYTES)
        if (wrong := (counts == 0) | (counts > MOST_ARRIVALS)).any():
            raise FaultError(
                "GEM1012", f"an mbarrier for {counts[wrong][0]} arrivals", int(np.argmax(wrong))
            )
        block.shared.claim(rows, BYTES, stamp, np.full(len(rows), BARRIER))
        for lane, at in enumerate(addresses.tolist()):
            _make(block, int(group.lanes[lane]), at, int(counts[lane]))

    return run


def _make(block: Block, thread: int, address: int, count: int) -> None:
    cluster, clocks = block.cluster, block.cluster.shared_clocks
    before = cluster.barriers.pop((block.rank, address), None)
    own = [b for (rank, _), b in cluster.barriers.items() if rank == block.rank]
    if len(own) == BARRIERS:
        raise FaultError("GEM1012", f"a block has more than {BARRIERS} mbarriers")
    taken = {b.number for b in own}
    first = block.rank * BARRIERS
    free = next(n for n in range(first, first + BARRIERS) if n not in taken)
    cluster.barriers[block.rank, address] = MBarrier(
        place=block.place(address),
        number=free if before is None else before.number,
        count=count,
        author=block.first + thread,
        made=block.now,
        gathered=clocks.nothing(),
        clock=clocks.nothing(),
    )


def _inval(scope: Scope, i: Instruction) -> Action:
    """The bytes hold nothing then, and may be written again."""
    require_operands(i, 1)
    if i.name[2:-1] not in (("shared",), ("shared::cta",), ()) or i.name[-1] != "b64":
        raise refuse(i)
    address = scope.address(i.operands[0])

    def run(block: Block, group: Group) -> None:
        for lane, at in enumerate(block.shared.local(address(block, group)).tolist()):
            barrier = block.cluster.barrier(block, at)
            thread = group.lanes[lane : lane + 1] + block.first
            barrier.require_made(thread, block.cluster.shared_clocks)
            barrier.require_whole()
            del block.cluster.barriers[block.rank, at]
            start = at - block.shared.base
            block.shared.written[start : start + BYTES] = 0

    return run


def by_address(addresses: Array) -> list[tuple[int, Array]]:
    """Which lanes are at each address."""
    if (addresses == addresses[0]).all():
        return [(int(addresses[0]), np.arange(len(addresses)))]
    return [(int(at), np.flatnonzero(addresses == at)) for at in np.unique(addresses)]


def _arrive(scope: Scope, i: Instruction) -> Action:
    """arrive, with a number of arrivals, and arrive.expect_tx, with bytes."""
    words, afar = _words(i, orders=("release", "relaxed"))
    expects = words == ["arrive", "expect_tx"]
    if not expects and words != ["arrive"]:
        raise refuse(i)
    require_operands(i, *((3,) if expects else (2, 3)))
    if afar and i.operands[0] != "_":
        raise FaultError("GEM1001", "an arrival in shared::cluster returns no state")
    write = scope.target(i.operands[0], "b64")
    address = scope.address(i.operands[1])
    number: Read = scope.source(i.operands[2] if len(i.operands) == 3 else "1", "u32")

    def run(block: Block, group: Group) -> None:
        numbers, states = number(block, group), np.zeros(len(group.lanes), np.uint64)
        for at, lanes in by_address(address(block, group)):
            barrier = reach(block, at, group.lanes[lanes], afar=afar)
            states[lanes] = barrier.phase
            if expects:
                barrier.expect(int(numbers[lanes].sum()))
            clock = block.release(group.lanes[lanes])
            counts = [1] * len(lanes) if expects else numbers[lanes].tolist()
            for count in [sum(counts)] if sum(counts) <= barrier.pending else counts:
                barrier.arrive(count, clock)
        write(block, group, states)

    return run


def reach(block: Block, address: int, lanes: Array, *, afar: bool) -> MBarrier:
    """The mbarrier that threads arrive at, here or in another block of the cluster."""
    cluster, clocks = block.cluster, block.cluster.shared_clocks
    target, local = block, address % WINDOW
    if afar:
        target, local = cluster.locate(address)
    else:
        block.shared.local(np.array([address]))
    if target is block:
        barrier = cluster.barrier(block, local)
        barrier.require_made(lanes + block.first, clocks)
        return barrier
    barrier = cluster.barrier(target, local)
    for code in (lanes + block.first).tolist():
        barrier.require_published(code, clocks)
        barrier.remote[code] = block.now
    return barrier


def _expect(scope: Scope, i: Instruction) -> Action:
    require_operands(i, 2)
    words, afar = _words(i, orders=("relaxed",))
    if words != ["expect_tx"] or afar:
        raise refuse(i)
    address, number = scope.address(i.operands[0]), scope.source(i.operands[1], "u32")

    def run(block: Block, group: Group) -> None:
        for lane, at in enumerate(address(block, group).tolist()):
            barrier = reach(block, at, group.lanes[lane : lane + 1], afar=False)
            barrier.expect(int(number(block, group)[lane]))

    return run


def _wait(scope: Scope, i: Instruction) -> Action:
    """test_wait and try_wait give false at first where they must wait, and are then put off."""
    words, afar = _words(i, orders=("acquire", "relaxed"))
    by_parity = words[1:] == ["parity"]
    if afar or (words[1:] and not by_parity):
        raise refuse(i)
    require_operands(i, *((3, 4) if words[0] == "try_wait" else (3,)))
    write, address = scope.target(i.operands[0], "pred"), scope.address(i.operands[1])
    what = scope.source(i.operands[2], "u32" if by_parity else "b64")
    refused: dict[int, int] = {}

    def run(block: Block, group: Group) -> Waiting | None:
        wanted = what(block, group)
        found = np.zeros(len(group.lanes), np.bool_)
        asked: list[tuple[MBarrier, int]] = []
        for at, lanes in by_address(address(block, group)):
            barrier = reach(block, at, group.lanes[lanes], afar=False)
            for value in np.unique(wanted[lanes]).tolist():
                chosen = lanes[wanted[lanes] == value]
                if _ended(barrier, value, by_parity=by_parity):
                    found[chosen] = True
                    codes = group.lanes[chosen] + block.first
                    block.cluster.shared_clocks.acquire(codes, barrier.clock)
                else:
                    asked.append((barrier, value))
        first = block.first + int(group.lanes[0])
        if not found.any() and refused.get(first) == len(group.lanes):
            return _put_off(asked, by_parity=by_parity)
        refused[first] = 0 if found.all() else len(group.lanes)
        write(block, group, found)
        return None

    return run


def _ended(barrier: MBarrier, value: int, *, by_parity: bool) -> bool:
    if not by_parity:
        return barrier.phase > value
    if value > 1:
        raise FaultError("GEM1012", f"a wait for parity {value}, which is 0 or 1")
    return barrier.has_ended(value)


def _put_off(asked: list[tuple[MBarrier, int]], *, by_parity: bool) -> Waiting:
    def ready() -> bool:
        return any(_ended(barrier, value, by_parity=by_parity) for barrier, value in asked)

    def says() -> str:
        word = "parity" if by_parity else "phase"
        return "; ".join(f"{b} for {word} {v}: {b.state}" for b, v in asked)

    return Waiting(ready, says, again=True, wants=tuple(b for b, _ in asked))


_KINDS: Final[Mapping[str, Callable[[Scope, Instruction], Action]]] = {
    "arrive": _arrive,
    "expect_tx": _expect,
    "init": _init,
    "inval": _inval,
    "test_wait": _wait,
    "try_wait": _wait,
}


def _mapa(scope: Scope, i: Instruction, place: int) -> Action:
    """The address in the block of a rank, as the whole cluster sees it."""
    require_operands(i, 3)
    if i.name not in (("mapa", "shared::cluster", "u32"), ("mapa", "shared::cluster", "u64")):
        raise refuse(i)
    kind = i.name[2]
    write = scope.target(i.operands[0], kind)
    address = scope.source(i.operands[1], kind)
    rank = scope.source(i.operands[2], "u32")

    def run(block: Block, group: Group) -> None:
        ranks = rank(block, group)
        if (wrong := ranks >= block.cluster.size).any():
            lane = int(np.argmax(wrong))
            raise FaultError("GEM1002", f"the cluster has no block {int(ranks[lane])}", lane)
        own = address(block, group)
        write(block, group, own % WINDOW + ranks.astype(own.dtype) * WINDOW)

    return run


MBARRIERS: Final[Mapping[str, Decode]] = {"mapa": _mapa, "mbarrier": _mbarrier}
