"""The cost of kernels for CPUs: counts by hand, and what holds for every problem and schedule."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemmir.compiler import prepare
from gemmir.cost import Prediction, predict, predict_schedule
from gemmir.cost.core import core_of
from gemmir.gemm import Gemm
from gemmir.ir.context import parse_module
from gemmir.lowering import run_passes
from gemmir.machine.cpu import SAPPHIRERAPIDS, ZNVER5

TARGET = "cpu:znver5"

DIRECT = "tile{loops=m,n sizes=8,32},promote{operand=c to=registers},vectorize{with=fma width=16}"
PACKED = (
    "tile{loops=k sizes=64},promote{operand=b to=l2 layout=panel:32},"
    "tile{loops=m,n sizes=8,32},promote{operand=c to=registers},vectorize{with=fma width=16}"
)


def _predicted(gemm: Gemm, schedule: str | None = None, *, warm: bool = True) -> Prediction:
    job = prepare(gemm, TARGET, schedule)
    return predict_schedule(job.source, job.schedule, job.machine, warm=warm)


def test_operations_are_those_of_the_problem() -> None:
    found = _predicted(Gemm(m=64, n=64, k=64), DIRECT)
    assert found.flops == 2 * 64**3
    assert found.roof_seconds == pytest.approx(64**3 / 32 / 4.1e9)


def test_what_is_computed_for_nothing_counts() -> None:
    """Of 100 columns in tiles of 32 the last 4 take as long as 32."""
    assert _predicted(Gemm(m=64, n=100, k=64), DIRECT).flops == 2 * 64 * 128 * 64


def test_a_printed_stage_has_the_same_cost() -> None:
    job = prepare(Gemm(m=300, n=200, k=500), TARGET, None)
    module = parse_module(job.source)
    run_passes(module, job.schedule)
    assert predict(parse_module(str(module)), job.machine) == predict(module, job.machine)


def test_a_matrix_that_does_not_stay_is_read_again() -> None:
    """32 columns of B are 64 KiB, more than L1: all of B goes by for each 8 rows of A, and those
    rows for each 32 columns."""
    found = _predicted(Gemm(m=256, n=512, k=512), DIRECT)
    a_bytes, b_bytes = 256 * 512 * 4, 512 * 512 * 4
    again = a_bytes * (512 // 32) + b_bytes * (256 // 8)
    assert found.bytes_by_level["l1"] == pytest.approx(again, rel=0.05)


def test_what_stays_is_read_once() -> None:
    """A, B and C of 64 cubed are 48 KiB, as much as L1, and far less than L2."""
    found = _predicted(Gemm(m=64, n=64, k=64), DIRECT, warm=False)
    assert found.bytes_by_level["l2"] == pytest.approx(4 * 64 * 64 * 4, rel=0.01)


def test_a_copy_into_panels_is_written_and_read() -> None:
    """Each of 4 slices of B is read, and written into a buffer that is fetched and sent back."""
    gemm = Gemm(m=8, n=2048, k=256)
    plain, packed = (_predicted(gemm, s, warm=False) for s in (DIRECT, PACKED))
    more = packed.bytes_by_level["l1"] - plain.bytes_by_level["l1"]
    assert more > 2 * 2048 * 256 * 4
    assert packed.seconds > plain.seconds


def test_panels_are_there_when_they_are_read() -> None:
    """A buffer of 128 KiB stays in L2 from slice to slice: it comes once, and goes back once."""
    gemm = Gemm(m=8, n=512, k=256)
    plain, packed = (_predicted(gemm, s, warm=False) for s in (DIRECT, PACKED))
    more = packed.bytes_by_level["l2"] - plain.bytes_by_level["l2"]
    assert more == pytest.approx(2 * 64 * 512 * 4, rel=0.2)


def test_sums_that_wait_for_each_other_take_longer() -> None:
    """A tile of one vector adds to the same sum every 4 cycles, one of 24 is always busy."""
    gemm = Gemm(m=48, n=48, k=4096)
    one = DIRECT.replace("8,32", "1,16")
    slow, fast = _predicted(gemm, one), _predicted(gemm, DIRECT.replace("8,32", "8,48"))
    assert slow.seconds_by["latency"] > 4 * slow.seconds_by["products"]
    assert fast.seconds_by["latency"] < fast.seconds_by["products"]


def test_rows_a_power_of_two_apart_share_sets() -> None:
    """24 rows that lie 16 KiB apart are in one set of L1, which holds 12 lines."""
    rows = (
        "tile{loops=m,n sizes=24,16},promote{operand=c to=registers},vectorize{with=fma width=16}"
    )
    aligned, apart = (
        _predicted(Gemm(m=24, n=16, k=4096, lda=lda), rows) for lda in (4096, 4096 + 16)
    )
    assert aligned.bytes_by_level["l1"] > 2 * apart.bytes_by_level["l1"]


@pytest.mark.parametrize(
    "groups", [Gemm(m=300, n=64, k=64, groups=3), Gemm(m=100, n=64, k=64, groups=3, masked=True)]
)
def test_groups_have_equal_shares_of_the_rows(groups: Gemm) -> None:
    found = _predicted(groups)
    assert found.flops >= 2 * 300 * 64 * 64
    batch = _predicted(Gemm(m=100, n=64, k=64, batch=3))
    assert found.seconds == pytest.approx(batch.seconds, rel=0.5)


def test_threads_share_the_work() -> None:
    job = prepare(Gemm(m=1024, n=1024, k=512), TARGET, None, 2)
    one, two = (predict_schedule(job.source, job.schedule, job.machine, threads=n) for n in (1, 2))
    assert two.seconds == pytest.approx(one.seconds / 2, rel=0.1)
    assert two.flops == one.flops


SIZES = st.integers(1, 300)
PROBLEMS = st.builds(
    Gemm,
    m=SIZES,
    n=SIZES,
    k=SIZES,
    dtype=st.sampled_from(["f32", "f64", "bf16"]),
    trans_a=st.booleans(),
    trans_b=st.booleans(),
    epilogue=st.sampled_from(["", "bias"]),
)


@settings(max_examples=12)
@given(gemm=PROBLEMS)
def test_no_prediction_beats_the_units_or_moves_less_than_each_array_once(gemm: Gemm) -> None:
    found = _predicted(gemm, warm=False)
    lanes = 64 // gemm.accumulator.item_bytes * (2 if gemm.dtype == "bf16" else 1)
    assert found.flops >= gemm.flops
    assert found.seconds >= gemm.flops / (2 * 2 * lanes) / 4.1e9
    assert found.seconds >= max(found.seconds_by.values())
    assert found.bytes_by_level["l3"] >= gemm.bytes_moved * (1 - 1e-9)


@settings(max_examples=6)
@given(gemm=PROBLEMS, share=st.sampled_from([2, 4, 8]))
def test_smaller_caches_never_move_less_or_take_less_time(gemm: Gemm, share: int) -> None:
    job = prepare(gemm, TARGET, None)
    small = replace(ZNVER5, l1_bytes=ZNVER5.l1_bytes // share, l2_bytes=ZNVER5.l2_bytes // share)
    large, less = (predict_schedule(job.source, job.schedule, m) for m in (ZNVER5, small))
    assert less.bytes_by_level["l1"] >= large.bytes_by_level["l1"]
    assert less.bytes_by_level["l2"] >= large.bytes_by_level["l2"]
    assert less.seconds >= large.seconds


@settings(max_examples=5)
@given(gemm=PROBLEMS)
def test_cold_caches_never_take_less_time(gemm: Gemm) -> None:
    assert _predicted(gemm, warm=False).seconds >= _predicted(gemm).seconds


def test_tiles_take_16_cycles_a_product() -> None:
    """Of four sums none waits for the one before; one sum alone does, and takes 52 cycles."""
    gemm = Gemm(m=32, n=32, k=1024, dtype="bf16")
    a, b = "operand=a to=l2 layout=panel:{0}x32", "operand=b to=l2 layout=panel:{0}x2x32"
    found: dict[int, Prediction] = {}
    for size in (32, 16):
        panels = f"promote{{{a.format(size)}}},promote{{{b.format(size)}}}"
        sums = f"tile{{loops=m,n sizes={size},{size}}},promote{{operand=c to=registers}}"
        text = f"{panels},{sums},vectorize{{with=amx width=16}}"
        job = prepare(gemm, "cpu:sapphirerapids", text)
        found[size] = predict_schedule(job.source, job.schedule, job.machine)
    hertz = core_of(SAPPHIRERAPIDS).clock_hz
    assert found[32].flops == gemm.flops
    for prediction in found.values():
        assert prediction.roof_seconds == pytest.approx(4 * 32 * 16 / hertz)
    latency = {size: p.seconds_by["latency"] * hertz for size, p in found.items()}
    assert latency[16] == pytest.approx(4 * latency[32])
