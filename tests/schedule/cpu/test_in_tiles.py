"""Matrix tiles are used where they are filled, by blocks of four of them."""

from __future__ import annotations

from typing import Any

import pytest

from gemmir import Gemm
from gemmir.check import check
from gemmir.machine import machine_for
from gemmir.schedule.default import default_schedule
from gemmir.schedule.fit import check_fits

SAPPHIRE_RAPIDS = "cpu:sapphirerapids"
KINDS: tuple[dict[str, Any], ...] = ({"dtype": "bf16"}, {"dtype": "u8", "dtype_b": "i8"})


def steps_of(gemm: Gemm, target: str = SAPPHIRE_RAPIDS, threads: int = 1) -> tuple[str, ...]:
    machine = machine_for(target)
    schedule = default_schedule(gemm, machine, threads)
    check_fits(schedule, gemm, machine)
    return schedule.steps


def has_tiles(steps: tuple[str, ...]) -> bool:
    return any("with=amx" in step for step in steps)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize(
    ("m", "n", "rows", "columns"),
    [(1024, 1024, 32, 32), (16, 1024, 16, 64), (9, 40, 16, 48), (40, 16, 32, 16), (20, 20, 32, 32)],
)
def test_blocks_of_four_tiles(
    kind: dict[str, Any], m: int, n: int, rows: int, columns: int
) -> None:
    steps = steps_of(Gemm(m=m, n=n, k=256, **kind))
    assert f"tile{{loops=m,n sizes={rows},{columns}}}" in steps
    assert "vectorize{with=amx width=16}" in steps


@pytest.mark.parametrize(
    ("gemm", "found"),
    [
        (Gemm(m=9, n=9, k=32, dtype="bf16"), True),
        (Gemm(m=8, n=512, k=512, dtype="bf16"), False),
        (Gemm(m=512, n=8, k=512, dtype="bf16"), False),
        (Gemm(m=512, n=512, k=31, dtype="bf16"), False),
        (Gemm(m=512, n=512, k=63, dtype="i8"), False),
        (Gemm(m=512, n=512, k=64, dtype="u8"), True),
        (Gemm(m=15, n=512, k=512, dtype="bf16", trans_b=True), False),
        (Gemm(m=16, n=512, k=512, dtype="bf16", trans_b=True), True),
        (Gemm(m=512, n=512, k=512, dtype="f16"), False),
        (Gemm(m=512, n=512, k=512), False),
    ],
    ids=str,
)
def test_tiles_are_more_than_half_full(gemm: Gemm, found: bool) -> None:
    assert has_tiles(steps_of(gemm)) == found
    assert not has_tiles(steps_of(gemm, "cpu:znver5"))


def test_slices_of_k_leave_room_for_the_sums_in_l1() -> None:
    """A narrow C is written once instead, with all of k."""
    steps = steps_of(Gemm(m=1024, n=1024, k=1024, dtype="bf16"))
    assert "tile{loops=m,k sizes=1024,256}" in steps
    narrow = steps_of(Gemm(m=1024, n=1024, k=1024, dtype="bf16", out="bf16"))
    assert "tile{loops=m,k sizes=1024,1024}" in narrow


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_cores_get_whole_blocks(threads: int) -> None:
    steps = steps_of(Gemm(m=1000, n=300, k=256, dtype="bf16"), threads=threads)
    assert has_tiles(steps)
    gemm = Gemm(m=100, n=70, k=70, dtype="bf16", beta=1.0)
    schedule = default_schedule(gemm, machine_for(SAPPHIRE_RAPIDS), threads)
    check(gemm, schedule=str(schedule), target=SAPPHIRE_RAPIDS, shrink=False).require_ok()


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize(("m", "k"), [(9, 130), (33, 65), (64, 128)])
def test_every_stage_is_right(kind: dict[str, Any], m: int, k: int) -> None:
    gemm = Gemm(m=m, n=45, k=k, trans_a=True, epilogue="bias+relu", **kind)
    check(gemm, target=SAPPHIRE_RAPIDS, shrink=False).require_ok()
