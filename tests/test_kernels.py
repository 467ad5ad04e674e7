"""Machine code: within the bound, the same bits however it is called, and nothing else touched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given

import gemmir
from gemmir import Gemm, Kernel, Schedule
from gemmir.backends.cpu.openmp import runtime
from tests.strategies import (
    AROUND_TILES,
    arrays_for,
    copied,
    examples,
    furthest,
    problems,
    scheduled,
    surroundings,
)

Array = npt.NDArray[Any]

DIRECT = (
    "tile{loops=m,n sizes=4,16},promote{operand=c to=registers},vectorize{with=fma width=8},"
    "unroll{loop=k factor=4}"
)
PACKED = (
    "tile{loops=n,k sizes=48,9},promote{operand=b to=l3 layout=panel:16},"
    "tile{loops=m sizes=12},promote{operand=a to=l2 layout=panel:4},"
    "tile{loops=n,m sizes=16,4},promote{operand=c to=registers prefetch=true},"
    "vectorize{with=fma width=8},unroll{loop=k factor=3}"
)
OVERLAP = (
    "tile{loops=m,n sizes=4,8 edges=overlap},promote{operand=c to=registers},"
    "vectorize{with=fma width=8},unroll{loop=k factor=2}"
)
PEEL = (
    "tile{loops=m,n sizes=4,8 edges=peel},promote{operand=c to=registers},"
    "vectorize{with=fma width=4},unroll{loop=k factor=2}"
)
NARROW = "tile{loops=m,n sizes=4,3},promote{operand=c to=registers},vectorize{with=fma width=1}"
SCHEDULES = {
    "direct": DIRECT,
    "packed": PACKED,
    "overlap": OVERLAP,
    "peel": PEEL,
    "narrow": NARROW,
}
"""Schedules that all say the same of the order of summation but where k is cut."""


def run(kernel: Kernel, arrays: dict[str, Array]) -> Array:
    """Call `kernel` on copies of `arrays`; nothing but the elements of c may change."""
    found = copied(arrays)
    *inputs, c = found.values()
    for array in inputs:
        array.flags.writeable = False
    assert kernel(*inputs, out=c) is c
    for name, array in found.items():
        assert surroundings(array) == surroundings(arrays[name]), f"around {name}"
        if name != "c":
            assert array.tobytes() == arrays[name].tobytes(), name
    return c


@given(scheduled(), st.sampled_from([0, 1]))
@examples(1)
def test_a_drawn_schedule(case: tuple[Gemm, Schedule], offset: int) -> None:
    """`offset` of one element: arrays that lie on no vector boundary."""
    gemm, schedule = case
    arrays = arrays_for(gemm, offset=offset)
    kernel = gemmir.lower(gemm, schedule=schedule).compile()
    assert furthest(gemm, arrays, run(kernel, arrays)) <= 1


@given(problems(), st.sampled_from([0, 1]), st.sampled_from([1, 1, 2, 3]))
@examples(1)
@example(Gemm(m=1, n=7, k=9, trans_b=True), 0, 1)
@example(Gemm(m=17, n=17, k=1, trans_a=True, trans_b=True, beta=0.5), 0, 3)
def test_the_default_schedule(gemm: Gemm, offset: int, threads: int) -> None:
    arrays = arrays_for(gemm, offset=offset)
    kernel = gemmir.compile(gemm, threads=threads)
    assert furthest(gemm, arrays, run(kernel, arrays)) <= 1


@pytest.mark.parametrize("beta", [0.0, 1.0, -0.5])
@pytest.mark.parametrize("sizes", [(0, 5, 3), (5, 0, 3), (5, 3, 0), (0, 0, 0)])
def test_empty_problems(sizes: tuple[int, int, int], beta: float) -> None:
    m, n, k = sizes
    gemm = Gemm(m=m, n=n, k=k, beta=beta, epilogue="bias+silu")
    arrays = arrays_for(gemm)
    for schedule in (
        None,
        "promote{operand=c to=registers},vectorize{with=fma width=4},expand-math",
    ):
        kernel = gemmir.lower(gemm, schedule=schedule).compile()
        assert furthest(gemm, arrays, run(kernel, arrays)) <= 1


def test_no_terms_leave_the_epilogue_of_beta_c() -> None:
    gemm = Gemm(m=5, n=9, k=0, beta=2.0, epilogue="bias+relu")
    arrays = arrays_for(gemm)
    expected = np.maximum(np.float32(2) * arrays["c"] + arrays["bias"], 0)
    assert np.array_equal(run(gemmir.compile(gemm), arrays), expected)


def parallel_of(schedule: str, loop: str) -> str:
    """`schedule` with its outermost loop over `loop` on all cores."""
    return f"{schedule},parallelize{{loop={loop}}}"


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("epilogue", ["", "bias+gelu+residual"])
def test_rows_are_the_same_bits_for_any_number_of_rows(name: str, epilogue: str) -> None:
    schedule = SCHEDULES[name]
    if epilogue:
        schedule = schedule.replace("vectorize", "fuse-epilogue,vectorize") + ",expand-math"
    whole = Gemm(m=37, n=43, k=29, alpha=0.3, epilogue=epilogue)
    arrays = arrays_for(whole)
    expected = run(gemmir.lower(whole, schedule=schedule).compile(), arrays)
    for m in (4, 5, 8, 13, 36):
        part = replace(whole, m=m)
        few = {k: v[:m] if k in ("a", "residual", "c") else v for k, v in arrays.items()}
        *inputs, _ = few.values()
        found = gemmir.lower(part, schedule=schedule).compile()(*inputs)
        assert found.tobytes() == expected[:m].tobytes(), m


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_matrix_is_the_same_bits_in_any_batch(name: str) -> None:
    schedule = "tile{loops=batch sizes=1}," + SCHEDULES[name]
    whole = Gemm(m=13, n=25, k=11, batch=3, beta=0.0, batch_stride_b=0)
    arrays = arrays_for(whole)
    expected = run(gemmir.lower(whole, schedule=schedule).compile(), arrays)
    one = replace(whole, batch=1)
    alone = gemmir.lower(one, schedule=schedule).compile()
    plain = gemmir.lower(Gemm(m=13, n=25, k=11), schedule=SCHEDULES[name]).compile()
    for i in range(3):
        found = alone(arrays["a"][i : i + 1], arrays["b"])
        assert found[0].tobytes() == expected[i].tobytes()
        assert plain(arrays["a"][i], arrays["b"]).tobytes() == expected[i].tobytes()


@pytest.fixture
def threads() -> Iterator[Any]:
    """threads(n) lets later kernels run on n threads."""
    library = runtime()
    before = library.omp_get_max_threads()
    yield library.omp_set_num_threads
    library.omp_set_num_threads(before)


@pytest.mark.parametrize("loop", ["m", "n"])
@pytest.mark.parametrize("name", ["direct", "packed", "peel", "narrow"])
def test_the_same_bits_on_any_number_of_threads(threads: Any, name: str, loop: str) -> None:
    gemm = Gemm(m=37, n=59, k=23, beta=-0.5)
    arrays = arrays_for(gemm)
    expected = run(gemmir.lower(gemm, schedule=SCHEDULES[name]).compile(), arrays)
    kernel = gemmir.lower(gemm, schedule=parallel_of(SCHEDULES[name], loop)).compile()
    for count in (1, 2, 3, 7):
        threads(count)
        assert run(kernel, arrays).tobytes() == expected.tobytes(), count


def test_a_default_kernel_gives_the_same_bits_on_any_number_of_threads(threads: Any) -> None:
    gemm = Gemm(m=61, n=35, k=40, epilogue="bias+relu")
    arrays = arrays_for(gemm)
    kernel = gemmir.compile(gemm, schedule=gemmir.lower(gemm, threads=2).schedule)
    threads(1)
    expected = run(kernel, arrays)
    for count in (2, 5):
        threads(count)
        assert run(kernel, arrays).tobytes() == expected.tobytes(), count


@pytest.mark.parametrize("name", [*SCHEDULES, "default"])
@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_go_where_numpy_lets_them_go(name: str, special: float) -> None:
    """Only into the row of A and the column of B that hold them, from wherever these begin."""
    gemm = Gemm(m=21, n=27, k=19)
    kernel = gemmir.lower(gemm, schedule=SCHEDULES.get(name)).compile()
    for operand, at in (("a", (20, 18)), ("a", (0, 0)), ("b", (18, 26)), ("b", (0, 7))):
        arrays = arrays_for(gemm)
        arrays[operand][at] = special
        found = run(kernel, arrays)
        with np.errstate(invalid="ignore"):
            expected = arrays["a"] @ arrays["b"]
        finite = np.isfinite(expected)
        assert np.array_equal(np.isfinite(found), finite)
        assert np.array_equal(found[~finite], expected[~finite], equal_nan=True)


@pytest.mark.parametrize(("m", "n", "ldc"), [(7, 17, 19), (8, 16, 17), (6, 33, 48)])
@pytest.mark.parametrize("name", [*SCHEDULES, "default"])
def test_between_rows_of_c_nothing_is_written(name: str, m: int, n: int, ldc: int) -> None:
    gemm = Gemm(m=m, n=n, k=6, lda=11, ldb=n + 3, ldc=ldc)
    arrays = arrays_for(gemm)
    kernel = gemmir.lower(gemm, schedule=SCHEDULES.get(name)).compile()
    assert furthest(gemm, arrays, run(kernel, arrays)) <= 1


@pytest.mark.parametrize("extent", [e for e in AROUND_TILES if e < 35])
def test_the_old_c_is_not_read_if_beta_is_0(extent: int) -> None:
    for schedule in (None, PACKED.replace("k sizes=48,9", "k sizes=48,2")):
        gemm = Gemm(m=extent, n=extent, k=5, epilogue="relu")
        if schedule is not None and extent < 16:
            continue
        arrays = arrays_for(gemm)
        assert np.isnan(arrays["c"]).all()
        assert np.isfinite(run(gemmir.lower(gemm, schedule=schedule).compile(), arrays)).all()
