"""Instructions from registers to registers: PTX ISA, sections "Integer Arithmetic Instructions" to
"Comparison and Selection Instructions", "Logic and Shift Instructions" and "mov".

A modifier that is not known is a fault, never dropped.
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
    refuse,
    require_operands,
)
from gemmir.backends.ptx.emulator.state import Block, Group
from gemmir.backends.ptx.emulator.values import WIDTHS, Array, is_float, require_type

ROUNDED: Final = {"add", "sub", "mul", "fma", "mad", "div", "rcp", "sqrt"}
"""Of floats these say how they round, which is to nearest here, or that they are approximate."""

APPROXIMATE: Final = {"cos", "ex2", "lg2", "rsqrt", "sin", "tanh"}

FLUSHING: Final = {"add", "sub", "mul", "fma", "mad", "min", "max", "abs", "neg", "div", "rcp"} | {
    "sqrt",
    *APPROXIMATE,
}

PAIRED: Final = {"add", "sub", "mul", "fma"}
"""What there is of two f32 at once, on sm_100 and up."""

SATURATING: Final = {"add", "sub", "mul", "fma", "mad"}


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


def float_function(i: Instruction, kind: str, function: table.Function) -> table.Function:
    """`function` with the modifiers of a floating-point instruction, all of which must be known."""
    name, modifiers = i.name[0], list(i.name[1:-1])
    if kind == "f32x2" and name not in PAIRED:
        raise refuse(i)
    has_way = name in ROUNDED and kind not in ("f16", "bf16", "f16x2", "bf16x2")
    way = modifiers.pop(0) if modifiers and modifiers[0] in ("rn", "approx", "full") else ""
    allowed = {"rn"} if name in ROUNDED else set[str]()
    allowed |= {"approx"} if name in APPROXIMATE or name in ("div", "rcp", "sqrt") else set()
    allowed |= {"full"} if name == "div" else set()
    must = name in APPROXIMATE or (has_way and name in ("fma", "mad", "div", "rcp", "sqrt"))
    if (way and way not in allowed) or (must and not way):
        raise refuse(i)
    if modifiers and modifiers[0] == "ftz" and name in FLUSHING and kind != "f64":
        modifiers.pop(0)
        function = _flushing(function) if kind in ("f32", "f32x2") else function
    if modifiers and modifiers[0] == "sat" and name in SATURATING and WIDTHS[kind] != 8:
        modifiers.pop(0)
        function = _saturating(function)
    if modifiers and modifiers[0] == "NaN" and name in ("min", "max") and kind != "f64":
        modifiers.pop(0)
        function = floats.or_nan(function)
    if modifiers:
        raise refuse(i)
    return function


def _flushing(function: table.Function) -> table.Function:
    return lambda *values: floats.flush(function(*map(floats.flush, values)))


def _saturating(function: table.Function) -> table.Function:
    return lambda *values: floats.saturate(function(*values))


def _typed(i: Instruction, function: table.Function) -> tuple[str, table.Function]:
    """The type, which ends the name, and the function with its modifiers."""
    kind = require_type(i.name[-1], pairs=True)
    if is_float(kind):
        return kind, float_function(i, kind, function)
    if len(i.name) != 2:
        raise refuse(i)
    return kind, function


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
    if len(i.name) != 2:
        raise refuse(i)
    kind, (target, source) = require_type(i.name[1]), i.operands
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
    kind = require_type(i.name[-1], pairs=True)
    if is_float(kind):
        return _float_product(scope, i, kind, adds)
    known = table.PRODUCTS_24 if "24" in i.name[0] else table.PRODUCTS
    if (
        len(i.name) != 3
        or i.name[1] not in known
        or (known is table.PRODUCTS_24 and "32" not in kind)
    ):
        raise FaultError("GEM1001", "a product of integers is .lo, .hi or .wide, of 24 bits not")
    function = known[i.name[1]]
    wide = f"{kind[0]}{8 * WIDTHS[kind] * (2 if i.name[1] == 'wide' else 1)}"
    reads = [scope.source(o, kind) for o in i.operands[1:3]]
    if not adds:
        return computed(scope, i.operands[0], wide, reads, function)
    reads.append(scope.source(i.operands[3], wide))

    def run(a: Array, b: Array, c: Array) -> Array:
        return function(a, b) + c

    return computed(scope, i.operands[0], wide, reads, run)


def _float_product(scope: Scope, i: Instruction, kind: str, adds: bool) -> Action:
    if "24" in i.name[0]:
        raise refuse(i)
    function = floats.fused_multiply_add if adds else floats.widened(np.multiply)
    return compute(scope, i, kind, float_function(i, kind, function))


def _fma(scope: Scope, i: Instruction, place: int) -> Action:
    require_operands(i, 4)
    kind = require_type(i.name[-1], pairs=True)
    return compute(scope, i, kind, float_function(i, kind, floats.fused_multiply_add))


def _compare(scope: Scope, i: Instruction, place: int) -> Action:
    """setp: p is a comparison, joined with c where there is one; q is that of its contrary."""
    kind = require_type(i.name[-1])
    modifiers = [m for m in i.name[2:-1] if m != "ftz"]
    if len(i.name) < 3 or i.name[1] not in table.COMPARISONS or len(modifiers) > 1:
        raise refuse(i)
    if "ftz" in i.name and kind != "f32":
        raise refuse(i)
    require_operands(i, 4 if modifiers else 3)
    if modifiers and modifiers[0] not in table.BOOLEANS:
        raise refuse(i)
    function = table.COMPARISONS[i.name[1]]
    before = floats.flush if "ftz" in i.name else table.UNARY["mov"]
    join = table.BOOLEANS[modifiers[0]] if modifiers else None
    a, b = (scope.source(o, kind) for o in i.operands[1:3])
    c = scope.predicate(i.operands[3]) if modifiers else None
    p, _, q = i.operands[0].partition("|")
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
    if len(i.name) != 4 or i.name[1] not in table.COMPARISONS or i.name[2] not in _TRUE:
        raise refuse(i)
    kind, function, true = require_type(i.name[3]), table.COMPARISONS[i.name[1]], _TRUE[i.name[2]]
    a, b = (scope.source(o, kind) for o in i.operands[1:])

    def run(x: Array, y: Array) -> Array:
        return np.where(function(x, y), true, true * 0)

    return computed(scope, i.operands[0], i.name[2], [a, b], run)


_TRUE: Final[Mapping[str, Array]] = {
    "u32": np.array(0xFFFFFFFF, np.uint32),
    "s32": np.array(-1, np.int32),
    "f32": np.array(1, np.float32),
}


def _select(scope: Scope, i: Instruction, place: int) -> Action:
    require_operands(i, 4)
    if len(i.name) != 2:
        raise refuse(i)
    kind = require_type(i.name[1])
    reads = [scope.predicate(i.operands[3]), *(scope.source(o, kind) for o in i.operands[1:3])]
    return computed(scope, i.operands[0], kind, reads, np.where)


def _extract(scope: Scope, i: Instruction, place: int) -> Action:
    require_operands(i, 4)
    if len(i.name) != 2 or i.name[1] not in ("u32", "s32", "u64", "s64"):
        raise refuse(i)
    reads = [scope.source(i.operands[1], i.name[1])]
    reads += [scope.source(o, "u32") for o in i.operands[2:]]
    return computed(scope, i.operands[0], i.name[1], reads, table.extract)


def _insert(scope: Scope, i: Instruction, place: int) -> Action:
    require_operands(i, 5)
    if len(i.name) != 2 or i.name[1] not in ("b32", "b64"):
        raise refuse(i)
    reads = [scope.source(o, i.name[1]) for o in i.operands[1:3]]
    reads += [scope.source(o, "u32") for o in i.operands[3:]]
    return computed(scope, i.operands[0], i.name[1], reads, table.insert)


def _of_bits(function: table.Function, result: str | None) -> Decode:
    """popc, clz and brev."""

    def decode(scope: Scope, i: Instruction, place: int) -> Action:
        require_operands(i, 2)
        if len(i.name) != 2 or i.name[1] not in ("b32", "b64"):
            raise refuse(i)
        reads = scope.sources(i, i.name[1])
        return computed(scope, i.operands[0], result or i.name[1], reads, function)

    return decode


def _logic_of_three(scope: Scope, i: Instruction, place: int) -> Action:
    require_operands(i, 5)
    if i.name != ("lop3", "b32"):
        raise refuse(i)
    try:
        number = int(i.operands[4], 0)
    except ValueError:
        raise FaultError("GEM1001", f"{i.operands[4]} is no number") from None
    reads = [scope.source(o, "b32") for o in i.operands[1:4]]
    return computed(scope, i.operands[0], "b32", reads, partial(table.table_of_three, table=number))


def _funnel(scope: Scope, i: Instruction, place: int) -> Action:
    require_operands(i, 4)
    if len(i.name) != 4 or i.name[1] not in "lr" or i.name[2] not in ("wrap", "clamp"):
        raise refuse(i)
    function = partial(table.funnel, left=i.name[1] == "l", wrap=i.name[2] == "wrap")
    return compute(scope, i, "b32", function)


def _permute(scope: Scope, i: Instruction, place: int) -> Action:
    require_operands(i, 4)
    if i.name != ("prmt", "b32"):
        raise refuse(i)
    return compute(scope, i, "b32", table.permute)


def _address_of(scope: Scope, i: Instruction, place: int) -> Action:
    """cvta: an address is the same in its own space and in the generic one here."""
    require_operands(i, 2)
    to, *rest = i.name[1:]
    space, *kind = rest if to == "to" else i.name[1:]
    if space not in ("global", "shared", "shared::cta", "param") or kind not in (["u64"], ["u32"]):
        raise refuse(i)
    return compute(scope, i, kind[0], table.UNARY["mov"])


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
