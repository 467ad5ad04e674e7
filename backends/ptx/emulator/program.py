"""A kernel made ready to run: each instruction as a function of the threads that come to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gemmir.backends.ptx.emulator.access import ACCESSES
from gemmir.backends.ptx.emulator.alu import ALU
from gemmir.backends.ptx.emulator.arrivals import MBARRIERS
from gemmir.backends.ptx.emulator.async_copy import ASYNC_COPIES
from gemmir.backends.ptx.emulator.atomics import ATOMICS
from gemmir.backends.ptx.emulator.control import CONTROL, is_of_all
from gemmir.backends.ptx.emulator.convert import CONVERSIONS
from gemmir.backends.ptx.emulator.exchange import EXCHANGES
from gemmir.backends.ptx.emulator.faults import FaultError, PtxFault
from gemmir.backends.ptx.emulator.forms import require_form
from gemmir.backends.ptx.emulator.matrix import MATRICES
from gemmir.backends.ptx.emulator.parse import Instruction, PtxKernel
from gemmir.backends.ptx.emulator.scope import (
    Action,
    Decode,
    Read,
    Scope,
    product_registers,
    undefined_parts,
    unread_registers,
)
from gemmir.backends.ptx.emulator.synchronize import FENCES
from gemmir.backends.ptx.emulator.tensors import Tensor
from gemmir.backends.ptx.emulator.values import Array
from gemmir.backends.ptx.emulator.wgmma import WGMMA

INSTRUCTIONS: Final[Mapping[str, Decode]] = {
    **ACCESSES,
    **ALU,
    **ASYNC_COPIES,
    **ATOMICS,
    **CONTROL,
    **CONVERSIONS,
    **EXCHANGES,
    **FENCES,
    **MATRICES,
    **MBARRIERS,
    **WGMMA,
}
"""Every instruction that is known, by the first part of its name."""

SHARED_BASE: Final = 1 << 10
"""Where shared memory begins: an address of 0 is then outside."""


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction; threads whose `guard` is false pass it by."""

    instruction: Instruction
    guard: Read | None
    run: Action


@dataclass(frozen=True, slots=True)
class Program:
    """A kernel for blocks of `count` threads, with the places of its shared memory."""

    kernel: PtxKernel
    count: int
    steps: tuple[Step, ...]
    shared: tuple[tuple[str, int, int], ...]
    """Name, start and size."""
    is_asynchronous: bool
    """Whether its threads learn of each other otherwise than at barriers of all of them."""


def program_of(
    kernel: PtxKernel,
    count: int,
    parameters: Mapping[str, Array],
    dynamic_bytes: int,
    tensors: Mapping[int, Tensor],
) -> Program:
    """`PtxFault` GEM1001 for the first instruction that is not known, or not in this form."""
    shared = tuple(_place(kernel, dynamic_bytes))
    scope = Scope(
        kernel=kernel,
        count=count,
        symbols={
            **{name: start for name, start, _ in shared},
            **{tensor.name: at for at, tensor in tensors.items()},
        },
        parameters=parameters,
        slots={name: number for number, name in enumerate(kernel.registers)},
        unread=unread_registers(kernel),
        products=product_registers(kernel),
        undefined=undefined_parts(kernel),
    )
    steps = tuple(_step(scope, i, place) for place, i in enumerate(kernel.code))
    is_asynchronous = any(_is_asynchronous(i, count) for i in kernel.code)
    return Program(kernel, count, steps, shared, is_asynchronous or kernel.cluster is not None)


def _is_asynchronous(i: Instruction, count: int) -> bool:
    name = i.name[0]
    if name in ("bar", "barrier"):
        return not is_of_all(i, count) and i.name[:2] != ("bar", "warp")
    in_bulk = name == "cp" and ("bulk" in i.name or "reduce" in i.name)
    fences = name == "fence" and i.name[1] in ("proxy", "mbarrier_init")
    return name in ("mbarrier", "mapa", "wgmma") or in_bulk or fences


def _place(kernel: PtxKernel, dynamic_bytes: int) -> Sequence[tuple[str, int, int]]:
    """Shared memory one behind another, what the launch sizes last."""
    placed: list[tuple[str, int, int]] = []
    base = SHARED_BASE
    for variable in sorted(kernel.shared, key=lambda v: v.size is None):
        base = -(-base // variable.alignment) * variable.alignment
        size = dynamic_bytes if variable.size is None else variable.size
        placed.append((variable.name, base, size))
        base += variable.size or 0
    return placed


def _step(scope: Scope, i: Instruction, place: int) -> Step:
    decode = INSTRUCTIONS.get(i.name[0])
    try:
        if decode is None:
            raise FaultError("GEM1001", f"{i.name[0]} is not known here")
        require_form(i)
        guard = None if i.guard is None else scope.predicate("!" * i.negated + i.guard)
        return Step(i, guard, decode(scope, i, place))
    except FaultError as fault:
        raise PtxFault(fault.code, f"line {i.line} ({i.text}): {fault.message}") from None
