"""Writing LLVM text: names, blocks, constants, types and folded index arithmetic.

Knows LLVM's syntax and nothing of xDSL's ops. Values are operand texts (`%v3`, `16`, `0x3FF0…`);
arithmetic on literals is folded here, so that addresses reach LLVM as a base plus a constant.
"""

from __future__ import annotations

import math
import operator
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from xdsl.dialects.builtin import (
    BFloat16Type,
    FixedBitwidthType,
    Float8E4M3FNType,
    Float8E5M2Type,
    Float16Type,
    Float32Type,
    Float64Type,
    IndexType,
    IntegerType,
)
from xdsl.ir import Attribute

from gemmir.errors import BackendError
from gemmir.ir.amx import TileType

Stride: TypeAlias = int | str
"""How far apart elements are: a number, or an operand where that is known at run time only."""

_SCALARS: dict[type[Attribute], str] = {
    BFloat16Type: "bfloat",
    Float8E4M3FNType: "i8",
    Float8E5M2Type: "i8",
    Float16Type: "half",
    Float32Type: "float",
    Float64Type: "double",
    IndexType: "i64",
    TileType: "x86_amx",
}

ELEMENT_BYTES = {"i8": 1, "i16": 2, "bfloat": 2, "half": 2, "i32": 4, "float": 4, "double": 8}
"""Bytes of an element of a memref, by its LLVM type."""


HALF_BYTE = "i4"
"""The LLVM type of which two elements are in a byte."""


def scalar_type(t: Attribute) -> str:
    """The LLVM spelling of a scalar type."""
    if isinstance(t, IntegerType):
        return f"i{t.width.data}"
    if type(t) not in _SCALARS:
        raise BackendError("GEM0420", f"LLVM emission has no type for {t}")
    return _SCALARS[type(t)]


def lanes_type(t: Attribute, lanes: int) -> str:
    """The LLVM spelling of one row of a vector: a scalar where it has one lane."""
    return scalar_type(t) if lanes == 1 else f"<{lanes} x {scalar_type(t)}>"


def suffix(t: Attribute, lanes: int) -> str:
    """How the names of intrinsics end that are of a vector of `lanes` elements: `v4f32`."""
    return f"v{lanes}{scalar_suffix(t)}"


def scalar_suffix(t: Attribute) -> str:
    """The same of one element: `f32`."""
    assert isinstance(t, FixedBitwidthType)
    kind = {"i": "i", "b": "bf"}.get(scalar_type(t)[0], "f")
    return f"{kind}{t.bitwidth}"


def float_literal(value: float, t: Attribute) -> str:
    """A float constant; LLVM writes all of them as the bits of a double, and knows none of 8."""
    if isinstance(t, Float8E4M3FNType | Float8E5M2Type):
        return str(t.pack((value,))[0])
    if isinstance(t, Float32Type):
        value = struct.unpack("<f", struct.pack("<f", value))[0]
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"


def splat_literal(literal: str, element: str, lanes: int) -> str:
    """The constant row with `literal` in every lane."""
    return literal if lanes == 1 else f"splat ({element} {literal})"


def is_literal(value: str) -> bool:
    """Whether an index operand is a number."""
    return value.lstrip("-").isdigit()


_FOLDS: dict[str, Callable[[int, int], int]] = {
    "add": operator.add,
    "mul": operator.mul,
    "udiv": operator.floordiv,
    "urem": operator.mod,
    "xor": operator.xor,
}


def _divisor(word: str, x: int, y: int) -> int:
    """What divides the result of `word`, where `x` and `y` divide its operands."""
    if word == "mul":
        return x * y
    if word == "xor":
        return min(n & -n or n for n in (x or y, y or x))
    return math.gcd(x, y) if word in ("add", "urem") else 1


TURNED_BYTES = 16
"""Elements are interleaved within so many bytes by one instruction: of x86-64 in vectors of any
length, and of AArch64, whose vectors have no more."""

MOST_NARROW = 4
"""Elements in so many bytes at most, where lines that have no more are put side by side."""


def transposed(text: FunctionText, scalar: str, lines: list[str], lanes: int) -> list[str]:
    """From lines of `lanes` lanes, `lanes` lines with one lane for each of the given ones.

    Squares of as many lines as lanes are turned by shuffles of two lines each, which LLVM would not
    find: it takes one for two or three elements of each line that is asked for.
    """
    if lanes == 1:
        return [_joined(text, scalar, lines)]
    if len(lines) == 1 or lanes & (lanes - 1):
        return _picked(text, scalar, lines, lanes)
    piece = TURNED_BYTES // ELEMENT_BYTES[scalar]
    if lanes <= piece <= MOST_NARROW and len(lines) % (2 * piece) == 0:
        return _turned_in_pairs(text, scalar, lines, lanes, piece)
    blocks = [lines[at : at + lanes] for at in range(0, len(lines), lanes)]
    squares = [_turned(text, scalar, block, lanes) for block in blocks]
    return [
        _side_by_side(text, scalar, list(parts), lanes, len(lines))
        for parts in zip(*squares, strict=True)
    ]


def _turned_in_pairs(
    text: FunctionText, scalar: str, lines: list[str], lanes: int, piece: int
) -> list[str]:
    """The same of lines that are no longer than a piece: each is put beside another one first.

    An instruction then turns two squares.
    """
    whole = list(range(2 * piece))
    filled = [*range(lanes), *[-1] * (piece - lanes)]
    if lanes < piece:
        lines = [_shuffled(text, scalar, lanes, line, "poison", filled) for line in lines]
    parts: list[list[str]] = []
    for at in range(0, len(lines), 2 * piece):
        pairs = zip(lines[at : at + piece], lines[at + piece : at + 2 * piece], strict=True)
        wide = [_shuffled(text, scalar, piece, x, y, whole) for x, y in pairs]
        parts.append(_interleaved(text, scalar, 2 * piece, piece, wide)[:lanes])
    return [
        _side_by_side(text, scalar, list(columns), 2 * piece, len(lines))
        for columns in zip(*parts, strict=True)
    ]


def _picked(text: FunctionText, scalar: str, lines: list[str], lanes: int) -> list[str]:
    """The same, element by element."""
    columns: list[str] = []
    for lane in range(lanes):
        found = [
            text.value(f"extractelement <{lanes} x {scalar}> {line}, i64 {lane}") for line in lines
        ]
        columns.append(_joined(text, scalar, found))
    return columns


def _turned(text: FunctionText, scalar: str, lines: list[str], lanes: int) -> list[str]:
    """The same for as many lines as lanes, or fewer: what is missing is left open.

    Within pieces of 16 bytes, elements of two lines are interleaved, then pairs of elements, until
    a piece has one lane of each of several lines; then pieces are brought together.
    """
    piece = min(TURNED_BYTES // ELEMENT_BYTES[scalar], lanes)
    filled = [*lines, *["poison"] * (lanes - len(lines))]
    turned = _interleaved(text, scalar, lanes, piece, filled)
    groups = [_gathered(text, scalar, lanes, piece, turned[at::piece]) for at in range(piece)]
    return [line for column in zip(*groups, strict=True) for line in column]


def _interleaved(
    text: FunctionText, scalar: str, lanes: int, piece: int, lines: list[str]
) -> list[str]:
    """Of each `piece` lines, as many with one lane of each of them in a piece."""
    turned, width = lines, 1
    while width < piece:
        low, high = _interleaving(lanes, piece, width)
        made: list[str] = []
        for group in range(0, len(turned), 2 * width):
            for x, y in zip(
                turned[group : group + width],
                turned[group + width : group + 2 * width],
                strict=True,
            ):
                made += [_shuffled(text, scalar, lanes, x, y, mask) for mask in (low, high)]
        turned, width = made, 2 * width
    return turned


def _interleaving(lanes: int, piece: int, width: int) -> tuple[list[int], list[int]]:
    """Of each piece of two lines the lower runs of `width` elements in turns, and the upper."""
    masks: list[list[int]] = []
    for half in (0, piece // 2):
        runs = (
            (start + half + run, line)
            for start in range(0, lanes, piece)
            for run in range(0, piece // 2, width)
            for line in (0, lanes)
        )
        masks.append([line + first + i for first, line in runs for i in range(width)])
    return masks[0], masks[1]


def _gathered(
    text: FunctionText, scalar: str, lanes: int, piece: int, lines: list[str]
) -> list[str]:
    """From as many lines as pieces in each, lines of the first, the second, … piece of all."""
    if len(lines) == 1:
        return lines
    starts = range(0, 2 * lanes, piece)
    even, odd = (
        [start + i for start in starts[first::2] for i in range(piece)] for first in (0, 1)
    )
    halves = [
        [
            _shuffled(text, scalar, lanes, x, y, mask)
            for x, y in zip(lines[::2], lines[1::2], strict=True)
        ]
        for mask in (even, odd)
    ]
    found = [_gathered(text, scalar, lanes, piece, half) for half in halves]
    return [line for pair in zip(*found, strict=True) for line in pair]


def _side_by_side(text: FunctionText, scalar: str, parts: list[str], lanes: int, count: int) -> str:
    """The first `count` elements of all parts, one behind the other."""
    while len(parts) > 1:
        parts = [*parts, *["poison"] * (len(parts) % 2)]
        whole = list(range(2 * lanes))
        parts = [
            _shuffled(text, scalar, lanes, x, y, whole)
            for x, y in zip(parts[::2], parts[1::2], strict=True)
        ]
        lanes *= 2
    if lanes == count:
        return parts[0]
    return _shuffled(text, scalar, lanes, parts[0], "poison", list(range(count)))


def _shuffled(text: FunctionText, scalar: str, lanes: int, x: str, y: str, mask: list[int]) -> str:
    """Lanes of `x`, and of `y` behind them; -1 for one that is left open."""
    if x == y == "poison":
        return x
    row = f"<{lanes} x {scalar}>"
    picked = ", ".join("i32 poison" if lane < 0 else f"i32 {lane}" for lane in mask)
    return text.value(f"shufflevector {row} {x}, {row} {y}, <{len(mask)} x i32> <{picked}>")


def _joined(text: FunctionText, scalar: str, elements: list[str]) -> str:
    if len(elements) == 1:
        return elements[0]
    made = "poison"
    for number, one in enumerate(elements):
        row = f"<{len(elements)} x {scalar}>"
        made = text.value(f"insertelement {row} {made}, {scalar} {one}, i64 {number}")
    return made


@dataclass
class FunctionText:
    """The body of one LLVM function as it is written, block by block.

    `sums` remembers index values that are another value plus a constant, and `addresses` the
    pointers already computed in the current block, so that neither is written twice. `stack` is
    what the function begins with: memory on the stack. `numbers` are values of the entry block that
    are asked for again. `multiples` has a number that divides an index, and `alignments` one that
    divides an address in bytes, where more than 1 is known. `early_values` are instructions that
    the function begins with, by their text. `narrow` has, of an index that was an i32, that.
    """

    stack: list[str] = field(default_factory=list[str])
    lines: list[str] = field(default_factory=list[str])
    block: str = "entry"
    count: int = 0
    sums: dict[str, tuple[str, int]] = field(default_factory=dict[str, tuple[str, int]])
    addresses: dict[tuple[object, ...], str] = field(default_factory=dict[tuple[object, ...], str])
    declarations: set[str] = field(default_factory=set[str])
    numbers: dict[tuple[str, ...], str] = field(default_factory=dict[tuple[str, ...], str])
    multiples: dict[str, int] = field(default_factory=dict[str, int])
    alignments: dict[str, int] = field(default_factory=dict[str, int])
    early_values: dict[str, str] = field(default_factory=dict[str, str])
    early_names: set[str] = field(default_factory=set[str])
    narrow: dict[str, str] = field(default_factory=dict[str, str])

    def fresh(self, stem: str) -> str:
        """A name that is not taken, without its `%`."""
        self.count += 1
        return f"{stem}{self.count}"

    def value(self, text: str) -> str:
        """Write an instruction that has a result; returns its operand."""
        name = f"%{self.fresh('v')}"
        self.lines.append(f"  {name} = {text}")
        return name

    def early(self, text: str) -> str:
        """An instruction on literals and other early values, once at the start of the function."""
        if text not in self.early_values:
            name = f"%{self.fresh('e')}"
            self.stack.append(f"  {name} = {text}")
            self.early_values[text] = name
            self.early_names.add(name)
        return self.early_values[text]

    def widened(self, x: str) -> str:
        """An i32 that is not negative as index."""
        if x in self.early_names:
            made = self.early(f"zext i32 {x} to i64")
        else:
            made = self.value(f"zext i32 {x} to i64")
        self.narrow[made] = x
        return made

    def narrowed(self, x: str) -> str:
        """An index as i32."""
        if is_literal(x):
            return x
        if x in self.narrow:
            return self.narrow[x]
        write = self.early if x in self.early_names else self.value
        return write(f"trunc i64 {x} to i32")

    def binary(self, word: str, x: str, y: str) -> str:
        """`word` (add, mul, udiv, urem or xor) of i64 that are not negative, as early as can be."""
        if is_literal(x) and is_literal(y):
            return str(_FOLDS[word](int(x), int(y)))
        if is_literal(x) and word in ("add", "mul", "xor"):
            x, y = y, x
        if (y == "0" and word in ("add", "xor")) or (y == "1" and word in ("mul", "udiv")):
            return x
        if (y == "0" and word == "mul") or (y == "1" and word == "urem"):
            return "0"
        is_early = all(is_literal(v) or v in self.early_names for v in (x, y))
        made = (self.early if is_early else self.value)(f"{word} i64 {x}, {y}")
        self.multiples[made] = _divisor(word, self.divisor(x), self.divisor(y))
        if word == "add" and is_literal(y):
            base, constant = self.sums.get(x, (x, 0))
            self.sums[made] = (base, constant + int(y))
        return made

    def line(self, text: str) -> None:
        """Write an instruction without a result."""
        self.lines.append(f"  {text}")

    def reserve(self, t: str) -> str:
        """Memory on the stack for a `t`, once a call and not once an iteration."""
        name = f"%{self.fresh('stack')}"
        self.stack.append(f"  {name} = alloca {t}")
        return name

    def start(self, label: str) -> None:
        """Begin the block `label`."""
        self.lines.append(f"{label}:")
        self.block = label
        self.addresses.clear()

    def declare(self, text: str) -> None:
        """Note an external function that the module needs."""
        self.declarations.add(f"declare {text}")

    def add(self, x: str, y: str) -> str:
        """x + y on i64."""
        if is_literal(x):
            x, y = y, x
        if is_literal(x):
            return str(int(x) + int(y))
        if y == "0":
            return x
        base, constant = self.sums.get(x, (x, 0))
        if {x, y} <= self.early_names:
            x, y = sorted((x, y))
        made = self._written("add", x, y)
        self.multiples[made] = math.gcd(self.divisor(x), self.divisor(y))
        if is_literal(y):
            self.sums[made] = (base, constant + int(y))
        return made

    def mul(self, x: str, y: str) -> str:
        """x * y on i64."""
        if is_literal(x):
            x, y = y, x
        if is_literal(x):
            return str(int(x) * int(y))
        if y in ("0", "1"):
            return x if y == "1" else "0"
        made = self._written("mul", x, y)
        self.multiples[made] = self.divisor(x) * self.divisor(y)
        return made

    def _written(self, word: str, x: str, y: str) -> str:
        """`word` of i64 that do not overflow: at the start of the function if x and y are known."""
        known = x in self.early_names and (is_literal(y) or y in self.early_names)
        return (self.early if known else self.value)(f"{word} nsw i64 {x}, {y}")

    def divisor(self, x: str) -> int:
        """A number that divides the index `x`; 0 for 0, which every number divides."""
        return abs(int(x)) if is_literal(x) else self.multiples.get(x, 1)

    def align(self, pointer: str, alignment: int) -> None:
        """Note that the address `pointer` is a multiple of `alignment` bytes."""
        self.alignments[pointer] = alignment

    def alignment(self, pointer: str, bytes_off: int) -> int:
        """What is known to divide the address `bytes_off` bytes behind `pointer`; 1 if nothing."""
        return math.gcd(self.alignments.get(pointer, 1), bytes_off)

    def address(self, pointer: str, element: str, terms: Sequence[tuple[str, Stride]]) -> str:
        """pointer + sum of index * stride over `terms`, in elements; of two a byte an even sum."""
        if element == HALF_BYTE:
            return self.address(pointer, "i8", self._in_bytes(terms))
        constant = 0
        scaled: list[tuple[str, Stride]] = []
        for index, stride in terms:
            known = is_literal(index)
            base, extra = ("0", int(index)) if known else self.sums.get(index, (index, 0))
            if stride != 0 and base != "0":
                scaled.append((base, stride))
            if isinstance(stride, int):
                constant += extra * stride
            elif extra:
                scaled.append((str(extra), stride))
        for base, stride in scaled:
            key = (pointer, element, base, stride)
            if key not in self.addresses:
                offset = self.mul(base, str(stride))
                made = self.value(f"getelementptr {element}, ptr {pointer}, i64 {offset}")
                distance = self.divisor(offset) * ELEMENT_BYTES[element]
                self.align(made, self.alignment(pointer, distance))
                self.addresses[key] = made
            pointer = self.addresses[key]
        return self.offset(pointer, element, constant)

    def nth(self, pointer: str, element: str, number: int, stride: Stride) -> str:
        """pointer + number * stride, in elements."""
        if isinstance(stride, int):
            return self.offset(pointer, element, number * stride)
        return self.address(pointer, element, [(str(number), stride)])

    def _in_bytes(self, terms: Sequence[tuple[str, Stride]]) -> list[tuple[str, Stride]]:
        """`terms` that count two elements a byte."""
        found: list[tuple[str, Stride]] = []
        for x, stride in terms:
            if isinstance(stride, str):
                found.append((x, self.halved(stride)))
            else:
                found.append((self.halved(x), 1) if stride == 1 else (x, stride // 2))
        return found

    def halved(self, x: str) -> str:
        """Half of an even index."""
        if is_literal(x):
            return str(int(x) // 2)
        base, extra = self.sums.get(x, (x, 0))
        key = ("half", base)
        if key not in self.addresses:
            self.addresses[key] = self.value(f"lshr exact i64 {base}, 1")
            self.multiples[self.addresses[key]] = max(self.divisor(base) // 2, 1)
        return self.add(self.addresses[key], str(extra // 2))

    def offset(self, pointer: str, element: str, constant: int) -> str:
        """pointer + constant, in elements; of two a byte an even number."""
        if element == HALF_BYTE:
            element, constant = "i8", constant // 2
        if constant == 0:
            return pointer
        made = self.value(f"getelementptr {element}, ptr {pointer}, i64 {constant}")
        self.align(made, self.alignment(pointer, constant * ELEMENT_BYTES[element]))
        return made
