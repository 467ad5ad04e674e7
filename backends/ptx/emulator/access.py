"""ld and st: PTX ISA, section "Data Movement and Conversion Instructions"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gemmir.backends.ptx.emulator.faults import FaultError
from gemmir.backends.ptx.emulator.memory import GUARD, Memory
from gemmir.backends.ptx.emulator.parse import Instruction
from gemmir.backends.ptx.emulator.scope import (
    Action,
    Decode,
    Read,
    Scope,
    Write,
    names_in,
    require_operands,
)
from gemmir.backends.ptx.emulator.state import Block, Group
from gemmir.backends.ptx.emulator.synchronize import SCOPES, acquire, release
from gemmir.backends.ptx.emulator.traffic import bank_degree, sector_ratio
from gemmir.backends.ptx.emulator.values import TYPES, WIDTHS, Array

ORDERS: Final = ("volatile", "relaxed", "acquire", "release")
"""What an access may say of its order: PTX ISA, section "Memory Consistency Model"."""

SPACES: Final = {"global": "global", "shared": "shared", "shared::cta": "shared"}


@dataclass(frozen=True, slots=True)
class Form:
    """What an access says: `space` is "" where it is generic."""

    space: str
    count: int
    kind: str
    order: str = "weak"
    scope: str = "cta"

    @property
    def is_strong(self) -> bool:
        """Whether it may meet others at its address."""
        return self.order != "weak"

    @property
    def width(self) -> int:
        """Bytes of one thread."""
        return self.count * WIDTHS[self.kind]


def form_of(i: Instruction) -> Form:
    """The form of ld or st; where data is kept on its way cannot be seen in its values."""
    kind, words = i.name[-1], i.name[1:-1]
    order = next((w for w in words if w in ORDERS), "weak")
    reach = next((w for w in words if w in SCOPES), "cta" if order == "weak" else "sys")
    space = next((SPACES[w] for w in words if w in SPACES), "")
    count = next((int(w[1:]) for w in words if w in ("v2", "v4")), 1)
    if count * WIDTHS[kind] > 16:
        raise FaultError("GEM1001", "an access has at most 16 bytes")
    return Form(space, count, kind, order, reach)


def space_of(form: Form, addresses: Array) -> str:
    """The space of an access; a generic one is to shared memory below all global addresses."""
    if form.space:
        return form.space
    return "shared" if int(addresses[0]) < GUARD else "global"


def count_access(
    block: Block, space: str, place: int, addresses: Array, width: int, group: Group
) -> None:
    """Note how well an access suits its memory."""
    ratio = bank_degree if space == "shared" else sector_ratio
    block.machine.traffic.note(space, place, lambda: ratio(addresses, width, group.lanes))


def _load(scope: Scope, i: Instruction, place: int) -> Action:
    require_operands(i, 2)
    if i.name[1].startswith("param"):
        return _load_parameter(scope, i)
    form, address = form_of(i), scope.address(i.operands[1])
    names = names_in(i.operands[0])
    if len(names) != form.count:
        raise FaultError("GEM1001", f"{i.operands[0]} is not {form.count} values")
    writes = [scope.target(name, form.kind, wider=True) for name in names]
    dtype, constant = TYPES[form.kind], "nc" in i.name
    used = [number for number, name in enumerate(names) if name not in scope.unread]
    if 0 < len(used) < form.count and not constant and not form.is_strong:
        return _load_used(form, address, [(number, writes[number]) for number in used], place)

    def run(block: Block, group: Group) -> None:
        addresses = address(block, group)
        space = space_of(form, addresses)
        memory = block.memory(space)
        rows = memory.rows(addresses, form.width)
        count_access(block, space, place, addresses, form.width, group)
        if constant:
            memory.require_unwritten(rows, form.width)
        stamp = block.strong_stamp(group) if form.is_strong else block.stamp(group)
        found = memory.load(rows, form.width, stamp).view(dtype)
        if form.is_strong and space == "global" and form.scope != "cta":
            for lane, at in zip(group.lanes, addresses, strict=True):
                acquire(block, int(lane), int(at), at_once=form.order == "acquire")
        for column, write in enumerate(writes):
            write(block, group, np.ascontiguousarray(found[:, column]))

    return run


def _load_used(
    form: Form, address: Read, writes: Sequence[tuple[int, Write]], place: int
) -> Action:
    """A load of more than the kernel reads, which is aligned as a whole.

    LLVM fills the gaps between elements so, where they lie in the same aligned bytes: what nobody
    reads is no access of the kernel, and need be neither inside an array nor written.
    """
    item = WIDTHS[form.kind]

    def run(block: Block, group: Group) -> None:
        addresses = address(block, group)
        space = space_of(form, addresses)
        memory, stamp = block.memory(space), block.stamp(group)
        count_access(block, space, place, addresses, form.width, group)
        if (addresses % form.width).any():
            memory.rows(addresses, form.width)
        for number, write in writes:
            rows = memory.rows(addresses + number * item, item)
            found = memory.load(rows, item, stamp).view(TYPES[form.kind])
            write(block, group, np.ascontiguousarray(found[:, 0]))

    return run


def _load_parameter(scope: Scope, i: Instruction) -> Action:
    """A scalar parameter; all threads have the same."""
    kind, name = i.name[2], i.operands[1].strip("[] ")
    found = scope.parameters.get(name)
    if found is None or found.size != WIDTHS[kind]:
        size = "no parameter" if found is None else f"a parameter of {found.size} bytes"
        raise FaultError("GEM1001", f"{name} is {size}")
    write = scope.target(i.operands[0], kind, wider=True)
    value = np.repeat(found.view(TYPES[kind]), scope.count)
    return lambda block, group: write(block, group, value[: len(group.lanes)])


def _store(scope: Scope, i: Instruction, place: int) -> Action:
    require_operands(i, 2)
    form, address = form_of(i), scope.address(i.operands[0])
    names = names_in(i.operands[1])
    if len(names) != form.count:
        raise FaultError("GEM1001", f"{i.operands[1]} is not {form.count} values to store")
    reads = [scope.source(name, form.kind, wider=True) for name in names]

    def run(block: Block, group: Group) -> None:
        addresses = address(block, group)
        space = space_of(form, addresses)
        memory: Memory = block.memory(space)
        rows = memory.rows(addresses, form.width)
        count_access(block, space, place, addresses, form.width, group)
        values = np.stack([read(block, group) for read in reads], axis=1)
        stamp = block.strong_stamp(group) if form.is_strong else block.stamp(group)
        memory.store(rows, values.view(np.uint8), stamp)
        if form.is_strong and space == "global" and form.scope != "cta":
            for lane, at in zip(group.lanes, addresses, strict=True):
                at_once = form.order == "release"
                release(block, int(lane), int(at), at_once=at_once, adds=False)

    return run


ACCESSES: Final[Mapping[str, Decode]] = {"ld": _load, "st": _store}
