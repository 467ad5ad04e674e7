"""Few rows by a B in L2 or L3: of which class they are, and which tiles they have."""

from __future__ import annotations

import pytest

from gemmir import Gemm
from gemmir.schedule.cpu.classes import plain_class_of
from gemmir.schedule.cpu.few import FEW
from gemmir.schedule.cpu.sliced import SLICED
from gemmir.schedule.cpu.streamed import STREAMED
from gemmir.schedule.cpu.tiles import even_rows
from gemmir.schedule.default import default_schedule
from tests.schedule.cpus import cpu


def text_of(gemm: Gemm, name: str) -> str:
    return str(default_schedule(gemm, cpu(name), 1))


@pytest.mark.parametrize(
    ("name", "gemm", "holds"),
    [
        ("znver5", Gemm(m=1, n=320, k=320), True),
        ("znver5", Gemm(m=1, n=96, k=96), False),  # B is in L1
        ("znver5", Gemm(m=1, n=1024, k=1024), False),  # B is in L3, and a row waits for it
        ("znver5", Gemm(m=2, n=1024, k=1024), True),
        ("znver5", Gemm(m=3, n=1024, k=4096), True),
        ("znver5", Gemm(m=4, n=1024, k=4096), False),
        ("znver5", Gemm(m=3, n=1024, k=4097), False),  # B is more than half of L3
        ("znver5", Gemm(m=3, n=128, k=1024), True),
        ("znver5", Gemm(m=3, n=127, k=1024), False),  # a row is a tile
        ("znver5", Gemm(m=3, n=255, k=2048), False),
        ("znver5", Gemm(m=3, n=320, k=320, trans_a=True), False),
        ("znver5", Gemm(m=3, n=128, k=512, dtype="f64"), True),
        ("znver3", Gemm(m=7, n=1000, k=1000), True),
        ("znver3", Gemm(m=7, n=96, k=3000), True),
        ("znver3", Gemm(m=7, n=95, k=3000), False),
        ("znver3", Gemm(m=8, n=1000, k=1000), False),
        ("znver3", Gemm(m=4, n=1024, k=1024), True),
        ("znver3", Gemm(m=5, n=1024, k=1024), False),  # rows of B are pages apart
        ("znver3", Gemm(m=1, n=1024, k=1024), True),
        ("neoverse-n1", Gemm(m=2, n=1024, k=1024), False),
    ],
)
def test_when(name: str, gemm: Gemm, holds: bool) -> None:
    assert (plain_class_of(gemm, cpu(name)) is FEW) == holds


@pytest.mark.parametrize(
    ("name", "gemm", "kc", "columns"),
    [
        ("znver5", Gemm(m=1, n=448, k=448), 32, 256),
        ("znver5", Gemm(m=2, n=448, k=448), 32, 192),
        ("znver5", Gemm(m=3, n=448, k=448), 32, 128),
        ("znver5", Gemm(m=3, n=1024, k=1024), 8, 128),  # from L3 no line is fetched too fast
        ("znver3", Gemm(m=1, n=320, k=320), 32, 96),
        ("znver3", Gemm(m=2, n=320, k=320), 8, 48),  # L2 keeps up
        ("znver3", Gemm(m=1, n=640, k=640), 8, 96),
    ],
)
def test_many_rows_of_b_go_by_where_l2_cannot_keep_up(
    name: str, gemm: Gemm, kc: int, columns: int
) -> None:
    text = text_of(gemm, name)
    assert text.startswith(f"tile{{loops=k sizes={kc}}},tile{{loops=n sizes={columns}")
    assert f"unroll{{loop=k factor={kc}}}" in text
    assert "prefetch" not in text


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("znver5", {4: 4, 9: 9, 10: 10, 11: 6, 13: 7, 16: 8, 18: 6, 20: 7, 25: 7}),
        ("znver3", {5: 5, 6: 6, 7: 4, 9: 3, 10: 5, 12: 4, 14: 3, 18: 3, 20: 4, 25: 5}),
        ("neoverse-n1", {8: 8, 9: 5, 10: 5}),
    ],
)
def test_no_tile_of_rows_is_much_smaller(name: str, rows: dict[int, int]) -> None:
    assert {m: even_rows(m, cpu(name)) for m in rows} == rows


@pytest.mark.parametrize(
    ("m", "n", "k", "is_sliced"),
    [
        (8, 1024, 1024, True),
        (8, 1024, 512, False),  # part of B is in L2 from the last call
        (9, 1024, 1024, False),  # a tile of 9 rows has two vectors
        (11, 1024, 1024, True),
        (32, 1024, 512, True),
        (33, 1024, 1024, False),
        (8, 4096, 2048, False),  # B is more than half of L3
        (8, 1000, 4096, True),
        (12, 1000, 5000, False),  # B takes more than half of L3
        (13, 1000, 5000, True),
        (16, 1024, 16384, False),  # rows of B collide
        (16, 1000, 16384, True),  # short ones from memory
        (16, 1025, 16384, False),
        (33, 1025, 16384, True),
    ],
)
def test_when_slices_come_in_time(m: int, n: int, k: int, is_sliced: bool) -> None:
    assert (plain_class_of(Gemm(m=m, n=n, k=k), cpu("znver5")) is SLICED) == is_sliced


def test_slices_of_few_rows_have_two_steps() -> None:
    steps = {m: text_of(Gemm(m=m, n=1000, k=1000), "znver5")[-2] for m in (32, 40)}
    assert steps == {32: "2", 40: "4"}
    assert "sizes=7 edges=even" in text_of(Gemm(m=20, n=1000, k=1000), "znver5")


@pytest.mark.parametrize(
    ("m", "n", "k", "holds"),
    [
        (5, 1024, 1024, True),
        (7, 512, 1024, False),
        (8, 512, 1024, True),
        (32, 512, 1024, True),
        (33, 512, 1024, False),
        (8, 1000, 1024, False),  # rows of B are in sets of their own, and near
        (20, 1025, 8192, True),  # from memory come long rows of it
        (20, 1024, 8192, False),
        (12, 1024, 8192, True),
        (33, 1025, 8192, False),
    ],
)
def test_rows_of_b_that_share_sets_are_streamed(m: int, n: int, k: int, holds: bool) -> None:
    gemm = Gemm(m=m, n=n, k=k)
    text = text_of(gemm, "znver3")
    is_wide = f"panel:{12 // even_rows(m, cpu('znver3')) * 8}" in text
    assert (plain_class_of(gemm, cpu("znver3")) is STREAMED and is_wide) == holds


@pytest.mark.parametrize(
    ("name", "m", "n", "holds"),
    [
        ("znver5", 9, 96, True),
        ("znver5", 9, 95, False),
        ("znver5", 33, 200, False),
        ("znver3", 9, 192, True),
        ("znver3", 9, 191, False),
    ],
)
def test_short_rows_are_sliced(name: str, m: int, n: int, holds: bool) -> None:
    assert (plain_class_of(Gemm(m=m, n=n, k=3000), cpu(name)) is SLICED) == holds


@pytest.mark.parametrize(
    ("name", "m", "n", "k", "kc"),
    [
        ("znver5", 64, 1000, 2560, 1280),  # a tile of B takes a quarter of L2
        ("znver5", 16, 2761, 1200, 1200),
        ("znver5", 48, 1280, 1024, 512),  # more rows of B collide in L2
        ("znver5", 16, 1024, 1024, 256),  # these do already
        ("znver5", 64, 1000, 5000, 256),  # B comes from memory
        ("znver3", 20, 1000, 2560, 256),
    ],
)
def test_slices_are_as_long_as_l2_keeps(name: str, m: int, n: int, k: int, kc: int) -> None:
    assert text_of(Gemm(m=m, n=n, k=k), name).startswith(f"tile{{loops=k sizes={kc}}}")
