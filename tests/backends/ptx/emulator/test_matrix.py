"""mma, ldmatrix and stmatrix against the layouts that the PTX ISA gives.

The functions of a lane and of the number of an element are those of its sections "Matrix Fragments
for mma.…", in its own words: groupID is lane >> 2, threadID_in_group is lane % 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from gemmir.backends.ptx.emulator import PtxFault
from tests.backends.ptx.emulator.ptx import Array, kernel, launch

Place = Callable[[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Layout:
    """Where the element number i of a lane lies in A, B and C, and how many there are."""

    a: Place
    b: Place
    c: Place
    counts: tuple[int, int, int]
    shape: tuple[int, int, int]


def c_of_16_rows(lane: int, i: int) -> tuple[int, int]:
    row = lane >> 2 if i < 2 else (lane >> 2) + 8
    return row, (lane % 4) * 2 + (i & 0x1)


def c_of_8_rows(lane: int, i: int) -> tuple[int, int]:
    return lane >> 2, (lane % 4) * 2 + (i & 0x1)


M16N8K16_F16 = Layout(
    a=lambda lane, i: (
        lane >> 2 if 0 <= i < 2 or 4 <= i < 6 else (lane >> 2) + 8,
        (lane % 4) * 2 + (i & 1) if i < 4 else (lane % 4) * 2 + (i & 1) + 8,
    ),
    b=lambda lane, i: (
        (lane % 4) * 2 + (i & 1) if i < 2 else (lane % 4) * 2 + (i & 1) + 8,
        lane >> 2,
    ),
    c=c_of_16_rows,
    counts=(8, 4, 4),
    shape=(16, 8, 16),
)

M16N8K8_F16 = Layout(
    a=lambda lane, i: (
        lane >> 2 if i in (0, 1) else (lane >> 2) + 8,
        (lane % 4) * 2 + (i & 1),
    ),
    b=lambda lane, i: ((lane % 4) * 2 + i, lane >> 2),
    c=c_of_16_rows,
    counts=(4, 2, 4),
    shape=(16, 8, 8),
)

M16N8K8_TF32 = Layout(
    a=lambda lane, i: (
        lane >> 2 if i in (0, 2) else (lane >> 2) + 8,
        lane % 4 if i in (0, 1) else lane % 4 + 4,
    ),
    b=lambda lane, i: (lane % 4 if i == 0 else lane % 4 + 4, lane >> 2),
    c=c_of_16_rows,
    counts=(4, 2, 4),
    shape=(16, 8, 8),
)

M16N8K4 = Layout(
    a=lambda lane, i: (lane >> 2 if i == 0 else (lane >> 2) + 8, lane % 4),
    b=lambda lane, i: (lane % 4, lane >> 2),
    c=c_of_16_rows,
    counts=(2, 1, 4),
    shape=(16, 8, 4),
)

M16N8K16_F64 = Layout(
    a=lambda lane, i: (
        lane >> 2 if i % 2 == 0 else (lane >> 2) + 8,
        i * 2 + lane % 4 if i % 2 == 0 else i * 2 - 2 + lane % 4,
    ),
    b=lambda lane, i: (lane % 4 + i * 4, lane >> 2),
    c=c_of_16_rows,
    counts=(8, 4, 4),
    shape=(16, 8, 16),
)

M8N8K4_F64 = Layout(
    a=lambda lane, i: (lane >> 2, lane % 4),
    b=lambda lane, i: (lane % 4, lane >> 2),
    c=c_of_8_rows,
    counts=(1, 1, 2),
    shape=(8, 8, 4),
)

M8N8K16_S8 = Layout(
    a=lambda lane, i: (lane >> 2, (lane % 4) * 4 + i),
    b=lambda lane, i: ((lane % 4) * 4 + i, lane >> 2),
    c=c_of_8_rows,
    counts=(4, 4, 2),
    shape=(8, 8, 16),
)

M16N8K16_S8 = Layout(
    a=lambda lane, i: (lane >> 2 if i < 4 else (lane >> 2) + 8, (lane % 4) * 4 + (i & 3)),
    b=lambda lane, i: ((lane % 4) * 4 + i, lane >> 2),
    c=c_of_16_rows,
    counts=(8, 4, 4),
    shape=(16, 8, 16),
)

M16N8K32_S8 = Layout(
    a=lambda lane, i: (
        lane >> 2 if 0 <= i < 4 or 8 <= i < 12 else (lane >> 2) + 8,
        (lane % 4) * 4 + (i & 3) if i < 8 else (lane % 4) * 4 + (i & 3) + 16,
    ),
    b=lambda lane, i: (
        (lane % 4) * 4 + (i & 3) if i < 4 else (lane % 4) * 4 + (i & 3) + 16,
        lane >> 2,
    ),
    c=c_of_16_rows,
    counts=(16, 8, 4),
    shape=(16, 8, 32),
)

TYPES: dict[str, Any] = {
    "f16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "tf32": np.float32,
    "f64": np.float64,
    "f32": np.float32,
    "s8": np.int8,
    "u8": np.uint8,
    "s32": np.int32,
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
}

FORMS = [
    ("f32.f16.f16.f32", M16N8K16_F16),
    ("f16.f16.f16.f16", M16N8K16_F16),
    ("f32.bf16.bf16.f32", M16N8K16_F16),
    ("f32.f16.f16.f32", M16N8K8_F16),
    ("f16.f16.f16.f16", M16N8K8_F16),
    ("f32.bf16.bf16.f32", M16N8K8_F16),
    ("f32.tf32.tf32.f32", M16N8K8_TF32),
    ("f32.tf32.tf32.f32", M16N8K4),
    ("f64.f64.f64.f64", M8N8K4_F64),
    ("f64.f64.f64.f64", M16N8K4),
    ("f64.f64.f64.f64", M16N8K8_TF32),
    ("f64.f64.f64.f64", M16N8K16_F64),
    *((f"s32.{a}.{b}.s32", M8N8K16_S8) for a in ("s8", "u8") for b in ("s8", "u8")),
    *((f"s32.{a}.{b}.s32", M16N8K16_S8) for a in ("s8", "u8") for b in ("s8", "u8")),
    *((f"s32.{a}.{b}.s32", M16N8K32_S8) for a in ("s8", "u8") for b in ("s8", "u8")),
    *((f"f32.{a}.{b}.f32", M16N8K32_S8) for a in ("e4m3", "e5m2") for b in ("e4m3", "e5m2")),
    ("f16.e4m3.e5m2.f16", M16N8K32_S8),
    ("f32.e4m3.e4m3.f32", M16N8K16_S8),
]


def drawn(shape: tuple[int, int], kind: str, seed: int) -> Array:
    """Small whole numbers, all of which are exact in every type, and so are their sums."""
    low = 0 if kind == "u8" else -3
    return np.random.default_rng(seed).integers(low, 4, shape).astype(TYPES[kind])


def spread(matrix: Array, place: Place, count: int) -> Array:
    """The elements of each lane: a row a lane."""
    return np.array([[matrix[place(lane, i)] for i in range(count)] for lane in range(32)])


def gathered(held: Array, place: Place, shape: tuple[int, int]) -> Array:
    """The matrix whose elements are held so."""
    matrix = np.zeros(shape, held.dtype)
    for lane, row in enumerate(held):
        for i, value in enumerate(row):
            matrix[place(lane, i)] = value
    return matrix


def words(held: Array) -> Array:
    """Registers of 32 bits, or of 64 for f64."""
    return np.ascontiguousarray(held).view(np.uint64 if held.dtype == np.float64 else np.uint32)


def mma_text(name: str, a: Array, b: Array, c: Array, outputs: int) -> str:
    """A kernel that loads rows of registers from p0, p1 and p2, and stores d to p3."""
    letter, size = ("d", 8) if a.dtype == np.uint64 else ("r", 4)
    lines: list[str] = []
    lists: list[str] = []
    first = 0
    for number, held in enumerate((a, b, c)):
        count = held.shape[1]
        lines.append(f"mad.wide.u32 %d49, %r50, {count * size}, %d{50 + number};")
        lists.append("{" + ", ".join(f"%{letter}{first + i}" for i in range(count)) + "}")
        lines += [
            f"ld.global.b{8 * size} %{letter}{first + i}, [%d49+{i * size}];" for i in range(count)
        ]
        first += count
    target = "{" + ", ".join(f"%{letter}{first + i}" for i in range(outputs)) + "}"
    lines.append(f"{name} {target}, {', '.join(lists)};")
    lines.append(f"mad.wide.u32 %d49, %r50, {outputs * size}, %d53;")
    lines += [
        f"st.global.b{8 * size} [%d49+{i * size}], %{letter}{first + i};" for i in range(outputs)
    ]
    return kernel("\n".join(lines), 4)


def product(
    name: str, layout: Layout, a: Array, b: Array, c: Array, kind: str, warps: int = 1
) -> Array:
    """D of an mma, for the first of `warps` that do the same."""
    held = [
        words(spread(matrix, place, count))
        for matrix, place, count in zip(
            (a, b, c), (layout.a, layout.b, layout.c), layout.counts, strict=True
        )
    ]
    d = np.zeros((32 * warps, layout.counts[2]), TYPES[kind])
    out = words(d)
    text = mma_text(name, held[0], held[1], held[2], out.shape[1])
    launch(text, [*(np.tile(h, (warps, 1)).ravel() for h in held), out.reshape(-1)], 32 * warps)
    m, n, _ = layout.shape
    for warp in range(1, warps):
        np.testing.assert_array_equal(out[:32], out[32 * warp : 32 * warp + 32])
    return gathered(d[:32], layout.c, (m, n))


@pytest.mark.parametrize(("types", "layout"), FORMS)
def test_mma(types: str, layout: Layout) -> None:
    kind_d, kind_a, kind_b, kind_c = types.split(".")
    m, n, k = layout.shape
    a, b, c = drawn((m, k), kind_a, 1), drawn((k, n), kind_b, 2), drawn((m, n), kind_c, 3)
    found = product(f"mma.sync.aligned.m{m}n{n}k{k}.row.col.{types}", layout, a, b, c, kind_d)
    expected = a.astype(np.float64) @ b.astype(np.float64) + c.astype(np.float64)
    np.testing.assert_array_equal(found.astype(np.float64), expected)


def test_mma_of_several_warps() -> None:
    a, b, c = drawn((16, 16), "bf16", 4), drawn((16, 8), "bf16", 5), drawn((16, 8), "f32", 6)
    name = "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"
    found = product(name, M16N8K16_F16, a, b, c, "f32", warps=4)
    np.testing.assert_array_equal(found, (a.astype(np.float32) @ b.astype(np.float32)) + c)


def test_mma_of_tf32_ignores_the_lowest_13_bits() -> None:
    a, b = drawn((16, 8), "tf32", 7), drawn((8, 8), "tf32", 8)
    noisy = (a.view(np.uint32) | np.uint32(0x1FFF)).view(np.float32)
    found = product(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32",
        M16N8K8_TF32, noisy, b, np.zeros((16, 8), np.float32), "f32",
    )  # fmt: skip
    np.testing.assert_array_equal(found, a @ b)


@pytest.mark.parametrize("saturates", [False, True])
def test_mma_of_integers_wraps_around_or_saturates(saturates: bool) -> None:
    a, b = np.full((16, 32), 127, np.int8), np.full((32, 8), 127, np.int8)
    c = np.full((16, 8), 2**31 - 1, np.int32)
    word = ".satfinite" if saturates else ""
    name = f"mma.sync.aligned.m16n8k32.row.col{word}.s32.s8.s8.s32"
    found = product(name, M16N8K32_S8, a, b, c, "s32")
    wrapped = 2**31 - 1 + 32 * 127 * 127 - 2**32
    assert (found == (2**31 - 1 if saturates else wrapped)).all()


def test_mma_rounds_sums_to_the_accumulator() -> None:
    a, b = np.zeros((16, 16), np.float16), np.zeros((16, 8), np.float16)
    a[0, 0], b[0, 0] = 1, 2.0**-11
    c = np.ones((16, 8), np.float16)
    found = product(
        "mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16", M16N8K16_F16, a, b, c, "f16"
    )
    assert found[0, 0] == 1
    c = np.ones((16, 8), np.float32)
    wide = product(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", M16N8K16_F16, a, b, c, "f32"
    )
    assert wide[0, 0] == 1 + 2.0**-11


@pytest.mark.parametrize(
    "name",
    [
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.bf16.f32",
        "mma.sync.aligned.m16n8k16.row.col.f16.bf16.bf16.f16",
        "mma.sync.aligned.m16n8k16.row.row.f32.f16.f16.f32",
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f16",
        "mma.sync.aligned.m16n8k4.row.col.f32.f16.f16.f32",
        "mma.sync.aligned.m16n8k16.row.col.satfinite.f32.f16.f16.f32",
        "mma.sync.m16n8k16.row.col.f32.f16.f16.f32",
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16",
    ],
)
def test_an_unknown_form_of_mma_is_a_fault(name: str) -> None:
    held = [np.zeros((32, n), np.uint32) for n in (4, 2, 4)]
    with pytest.raises(PtxFault, match=r"GEM1001.*is not known here"):
        launch(
            mma_text(name, held[0], held[1], held[2], 4),
            [*(h.ravel() for h in held), held[0].ravel()],
        )


def test_an_mma_with_too_few_registers_is_a_fault() -> None:
    held = [np.zeros((32, n), np.uint32) for n in (4, 2, 4)]
    text = mma_text(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", held[0], held[2], held[2], 4
    )
    with pytest.raises(PtxFault, match="is not 2 registers"):
        launch(text, [held[0].ravel(), held[2].ravel(), held[2].ravel(), held[0].ravel()])


COLLECTIVES = [
    "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
    "{%r0, %r1, %r2, %r3}, {%r0, %r1, %r2, %r3}, {%r4, %r5}, {%r0, %r1, %r2, %r3};",
    "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r0}, [%r6];",
    "stmatrix.sync.aligned.m8n8.x1.shared.b16 [%r6], {%r0};",
]


@pytest.mark.parametrize("instruction", COLLECTIVES)
def test_a_collective_needs_all_lanes_of_its_warps(instruction: str) -> None:
    text = kernel(
        "".join(f"mov.b32 %r{n}, 0;\n" for n in range(6))
        + "mov.b32 %r6, tile;\nsetp.eq.u32 %p, %r50, 37;\n@%p bra over;\n"
        + instruction
        + "\nover:",
        shared=".shared .align 16 .b8 tile[128];",
    )
    with pytest.raises(PtxFault, match=r"GEM1009.*31 of 32 lanes of warp 1 are here"):
        launch(text, [], 64)


def ldmatrix(count: int, tile: Array, row_of: Callable[[int], int], trans: str = "") -> Array:
    """What each lane of a warp gets: rows of `tile` lie in shared memory, 16 bytes each."""
    rows = len(tile)
    registers = ", ".join(f"%r{n}" for n in range(count))
    body = f"""
        mov.b32 %r20, tile;
        mov.u32 %r21, 0;
    copy:
        mul.wide.u32 %d0, %r21, 16;
        add.s64 %d1, %d50, %d0;
        ld.global.v4.b32 {{%r22, %r23, %r24, %r25}}, [%d1];
        mad.lo.u32 %r26, %r21, 16, %r20;
        setp.eq.u32 %p, %r50, 0;
        @%p st.shared.v4.b32 [%r26], {{%r22, %r23, %r24, %r25}};
        add.u32 %r21, %r21, 1;
        setp.lt.u32 %p, %r21, {rows};
        @%p bra copy;
        bar.sync 0;
        mad.wide.u32 %d2, %r50, 4, %d51;
        ld.global.b32 %r27, [%d2];
        mad.lo.u32 %r28, %r27, 16, %r20;
        ldmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 {{{registers}}}, [%r28];
        mad.wide.u32 %d3, %r50, {4 * count}, %d52;
    """
    body += "".join(f"st.global.b32 [%d3+{4 * n}], %r{n};\n" for n in range(count))
    chosen = np.array([row_of(lane) for lane in range(32)], np.uint32)
    out = np.zeros(32 * count, np.uint32)
    text = kernel(body, 3, shared=f".shared .align 16 .b8 tile[{16 * rows}];")
    launch(text, [tile.view(np.uint8).ravel(), chosen, out])
    return out.view(np.uint16).reshape(32, count, 2)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_ldmatrix_gives_each_lane_two_elements_of_a_row(count: int) -> None:
    tile = np.arange(32 * 8, dtype=np.uint16).reshape(32, 8)
    found = ldmatrix(count, tile, lambda lane: lane)
    for lane in range(32):
        for number in range(count):
            row = 8 * number + lane // 4
            assert found[lane, number, 0] == tile[row, 2 * (lane % 4)]
            assert found[lane, number, 1] == tile[row, 2 * (lane % 4) + 1]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_ldmatrix_trans_gives_each_lane_two_elements_of_a_column(count: int) -> None:
    tile = np.arange(32 * 8, dtype=np.uint16).reshape(32, 8)
    found = ldmatrix(count, tile, lambda lane: lane, ".trans")
    for lane in range(32):
        for number in range(count):
            column = lane // 4
            assert found[lane, number, 0] == tile[8 * number + 2 * (lane % 4), column]
            assert found[lane, number, 1] == tile[8 * number + 2 * (lane % 4) + 1, column]


def test_ldmatrix_takes_rows_from_the_lanes_of_their_matrix() -> None:
    tile = np.arange(32 * 8, dtype=np.uint16).reshape(32, 8)
    found = ldmatrix(4, tile, lambda lane: 31 - lane)
    for lane in range(32):
        for number in range(4):
            assert found[lane, number, 0] == tile[31 - (8 * number + lane // 4), 2 * (lane % 4)]


def test_ldmatrix_ignores_the_addresses_of_the_other_lanes() -> None:
    tile = np.arange(8 * 8, dtype=np.uint16).reshape(8, 8)
    found = ldmatrix(1, tile, lambda lane: lane if lane < 8 else 1 << 20)
    assert found[31, 0, 1] == tile[7, 7]


def test_ldmatrix_past_the_end_is_a_fault() -> None:
    tile = np.zeros((8, 8), np.uint16)
    with pytest.raises(
        PtxFault, match=r"GEM1002.*thread 7.*16 bytes at 128 of the 128 bytes of tile"
    ):
        ldmatrix(1, tile, lambda lane: lane if lane != 7 else 8)


@pytest.mark.parametrize("trans", ["", ".trans"])
def test_stmatrix_is_the_way_back(trans: str) -> None:
    """What ldmatrix has loaded stmatrix stores, with the same rows and the same .trans."""
    body = f"""
        mov.b32 %r20, tile;
        mad.lo.u32 %r21, %r50, 16, %r20;
        mad.wide.u32 %d0, %r50, 16, %d50;
        ld.global.v4.b32 {{%r22, %r23, %r24, %r25}}, [%d0];
        st.shared.v4.b32 [%r21], {{%r22, %r23, %r24, %r25}};
        bar.sync 0;
        ldmatrix.sync.aligned.m8n8.x4{trans}.shared.b16 {{%r0, %r1, %r2, %r3}}, [%r21];
        bar.sync 0;
        stmatrix.sync.aligned.m8n8.x4{trans}.shared.b16 [%r21+512], {{%r0, %r1, %r2, %r3}};
        bar.sync 0;
        ld.shared.v4.b32 {{%r22, %r23, %r24, %r25}}, [%r21+512];
        mad.wide.u32 %d1, %r50, 16, %d51;
        st.global.v4.b32 [%d1], {{%r22, %r23, %r24, %r25}};
    """
    tile, out = np.arange(256, dtype=np.uint16), np.zeros(256, np.uint16)
    launch(kernel(body, 2, shared=".shared .align 16 .b8 tile[1024];"), [tile, out])
    np.testing.assert_array_equal(out, tile)


@pytest.mark.parametrize(
    ("pitch", "degree"), [(16, 1), (32, 2), (64, 4), (128, 8), (144, 1), (80, 1)]
)
def test_bank_conflicts_of_ldmatrix(pitch: int, degree: int) -> None:
    """The 8 rows of a matrix are read at once, at `pitch` bytes from one another."""
    body = f"""
        mov.b32 %r20, tile;
        mad.lo.u32 %r21, %r50, {pitch}, %r20;
        st.shared.v4.b32 [%r21], {{%r50, %r50, %r50, %r50}};
        bar.sync 0;
        ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{%r0, %r1, %r2, %r3}}, [%r21];
    """
    report = launch(kernel(body, shared=".shared .align 16 .b8 tile[8192];"), [])
    found = {access.text.split(".")[0]: access.ratio for access in report.shared}
    assert found["ldmatrix"] == degree
