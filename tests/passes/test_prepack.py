"""prepack: the pack of an operand in a function of its own."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xdsl.dialects import func, memref
from xdsl.dialects.builtin import ModuleOp

from gemmir.dtypes import ELEMENTS
from gemmir.errors import ScheduleError
from gemmir.evaluate import evaluate
from gemmir.gemm import Gemm
from gemmir.ir.build import build
from gemmir.ir.dialect import GemmOp, PackOp
from gemmir.lowering import run_pass
from gemmir.schedule import Schedule

After = Callable[[Gemm, str], ModuleOp]

A = "promote{operand=a to=l2 layout=panel:3},prepack{operand=a}"
B = "promote{operand=b to=l3 layout=panel:8},prepack{operand=b}"


def functions(module: ModuleOp) -> dict[str, func.FuncOp]:
    return {f.sym_name.data: f for f in module.ops if isinstance(f, func.FuncOp)}


@given(
    st.integers(1, 17),
    st.integers(1, 21),
    st.integers(1, 9),
    st.sampled_from([A, B]),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["", ",tile{loops=k sizes=3}"]),
)
def test_the_meaning_stays(
    after: After, m: int, n: int, k: int, first: str, ta: bool, tb: bool, cut: str
) -> None:
    gemm = Gemm(m=m, n=n, k=k, trans_a=ta, trans_b=tb, alpha=2, beta=3)
    after(gemm, f"{first}{cut},tile{{loops=m,n sizes=3,8}},promote{{operand=c to=registers}}")


def require_stack(module: ModuleOp, gemm: Gemm, count: int) -> None:
    packed = functions(module)["gemm_pack_b"].function_type.inputs.data[-1]
    panels = -(-gemm.n // 8) * count
    assert str(packed).startswith(f"memref<{gemm.k}x{panels * 8}xf32, #gemmir.panel<1, 8")


@given(
    st.integers(1, 9),
    st.integers(1, 21),
    st.sampled_from([2, 4, 6]),
    st.sampled_from([None, 0]),
    st.sampled_from(["", "x2"]),
    st.sampled_from(["", " over=cores"]),
)
def test_the_matrices_of_a_batch_are_a_stack(
    after: After, m: int, n: int, k: int, stride: int | None, depth: str, threads: str
) -> None:
    gemm = Gemm(m=m, n=n, k=k, batch=3, batch_stride_b=stride, trans_b=True)
    schedule = (
        f"tile{{loops=batch sizes=1{threads}}},promote{{operand=b to=l3 layout=panel:8{depth}}},"
        "prepack{operand=b},tile{loops=m,n sizes=3,8},promote{operand=c to=registers}"
    )
    require_stack(after(gemm, schedule), gemm, 1 if stride == 0 else 3)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("first", [[], ["parallelize{loop=group}"]])
def test_the_matrices_of_groups_are_a_stack(first: list[str], masked: bool) -> None:
    gemm = Gemm(m=7, n=19, k=5, groups=3, masked=masked)
    schedule = [*first, B, "tile{loops=m,n sizes=3,8}", "promote{operand=c to=registers}"]
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-3, 4, o.shape).astype(ELEMENTS[o.dtype].numpy) for o in gemm.operands]
    arrays[2][...] = [0, 4, 7] if masked else [0, 3, 3, 7]
    expected, module = arrays[-1].copy(), build(gemm)
    evaluate(module, [*arrays[:-1], expected])
    for step in Schedule.parse(",".join(schedule)).passes:
        run_pass(step, module, verify=True)
        found = arrays[-1].copy()
        evaluate(module, [*arrays[:-1], found])
        np.testing.assert_array_equal(found, expected)
    require_stack(module, gemm, 3)


@pytest.mark.parametrize("threads", ["", " over=cores"])
def test_everything_behind_it_works_on_both_parts(after: After, threads: str) -> None:
    schedule = (
        f"{B},tile{{loops=m sizes=6{threads}}},tile{{loops=m,n sizes=3,8}},"
        "promote{operand=c to=registers},fuse-epilogue,vectorize{with=fma width=4},"
        "unroll{loop=k factor=2}"
    )
    module = after(Gemm(m=13, n=21, k=5, epilogue="bias+relu"), schedule)
    assert not any(isinstance(op, GemmOp | PackOp) for op in module.walk())
    assert list(functions(module)) == ["gemm", "gemm_packed_b", "gemm_pack_b"]


def test_only_the_whole_allocates(after: After) -> None:
    made = functions(after(Gemm(m=4, n=5, k=6, trans_b=True), B))
    allocating = [
        name
        for name, function in made.items()
        if any(isinstance(op, memref.AllocOp) for op in function.walk())
    ]
    assert allocating == ["gemm"]
    assert [f.sym_visibility and f.sym_visibility.data for f in made.values()] == [
        None,
        "nested",
        "nested",
    ]


@pytest.mark.parametrize(
    "schedule",
    [
        "prepack{operand=b}",
        "promote{operand=a to=l2 layout=panel:3},prepack{operand=b}",
        "tile{loops=n sizes=8},promote{operand=b to=l3 layout=panel:8},prepack{operand=b}",
        f"{B},prepack{{operand=b}}",
        f"{B},{A}",
        "tile{loops=m sizes=4},promote{operand=b to=l3 layout=panel:8},prepack{operand=b}",
    ],
)
def test_an_operand_that_is_not_packed_before_all_loops(after: After, schedule: str) -> None:
    with pytest.raises(ScheduleError, match="GEM1344"):
        after(Gemm(m=7, n=9, k=5), schedule)


def test_another_operand(after: After) -> None:
    with pytest.raises(ScheduleError, match="GEM1343: prepack: operand='c'; use a or b"):
        after(Gemm(m=7, n=9, k=5), "prepack{operand=c}")
