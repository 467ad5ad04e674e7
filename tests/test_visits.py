"""Grouped GEMM by visits of tiles of rows, whatever is whose: the numbers, and every stage."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given

from gemmir.arrays import make_operands
from gemmir.dtypes import PRODUCTS
from gemmir.epilogue_steps import EXACT_STEPS
from gemmir.evaluate import EvaluationError, evaluate
from gemmir.gemm import OFFSETS, Gemm
from gemmir.ir.build import build
from gemmir.ir.context import parse_module
from gemmir.ir.dialect import Visit, VisitsOp, most_visits
from gemmir.lowering import run_passes
from gemmir.reference import reference_of_gemm
from gemmir.schedule import Schedule
from gemmir.signature import signature_of
from tests.strategies import epilogues, examples

Array = npt.NDArray[Any]

DTYPES = ("f32", "bf16", "bf16x1", "bf16x3", "i8")


@st.composite
def offsets_of(draw: st.DrawFn, groups: int, rows: int, size: int = 8) -> list[int]:
    """Where the rows of each product begin: anywhere, often at a tile or where another does."""
    aligned = st.integers(0, rows // size).map(lambda n: n * size)
    cuts = sorted(draw(st.lists(st.integers(0, rows) | aligned, min_size=groups, max_size=groups)))
    return [0, *cuts]


@st.composite
def visited(draw: st.DrawFn) -> tuple[list[int], int, int]:
    """Offsets, rows, and the size of tiles."""
    rows, size = draw(st.integers(0, 60)), draw(st.sampled_from([1, 3, 8, 16, 64]))
    return draw(offsets_of(draw(st.integers(1, 7)), rows, size)), rows, size


def visits_of(offsets: list[int], rows: int, size: int) -> Array:
    """What `gemmir.visits` makes, through the evaluator and a kernel that copies it out."""
    count = most_visits(len(offsets) - 1, rows, size)
    text = f"""
    func.func @f(%offsets: memref<{len(offsets)}xi32>, %out: memref<6x{count}xi32>) {{
      %visits = gemmir.visits %offsets rows {rows} : i64 by {size} : i64
        : memref<{len(offsets)}xi32> -> memref<6x{count}xi32, #gemmir.space<smem>>
      gemmir.epilogue ins(%visits : memref<6x{count}xi32, #gemmir.space<smem>>)
                      outs(%out : memref<6x{count}xi32>) {{
      ^bb0(%x: i32, %old: i32):
        gemmir.yield %x : i32
      }}
      func.return
    }}"""
    found = np.full((6, count), -1, np.int32)
    evaluate(parse_module(text), [np.array(offsets, np.int32), found])
    return found


@given(visited())
@example(([0, 0, 0], 0, 8))
@example(([0, 0, 0], 20, 8))
@example(([0, 20, 20, 20], 20, 8))
@example(([0, 8, 8, 16], 20, 8))
def test_every_row_is_visited_once_for_its_product(case: tuple[list[int], int, int]) -> None:
    offsets, rows, size = case
    found = visits_of(offsets, rows, size)
    owner = np.full(rows, -1)
    for product, tile, begin, end, *_ in found.T:
        assert 0 <= begin <= end <= size
        assert (owner[tile * size + begin : tile * size + end] == -1).all()
        owner[tile * size + begin : tile * size + end] = product
    expected = np.full(rows, -1)
    for product, (begin, end) in enumerate(pairwise(offsets)):
        expected[begin:end] = product
    assert owner.tolist() == expected.tolist()


@given(visited())
@example(([0, 0, 0], 20, 8))
def test_visits_of_a_tile_follow_each_other(case: tuple[list[int], int, int]) -> None:
    offsets, rows, size = case
    found = visits_of(offsets, rows, size)
    tiles = found[Visit.TILE]
    assert (np.diff(tiles) >= 0).all()
    assert (found[Visit.PRODUCT] < len(offsets) - 1).all()
    assert (tiles <= max(rows - 1, 0) // size).all()
    has_rows = found[Visit.BEGIN] < found[Visit.END]
    assert (np.diff(has_rows.astype(int)) <= 0).all()


@given(visited())
@example(([0, 0, 0], 20, 8))
@example(([0, 8, 16, 20], 20, 8))
def test_old_elements_are_taken_where_some_stay(case: tuple[list[int], int, int]) -> None:
    offsets, rows, size = case
    last, old = -1, None
    for _, tile, begin, end, takes_old, shown in visits_of(offsets, rows, size).T:
        is_whole = begin == 0 and end == min(size, rows - tile * size)
        assert takes_old == (tile != last and not is_whole)
        old = tile if takes_old or old is None else old
        assert shown == old
        last = tile


@st.composite
def grouped(draw: st.DrawFn) -> tuple[Gemm, list[int], str]:
    """A grouped problem, where its products begin, and a schedule for a TPU."""
    dtype = draw(st.sampled_from(DTYPES))
    whole = PRODUCTS[dtype].element.is_integer
    epilogue = draw(epilogues())
    if whole:
        epilogue = "+".join(step for step in epilogue.split("+") if step in EXACT_STEPS)
    gemm = Gemm(
        m=draw(st.integers(1, 40)),
        n=draw(st.integers(1, 40)),
        k=draw(st.integers(1, 40)),
        groups=draw(st.integers(1, 5)),
        dtype=dtype,
        out="bf16" if dtype == "bf16" and draw(st.booleans()) else None,
        alpha=draw(st.sampled_from([1.0, -2.0] if whole else [1.0, -0.5])),
        beta=draw(st.sampled_from([0.0, 3.0] if whole else [0.0, 0.3])),
        trans_b=draw(st.booleans()),
        epilogue=epilogue,
    )
    assert gemm.groups is not None
    size = draw(st.sampled_from([8, 16, 64]))
    return gemm, draw(offsets_of(gemm.groups, gemm.m, size)), draw(schedules(gemm, size))


@st.composite
def schedules(draw: st.DrawFn, gemm: Gemm, size: int) -> str:
    """Passes that visit tiles of `size` rows: with all of k at once, or in slices."""
    is_cut = draw(st.booleans())
    loops, sizes = ("n,group,m", f"16,1,{size}") if is_cut else ("group,m", f"1,{size}")
    passes = [f"tile{{loops={loops} sizes={sizes} over=grid}}", "promote{operand=c to=vmem}"]
    by_slices = draw(st.booleans())
    if by_slices:
        passes.append("tile{loops=k sizes=16}")
    passes += ["promote{operand=a to=vmem}", "promote{operand=b to=vmem}"]
    if gemm.steps:
        passes.append("fuse-epilogue")
    loop = "k" if by_slices else "group"
    return ",".join([*passes, f"pipeline{{loop={loop} stages=2 with=dma}}", "vectorize{with=mxu}"])


@given(grouped())
@examples(0.5)
def test_every_stage_of_drawn_schedules(case: tuple[Gemm, list[int], str]) -> None:
    gemm, offsets, schedule = case
    module = build(gemm)
    operands = make_operands(signature_of(module))
    operands.by_name[OFFSETS].array[:] = offsets
    reference = reference_of_gemm(gemm, operands)
    for p in Schedule.parse(schedule).passes:
        run_passes(module, Schedule((p,)))
        module = parse_module(str(module))
        own = operands.copy()
        evaluate(module, own.arrays)
        wrong = reference.compare(own.output).first_wrong
        assert wrong is None, f"{p}: {wrong}"
        assert not own.damage(operands)
        kept = slice(offsets[-1], None)
        np.testing.assert_array_equal(own.output[kept], operands.output[kept])


def test_tiles_are_no_larger_than_the_rows() -> None:
    module = build(Gemm(m=5, n=8, k=8, groups=3))
    run_passes(module, Schedule.parse("tile{loops=group,m sizes=1,64 over=grid}"))
    (visits,) = (op for op in module.walk() if isinstance(op, VisitsOp))
    assert visits.tile == 5


def test_more_rows_than_there_are() -> None:
    with pytest.raises(EvaluationError, match="GEM0907"):
        visits_of([0, 9], 8, 1)
