"""Branches, barriers and ends: PTX ISA, sections "Control Flow Instructions" and "barrier"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gemmir.backends.ptx.emulator.exchange import warp_barrier
from gemmir.backends.ptx.emulator.faults import FaultError
from gemmir.backends.ptx.emulator.parse import Instruction
from gemmir.backends.ptx.emulator.scope import Action, Decode, Scope, refuse, require_operands

WAIT: Final = -1
"""Where a group goes that has come to a barrier."""

BARRIERS: Final = (
    ("bar", "sync"),
    ("bar", "cta", "sync"),
    ("barrier", "sync"),
    ("barrier", "sync", "aligned"),
    ("barrier", "cta", "sync"),
    ("barrier", "cta", "sync", "aligned"),
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
    if i.name not in BARRIERS:
        raise refuse(i)
    if i.operands not in (("0",), ("0", str(scope.count))):
        raise FaultError("GEM1001", "only barrier 0 of all threads is known here")
    return lambda block, group: WAIT


def _end(scope: Scope, i: Instruction, place: int) -> Action:
    require_operands(i, 0)
    if i.name not in (("ret",), ("ret", "uni"), ("exit",)):
        raise refuse(i)
    end = len(scope.kernel.code)
    return lambda block, group: end


CONTROL: Final[Mapping[str, Decode]] = {
    "bar": _barrier,
    "barrier": _barrier,
    "bra": _branch,
    "exit": _end,
    "ret": _end,
}
