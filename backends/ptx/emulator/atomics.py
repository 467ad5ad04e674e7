"""atom and red: PTX ISA, section "Parallel Synchronization and Communication Instructions".

The lanes of a group take their turns in order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from gemmir.backends.ptx.emulator import floats
from gemmir.backends.ptx.emulator.access import SPACES, Form, count_access, space_of
from gemmir.backends.ptx.emulator.parse import Instruction
from gemmir.backends.ptx.emulator.scope import (
    Action,
    Decode,
    Scope,
    refuse,
    require_operands,
)
from gemmir.backends.ptx.emulator.state import Block, Group
from gemmir.backends.ptx.emulator.synchronize import SCOPES, acquire, release
from gemmir.backends.ptx.emulator.values import TYPES, WIDTHS, Array, require_type

Update = Callable[[Array, Array, Array], Array]
"""The new value of an old one and one or two operands."""

ORDERS: Final = ("relaxed", "acquire", "release", "acq_rel")

BITS: Final = ("b32", "b64")
WHOLE: Final = ("u32", "s32", "u64", "s64")
HALVES: Final = ("f16", "f16x2", "bf16", "bf16x2")

UPDATES: Final[Mapping[str, tuple[Update, tuple[str, ...]]]] = {
    "add": (lambda old, b, c: floats.widened(np.add)(old, b), (*WHOLE[:3], "f32", "f64", *HALVES)),
    "and": (lambda old, b, c: old & b, BITS),
    "cas": (lambda old, b, c: np.where(old == b, c, old), ("b16", *BITS)),
    "dec": (lambda old, b, c: np.where((old == 0) | (old > b), b, old - 1), ("u32",)),
    "exch": (lambda old, b, c: b, BITS),
    "inc": (lambda old, b, c: np.where(old >= b, 0 * old, old + 1), ("u32",)),
    "max": (lambda old, b, c: np.maximum(old, b), WHOLE),
    "min": (lambda old, b, c: np.minimum(old, b), WHOLE),
    "or": (lambda old, b, c: old | b, BITS),
    "xor": (lambda old, b, c: old ^ b, BITS),
}
"""What each operation does, and to which types."""


@dataclass(frozen=True, slots=True)
class _Form:
    order: str
    scope: str
    space: str
    operation: str
    kind: str


def _form_of(i: Instruction) -> _Form:
    kind = require_type(i.name[-1])
    words = list(i.name[1:-1])
    order, scope, space = "relaxed", "gpu", ""
    while words and words[0] not in UPDATES:
        word = words.pop(0)
        if word in ORDERS:
            order = word
        elif word in SCOPES:
            scope = word
        elif word in SPACES:
            space = SPACES[word]
        else:
            raise refuse(i)
    operation = words.pop(0) if words else ""
    quiet = words == ["noftz"]
    known = operation in UPDATES and kind in UPDATES[operation][1]
    if not known or quiet != (kind in HALVES) or (words and not quiet):
        raise refuse(i)
    return _Form(order, scope, space, operation, kind)


def _atomic(scope: Scope, i: Instruction, place: int) -> Action:
    returns = i.name[0] == "atom"
    form = _form_of(i)
    if not returns and form.operation in ("cas", "exch"):
        raise refuse(i)
    require_operands(i, 1 + returns + (2 if form.operation == "cas" else 1))
    target, *values = i.operands if returns else ("_", *i.operands)
    write = scope.target(target, form.kind)
    address = scope.address(values[0])
    reads = [scope.source(v, form.kind) for v in values[1:]]
    access, width = Form(form.space, 1, form.kind), WIDTHS[form.kind]
    dtype, update = TYPES[form.kind], UPDATES[form.operation][0]

    def run(block: Block, group: Group) -> None:
        addresses = address(block, group)
        space = space_of(access, addresses)
        flushes = form.kind == "f32" and form.operation == "add" and space == "global"
        memory, stamp = block.memory(space), block.strong_stamp(group)
        rows = memory.rows(addresses, width)
        count_access(block, space, place, addresses, width, group)
        given = [read(block, group).reshape(len(rows), -1) for read in reads]
        if flushes:
            given = [floats.flush(value) for value in given]
        memory.load(rows, width, stamp)
        memory.claim(rows, width, stamp, stamp.marks)
        cells = memory.data.reshape(-1, width).view(dtype)
        found = np.zeros((len(rows), cells.shape[1]), dtype)
        for lane, row in enumerate(rows):
            found[lane] = cells[row]
            old = floats.flush(cells[row]) if flushes else cells[row]
            new = update(old, given[0][lane], given[-1][lane])
            cells[row] = floats.flush(new) if flushes else new
        if space == "global":
            _synchronize(block, group, form, addresses)
        write(block, group, found.reshape(-1))

    return run


def _synchronize(block: Block, group: Group, form: _Form, addresses: Array) -> None:
    if form.scope == "cta":
        return
    acquires = form.order in ("acquire", "acq_rel")
    releases = form.order in ("release", "acq_rel")
    for lane, address in zip(group.lanes, addresses, strict=True):
        acquire(block, int(lane), int(address), at_once=acquires)
        release(block, int(lane), int(address), at_once=releases, adds=True)


ATOMICS: Final[Mapping[str, Decode]] = {"atom": _atomic, "red": _atomic}
