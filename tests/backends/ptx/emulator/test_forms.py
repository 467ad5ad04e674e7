"""Moves between registers, and what is wrong with an instruction and its operands."""

from __future__ import annotations

import numpy as np
import pytest

from gemmir.backends.ptx.emulator import PtxFault
from tests.backends.ptx.emulator.ptx import kernel, launch, run

U32 = np.uint32


def test_registers_are_packed_and_unpacked() -> None:
    """The first of a list is the lowest part."""
    found = run(
        """
        mov.b32 {%h0, %h1}, %r0;
        mov.b32 %r1, {%h1, %h0};
        mov.b64 %d1, {%r0, %r1};
        mov.b64 {%r2, %r3}, %d1;
        mov.b64 {%h2, %h3, %h4, %h5}, %d1;
        mov.b32 %r4, {%h5, %h2};
        """,
        [np.array([0x11223344], U32)],
        [("%h0", np.uint16), ("%r1", U32), ("%d1", np.uint64), ("%r3", U32), ("%r4", U32)],
    )
    assert [hex(int(f[0])) for f in found] == [
        "0x3344", "0x33441122", "0x3344112211223344", "0x33441122", "0x33443344",
    ]  # fmt: skip


def test_a_part_can_be_dropped() -> None:
    """LLVM takes one half with a register of its own scope, or with `_`."""
    text = """
        { .reg .b16 tmp; mov.b32 {tmp, %h1}, %r0; }
        { .reg .b16 tmp; mov.b32 {%h0, tmp}, %r0; }
        mov.b32 {_, %h2}, %r0;
    """
    found = run(text, [np.array([0x11223344], U32)], [(f"%h{n}", np.uint16) for n in range(3)])
    assert [int(f[0]) for f in found] == [0x3344, 0x1122, 0x1122]


def test_a_part_that_is_never_written_is_no_number() -> None:
    """LLVM packs one beside what it wants, and shifts it out again."""
    text = "mov.b32 %r1, {%h7, %h0};\nshr.u32 %r2, %r1, 16;\nmov.b32 %r3, {%h0, %h7};"
    found = run(
        text, [np.array([0x3F80], np.uint16)], [("%r2", U32), ("%r3", U32)], registers=["%h0"]
    )
    assert [hex(int(f[0])) for f in found] == ["0x3f80", "0xffff3f80"]
    written = "setp.eq.u32 %p, 1, 0;\n@%p mov.b16 %h7, 1;\n" + text
    with pytest.raises(PtxFault, match=r"GEM1004.*%h7 is read and was never written"):
        run(written, [np.array([0x3F80], np.uint16)], [("%r2", U32)], registers=["%h0"])


def test_registers_of_a_scope_are_its_own() -> None:
    text = """
        .reg .b32 x;
        mov.b32 x, 1;
        { .reg .b16 x; mov.b16 x, 7;
          { .reg .b64 x; mov.b64 x, 9; mov.b64 %d1, x; }
          mov.b16 %h1, x; }
        add.u32 %r1, x, 1;
    """
    outputs: list[tuple[str, type[np.generic]]] = [
        ("%d1", np.uint64),
        ("%h1", np.uint16),
        ("%r1", U32),
    ]
    assert [int(f[0]) for f in run(text, [np.zeros(1, U32)], outputs)] == [9, 7, 2]


UNKNOWN = [
    "frobnicate.u32 %r1, %r0;",
    "add.rz.f32 %r1, %r0, %r0;",
    "add.sat.u32 %r1, %r0, %r0;",
    "add.f33 %r1, %r0, %r0;",
    "fma.f32 %r1, %r0, %r0, %r0;",
    "div.f32 %r1, %r0, %r0;",
    "ex2.f32 %r1, %r0;",
    "min.relu.f32 %r1, %r0, %r0;",
    "mul.u32 %r1, %r0, %r0;",
    "mul24.wide.u32 %d1, %r0, %r0;",
    "setp.lt.foo.u32 %p, %r0, %r0, %p;",
    "setp.weird.u32 %p, %r0, %r0;",
    "setp.lt.ftz.u32 %p, %r0, %r0;",
    "prmt.b32.f4e %r1, %r0, %r0, %r0;",
    "lop3.b32 %r1, %r0, %r0, %r0, %r0;",
    "bfe.b32 %r1, %r0, 0, 1;",
    "shf.l.b32 %r1, %r0, %r0, 1;",
    "selp.rn.b32 %r1, %r0, %r0, %p;",
    "mov.b32.x %r1, %r0;",
    "cvta.to.local.u64 %d1, %d0;",
    "call.uni foo, (%r1);",
    "ld.local.b32 %r1, [%d0];",
    "set.lt.f64.u32 %d1, %r0, %r0;",
    "clz.u32 %r1, %r0;",
    "min.xorsign.abs.f32 %r1, %r0, %r0;",
    "fma.rn.relu.f16 %h1, %h0, %h0, %h0;",
]


@pytest.mark.parametrize("instruction", UNKNOWN)
def test_what_is_not_known_is_a_fault(instruction: str) -> None:
    """Even where no thread comes to it."""
    text = kernel(f"bra over;\n{instruction}\nover:")
    with pytest.raises(PtxFault, match=r"GEM1001: line \d+ \(") as caught:
        launch(text, [])
    assert instruction.rstrip(";") in str(caught.value)


@pytest.mark.parametrize(
    "instruction",
    [
        "add.u32 %r1, %r0;",
        "mov.b32 %r1, %r0, %r0;",
        "fma.rn.f32 %r1, %r0, %r0;",
        "selp.b32 %r1, 0, 1;",
    ],
)
def test_the_number_of_operands_is_checked(instruction: str) -> None:
    with pytest.raises(PtxFault, match=r"GEM1001.*operands"):
        launch(kernel(instruction), [])


@pytest.mark.parametrize(
    ("instruction", "message"),
    [
        ("add.u32 %d1, %r50, 1;", "%d1 is a .b64 register, not of .u32"),
        ("add.u32 %r1, %h0, 1;", "%h0 is a .b16 register, not of .u32"),
        ("mov.b32 {%h0, %r1}, %r50;", "%r1 is a .b32 register, not of .b16"),
        ("mov.b32 {%h0, %h1, %h2}, %r50;", "has no 3 parts"),
        ("and.pred %p, %p, %r50;", "%r50 is a .b32 register, not of .pred"),
        ("add.u32 %x, %r50, 1;", "%x is no register"),
        ("add.u32 %r1, %x, 1;", "%x is no register, symbol or number"),
        ("mov.b32 %r1, 0f0000;", "has 4 digits"),
        ("mov.u64 %d1, %tid.x;", "%tid.x has 32 bits"),
    ],
)
def test_operands_have_the_types_of_their_instruction(instruction: str, message: str) -> None:
    with pytest.raises(PtxFault, match="GEM1001") as caught:
        launch(kernel(instruction), [])
    assert message in str(caught.value)


def test_a_register_with_a_type_keeps_it() -> None:
    text = kernel(".reg .f32 %f<2>;\nmov.f32 %f0, 0f3F800000;\nadd.s32 %r0, %f0, 1;")
    with pytest.raises(PtxFault, match=r"%f0 is a .f32 register, not of .s32"):
        launch(text, [])


def test_a_symbol_may_have_an_offset() -> None:
    out = np.zeros(2, U32)
    text = kernel(
        """
        .shared .align 4 .b8 tile[16];
        mov.b32 %r0, tile;
        mov.b32 %r1, tile+8;
        sub.u32 %r2, %r1, %r0;
        mov.b64 %d1, tile+-4;
        cvt.u32.u64 %r3, %d1;
        sub.u32 %r3, %r0, %r3;
        st.global.v2.b32 [%d50], {%r2, %r3};
        """,
        1,
    )
    launch(text, [out], threads=1)
    assert out.tolist() == [8, 4]


def test_literals() -> None:
    found = run(
        """
        mov.b32 %r1, 0f3F800000;
        mov.b64 %d1, 0d3FF0000000000000;
        mov.b32 %r2, -1;
        mov.u32 %r3, 7U;
        add.rn.f32 %r4, %r1, 0f40000000;
        mov.b16 %h1, 0x3C00;
        """,
        [np.array([0], U32)],
        [
            ("%r1", U32),
            ("%d1", np.uint64),
            ("%r2", U32),
            ("%r3", U32),
            ("%r4", np.float32),
            ("%h1", np.uint16),
        ],
    )
    assert [f[0] for f in found] == [0x3F800000, 0x3FF0000000000000, 2**32 - 1, 7, 3.0, 0x3C00]
