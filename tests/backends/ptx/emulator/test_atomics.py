"""atom and red, fences and what blocks learn of one another, as the PTX ISA defines them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from gemmir.backends.ptx.emulator import PtxFault
from tests.backends.ptx.emulator.ptx import Array, kernel, launch

U32, U64 = np.uint32, np.uint64

CASES: list[tuple[str, Any, int | float, list[int] | list[float], int | float]] = [
    ("add.u32", U32, 5, [1, 2, 3, 4], 15),
    ("add.s32", np.int32, -5, [1, 2, 3, -4], -3),
    ("add.u64", U64, 2**40, [1, 2, 3, 4], 2**40 + 10),
    ("add.f32", np.float32, 0.5, [1, 2, 3, 4], 10.5),
    ("add.f64", np.float64, 0.5, [1, 2, 3, 4], 10.5),
    ("add.noftz.f16", np.float16, 0.5, [1, 2, 3, 4], 10.5),
    ("add.noftz.bf16", ml_dtypes.bfloat16, 0.5, [1, 2, 3, 4], 10.5),
    ("min.s32", np.int32, 5, [9, -2, 3, 4], -2),
    ("min.u32", U32, 5, [9, 2**32 - 2, 3, 4], 3),
    ("max.s64", np.int64, -5, [-9, -2, -3, -4], -2),
    ("and.b32", U32, 0xFF, [0xF7, 0xFE, 0xFF, 0x7F], 0x76),
    ("or.b64", U64, 1, [2, 4, 8, 2**60], 2**60 + 15),
    ("xor.b32", U32, 1, [1, 2, 4, 8], 14),
    ("exch.b32", U32, 1, [2, 3, 4, 5], 5),
    ("inc.u32", U32, 1, [2, 2, 2, 2], 2),
    ("dec.u32", U32, 1, [2, 2, 2, 2], 0),
]


RULES: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda r, s: r + s,
    "and": lambda r, s: r & s,
    "dec": lambda r, s: s if r == 0 or r > s else r - 1,
    "exch": lambda r, s: s,
    "inc": lambda r, s: 0 if r >= s else r + 1,
    "max": lambda r, s: max(r, s),
    "min": lambda r, s: min(r, s),
    "or": lambda r, s: r | s,
    "xor": lambda r, s: r ^ s,
}


def letter(kind: Any) -> str:
    return {2: "h", 4: "r", 8: "d"}[np.dtype(kind).itemsize]


@pytest.mark.parametrize(("name", "kind", "start", "given", "last"), CASES)
def test_each_lane_gets_what_the_one_before_left(
    name: str, kind: Any, start: float, given: list[float], last: float
) -> None:
    """Lanes take turns: what they got, and what is left, is one after another."""
    size, register = np.dtype(kind).itemsize, letter(kind)
    cell, values, out = np.array([start], kind), np.array(given, kind), np.zeros(4, kind)
    text = kernel(
        f"""
        mul.wide.u32 %d40, %r50, {size};
        add.s64 %d41, %d51, %d40;
        add.s64 %d42, %d52, %d40;
        ld.global.b{8 * size} %{register}1, [%d41];
        atom.global.{name} %{register}2, [%d50], %{register}1;
        st.global.b{8 * size} [%d42], %{register}2;
        """,
        3,
    )
    launch(text, [cell, values, out], threads=4)
    rule, held = RULES[name.split(".")[0]], start
    for lane, value in enumerate(given):
        assert out[lane] == held
        held = rule(held, value)
    assert cell[0] == held == last


def test_compare_and_swap() -> None:
    """Thread n writes n + 1 where it finds n: each finds what the one before wrote."""
    cell, out = np.zeros(1, U32), np.zeros(8, U32)
    text = kernel(
        """
        add.u32 %r1, %r50, 1;
        atom.acq_rel.gpu.global.cas.b32 %r2, [%d50], %r50, %r1;
        mad.wide.u32 %d0, %r50, 4, %d51;
        st.global.u32 [%d0], %r2;
        """,
        2,
    )
    launch(text, [cell, out], threads=8)
    assert cell[0] == 8
    assert out.tolist() == list(range(8))
    cell[:] = 3
    launch(text, [cell, out], threads=2)
    assert cell[0] == 3


def test_pairs_are_added() -> None:
    cell = np.array([1, 2], np.float16)
    text = kernel("mov.b32 %r1, 0x3C004000;\nred.global.add.noftz.f16x2 [%d50], %r1;", 1)
    launch(text, [cell], threads=3)
    assert cell.tolist() == [1 + 3 * 2, 2 + 3 * 1]


def test_reductions_in_shared_memory() -> None:
    out = np.zeros(1, U32)
    text = kernel(
        """
        setp.eq.u32 %p, %r50, 0;
        @%p st.shared.u32 [cell], 0;
        bar.sync 0;
        red.shared.add.u32 [cell], %r50;
        bar.sync 0;
        ld.shared.u32 %r1, [cell];
        @%p st.global.u32 [%d50], %r1;
        """,
        1,
        shared=".shared .align 4 .b8 cell[4];",
    )
    launch(text, [out], threads=64)
    assert out[0] == sum(range(64))


def test_a_sum_of_f32_in_global_memory_flushes_subnormals() -> None:
    cell = np.array([1e-40], np.float32)
    launch(kernel("red.global.add.f32 [%d50], 0f00000000;", 1), [cell], threads=1)
    assert cell[0] == 0


def test_blocks_add_to_one_cell() -> None:
    cell = np.zeros(1, np.float32)
    launch(kernel("red.relaxed.gpu.global.add.f32 [%d50], 0f3F800000;", 1), [cell], 32, blocks=3)
    assert cell[0] == 96


@pytest.mark.parametrize(
    "instruction",
    [
        "atom.global.sub.u32 %r1, [%d50], %r50;",
        "atom.global.add.f16 %h1, [%d50], %h0;",
        "atom.global.and.u32 %r1, [%d50], %r50;",
        "atom.global.inc.s32 %r1, [%d50], %r50;",
        "red.global.exch.b32 [%d50], %r50;",
        "atom.local.add.u32 %r1, [%d50], %r50;",
        "atom.global.add.v2.f32 {%r1, %r2}, [%d50], {%r50, %r50};",
        "membar.weird;",
        "fence.acq_rel;",
        "fence.proxy.alias;",
    ],
)
def test_what_is_not_known_is_a_fault(instruction: str) -> None:
    with pytest.raises(PtxFault, match="GEM1001"):
        launch(kernel(instruction, 1), [np.zeros(4, U32)])


def test_an_atomic_races_with_a_plain_access() -> None:
    """Not with its own thread's, which come before it."""
    text = "st.shared.u32 [cell], 0;\nred.shared.add.u32 [cell], 1;\n{}ld.shared.u32 %r1, [cell];"
    shared = ".shared .align 4 .b8 cell[4];"
    guarded = text.replace("st.shared", "setp.eq.u32 %p, %r50, 0;\n@%p st.shared")
    with pytest.raises(PtxFault, match=r"GEM1003.*thread 1,.*reads what thread 0 writes"):
        launch(kernel(guarded, shared=shared), [])
    fenced = guarded.replace("0;\nred", "0;\nbar.sync 0;\nred")
    launch(kernel(fenced.format("bar.sync 0;\n"), shared=shared), [])
    with pytest.raises(PtxFault, match=r"GEM1003.*reads what another thread writes"):
        launch(kernel(fenced.format(""), shared=shared), [])


def test_a_misaligned_or_unwritten_atomic_is_a_fault() -> None:
    with pytest.raises(PtxFault, match="GEM1002"):
        launch(kernel("red.global.add.u32 [%d50+2], 1;", 1), [np.zeros(4, U32)])
    shared = ".shared .align 4 .b8 cell[4];"
    with pytest.raises(PtxFault, match="GEM1004"):
        launch(kernel("red.shared.add.u32 [cell], 1;", shared=shared), [])


SEMAPHORE = """
    mov.u32 %r0, %ctaid.x;
    setp.ne.u32 %p, %r0, 0;
    mad.wide.u32 %d0, %r50, 4, %d51;
    @%p bra second;
    st.global.u32 [%d0], %r50;
    {arrive}
    setp.eq.u32 %q, %r50, 0;
    {release}
    ret;
second:
    setp.eq.u32 %q, %r50, 0;
    {acquire}
    {depart}
    ld.global.u32 %r2, [%d0];
"""
"""The first block writes and releases; the second acquires and reads what it wrote."""

PARTS = {
    "arrive": "bar.sync 0;",
    "release": "@%q red.release.gpu.global.add.u32 [%d50], 1;",
    "acquire": "@%q ld.acquire.gpu.global.u32 %r1, [%d50];",
    "depart": "bar.sync 0;",
}


def semaphore(**changes: str) -> None:
    text = kernel(SEMAPHORE.format(**{**PARTS, **changes}), 2)
    arrays: list[Array] = [np.zeros(1, U32), np.zeros(64, U32)]
    launch(text, arrays, threads=64, blocks=2)


ORDERED = [
    {},
    {"release": "@%q st.release.gpu.global.u32 [%d50], 1;"},
    {"release": "@%q atom.acq_rel.sys.global.add.u32 %r1, [%d50], 1;"},
    {"release": "membar.gl;\n@%q red.global.add.u32 [%d50], 1;"},
    {"release": "fence.acq_rel.gpu;\n@%q st.relaxed.gpu.global.u32 [%d50], 1;"},
    {"release": "fence.sc.sys;\n@%q st.volatile.global.u32 [%d50], 1;"},
    {"acquire": "@%q ld.relaxed.gpu.global.u32 %r1, [%d50];\nfence.acq_rel.gpu;"},
    {"acquire": "@%q ld.volatile.global.u32 %r1, [%d50];\nmembar.sys;"},
    {"acquire": "@%q atom.acquire.gpu.global.add.u32 %r1, [%d50], 0;"},
]
UNORDERED = [
    {"arrive": ""},
    {"depart": ""},
    {"acquire": ""},
    {"release": ""},
    {"release": "@%q red.global.add.u32 [%d50], 1;"},
    {"release": "membar.cta;\n@%q red.global.add.u32 [%d50], 1;"},
    {"release": "@%q red.release.cta.global.add.u32 [%d50], 1;"},
    {"acquire": "@%q ld.relaxed.gpu.global.u32 %r1, [%d50];"},
    {"acquire": "fence.acq_rel.gpu;\n@%q ld.relaxed.gpu.global.u32 %r1, [%d50];"},
    {"acquire": "@%q ld.acquire.gpu.global.u32 %r1, [%d51];"},
]


@pytest.mark.parametrize("changes", ORDERED)
def test_a_block_may_read_what_another_has_released(changes: dict[str, str]) -> None:
    semaphore(**changes)


@pytest.mark.parametrize("changes", UNORDERED)
def test_a_block_that_reads_what_was_not_released_to_it_races(changes: dict[str, str]) -> None:
    with pytest.raises(PtxFault, match=r"GEM1003: block \(1, 0, 0\).*another block writes"):
        semaphore(**changes)


def test_an_addition_keeps_what_was_released_and_a_store_does_not() -> None:
    text = """
        mov.u32 %r0, %ctaid.x;
        setp.eq.u32 %p, %r0, 0;
        @%p st.global.u32 [%d51], 7;
        @%p red.release.gpu.global.add.u32 [%d50], 1;
        setp.eq.u32 %p, %r0, 1;
        @%p red.relaxed.gpu.global.add.u32 [%d50], 1;
        setp.eq.u32 %p, %r0, 2;
        @%p ld.acquire.gpu.global.u32 %r1, [%d50];
        @%p ld.global.u32 %r2, [%d51];
    """
    arrays: list[Array] = [np.zeros(1, U32), np.zeros(1, U32)]
    launch(kernel(text, 2), arrays, threads=1, blocks=3)
    stored = text.replace("red.relaxed.gpu.global.add.u32", "st.relaxed.gpu.global.u32")
    with pytest.raises(PtxFault, match=r"GEM1003: block \(2, 0, 0\)"):
        launch(kernel(stored, 2), arrays, threads=1, blocks=3)


def test_what_is_known_is_passed_on() -> None:
    """Block 2 acquires from block 1 what that has acquired from block 0."""
    text = kernel(
        """
        mov.u32 %r0, %ctaid.x;
        setp.eq.u32 %p, %r0, 0;
        @%p st.global.u32 [%d51], 7;
        @%p st.release.gpu.global.u32 [%d50], 1;
        @%p ret;
        setp.eq.u32 %p, %r0, 1;
        @%p ld.acquire.gpu.global.u32 %r1, [%d50];
        @%p st.release.gpu.global.u32 [%d50+4], 1;
        @%p ret;
        ld.acquire.gpu.global.u32 %r1, [%d50+4];
        ld.global.u32 %r2, [%d51];
        st.global.u32 [%d51], %r2;
        """,
        2,
    )
    launch(text, [np.zeros(2, U32), np.zeros(1, U32)], threads=1, blocks=3)
    broken = text.replace("@%p ld.acquire.gpu.global.u32 %r1, [%d50];", "")
    with pytest.raises(PtxFault, match=r"GEM1003: block \(2, 0, 0\)"):
        launch(broken, [np.zeros(2, U32), np.zeros(1, U32)], threads=1, blocks=3)
