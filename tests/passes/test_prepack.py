"""prepack: the pack of an operand in a function of its own."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xdsl.dialects import func, memref
from xdsl.dialects.builtin import ModuleOp

from gemmir.errors import ScheduleError
from gemmir.gemm import Gemm
from gemmir.ir.dialect import GemmOp, PackOp

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
    ],
)
def test_an_operand_that_is_not_packed_before_all_loops(after: After, schedule: str) -> None:
    with pytest.raises(ScheduleError, match="GEM1344"):
        after(Gemm(m=7, n=9, k=5), schedule)


def test_another_operand(after: After) -> None:
    with pytest.raises(ScheduleError, match="GEM1343: prepack: operand='c'; use a or b"):
        after(Gemm(m=7, n=9, k=5), "prepack{operand=c}")
