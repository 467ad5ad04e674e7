"""A schedule is held against its machine before anything is lowered."""

from __future__ import annotations

from dataclasses import replace

import pytest

import gemmir
from gemmir import Gemm, Schedule
from gemmir.errors import ScheduleError
from gemmir.machine import CpuMachine, machine_for
from gemmir.machine.cpu import NEOVERSE_N1, X86_64_V3, X86_64_V4, ZNVER3
from gemmir.schedule import check_fits

GEMM = Gemm(m=64, n=128, k=64)


def kernel(rows: int, columns: int, width: int) -> Schedule:
    """Register tiles of `rows` x `columns` in vectors of `width`."""
    return Schedule.parse(
        f"tile{{loops=n,m sizes={columns},{rows}}},promote{{operand=c to=registers}},"
        f"vectorize{{with=fma width={width}}}"
    )


def refusal(schedule: Schedule, machine: CpuMachine, gemm: Gemm = GEMM) -> str:
    """The code with which `machine` refuses `schedule`, "" where it fits."""
    try:
        check_fits(schedule, gemm, machine)
    except ScheduleError as error:
        assert error.hint
        return error.code
    return ""


@pytest.mark.parametrize(
    ("machine", "dtype", "lanes"),
    [
        (X86_64_V3, "f32", 8),
        (ZNVER3, "f32", 8),
        (ZNVER3, "f64", 4),
        (X86_64_V4, "f32", 16),
        (X86_64_V4, "f64", 8),
        (NEOVERSE_N1, "f32", 4),
        (NEOVERSE_N1, "f64", 2),
    ],
)
def test_vectors_are_as_wide_as_the_unit_or_a_part_of_it(
    machine: CpuMachine, dtype: str, lanes: int
) -> None:
    gemm = replace(GEMM, dtype=dtype)
    for width in range(1, 2 * lanes + 1):
        fits = width <= lanes and lanes % width == 0
        expected = "" if fits else "GEM0311"
        assert refusal(kernel(2, width, width), machine, gemm) == expected, width


def test_sixteen_lanes_are_for_avx_512() -> None:
    schedule = str(kernel(6, 32, 16))
    wide = gemmir.lower(GEMM, target="cpu:x86-64-v4", schedule=schedule)
    assert "<16 x float>" in wide.artifact.text
    with pytest.raises(ScheduleError, match="use 8 or a smaller power of two") as found:
        gemmir.lower(GEMM, target="cpu:znver3", schedule=schedule)
    assert found.value.code == "GEM0311"


@pytest.mark.parametrize("machine", [X86_64_V3, X86_64_V4, NEOVERSE_N1])
def test_sums_a_row_of_b_and_one_element_of_a_are_in_registers(machine: CpuMachine) -> None:
    lanes = machine.lanes(4)
    for vectors in range(1, 6):
        held = {rows: rows * vectors + min(rows, vectors) + 1 for rows in range(1, 40)}
        most = max(rows for rows, needed in held.items() if needed <= machine.vector_registers)
        fitting = kernel(most, vectors * lanes, lanes)
        assert refusal(fitting, machine) == ""
        assert refusal(kernel(most + 1, vectors * lanes, lanes), machine) == "GEM0312"
        ragged = kernel(most, (vectors - 1) * lanes + 1, lanes)
        assert refusal(ragged, machine) == ""


def test_the_transpose_of_c_has_its_rows_and_columns_exchanged() -> None:
    tiles = "tile{loops=m sizes=4},promote{operand=c to=registers},vectorize{with=fma width=8}"
    few = Gemm(m=4, n=128, k=64)
    assert refusal(Schedule.parse(tiles), X86_64_V3, few) == "GEM0312"
    assert refusal(Schedule.parse(f"swap-operands,{tiles}"), X86_64_V3, few) == ""


def test_the_numbers_and_the_nearest_choice_are_named() -> None:
    with pytest.raises(ScheduleError) as found:
        check_fits(kernel(8, 16, 8), GEMM, ZNVER3)
    assert found.value.message.endswith(
        "a tile of 8 x 16 needs 8*2 + 2 + 1 = 19 vector registers and znver3 has 16"
    )
    assert found.value.hint == "tile m by at most 6"
    check_fits(kernel(6, 16, 8), GEMM, ZNVER3)


def packed(rows: int, k: int, space: str = "l2") -> Schedule:
    """A packed block of A of `rows` x `k`."""
    return Schedule.parse(
        f"tile{{loops=k,m sizes={k},{rows}}},promote{{operand=a to={space} layout=panel:4}}"
    )


@pytest.mark.parametrize("machine", [X86_64_V3, ZNVER3, X86_64_V4, NEOVERSE_N1])
@pytest.mark.parametrize("space", ["l1", "l2", "l3"])
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_a_packed_block_fits_its_cache(machine: CpuMachine, space: str, dtype: str) -> None:
    gemm = Gemm(m=2**24, n=16, k=256, dtype=dtype)
    capacity = getattr(machine, f"{space}_bytes")
    rows = capacity // (256 * (4 if dtype == "f32" else 8))
    assert refusal(packed(rows, 256, space), machine, gemm) == ""
    with pytest.raises(ScheduleError, match=f"{space} of {machine.name} holds {capacity}") as found:
        check_fits(packed(rows + 1, 256, space), gemm, machine)
    assert found.value.code == "GEM0313"
    assert found.value.hint == f"tile m by at most {rows} before it"


def test_two_blocks_share_a_cache() -> None:
    gemm = Gemm(m=10**6, n=10**6, k=256)
    packing = "promote{operand=a to=l2 layout=panel:4},promote{operand=b to=l2 layout=panel:8}"
    room = (X86_64_V3.l2_bytes - 128 * 1024) // 1024
    fitting, larger = (
        Schedule.parse(f"tile{{loops=m,n sizes=128,{columns}}},{packing}")
        for columns in (room, room + 1)
    )
    assert refusal(fitting, X86_64_V3, gemm) == ""
    with pytest.raises(ScheduleError, match="131072 of them taken") as found:
        check_fits(larger, gemm, X86_64_V3)
    assert found.value.hint == f"tile n by at most {room} before it"


def test_a_small_problem_is_its_own_tile() -> None:
    assert refusal(packed(10**6, 10**6), X86_64_V3, Gemm(m=8, n=8, k=8)) == ""
    assert refusal(kernel(100, 8, 8), X86_64_V3, Gemm(m=6, n=8, k=8)) == ""


def test_a_problem_from_text_must_fit_too() -> None:
    stage = gemmir.lower(GEMM, target="cpu:x86-64-v4", schedule=kernel(6, 32, 16))
    text = stage.stages["00-gemm"].text
    gemmir.lower_text(text, target="cpu:x86-64-v4")
    with pytest.raises(ScheduleError) as found:
        gemmir.lower_text(text, target="cpu:x86-64-v3")
    assert found.value.code == "GEM0311"
    assert machine_for("cpu:x86-64-v3") is X86_64_V3
