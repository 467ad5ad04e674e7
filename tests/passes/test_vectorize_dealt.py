"""vectorize with dealt=true: vectors of every 8th of 64 columns, put in order behind the sum."""

from __future__ import annotations

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


@st.composite
def problems(draw: st.DrawFn) -> tuple[Gemm, str]:
    """Weights of 4 and 8 bits and floats, with columns behind the last block, in slices of k.

    8 vectors leave registers for one row, and 4 of them for three.
    """
    kind = draw(st.sampled_from(["i4", "i8", None]))
    width = 8 if kind == "i4" else draw(st.sampled_from([4, 8]))
    rows = draw(st.integers(1, 1 if width == 8 else 3))
    gemm = Gemm(
        m=draw(st.integers(1, 3)),
        n=width * width * draw(st.integers(1, 2)) + 2 * draw(st.integers(0, 7)),
        k=draw(st.integers(1, 40)),
        beta=draw(st.sampled_from([0.0, 2.0])),
        epilogue=draw(st.sampled_from(["", "bias+relu"])),
        dtype_b=kind,
        weight_group=None if kind is None else 8,
    )
    steps = [
        f"tile{{loops=k sizes={draw(st.sampled_from([4, 8]))}}}",
        f"tile{{loops=n,m sizes={width * width},{rows} edges=peel}}",
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
    check(gemm, target="cpu:znver3", schedule=schedule).require_ok()


def test_other_tiles_are_read_in_order(after: After) -> None:
    """Of 64 + 64 + 16 columns the last ones are a tile of their own."""
    gemm = Gemm(m=1, n=144, k=4)
    module = after(gemm, f"tile{{loops=n sizes=64 edges=peel}},{C},{DEALT}")
    deals = [op for op in module.walk() if isinstance(op, DealOp)]
    assert [(len(op.inputs), len(op.outputs)) for op in deals] == [(1, 8), (8, 8)]


def test_most_weights_take_no_shift_and_no_mask() -> None:
    lowered = gemmir.lower(WEIGHTS, target="cpu:znver3")
    assert DEALT in lowered.schedule.steps
    text = assembly(lowered.artifact)
    loop = text[text.index("vpshufb") :]
    loop = loop[: loop.index("\tj")]
    assert loop.count("vfmadd") >= 5
    assert loop.count("vpsll") + loop.count("vpand") <= 4


def test_the_default_asks_for_rows_that_come_from_memory() -> None:
    def text(n: int) -> str:
        gemm = Gemm(m=1, n=n, k=4096, dtype_b="i4", weight_group=128)
        return str(gemmir.lower(gemm, target="cpu:znver3").schedule)

    ask = "prefetch{operand=b loop=n ahead=1 during=k}"
    assert ask not in text(4032)
    assert ask in text(4096)
    for dtype, n, asked in (("i8", 2048, True), ("i8", 1984, False), ("i4", 11008, True)):
        gemm = Gemm(m=1, n=n, k=4096, dtype_b=dtype, weight_group=128)
        assert (ask in str(gemmir.lower(gemm, target="cpu:znver5").schedule)) is asked
    for other in (Gemm(m=2, n=64, k=8, dtype_b="i4", weight_group=8), Gemm(m=1, n=64, k=8)):
        assert "dealt" not in str(gemmir.lower(other, target="cpu:znver3").schedule)


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
