"""Grouped GEMM by warpgroups: rows that begin anywhere, of which the TMA copies whole boxes."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from xdsl.dialects import memref, scf

import gemmir
from gemmir.backends.ptx.assemble import cubin, find_ptxas
from gemmir.backends.ptx.run import run_ptx
from gemmir.errors import ScheduleError
from gemmir.evaluate import evaluate
from gemmir.gemm import COUNTS, OFFSETS, Gemm
from gemmir.ir.build import build
from gemmir.ir.groups import most_row_tiles
from gemmir.ir.tma import TmaStoreOp
from gemmir.lowering import run_passes
from gemmir.machine.gpu import SM_90A
from gemmir.schedule import Schedule
from gemmir.schedule.default import default_text
from gemmir.schedule.hopper_model import grouped_tiles
from tests.strategies import arrays_for, copied, examples, furthest, surroundings
from tests.test_stages import check_stages

MOE: Final = Gemm(m=200, n=72, k=72, groups=4, dtype="bf16", out="bf16", trans_b=True)
LARGE: Final = replace(MOE, m=8192, n=4096, k=4096, groups=8)
TILE: Final = "tile{loops=group,m,n sizes=1,64,64 over=blocks},"
STAY: Final = "persist{blocks=2},"
FED: Final = (
    "tile{loops=m sizes=64 over=warpgroups},promote{operand=c to=registers},"
    "tile{loops=k sizes=64},promote{operand=a to=shared layout=swizzle:128},"
    "promote{operand=b to=shared layout=swizzle:128},"
)
STORED: Final = "promote{operand=c to=shared layout=swizzle:64},"
BY_TMA: Final = "pipeline{loop=k stages=2 with=tma specialize=true},"
TURNS: Final = BY_TMA.replace("specialize=true", "specialize=true pingpong=true")
WGMMA: Final = "vectorize{with=wgmma}"

SCHEDULES: Final = {
    "a block for each tile": f"{TILE}{FED}{BY_TMA}{WGMMA}",
    "blocks stay": f"{TILE}{STAY}{FED}{BY_TMA}{WGMMA}",
    "C goes out in pieces": f"{TILE}{STAY}{FED}{STORED}{BY_TMA}{WGMMA}",
    "warpgroups take turns": f"{TILE}{STAY}{FED}{STORED}{TURNS}{WGMMA}",
}

OFFSETS_OF: Final = {
    "one has all": (0, 0, 200, 200, 200),
    "whole tiles": (0, 64, 64, 192, 200),
    "a row each": (0, 1, 2, 3, 4),
    "none": (0, 0, 0, 0, 0),
    "rows of none": (0, 65, 130, 131, 150),
}


COUNTS_OF: Final = {"full": (200, 200, 0, 64), "few": (1, 0, 65, 130)}


def arrays_of(gemm: Gemm, offsets: tuple[int, ...]) -> dict[str, np.ndarray]:
    arrays = arrays_for(gemm)
    arrays[OFFSETS][:] = offsets
    return arrays


@pytest.mark.parametrize("offsets", OFFSETS_OF.values(), ids=OFFSETS_OF)
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_rows_of_every_kind(schedule: str, offsets: tuple[int, ...]) -> None:
    module, arrays = build(MOE), arrays_of(MOE, offsets)
    outside = {name: surroundings(array) for name, array in arrays.items()}
    run_passes(module, Schedule.parse(schedule))
    found = copied(arrays)
    evaluate(module, list(found.values()))
    assert furthest(MOE, arrays, found["c"]) <= 1
    assert {name: surroundings(array) for name, array in found.items()} == outside


@pytest.mark.parametrize("name", ["one has all", "rows of none"])
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_rows_of_every_kind_in_the_emulator(schedule: str, name: str) -> None:
    artifact = gemmir.lower(MOE, SM_90A.target, schedule).artifact
    arrays = arrays_of(MOE, OFFSETS_OF[name])
    found = copied(arrays)
    run_ptx(artifact, artifact.text, list(found.values()), seed=1)
    assert furthest(MOE, arrays, found["c"]) <= 1


@pytest.mark.parametrize("counts", COUNTS_OF.values(), ids=COUNTS_OF)
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_rows_beyond_the_counts_stay(schedule: str, counts: tuple[int, ...]) -> None:
    gemm = replace(MOE, masked=True)
    arrays = arrays_for(gemm)
    arrays[COUNTS][:] = counts
    module, found = build(gemm), copied(arrays)
    run_passes(module, Schedule.parse(schedule))
    evaluate(module, list(found.values()))
    assert furthest(gemm, arrays, found["c"]) <= 1
    for g, count in enumerate(counts):
        assert np.array_equal(found["c"][g, count:], arrays["c"][g, count:])


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_rows_beyond_the_counts_stay_in_the_emulator(schedule: str) -> None:
    gemm = replace(MOE, masked=True)
    artifact = gemmir.lower(gemm, SM_90A.target, schedule).artifact
    arrays = arrays_for(gemm)
    arrays[COUNTS][:] = COUNTS_OF["few"]
    found = copied(arrays)
    run_ptx(artifact, artifact.text, list(found.values()), seed=2)
    assert furthest(gemm, arrays, found["c"]) <= 1


@given(
    st.sampled_from(["", "bias", "bias+relu+residual"]),
    st.sampled_from([0.0, 0.5]),
    st.integers(1, 300),
    st.integers(1, 7),
)
@examples(0.2)
def test_every_stage_with_an_epilogue(epilogue: str, beta: float, m: int, groups: int) -> None:
    gemm = replace(MOE, epilogue=epilogue, beta=beta, m=m, groups=groups)
    stay = STAY if most_row_tiles(groups, m, 64, masked=False) > 1 else ""
    fuse = "fuse-epilogue," if epilogue else ""
    check_stages(gemm, Schedule.parse(f"{TILE}{stay}{FED}{fuse}{STORED}{BY_TMA}{WGMMA}"))


def test_blocks_that_stay_count_tiles_and_skip_none() -> None:
    module = build(MOE)
    run_passes(module, Schedule.parse(f"{TILE}{STAY}"[:-1]))
    assert not any(isinstance(op, scf.IfOp) for op in module.walk())
    loads = [op for op in module.walk() if isinstance(op, memref.LoadOp)]
    assert len(loads) == 2 * 3  # of the count, of the search, and of the product that is found


def test_only_whole_tiles_are_stored_by_the_tma() -> None:
    module = build(MOE)
    run_passes(module, Schedule.parse(SCHEDULES["C goes out in pieces"]))
    stores = [op for op in module.walk() if isinstance(op, TmaStoreOp)]
    assert len(stores) == 2
    assert all(isinstance(op.parent_op(), scf.IfOp) for op in stores)


def test_an_epilogue_of_all_warpgroups_is_refused() -> None:
    schedule = f"{TILE}{STAY}{FED}{BY_TMA}{WGMMA}"
    with pytest.raises(ScheduleError, match="put fuse-epilogue before") as found:
        gemmir.lower(replace(MOE, epilogue="bias"), SM_90A.target, schedule)
    assert found.value.code == "GEM1291"


@pytest.mark.parametrize(
    ("m", "size", "blocks"), [(8192, 128, True), (8, 64, False), (256, 64, True)]
)
def test_the_default_takes_products_as_if_all_had_as_many_rows(
    m: int, size: int, blocks: bool
) -> None:
    gemm = replace(LARGE, m=m)
    tiles = grouped_tiles(gemm, SM_90A)
    assert tiles.m == size
    assert (tiles.cluster, tiles.split, tiles.group, tiles.swapped) == (1, 1, 0, False)
    text = default_text(gemm, SM_90A)
    assert text.startswith(f"tile{{loops=group,m,n sizes=1,{size},")
    assert ("persist{blocks=132}" in text) == blocks
    assert "with=wgmma" in text


def test_the_default_is_right_in_the_emulator() -> None:
    gemm = replace(MOE, epilogue="bias+silu", m=130, groups=3)
    artifact = gemmir.lower(gemm, SM_90A.target).artifact
    assert "wgmma" in artifact.text
    arrays = arrays_for(gemm)
    found = copied(arrays)
    run_ptx(artifact, artifact.text, list(found.values()))
    assert furthest(gemm, arrays, found["c"]) <= 1


@pytest.mark.skipif(find_ptxas() is None, reason="ptxas is not found")
@pytest.mark.parametrize("dtype", ["bf16", "e4m3"])
@pytest.mark.parametrize("epilogue", ["", "gelu", "bias+silu"])
@pytest.mark.parametrize("m", [8192, 300])
def test_the_default_spills_nothing(m: int, epilogue: str, dtype: str) -> None:
    gemm = replace(LARGE, m=m, dtype=dtype, epilogue=epilogue)
    artifact = gemmir.lower(gemm, SM_90A.target).artifact
    found = cubin(artifact.text, artifact.cpu).resources
    assert not found.spills and found.stack_bytes == 0
