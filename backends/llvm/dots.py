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

from gemmir.backends.llvm.emitter import Emitter, Words, element_of
from gemmir.backends.llvm.text import lanes_type, scalar_type, splat_literal
from gemmir.ir.dialect import OuterProductOp, is_unsigned

Sum = Callable[[str, str], str]
"""From a word of A and a sum to the new sum, of one row of B."""


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


def dot_products(e: Emitter, op: OuterProductOp) -> Sum:
    """How words of A are multiplied by the row of B of `op` and added."""
    lhs, rhs = (str(element_of(v.type)) for v in (op.lhs, op.rhs))
    (row,) = e.rows(op.rhs)
    held = e.stored(element_of(op.rhs.type))
    found = find_instruction(e, lhs, rhs, e.shape(op.result.type)[1])
    if found is None:
        return _widened(e, op, row, scalar_type(held))
    one, swapped = found
    lanes, t = one.lanes, e.row_type(op.result.type)
    kinds = [f"<{lanes * op.depth} x {scalar_type(element_of(v.type))}>" for v in (op.lhs, op.rhs)]
    words = f"<{lanes} x i32>"
    if held != element_of(op.rhs.type):
        row = _once(e, f"bitcast <{lanes * op.depth} x {scalar_type(held)}> {row} to {kinds[1]}")
    factors = f"{kinds[0]}, {kinds[1]}"
    e.text.declare(f"{t} @{one.name}({f'{t}, ' if one.adds else ''}{factors})")

    upper = splat_literal(str(UPPER_BITS), "i32", lanes)
    excess = ""
    if one.shifted:
        shift = _once(e, f"bitcast {words} {upper} to {kinds[0]}")
        operands = f"{t} zeroinitializer, {kinds[0]} {shift}, {kinds[1]} {row}"
        excess = _once(e, f"call {t} @{one.name}({operands})")

    def add(word: str, total: str) -> str:
        spread = _spread(e, word, words, lanes)
        if one.shifted:
            spread = _once(e, f"xor {words} {spread}, {upper}")
        x = _once(e, f"bitcast {words} {spread} to {kinds[0]}")
        sides = [f"{kinds[0]} {x}", f"{kinds[1]} {row}"]
        operands = ", ".join(reversed(sides) if swapped else sides)
        if one.adds:
            total = e.text.value(f"call {t} @{one.name}({t} {total}, {operands})")
            return e.text.value(f"sub {t} {total}, {excess}") if one.shifted else total
        return e.text.value(f"add {t} {total}, {e.text.value(f'call {t} @{one.name}({operands})')}")

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
    one = _once(e, f"insertelement {words} poison, i32 {word}, i64 0")
    zeros = f"<{lanes} x i32> zeroinitializer"
    return _once(e, f"shufflevector {words} {one}, {words} poison, {zeros}")


def _widened(e: Emitter, op: OuterProductOp, row: str, scalar: str) -> Sum:
    """Products of widened elements, added one after another."""
    t, lanes, depth = e.row_type(op.result.type), e.shape(op.result.type)[1], op.depth
    a, b = (element_of(v.type) for v in (op.lhs, op.rhs))
    words = lanes_type(i32, lanes)
    groups = _once(e, f"bitcast <{lanes * depth} x {scalar}> {row} to {words}")
    steps = [_element(e, groups, b, lanes, place) for place in range(depth)]
    is_float = element_of(op.result.type) == f32
    name = ""
    if is_float:
        name = f"@llvm.fma.{'f32' if lanes == 1 else f'v{lanes}f32'}"
        e.text.declare(f"{t} {name}({t}, {t}, {t})")

    def add(word: str, total: str) -> str:
        spread = word if lanes == 1 else _spread(e, word, words, lanes)
        for place, y in enumerate(steps):
            x = _element(e, spread, a, lanes, place)
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
