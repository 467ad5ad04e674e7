"""The default schedules of large problems use memory well: banks in turn, whole sectors.

The schedule is that of a large problem, whose blocks are the largest there are; the emulator runs
it on a problem of few blocks.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from typing import Final

import pytest

import gemmir
from gemmir import Gemm, Schedule
from gemmir.backends.ptx.emulator import Access, Report
from gemmir.backends.ptx.run import run_ptx
from gemmir.machine import machine_for
from gemmir.machine.gpu import SHIPPED_GPUS, SM_90A
from gemmir.schedule.default import default_schedule
from gemmir.schedule.default_hopper import takes_warpgroups
from tests.gpu_strategies import gpu_dtypes
from tests.strategies import arrays_for

LARGE: Final = Gemm(m=4096, n=4096, k=4096)
TRANSPOSES: Final = {"nn": (False, False), "nt": (False, True), "tn": (True, False)} | {
    "tt": (True, True)
}


def problem(dtype: str, trans: str) -> Gemm:
    trans_a, trans_b = TRANSPOSES[trans]
    return replace(LARGE, dtype=dtype, trans_a=trans_a, trans_b=trans_b)


CASES: Final = [
    (machine.target, dtype, trans)
    for machine in SHIPPED_GPUS
    for dtype in gpu_dtypes(machine)
    for trans in TRANSPOSES
    if not takes_warpgroups(problem(dtype, trans), machine)
]
"""Warpgroups read shared memory themselves, and the TMA fills it."""

WIDE_BYTES: Final = 16
SECTOR_BYTES: Final = 32

SCATTERED_PASSES: Final = 4
"""Passes of a copy of few bytes that lies across rows in shared memory.

Each element is stored once and loaded by many: loads are what the layouts are chosen for.
"""


def width_of(access: Access) -> int:
    """Bytes that one thread moves."""
    name, _, rest = access.text.partition(" ")
    if name.startswith("cp.async"):
        return int(rest.split(",")[2])
    if name.startswith("ldmatrix"):
        return WIDE_BYTES
    found = re.search(r"(?:v([24])\.)?[bfsu](\d+)$", name)
    assert found is not None, access.text
    return int(found[1] or 1) * int(found[2]) // 8


def report_of(target: str, dtype: str, trans: str) -> Report:
    """What the default schedule of a large problem does in a few blocks."""
    large = problem(dtype, trans)
    schedule = default_schedule(large, machine_for(target))
    return _report(replace(large, m=128, n=256, k=64), schedule)


@cache
def _report(gemm: Gemm, schedule: Schedule) -> Report:
    """One run for all targets that have the same schedule."""
    artifact = gemmir.lower(gemm, target=SM_90A.target, schedule=schedule).artifact
    found = run_ptx(artifact, artifact.text, list(arrays_for(gemm).values()))
    assert found is not None
    return found


@pytest.mark.parametrize(("target", "dtype", "trans"), CASES)
def test_shared_memory_is_read_without_bank_conflicts(target: str, dtype: str, trans: str) -> None:
    shared = report_of(target, dtype, trans).shared
    assert any(a.text.startswith(("ld.shared", "ldmatrix")) for a in shared)
    copies = [a for a in shared if not a.text.startswith(("ld.shared", "ldmatrix"))]
    assert [a for a in shared if a.ratio > 1 and a not in copies] == []
    most = {a: 1 if width_of(a) == WIDE_BYTES else SCATTERED_PASSES for a in copies}
    assert [a for a in copies if a.ratio > most[a]] == []


@pytest.mark.parametrize(("target", "dtype", "trans"), CASES)
def test_each_thread_moves_its_part_of_whole_sectors(target: str, dtype: str, trans: str) -> None:
    """Where the accesses of a thread that follow each other are taken together."""
    found = report_of(target, dtype, trans).global_
    assert found
    assert [a for a in found if a.ratio * width_of(a) > max(SECTOR_BYTES, width_of(a))] == []


@pytest.mark.parametrize("n", [256, 96, 48])
def test_pieces_of_c_go_through_shared_memory_without_bank_conflicts(n: int) -> None:
    """Rows of 128, 64 and 32 bytes."""
    gemm = Gemm(m=128, n=n, k=64, dtype="bf16", out="bf16", trans_b=True)
    tiles = f"tile{{loops=m,n sizes=128,{n} over=blocks}},tile{{loops=m sizes=64 over=warpgroups}}"
    row = next(r for r in (128, 64, 32) if 2 * n % r == 0)
    schedule = Schedule.parse(
        f"{tiles},promote{{operand=c to=registers}},tile{{loops=k sizes=32}},"
        "promote{operand=a to=shared layout=swizzle:64},"
        "promote{operand=b to=shared layout=swizzle:64},"
        f"promote{{operand=c to=shared layout=swizzle:{row}}},"
        "pipeline{loop=k stages=2 with=tma specialize=true},vectorize{with=wgmma}"
    )
    found = _report(gemm, schedule).shared
    assert any(a.text.startswith("stmatrix") for a in found)
    assert [a for a in found if a.ratio > 1] == []
