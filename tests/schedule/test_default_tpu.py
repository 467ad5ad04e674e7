"""Default schedules of a TPU: they fit VMEM, are made of whole registers, and go by the model."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given

from gemmir import Gemm, Schedule
from gemmir.compiler import prepare
from gemmir.errors import ScheduleError
from gemmir.machine.tpu import SHIPPED_TPUS, TPU7X, V4, V5E, V5P, V6E, TpuMachine
from gemmir.schedule import check_fits
from gemmir.schedule.default import default_schedule, default_text
from gemmir.schedule.default_tpu import (
    MOST_STEP_CYCLES,
    VMEM_SHARE,
    TpuBlocks,
    cycles,
    step_cycles,
    tpu_blocks,
    vmem_bytes,
)
from tests.strategies import examples

SIZES = st.one_of(st.integers(1, 40), st.integers(1, 20000), st.sampled_from([4096, 8192, 14336]))
RESULTS = {"i8": None, "f32": None, "bf16x3": None, "bf16x1": None}


@st.composite
def problems(draw: st.DrawFn, machine: TpuMachine) -> Gemm:
    """Dense problems of any size, of the types that `machine` multiplies."""
    dtype = draw(st.sampled_from(machine.mxu_dtypes))
    return Gemm(
        m=draw(SIZES),
        n=draw(SIZES),
        k=draw(SIZES),
        dtype=dtype,
        out=RESULTS.get(dtype, draw(st.sampled_from(["bf16", "f32"]))),
        beta=draw(st.sampled_from([0.0, 1.0])),
        trans_a=draw(st.booleans()),
        trans_b=draw(st.booleans()),
        batch=draw(st.sampled_from([None, None, 3])),
        epilogue="" if dtype == "i8" else draw(st.sampled_from(["", "bias+gelu", "residual"])),
    )


@pytest.mark.parametrize("machine", SHIPPED_TPUS, ids=lambda m: m.name)
def test_blocks_fit_and_are_whole_registers_or_all_of_a_dimension(machine: TpuMachine) -> None:
    @given(problems(machine))
    @examples(0.3)
    def each(gemm: Gemm) -> None:
        schedule = default_schedule(gemm, machine)
        assert Schedule.parse(str(schedule)) == schedule
        check_fits(schedule, gemm, machine)
        blocks = tpu_blocks(gemm, machine)
        assert vmem_bytes(gemm, blocks) <= machine.vmem_bytes_per_core * VMEM_SHARE
        assert step_cycles(gemm, machine, blocks) <= MOST_STEP_CYCLES
        rows = 128 if gemm.trans_a else 8
        assert blocks.m == gemm.m or blocks.m % rows == 0
        assert blocks.n == gemm.n or blocks.n % 128 == 0
        assert blocks.k == gemm.k or blocks.k % 128 == 0

    each()


@pytest.mark.parametrize("machine", SHIPPED_TPUS, ids=lambda m: m.name)
def test_default_schedules_lower_to_one_kernel(machine: TpuMachine) -> None:
    @given(problems(machine))
    @examples(0.1)
    def each(gemm: Gemm) -> None:
        last = list(prepare(gemm, machine.target).stages.values())[-1].text
        assert last.count("pallas.call") == 1 and "pallas.dot" in last
        assert "gemmir.gemm" not in last and "gemmir.epilogue" not in last

    each()


@pytest.mark.parametrize("sizes", [(0, 7, 3), (5, 0, 3), (5, 7, 0)])
@pytest.mark.parametrize("trans_b", [False, True])
def test_empty_problems_lower(sizes: tuple[int, int, int], trans_b: bool) -> None:
    m, n, k = sizes
    gemm = Gemm(m=m, n=n, k=k, dtype="bf16", trans_b=trans_b)
    assert "gemmir.gemm" not in list(prepare(gemm, "tpu:v6e").stages.values())[-1].text


def test_the_text_of_a_schedule() -> None:
    gemm = Gemm(m=4096, n=4096, k=4096, dtype="bf16", out="bf16", batch=4, epilogue="bias")
    assert default_text(gemm, V5E).splitlines() == [
        "tile{loops=batch,m,n sizes=1,1024,512 over=grid}",
        "promote{operand=a to=vmem}",
        "promote{operand=b to=vmem}",
        "fuse-epilogue",
        "pipeline{loop=n stages=2 with=dma}",
        "tile{loops=n,m sizes=128,128}",
        "promote{operand=c to=vmem}",
        "fuse-epilogue",
        "vectorize{with=mxu}",
    ]


def test_what_is_split_or_read_again_is_multiplied_as_a_whole() -> None:
    """Parts would split f32 again; a C that is read is summed as a whole before the parts."""
    plain = Gemm(m=4096, n=4096, k=4096, dtype="bf16")
    split = default_text(replace(plain, dtype="bf16x3"), V5E).splitlines()
    assert not [line for line in split if line.startswith("tile{") and "over" not in line]
    turned = default_text(replace(plain, trans_b=True), V6E).splitlines()
    assert "tile{loops=n sizes=256}" in turned
    assert len(default_text(replace(plain, trans_a=True), V6E).splitlines()) == 6
    again = default_text(replace(plain, beta=1.0), V5E).splitlines()
    assert again[1] == "promote{operand=c to=vmem}"
    assert again[-2:] == ["tile{loops=n,m sizes=128,128}", "vectorize{with=mxu}"]


def test_a_long_k_is_cut_where_it_does_not_fit() -> None:
    gemm = Gemm(m=2048, n=2048, k=2**17, dtype="bf16", out="bf16")
    blocks = tpu_blocks(gemm, V5P)
    assert blocks.k < gemm.k and gemm.k % blocks.k == 0
    lines = default_text(gemm, V5P).splitlines()
    assert f"tile{{loops=k sizes={blocks.k}}}" in lines
    assert "pipeline{loop=k stages=2 with=dma}" in lines


def test_groups_have_a_loop_of_their_own() -> None:
    gemm = Gemm(m=4096, n=1024, k=1024, dtype="bf16", groups=8)
    blocks = tpu_blocks(gemm, V6E)
    lines = default_text(gemm, V6E).splitlines()
    assert lines[0] == f"tile{{loops=n,group,m sizes={blocks.n},1,{blocks.m} over=grid}}"
    assert "pipeline{loop=group stages=2 with=dma}" in lines


def test_tiles_of_rows_are_small_where_many_products_share_one() -> None:
    """A tile is visited once for each product with rows in it."""
    few, many = (
        tpu_blocks(Gemm(m=4096, n=2048, k=2048, dtype="bf16", groups=groups), V6E)
        for groups in (2, 128)
    )
    assert many.m < few.m <= 4096 // 2


def test_the_model_ranks_as_libtpu_does() -> None:
    """Cycles of libtpu 0.0.52 for 4096 cubed, from good blocks to bad ones."""
    gemm = Gemm(m=4096, n=4096, k=4096, dtype="bf16", out="bf16")
    ranked = {
        V5E: [(512, 512, 4096), (512, 1024, 1024), (256, 512, 4096)],
        V6E: [(1024, 1024, 4096), (1024, 1024, 512), (512, 1024, 4096), (512, 1024, 1024)],
        TPU7X: [(1024, 1024, 4096), (2048, 2048, 512), (1024, 1024, 1024)],
    }
    for machine, sizes in ranked.items():
        blocks = [TpuBlocks(order="mn", m=m, n=n, k=k) for m, n, k in sizes]
        found = [cycles(gemm, machine, b) for b in blocks]
        assert found == sorted(found), machine.name


def test_more_passes_of_the_units_take_longer() -> None:
    blocks = TpuBlocks(order="mn", m=512, n=512, k=4096)
    single, triple, full = (
        step_cycles(Gemm(m=8192, n=8192, k=4096, dtype=dtype), V6E, blocks)
        for dtype in ("bf16x1", "bf16x3", "f32")
    )
    assert (triple, full) == (3 * single, 6 * single)


def test_units_are_filled_whole() -> None:
    gemm = Gemm(m=512, n=512, k=512, dtype="bf16")
    few, many = (TpuBlocks(order="mn", m=m, n=512, k=512) for m in (8, 256))
    assert step_cycles(gemm, V6E, few) == step_cycles(gemm, V6E, many)
    narrow, wide = (TpuBlocks(order="mn", m=512, n=n, k=512) for n in (128, 256))
    assert step_cycles(gemm, V6E, narrow) == step_cycles(gemm, V6E, wide)
    assert 2 * step_cycles(gemm, V5E, narrow) == step_cycles(gemm, V5E, wide)


def test_two_cores_share_a_grid() -> None:
    gemm = Gemm(m=4096, n=4096, k=4096, dtype="bf16")
    blocks = TpuBlocks(order="mn", m=512, n=512, k=4096)
    one = cycles(gemm, replace(V5P, cores_per_device=1), blocks)
    assert cycles(gemm, V5P, blocks) == pytest.approx(one / 2, rel=0.02)


@pytest.mark.parametrize("dtype", ["f64", "f16", "tf32", "u8", "i8", "e4m3"])
def test_what_is_not_multiplied_is_refused(dtype: str) -> None:
    with pytest.raises(ScheduleError, match=f"GEM0316: tpu:v4 has no schedule .* {dtype}"):
        default_schedule(Gemm(m=64, n=64, k=64, dtype=dtype), V4)


def test_threads_are_refused() -> None:
    with pytest.raises(ScheduleError, match="GEM0317"):
        default_schedule(Gemm(m=64, n=64, k=64, dtype="bf16"), V4, threads=2)
