"""prefetch: what later iterations read is asked for, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xdsl.dialects import arith, memref, scf
from xdsl.dialects.builtin import ModuleOp, NoneAttr

import gemmir
from gemmir.backends.cpu.assemble import assembly
from gemmir.check import check
from gemmir.errors import ScheduleError
from gemmir.evaluate import evaluate, func
from gemmir.evaluate.view import View
from gemmir.gemm import Gemm
from gemmir.ir.arguments import size_arguments
from gemmir.ir.build import build
from gemmir.ir.dialect import PrefetchOp, enclosing_ops, memref_type
from gemmir.ir.index import Extent, constant_of, enclosing_function
from gemmir.ir.loops import dimension_of
from gemmir.ir.views import offsets_of, sizes_of
from gemmir.lowering import run_pass, run_passes
from gemmir.schedule import Schedule
from tests.index_values import index_value
from tests.strategies import examples

After = Callable[[Gemm, str], ModuleOp]

WIDE = Gemm(m=6, n=40, k=8)
END = "promote{operand=c to=registers},vectorize{with=fma width=8}"


def prefetches(module: ModuleOp) -> list[PrefetchOp]:
    return [op for op in module.walk() if isinstance(op, PrefetchOp)]


def around(op: PrefetchOp) -> list[str | None]:
    return [dimension_of(o) for o in enclosing_ops(op) if isinstance(o, scf.ForOp)]


def window(op: PrefetchOp) -> memref.SubviewOp:
    assert isinstance(op.source.owner, memref.SubviewOp)
    return op.source.owner


def bounds(far: Extent) -> tuple[int | None, int | None]:
    """What an offset is ahead of the loop, and the most that it is."""
    assert not isinstance(far, int) and isinstance(far.owner, arith.MinSIOp)
    then = far.owner.lhs.owner
    assert isinstance(then, arith.AddiOp)
    return constant_of(then.rhs), constant_of(far.owner.rhs)


@st.composite
def streams(draw: st.DrawFn) -> tuple[Gemm, str]:
    """Problems that are streamed in slices of k, with prefetches of either operand."""
    gemm = Gemm(
        m=draw(st.integers(1, 20)),
        n=draw(st.integers(9, 60)),
        k=draw(st.integers(1, 20)),
        beta=draw(st.sampled_from([0.0, 2.0])),
        trans_a=draw(st.booleans()),
        trans_b=draw(st.booleans()),
    )
    rows = draw(st.integers(1, 5))
    packed = draw(st.booleans())
    steps = [
        *(["promote{operand=c to=l2 layout=panel:8}"] if draw(st.booleans()) else []),
        f"tile{{loops=k sizes={draw(st.integers(1, 9))}}}",
        f"promote{{operand=a to=l1 layout=panel:{rows}}}",
        "tile{loops=n sizes=8 edges=peel}",
        *(["promote{operand=b to=l1 layout=panel:8}"] if packed and gemm.n % 8 == 0 else []),
        f"tile{{loops=m sizes={rows}}}",
    ]
    to = draw(st.sampled_from(["l1", "l2"]))
    ahead = draw(st.integers(1, max(gemm.n // 8 - 1, 1)))
    during = draw(st.sampled_from(["", " during=m"]))
    if gemm.n >= 16:
        steps.append(f"prefetch{{operand=b loop=n ahead={ahead} to={to}{during}}}")
    end = END
    if "operand=c" not in steps[0] and draw(st.booleans()):
        sums, vectors = END.split(",")
        loop = "m" if rows < gemm.m else "n"
        ask = f"prefetch{{operand=c loop={loop} ahead=0 during=k}}"
        end = f"{sums},tile{{loops=k sizes={draw(st.integers(1, 4))}}},{ask},{vectors}"
    return gemm, ",".join([*steps, end])


@given(streams())
@examples(0.3)
def test_the_meaning_stays(drawn: tuple[Gemm, str]) -> None:
    gemm, schedule = drawn
    check(gemm, target="cpu:x86-64-v3", schedule=schedule).require_ok()


def test_the_tile_so_many_iterations_later_is_asked_for(after: After) -> None:
    module = after(WIDE, "tile{loops=n sizes=8},prefetch{operand=b loop=n ahead=3}")
    (op,) = prefetches(module)
    assert around(op) == ["n"]
    assert sizes_of(window(op)) == (8, 8)
    assert bounds(offsets_of(window(op))[1]) == (24, 32)


def test_rows_of_a_are_asked_for_along_m(after: After) -> None:
    module = after(WIDE, "tile{loops=m sizes=2},prefetch{operand=a loop=m ahead=1 to=l2}")
    (op,) = prefetches(module)
    assert memref_type(op.source).get_shape() == (2, 8)


def test_a_copied_tile_is_asked_for_where_it_is_copied_from(after: After) -> None:
    tiles = "tile{loops=n sizes=8},promote{operand=b to=l1 layout=panel:8}"
    (op,) = prefetches(after(WIDE, f"{tiles},prefetch{{operand=b loop=n ahead=1}}"))
    assert memref_type(window(op).source).get_shape() == (8, 40)


@pytest.mark.parametrize(("rows", "lines"), [(2, 3), (3, 4), (6, 8)])
def test_each_tile_of_rows_asks_for_a_share(after: After, rows: int, lines: int) -> None:
    """Eight lines in three, two and one iteration; where they are not even, some come twice."""
    tiles = f"tile{{loops=n sizes=8}},tile{{loops=m sizes={rows}}}"
    module = after(WIDE, f"{tiles},prefetch{{operand=b loop=n ahead=1 during=m}}")
    (op,) = prefetches(module)
    assert around(op) == ["m", "n"]
    begin = offsets_of(window(op))[0]
    assert sizes_of(window(op))[0] == lines
    assert not isinstance(begin, int)
    is_even = 6 // rows * lines == 8
    if not is_even:
        assert isinstance(begin.owner, arith.MinSIOp)
        assert constant_of(begin.owner.rhs) == 8 - lines


def test_two_loops_deal_out_columns_and_rows(after: After) -> None:
    """A of 4 x 64 in 4 tiles of n with 16 iterations over k each: a line of one row at a time."""
    gemm = Gemm(m=8, n=64, k=64)
    tiles = "tile{loops=m sizes=4},tile{loops=n sizes=16},promote{operand=c to=registers}"
    ask = "tile{loops=k sizes=4},prefetch{operand=a loop=m ahead=1 during=n,k}"
    (op,) = prefetches(after(gemm, f"{tiles},{ask}"))
    assert around(op) == ["k", "n", "m"]
    assert sizes_of(window(op)) == (1, 16)
    row, _ = offsets_of(window(op))
    assert not isinstance(row, int) and isinstance(row.owner, arith.AddiOp)
    number = row.owner.rhs
    assert isinstance(number.owner, arith.MinSIOp) and constant_of(number.owner.rhs) == 3


@st.composite
def shared_slices(draw: st.DrawFn) -> tuple[Gemm, int, str]:
    """Slices of B whose lines several loops share, the innermost of which goes over k as well."""
    kc, steps = draw(st.sampled_from([(8, 1), (12, 4), (16, 1), (16, 2)]))
    gemm = Gemm(
        m=draw(st.integers(1, 9)),
        n=8 * draw(st.integers(1, 9)),
        k=kc * draw(st.integers(2, 3)),
        dtype=draw(st.sampled_from(["f32", "f64"])),
        trans_b=draw(st.booleans()),
    )
    tiles = f"tile{{loops=k sizes={kc}}},tile{{loops=m sizes={draw(st.integers(1, 4))}}}"
    columns = 8 * draw(st.integers(1, 3))
    sums = f"promote{{operand=c to=registers}},tile{{loops=k sizes={steps}}}"
    during = draw(st.sampled_from(["m,n,k", "m,k", "n,k"]))
    ask = f"prefetch{{operand=b loop=k ahead=1 during={during}}}"
    return gemm, kc, f"{tiles},tile{{loops=n sizes={columns}}},{sums},{ask}"


def require_next_slices(gemm: Gemm, kc: int, schedule: str) -> None:
    """What each slice asks for is the next one, to the element; the last asks for itself.

    It is read where the requests are, of a B whose elements are their numbers.
    """
    asked: list[set[int]] = []

    def recorded(_frame: object, _op: object) -> Callable[[View], tuple[()]]:
        def step(source: View) -> tuple[()]:
            asked.append({int(x) for x in source.array().ravel()})
            return ()

        return step

    module = build(gemm)
    for p in Schedule.parse(schedule).passes:
        run_pass(p, module, verify=True)
    numpy_type = np.float32 if gemm.dtype == "f32" else np.float64
    a, c = (np.zeros((gemm.m, count), numpy_type) for count in (gemm.k, gemm.n))
    b = np.arange(gemm.k * gemm.n, dtype=numpy_type).reshape(gemm.k, gemm.n)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(func, "MEANINGS", {**func.MEANINGS, PrefetchOp: recorded})
        evaluate(module, [a, np.ascontiguousarray(b.T) if gemm.trans_b else b, c])
    slices = gemm.k // kc
    each = len(asked) // slices
    for number in range(slices):
        begin = min(number + 1, slices - 1) * kc
        found = set[int]().union(*asked[number * each : (number + 1) * each])
        assert found == {int(x) for x in b[begin : begin + kc].ravel()}


@given(shared_slices())
@examples(0.3)
def test_several_loops_ask_for_all_of_the_next_slice(drawn: tuple[Gemm, int, str]) -> None:
    require_next_slices(*drawn)


def test_the_innermost_of_several_loops_asks_line_by_line(after: After) -> None:
    """32 rows of 4 lines, over 2 x 2 tiles with 32 iterations of k each: one line each time."""
    gemm = Gemm(m=8, n=64, k=64)
    tiles = "tile{loops=k sizes=32},tile{loops=m sizes=4},tile{loops=n sizes=32}"
    sums = "promote{operand=c to=registers},tile{loops=k sizes=1}"
    schedule = f"{tiles},{sums},prefetch{{operand=b loop=k ahead=1 during=m,n,k}}"
    (op,) = prefetches(after(gemm, schedule))
    assert around(op) == ["k", "n", "m", "k"]
    assert sizes_of(window(op)) == (1, 16)
    require_next_slices(gemm, 32, schedule)


@pytest.mark.parametrize("m", [0, 1, 3, 4, 9, 26, 100])
def test_a_number_of_tiles_that_a_call_tells_deals_out_all_rows(m: int) -> None:
    """B of 10 x 64: tiles of m ask for some of its rows each, and those of n for a line of them."""
    tiles = "tile{loops=k sizes=10},tile{loops=m sizes=3 edges=exact},tile{loops=n sizes=16}"
    module = build(Gemm(m=gemmir.ANY, n=64, k=30))
    run_passes(module, Schedule.parse(f"{tiles},prefetch{{operand=b loop=k ahead=1 during=m,n}}"))
    (op,) = prefetches(module)
    assert around(op) == [None, "n", "m", "k"]
    assert sizes_of(window(op)) == (1, 16)
    each, _, rows, _ = (o for o in enclosing_ops(op) if isinstance(o, scf.ForOp))
    size = {size_arguments(enclosing_function(op))["m"]: m}
    first, last, step = (index_value(v, size) for v in (rows.lb, rows.ub, rows.step))
    asked: list[int] = []
    for row in range(first, last, step):
        here = {**size, rows.body.block.args[0]: row}
        asked += range(index_value(each.lb, here), index_value(each.ub, here))
    assert asked == (list(range(10)) if m >= 3 else [])


def test_requests_of_any_number_of_tiles_change_no_result() -> None:
    tiles = "tile{loops=k sizes=8},promote{operand=b to=l1 layout=panel:8},"
    tiles += "tile{loops=m sizes=3 edges=even},tile{loops=n sizes=8}"
    ask = "prefetch{operand=b loop=k ahead=1 to=l2 during=m,n}"
    gemm = Gemm(m=gemmir.ANY, n=24, k=20)
    kernel = gemmir.compile(gemm, target="cpu:x86-64-v3", schedule=f"{tiles},{ask},{END}")
    rng = np.random.default_rng(0)
    b = rng.integers(-3, 4, (20, 24)).astype(np.float32)
    for m in range(12):
        a = rng.integers(-3, 4, (m, 20)).astype(np.float32)
        np.testing.assert_array_equal(kernel(a, b), a @ b)


def test_c_is_asked_for_while_it_is_summed(after: After) -> None:
    """The tile that is written at the end, which is where the sum in registers goes to."""
    gemm = Gemm(m=8, n=64, k=64)
    tiles = "tile{loops=m sizes=4},tile{loops=n sizes=16},promote{operand=c to=registers}"
    ask = "tile{loops=k sizes=4},prefetch{operand=c loop=n ahead=0 during=k}"
    (op,) = prefetches(after(gemm, f"{tiles},{ask}"))
    assert around(op) == ["k", "n", "m"]
    assert op.level is None
    assert sizes_of(window(op)) == (1, 16)
    assert memref_type(window(op).source).memory_space == NoneAttr()
    schedule = f"{tiles},{ask},vectorize{{with=fma width=16}}"
    check(gemm, target="cpu:x86-64-v4", schedule=schedule).require_ok()
    assert "prefetchw" in assembly(gemmir.lower(gemm, "cpu:znver4", schedule).artifact)


def test_c_of_a_last_block_of_one_tile_is_asked_for_too(after: After) -> None:
    """Its loop over n has one iteration, whose tile begins at a constant."""
    gemm = Gemm(m=8, n=48, k=64)
    blocks = "tile{loops=n sizes=32 edges=peel},tile{loops=m sizes=4},tile{loops=n sizes=16}"
    sums = "promote{operand=c to=registers},tile{loops=k sizes=4}"
    module = after(gemm, f"{blocks},{sums},prefetch{{operand=c loop=n ahead=0 during=k}}")
    assert [around(op) for op in prefetches(module)] == [["k", "n", "m", "n"]] * 2
    assert {sizes_of(window(op)) for op in prefetches(module)} == {(1, 16)}


def test_a_last_block_of_one_tile_has_no_next_one(after: After) -> None:
    gemm = Gemm(m=8, n=48, k=8)
    blocks = "tile{loops=n sizes=32 edges=peel},tile{loops=m sizes=4},tile{loops=n sizes=16}"
    module = after(gemm, f"{blocks},prefetch{{operand=b loop=n ahead=1}}")
    (op,) = prefetches(module)
    assert around(op) == ["n", "m", "n"]


def test_sums_in_panels_stay_where_they_are() -> None:
    panels = "promote{operand=c to=l2 layout=panel:8},tile{loops=n sizes=8}"
    sums = "promote{operand=c to=registers},tile{loops=k sizes=4}"
    ask = "prefetch{operand=c loop=n ahead=0 during=k},vectorize{with=fma width=8}"
    with pytest.raises(ScheduleError, match="in panels") as found:
        gemmir.lower(WIDE, "cpu:x86-64-v3", f"{panels},{sums},{ask}")
    assert found.value.code == "GEM1311"


def test_a_tile_of_now_is_asked_for_in_shares_only() -> None:
    with pytest.raises(ScheduleError, match="0 for c with during") as found:
        gemmir.lower(
            WIDE,
            "cpu:x86-64-v3",
            f"tile{{loops=n sizes=8}},prefetch{{operand=c loop=n ahead=0}},{END}",
        )
    assert found.value.code == "GEM1310"


def test_the_first_part_of_a_peeled_loop_asks_for_all(after: After) -> None:
    gemm = Gemm(m=7, n=40, k=8)
    tiles = "tile{loops=n sizes=8},tile{loops=m sizes=3 edges=peel}"
    module = after(gemm, f"{tiles},prefetch{{operand=b loop=n ahead=1 during=m}}")
    (op,) = prefetches(module)
    assert sizes_of(window(op))[0] == 4


def test_a_loop_that_was_peeled_is_asked_for_once_in_each_part(after: After) -> None:
    gemm = Gemm(m=6, n=43, k=8)
    module = after(gemm, "tile{loops=n sizes=8 edges=peel},prefetch{operand=b loop=n ahead=2}")
    assert len(prefetches(module)) == 1


def test_rows_are_dealt_where_parts_of_them_are_shorter_than_a_line(after: After) -> None:
    """Of slices of 8 rows of 40, four iterations ask for two whole rows each: 6 lines, not 8."""
    gemm = Gemm(m=8, n=40, k=32)
    tiles = "tile{loops=k sizes=8},tile{loops=m sizes=2}"
    module = after(gemm, f"{tiles},prefetch{{operand=b loop=k ahead=1 during=m}}")
    (op,) = prefetches(module)
    assert sizes_of(window(op)) == (2, 40)
    assert offsets_of(window(op))[1] == 0


def test_rows_of_a_batch_are_dealt_too(after: After) -> None:
    gemm = Gemm(m=6, n=40, k=8, batch=2)
    tiles = "tile{loops=batch,n sizes=1,8},tile{loops=m sizes=3}"
    module = after(gemm, f"{tiles},prefetch{{operand=b loop=n ahead=1 during=m}}")
    (op,) = prefetches(module)
    assert sizes_of(window(op)) == (1, 4, 8)


def test_a_last_tile_that_is_clipped_is_asked_for_with_what_precedes_it(after: After) -> None:
    module = after(Gemm(m=6, n=43, k=8), "tile{loops=n sizes=8},prefetch{operand=b loop=n ahead=2}")
    (op,) = prefetches(module)
    assert sizes_of(window(op)) == (8, 8)
    assert bounds(offsets_of(window(op))[1]) == (16, 35)


@pytest.mark.parametrize(("to", "instruction"), [("l1", "prefetcht0"), ("l2", "prefetcht1")])
def test_the_level_is_in_the_instruction(to: str, instruction: str) -> None:
    schedule = f"tile{{loops=n sizes=8}},prefetch{{operand=b loop=n ahead=1 to={to}}},{END}"
    text = assembly(gemmir.lower(WIDE, "cpu:x86-64-v3", schedule).artifact)
    assert text.count(instruction) == 8


def test_lines_of_a_transposed_operand_run_along_k() -> None:
    gemm = Gemm(m=6, n=40, k=64, trans_b=True)
    schedule = f"tile{{loops=n sizes=8}},prefetch{{operand=b loop=n ahead=1}},{END}"
    text = assembly(gemmir.lower(gemm, "cpu:x86-64-v3", schedule).artifact)
    assert text.count("prefetcht0") == 8 * 4


def test_too_far_ahead_is_refused() -> None:
    schedule = f"tile{{loops=n sizes=8}},prefetch{{operand=b loop=n ahead=5}},{END}"
    with pytest.raises(ScheduleError, match="the loop over n ends before") as found:
        gemmir.lower(WIDE, "cpu:x86-64-v3", schedule)
    assert found.value.code == "GEM1313"
