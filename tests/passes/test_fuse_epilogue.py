"""fuse-epilogue: the epilogue moves to where each tile of C is finished."""

from collections.abc import Callable

import pytest
from xdsl.dialects import arith, memref, scf
from xdsl.dialects.builtin import ModuleOp

from gemmir.errors import ScheduleError
from gemmir.gemm import Gemm
from gemmir.ir.dialect import EpilogueOp
from gemmir.ir.loops import dimension_of
from gemmir.ir.views import chain

After = Callable[[Gemm, str], ModuleOp]

SMALL = Gemm(m=7, n=9, k=5, epilogue="bias+relu+residual")
C = "promote{operand=c to=registers}"
FUSE = "fuse-epilogue"


def epilogues(module: ModuleOp) -> list[EpilogueOp]:
    return [op for op in module.walk() if isinstance(op, EpilogueOp)]


def applies_bias(op: EpilogueOp) -> bool:
    return any(chain(v)[0].name_hint == "bias_rows" for v in op.inputs)


PROBLEMS = [
    SMALL,
    Gemm(m=7, n=9, k=5, alpha=2, beta=3, ldc=12, epilogue="bias+relu+residual"),
    Gemm(m=7, n=9, k=5, beta=1, epilogue="residual+bias"),
    Gemm(m=1, n=1, k=1, epilogue="bias"),
    Gemm(m=4, n=4, k=5, epilogue="relu+relu"),
    Gemm(m=7, n=9, k=5, dtype="f64", epilogue="gelu+bias+silu"),
]


@pytest.mark.parametrize("gemm", PROBLEMS, ids=str)
@pytest.mark.parametrize(
    "schedule",
    [
        FUSE,
        f"tile{{loops=m,n sizes=3,4}},{FUSE}",
        f"tile{{loops=m,n sizes=3,4}},{C},{FUSE}",
        f"tile{{loops=m,n sizes=3,4}},{FUSE},{C}",
        f"{FUSE},tile{{loops=m,n sizes=3,4}},{C}",
        f"tile{{loops=k sizes=2}},tile{{loops=m,n sizes=3,4}},{C},{FUSE}",
        f"tile{{loops=m,k sizes=4,3}},tile{{loops=n,k sizes=4,2}},{C},{FUSE}",
        f"tile{{loops=k sizes=2}},tile{{loops=m,n sizes=3,4}},{FUSE}",
        f"tile{{loops=m,n sizes=3,4 edges=peel}},{C},{FUSE}",
        f"tile{{loops=m sizes=3 over=cores}},tile{{loops=k sizes=2}},{C},{FUSE}",
    ],
)
def test_the_meaning_stays(after: After, gemm: Gemm, schedule: str) -> None:
    after(gemm, schedule)


def test_a_batch_with_one_bias(after: After) -> None:
    gemm = Gemm(m=3, n=4, k=5, batch=3, beta=2, epilogue="bias+residual")
    after(gemm, f"tile{{loops=batch,k,m sizes=1,2,2}},{C},{FUSE}")


def test_overlapping_tiles_are_finished_whole_each_time(after: After) -> None:
    after(SMALL, f"tile{{loops=m,n sizes=3,4 edges=overlap}},tile{{loops=k sizes=2}},{C},{FUSE}")


def test_without_slices_c_is_written_once_with_the_epilogue(after: After) -> None:
    module = after(SMALL, f"tile{{loops=m,n sizes=3,4}},{C},{FUSE}")
    (only,) = epilogues(module)
    assert applies_bias(only)
    assert not only.body.block.args[-1].uses
    assert not any(isinstance(op, scf.IfOp) for op in module.walk())


def test_with_slices_only_the_last_one_applies_it(after: After) -> None:
    """Three write-backs: the first slice stores, a middle one adds, the last one finishes."""
    module = after(SMALL, f"tile{{loops=k sizes=2}},{C},{FUSE}")
    first, last, middle = epilogues(module)
    assert [applies_bias(op) for op in (first, last, middle)] == [False, True, False]
    assert [bool(op.body.block.args[-1].uses) for op in (first, last, middle)] == [
        False,
        True,
        True,
    ]
    parent = last.parent_op()
    assert isinstance(parent, scf.IfOp)
    assert last.parent_region() is parent.true_region
    assert isinstance(parent.cond.owner, arith.CmpiOp)


def test_one_slice_may_be_first_and_last(after: After) -> None:
    """How many slices the inner loop over k runs is known only when it runs."""
    gemm = Gemm(m=4, n=4, k=5, beta=3, epilogue="bias")
    module = after(gemm, f"tile{{loops=k sizes=4}},tile{{loops=k sizes=3}},{C},{FUSE}")
    assert sum(map(applies_bias, epilogues(module))) >= 1


def test_the_last_slice_is_the_last_of_every_loop_over_k(after: After) -> None:
    module = after(SMALL, f"tile{{loops=k sizes=4}},tile{{loops=k sizes=2}},{C},{FUSE}")
    loops = [op for op in module.walk() if isinstance(op, scf.ForOp) and dimension_of(op) == "k"]
    tests = [op for op in module.walk() if isinstance(op, arith.CmpiOp)]
    ends = [
        op.rhs
        for op in tests
        if op.predicate.value.data == arith.CMPI_COMPARISON_OPERATIONS.index("sge")
    ]
    assert {loop.ub for loop in loops} <= set(ends)


def test_operands_are_cut_like_the_tile(after: After) -> None:
    module = after(SMALL, f"tile{{loops=m,n sizes=3,4}},{C},{FUSE}")
    (only,) = epilogues(module)
    views = [chain(v)[1] for v in only.inputs if chain(v)[0].name_hint in ("bias_rows", "residual")]
    tile = chain(only.output)[1]
    assert [[v.static_sizes for v in view] for view in views] == [
        [v.static_sizes for v in tile]
    ] * 2
    assert [[tuple(v.offsets) for v in view] for view in views] == [
        [tuple(v.offsets) for v in tile]
    ] * 2


def test_no_buffer_is_made(after: After) -> None:
    module = after(SMALL, f"tile{{loops=k sizes=2}},{C},{FUSE}")
    assert not any(isinstance(op, memref.AllocOp) for op in module.walk())


@pytest.mark.parametrize(
    ("gemm", "schedule", "code", "words"),
    [
        (Gemm(m=4, n=4, k=4), FUSE, "GEM0350", "0 epilogues stand outside the loops; leave"),
        (SMALL, f"tile{{loops=m sizes=3}},{FUSE},{FUSE}", "GEM0350", "0 epilogues"),
        (SMALL, f"{C},vectorize{{with=fma width=4}},{FUSE}", "GEM0350", "0 epilogues"),
    ],
)
def test_errors(after: After, gemm: Gemm, schedule: str, code: str, words: str) -> None:
    with pytest.raises(ScheduleError, match=words) as found:
        after(gemm, schedule)
    assert found.value.code == code
