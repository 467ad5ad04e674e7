"""Which versions a kernel of any number of rows has, with vectors of a line."""

from __future__ import annotations

import re

import pytest

import gemmir
from gemmir import Gemm
from gemmir.schedule.default import default_schedule
from tests.schedule.cpus import cpu

READ = "tile{loops=m sizes=8 edges=even},promote{operand=c to=registers"
READ_EXACTLY = READ.replace("even", "exact")
FILLED = "tile{loops=k sizes=4},fuse-pack{operand=b}"
COPIED = "tile{loops=m sizes=8 edges=even},tile{loops=n sizes=32}"
ASKING = "prefetch{operand=c loop=n ahead=0 during=k},vectorize"
PACKED = "prefetch=true},vectorize"


def versions(gemm: Gemm, name: str) -> list[tuple[int | None, str]]:
    """Up to how many rows each version of more than eight takes, and its passes."""
    parts = str(default_schedule(gemm, cpu(name), 1)).split(",otherwise,")
    found = [(re.match(r"version\{loops=m most=(\d+)\},(.*)", part), part) for part in parts]
    most = [(int(known[1]), known[2]) for known, _ in found if known is not None]
    return [*most, (None, parts[-1])]


@pytest.mark.parametrize(
    ("name", "n", "k", "expected"),
    [
        ("znver4", 3072, 768, [(32, READ), (192, FILLED), (None, ASKING)]),
        ("znver5", 3072, 768, [(32, READ), (256, FILLED), (None, ASKING)]),
        ("znver5", 3072, 1025, [(48, READ), (None, COPIED)]),  # slices are no whole iterations
        ("znver5", 1000, 1000, [(256, READ_EXACTLY), (None, ASKING)]),  # rows do not collide
        ("znver5", 1000, 1001, [(None, READ_EXACTLY)]),  # C cannot be asked for
        ("znver5", 40, 1000, [(None, "edges=exact},promote{operand=c")]),  # C is one panel wide
        ("znver3", 3072, 768, [(128, "prefetch{operand=b"), (None, PACKED)]),
        ("znver3", 1000, 1000, [(128, "edges=even},promote{operand=c to="), (None, PACKED)]),
        ("znver3", 256, 256, [(None, "edges=even},promote{operand=c to=")]),  # B stays in L2
        ("neoverse-n1", 3072, 768, [(None, "prefetch{operand=c loop=n ahead=1},promote")]),
    ],
)
def test_versions_of_more_than_a_few_rows(
    name: str, n: int, k: int, expected: list[tuple[int | None, str]]
) -> None:
    found = versions(Gemm(m=gemmir.ANY, n=n, k=k), name)
    assert [most for most, _ in found] == [most for most, _ in expected]
    for (_, text), (_, part) in zip(found, expected, strict=True):
        assert part in text.replace(" carry=true", "")


@pytest.mark.parametrize(
    ("name", "n", "k", "last"),
    [
        ("znver4", 4096, 4096, [*range(9, 17), 24, 32]),
        ("znver4", 3072, 768, []),  # B is in L3
        ("znver4", 1000, 16384, []),  # short rows are sliced
        ("znver5", 4096, 4096, []),  # L1 has room for requests
        ("neoverse-n1", 4096, 4096, []),
    ],
)
def test_streams_that_ask_for_the_next_rows_have_versions(
    name: str, n: int, k: int, last: list[int]
) -> None:
    text = str(default_schedule(Gemm(m=gemmir.ANY, n=n, k=k), cpu(name), 1))
    exact = [int(rows) for rows in re.findall(r"version\{loops=m sizes=(\d+)\}", text)]
    assert exact == [*range(1, 9), *last]


def test_rows_between_streams_fill_blocks() -> None:
    found = versions(Gemm(m=gemmir.ANY, n=4096, k=4096), "znver4")
    assert [most for most, _ in found] == [192, None]
    assert FILLED in found[0][1] and ASKING in found[1][1]


@pytest.mark.parametrize(("name", "streams"), [("znver4", True), ("znver5", False)])
def test_some_rows_by_a_b_in_l3(name: str, streams: bool) -> None:
    """Those of a roomy L1 have wide tiles, others what they have where their number is known."""
    text = str(default_schedule(Gemm(m=gemmir.ANY, n=3072, k=768), cpu(name), 1))
    version = text.partition("version{loops=m sizes=8},")[2].partition(",otherwise")[0]
    known = str(default_schedule(Gemm(m=8, n=3072, k=768), cpu(name), 1))
    assert (version.replace(" carry=true", "") == known) == streams


def test_a_b_stored_n_x_k_is_packed_for_all_rows_and_c_asked_for() -> None:
    ((most, text),) = versions(Gemm(m=gemmir.ANY, n=3072, k=768, trans_b=True), "znver5")
    assert most is None and ASKING in text and "fuse-pack" not in text


def test_an_a_stored_k_x_m_asks_for_nothing() -> None:
    text = str(default_schedule(Gemm(m=gemmir.ANY, n=1000, k=1000, trans_a=True), cpu("znver5"), 1))
    assert ASKING not in text.rpartition("otherwise,")[2]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("n", [3072, 2112])
def test_all_versions_lower(n: int, threads: int) -> None:
    for name in ("znver3", "znver4"):
        gemmir.lower(Gemm(m=gemmir.ANY, n=n, k=256), f"cpu:{name}", threads=threads)
