"""Matrix tiles in plain LLVM IR: what LLVM's AMX intrinsics do, for CPUs that have none.

The type of a tile is replaced by a vector of 16 rows of 16 words, and each intrinsic by a function
that follows the pseudocode of Intel 64 and IA-32 Architectures Software Developer's Manual, volume
2, chapter "Intel AMX Instruction Set Reference", but for numbers below the least normal one, which
are not flushed. Rows and bytes past those of a tile are 0, as they are in a register.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

import hypothesis.strategies as st

from gemmir import Gemm
from gemmir.backend import Artifact, Loaded
from gemmir.backends.cpu.load import assembled, load
from gemmir.machine.cpu import X86_64_V3

TILE: Final = "<256 x i32>"

MACHINE: Final = replace(
    X86_64_V3,
    name="tiles",
    llvm_features=(*X86_64_V3.llvm_features, "amx-bf16", "amx-int8", "amx-tile"),
)
"""Any x86-64 with AVX2, and tiles: all but these runs here."""

LOOPS: Final = """\
define internal {result} {name} nounwind noinline {{
entry:
{before}
  br label %row
row:
  %m = phi i64 [ 0, %entry ], [ %m.next, %row.end ]
  %first = mul i64 %m, 16
  br label %word
word:
  %k = phi i64 [ 0, %row ], [ %k.next, %word.end ]
{outer}
  br label %column
column:
  %n = phi i64 [ 0, %word ], [ %n.next, %column ]
{inner}
  %n.next = add i64 %n, 1
  %n.more = icmp slt i64 %n.next, %columns
  br i1 %n.more, label %column, label %word.end
word.end:
  %k.next = add i64 %k, 1
  %k.more = icmp slt i64 %k.next, %words
  br i1 %k.more, label %word, label %row.end
row.end:
  %m.next = add i64 %m, 1
  %m.more = icmp slt i64 %m.next, %rows
  br i1 %m.more, label %row, label %done
done:
{after}
}}
"""
"""A loop over rows m, words k of a row and columns n of the result."""

SHAPE: Final = """\
  %rows = zext i16 %r to i64
  %columns.bytes = zext i16 %c to i64
  %columns = lshr i64 %columns.bytes, 2"""

PRODUCT: Final = f"""\
  %words.bytes = zext i16 %w to i64
  %words = lshr i64 %words.bytes, 2
  %x = alloca [256 x i32]
  %y = alloca [256 x i32]
  %s = alloca [256 x i32]
  store {TILE} %lhs, ptr %x, align 4
  store {TILE} %rhs, ptr %y, align 4
  store {TILE} %acc, ptr %s, align 4"""

READ: Final = """\
  %place.x = add i64 %first, %k
  %at.x = getelementptr i32, ptr %x, i64 %place.x
  %a = load i32, ptr %at.x"""

COLUMN: Final = """\
  %begin.y = mul i64 %k, 16
  %place.y = add i64 %begin.y, %n
  %at.y = getelementptr i32, ptr %y, i64 %place.y
  %b = load i32, ptr %at.y
  %place.s = add i64 %first, %n"""

PAIRS: Final = """\
  %a.even = shl i32 %a, 16
  %a.odd = and i32 %a, -65536
  %b.even = shl i32 %b, 16
  %b.odd = and i32 %b, -65536
  %at.0 = getelementptr float, ptr %even, i64 %place.s
  %at.1 = getelementptr float, ptr %odd, i64 %place.s
  %x.0 = bitcast i32 %a.even to float
  %x.1 = bitcast i32 %a.odd to float
  %y.0 = bitcast i32 %b.even to float
  %y.1 = bitcast i32 %b.odd to float
  %old.0 = load float, ptr %at.0
  %old.1 = load float, ptr %at.1
  %new.0 = call float @llvm.fma.f32(float %x.0, float %y.0, float %old.0)
  %new.1 = call float @llvm.fma.f32(float %x.1, float %y.1, float %old.1)
  store float %new.0, ptr %at.0
  store float %new.1, ptr %at.1"""
"""Sums of the products of even and of odd places, which begin at 0."""

FLOATS: Final = "<256 x float>"


def _product(name: str, before: str, inner: str, after: str) -> str:
    types = f"i16 %r, i16 %c, i16 %w, {TILE} %acc, {TILE} %lhs, {TILE} %rhs"
    return LOOPS.format(
        result=TILE,
        name=f"@tile.{name}({types})",
        before=f"{SHAPE}\n{PRODUCT}\n{before}",
        outer=READ,
        inner=f"{COLUMN}\n{inner}",
        after=after,
    )


def _pairs() -> str:
    """tdpbf16ps."""
    before = "\n".join(
        f"  %{name} = alloca [256 x float]\n  store {FLOATS} zeroinitializer, ptr %{name}, align 4"
        for name in ("even", "odd")
    )
    after = f"""\
  %total.0 = load {FLOATS}, ptr %even, align 4
  %total.1 = load {FLOATS}, ptr %odd, align 4
  %total = fadd {FLOATS} %total.0, %total.1
  %sums = load {FLOATS}, ptr %s, align 4
  %made = fadd {FLOATS} %sums, %total
  %bits = bitcast {FLOATS} %made to {TILE}
  ret {TILE} %bits"""
    return "declare float @llvm.fma.f32(float, float, float)\n\n" + _product(
        "dpbf16ps", before, PAIRS, after
    )


def _bytes(signs: str) -> str:
    """tdpb[us][us]d: a byte is moved to the upper end of a word, and down again with its sign."""
    lines: list[str] = ["  %at.s = getelementptr i32, ptr %s, i64 %place.s"]
    lines.append("  %sum.0 = load i32, ptr %at.s")
    for number in range(4):
        for operand, sign in zip("ab", signs, strict=True):
            down = "ashr" if sign == "s" else "lshr"
            lines.append(f"  %{operand}.up.{number} = shl i32 %{operand}, {24 - 8 * number}")
            lines.append(f"  %{operand}.{number} = {down} i32 %{operand}.up.{number}, 24")
        lines.append(f"  %product.{number} = mul i32 %a.{number}, %b.{number}")
        lines.append(f"  %sum.{number + 1} = add i32 %sum.{number}, %product.{number}")
    lines.append("  store i32 %sum.4, ptr %at.s")
    after = f"  %made = load {TILE}, ptr %s, align 4\n  ret {TILE} %made"
    return _product(f"dpb{signs}d", "", "\n".join(lines), after)


def _rows(name: str, result: str, tile: str, inner: str, after: str) -> str:
    """A load or a store: words of rows in memory, and in a buffer."""
    words = "  %words = add i64 0, 1\n  %t = alloca [256 x i32]"
    place = """\
  %place.t = add i64 %first, %n
  %at.t = getelementptr i32, ptr %t, i64 %place.t
  %begin = mul i64 %m, %stride
  %row.at = getelementptr i8, ptr %p, i64 %begin
  %at.p = getelementptr i32, ptr %row.at, i64 %n
"""
    stored = f", {TILE} %v" if tile == "%v" else ""
    value = tile if tile == "%v" else "zeroinitializer"
    return LOOPS.format(
        result=result,
        name=f"@tile.{name}(i16 %r, i16 %c, ptr %p, i64 %stride{stored})",
        before=f"{SHAPE}\n{words}\n  store {TILE} {value}, ptr %t, align 4",
        outer="",
        inner=place + inner,
        after=after,
    )


FUNCTIONS: Final = "\n".join(
    (
        f"define internal {TILE} @tile.zero(i16 %r, i16 %c) nounwind {{\n"
        f"  ret {TILE} zeroinitializer\n}}\n",
        _rows(
            "loadd64",
            TILE,
            "",
            "  %word.read = load i32, ptr %at.p, align 1\n  store i32 %word.read, ptr %at.t",
            f"  %made = load {TILE}, ptr %t, align 4\n  ret {TILE} %made",
        ),
        _rows(
            "stored64",
            "void",
            "%v",
            "  %word.read = load i32, ptr %at.t\n  store i32 %word.read, ptr %at.p, align 1",
            "  ret void",
        ),
        _pairs(),
        *map(_bytes, ("ss", "su", "us", "uu")),
    )
)

INTRINSIC: Final = re.compile(r"@llvm\.x86\.t(?:ile)?(\w+)\.internal")


def without_tiles(text: str) -> str:
    """LLVM text whose tiles are vectors, and their instructions functions."""
    lines = [
        line
        for line in text.splitlines()
        if not (line.startswith("declare") and ".internal(" in line)
        and not re.match(r"@\w+_tiles = constant", line)
    ]
    body = INTRINSIC.sub(r"@tile.\1", "\n".join(lines)).replace("x86_amx", TILE)
    known = [x for x in FUNCTIONS.splitlines() if not (x.startswith("declare") and x in body)]
    return body + "\n" + "\n".join(known) + "\n"


def loaded(artifact: Artifact) -> Loaded:
    """The kernel of `artifact` for this computer, with its tiles emulated."""
    return load(assembled(without_tiles(artifact.text)), artifact.signature)


FACTORS: Final = (("bf16", None), ("i8", None), ("u8", None), ("u8", "i8"), ("i8", "u8"))
"""Element types of A and B of which there are products of tiles."""


@st.composite
def problems_in_tiles(draw: st.DrawFn) -> tuple[Gemm, str]:
    """Problems with edges in every dimension, and blocks of tiles for them."""
    dtype, dtype_b = draw(st.sampled_from(FACTORS))
    is_float = dtype == "bf16"
    gemm = Gemm(
        m=draw(st.integers(1, 70)),
        n=draw(st.integers(1, 70)),
        k=draw(st.integers(1, 150)),
        dtype=dtype,
        dtype_b=dtype_b,
        out=draw(st.sampled_from([None, "bf16"])) if is_float else None,
        alpha=draw(st.sampled_from([1.0, -2.0])),
        beta=draw(st.sampled_from([0.0, 1.0, 3.0])),
        trans_a=draw(st.booleans()),
        trans_b=draw(st.booleans()),
        epilogue=draw(st.sampled_from(["", "bias+relu"])),
    )
    return gemm, draw(schedules_in_tiles(gemm))


@st.composite
def schedules_in_tiles(draw: st.DrawFn, gemm: Gemm) -> str:
    """Blocks of up to four tiles of sums, of slices of k that are added in C or go on from it."""
    depth = 2 if gemm.dtype == "bf16" else 4
    step = 16 * depth
    rows, columns = draw(st.sampled_from([(16, 16), (32, 32), (16, 64), (48, 16)]))
    steps: list[str] = []
    carry = ""
    if draw(st.booleans()) and gemm.result is gemm.accumulator:
        size = step * draw(st.integers(1, 2))
        steps.append(f"tile{{loops=k sizes={size}}}")
        is_cut = size < gemm.k
        if is_cut and gemm.alpha == 1 and gemm.beta in (0, 1) and draw(st.booleans()):
            carry = " carry=true"
    steps.append(f"promote{{operand=b to=l2 layout=panel:{columns}x{depth}x{step}}}")
    if draw(st.booleans()):
        steps.append(f"tile{{loops=m sizes={2 * rows}}}")
    steps.append(f"promote{{operand=a to=l3 layout=panel:{rows}x{step}}}")
    steps.append(f"tile{{loops=m,n sizes={rows},{columns}}}")
    steps.append(f"promote{{operand=c to=registers{carry}}}")
    if gemm.steps and draw(st.booleans()):
        steps.append("fuse-epilogue")
    steps.append("vectorize{with=amx width=8}")
    return ",".join(steps)
