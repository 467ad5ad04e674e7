"""vectorize with dealt=true: vectors of every 8th column of a row, put in order behind the sum."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xdsl.dialects.builtin import ModuleOp

import gemmir
from gemmir.backends.cpu.assemble import assembly
from gemmir.backends.cpu.emit import emit
from gemmir.check import check
from gemmir.errors import BackendError, ScheduleError
from gemmir.gemm import Gemm
from gemmir.ir.context import parse_module
from gemmir.ir.dialect import DealOp
from gemmir.machine import machine_for
from tests.strategies import examples

After = Callable[[Gemm, str], ModuleOp]

C: Final = "promote{operand=c to=registers}"
DEALT: Final = "vectorize{with=fma width=8 dealt=true}"
WEIGHTS: Final = Gemm(m=1, n=128, k=64, dtype_b="i4", weight_group=32)


MOST_ROWS: Final = {4: 3, 8: 1, 16: 2}
"""Rows for which there are registers, 32 where vectors have 16 lanes."""


@st.composite
def problems(draw: st.DrawFn) -> tuple[Gemm, str]:
    """Weights of 4 and 8 bits and floats, with columns behind the last block, in slices of k.

    8 vectors leave registers for one row, and 4 of them for three, and for two where there are 32.
    """
    kind = draw(st.sampled_from(["i4", "i8", None]))
    width = draw(st.sampled_from([8, 16] if kind == "i4" else [4, 8, 16]))
    rows = draw(st.integers(1, MOST_ROWS[width]))
    block = width * min(width, 8)
    gemm = Gemm(
        m=draw(st.integers(1, 3)),
        n=block * draw(st.integers(1, 2)) + 2 * draw(st.integers(0, 7)),
        k=draw(st.integers(1, 40)),
        beta=draw(st.sampled_from([0.0, 2.0])),
        epilogue=draw(st.sampled_from(["", "bias+relu"])),
        dtype_b=kind,
        weight_group=None if kind is None else 8,
    )
    steps = [
        f"tile{{loops=k sizes={draw(st.sampled_from([4, 8]))}}}",
        f"tile{{loops=n,m sizes={block},{rows} edges=peel}}",
        C,
        *(["tile{loops=k sizes=2}"] if draw(st.booleans()) else []),
        *(["fuse-epilogue"] if gemm.steps and draw(st.booleans()) else []),
        f"vectorize{{with=fma width={width} dealt=true}}",
        *(["unroll{loop=k factor=2}"] if draw(st.booleans()) else []),
    ]
    return gemm, ",".join(steps)


@given(problems())
@examples(0.2)
def test_the_meaning_stays(drawn: tuple[Gemm, str]) -> None:
    gemm, schedule = drawn
    target = "cpu:x86-64-v4" if "width=16" in schedule else "cpu:znver3"
    check(gemm, target=target, schedule=schedule).require_ok()


def test_other_tiles_are_read_in_order(after: After) -> None:
    """Of 64 + 64 + 16 columns the last ones are a tile of their own."""
    gemm = Gemm(m=1, n=144, k=4)
    module = after(gemm, f"tile{{loops=n sizes=64 edges=peel}},{C},{DEALT}")
    deals = [op for op in module.walk() if isinstance(op, DealOp)]
    assert [(len(op.inputs), len(op.outputs)) for op in deals] == [(1, 8), (8, 8)]


def test_vectors_of_16_have_elements_of_words_of_8(after: After) -> None:
    """Of 128 columns 8 vectors are made, and sums become 16 vectors of 8 neighbours."""
    module = after(Gemm(m=1, n=128, k=4), f"{C},vectorize{{with=fma width=16 dealt=true}}")
    deals = [op for op in module.walk() if isinstance(op, DealOp)]
    assert [(len(op.inputs), len(op.outputs)) for op in deals] == [(1, 8), (8, 16)]


@pytest.mark.parametrize("m", [1, 2])
def test_a_weight_is_looked_up(m: int) -> None:
    """A shift for 7 of 8, a lookup and multiply-adds: no mask, and no conversion."""
    gemm = Gemm(m=m, n=512, k=512, dtype_b="i4", weight_group=128)
    text = assembly(gemmir.lower(gemm, target="cpu:znver4").artifact)
    loop = next(block for block in text.split("\n.LBB") if "vpsrld" in block)
    loop = loop[: loop.index("\tj")]
    steps = 4
    looked_up = steps * (16 if m == 1 else 8)
    assert loop.count("vperm") == looked_up
    assert loop.count("vfmadd") == looked_up * m
    assert loop.count("vpsrl") == looked_up * 7 // 8
    assert not [name for name in ("vcvt", "vpand", "multishift", "vpshuf") if name in loop]


LONG: Final = """
func.func @f(%b: memref<1x128xi4> {gemmir.name = "b", gemmir.access = "read"},
             %c: memref<1x16xf64> {gemmir.name = "c", gemmir.access = "write"}) {
  %zero = arith.constant 0 : index
  %none = arith.constant 0 : i4
  %x = vector.transfer_read %b[%zero, %zero], %none {in_bounds = [true, true]}
    : memref<1x128xi4>, vector<1x128xi4>
  %p, %q, %r, %s, %t, %u, %v, %w = gemmir.deal %x : vector<1x128xi4> to vector<1x16xi4>,
    vector<1x16xi4>, vector<1x16xi4>, vector<1x16xi4>, vector<1x16xi4>, vector<1x16xi4>,
    vector<1x16xi4>, vector<1x16xi4>
  %y = gemmir.extend %q : vector<1x16xi4> to vector<1x16xf64>
  vector.transfer_write %y, %c[%zero, %zero] {in_bounds = [true, true]}
    : vector<1x16xf64>, memref<1x16xf64>
  func.return
}
"""


def test_what_is_no_float_of_32_bits_is_shifted() -> None:
    """The element that was shifted down to be looked up has its sign in the highest bit again."""
    text = str(emit(parse_module(LONG), machine_for("cpu:x86-64-v4")))
    assert "permvar" not in text
    assert [name for name in re.findall(r"= (lshr|shl|ashr|sitofp) <16", text)][-3:] == [
        "shl",
        "ashr",
        "sitofp",
    ]


def test_most_weights_take_no_shift_and_no_mask() -> None:
    lowered = gemmir.lower(WEIGHTS, target="cpu:znver3")
    assert DEALT in lowered.schedule.steps
    text = assembly(lowered.artifact)
    loop = text[text.index("vpshufb") :]
    loop = loop[: loop.index("\tj")]
    assert loop.count("vfmadd") >= 5
    assert loop.count("vpsll") + loop.count("vpand") <= 4


@pytest.mark.parametrize(
    ("target", "m", "n", "k", "asked"),
    [
        ("cpu:znver4", 1, 2048, 1024, False),
        ("cpu:znver4", 1, 2176, 1024, True),
        ("cpu:znver4", 64, 4096, 4096, True),
        ("cpu:znver4", 1, 640, 65536, False),
        ("cpu:znver3", 1, 1024, 1024, False),
        ("cpu:znver3", 1, 1088, 1024, True),
        ("cpu:znver3", 2, 4096, 4096, True),
        ("cpu:znver3", 3, 4096, 4096, False),
    ],
)
def test_where_l1_is_not_roomy_later_tiles_are_asked_into_l2(
    target: str, m: int, n: int, k: int, *, asked: bool
) -> None:
    """Of a B that L2 does not hold, at least three tiles wide; with 16 registers by few rows."""
    ask = "prefetch{operand=b loop=n ahead=2 to=l2 during=m,k}"
    gemm = Gemm(m=m, n=n, k=k, dtype_b="i4", weight_group=128)
    assert (ask in str(gemmir.lower(gemm, target=target).schedule)) is asked


def test_the_default_asks_for_rows_that_come_from_memory() -> None:
    ask = "prefetch{operand=b loop=n ahead=1 during=k}"
    for dtype, n, asked in (("i8", 2048, True), ("i8", 1984, False), ("i4", 11008, True)):
        gemm = Gemm(m=1, n=n, k=4096, dtype_b=dtype, weight_group=128)
        assert (ask in str(gemmir.lower(gemm, target="cpu:znver5").schedule)) is asked


@pytest.mark.parametrize(
    ("target", "m", "n", "dealt"),
    [
        ("cpu:znver3", 1, 64, True),
        ("cpu:znver3", 1, 62, False),
        ("cpu:znver3", 2, 64, False),
        ("cpu:znver4", 2, 128, True),
        ("cpu:znver4", 2, 126, False),
        ("cpu:znver4", 3, 128, False),
        ("cpu:znver5", 1, 128, False),
    ],
)
def test_which_rows_are_dealt(target: str, m: int, n: int, *, dealt: bool) -> None:
    """One in vectors of 8, two in vectors of 16 where they are multiplied in two halves."""
    gemm = Gemm(m=m, n=n, k=8, dtype_b="i4", weight_group=8)
    assert ("dealt" in str(gemmir.lower(gemm, target=target).schedule)) is dealt
    plain = Gemm(m=m, n=n, k=8)
    assert "dealt" not in str(gemmir.lower(plain, target=target).schedule)


def test_explain_counts_the_registers_of_dealt_weights() -> None:
    text = str(gemmir.lower(WEIGHTS, target="cpu:znver3").explain())
    assert "vectors of 8, dealt; 8 + 3 + 1 = 12 of 16 registers" in text


@pytest.mark.parametrize(
    ("gemm", "schedule"),
    [
        (WEIGHTS, f"tile{{loops=k sizes=32}},tile{{loops=n sizes=32}},{C},{DEALT}"),
        (Gemm(m=8, n=64, k=8, dtype="bf16"), f"{C},vectorize{{with=mma width=8 dealt=true}}"),
        (Gemm(m=2, n=64, k=8, trans_b=True), f"{C},{DEALT}"),
        (Gemm(m=2, n=64, k=8), f"promote{{operand=b to=l2 layout=panel:64}},{C},{DEALT}"),
        (
            Gemm(m=2, n=64, k=8),
            f"tile{{loops=k sizes=4}},promote{{operand=c to=registers carry=true}},{DEALT}",
        ),
        (Gemm(m=2, n=64, k=8), f"{C},vectorize{{with=fma width=8 along=k dealt=true}}"),
    ],
    ids=["narrow", "unit", "transposed", "panels", "carried", "along"],
)
def test_what_cannot_be_dealt_is_refused(after: After, gemm: Gemm, schedule: str) -> None:
    with pytest.raises(ScheduleError, match="dealt=true") as found:
        after(gemm, schedule)
    assert found.value.code == "GEM1385"


FOUR: Final = """
func.func @f(%b: memref<1x16xi4> {gemmir.name = "b", gemmir.access = "read"},
             %c: memref<1x4xf32> {gemmir.name = "c", gemmir.access = "write"}) {
  %zero = arith.constant 0 : index
  %none = arith.constant 0 : i4
  %x = vector.transfer_read %b[%zero, %zero], %none {in_bounds = [true, true]}
    : memref<1x16xi4>, vector<1x16xi4>
  %p, %q, %r, %s = gemmir.deal %x : vector<1x16xi4>
    to vector<1x4xi4>, vector<1x4xi4>, vector<1x4xi4>, vector<1x4xi4>
  %y = gemmir.extend %p : vector<1x4xi4> to vector<1x4xf32>
  vector.transfer_write %y, %c[%zero, %zero] {in_bounds = [true, true]}
    : vector<1x4xf32>, memref<1x4xf32>
  func.return
}
"""


def test_a_word_is_dealt_to_eight() -> None:
    with pytest.raises(BackendError, match="1 vectors of 4 bits are dealt to 4") as raised:
        emit(parse_module(FOUR), machine_for("cpu:znver3"))
    assert raised.value.code == "GEM1386"
