"""The emitted kernel in Pallas's interpreter: numbers over drawn problems and schedules.

An operand that is past its edge is NaN there, and so is what nobody has written.
"""

from __future__ import annotations

from typing import Final

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from gemmir import Gemm, Schedule
from gemmir.backends.pallas.export import stablehlo
from gemmir.machine.tpu import SHIPPED_TPUS, V5E, TpuMachine
from gemmir.schedule.default import default_schedule
from tests.backends.pallas.interpreted import (
    emitted,
    interpreted,
    random_numbers,
    whole_numbers,
)
from tests.strategies import examples, furthest
from tests.tpu_strategies import tpu_cases, tpu_problems, tpu_schedules

ROUNDED: Final = {"gelu", "silu"}
"""Steps whose results are not exact."""

EXACT_FACTORS: Final = (0.0, 1.0, -1.0, -0.5, 2.0, 3.0)


def require_right(gemm: Gemm, schedule: Schedule, machine: TpuMachine) -> None:
    """Within the bound; and of whole numbers the very ones that the evaluator makes of the IR."""
    whole, drawn = whole_numbers(gemm), random_numbers(gemm)
    artifact, expected = emitted(gemm, schedule, machine, whole)
    kernel = interpreted(artifact)
    assert furthest(gemm, drawn, kernel(drawn)) <= 1
    found = kernel(whole)
    if ROUNDED & set(gemm.steps) or {gemm.alpha, gemm.beta} - set(EXACT_FACTORS):
        assert furthest(gemm, whole, found) <= 1
    else:
        np.testing.assert_array_equal(found, expected)


@given(tpu_cases(V5E, 40))
@examples(1)
def test_small_blocks(case: tuple[Gemm, Schedule]) -> None:
    require_right(*case, V5E)


@given(st.data())
@examples(0.5)
def test_blocks_that_a_machine_has(data: st.DataObject) -> None:
    """Pallas lowers these for a TPU too."""
    machine = data.draw(st.sampled_from(SHIPPED_TPUS))
    gemm = data.draw(tpu_problems(machine, 300))
    schedule = data.draw(tpu_schedules(gemm, machine))
    require_right(gemm, schedule, machine)
    if 0 not in (gemm.m, gemm.n, gemm.batch):
        artifact, _ = emitted(gemm, schedule, machine)
        assert "tpu_custom_call" in stablehlo(artifact)


@pytest.mark.parametrize("machine", SHIPPED_TPUS, ids=lambda m: m.name)
def test_default_schedules(machine: TpuMachine) -> None:
    for dtype in machine.mxu_dtypes:
        whole = dtype == "i8"
        gemm = Gemm(
            m=200,
            n=300,
            k=520,
            dtype=dtype,
            trans_b=dtype == "bf16",
            alpha=2,
            beta=1,
            epilogue="bias+relu" if whole else "bias+gelu+residual",
        )
        require_right(gemm, default_schedule(gemm, machine), machine)


SLICED: Final = (
    "tile{loops=m,n sizes=16,32 over=grid},promote{operand=c to=vmem},tile{loops=k sizes=16},"
    "promote{operand=a to=vmem},promote{operand=b to=vmem},fuse-epilogue,"
    "pipeline{loop=k stages=2 with=dma},vectorize{with=mxu}"
)


@pytest.mark.parametrize(
    ("m", "n", "k"), [(0, 5, 7), (5, 0, 7), (1, 1, 1), (16, 32, 16), (17, 33, 17), (3, 2, 100)]
)
def test_sizes_around_the_edge(m: int, n: int, k: int) -> None:
    gemm = Gemm(m=m, n=n, k=k, dtype="bf16", beta=2, epilogue="bias")
    require_right(gemm, Schedule.parse(SLICED), V5E)


def test_what_is_not_a_number_stays_where_it_is() -> None:
    """One NaN in A makes one row of C no number, and no more."""
    gemm = Gemm(m=40, n=48, k=56, dtype="bf16", epilogue="bias")
    values = whole_numbers(gemm)
    values["a"][20, 55] = np.nan
    artifact, _ = emitted(gemm, SLICED, V5E)
    found = interpreted(artifact)(values)
    assert np.isnan(found[20]).all()
    assert np.isfinite(np.delete(found, 20, axis=0)).all()
