"""stream-k: slices of k dealt out evenly to blocks, whose parts are added in order."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xdsl.dialects.builtin import ModuleOp

from gemmir import Gemm
from gemmir.errors import ScheduleError
from gemmir.evaluate import evaluate
from gemmir.ir.loops import gemms
from gemmir.passes.stream_k import plan
from tests.strategies import arrays_for, examples

After = Callable[[Gemm, str], ModuleOp]

TILES = "tile{loops=m,n sizes=4,8 over=blocks},tile{loops=m,n sizes=2,2 over=threads},"
C = "promote{operand=c to=registers}"
REST = "tile{loops=k sizes=4},vectorize{with=fma width=2}"
SIX = Gemm(m=12, n=16, k=20)


@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 5, 7, 11, 29])
@pytest.mark.parametrize("epilogue", ["", "bias+relu+residual"])
def test_meaning_for_any_number_of_blocks(after: After, blocks: int, epilogue: str) -> None:
    gemm = Gemm(m=11, n=13, k=19, alpha=2.0, beta=3.0, epilogue=epilogue)
    fused = "fuse-epilogue," if epilogue else ""
    tiles = 3 * 2
    stream = f"stream-k{{blocks={blocks} slice=4}}"
    if tiles % blocks == 0:
        with pytest.raises(ScheduleError, match="come out even"):
            after(gemm, f"{TILES}{C},{fused}{stream}")
    else:
        after(gemm, f"{TILES}{C},{fused}{stream},{REST}")


@given(st.integers(1, 14), st.integers(1, 18), st.integers(1, 21), st.integers(2, 7))
@examples(0.3)
def test_meaning_at_any_size(after: After, m: int, n: int, k: int, blocks: int) -> None:
    tiles = -(-m // 4) * -(-n // 8)
    if tiles % blocks and blocks <= tiles * -(-k // 4):
        after(Gemm(m=m, n=n, k=k), f"{TILES}{C},stream-k{{blocks={blocks} slice=4}},{REST}")


def test_shares_are_even_and_parts_few(after: After) -> None:
    """Of six tiles of five slices four blocks have one whole tile, and 2 or 3 slices each."""
    module = after(SIX, f"{TILES}{C}")
    (gemm,) = gemms(module)
    found = plan(gemm, 4, 4, "fixed")
    assert (found.rounds, found.shared, found.dealt, found.items) == (0, 6, 30, 3)
    owners = [found.owner(number) for number in range(found.dealt)]
    assert owners == sorted(owners)
    shares = [owners.count(block) for block in range(4)]
    assert (min(shares), max(shares)) == (7, 8)
    assert found.parts == max(len(set(owners[t * 5 : t * 5 + 5])) for t in range(6))


def test_bits_do_not_depend_on_the_run(after: After) -> None:
    module = after(SIX, f"{TILES}{C},stream-k{{blocks=5 slice=4}},{REST}")
    results: list[bytes] = []
    for _ in range(2):
        arrays = arrays_for(SIX, seed=3)
        evaluate(module, list(arrays.values()))
        results.append(arrays["c"].tobytes())
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("schedule", "code", "words"),
    [
        (f"{C},stream-k{{blocks=2 slice=4}}", "GEM1266", "put it behind"),
        (f"{TILES}stream-k{{blocks=4 slice=4}}", "GEM1266", "in registers"),
        (f"{TILES}{C},tile{{loops=k sizes=4}},stream-k{{blocks=4 slice=4}}", "GEM1266", "before"),
        (f"{TILES}{C},stream-k{{blocks=3 slice=4}}", "GEM1267", "persist.blocks=3"),
        (f"{TILES}{C},stream-k{{blocks=31 slice=4}}", "GEM1267", "at most 30 blocks"),
        (f"{TILES}{C},stream-k{{blocks=4 slice=0}}", "GEM1267", "slices of 0"),
        (f"{TILES}{C},stream-k{{blocks=4 slice=4 order=first}}", "GEM1269", "order=fixed"),
    ],
)
def test_errors(after: After, schedule: str, code: str, words: str) -> None:
    with pytest.raises(ScheduleError, match=words) as found:
        after(SIX, schedule)
    assert found.value.code == code
