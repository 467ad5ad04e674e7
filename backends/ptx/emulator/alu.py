"""Instructions from registers to registers: PTX ISA, sections "Integer Arithmetic Instructions" to
"Comparison and Selection Instructions", "Logic and Shift Instructions" and "mov".

Their forms have been checked: see `forms`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final

import numpy as np

from gemmir.backends.ptx.emulator import arithmetic as table
from gemmir.backends.ptx.emulator import floats
from gemmir.backends.ptx.emulator.faults import FaultError
from gemmir.backends.ptx.emulator.parse import Instruction
from gemmir.backends.ptx.emulator.scope import (
    Action,
    Decode,
    Read,
    Scope,
    names_in,
    require_operands,
)
from gemmir.backends.ptx.emulator.state import Block, Group
from gemmir.backends.ptx.emulator.values import WIDTHS, Array, is_float


def compute(scope: Scope, i: Instruction, kind: str, function: table.Function) -> Action:
    """An action that gives all operands but the first, of one type, to `function`."""
    reads = scope.sources(i, kind)
    return computed(scope, i.operands[0], kind, reads, function)


def computed(
    scope: Scope, target: str, kind: str, reads: list[Read], function: table.Function
) -> Action:
    """An action that writes what `function` makes of what is read."""
    write = scope.target(target, kind)

    def run(block: Block, group: Group) -> None:
        write(block, group, function(*[read(block, group) for read in reads]))

    return run


def float_function(i: Instruction, function: table.Function) -> table.Function:
    """`function` with what the modifiers say; results are rounded to nearest anyway."""
    if "ftz" in i.name:
        function = _flushing(function)
    if "sat" in i.name:
        function = _saturating(function)
    return floats.or_nan(function) if "NaN" in i.name else function


def _flushing(function: table.Function) -> table.Function:
    return lambda *values: floats.flush(function(*map(floats.flush, values)))


def _saturating(function: table.Function) -> table.Function:
    return lambda *values: floats.saturate(function(*values))


def _typed(i: Instruction, function: table.Function) -> tuple[str, table.Function]:
    """The type, which ends the name, and the function with its modifiers."""
    kind = i.name[-1]
    return kind, float_function(i, function) if is_float(kind) else function


def _binary(scope: Scope, i: Instruction, place: int) -> Action:
    require_operands(i, 3)
    kind, function = _typed(i, table.BINARY[i.name[0]])
    return compute(scope, i, kind, function)


def _shift(scope: Scope, i: Instruction, place: int) -> Action:
    require_operands(i, 3)
    kind, function = _typed(i, table.BINARY[i.name[0]])
    reads = [scope.source(i.operands[1], kind), scope.source(i.operands[2], "u32")]
    return computed(scope, i.operands[0], kind, reads, function)


def _unary(scope: Scope, i: Instruction, place: int) -> Action:
    require_operands(i, 2)
    kind, function = _typed(i, table.UNARY[i.name[0]])
    return compute(scope, i, kind, function)


def _move(scope: Scope, i: Instruction, place: int) -> Action:
    """mov, also of a register from and to its parts, the lowest of which is first."""
    require_operands(i, 2)
    kind, (target, source) = i.name[1], i.operands
    if source.startswith("{"):
        return _pack(scope, target, names_in(source), kind)
    if target.startswith("{"):
        return _unpack(scope, names_in(target), source, kind)
    return compute(scope, i, kind, table.UNARY["mov"])


def _part(kind: str, count: int) -> str:
    width = WIDTHS[kind] // count
    if count not in (2, 4) or width not in (1, 2, 4) or width * count != WIDTHS[kind]:
        raise FaultError("GEM1001", f"a .{kind} has no {count} parts")
    return f"b{8 * width}"


def _pack(scope: Scope, target: str, parts: list[str], kind: str) -> Action:
    part, bits = _part(kind, len(parts)), f"b{8 * WIDTHS[kind]}"
    reads = [scope.source(name, part) for name in parts]
    write = scope.target(target, bits)

    def run(block: Block, group: Group) -> None:
        columns = np.stack([read(block, group) for read in reads], axis=1)
        write(block, group, columns.view(f"u{WIDTHS[kind]}")[:, 0])

    return run


def _unpack(scope: Scope, parts: list[str], source: str, kind: str) -> Action:
    part = _part(kind, len(parts))
    read = scope.source(source, f"b{8 * WIDTHS[kind]}")
    writes = [scope.target(name, part) for name in parts]

    def run(block: Block, group: Group) -> None:
        columns = read(block, group)[:, None].view(f"u{WIDTHS[part]}")
        for number, write in enumerate(writes):
            write(block, group, np.ascontiguousarray(columns[:, number]))

    return run


def _product(scope: Scope, i: Instruction, place: int) -> Action:
    """mul and mad, of integers with .lo, .hi or .wide, and of floats."""
    adds = i.name[0].startswith("mad")
    require_operands(i, 4 if adds else 3)
    kind = i.name[-1]
    if is_float(kind):
        function = floats.fused_multiply_add if adds else floats.widened(np.multiply)
        return compute(scope, i, kind, float_function(i, function))
    known = table.PRODUCTS_24 if "24" in i.name[0] else table.PRODUCTS
    function = known[i.name[1]]
    wide = f"{kind[0]}{8 * WIDTHS[kind] * (2 if i.name[1] == 'wide' else 1)}"
    reads = [scope.source(o, kind) for o in i.operands[1:3]]
    if not adds:
        return computed(scope, i.operands[0], wide, reads, function)
    reads.append(scope.source(i.operands[3], wide))

    def run(a: Array, b: Array, c: Array) -> Array:
        return function(a, b) + c

    return computed(scope, i.operands[0], wide, reads, run)


def _fma(scope: Scope, i: Instruction, place: int) -> Action:
    require_operands(i, 4)
    return compute(scope, i, i.name[-1], float_function(i, floats.fused_multiply_add))


def _compare(scope: Scope, i: Instruction, place: int) -> Action:
    """setp: p is a comparison, joined with c where there is one; q is that of its contrary."""
    kind = i.name[-1]
    modifiers = [m for m in i.name[2:-1] if m != "ftz"]
    require_operands(i, 4 if modifiers else 3)
    function = table.COMPARISONS[i.name[1]]
    before = floats.flush if "ftz" in i.name else table.UNARY["mov"]
    join = table.BOOLEANS[modifiers[0]] if modifiers else None
    a, b = (scope.source(o, kind) for o in i.operands[1:3])
    c = scope.predicate(i.operands[3]) if modifiers else None
    p, _, q = i.operands[0].partition("|")
    if q and kind in ("f16", "bf16"):
        raise FaultError("GEM1001", f"setp of .{kind} has one predicate")
    write, contrary = scope.target(p, "pred"), scope.target(q or "_", "pred")

    def run(block: Block, group: Group) -> None:
        found = np.asarray(function(before(a(block, group)), before(b(block, group))))
        other = ~found
        if join is not None and c is not None:
            condition = c(block, group)
            found, other = join(found, condition), join(other, condition)
        write(block, group, found)
        contrary(block, group, other)

    return run


def _set(scope: Scope, i: Instruction, place: int) -> Action:
    """set: all ones, or 1.0, where a comparison holds."""
    require_operands(i, 3)
    to, kind = i.name[-2:]
    function, true = table.COMPARISONS[i.name[1]], _TRUE[to]
    before = floats.flush if "ftz" in i.name else table.UNARY["mov"]
    a, b = (scope.source(o, kind) for o in i.operands[1:])

    def run(x: Array, y: Array) -> Array:
        return np.where(function(before(x), before(y)), true, true * 0)

    return computed(scope, i.operands[0], to, [a, b], run)


_TRUE: Final[Mapping[str, Array]] = {
    "u32": np.array(0xFFFFFFFF, np.uint32),
    "s32": np.array(-1, np.int32),
    "f32": np.array(1, np.float32),
}


def _select(scope: Scope, i: Instruction, place: int) -> Action:
    require_operands(i, 4)
    kind = i.name[1]
    reads = [scope.predicate(i.operands[3]), *(scope.source(o, kind) for o in i.operands[1:3])]
    return computed(scope, i.operands[0], kind, reads, np.where)


def _extract(scope: Scope, i: Instruction, place: int) -> Action:
    require_operands(i, 4)
    reads = [scope.source(i.operands[1], i.name[1])]
    reads += [scope.source(o, "u32") for o in i.operands[2:]]
    return computed(scope, i.operands[0], i.name[1], reads, table.extract)


def _insert(scope: Scope, i: Instruction, place: int) -> Action:
    require_operands(i, 5)
    reads = [scope.source(o, i.name[1]) for o in i.operands[1:3]]
    reads += [scope.source(o, "u32") for o in i.operands[3:]]
    return computed(scope, i.operands[0], i.name[1], reads, table.insert)


def _of_bits(function: table.Function, result: str | None) -> Decode:
    """popc, clz and brev."""

    def decode(scope: Scope, i: Instruction, place: int) -> Action:
        require_operands(i, 2)
        reads = scope.sources(i, i.name[1])
        return computed(scope, i.operands[0], result or i.name[1], reads, function)

    return decode


def _logic_of_three(scope: Scope, i: Instruction, place: int) -> Action:
    require_operands(i, 5)
    try:
        number = int(i.operands[4], 0)
    except ValueError:
        raise FaultError("GEM1001", f"{i.operands[4]} is no number") from None
    reads = [scope.source(o, "b32") for o in i.operands[1:4]]
    return computed(scope, i.operands[0], "b32", reads, partial(table.table_of_three, table=number))


def _funnel(scope: Scope, i: Instruction, place: int) -> Action:
    require_operands(i, 4)
    function = partial(table.funnel, left=i.name[1] == "l", wrap=i.name[2] == "wrap")
    return compute(scope, i, "b32", function)


def _permute(scope: Scope, i: Instruction, place: int) -> Action:
    require_operands(i, 4)
    return compute(scope, i, "b32", table.permute)


def _address_of(scope: Scope, i: Instruction, place: int) -> Action:
    """cvta: an address is the same in its own space and in the generic one here."""
    require_operands(i, 2)
    return compute(scope, i, i.name[-1], table.UNARY["mov"])


ALU: Final[Mapping[str, Decode]] = {
    **dict.fromkeys(table.BINARY, _binary),
    **dict.fromkeys(table.UNARY, _unary),
    "bfe": _extract,
    "bfi": _insert,
    "brev": _of_bits(table.reverse, None),
    "clz": _of_bits(table.leading_zeros, "u32"),
    "cvta": _address_of,
    "fma": _fma,
    "lop3": _logic_of_three,
    "mad": _product,
    "mad24": _product,
    "mov": _move,
    "mul": _product,
    "mul24": _product,
    "popc": _of_bits(table.count_ones, "u32"),
    "prmt": _permute,
    "selp": _select,
    "set": _set,
    "setp": _compare,
    "shf": _funnel,
    "shl": _shift,
    "shr": _shift,
}
