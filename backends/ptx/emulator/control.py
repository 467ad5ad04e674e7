"""Branches, barriers and ends: PTX ISA, sections "Control Flow Instructions" and "barrier"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from gemmir.backends.ptx.emulator.barriers import cluster_barrier, some_barrier
from gemmir.backends.ptx.emulator.clocks import WARP
from gemmir.backends.ptx.emulator.exchange import warp_barrier
from gemmir.backends.ptx.emulator.faults import FaultError
from gemmir.backends.ptx.emulator.parse import Instruction
from gemmir.backends.ptx.emulator.registers import RegisterPool
from gemmir.backends.ptx.emulator.scope import Action, Decode, Scope, refuse, require_operands
from gemmir.backends.ptx.emulator.state import Block, Group
from gemmir.backends.ptx.emulator.waiting import Waiting

WAIT: Final = -1
"""Where a group goes that has come to a barrier."""

LEAST_REGISTERS: Final = 24
MOST_REGISTERS: Final = 256

SYNCS: Final = (
    ("bar", "sync"),
    ("bar", "cta", "sync"),
    ("barrier", "sync"),
    ("barrier", "sync", "aligned"),
    ("barrier", "cta", "sync"),
    ("barrier", "cta", "sync", "aligned"),
)

ARRIVALS: Final = tuple(
    tuple("arrive" if word == "sync" else word for word in name) for name in SYNCS
)


def _branch(scope: Scope, i: Instruction, place: int) -> Action:
    require_operands(i, 1)
    if i.name not in (("bra",), ("bra", "uni")):
        raise refuse(i)
    target = scope.kernel.labels.get(i.operands[0])
    if target is None:
        raise FaultError("GEM1001", f"there is no label {i.operands[0]}")
    return lambda block, group: target


def _barrier(scope: Scope, i: Instruction, place: int) -> Action:
    if i.name == ("bar", "warp", "sync"):
        return warp_barrier(scope, i)
    if i.name[:2] == ("barrier", "cluster"):
        return cluster_barrier(scope, i)
    if i.name not in (*SYNCS, *ARRIVALS):
        raise refuse(i)
    if i.name in SYNCS and is_of_all(i, scope.count):
        return lambda block, group: WAIT
    return some_barrier(scope, i, waits=i.name in SYNCS)


def is_of_all(i: Instruction, count: int) -> bool:
    """Whether a barrier is that of all threads of a block."""
    return i.operands in (("0",), ("0", str(count)))


def _end(scope: Scope, i: Instruction, place: int) -> Action:
    require_operands(i, 0)
    if i.name not in (("ret",), ("ret", "uni"), ("exit",)):
        raise refuse(i)
    end = len(scope.kernel.code)
    return lambda block, group: end


def _set_registers(scope: Scope, i: Instruction, place: int) -> Action:
    """setmaxnreg: warps give registers back, or wait until so many are free."""
    require_operands(i, 1)
    if i.name[2:] != ("sync", "aligned", "u32") or i.name[1] not in ("inc", "dec"):
        raise refuse(i)
    count = int(i.operands[0]) if i.operands[0].isdigit() else 0
    if count % 8 or not LEAST_REGISTERS <= count <= MOST_REGISTERS:
        raise FaultError(
            "GEM1017", f"{i.operands[0]} registers are no multiple of 8 from 24 to 256"
        )
    at_entry = _registers_at_entry(scope)
    grows = i.name[1] == "inc"

    def run(block: Block, group: Group) -> Waiting | None:
        group.require_warps()
        if block.pool is None:
            block.pool = RegisterPool(0, np.full(-(-block.count // WARP), at_entry))
        pool, warps = block.pool, np.unique(group.lanes // WARP)
        if pool.change(warps, count, grows=grows):
            return None
        needed = int((count - pool.warps[warps]).sum()) * WARP
        return Waiting(
            ready=lambda: pool.free >= needed,
            says=lambda: f"{needed} more registers: {pool}",
            again=True,
        )

    return run


def _registers_at_entry(scope: Scope) -> int:
    """What threads begin with: ptxas gives them no more than the most that they ask for later."""
    bound = scope.kernel.registers_at_entry
    if not bound:
        raise FaultError("GEM1017", "the kernel has neither .maxnreg nor .reqntid")
    asked = [i.operands[0] for i in scope.kernel.code if i.name[0] == "setmaxnreg"]
    return min(bound, max(int(count) for count in asked if count.isdigit()))


def _pass(scope: Scope, i: Instruction, place: int) -> Action:
    """What changes nothing that can be seen here: blocks and kernels run one after another."""
    if i.name not in (("griddepcontrol", "wait"), ("griddepcontrol", "launch_dependents")):
        raise refuse(i)
    require_operands(i, 0)
    return lambda block, group: None


CONTROL: Final[Mapping[str, Decode]] = {
    "bar": _barrier,
    "barrier": _barrier,
    "bra": _branch,
    "exit": _end,
    "griddepcontrol": _pass,
    "ret": _end,
    "setmaxnreg": _set_registers,
}
