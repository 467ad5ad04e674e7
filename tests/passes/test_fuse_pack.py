"""fuse-pack: the first tiles that read panels fill them."""

from __future__ import annotations

from collections.abc import Callable

import hypothesis.strategies as st
import pytest
from hypothesis import example, given
from xdsl.dialects import scf, vector
from xdsl.dialects.builtin import ModuleOp

import gemmir
from gemmir import Gemm
from gemmir.check import check
from gemmir.errors import ScheduleError
from gemmir.ir.build import build
from gemmir.ir.dialect import GemmOp, PackOp, PrefetchOp, memref_type
from gemmir.ir.index import constant_of
from gemmir.ir.loops import dimension_of, gemms
from gemmir.ir.views import chain
from gemmir.lowering import run_passes
from gemmir.machine import machine_for
from gemmir.schedule import Schedule
from gemmir.schedule.default import default_schedule
from tests.strategies import examples

After = Callable[[Gemm, str], ModuleOp]

B = "promote{operand=b to=l2 layout=panel:8}"
SUM = "promote{operand=c to=registers}"
FUSE = "fuse-pack{operand=b}"
TILES = f"{B},tile{{loops=m,n sizes=4,8}},{SUM}"
PROBLEM = Gemm(m=12, n=16, k=8)


def packs(module: ModuleOp) -> list[PackOp]:
    return [op for op in module.walk() if isinstance(op, PackOp)]


def starts(module: ModuleOp, dimension: str) -> list[int | None]:
    """Where each loop over `dimension` begins, in order."""
    loops = [op for op in module.walk() if isinstance(op, scf.ForOp)]
    return [constant_of(op.lb) for op in loops if dimension_of(op) == dimension]


def test_each_tile_of_the_first_rows_packs_what_it_reads(after: After) -> None:
    module = after(PROBLEM, f"{TILES},{FUSE}")
    (pack,) = packs(module)
    first, rest = gemms(module)
    assert pack.next_op is first
    assert chain(first.b)[0] is chain(rest.b)[0] is chain(pack.target)[0]
    assert memref_type(pack.source).get_shape() == (8, 8)
    assert starts(module, "m") == [4]


def test_of_a_slice_of_k_that_is_all_it_packs(after: After) -> None:
    module = after(PROBLEM, f"{TILES},tile{{loops=k sizes=2}},{FUSE}")
    (pack,) = packs(module)
    assert memref_type(pack.source).get_shape() == (2, 8)
    assert isinstance(pack.next_op, GemmOp)


def test_rows_that_fit_one_tile_leave_no_loop(after: After) -> None:
    module = after(Gemm(m=3, n=16, k=8), f"{TILES},{FUSE}")
    assert starts(module, "m") == []
    assert len(gemms(module)) == len(packs(module)) == 1


def test_peeled_rows_read_what_is_there(after: After) -> None:
    tiles = TILES.replace("4,8}", "4,8 edges=peel}")
    module = after(Gemm(m=11, n=16, k=8), f"{tiles},{FUSE}")
    assert len(packs(module)) == 1
    assert starts(module, "m") == [4, 8]


def test_each_loop_over_columns_has_first_rows(after: After) -> None:
    """Rows go by inside of columns, of which the last are peeled off: two loops over rows."""
    tiles = f"{B},tile{{loops=n sizes=8 edges=peel}},tile{{loops=m sizes=4}}"
    module = after(Gemm(m=12, n=20, k=8), f"{tiles},{FUSE}")
    assert len(packs(module)) == 2
    assert starts(module, "m") == [4, 4]


def test_columns_fill_the_panels_of_a(after: After) -> None:
    schedule = f"promote{{operand=a to=l2 layout=panel:4}},tile{{loops=m,n sizes=4,8}},{SUM}"
    module = after(PROBLEM, f"{schedule},fuse-pack{{operand=a}}")
    (pack,) = packs(module)
    assert memref_type(pack.source).get_shape() == (4, 8)
    assert starts(module, "n") == [8]


def test_a_few_rows_are_copied_without_a_loop(after: After) -> None:
    vectors = "vectorize{with=fma width=4}"
    module = after(PROBLEM, f"{TILES},tile{{loops=k sizes=2}},{FUSE},{vectors}")
    writes = [op for op in module.walk() if isinstance(op, vector.TransferWriteOp)]
    (copy,) = [op for op in writes if isinstance(op.vector.owner, vector.TransferReadOp)]
    slices = copy.parent_op()
    assert isinstance(slices, scf.ForOp)
    assert dimension_of(slices) == "k"
    assert constant_of(slices.step) == 2


def test_rows_that_are_copied_may_be_asked_for(after: After) -> None:
    ask = "prefetch{operand=b loop=k ahead=1}"
    module = after(PROBLEM, f"{TILES},tile{{loops=k sizes=2}},{FUSE},{ask}")
    (asked,) = [op for op in module.walk() if isinstance(op, PrefetchOp)]
    (pack,) = packs(module)
    assert chain(asked.source)[0] is chain(pack.source)[0]
    assert memref_type(asked.source) == memref_type(pack.source)


ANY_ROWS = f"{B},tile{{loops=m sizes=4 edges=exact}},tile{{loops=n sizes=8}},{SUM},{FUSE}"


def test_a_copy_goes_before_where_a_call_has_no_whole_tile() -> None:
    module = build(Gemm(m=gemmir.ANY, n=16, k=8))
    run_passes(module, Schedule.parse(ANY_ROWS))
    (branch,) = [op for op in module.walk() if isinstance(op, scf.IfOp)]
    first, other = (list(r.walk()) for r in (branch.true_region, branch.false_region))
    assert [op for op in first if isinstance(op, scf.ForOp) and dimension_of(op) == "m"] == []
    assert sum(isinstance(op, PackOp) and isinstance(op.next_op, GemmOp) for op in first) == 1
    (whole,) = [op for op in other if isinstance(op, PackOp)]
    assert memref_type(whole.source).get_shape() == (8, 16)
    assert len(packs(module)) == 2


@given(
    n=st.integers(1, 30),
    edges=st.sampled_from(["exact", "even", "peel"]),
    slices=st.booleans(),
    cut=st.booleans(),
)
@example(n=20, edges="exact", slices=True, cut=True)
@examples(0.2)
def test_any_number_of_rows(n: int, edges: str, slices: bool, cut: bool) -> None:
    blocks = "tile{loops=k sizes=4}," if cut else ""
    steps = ",tile{loops=k sizes=2}" if slices else ""
    tiles = f"{B},tile{{loops=m sizes=4 edges={edges}}},tile{{loops=n sizes=8}},{SUM}{steps}"
    schedule = f"{blocks}{tiles},{FUSE},vectorize{{with=fma width=4}}"
    check(Gemm(m=gemmir.ANY, n=n, k=9), target="cpu:x86-64-v3", schedule=schedule).require_ok()


def test_several_copies_of_a_number_of_rows_that_a_call_tells_are_refused() -> None:
    tiles = f"{B},tile{{loops=n sizes=8 edges=peel}},tile{{loops=m sizes=4 edges=exact}}"
    with pytest.raises(ScheduleError, match=r"GEM1473.*2 loops over m"):
        run_passes(build(Gemm(m=gemmir.ANY, n=20, k=8)), Schedule.parse(f"{tiles},{FUSE}"))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Gemm, str]:
    """Blocks of n and k, panels that are clipped, tiles that are peeled, slices of k or none."""
    gemm = Gemm(
        m=draw(st.integers(1, 20)),
        n=draw(st.integers(1, 40)),
        k=draw(st.integers(1, 20)),
        dtype=draw(st.sampled_from(["f32", "f64"])),
        trans_a=draw(st.booleans()),
        trans_b=draw(st.booleans()),
        alpha=draw(st.sampled_from([1.0, -0.5])),
        beta=draw(st.sampled_from([0.0, 3.0])),
        epilogue=draw(st.sampled_from(["", "bias+relu"])),
    )
    edges = st.sampled_from(["", " edges=peel"])
    steps: list[str] = []
    if draw(st.booleans()):
        steps.append(f"tile{{loops=n sizes=16{draw(edges)}}}")
    if draw(st.booleans()):
        steps.append("tile{loops=k sizes=8}")
    steps.append(B)
    steps.append(f"tile{{loops=m sizes={draw(st.integers(1, 6))}{draw(edges)}}}")
    steps += ["tile{loops=n sizes=8}", SUM]
    if draw(st.booleans()):
        steps.append(f"tile{{loops=k sizes={draw(st.integers(1, 4))}}}")
    steps.append(FUSE)
    if gemm.epilogue:
        steps.append("fuse-epilogue")
    steps += ["vectorize{with=fma width=4}"]
    return gemm, ",".join(steps)


@given(cases())
@examples(0.5)
def test_the_meaning_stays(after: After, case: tuple[Gemm, str]) -> None:
    after(*case)


@pytest.mark.parametrize("target", ["cpu:x86-64-v3", "cpu:x86-64-v4"])
@given(cases())
@examples(0.1)
def test_machine_code(target: str, case: tuple[Gemm, str]) -> None:
    gemm, schedule = case
    check(gemm, target=target, schedule=schedule, shrink=False).require_ok()


def test_default_schedules_fill_panels_by_the_first_of_some_rows() -> None:
    def text(m: int, n: int = 1024, k: int = 1024, target: str = "cpu:znver4") -> str:
        return str(default_schedule(Gemm(m=m, n=n, k=k), machine_for(target)))

    assert FUSE in text(64)
    assert FUSE in text(512, target="cpu:znver5")
    assert FUSE not in text(513, target="cpu:znver5")
    assert FUSE not in text(32)
    assert FUSE not in text(64, n=1001)
    assert FUSE not in text(64, k=1025)
    assert FUSE not in text(64, target="cpu:znver3")


@pytest.mark.parametrize(
    ("schedule", "code"),
    [
        (f"{TILES},fuse-pack{{operand=c}}", "GEM1470"),
        (f"tile{{loops=m sizes=4}},{FUSE}", "GEM1471"),
        (f"{TILES},{FUSE},{FUSE}", "GEM1471"),
        (f"{TILES},fuse-pack{{operand=a}}", "GEM1471"),
        (f"{B},tile{{loops=m sizes=4}},{FUSE}", "GEM1472"),
        (f"{B},tile{{loops=n sizes=8}},{FUSE}", "GEM1473"),
        (f"{B},tile{{loops=m sizes=8}},tile{{loops=m,n sizes=4,8}},{FUSE}", "GEM1473"),
        (f"{B},tile{{loops=m sizes=4 over=cores}},tile{{loops=n sizes=8}},{FUSE}", "GEM1473"),
    ],
)
def test_refused(after: After, schedule: str, code: str) -> None:
    with pytest.raises(ScheduleError, match=code):
        after(PROBLEM, schedule)


def test_panels_that_are_no_mere_copy_are_refused(after: After) -> None:
    gemm = Gemm(m=12, n=16, k=8, dtype="i8")
    schedule = TILES.replace("panel:8", "panel:8x4")
    with pytest.raises(ScheduleError, match=r"GEM1472.*neighbours along k"):
        after(gemm, f"{schedule},{FUSE}")
