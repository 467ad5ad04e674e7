"""cp.async and its groups: PTX ISA, sections "cp.async", "cp.async.commit_group" and
"cp.async.wait_group / cp.async.wait_all"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from gemmir.backends.ptx.emulator.access import count_access
from gemmir.backends.ptx.emulator.bulk_copy import bulk_copy, prefetch
from gemmir.backends.ptx.emulator.copies import Copy
from gemmir.backends.ptx.emulator.faults import FaultError
from gemmir.backends.ptx.emulator.marks import flight_mark
from gemmir.backends.ptx.emulator.parse import Instruction
from gemmir.backends.ptx.emulator.scope import Action, Decode, Scope, refuse, require_operands
from gemmir.backends.ptx.emulator.state import Block, Group

SIZES: Final = {"ca": (4, 8, 16), "cg": (16,)}
"""Bytes that a copy through each cache level may have."""

CACHE_HINTS: Final = ("L2::64B", "L2::128B", "L2::256B")


def _decode(scope: Scope, i: Instruction, place: int) -> Action:
    if i.name[1:3] == ("async", "bulk") or i.name[1] == "reduce":
        return bulk_copy(scope, i)
    if i.name == ("cp", "async", "commit_group"):
        require_operands(i, 0)
        return lambda block, group: block.copies.commit(block, group.lanes)
    if i.name == ("cp", "async", "wait_all"):
        require_operands(i, 0)
        return lambda block, group: block.copies.wait(block, group.lanes, None)
    if i.name == ("cp", "async", "wait_group"):
        require_operands(i, 1)
        if not i.operands[0].isdigit():
            raise FaultError("GEM1001", f"{i.operands[0]} is no number of groups")
        left = int(i.operands[0])
        return lambda block, group: block.copies.wait(block, group.lanes, left)
    return _copy(scope, i, place)


def _copy(scope: Scope, i: Instruction, place: int) -> Action:
    """Copies `size` bytes; those past `src-size`, or all where `ignore-src` holds, become 0."""
    shape = [w for w in i.name[1:] if w not in CACHE_HINTS]
    known = len(shape) == 4 and shape[0] == "async" and shape[1] in SIZES
    if not known or shape[2] not in ("shared", "shared::cta") or shape[3] != "global":
        raise refuse(i)
    require_operands(i, 3, 4)
    if i.operands[2] not in map(str, SIZES[shape[1]]):
        raise FaultError("GEM1001", f"cp.async.{shape[1]} copies {SIZES[shape[1]]} bytes")
    width = int(i.operands[2])
    target, source = scope.address(i.operands[0]), scope.address(i.operands[1])
    last = i.operands[3] if len(i.operands) == 4 else None
    ignores = last is not None and scope.kernel.registers.get(last.lstrip("! ")) == "pred"
    ignored = scope.predicate(last) if last is not None and ignores else None
    sized = scope.source(last, "u32") if last is not None and not ignores else None

    def run(block: Block, group: Group) -> None:
        to, of = target(block, group), source(block, group)
        filled = np.full(len(to), width)
        if ignored is not None:
            filled[ignored(block, group)] = 0
        if sized is not None:
            filled = sized(block, group).astype(np.int64)
            if (filled > width).any():
                lane = int(np.argmax(filled > width))
                raise FaultError("GEM1010", f"{int(filled[lane])} bytes of a copy of {width}", lane)
        shared, stamp = block.shared, block.stamp(group)
        rows = shared.rows(to, width)
        block.machine.global_memory.copied(of, width, filled, stamp)
        count_access(block, "shared", place, to, width, group)
        reads = np.flatnonzero(filled)
        if len(reads):
            count_access(block, "global", place, of[reads], width, group.where(reads))
        shared.claim(rows, width, stamp, flight_mark(stamp.threads))
        groups = block.copies.groups(block.count)[group.lanes].copy()
        block.copies.flying.append(Copy(group.lanes, of, filled, rows, width, groups))

    return run


ASYNC_COPIES: Final[Mapping[str, Decode]] = {"cp": _decode, "prefetch": prefetch}
