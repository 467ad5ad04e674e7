"""wgmma of every type and layout, on matrices that are laid out here element by element.

The layouts are the canonical ones of CUTLASS (cute/arch/mma_sm90_desc.hpp), in its own words: units
of 16 bytes, ((8, n), 2) : ((W, SBO), LBO) K-major and ((W, n), (8, k)) : ((1, LBO), (W, SBO))
MN-major, where W is 1, 2, 4 or 8 units for no swizzle, 32, 64 or 128 bytes.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from gemmir.backends.ptx.emulator import PtxFault
from tests.backends.ptx.emulator.hopper import INIT, load, matrix_map, only, run, wait
from tests.backends.ptx.emulator.ptx import Array

DTYPES: dict[str, np.dtype[Any]] = {
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "tf32": np.dtype(np.float32),
    "e4m3": np.dtype(ml_dtypes.float8_e4m3fn),
    "e5m2": np.dtype(ml_dtypes.float8_e5m2),
    "s8": np.dtype(np.int8),
    "u8": np.dtype(np.uint8),
    "f32": np.dtype(np.float32),
    "s32": np.dtype(np.int32),
}

FIELDS = {0: 0, 128: 1, 64: 2, 32: 3}
B_AT = 32768
"""Where B begins behind A."""


def swizzle(place: int, span: int) -> int:
    """Bits 4 and on are changed by those from bit 7 on."""
    return place ^ (place >> 7 & span // 16 - 1) << 4 if span else place


def laid_out(
    matrix: Array, span: int, *, mn_major: bool, leading: int, stride: int
) -> tuple[Array, int]:
    """The bytes of a matrix, rows along m or n and columns along k, and its descriptor at 0."""
    item, wide = matrix.itemsize, max(span // 16, 1)
    found = np.zeros(32768, np.uint8)
    extent, depth = matrix.shape
    for row in range(extent):
        for column in range(depth):
            if mn_major:
                unit, byte = divmod(row * item, 16)
                if span:
                    place = unit % wide * 16 + unit // wide * leading
                    place += column % 8 * span + column // 8 * stride
                else:
                    place = unit * stride + column % 8 * 16 + column // 8 * leading
            else:
                unit, byte = divmod(column * item, 16)
                step = 16 if span else leading
                place = row % 8 * wide * 16 + row // 8 * stride + unit * step
            at = swizzle(place, span) + byte
            found[at : at + item] = matrix[row : row + 1, column].view(np.uint8)
    bits = leading >> 4 << 16 | stride >> 4 << 32 | FIELDS[span] << 62
    return found, bits


COPY = """
    mul.wide.u32 %d1, %r50, 16;
    add.u64 %d2, %d50, %d1;
    mov.b32 %r1, tile;
    mad.lo.u32 %r1, %r50, 16, %r1;
    mov.u32 %r2, 0;
copy:
    ld.global.v4.b32 {%r3, %r4, %r5, %r6}, [%d2];
    st.shared.v4.b32 [%r1], {%r3, %r4, %r5, %r6};
    add.u32 %r1, %r1, 2048;
    add.u64 %d2, %d2, 2048;
    add.u32 %r2, %r2, 1;
    setp.lt.u32 %p, %r2, 32;
    @%p bra copy;
"""
FENCE = "    fence.proxy.async;\n"
BAR = "    bar.sync 0;\n"


def descriptor(name: str, bits: int, offset: int) -> str:
    return (
        f"mov.b64 %d1, tile;\nshr.u64 %d1, %d1, 4;\nor.b64 {name}, %d1, {bits:#x};\n"
        f"add.u64 {name}, {name}, {offset >> 4};\n"
    )


def names(count: int) -> str:
    return ", ".join(f"%a{n}" for n in range(count))


def kernel(form: str, count: int, bits: tuple[int, int], last: str, *, a: str = "%d10") -> str:
    """Fill shared memory, multiply once, and write out the registers of each thread."""
    fill = "".join(f"ld.global.b32 %a{n}, [%d3+{4 * n}];\n" for n in range(count))
    write = "".join(f"st.global.b32 [%d3+{4 * n}], %a{n};\n" for n in range(count))
    return f"""
    {COPY}{FENCE}{BAR}
    {descriptor("%d10", bits[0], 0)}
    {descriptor("%d11", bits[1], B_AT)}
    mad.wide.u32 %d3, %r50, {4 * count}, %d51;
    {fill}
    setp.ne.u32 %q, {int("adds" in last)}, 0;
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.{form} {{{names(count)}}}, {a}, %d11, %q{last.replace("adds", "")};
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;
    {write}
"""


def of_sums(registers: Array, columns: int, dtype: np.dtype[Any]) -> Array:
    """Row and column of element i of a thread: PTX ISA, "Register Fragments for wgmma"."""
    each = registers.view(dtype).reshape(128, -1)
    found = np.zeros((64, columns), dtype)
    for thread in range(128):
        for i in range(each.shape[1]):
            row = 16 * (thread // 32) + (thread % 32) // 4 + 8 * (i // 2 % 2)
            found[row, 8 * (i // 4) + thread % 4 * 2 + i % 2] = each[thread, i]
    return found


def from_sums(sums: Array) -> Array:
    """The other way."""
    places = of_sums(np.arange(sums.size, dtype=np.int32), sums.shape[1], np.dtype(np.int32))
    found = np.zeros(sums.size, sums.dtype)
    found[places.ravel()] = sums.ravel()
    return found


def drawn(shape: tuple[int, int], kind: str, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    if kind in ("s8", "u8"):
        low, high = (-128, 128) if kind == "s8" else (0, 256)
        return rng.integers(low, high, shape).astype(DTYPES[kind])
    return rng.uniform(-2, 2, shape).astype(np.float32).astype(DTYPES[kind])


def exact(values: Array, kind: str) -> Array:
    if kind == "tf32":
        values = (values.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)
    return values.astype(np.float64)


def multiplied(
    a_kind: str,
    b_kind: str,
    d_kind: str,
    columns: int,
    *,
    spans: tuple[int, int] = (128, 128),
    majors: tuple[bool, bool] = (False, False),
    steps: tuple[tuple[int, int], tuple[int, int]] = ((16, 1024), (16, 1024)),
    adds: bool = True,
    signs: tuple[int, int] = (1, 1),
    more: str = "",
) -> None:
    depth = 32 // DTYPES[a_kind].itemsize
    a, b = drawn((64, depth), a_kind, 0), drawn((columns, depth), b_kind, 1)
    sums = drawn((64, columns), "s8" if d_kind == "s32" else d_kind, 2).astype(DTYPES[d_kind])
    pairs = [
        laid_out(x, span, mn_major=major, leading=leading, stride=stride)
        for x, span, major, (leading, stride) in zip((a, b), spans, majors, steps, strict=True)
    ]
    memory = np.concatenate([found for found, _ in pairs])
    registers = from_sums(sums).view(np.uint32)
    form = f"m64n{columns}k{depth}.{d_kind}.{a_kind}.{b_kind}{more}"
    last = "adds" * adds
    if d_kind != "s32":
        last += f", {signs[0]}, {signs[1]}"
        if a_kind in ("f16", "bf16"):
            last += f", {int(majors[0])}, {int(majors[1])}"
    count = registers.size // 128
    body = kernel(form, count, (pairs[0][1], pairs[1][1]), last)
    run(body, [], [memory, registers], registers=f".reg .b32 %a<{count}>;")
    total = signs[0] * signs[1] * exact(a, a_kind) @ exact(b, b_kind).T
    if adds:
        total += sums.astype(np.float64)
    if more:
        total = np.clip(total, -(2**31), 2**31 - 1)
    expected = total.astype(DTYPES[d_kind])
    np.testing.assert_array_equal(of_sums(registers, columns, DTYPES[d_kind]), expected)


@pytest.mark.parametrize(
    ("a", "b", "d"),
    [
        ("f16", "f16", "f32"), ("f16", "f16", "f16"), ("bf16", "bf16", "f32"),
        ("tf32", "tf32", "f32"), ("e4m3", "e4m3", "f32"), ("e5m2", "e4m3", "f32"),
        ("e4m3", "e5m2", "f16"), ("s8", "s8", "s32"), ("u8", "s8", "s32"), ("s8", "u8", "s32"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("columns", [8, 64])
def test_types(a: str, b: str, d: str, columns: int) -> None:
    multiplied(a, b, d, columns)


@pytest.mark.parametrize("columns", [16, 24, 96, 248, 256])
def test_columns(columns: int) -> None:
    multiplied("bf16", "bf16", "f32", columns, adds=False)


STRIDES = [(0, 256), (32, 256), (64, 512), (128, 1024), (128, 2048)]


@pytest.mark.parametrize(("span", "stride"), STRIDES)
def test_rows_along_k(span: int, stride: int) -> None:
    leading = 128 if span == 0 else 16
    both = ((leading, stride), (leading, stride))
    multiplied("f16", "f16", "f32", 64, spans=(span, span), steps=both)
    multiplied("e4m3", "e4m3", "f32", 32, spans=(span, 128), steps=(both[0], (16, 1024)))


@pytest.mark.parametrize(
    ("span", "leading", "stride"),
    [(0, 1024, 128), (32, 512, 256), (64, 1024, 512), (128, 2048, 1024), (128, 4096, 1024)],
)
@pytest.mark.parametrize("majors", [(True, False), (False, True), (True, True)])
def test_rows_along_m_and_n(
    span: int, leading: int, stride: int, majors: tuple[bool, bool]
) -> None:
    """Without swizzle the leading step is that along k, and the stride that along m or n."""
    steps = tuple((leading, stride) if major else (16, 1024) for major in majors)
    spans = tuple(span if major else 128 for major in majors)
    multiplied(
        "bf16", "bf16", "f32", 64,
        spans=(spans[0], spans[1]), majors=majors, steps=(steps[0], steps[1]),
    )  # fmt: skip


def test_signs() -> None:
    multiplied("f16", "f16", "f32", 16, signs=(-1, 1))
    multiplied("tf32", "tf32", "f32", 16, signs=(-1, -1), adds=False)


def test_integers_may_stop_at_the_ends() -> None:
    multiplied("u8", "u8", "s32", 16, more=".satfinite")


def test_a_in_registers() -> None:
    """PTX ISA, the fragment of A of m64k16: that of mma.m16n8k16 for each warp."""
    a, b = drawn((64, 16), "f16", 0), drawn((32, 16), "f16", 1)
    found, bits = laid_out(b, 128, mn_major=False, leading=16, stride=1024)
    memory = np.concatenate([np.zeros(B_AT, np.uint8), found])
    own = np.zeros((128, 8), np.float16)
    for thread in range(128):
        for i in range(8):
            row = 16 * (thread // 32) + thread % 32 // 4 + 8 * (i // 2 % 2)
            own[thread, i] = a[row, thread % 4 * 2 + i % 2 + 8 * (i // 4)]
    sums = np.zeros(64 * 32, np.float32)
    own_a = "{%f0, %f1, %f2, %f3}"
    body = kernel("m64n32k16.f32.f16.f16", 16, (bits, bits), "adds, 1, 1, 0", a=own_a)
    loads = "mad.wide.u32 %d4, %r50, 16, %d52;\nld.global.v4.b32 {%f0, %f1, %f2, %f3}, [%d4];\n"
    body = loads + body
    registers = ".reg .b32 %a<16>;\n.reg .b32 %f<4>;\n"
    run(body, [], [memory, sums, own.view(np.uint32)], registers=registers)
    expected = (a.astype(np.float64) @ b.astype(np.float64).T).astype(np.float32)
    np.testing.assert_array_equal(of_sums(sums, 32, np.dtype(np.float32)), expected)
    late = body.replace("wgmma.commit", "mov.b32 %f1, 0;\n    wgmma.commit")
    with pytest.raises(PtxFault, match=r"GEM1015.*%f1 is written while .* reads it"):
        run(late, [], [memory, sums, own.view(np.uint32)], registers=registers)
    again = body.replace("wgmma.mma", "mov.b32 %f1, 0;\n    wgmma.mma")
    with pytest.raises(PtxFault, match=r"GEM1015.*has written %f1 since its last wgmma.fence"):
        run(again, [], [memory, sums, own.view(np.uint32)], registers=registers)


BITS = 1 << 16 | 64 << 32 | 1 << 62

WRONG: dict[str, tuple[dict[str, str], str]] = {
    "nothing": ({}, ""),
    "no proxy fence": ({FENCE: ""}, "GEM1014.*the asynchronous proxy reads what thread"),
    "no barrier": ({BAR: ""}, "GEM1003.*reads what thread|GEM1004"),
    "a base offset": ({f"{BITS:#x}": f"{BITS | 1 << 49:#x}"}, "GEM1013.*has a base offset"),
    "bits of no field": ({f"{BITS:#x}": f"{BITS | 1 << 14:#x}"}, "GEM1013.*bits in no field"),
    "beyond shared memory": (
        {f"%d11, {B_AT >> 4}": "%d11, 4090"}, "GEM1013.*starts|GEM1002.*in shared memory",
    ),
    "not written": ({"%r2, 32;": "%r2, 16;"}, "GEM1004.*it multiplies byte 32768 of tile"),
    "a sum that is not there": ({"ld.global.b32 %a3": "ld.global.b32 %r9"}, "GEM1004.*%a3 is read"),
    "no group": (
        {"wgmma.commit_group.sync.aligned;": ""}, "GEM1015.*%a0 is read while the wgmma.mma_async",
    ),
    "sums that overlap": (
        {"    wgmma.commit": "wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 "
         "{%a2, %a3, %a4, %a5}, %d10, %d11, %q, 1, 1, 0, 0;\n    wgmma.commit"},
        "GEM1015.*%a2 is written while the wgmma.mma_async of line",
    ),
    "no wait": (
        {"wgmma.wait_group.sync.aligned 0;": "ret;"},
        r"GEM1016.*warp \d ends and 1 of its wgmma.mma_async are not waited for",
    ),
    "neither a group nor a wait": (
        {"wgmma.commit_group.sync.aligned;": "ret;"},
        r"GEM1016.*warp \d ends and 1 of its wgmma.mma_async are in no group",
    ),
    "threads that differ": (
        {"wgmma.fence": "cvt.u64.u32 %d9, %r50;\nand.b64 %d9, %d9, 64;\nadd.u64 %d10, %d10, %d9;\n"
         "wgmma.fence"}, "GEM1013.*(threads|warps) of .*warpgroup",
    ),
    "a lane that is missing": (
        {"wgmma.mma": "setp.eq.u32 %t, %r50, 5;\n@%t bra over;\nwgmma.mma",
         "    wgmma.commit": "over:\nwgmma.commit"}, r"GEM1009.*\d of 32 lanes of warp 0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_product_is_found(name: str, seed: int | None) -> None:
    changes, message = WRONG[name]
    body = kernel("m64n8k16.f32.f16.f16", 4, (BITS, BITS), "adds, 1, 1, 0, 0")
    for old, new in changes.items():
        assert old in body
        body = body.replace(old, new)
    arrays = [np.zeros(65536, np.uint8), np.zeros(512, np.float32)]
    registers = ".reg .b32 %a<6>;\nmov.b32 %a4, 0;\nmov.b32 %a5, 0;"
    if not message:
        run(body, [], arrays, registers=registers, seed=seed)
        return
    with pytest.raises(PtxFault, match=message):
        run(body, [], arrays, registers=registers, seed=seed)


def test_the_last_rows_of_a_need_not_be_there() -> None:
    """Their sums are no numbers; a row between others must be there."""
    body = kernel("m64n8k16.f32.f16.f16", 4, (BITS, BITS), "adds, 1, 1, 0, 0")
    arrays = [np.zeros(65536, np.uint8), np.zeros(512, np.float32)]
    for missing, rows in ((3, 48), (2, 32)):
        skip = f"setp.ne.u32 %t, %r2, {missing};\n    @%t st.shared.v4"
        text = body.replace("st.shared.v4", skip)
        if missing == 3:
            run(text, [], arrays, registers=".reg .b32 %a<4>;")
            found = of_sums(arrays[1], 8, np.dtype(np.float32))
            assert np.isnan(found[rows:]).all()
            assert not found[:rows].any()
        else:
            with pytest.raises(PtxFault, match=r"GEM1004.*it multiplies byte 4096 of tile"):
                run(text, [], arrays, registers=".reg .b32 %a<4>;")


def test_what_is_written_over_a_copy_may_lie_otherwise() -> None:
    """Only bytes that a copy wrote are known to be swizzled."""
    source = np.zeros((64, 64), np.float16)
    load_it = "mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], 8192;\nmov.u32 %r1, 0;\n" + load(
        "tile", "%r1, %r1", "bar"
    )
    copied = INIT.format(full=1, empty=1) + only("eq 0", load_it, "go") + wait("bar", "0", "full")
    plain = 128 >> 4 << 16 | 256 >> 4 << 32
    body = kernel("m64n8k16.f32.f16.f16", 4, (plain, plain), "adds, 1, 1, 0, 0")
    arrays = [np.zeros(65536, np.uint8), np.zeros(512, np.float32), source]
    maps = [matrix_map(source, "f16", (64, 64), argument=2)]
    run(copied + body, maps, arrays, registers=".reg .b32 %a<4>;")
    with pytest.raises(PtxFault, match=r"GEM1013.*says swizzle none.*with swizzle 128"):
        run(body.replace(BAR, BAR + copied), maps, arrays, registers=".reg .b32 %a<4>;")


@pytest.mark.parametrize(
    "instruction",
    [
        "MMA.m64n8k8.f32.f16.f16 FOUR, %p, 1, 1, 0, 0;",
        "MMA.m64n12k16.f32.f16.f16 FOUR, %p, 1, 1, 0, 0;",
        "MMA.m64n8k16.f16.bf16.bf16 TWO, %p, 1, 1, 0, 0;",
        "MMA.m64n8k16.f32.f16.f16 FOUR, %p, 1, 1;",
        "MMA.m64n8k16.f32.f16.f16 TWO, %p, 1, 1, 0, 0;",
        "MMA.m64n8k16.f32.f16.f16 FOUR, %p, 1, 0, 0, 0;",
        "MMA.m64n8k32.s32.s8.s8 FOUR, %p, 1, 1;",
        "MMA.m64n40k32.s32.s8.s8 FOUR, %p;",
        "wgmma.wait_group.sync.aligned %r1;",
        "wgmma.wait_group.sync.aligned 8;",
        "wgmma.fence.sync;",
    ],
)
def test_what_is_not_known_is_a_fault(instruction: str) -> None:
    words = {
        "MMA": "wgmma.mma_async.sync.aligned",
        "FOUR": "{%r0, %r1, %r2, %r3}, %d0, %d1",
        "TWO": "{%r0, %r1}, %d0, %d1",
    }
    for word, meant in words.items():
        instruction = instruction.replace(word, meant)
    with pytest.raises(PtxFault, match="GEM1001"):
        run(instruction, [], [])
