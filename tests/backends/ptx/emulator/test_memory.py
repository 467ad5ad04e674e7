"""ld and st, their bounds, alignment, traffic and races, as the PTX ISA defines them."""

from __future__ import annotations

import numpy as np
import pytest

from gemmir.backends.ptx.emulator import PtxFault, emulate
from tests.backends.ptx.emulator.ptx import HEAD, REGISTERS, kernel, launch, run

U8, U16, U32, U64 = np.uint8, np.uint16, np.uint32, np.uint64
TILE = ".shared .align 16 .b8 tile[1024];"


def test_a_wider_register_is_filled_with_the_sign_or_zeros() -> None:
    bytes_ = np.array([0x80, 0x7F, 0xFF, 0x01], U8)
    out = np.zeros(5, U32)
    text = kernel(
        """
        ld.global.u8 %r1, [%d50];
        ld.global.s8 %r2, [%d50];
        ld.global.b8 %h1, [%d50+2];
        ld.global.s16 %r3, [%d50];
        cvt.u32.u16 %r4, %h1;
        ld.global.s8 %d1, [%d50+2];
        cvt.u32.u64 %r5, %d1;
        st.global.v4.b32 [%d51], {%r1, %r2, %r3, %r4};
        st.global.b32 [%d51+16], %r5;
        """,
        2,
    )
    launch(text, [bytes_, out], threads=1)
    assert out.tolist() == [0x80, 0xFFFFFF80, 0x7F80, 0xFF, 0xFFFFFFFF]


def test_a_store_takes_the_lowest_bits() -> None:
    out = np.full(8, 0xEE, U8)
    text = kernel(
        "mov.b32 %r1, 0x12345678;\nst.global.b8 [%d50+1], %r1;\nst.global.b16 [%d50+4], %r1;", 1
    )
    launch(text, [out], threads=1)
    assert out.tolist() == [0xEE, 0x78, 0xEE, 0xEE, 0x78, 0x56, 0xEE, 0xEE]


@pytest.mark.parametrize(
    "form",
    [
        "global.v4.b16", "global.v2.b32", "global.b64", "global.nc.v4.b16",
        "global.v2.f32", "v4.u16", "global.ca.b64", "global.cg.v2.u32",
        "volatile.global.b64", "relaxed.gpu.global.b64",
        "acquire.sys.global.v2.b32", "weak.global.b64", "global.L1::no_allocate.b64",
        "global.L2::128B.b64", "global.nc.L1::evict_last.b64",
    ],
)  # fmt: skip
def test_forms_of_ld(form: str) -> None:
    registers = {"v4": "{%h0, %h1, %h2, %h3}", "v2": "{%r0, %r1}"}
    vector = next((v for v in registers if f".{v}." in f".{form}"), "")
    target = registers.get(vector, "%d0")
    pack = {"v4": "mov.b64 %d0, {%h0, %h1, %h2, %h3};", "v2": "mov.b64 %d0, {%r0, %r1};", "": ""}
    data, out = np.array([0x0123456789ABCDEF], U64), np.zeros(1, U64)
    text = kernel(f"ld.{form} {target}, [%d50];\n{pack[vector]}\nst.global.b64 [%d51], %d0;", 2)
    launch(text, [data, out], threads=1)
    assert out[0] == data[0]


@pytest.mark.parametrize(
    "form",
    [
        "global.v4.b16", "global.v2.b32", "global.b64", "b64", "global.wb.b64", "global.cs.v2.u32",
        "volatile.global.b64", "relaxed.gpu.global.b64", "release.gpu.global.v2.b32",
    ],
)  # fmt: skip
def test_forms_of_st(form: str) -> None:
    registers = {"v4": "{%h0, %h1, %h2, %h3}", "v2": "{%r0, %r1}"}
    vector = next((v for v in registers if f".{v}." in f".{form}"), "")
    unpack = {
        "v4": "mov.b64 {%h0, %h1, %h2, %h3}, %d0;",
        "v2": "mov.b64 {%r0, %r1}, %d0;",
        "": "",
    }
    data, out = np.array([0x0123456789ABCDEF], U64), np.zeros(1, U64)
    source = registers.get(vector, "%d0")
    text = kernel(f"ld.global.b64 %d0, [%d50];\n{unpack[vector]}\nst.{form} [%d51], {source};", 2)
    launch(text, [data, out], threads=1)
    assert out[0] == data[0]


@pytest.mark.parametrize(
    "instruction",
    [
        "ld.global.v8.b16 {%h0}, [%d50];",
        "ld.global.v2.b32 {%r0, %r1, %r2}, [%d50];",
        "ld.global.v4.b64 {%d0, %d1, %d2, %d3}, [%d50];",
        "ld.const.b32 %r0, [%d50];",
        "ld.relaxed.global.b32 %r0, [%d50];",
        "ld.release.gpu.global.b32 %r0, [%d50];",
        "ld.acquire.gpu.global.ca.b32 %r0, [%d50];",
        "st.acquire.gpu.global.b32 [%d50], %r50;",
        "st.global.nc.b32 [%d50], %r50;",
        "ld.global.f16 %h0, [%d50];",
        "ld.global.pred %p, [%d50];",
        "ld.global.b32 %r0, %d50;",
        "ld.param.b32 %r0, [p0];",
        "ld.param.b64 %d0, [p7];",
    ],
)
def test_what_is_not_known_is_a_fault(instruction: str) -> None:
    with pytest.raises(PtxFault, match="GEM1001"):
        launch(kernel(instruction, 1), [np.zeros(64, U8)], threads=1)


def test_parameters_are_scalars_of_any_type() -> None:
    out = np.zeros(4, U64)
    text = kernel(
        """
        ld.param.u32 %r0, [s0];
        ld.param.f64 %d0, [s1];
        ld.param.s16 %d1, [s2];
        ld.param.b8 %r1, [s3];
        cvt.u64.u32 %d2, %r0;
        cvt.u64.u32 %d3, %r1;
        st.global.v2.b64 [%d50], {%d2, %d0};
        st.global.v2.b64 [%d50+16], {%d1, %d3};
        """,
        1,
        scalars="u32 f64 s16 b8",
    )
    launch(text, [out, np.uint32(7), np.float64(0.5), np.int16(-2), np.uint8(200)], threads=1)
    assert out.tolist() == [7, np.float64(0.5).view(U64), 2**64 - 2, 200]


@pytest.mark.parametrize(
    ("arguments", "threads"),
    [([], 1), ([np.zeros(1, U8), np.int32(1)], 1), ([np.int32(1), np.int64(1)], 1)],
)
def test_a_launch_that_does_not_fit_is_a_fault(arguments: list[object], threads: int) -> None:
    text = kernel("", 1, scalars="u64")
    with pytest.raises(PtxFault, match="GEM1007"):
        launch(text, arguments, threads=threads)


def test_the_number_of_threads_must_be_that_of_the_kernel() -> None:
    text = kernel("").replace("k()", "k()\n.reqntid 64, 1, 1")
    launch(text, [], threads=64)
    with pytest.raises(PtxFault, match=r"GEM1007.*blocks of \(64, 1, 1\) threads"):
        launch(text, [], threads=32)


def test_no_more_threads_than_the_kernel_or_the_machine_allows() -> None:
    text = kernel("").replace("k()", "k()\n.maxntid 64, 2, 1")
    launch(text, [], threads=128)
    with pytest.raises(PtxFault, match=r"GEM1007.*129 threads to a block, and at most 128"):
        launch(text, [], threads=129)
    with pytest.raises(PtxFault, match=r"GEM1007.*1025 threads to a block, and at most 1024"):
        launch(kernel(""), [], threads=1025)


def test_data_that_never_changes_is_not_written_by_the_launch() -> None:
    text = kernel("st.global.u32 [%d50], 1;\nld.global.nc.u32 %r1, [%d50+{}];", 1)
    launch(text.replace("{}", "4"), [np.zeros(2, U32)], threads=1)
    with pytest.raises(PtxFault, match=r"GEM1003.*reads by .nc, .* what this launch writes"):
        launch(text.replace("{}", "0"), [np.zeros(2, U32)], threads=1)


def test_all_axes_of_a_launch() -> None:
    """The number of each thread in the grid, x fastest, from all its special registers."""
    text = kernel(
        """
        mov.u32 %r0, %ctaid.z;
        mov.u32 %r1, %nctaid.y;
        mov.u32 %r2, %ctaid.y;
        mad.lo.u32 %r0, %r0, %r1, %r2;
        mov.u32 %r1, %nctaid.x;
        mov.u32 %r2, %ctaid.x;
        mad.lo.u32 %r0, %r0, %r1, %r2;
        mov.u32 %r1, %ntid.z;
        mov.u32 %r2, %tid.z;
        mad.lo.u32 %r0, %r0, %r1, %r2;
        mov.u32 %r1, %ntid.y;
        mov.u32 %r2, %tid.y;
        mad.lo.u32 %r0, %r0, %r1, %r2;
        mov.u32 %r1, %ntid.x;
        mov.u32 %r2, %tid.x;
        mad.lo.u32 %r0, %r0, %r1, %r2;
        mul.wide.u32 %d0, %r0, 4;
        add.s64 %d0, %d50, %d0;
        st.global.u32 [%d0], %r0;
        """,
        1,
    )
    out = np.zeros(2 * 3 * 2 * 8 * 2 * 3, U32)
    emulate(text, [out], grid=(2, 3, 2), block=(8, 2, 3))
    assert out.tolist() == list(range(len(out)))


def test_warps_and_lanes_have_numbers() -> None:
    found = run(
        "mov.u32 %r1, %laneid;\nmov.u32 %r2, %warpid;",
        [np.zeros(70, U32)],
        [("%r1", U32), ("%r2", U32)],
    )
    assert found[0].tolist() == [n % 32 for n in range(70)]
    assert found[1].tolist() == [n // 32 for n in range(70)]


OUTSIDE = [
    ("ld.global.b32 %r0, [%d50+16];", "4 bytes at 16 of the 16 bytes of p0 in global memory"),
    ("ld.global.b32 %r0, [%d50+-4];", "4 bytes at the address 0xffffc, outside any buffer"),
    ("ld.global.v4.b32 {%r0, %r1, %r2, %r3}, [%d51+-16];", "of the 16 bytes of p0"),
    ("st.global.b64 [%d51+16], %d50;", "8 bytes at 16 of the 16 bytes of p1"),
    ("st.shared.b32 [tile+1024], %r50;", "4 bytes at 1024 of the 1024 bytes of tile in shared"),
    ("ld.shared.b32 %r0, [0];", "the address 0x0, outside any buffer"),
    ("ld.global.b32 %r0, [%d50+2];", "is no multiple of 4"),
    ("ld.global.v4.b32 {%r0, %r1, %r2, %r3}, [%d50+8];", "is no multiple of 16"),
    ("st.shared.v2.b16 [tile+2], {%h0, %h0};", "is no multiple of 4"),
]  # fmt: skip


@pytest.mark.parametrize(("instruction", "message"), OUTSIDE)
def test_an_access_outside_or_misaligned_is_a_fault(instruction: str, message: str) -> None:
    text = kernel(f"mov.b16 %h0, 0;\n{instruction}", 2, shared=TILE)
    with pytest.raises(PtxFault, match="GEM1002") as caught:
        launch(text, [np.zeros(16, U8), np.zeros(16, U8)], threads=1)
    assert message in str(caught.value)


def test_a_fault_names_block_thread_line_and_instruction() -> None:
    text = kernel(
        "mul.wide.u32 %d0, %r50, 4;\nadd.s64 %d0, %d0, %d50;\nld.global.b32 %r0, [%d0];", 1
    )
    line = text[: text.index("ld.global.b32")].count("\n") + 1
    with pytest.raises(PtxFault) as caught:
        launch(text, [np.zeros(7, U32)], threads=8)
    assert f"block (0, 0, 0), thread 7, line {line} (ld.global.b32 %r0, [%d0])" in str(caught.value)


def test_memory_before_a_fault_is_written() -> None:
    out = np.zeros(4, U32)
    with pytest.raises(PtxFault):
        launch(
            kernel("st.global.u32 [%d50], 5;\nld.global.b32 %r0, [%d50+999];", 1), [out], threads=1
        )
    assert out[0] == 5


def test_threads_may_address_different_buffers() -> None:
    a, b, out = np.array([1], U32), np.array([2], U32), np.zeros(2, U32)
    text = kernel(
        """
        setp.eq.u32 %p, %r50, 0;
        selp.b64 %d0, %d50, %d51, %p;
        ld.global.b32 %r0, [%d0];
        mad.wide.u32 %d1, %r50, 4, %d52;
        st.global.b32 [%d1], %r0;
        """,
        3,
    )
    launch(text, [a, b, out], threads=2)
    assert out.tolist() == [1, 2]


def test_shared_memory_that_was_never_written_is_a_fault() -> None:
    text = kernel(
        "st.shared.b32 [tile+4], %r50;\nld.shared.v2.b32 {%r0, %r1}, [tile];", shared=TILE
    )
    with pytest.raises(
        PtxFault, match=r"GEM1004.*8 bytes at 0 of tile in shared memory were never"
    ):
        launch(text, [], threads=1)


def test_global_memory_that_holds_nothing_yet_is_a_fault() -> None:
    """What one launch writes the next one may read."""
    given, room = np.arange(4, dtype=U32), np.zeros(4, U32)
    blank = {1: np.ones(16, np.bool_)}
    store = kernel("mad.wide.u32 %d0, %r50, 4, %d51;\nst.global.u32 [%d0], %r50;", 2)
    load = kernel("ld.global.u32 %r0, [%d50];\nld.global.v4.u32 {%r0, %r1, %r2, %r3}, [%d51];", 2)
    with pytest.raises(PtxFault, match=r"GEM1004.*16 bytes at 0 of p1 in global memory were never"):
        launch(load, [given, room], threads=1, blank=blank)
    launch(store, [given, room], threads=3, blank=blank)
    assert blank[1].tolist() == [False] * 12 + [True] * 4
    with pytest.raises(PtxFault, match="GEM1004"):
        launch(load, [given, room], threads=1, blank=blank)
    launch(store, [given, room], threads=4, blank=blank)
    launch(load, [given, room], threads=1, blank=blank)


def test_an_address_of_32_bits_is_a_sum_of_32_bits() -> None:
    """A register of less than 0 and a number that leads back, and the other way round."""
    out = np.zeros(2, U32)
    text = kernel(
        """
        mov.b32 %r0, tile;
        st.shared.v2.b32 [tile+8], {7, 9};
        sub.s32 %r1, %r0, 4096;
        add.s32 %r2, %r0, 4096;
        ld.shared.b32 %r3, [%r1+4104];
        ld.shared.b32 %r4, [%r2+-4084];
        st.global.v2.b32 [%d50], {%r3, %r4};
        """,
        1,
        shared=TILE,
    )
    launch(text, [out], threads=1)
    assert out.tolist() == [7, 9]


def test_shared_memory_begins_anew_with_each_block() -> None:
    text = kernel(
        """
        mov.u32 %r0, %ctaid.x;
        setp.ne.u32 %p, %r0, 0;
        @%p bra later;
        st.shared.b32 [tile], %r50;
    later:
        ld.shared.b32 %r1, [tile];
        """,
        shared=TILE,
    )
    launch(text, [], threads=1)
    with pytest.raises(PtxFault, match=r"GEM1004.*block \(1, 0, 0\)"):
        launch(text, [], threads=1, blocks=2)


def test_a_register_that_was_never_written_is_a_fault() -> None:
    with pytest.raises(PtxFault, match=r"GEM1004.*%r1 is read and was never written"):
        launch(kernel("add.u32 %r0, %r1, 1;"), [])
    text = kernel("setp.lt.u32 %p, %r50, 9;\n@%p mov.u32 %r1, 0;\nadd.u32 %r0, %r1, 1;")
    with pytest.raises(PtxFault, match=r"GEM1004.*thread 9"):
        launch(text, [])


def test_variables_lie_behind_one_another_as_aligned() -> None:
    shared = ".shared .align 1 .b8 a[3];\n.shared .align 16 .b8 b[16];\n.shared .b32 c;\n"
    text = kernel(
        """
        st.shared.b8 [a+2], 1;
        st.shared.v4.b32 [b], {%r50, %r50, %r50, %r50};
        st.shared.b32 [c], 5;
        ld.shared.b32 %r1, [b+12];
        st.global.b32 [%d50], %r1;
        """,
        1,
        shared=shared,
    )
    out = np.ones(1, U32)
    launch(text, [out], threads=1)
    assert out[0] == 0
    with pytest.raises(PtxFault, match="4 bytes at 4 of the 4 bytes of c"):
        launch(text.replace("[c]", "[c+4]"), [out], threads=1)


DYNAMIC = ".extern .shared .align 16 .b8 dynamic[];\n"


def test_shared_memory_that_the_launch_sizes() -> None:
    """It lies behind what the kernel declares."""
    body = """
        mov.b32 %r0, dynamic;
        mad.lo.u32 %r0, %r50, 4, %r0;
        st.shared.b32 [%r0], %r50;
        ld.shared.b32 %r1, [%r0];
        setp.eq.u32 %p, %r50, 0;
        @%p st.shared.b32 [tile+1020], 1;
    """
    text = kernel(body, shared=TILE).replace(HEAD, HEAD + DYNAMIC)
    launch(text, [], threads=32, shared_bytes=128)
    with pytest.raises(PtxFault, match=r"GEM1002.*thread 31.*of the 124 bytes of dynamic"):
        launch(text, [], threads=32, shared_bytes=124)
    with pytest.raises(PtxFault, match=r"GEM1002.*thread 0.*of the 0 bytes of dynamic"):
        launch(text, [], threads=32)


def test_generic_addresses_reach_shared_and_global_memory() -> None:
    out = np.zeros(2, U32)
    text = kernel(
        """
        mov.b64 %d0, tile;
        cvta.shared.u64 %d1, %d0;
        st.b32 [%d1], 7;
        ld.shared.b32 %r0, [%d0];
        cvta.to.global.u64 %d2, %d50;
        st.global.b32 [%d2], %r0;
        ld.b32 %r1, [%d1];
        cvta.to.shared.u64 %d3, %d1;
        ld.shared.b32 %r2, [%d3];
        add.u32 %r1, %r1, %r2;
        st.b32 [%d50+4], %r1;
        """,
        1,
        shared=TILE,
    )
    launch(text, [out], threads=1)
    assert out.tolist() == [7, 14]


@pytest.mark.parametrize(
    ("stride", "width", "degree"),
    [(4, 4, 1), (8, 4, 2), (128, 4, 32), (132, 4, 1), (0, 4, 1), (16, 16, 1), (32, 16, 2),
     (8, 8, 1), (2, 2, 1)],
)  # fmt: skip
def test_bank_conflicts(stride: int, width: int, degree: int) -> None:
    """32 banks of 4 bytes serve a warp at 4 bytes at once, half of it at 8, a quarter at 16."""
    vectors = {2: "b16 [%r0], %h0", 4: "b32 [%r0], %r50", 8: "v2.b32 [%r0], {%r50, %r50}",
               16: "v4.b32 [%r0], {%r50, %r50, %r50, %r50}"}  # fmt: skip
    guard = "setp.eq.u32 %p, %r50, 0;\n@%p " if stride == 0 else ""
    text = kernel(
        f"mov.b16 %h0, 0;\nmov.b32 %r1, wide;\nmad.lo.u32 %r0, %r50, {stride}, %r1;\n{guard}"
        f"st.shared.{vectors[width]};",
        shared=".shared .align 16 .b8 wide[8192];",
    )
    report = launch(text, [])
    assert report.worst_bank_conflict == degree
    assert [(a.runs, a.ratio) for a in report.shared] == [(1, degree)]


def test_a_broadcast_has_no_conflict() -> None:
    text = kernel(
        """
        setp.eq.u32 %p, %r50, 0;
        @%p st.shared.b32 [tile], 1;
        bar.sync 0;
        ld.shared.b32 %r0, [tile];
        """,
        shared=TILE,
    )
    assert launch(text, []).worst_bank_conflict == 1


@pytest.mark.parametrize(("stride", "ratio"), [(4, 1), (8, 2), (32, 8), (64, 8), (0, 1)])
def test_sectors(stride: int, ratio: int) -> None:
    """Sectors of 32 bytes that a warp touches, over those that 32 adjacent values need."""
    text = kernel(f"mad.wide.u32 %d0, %r50, {stride}, %d50;\nld.global.b32 %r0, [%d0];", 1)
    report = launch(text, [np.zeros(32 * 64, U8)])
    assert [a.ratio for a in report.global_] == [ratio]


def test_sectors_of_threads_that_read_the_same() -> None:
    """Two values at 64 bytes from one another need one sector, and touch two."""
    text = kernel(
        "shr.u32 %r0, %r50, 4;\nmad.wide.u32 %d0, %r0, 64, %d50;\nld.global.b32 %r1, [%d0];", 1
    )
    assert [a.ratio for a in launch(text, [np.zeros(128, U8)]).global_] == [2]


def test_the_report_counts_threads() -> None:
    text = kernel("setp.lt.u32 %p, %r50, 5;\n@%p add.u32 %r0, %r50, 1;\nadd.u32 %r1, %r50, 1;")
    report = launch(text, [], threads=64, blocks=3)
    assert report.instructions["add"] == 3 * (5 + 64)
    assert report.instructions["ret"] == 3 * 64


def test_comments_do_not_move_lines() -> None:
    text = kernel("// one\n/* two\nthree */ ld.global.b32 %r0, [0]; // four", 0)
    line = text[: text.index("ld.global.b32")].count("\n") + 1
    with pytest.raises(PtxFault, match=f"line {line} "):
        launch(text, [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the text has 0 entries: none"),
        (kernel("")[:-3], "the body of k does not end"),
        (kernel("add.u32 %r0, %r0, 1"), "add.u32 %r0, %r0, 1"),
        (kernel("bra nowhere;"), "there is no label nowhere"),
        (kernel(".reg b32 x;"), "declares no registers"),
        (kernel("= 5;"), "is no instruction"),
        (kernel("").replace("k()", "k(.param .align 8 .b8 p[16])"), "is no scalar"),
        (kernel("") + kernel("").replace(".entry k", ".entry l"), "the text has 2 entries: k, l"),
    ],
)
def test_text_that_is_no_ptx_is_a_fault(text: str, message: str) -> None:
    with pytest.raises(PtxFault, match="GEM1001") as caught:
        launch(text, [])
    assert message in str(caught.value)


def test_a_kernel_is_chosen_by_its_name() -> None:
    body = f"{REGISTERS}ld.param.u64 %d50, [p0];\nst.global.u32 [%d50]"
    text = HEAD + "".join(
        f".visible .entry {name}(.param .u64 p0)\n{{\n{body}, {value};\nret;\n}}\n"
        for name, value in (("a", 1), ("b", 2))
    )
    out = np.zeros(1, U32)
    launch(text, [out], threads=1, kernel="b")
    assert out[0] == 2
    with pytest.raises(PtxFault, match="the text has 0 entries c: a, b"):
        launch(text, [out], threads=1, kernel="c")
