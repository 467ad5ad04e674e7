"""Instructions between the lanes of a warp: PTX ISA, sections "shfl.sync", "vote.sync",
"activemask", "redux.sync", "elect.sync" and "bar.warp.sync"."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from gemmir.backends.ptx.emulator.clocks import WARP
from gemmir.backends.ptx.emulator.faults import FaultError
from gemmir.backends.ptx.emulator.parse import Instruction
from gemmir.backends.ptx.emulator.scope import (
    Action,
    Decode,
    Read,
    Scope,
    refuse,
    require_operands,
)
from gemmir.backends.ptx.emulator.state import Block, Group
from gemmir.backends.ptx.emulator.values import TYPES, Array

FULL: Final = (1 << WARP) - 1


def present(group: Group) -> Array:
    """For each thread of a group, the lanes of its warp that are in the group, as bits."""
    warps = group.lanes // WARP
    bits = np.zeros(int(warps[-1]) + 1, np.uint32)
    np.bitwise_or.at(bits, warps, np.uint32(1) << (group.lanes % WARP).astype(np.uint32))
    return bits[warps]


def _require_members(group: Group, mask: Array) -> None:
    """All lanes of the mask must be here, with one mask, and each must be among them."""
    here = present(group)
    missing = (mask & ~here) != 0
    alone = mask >> (group.lanes % WARP).astype(np.uint32) & np.uint32(1) == 0
    if (wrong := missing | alone).any():
        lane = int(np.argmax(wrong))
        raise FaultError(
            "GEM1009",
            f"lanes {int(here[lane]):#010x} of the warp are here, and the mask is "
            f"{int(mask[lane]):#010x}",
            lane,
        )


def _by_warps(group: Group, values: Array) -> tuple[Array, Array]:
    """Values as rows of warps, with zeros for lanes that are not here, and where each one is."""
    rows = np.zeros((int(group.lanes[-1]) // WARP + 1, WARP), values.dtype)
    rows[group.lanes // WARP, group.lanes % WARP] = values
    return rows, group.lanes // WARP


def _sources(lane: Array, b: Array, c: Array, mode: str) -> tuple[Array, Array]:
    """The lane that each one reads, and whether that is in range."""
    by, clamp, mask = b & 31, c & 31, c >> 8 & 31
    highest, lowest = (lane & mask) | (clamp & ~mask & 31), lane & mask
    if mode == "idx":
        found = lowest | (by & ~mask & 31)
    else:
        found = {"up": lane - by, "down": lane + by, "bfly": lane ^ by}[mode]
    inside = found >= highest if mode == "up" else found <= highest
    return np.where(inside, found, lane), inside


def _shuffle(scope: Scope, i: Instruction, place: int) -> Action:
    require_operands(i, 5)
    if len(i.name) != 4 or i.name[1] != "sync" or i.name[3] != "b32":
        raise refuse(i)
    mode = i.name[2]
    if mode not in ("up", "down", "bfly", "idx"):
        raise refuse(i)
    target, _, flag = i.operands[0].partition("|")
    write, tell = scope.target(target, "b32"), scope.target(flag or "_", "pred")
    value, b, c, members = (scope.source(o, "b32") for o in i.operands[1:])

    def run(block: Block, group: Group) -> None:
        _require_members(group, members(block, group))
        lane = group.lanes % WARP
        by, limits = (read(block, group).astype(np.int64) for read in (b, c))
        source, inside = _sources(lane, by, limits, mode)
        if ((present(group) >> source.astype(np.uint32)) & 1 == 0).any():
            gone = int(np.argmax((present(group) >> source.astype(np.uint32)) & 1 == 0))
            raise FaultError("GEM1009", f"lane {int(source[gone])} is read and not here", gone)
        rows, warp = _by_warps(group, value(block, group))
        write(block, group, rows[warp, source])
        tell(block, group, inside)

    return run


def _vote(scope: Scope, i: Instruction, place: int) -> Action:
    require_operands(i, 3)
    if i.name[1:] not in (
        ("sync", "all", "pred"),
        ("sync", "any", "pred"),
        ("sync", "uni", "pred"),
        ("sync", "ballot", "b32"),
    ):
        raise refuse(i)
    mode, kind = i.name[2:]
    write = scope.target(i.operands[0], kind)
    chosen, members = scope.predicate(i.operands[1]), scope.source(i.operands[2], "b32")

    def run(block: Block, group: Group) -> None:
        mask = members(block, group)
        _require_members(group, mask)
        rows, warp = _by_warps(group, chosen(block, group))
        weights = np.uint32(1) << np.arange(WARP, dtype=np.uint32)
        ballot = np.where(rows, weights, np.uint32(0)).sum(axis=1, dtype=np.uint32)[warp] & mask
        found = {"ballot": ballot, "all": ballot == mask, "any": ballot != 0}
        found["uni"] = found["all"] | (ballot == 0)
        write(block, group, found[mode])

    return run


_REDUCE: Final[Mapping[str, Callable[[Array], Array]]] = {
    "add": lambda rows: rows.sum(axis=1, dtype=rows.dtype),
    "min": lambda rows: rows.min(axis=1),
    "max": lambda rows: rows.max(axis=1),
    "and": lambda rows: np.bitwise_and.reduce(rows, axis=1),
    "or": lambda rows: np.bitwise_or.reduce(rows, axis=1),
    "xor": lambda rows: np.bitwise_xor.reduce(rows, axis=1),
}


def _reduce(scope: Scope, i: Instruction, place: int) -> Action:
    """redux: of all lanes of a warp, which must be in the mask."""
    require_operands(i, 3)
    if len(i.name) != 4 or i.name[1] != "sync" or i.name[2] not in _REDUCE:
        raise refuse(i)
    kinds = ("b32",) if i.name[2] in ("and", "or", "xor") else ("u32", "s32")
    if i.name[3] not in kinds:
        raise refuse(i)
    function, kind = _REDUCE[i.name[2]], i.name[3]
    write = scope.target(i.operands[0], kind)
    value, members = scope.source(i.operands[1], kind), scope.source(i.operands[2], "b32")

    def run(block: Block, group: Group) -> None:
        mask = members(block, group)
        _require_members(group, mask)
        if (mask != FULL).any():
            raise FaultError("GEM1001", "redux is known for whole warps only")
        rows, warp = _by_warps(group, value(block, group))
        write(block, group, function(rows)[warp].astype(TYPES[kind]))

    return run


def _elect(scope: Scope, i: Instruction, place: int) -> Action:
    """The lowest lane of the mask."""
    require_operands(i, 2)
    if i.name != ("elect", "sync"):
        raise refuse(i)
    lane, _, flag = i.operands[0].partition("|")
    write, tell = scope.target(lane, "b32"), scope.target(flag or "_", "pred")
    members: Read = scope.source(i.operands[1], "b32")

    def run(block: Block, group: Group) -> None:
        mask = members(block, group)
        _require_members(group, mask)
        lowest = np.bitwise_count((mask & (~mask + np.uint32(1))) - np.uint32(1))
        write(block, group, lowest.astype(np.uint32))
        tell(block, group, lowest == group.lanes % WARP)

    return run


def _active(scope: Scope, i: Instruction, place: int) -> Action:
    require_operands(i, 1)
    if i.name != ("activemask", "b32"):
        raise refuse(i)
    write = scope.target(i.operands[0], "b32")
    return lambda block, group: write(block, group, present(group))


def warp_barrier(scope: Scope, i: Instruction) -> Action:
    """bar.warp.sync: the lanes of a mask have seen what they all did before."""
    require_operands(i, 1)
    members = scope.source(i.operands[0], "b32")

    def run(block: Block, group: Group) -> None:
        mask = members(block, group)
        _require_members(group, mask)
        if (mask != FULL).any():
            raise FaultError("GEM1001", "bar.warp.sync is known for whole warps only")
        block.pass_warp_barrier(group)

    return run


EXCHANGES: Final[Mapping[str, Decode]] = {
    "activemask": _active,
    "elect": _elect,
    "redux": _reduce,
    "shfl": _shuffle,
    "vote": _vote,
}
