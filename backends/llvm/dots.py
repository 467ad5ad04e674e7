"""Products of several columns and rows: the instruction that adds 32 bits of neighbours to a lane.

| instruction           | elements            | feature of the CPU             |
|-----------------------|---------------------|--------------------------------|
| vpdpbusd              | ui8 by i8, i8       | avx512vnni, avxvnni            |
| vpdpwssd              | i16                 | avx512vnni, avxvnni            |
| vpmaddwd and vpaddd   | i16                 | avx2, avx512bw for 512 bits    |
| vdpbf16ps             | bf16                | avx512bf16                     |
| sdot, udot            | i8, ui8             | dotprod                        |
| usdot                 | ui8 by i8           | i8mm                           |
| bfdot                 | bf16                | bf16                           |

vpdpbusd takes factors of A without a sign: those of i8 are 128 more, which is flipping the upper
bit, and 128 times the sum of each column of B is taken off again. That is exact modulo 2**32, as
all sums are; the sum of a column is one more product for all rows.

vpmaddwd adds two products of i16, which is exact in i32: only of two pairs of -2**15 it is not, and
then as all else modulo 2**32. Where a CPU has none of these for a width, each product is made of
widened elements. Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2; Arm
Architecture Reference Manual, document DDI 0487.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from xdsl.dialects.builtin import FixedBitwidthType, bf16, f32, i32
from xdsl.ir import Attribute, SSAValue

from gemmir.backends.llvm.emitter import Emitter, Rows, Words, element_of, set_rows
from gemmir.backends.llvm.text import lanes_type, scalar_type, splat_literal
from gemmir.ir.dialect import OuterProductOp, PairProductOp, is_unsigned

Sum = Callable[[str, str], str]
"""From a word of A and a sum to the new sum, of one row of B."""

Products = Callable[[str, str, str], str]
"""From vectors of words of A and of B and a sum to the new sum."""


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """One instruction: its factors, the lanes of its sums, and which features say that it is there.

    `name` is LLVM's intrinsic of sums, factors and factors; `adds` says that it has no sums, which
    are added by another instruction, and `shifted` that it takes those of A with 128 added. One of
    `features` is enough.
    """

    lhs: str
    rhs: str
    lanes: int
    name: str
    features: tuple[str, ...]
    adds: bool = True
    shifted: bool = False


def _x86(
    lhs: str, rhs: str, name: str, features: tuple[str, ...], *, shifted: bool = False
) -> tuple[Instruction, ...]:
    """An instruction of AVX-512 for vectors of 512, 256 and 128 bits."""
    wide = tuple(f for f in features if f.startswith("avx512"))
    return tuple(
        Instruction(
            lhs=lhs,
            rhs=rhs,
            lanes=lanes,
            name=f"llvm.x86.{name}.{lanes * 32}",
            features=wide if lanes == 16 else features,
            shifted=shifted,
        )
        for lanes in (16, 8, 4)
    )


def _arm(lhs: str, rhs: str, name: str, feature: str, types: str) -> Instruction:
    full = f"llvm.aarch64.neon.{name}.{types}"
    return Instruction(lhs=lhs, rhs=rhs, lanes=4, name=full, features=(feature,))


def _pairs(lanes: int, name: str, feature: str) -> Instruction:
    return Instruction(
        lhs="i16", rhs="i16", lanes=lanes, name=f"llvm.x86.{name}", features=(feature,), adds=False
    )


VNNI: Final = ("avx512vnni", "avxvnni")

UPPER_BITS: Final = -0x7F7F7F80
"""The upper bits of the bytes of a word, 0x80808080 as an i32; each byte is 128."""

INSTRUCTIONS: Final = (
    *_x86("ui8", "i8", "avx512.vpdpbusd", VNNI),
    *_x86("i8", "i8", "avx512.vpdpbusd", VNNI, shifted=True),
    *_x86("i16", "i16", "avx512.vpdpwssd", VNNI),
    *_x86("bf16", "bf16", "avx512bf16.dpbf16ps", ("avx512bf16",)),
    _pairs(16, "avx512.pmaddw.d.512", "avx512bw"),
    _pairs(8, "avx2.pmadd.wd", "avx2"),
    _pairs(4, "sse2.pmadd.wd", "avx"),
    _arm("i8", "i8", "sdot", "dotprod", "v4i32.v16i8"),
    _arm("ui8", "ui8", "udot", "dotprod", "v4i32.v16i8"),
    _arm("ui8", "i8", "usdot", "i8mm", "v4i32.v16i8"),
    _arm("bf16", "bf16", "bfdot", "bf16", "v4f32.v8bf16"),
)
"""In order of preference."""


def find_instruction(e: Emitter, lhs: str, rhs: str, lanes: int) -> tuple[Instruction, bool] | None:
    """The instruction of this CPU for such factors, and whether it takes them the other way."""
    for one in INSTRUCTIONS:
        if one.lanes == lanes and e.has(*one.features):
            if (one.lhs, one.rhs) == (lhs, rhs):
                return one, False
            if (one.lhs, one.rhs) == (rhs, lhs):
                return one, True
    return None


@dataclass(frozen=True, kw_only=True)
class _Unit:
    """How one instruction of this CPU multiplies vectors of factors and adds to sums of type `t`.

    Vectors of both are LLVM's of `kinds`, which the instruction may take the other way.
    """

    e: Emitter
    one: Instruction
    swapped: bool
    t: str
    kinds: tuple[str, str]

    def sum(self, x: str, y: str, total: str) -> str:
        """`total` and the products of x and y, of the kinds of A and B."""
        sides = [f"{self.kinds[0]} {x}", f"{self.kinds[1]} {y}"]
        operands = ", ".join(reversed(sides) if self.swapped else sides)
        text, name = self.e.text, self.one.name
        if self.one.adds:
            return text.value(f"call {self.t} @{name}({self.t} {total}, {operands})")
        return text.value(
            f"add {self.t} {total}, {text.value(f'call {self.t} @{name}({operands})')}"
        )

    def excess(self, row: str) -> str:
        """128 times the sums of neighbours in `row`, a vector of bytes that have a sign."""
        wide = _once(self.e, f"bitcast {self.words} {self.upper} to {self.kinds[0]}")
        factors = f"{self.kinds[0]} {wide}, {self.kinds[1]} {row}"
        return _once(self.e, f"call {self.t} @{self.one.name}({self.t} zeroinitializer, {factors})")

    def flipped(self, words: str) -> str:
        """Bytes that have 128 added, as words."""
        return _once(self.e, f"xor {self.words} {words}, {self.upper}")

    def cast(self, words: str, side: int) -> str:
        """Words as factors of A, or as those of B."""
        return _once(self.e, f"bitcast {self.words} {words} to {self.kinds[side]}")

    @property
    def words(self) -> str:
        """A vector of words, of which each lane has one."""
        return f"<{self.one.lanes} x i32>"

    @property
    def upper(self) -> str:
        return splat_literal(str(UPPER_BITS), "i32", self.one.lanes)


def _unit_for(e: Emitter, op: OuterProductOp | PairProductOp) -> _Unit | None:
    """The instruction for the products of `op`; None where this CPU has none for its width."""
    lhs, rhs = (element_of(v.type) for v in (op.lhs, op.rhs))
    found = find_instruction(e, str(lhs), str(rhs), e.shape(op.result.type)[1])
    if found is None:
        return None
    one, swapped = found
    kinds = tuple(f"<{one.lanes * op.depth} x {scalar_type(x)}>" for x in (lhs, rhs))
    t = e.row_type(op.result.type)
    factors = f"{kinds[0]}, {kinds[1]}"
    e.text.declare(f"{t} @{one.name}({f'{t}, ' if one.adds else ''}{factors})")
    return _Unit(e=e, one=one, swapped=swapped, t=t, kinds=(kinds[0], kinds[1]))


def dot_products(e: Emitter, op: OuterProductOp) -> Sum:
    """How words of A are multiplied by the row of B of `op` and added."""
    (row,) = e.rows(op.rhs)
    held, lanes = e.stored(element_of(op.rhs.type)), e.shape(op.result.type)[1]
    words = lanes_type(i32, lanes)
    unit = _unit_for(e, op)
    if unit is None:
        row = _once(e, f"bitcast <{lanes * op.depth} x {scalar_type(held)}> {row} to {words}")
        add = _widened(e, op)
        return lambda word, total: add(_spread(e, word, words, lanes), row, total)
    if held != element_of(op.rhs.type):
        row = _once(
            e, f"bitcast <{lanes * op.depth} x {scalar_type(held)}> {row} to {unit.kinds[1]}"
        )
    excess = unit.excess(row) if unit.one.shifted else ""

    def add_word(word: str, total: str) -> str:
        spread = _spread(e, word, words, lanes)
        if unit.one.shifted:
            spread = unit.flipped(spread)
        total = unit.sum(unit.cast(spread, 0), row, total)
        return e.text.value(f"sub {unit.t} {total}, {excess}") if unit.one.shifted else total

    return add_word


def pair_products(e: Emitter, op: PairProductOp) -> None:
    """Each row of A with each of B, in words of neighbours, column by column of the tile.

    Of two bytes that have a sign one is made one that has none: those of the longer side, so that
    fewer sums are taken off.
    """
    lanes = e.shape(op.result.type)[1]
    words = lanes_type(i32, lanes)
    unit = _unit_for(e, op)
    sides = [_as_words(e, v, lanes * op.depth, words) for v in (op.lhs, op.rhs)]
    rows, columns = len(sides[0]), len(sides[1])
    acc = list(e.rows(op.acc))
    add = _widened(e, op) if unit is None else _pair(unit, rows < columns)
    for column, y in enumerate(sides[1]):
        for row, x in enumerate(sides[0]):
            at = row * columns + column
            acc[at] = add(x, y, acc[at])
    set_rows(e, op.result, acc)


def _as_words(e: Emitter, value: SSAValue, count: int, words: str) -> Rows:
    """Rows of `count` factors as vectors of words."""
    kind = f"<{count} x {scalar_type(e.stored(element_of(value.type)))}>"
    return [_once(e, f"bitcast {kind} {row} to {words}") for row in e.rows(value)]


def _pair(unit: _Unit, takes_b: bool) -> Products:
    """How words of a row of A and of one of B are multiplied and added.

    Where the instruction wants one side without a sign, that is B where `takes_b`.
    """
    if not unit.one.shifted:
        return lambda x, y, total: unit.sum(unit.cast(x, 0), unit.cast(y, 1), total)

    def add(x: str, y: str, total: str) -> str:
        flipped, kept = (y, x) if takes_b else (x, y)
        row = unit.cast(kept, 1)
        total = unit.sum(unit.cast(unit.flipped(flipped), 0), row, total)
        return unit.e.text.value(f"sub {unit.t} {total}, {unit.excess(row)}")

    return add


def words_of(e: Emitter, value: SSAValue, depth: int) -> list[str]:
    """The rows of a column of A, each as one word of 32 bits."""
    found = e.values[value]
    if isinstance(found, Words):
        return found.rows
    line = f"<{depth} x {scalar_type(e.stored(element_of(value.type)))}>"
    return [e.text.value(f"bitcast {line} {row} to i32") for row in e.rows(value)]


def _once(e: Emitter, text: str) -> str:
    """An instruction that is written once a block."""
    key = ("once", text)
    if key not in e.text.addresses:
        e.text.addresses[key] = e.text.value(text)
    return e.text.addresses[key]


def _spread(e: Emitter, word: str, words: str, lanes: int) -> str:
    """`word` in every lane."""
    if lanes == 1:
        return word
    one = _once(e, f"insertelement {words} poison, i32 {word}, i64 0")
    zeros = f"<{lanes} x i32> zeroinitializer"
    return _once(e, f"shufflevector {words} {one}, {words} poison, {zeros}")


def _widened(e: Emitter, op: OuterProductOp | PairProductOp) -> Products:
    """Products of widened elements of words, added one after another."""
    t, lanes = e.row_type(op.result.type), e.shape(op.result.type)[1]
    a, b = (element_of(v.type) for v in (op.lhs, op.rhs))
    is_float = element_of(op.result.type) == f32
    name = ""
    if is_float:
        name = f"@llvm.fma.{'f32' if lanes == 1 else f'v{lanes}f32'}"
        e.text.declare(f"{t} {name}({t}, {t}, {t})")

    def add(x_words: str, y_words: str, total: str) -> str:
        for place in range(op.depth):
            x, y = (
                _element(e, words, of, lanes, place) for words, of in ((x_words, a), (y_words, b))
            )
            if is_float:
                total = e.text.value(f"call {t} {name}({t} {x}, {t} {y}, {t} {total})")
            else:
                total = e.text.value(f"add {t} {total}, {e.text.value(f'mul {t} {x}, {y}')}")
        return total

    return add


def _element(e: Emitter, words: str, element: Attribute, lanes: int, place: int) -> str:
    """Element `place` of each word, in the type of the sum.

    It is shifted to the upper end; as bf16 it is then an f32, and otherwise shifted down again.
    """
    assert isinstance(element, FixedBitwidthType)
    t, bits = lanes_type(i32, lanes), element.bitwidth

    def shifted(word: str, value: str, distance: int) -> str:
        amount = splat_literal(str(distance), "i32", lanes)
        return _once(e, f"{word} {t} {value}, {amount}") if distance else value

    upper = shifted("shl", words, 32 - bits * (place + 1))
    if element == bf16:
        mask = splat_literal(str(-(1 << 32 - bits)), "i32", lanes)
        upper = _once(e, f"and {t} {upper}, {mask}")
        return _once(e, f"bitcast {t} {upper} to {lanes_type(f32, lanes)}")
    return shifted("lshr" if is_unsigned(element) else "ashr", upper, 32 - bits)
