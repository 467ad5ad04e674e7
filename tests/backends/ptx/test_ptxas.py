"""ptxas takes every default schedule: no spills, no stack, and registers for more than one block.

Skipped where no ptxas is found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import pytest

import gemmir
from gemmir import Gemm
from gemmir.backends.ptx.assemble import Resources, cubin, find_ptxas
from gemmir.backends.ptx.driver.parameters import FIRST_MAP, POINTER_BYTES
from gemmir.backends.ptx.driver.tensor_maps import MAP_BYTES
from gemmir.machine.gpu import SHIPPED_GPUS, GpuMachine
from gemmir.schedule import Schedule
from gemmir.schedule.default import default_schedule
from tests.gpu_strategies import gpu_dtypes

pytestmark = pytest.mark.skipif(find_ptxas() is None, reason="ptxas is not found")

LARGE: Final = Gemm(m=4096, n=4096, k=4096)


@dataclass(frozen=True)
class Case:
    """A default schedule of a large problem, which has the largest tiles there are."""

    machine: GpuMachine
    gemm: Gemm

    def __str__(self) -> str:
        trans = f"{'t' if self.gemm.trans_a else 'n'}{'t' if self.gemm.trans_b else 'n'}"
        return f"{self.machine.name}-{self.gemm.dtype}-{trans}"

    @property
    def schedule(self) -> Schedule:
        return default_schedule(self.gemm, self.machine)


def cases() -> Iterator[Case]:
    """Every element type on every GPU once, and all transposes where ptxas is quickest."""
    for machine in SHIPPED_GPUS:
        for dtype in gpu_dtypes(machine):
            for trans_a, trans_b in ((False, True), (True, False)):
                if machine.name == "sm_80" or trans_b:
                    gemm = replace(LARGE, dtype=dtype, trans_a=trans_a, trans_b=trans_b)
                    yield Case(machine, gemm)


def assembled(case: Case) -> Resources:
    artifact = gemmir.lower(case.gemm, target=case.machine.target).artifact
    return cubin(artifact.text, artifact.cpu).resources


def test_tensor_maps_are_where_ptxas_looks_for_them() -> None:
    """Of each parameter EIATTR_KPARAM_INFO has its number, and then its offset in their buffer."""
    artifact = gemmir.lower(Gemm(m=128, n=128, k=128, dtype="bf16"), "cuda:sm_90a").artifact
    code = cubin(artifact.text, artifact.cpu).data
    found = re.findall(rb"\x04\x17\x0c\x00.{4}(..)(..).{4}", code, re.DOTALL)
    offsets = {int.from_bytes(n, "little"): int.from_bytes(at, "little") for n, at in found}
    pointers = FIRST_MAP + 2 * MAP_BYTES
    assert [offsets[n] for n in range(5)] == [
        *(FIRST_MAP, FIRST_MAP + MAP_BYTES),
        *range(pointers, pointers + 3 * POINTER_BYTES, POINTER_BYTES),
    ]


@pytest.mark.parametrize("case", list(cases()), ids=str)
def test_default_schedules_spill_nothing(case: Case) -> None:
    found = assembled(case)
    assert not found.spills, found
    assert found.stack_bytes == 0
    assert 0 < found.registers <= case.machine.registers_per_thread


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_epilogues_spill_nothing(dtype: str) -> None:
    gemm = Gemm(m=1000, n=1001, k=64, dtype=dtype, beta=0.5, epilogue="bias+gelu+residual")
    artifact = gemmir.lower(gemm, target="cuda:sm_80").artifact
    found = cubin(artifact.text, artifact.cpu).resources
    assert not found.spills, found
    assert found.stack_bytes == 0


def test_small_problems_spill_nothing() -> None:
    for dtype in ("f32", "f64", "f16", "i8"):
        artifact = gemmir.lower(Gemm(m=5, n=3, k=7, dtype=dtype), target="cuda:sm_80").artifact
        assert not cubin(artifact.text, artifact.cpu).resources.spills
