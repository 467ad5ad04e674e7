"""Operands -> functions that read or write them: each instruction is looked at only once."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from gemmir.backends.ptx.emulator.faults import FaultError
from gemmir.backends.ptx.emulator.memory import WINDOW
from gemmir.backends.ptx.emulator.parse import Instruction, PtxKernel
from gemmir.backends.ptx.emulator.state import Block, Group
from gemmir.backends.ptx.emulator.values import (
    TYPES,
    WIDTHS,
    Array,
    bits_of,
    is_float,
    number,
)
from gemmir.backends.ptx.emulator.waiting import Waiting

Read: TypeAlias = Callable[[Block, Group], Array]
Write: TypeAlias = Callable[[Block, Group, Array], None]
Action: TypeAlias = Callable[[Block, Group], int | Waiting | None]
"""Runs an instruction for a group; returns where the group goes on, if not at the next one, or what
it waits for."""

Decode: TypeAlias = Callable[["Scope", Instruction, int], Action]
"""Makes the action of an instruction at its place in the code."""

SPECIAL: Final = (
    *(f"%{name}.{axis}" for name in ("tid", "ntid", "ctaid", "nctaid") for axis in "xyz"),
    *(f"%{name}.{axis}" for name in ("clusterid", "nclusterid") for axis in "xyz"),
    *(f"%{name}.{axis}" for name in ("cluster_ctaid", "cluster_nctaid") for axis in "xyz"),
    "%cluster_ctarank",
    "%cluster_nctarank",
    "%laneid",
    "%warpid",
)
"""The special registers that are known here: PTX ISA, section "Special Registers"."""

_REGISTER: Final = re.compile(r"%[A-Za-z_$][\w$]*")
_SYMBOL: Final = re.compile(r"([\w$]+)(?:\s*\+\s*(-?\w+))?")

_ADDRESS: Final = re.compile(r"\[\s*([%\w$@]+)\s*(?:\+\s*(-?\w+)\s*)?\]")


def unread_registers(kernel: PtxKernel) -> frozenset[str]:
    """The registers that nothing but loads mentions, which only write them."""
    loaded: set[str] = set()
    read: set[str] = set()
    for i in kernel.code:
        first, *others = i.operands or ("",)
        (loaded if i.name[0] == "ld" else read).update(_REGISTER.findall(first))
        read.update(_REGISTER.findall(" ".join(others)), [i.guard or ""])
    return frozenset(loaded - read)


def undefined_parts(kernel: PtxKernel) -> frozenset[str]:
    """The registers that nothing mentions but `mov`, as parts of what it packs.

    LLVM fills up a register so, of which it uses the other part only.
    """
    packed: set[str] = set()
    other: set[str] = set()
    for i in kernel.code:
        is_pack = i.name[0] == "mov" and i.operands[-1].startswith("{")
        packed.update(names_in(i.operands[-1]) if is_pack else [])
        rest = i.operands[:-1] if is_pack else i.operands
        other.update(_REGISTER.findall(" ".join(rest)), [i.guard or ""])
    return frozenset(packed - other)


def product_registers(kernel: PtxKernel) -> frozenset[str]:
    """The registers of sums, and of A, that wgmma.mma_async names."""
    found: set[str] = set()
    for i in kernel.code:
        if i.name[:2] == ("wgmma", "mma_async"):
            found.update(name for o in i.operands[:2] if o[0] == "{" for name in names_in(o))
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class Scope:
    """What names mean in a kernel that is launched with blocks of `count` threads."""

    kernel: PtxKernel
    count: int
    symbols: Mapping[str, int]
    parameters: Mapping[str, Array]
    """The bytes of each parameter."""
    slots: Mapping[str, int]
    """The number of each register."""
    unread: frozenset[str]
    """The registers that only loads mention, which write them."""
    products: frozenset[str]
    """The registers that wgmma.mma_async uses."""
    undefined: frozenset[str]
    """The registers that are packed and never written."""

    def source(self, operand: str, kind: str, *, wider: bool = False) -> Read:
        """Reads `operand` as `kind`; a register may have more bits where `wider` says so.

        A part that is never written is all ones, which is no number.
        """
        if operand in self.undefined:
            ones = np.full(self.count, -1, f"i{WIDTHS[kind]}").view(TYPES[kind])
            return lambda block, group: ones[: len(group.lanes)]
        if operand in self.slots:
            return self._register(operand, kind, wider)
        if operand in SPECIAL:
            return _special(operand, kind)
        symbol = _SYMBOL.fullmatch(operand)
        is_symbol = symbol is not None and symbol.group(1) in self.symbols
        if symbol is not None and is_symbol:
            place = self.symbols[symbol.group(1)] + int(symbol.group(2) or "0", 0)
            value = number(str(place), kind)
        else:
            value = number(operand, kind)
        repeated = np.full(self.count * WIDTHS[kind] // TYPES[kind].itemsize, value, TYPES[kind])
        per_thread = WIDTHS[kind] // TYPES[kind].itemsize
        if is_symbol and self.kernel.cluster is not None and int(value) < WINDOW:
            return lambda block, group: (
                repeated[: len(group.lanes)] + value.dtype.type(block.rank * WINDOW)
            )
        return lambda block, group: repeated[: len(group.lanes) * per_thread]

    def predicate(self, operand: str) -> Read:
        """Reads a predicate that `!` may stand before."""
        if not operand.startswith("!"):
            return self.source(operand, "pred")
        read = self.source(operand[1:].strip(), "pred")
        return lambda block, group: ~read(block, group)

    def sources(self, instruction: Instruction, kind: str) -> list[Read]:
        """All operands but the first."""
        return [self.source(o, kind) for o in instruction.operands[1:]]

    def target(self, operand: str, kind: str, *, wider: bool = False) -> Write:
        """Writes values of `kind`; a wider register is filled with its sign, or zeros."""
        if operand == "_":
            return lambda block, group, value: None
        slot = self._slot(operand, kind, wider)
        width = WIDTHS[self.kernel.registers[operand]]
        if operand in self.products:
            return self._watched(slot, operand, width)
        if kind == "pred":
            return lambda block, group, value: write(block, slot, group, value)
        bits = bits_of(width)
        if width == WIDTHS[kind]:
            return lambda block, group, value: write(block, slot, group, value.view(bits))
        return lambda block, group, value: write(block, slot, group, value.astype(bits))

    def _watched(self, slot: int, name: str, width: int) -> Write:
        """Writes a register that products use, and must not be using then."""
        bits = bits_of(width)

        def run(block: Block, group: Group, value: Array) -> None:
            block.pins.require_free(slot, name, group.lanes, writes=True)
            block.pins.touch(slot, group.lanes, block.count)
            fits = value.dtype.itemsize == width
            write(block, slot, group, value.view(bits) if fits else value.astype(bits))

        return run

    def address(self, operand: str) -> Read:
        """Reads `[register+number]` or `[symbol+number]` as addresses.

        An address of 32 bits is a sum of 32 bits: LLVM's strength reduction has registers of less
        than 0 and numbers that lead back.
        """
        found = _ADDRESS.fullmatch(operand)
        if found is None:
            raise FaultError("GEM1001", f"{operand} is no address")
        base, offset = found.group(1), int(found.group(2) or "0", 0)
        if base not in self.slots:
            read = self.source(base, "s64")
            return lambda block, group: read(block, group) + offset
        if WIDTHS[self.kernel.registers[base]] == 4:
            read, least = self.source(base, "u32"), np.uint32(offset % (1 << 32))
            return lambda block, group: (read(block, group) + least).astype(np.int64)
        read = self.source(base, "s64")
        return lambda block, group: read(block, group) + offset

    def _register(self, name: str, kind: str, wider: bool) -> Read:
        slot, dtype = self._slot(name, kind, wider), TYPES[kind]
        narrow = bits_of(WIDTHS[kind])
        if kind != "pred" and WIDTHS[self.kernel.registers[name]] > WIDTHS[kind]:
            return lambda block, group: read(block, slot, name, group).astype(narrow).view(dtype)
        return lambda block, group: read(block, slot, name, group).view(dtype)

    def _slot(self, name: str, kind: str, wider: bool) -> int:
        if name not in self.slots:
            raise FaultError("GEM1001", f"{name} is no register")
        declared = self.kernel.registers[name]
        fits = declared in WIDTHS and (
            WIDTHS[declared] == WIDTHS[kind] or (wider and WIDTHS[declared] > WIDTHS[kind])
        )
        typed = "b" not in (declared[0], kind[0]) and declared != "pred"
        if (
            not fits
            or (declared == "pred") != (kind == "pred")
            or (typed and is_float(declared) != is_float(kind))
        ):
            raise FaultError("GEM1001", f"{name} is a .{declared} register, not of .{kind}")
        return self.slots[name]


def read(block: Block, slot: int, name: str, group: Group) -> Array:
    """The bits of a register; `FaultError` GEM1004 where a thread never wrote it."""
    if block.pins.held:
        block.pins.require_free(slot, name, group.lanes, writes=False)
    held = block.values[slot]
    if not block.complete[slot]:
        written = block.written[slot]
        if held is None or written is None or not written[group.lanes].all():
            lane = 0 if written is None else int(np.argmin(written[group.lanes]))
            raise FaultError("GEM1004", f"{name} is read and was never written", lane)
    assert held is not None
    return held if group.all else held[group.lanes]


def write(block: Block, slot: int, group: Group, bits: Array) -> None:
    """Set a register in the threads of a group."""
    if group.all:
        block.values[slot] = bits
        block.complete[slot] = True
        return
    held, written = block.values[slot], block.written[slot]
    new = np.zeros(block.count, bits.dtype) if held is None else held.copy()
    new[group.lanes] = bits
    block.values[slot] = new
    if block.complete[slot]:
        return
    fine = np.zeros(block.count, np.bool_) if written is None else written
    fine[group.lanes] = True
    block.written[slot] = fine
    block.complete[slot] = bool(fine.all())


def _special(name: str, kind: str) -> Read:
    if WIDTHS[kind] != 4 or is_float(kind):
        raise FaultError("GEM1001", f"{name} has 32 bits")
    dtype = TYPES[kind]

    def read(block: Block, group: Group) -> Array:
        held = block.special[name]
        return (held if group.all else held[group.lanes]).view(dtype)

    return read


def require_operands(instruction: Instruction, *counts: int) -> None:
    """`FaultError` GEM1001 where an instruction has another number of operands."""
    if len(instruction.operands) not in counts:
        named = " or ".join(map(str, counts))
        raise FaultError("GEM1001", f"{instruction.name[0]} has {named} operands")


def refuse(instruction: Instruction) -> FaultError:
    """The fault of an instruction whose modifiers are not known."""
    return FaultError("GEM1001", f"{'.'.join(instruction.name)} is not known here")


def names_in(operand: str) -> list[str]:
    """The registers of `{…}`, or the only one."""
    return operand.strip("{}").replace(" ", "").split(",")
