"""Runs a kernel: blocks one after another, the threads of a block in groups at one instruction.

Of the threads that do not wait at a barrier, those furthest behind run first; so threads that took
different ways meet again as soon as they can.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np

from gemmir.backends.ptx.emulator import arithmetic as alu
from gemmir.backends.ptx.emulator.faults import FaultError, PtxFault
from gemmir.backends.ptx.emulator.lanes import TYPES, Array, Lanes
from gemmir.backends.ptx.emulator.memory import (
    GUARD,
    Memory,
    Stamp,
    bank_degree,
    sector_ratio,
)
from gemmir.backends.ptx.emulator.parse import Instruction, PtxKernel, parse

Triple: TypeAlias = tuple[int, int, int]

MAX_STEPS: Final = 50_000_000
"""Instructions of one block, each for a group of threads, before it is taken to run for ever."""

SHARED_BASE: Final = 1 << 10
"""Where shared memory begins: an address of 0 is then outside."""

SAMPLED: Final = 8
"""How often the banks or sectors of each access are counted: loops repeat the pattern."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """One load or store: how often it ran, and its worst ratio.

    For shared memory `ratio` is passes over the banks, 1 without conflicts; for global memory it is
    sectors touched over sectors needed.
    """

    line: int
    text: str
    ratio: float
    runs: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """What ran: instructions by the first part of their name, and the accesses to memory."""

    instructions: Mapping[str, int]
    shared: tuple[Access, ...]
    global_: tuple[Access, ...]

    @property
    def worst_bank_conflict(self) -> float:
        """The most passes that one access to shared memory takes."""
        return max((a.ratio for a in self.shared), default=1.0)


@dataclass(eq=False)
class _Machine:
    kernel: PtxKernel
    parameters: dict[str, int]
    global_memory: Memory
    counts: Counter[str] = field(default_factory=Counter[str])
    ratios: dict[tuple[str, int], list[float]] = field(
        default_factory=dict[tuple[str, int], list[float]]
    )
    epoch: int = 0

    def sample(self, space: str, place: int, ratio: Callable[[], float]) -> None:
        found = self.ratios.setdefault((space, place), [0.0, 1.0])
        found[0] += 1
        if found[0] <= SAMPLED:
            found[1] = max(found[1], ratio())


@dataclass(eq=False)
class _Block:
    machine: _Machine
    lanes: Lanes
    number: int
    shared: Memory
    pc: Array
    waiting: Array

    def stamp(self, active: Array) -> Stamp:
        first = self.number * self.lanes.count
        return Stamp(first + active, self.number, self.lanes.count, self.machine.epoch)


def emulate(
    text: str,
    arguments: Sequence[Array],
    *,
    grid: Triple,
    block: Triple,
    kernel: str | None = None,
) -> Report:
    """Run the kernel of `text` on `arguments`, 1-D arrays that stand for buffers, in place.

    Raises `PtxFault` GEM1001 to GEM1007 for the first thing that is wrong.
    """
    found = parse(text, kernel)
    if found.threads not in (None, block) or len(found.parameters) != len(arguments):
        raise PtxFault(
            "GEM1007",
            f"{found.name} is for blocks of {found.threads} threads and {len(found.parameters)} "
            f"arguments, and is launched with {block} and {len(arguments)}",
        )
    machine = _machine(found, arguments)
    blocks = itertools.product(*(range(n) for n in reversed(grid)))
    with np.errstate(all="ignore"):
        for number, (z, y, x) in enumerate(blocks):
            _run_block(machine, number, (x, y, z), grid, block)
    return _report(machine)


def _machine(kernel: PtxKernel, arguments: Sequence[Array]) -> _Machine:
    buffers = [a.view(np.uint8) for a in arguments]
    bases: list[int] = []
    base = GUARD
    for buffer in buffers:
        bases.append(base)
        base += -(-buffer.size // 256) * 256 + GUARD
    memory = Memory("global", np.array(bases, np.int64), buffers, kernel.parameters, False)
    return _Machine(kernel, dict(zip(kernel.parameters, bases, strict=True)), memory)


def _run_block(machine: _Machine, number: int, at: Triple, grid: Triple, block: Triple) -> None:
    count = block[0] * block[1] * block[2]
    threads = np.arange(count)
    special = {"%laneid": threads % 32, "%warpid": threads // 32}
    own = (threads % block[0], threads // block[0] % block[1], threads // (block[0] * block[1]))
    for axis, name in enumerate("xyz"):
        special[f"%tid.{name}"] = own[axis]
        special[f"%ntid.{name}"] = np.full(count, block[axis])
        special[f"%ctaid.{name}"] = np.full(count, at[axis])
        special[f"%nctaid.{name}"] = np.full(count, grid[axis])
    kernel = machine.kernel
    symbols: dict[str, int] = {}
    base = SHARED_BASE
    for name, size, alignment in kernel.shared:
        base = -(-base // alignment) * alignment
        symbols[name] = base
        base += size
    shared = Memory(
        "shared",
        np.array(list(symbols.values()), np.int64),
        [np.zeros(size, np.uint8) for _, size, _ in kernel.shared],
        list(symbols),
        True,
    )
    lanes = Lanes(at, special, symbols, kernel.registers, count)
    machine.epoch += 1
    pc, waiting = np.zeros(count, np.int64), np.zeros(count, np.bool_)
    _run(_Block(machine, lanes, number, shared, pc, waiting))


def _run(block: _Block) -> None:
    code = block.machine.kernel.code
    end = len(code)
    for _ in range(MAX_STEPS):
        ready = ~block.waiting & (block.pc < end)
        if not ready.any():
            if not block.waiting.any():
                return
            _release(block)
            continue
        place = int(block.pc[ready].min())
        active = np.flatnonzero(ready & (block.pc == place))
        instruction = code[place]
        try:
            _step(block, instruction, place, active)
        except FaultError as fault:
            raise _fault(block, instruction, fault, active) from None
    raise PtxFault("GEM1006", f"block {block.lanes.block} has not ended after {MAX_STEPS} steps")


def _release(block: _Block) -> None:
    """All threads must wait, and at one barrier."""
    code = block.machine.kernel.code
    waiting = np.flatnonzero(block.waiting)
    places = np.unique(block.pc[waiting])
    if len(waiting) < block.lanes.count or len(places) > 1:
        fault = FaultError(
            "GEM1005",
            f"{len(waiting)} of {block.lanes.count} threads wait"
            + (f" at {len(places)} barriers" if len(places) > 1 else ", the others have ended"),
        )
        raise _fault(block, code[int(places[0])], fault, waiting)
    block.waiting[:] = False
    block.pc += 1
    block.machine.epoch += 1


def _fault(block: _Block, instruction: Instruction, fault: FaultError, active: Array) -> PtxFault:
    thread = int(active[min(fault.lane, len(active) - 1)]) if len(active) else 0
    return PtxFault(
        fault.code,
        f"block {block.lanes.block}, thread {thread}, line {instruction.line} "
        f"({instruction.text}): {fault.message}",
    )


def _step(block: _Block, instruction: Instruction, place: int, active: Array) -> None:
    """Run one instruction for the threads at it; those whose guard is false go on."""
    block.pc[active] += 1
    if instruction.guard is not None:
        chosen = block.lanes.read(instruction.guard, "pred", active) != instruction.negated
        active = active[chosen]
    if not len(active):
        return
    name = instruction.name[0]
    run = _INSTRUCTIONS.get(name)
    if run is None:
        raise FaultError("GEM1001", f"{name} is not known here")
    block.machine.counts[name] += len(active)
    run(block, instruction, place, active)


def _require(instruction: Instruction, operands: int) -> None:
    if len(instruction.operands) != operands:
        raise FaultError("GEM1001", f"{instruction.name[0]} has {operands} operands")


def _sources(block: _Block, i: Instruction, kind: str, active: Array) -> list[Array]:
    return [block.lanes.read(o, kind, active) for o in i.operands[1:]]


def _kind(i: Instruction, modifiers: set[str]) -> str:
    """The type, the last part of the name; the parts between must be among `modifiers`."""
    kind = alu.as_type(i.name[-1])
    alu.require_modifiers(i.name[1:-1], modifiers if TYPES[kind].kind == "f" else set())
    return kind


def _binary(block: _Block, i: Instruction, place: int, active: Array) -> None:
    _require(i, 3)
    shifts = i.name[0] in ("shl", "shr")
    kind = _kind(i, alu.ROUNDING)
    a = block.lanes.read(i.operands[1], kind, active)
    b = block.lanes.read(i.operands[2], "u32" if shifts else kind, active)
    found = alu.BINARY[i.name[0]](a, b)
    block.lanes.write(i.operands[0], found.astype(a.dtype), active)


def _unary(block: _Block, i: Instruction, place: int, active: Array) -> None:
    _require(i, 2)
    kind = _kind(i, set())
    if i.name[0] == "mov" and "{" in i.operands[0] + i.operands[1]:
        raise FaultError("GEM1001", "mov of a list is not known here")
    (a,) = _sources(block, i, kind, active)
    block.lanes.write(i.operands[0], alu.UNARY[i.name[0]](a), active)


def _product(block: _Block, i: Instruction, place: int, active: Array) -> None:
    """mul and mad, of integers with .lo, .hi or .wide, and of floats."""
    _require(i, 4 if i.name[0] == "mad" else 3)
    kind = alu.as_type(i.name[-1])
    if TYPES[kind].kind == "f":
        alu.require_modifiers(i.name[1:-1], alu.ROUNDING)
        a, b = _sources(block, i, kind, active)
        block.lanes.write(i.operands[0], a * b, active)
        return
    if len(i.name) != 3 or i.name[1] not in alu.PRODUCTS:
        raise FaultError("GEM1001", "a product of integers is .lo, .hi or .wide")
    a, b = (block.lanes.read(o, kind, active) for o in i.operands[1:3])
    found = alu.PRODUCTS[i.name[1]](a, b)
    if i.name[0] == "mad":
        wide = f"{kind[0]}{8 * found.dtype.itemsize}"
        found = found + block.lanes.read(i.operands[3], wide, active)
    block.lanes.write(i.operands[0], found, active)


def _fma(block: _Block, i: Instruction, place: int, active: Array) -> None:
    _require(i, 4)
    a, b, c = _sources(block, i, _kind(i, alu.ROUNDING), active)
    block.lanes.write(i.operands[0], alu.fused_multiply_add(a, b, c), active)


def _compare(block: _Block, i: Instruction, place: int, active: Array) -> None:
    _require(i, 3)
    if len(i.name) != 3 or i.name[1] not in alu.COMPARISONS:
        raise FaultError("GEM1001", "setp compares two values of one type")
    a, b = _sources(block, i, alu.as_type(i.name[2]), active)
    block.lanes.write(i.operands[0], np.asarray(alu.COMPARISONS[i.name[1]](a, b)), active)


def _select(block: _Block, i: Instruction, place: int, active: Array) -> None:
    _require(i, 4)
    kind = _kind(i, set())
    a, b = (block.lanes.read(o, kind, active) for o in i.operands[1:3])
    chosen = block.lanes.read(i.operands[3], "pred", active)
    block.lanes.write(i.operands[0], np.where(chosen, a, b), active)


def _bit_field(block: _Block, i: Instruction, place: int, active: Array) -> None:
    _require(i, 4)
    if i.name[1:] != ("u32",):
        raise FaultError("GEM1001", "bfe is known for u32 only")
    value, start, length = _sources(block, i, "u32", active)
    block.lanes.write(i.operands[0], alu.bit_field(value, start, length), active)


def _convert(block: _Block, i: Instruction, place: int, active: Array) -> None:
    _require(i, 2)
    if len(i.name) != 3:
        raise FaultError("GEM1001", "cvt is known without modifiers only")
    value = block.lanes.read(i.operands[1], alu.as_type(i.name[2]), active)
    block.lanes.write(i.operands[0], alu.convert(value, alu.as_type(i.name[1])), active)


def _address_of(block: _Block, i: Instruction, place: int, active: Array) -> None:
    """cvta: an address is the same in its own space and in the generic one here."""
    _require(i, 2)
    if i.name[1:] not in (("to", "global", "u64"), ("global", "u64"), ("to", "shared", "u64")):
        raise FaultError("GEM1001", f"{'.'.join(i.name)} is not known here")
    block.lanes.write(i.operands[0], block.lanes.read(i.operands[1], "u64", active), active)


def _split_access(i: Instruction) -> tuple[str, int, str]:
    """Space, number of elements and type of ld or st."""
    space, *rest = i.name[1:]
    vector = rest[0] if len(rest) == 2 else "v1"
    if space not in ("global", "shared", "param") or vector not in ("v1", "v2", "v4"):
        raise FaultError("GEM1001", f"{'.'.join(i.name)} is not known here")
    return space, int(vector[1:]), alu.as_type(rest[-1])


def _names(operand: str, count: int) -> list[str]:
    names = operand.strip("{}").replace(" ", "").split(",")
    if len(names) != count:
        raise FaultError("GEM1001", f"{operand} is not {count} values")
    return names


def _addresses(block: _Block, operand: str, active: Array) -> Array:
    base, _, offset = operand.strip("[] ").partition("+")
    found = block.lanes.read(base.strip(), "s64", active)
    return found + int(offset or "0")


def _load(block: _Block, i: Instruction, place: int, active: Array) -> None:
    _require(i, 2)
    space, count, kind = _split_access(i)
    if space == "param":
        name = i.operands[1].strip("[] ")
        if name not in block.machine.parameters or kind not in ("b64", "u64"):
            raise FaultError("GEM1001", f"{name} is no parameter of 64 bits")
        value = np.full(len(active), block.machine.parameters[name], np.uint64)
        block.lanes.write(i.operands[0], value, active)
        return
    memory = block.shared if space == "shared" else block.machine.global_memory
    item = TYPES[kind].itemsize
    addresses = _addresses(block, i.operands[1], active)
    buffer, offsets = memory.locate(addresses, item * count)
    _count_access(block, space, place, addresses, item * count, active)
    rows = memory.load(buffer, offsets, item * count, block.stamp(active))
    values = np.ascontiguousarray(rows).view(TYPES[kind])
    for column, name in enumerate(_names(i.operands[0], count)):
        block.lanes.write(name, np.ascontiguousarray(values[:, column]), active)


def _store(block: _Block, i: Instruction, place: int, active: Array) -> None:
    _require(i, 2)
    space, count, kind = _split_access(i)
    if space == "param":
        raise FaultError("GEM1001", "a parameter cannot be stored to")
    memory = block.shared if space == "shared" else block.machine.global_memory
    item = TYPES[kind].itemsize
    addresses = _addresses(block, i.operands[0], active)
    buffer, offsets = memory.locate(addresses, item * count)
    _count_access(block, space, place, addresses, item * count, active)
    values = [block.lanes.read(n, kind, active) for n in _names(i.operands[1], count)]
    rows = np.stack(values, axis=1).view(np.uint8)
    memory.store(buffer, offsets, rows, block.stamp(active))


def _count_access(
    block: _Block, space: str, place: int, addresses: Array, width: int, active: Array
) -> None:
    ratio = bank_degree if space == "shared" else sector_ratio
    block.machine.sample(space, place, lambda: ratio(addresses, width, active))


def _branch(block: _Block, i: Instruction, place: int, active: Array) -> None:
    _require(i, 1)
    alu.require_modifiers(i.name[1:], {"uni"})
    target = block.machine.kernel.labels.get(i.operands[0])
    if target is None:
        raise FaultError("GEM1001", f"there is no label {i.operands[0]}")
    block.pc[active] = target


def _barrier(block: _Block, i: Instruction, place: int, active: Array) -> None:
    if i.name not in (("bar", "sync"), ("barrier", "sync"), ("barrier", "sync", "aligned")):
        raise FaultError("GEM1001", f"{'.'.join(i.name)} is not known here")
    if i.operands != ("0",):
        raise FaultError("GEM1001", "only barrier 0 of all threads is known here")
    block.pc[active] = place
    block.waiting[active] = True


def _return(block: _Block, i: Instruction, place: int, active: Array) -> None:
    _require(i, 0)
    block.pc[active] = len(block.machine.kernel.code)


_Run: TypeAlias = Callable[[_Block, Instruction, int, Array], None]

_INSTRUCTIONS: Final[Mapping[str, _Run]] = {
    **dict.fromkeys(alu.BINARY, _binary),
    **dict.fromkeys(alu.UNARY, _unary),
    "bar": _barrier,
    "barrier": _barrier,
    "bfe": _bit_field,
    "bra": _branch,
    "cvt": _convert,
    "cvta": _address_of,
    "exit": _return,
    "fma": _fma,
    "ld": _load,
    "mad": _product,
    "mul": _product,
    "ret": _return,
    "selp": _select,
    "setp": _compare,
    "st": _store,
}


def _report(machine: _Machine) -> Report:
    found: dict[str, list[Access]] = {"shared": [], "global": []}
    for (space, place), (runs, ratio) in machine.ratios.items():
        code = machine.kernel.code[place]
        found[space].append(Access(line=code.line, text=code.text, ratio=ratio, runs=int(runs)))
    return Report(
        instructions=dict(machine.counts),
        shared=tuple(found["shared"]),
        global_=tuple(found["global"]),
    )
