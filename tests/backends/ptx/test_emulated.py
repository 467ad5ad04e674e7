"""The PTX of random problems under random schedules, run as text: right, and without a fault.

The emulator raises for a race, an access that is misplaced, misaligned or too early, a value that
was never written and a barrier that only some reach, so that a run that ends has none of them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import hypothesis.strategies as st
import pytest
from hypothesis import given

import gemmir
from gemmir import Gemm, Schedule
from gemmir.backends.ptx.emulator import Report
from gemmir.backends.ptx.run import run_ptx
from gemmir.gemm import DTYPES
from gemmir.machine.gpu import SHIPPED_GPUS, SM_80, GpuMachine
from tests.gpu_strategies import gpu_cases, gpu_dtypes, gpu_problems
from tests.strategies import arrays_for, copied, examples, furthest, surroundings

MOST: Final = 40
"""Extents: each example runs a few blocks of one to four warps."""


def run(gemm: Gemm, target: str, schedule: Schedule | None = None) -> Report | None:
    """Emit and run; the numbers are within their bound, and nothing else was written."""
    artifact = gemmir.lower(gemm, target=target, schedule=schedule).artifact
    arrays = arrays_for(gemm)
    outside = {name: surroundings(array) for name, array in arrays.items()}
    found = copied(arrays)
    report = run_ptx(artifact, artifact.text, list(found.values()))
    assert furthest(gemm, arrays, found["c"]) <= 1
    assert {name: surroundings(array) for name, array in found.items()} == outside
    return report


@given(gpu_cases(SM_80, MOST))
@examples(1)
def test_drawn_schedules(case: tuple[Gemm, Schedule]) -> None:
    gemm, schedule = case
    run(gemm, SM_80.target, schedule)


@given(gpu_cases(SM_80, 70))
@examples(0.3)
def test_drawn_schedules_of_larger_problems(case: tuple[Gemm, Schedule]) -> None:
    gemm, schedule = case
    run(replace(gemm, m=min(gemm.m, MOST), epilogue=gemm.epilogue), SM_80.target, schedule)


@st.composite
def _default_cases(draw: st.DrawFn) -> tuple[Gemm, GpuMachine]:
    machine = draw(st.sampled_from(SHIPPED_GPUS))
    return draw(gpu_problems(machine, MOST)), machine


@given(_default_cases())
@examples(1)
def test_default_schedules(case: tuple[Gemm, GpuMachine]) -> None:
    gemm, machine = case
    run(gemm, machine.target)


EDGES: Final = (
    Gemm(m=0, n=5, k=3),
    Gemm(m=4, n=0, k=3),
    Gemm(m=4, n=5, k=0, beta=0.5),
    Gemm(m=4, n=5, k=3, batch=0),
    Gemm(m=1, n=1, k=1),
    Gemm(m=1, n=67, k=3, trans_b=True),
    Gemm(m=67, n=1, k=3, trans_a=True),
    Gemm(m=31, n=33, k=17, batch=3, batch_stride_b=0, epilogue="bias+residual"),
    Gemm(m=65, n=63, k=1, lda=8, ldb=67, ldc=70, beta=-1.0, alpha=0.3),
)
"""Sizes of 0 and 1, primes, and one more or less than a tile."""


@pytest.mark.parametrize("dtype", gpu_dtypes(SM_80))
@pytest.mark.parametrize("gemm", EDGES, ids=lambda g: f"{g.m}x{g.n}x{g.k}x{g.batch}")
def test_edges(gemm: Gemm, dtype: str) -> None:
    whole = {"alpha": 3, "beta": round(gemm.beta)} if dtype in ("i8", "u8") else {}
    run(replace(gemm, dtype=dtype, out=DTYPES[dtype][-1], **whole), SM_80.target)


@pytest.mark.parametrize("trans", ["nn", "nt", "tn", "tt"])
@pytest.mark.parametrize("dtype", gpu_dtypes(SM_80))
def test_transposes(dtype: str, trans: str) -> None:
    gemm = Gemm(m=72, n=40, k=56, dtype=dtype, trans_a=trans[0] == "t", trans_b=trans[1] == "t")
    run(gemm, SM_80.target)


@pytest.mark.parametrize("target", ["cuda:sm_80", "cuda:sm_90a"])
@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_threads_multiply_what_they_widen(dtype: str, target: str) -> None:
    schedule = Schedule.parse(
        "tile{loops=m,n sizes=16,16 over=blocks},tile{loops=m,n sizes=4,4 over=threads},"
        "promote{operand=c to=registers},tile{loops=k sizes=8},"
        "promote{operand=a to=shared layout=panel:16},promote{operand=b to=shared layout=panel:16},"
        "vectorize{with=fma width=4}"
    )
    report = run(Gemm(m=19, n=21, k=13, dtype=dtype), target, schedule)
    assert report is not None
    assert report.instructions["fma"] > 0
