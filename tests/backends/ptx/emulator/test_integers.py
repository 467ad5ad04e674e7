"""Integer, logic and shift instructions, as the PTX ISA defines them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from gemmir.backends.ptx.emulator import PtxFault
from tests.backends.ptx.emulator.ptx import result, run

U32 = np.uint32
EDGES = np.array(
    [0, 1, 2, 3, 7, 31, 32, 33, 255, 0x7FFFFFFF, 0x80000000, 0x80000001, 0xFFFFFFFE, 0xFFFFFFFF,
     0x12345678, 0xDEADBEEF], U32,
)  # fmt: skip
LEFT, RIGHT = (a.ravel() for a in np.meshgrid(EDGES, EDGES))


def signed(value: int, bits: int = 32) -> int:
    value %= 1 << bits
    return value - (1 << bits) if value >> (bits - 1) else value


def toward_zero(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


BINARY: dict[str, Callable[[int, int], int]] = {
    "add.u32": lambda a, b: a + b,
    "add.s32": lambda a, b: a + b,
    "sub.u32": lambda a, b: a - b,
    "mul.lo.u32": lambda a, b: a * b,
    "mul.lo.s32": lambda a, b: signed(a) * signed(b),
    "mul.hi.u32": lambda a, b: a * b >> 32,
    "mul.hi.s32": lambda a, b: signed(a) * signed(b) >> 32,
    "mul24.lo.u32": lambda a, b: (a & 0xFFFFFF) * (b & 0xFFFFFF),
    "mul24.hi.u32": lambda a, b: (a & 0xFFFFFF) * (b & 0xFFFFFF) >> 16,
    "mul24.lo.s32": lambda a, b: signed(a, 24) * signed(b, 24),
    "mul24.hi.s32": lambda a, b: signed(a, 24) * signed(b, 24) >> 16,
    "and.b32": lambda a, b: a & b,
    "or.b32": lambda a, b: a | b,
    "xor.b32": lambda a, b: a ^ b,
    "min.u32": min,
    "max.u32": max,
    "min.s32": lambda a, b: min(signed(a), signed(b)),
    "max.s32": lambda a, b: max(signed(a), signed(b)),
    "shl.b32": lambda a, b: a << min(b, 32),
    "shr.u32": lambda a, b: a >> min(b, 32),
    "shr.b32": lambda a, b: a >> min(b, 32),
    "shr.s32": lambda a, b: signed(a) >> min(b, 32),
}


@pytest.mark.parametrize("name", BINARY)
def test_integers(name: str) -> None:
    found = result(f"{name} %r9, %r0, %r1;", LEFT, RIGHT, to=U32)
    expected = [BINARY[name](int(a), int(b)) % 2**32 for a, b in zip(LEFT, RIGHT, strict=True)]
    assert found.tolist() == expected


@pytest.mark.parametrize("kind", ["u32", "s32"])
def test_division_goes_toward_zero(kind: str) -> None:
    left, right = LEFT[RIGHT != 0], RIGHT[RIGHT != 0]
    read = signed if kind == "s32" else int
    found = run(
        f"div.{kind} %r8, %r0, %r1; rem.{kind} %r9, %r0, %r1;",
        [left, right],
        [("%r8", U32), ("%r9", U32)],
    )
    pairs = [(read(int(a)), read(int(b))) for a, b in zip(left, right, strict=True)]
    quotients = [toward_zero(a, b) for a, b in pairs]
    assert found[0].tolist() == [q % 2**32 for q in quotients]
    rest = [(a - q * b) % 2**32 for (a, b), q in zip(pairs, quotients, strict=True)]
    assert found[1].tolist() == rest


def test_an_integer_divided_by_zero_is_a_fault() -> None:
    zero = np.array([1, 0], U32)
    with pytest.raises(PtxFault, match=r"GEM1001.*thread 1.*divided by 0"):
        result("div.u32 %r9, %r0, %r1;", zero, zero, to=U32)


WIDE = np.array([0, 1, 2**31, 2**32, 2**63, 2**64 - 1, 0x123456789ABCDEF0], np.uint64)
WIDE_LEFT, WIDE_RIGHT = (a.ravel() for a in np.meshgrid(WIDE, WIDE))


WIDE_RULES: dict[str, Callable[[int, int], int]] = {
    "add.s64": lambda a, b: a + b,
    "sub.s64": lambda a, b: a - b,
    "mul.lo.s64": lambda a, b: a * b,
    "mul.hi.u64": lambda a, b: a * b >> 64,
    "mul.hi.s64": lambda a, b: signed(a, 64) * signed(b, 64) >> 64,
    "min.s64": lambda a, b: min(signed(a, 64), signed(b, 64)),
    "max.u64": max,
    "xor.b64": lambda a, b: a ^ b,
}


@pytest.mark.parametrize("name", WIDE_RULES)
def test_integers_of_64_bits(name: str) -> None:
    found = result(f"{name} %d9, %d0, %d1;", WIDE_LEFT, WIDE_RIGHT, to=np.uint64)
    pairs = zip(WIDE_LEFT, WIDE_RIGHT, strict=True)
    assert found.tolist() == [WIDE_RULES[name](int(a), int(b)) % 2**64 for a, b in pairs]


def test_wide_products() -> None:
    found = run(
        "mul.wide.u32 %d8, %r0, %r1; mul.wide.s32 %d9, %r0, %r1; mad.wide.s32 %d10, %r0, %r1, %d8;",
        [LEFT, RIGHT],
        [("%d8", np.uint64), ("%d9", np.int64), ("%d10", np.uint64)],
    )
    pairs = [(int(a), int(b)) for a, b in zip(LEFT, RIGHT, strict=True)]
    plain, with_sign = [a * b for a, b in pairs], [signed(a) * signed(b) for a, b in pairs]
    assert found[0].tolist() == plain
    assert found[1].tolist() == with_sign
    assert found[2].tolist() == [(a + b) % 2**64 for a, b in zip(plain, with_sign, strict=True)]


def test_mad_adds() -> None:
    found = run(
        "mad.lo.s32 %r8, %r0, %r1, %r0; mad.hi.u32 %r9, %r0, %r1, 5;mad24.lo.u32 %r7, %r0, %r1, 9;",
        [LEFT, RIGHT],
        [("%r8", U32), ("%r9", U32), ("%r7", U32)],
    )
    pairs = [(int(a), int(b)) for a, b in zip(LEFT, RIGHT, strict=True)]
    assert found[0].tolist() == [(a * b + a) % 2**32 for a, b in pairs]
    assert found[1].tolist() == [((a * b >> 32) + 5) % 2**32 for a, b in pairs]
    low = [((a & 0xFFFFFF) * (b & 0xFFFFFF) + 9) % 2**32 for a, b in pairs]
    assert found[2].tolist() == low


UNARY: dict[str, Callable[[int], int]] = {
    "neg.s32": lambda a: -a,
    "not.b32": lambda a: ~a,
    "abs.s32": lambda a: abs(signed(a)),
    "cnot.b32": lambda a: int(a == 0),
    "popc.b32": lambda a: a.bit_count(),
    "clz.b32": lambda a: 32 - a.bit_length(),
    "brev.b32": lambda a: int(f"{a:032b}"[::-1], 2),
    "mov.b32": lambda a: a,
}


@pytest.mark.parametrize("name", UNARY)
def test_integers_one_operand(name: str) -> None:
    found = result(f"{name} %r9, %r0;", EDGES, to=U32)
    assert found.tolist() == [UNARY[name](int(a)) % 2**32 for a in EDGES]


def test_bits_of_64() -> None:
    found = run(
        "popc.b64 %r0, %d0; clz.b64 %r1, %d0; brev.b64 %d1, %d0;",
        [WIDE],
        [("%r0", U32), ("%r1", U32), ("%d1", np.uint64)],
    )
    values = [int(a) for a in WIDE]
    assert found[0].tolist() == [a.bit_count() for a in values]
    assert found[1].tolist() == [64 - a.bit_length() for a in values]
    assert found[2].tolist() == [int(f"{a:064b}"[::-1], 2) for a in values]


def extracted(a: int, pos: int, length: int, kind: str) -> int:
    """The loop of the PTX ISA, section "bfe"."""
    msb = int(kind[1:]) - 1
    pos, length = pos & 0xFF, length & 0xFF
    sign = 0 if kind[0] == "u" or length == 0 else a >> min(pos + length - 1, msb) & 1
    bits = [a >> (pos + i) & 1 if i < length and pos + i <= msb else sign for i in range(msb + 1)]
    return sum(bit << i for i, bit in enumerate(bits))


def inserted(a: int, b: int, pos: int, length: int, msb: int) -> int:
    """The loop of the PTX ISA, section "bfi"."""
    found = b
    pos, length = pos & 0xFF, length & 0xFF
    for i in range(length):
        if pos + i <= msb:
            found = found & ~(1 << (pos + i)) | (a >> i & 1) << (pos + i)
    return found


FIELDS = [(0, 0), (0, 8), (4, 1), (5, 32), (31, 1), (31, 4), (32, 3), (40, 30), (63, 2), (255, 255)]


@pytest.mark.parametrize("kind", ["u32", "s32", "u64", "s64"])
@pytest.mark.parametrize(("pos", "length"), FIELDS)
def test_bit_field_extract(kind: str, pos: int, length: int) -> None:
    letter, values, to = ("r", EDGES, U32) if "32" in kind else ("d", WIDE, np.uint64)
    found = result(f"bfe.{kind} %{letter}9, %{letter}0, {pos}, {length};", values, to=to)
    assert found.tolist() == [extracted(int(a), pos, length, kind) for a in values]


@pytest.mark.parametrize("kind", ["b32", "b64"])
@pytest.mark.parametrize(("pos", "length"), FIELDS)
def test_bit_field_insert(kind: str, pos: int, length: int) -> None:
    wide = kind == "b64"
    letter, to = ("d", np.uint64) if wide else ("r", U32)
    a, b = (WIDE_LEFT, WIDE_RIGHT) if wide else (LEFT, RIGHT)
    found = result(f"bfi.{kind} %{letter}9, %{letter}0, %{letter}1, {pos}, {length};", a, b, to=to)
    msb = 63 if wide else 31
    expected = [inserted(int(x), int(y), pos, length, msb) for x, y in zip(a, b, strict=True)]
    assert found.tolist() == expected


@pytest.mark.parametrize("table", [0x00, 0x80, 0xFE, 0x96, 0xE8, 0x40, 0x1A, 0xFF])
def test_lop3_looks_up_each_bit(table: int) -> None:
    third = LEFT[::-1].copy()
    found = result(f"lop3.b32 %r9, %r0, %r1, %r2, {table:#x};", LEFT, RIGHT, third, to=U32)
    for a, b, c, d in zip(LEFT, RIGHT, third, found, strict=True):
        for bit in range(32):
            row = (int(a) >> bit & 1) << 2 | (int(b) >> bit & 1) << 1 | int(c) >> bit & 1
            assert int(d) >> bit & 1 == table >> row & 1


def test_lop3_of_the_ptx_isa() -> None:
    """Its example: 0x1A is (a & b | c) ^ a, since 0xF0, 0xCC and 0xAA stand for a, b and c."""
    third = LEFT[::-1].copy()
    found = result("lop3.b32 %r9, %r0, %r1, %r2, 0x1A;", LEFT, RIGHT, third, to=U32)
    np.testing.assert_array_equal(found, (LEFT & RIGHT | third) ^ LEFT)


def test_funnel_shifts() -> None:
    amounts = np.tile(np.array([0, 1, 31, 32, 33, 63], U32), len(LEFT))[: len(LEFT)]
    names = [f"shf.{way}.{mode}.b32" for way in "lr" for mode in ("wrap", "clamp")]
    text = " ".join(f"{name} %r{10 + n}, %r0, %r1, %r2;" for n, name in enumerate(names))
    found = run(text, [LEFT, RIGHT, amounts], [(f"%r{10 + n}", U32) for n in range(4)])
    for lane, (a, b, c) in enumerate(zip(LEFT, RIGHT, amounts, strict=True)):
        both = int(b) << 32 | int(a)
        wrapped, clamped = int(c) & 31, min(int(c), 32)
        assert found[0][lane] == both << wrapped >> 32 & 0xFFFFFFFF
        assert found[1][lane] == both << clamped >> 32 & 0xFFFFFFFF
        assert found[2][lane] == both >> wrapped & 0xFFFFFFFF
        assert found[3][lane] == both >> clamped & 0xFFFFFFFF


def test_prmt_chooses_bytes() -> None:
    a, b = np.array([0x83828180], U32), np.array([0x07060504], U32)
    for selector, expected in [
        (0x3210, 0x83828180), (0x7654, 0x07060504), (0x5410, 0x05048180), (0x7632, 0x07068382),
        (0x0123, 0x80818283), (0x4F8B, 0x0400FFFF), (0xC0D0, 0x00800080),
    ]:  # fmt: skip
        found = result(f"prmt.b32 %r9, %r0, %r1, {selector:#x};", a, b, to=U32)
        assert found[0] == expected, hex(selector)
