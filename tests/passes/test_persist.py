"""persist: a fixed number of blocks, or of clusters, takes all tiles in turn."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xdsl.dialects import scf
from xdsl.dialects.builtin import ModuleOp

from gemmir import Gemm
from gemmir.errors import ScheduleError
from gemmir.ir.dialect import ForallOp
from gemmir.ir.index import constant_of
from gemmir.ir.loops import dimension_of
from tests.strategies import examples

After = Callable[[Gemm, str], ModuleOp]

TILES = "tile{loops=m,n sizes=4,8 over=blocks}"
SMALL = Gemm(m=12, n=16, k=5)
PAIRS = "tile{loops=m,n sizes=8,8 over=clusters},tile{loops=m sizes=4 over=blocks}"
THREADS = "tile{loops=m,n sizes=2,2 over=threads},promote{operand=c to=registers}"


def loops(module: ModuleOp) -> list[str]:
    """Units and dimensions of all loops, outermost first."""
    return [
        f"{op.over.data} {dimension_of(op)}" if isinstance(op, ForallOp) else f"{dimension_of(op)}"
        for op in module.walk()
        if isinstance(op, ForallOp | scf.ForOp)
    ]


def test_two_loops_over_blocks_become_one_and_one_over_tiles(after: After) -> None:
    module = after(SMALL, f"{TILES},persist{{blocks=4}}")
    assert loops(module) == ["blocks tiles", "tiles"]
    (blocks,) = (op for op in module.walk() if isinstance(op, ForallOp))
    (turns,) = (op for op in module.walk() if isinstance(op, scf.ForOp))
    assert [constant_of(v) for v in (blocks.lb, blocks.ub, blocks.step)] == [0, 4, 1]
    assert turns.lb is blocks.body.block.args[0]
    assert [constant_of(v) for v in (turns.ub, turns.step)] == [6, 4]


def test_the_loop_over_tiles_stands_inside_those_over_the_blocks_of_a_cluster(after: After) -> None:
    module = after(SMALL, f"{PAIRS},persist{{blocks=3}}")
    assert loops(module) == ["clusters tiles", "blocks m", "tiles"]


def test_an_order_of_the_blocks_is_kept(after: After) -> None:
    module = after(SMALL, f"{TILES},interchange{{order=m,n group=2}},persist{{blocks=2}},{THREADS}")
    assert loops(module)[:2] == ["blocks tiles", "tiles"]


@given(st.data())
@examples(0.4)
def test_meaning_at_any_size(after: After, data: st.DataObject) -> None:
    """Every tile is computed once, however many blocks take how many of them."""
    batch = data.draw(st.sampled_from([None, None, 2]))
    m, n = data.draw(st.integers(1, 21)), data.draw(st.integers(1, 21))
    gemm = Gemm(
        m=m, n=n, k=3, batch=batch, beta=1.0, epilogue=data.draw(st.sampled_from(["", "bias"]))
    )
    in_clusters = data.draw(st.booleans()) and m > 4
    sizes = (8, 8) if in_clusters else (4, 8)
    counts = (batch or 1, -(-m // sizes[0]), -(-n // sizes[1]))
    if prod(counts) == 1:
        return
    first = "batch,m,n sizes=1," if batch else "m,n sizes="
    over = "clusters" if in_clusters else "blocks"
    steps = [f"tile{{loops={first}{sizes[0]},{sizes[1]} over={over}}}"]
    if in_clusters:
        steps.append("tile{loops=m sizes=4 over=blocks}")
    steps.append(f"persist{{blocks={data.draw(st.integers(1, prod(counts) - 1))}}}")
    if data.draw(st.booleans()):
        steps.append(THREADS)
    after(gemm, ",".join(steps))


def test_a_split_sum_persists_no_more(after: After) -> None:
    """Slices of k are taken by blocks around those over tiles, with a kernel behind them."""
    with pytest.raises(ScheduleError, match="do not stand directly inside one another") as found:
        after(Gemm(m=12, n=16, k=64), f"split-k{{factor=2}},{TILES},persist{{blocks=2}}")
    assert found.value.code == "GEM1271"


@pytest.mark.parametrize(
    ("gemm", "schedule", "code", "words"),
    [
        (SMALL, "persist{blocks=2}", "GEM1270", "one of no unit"),
        (SMALL, "tile{loops=m sizes=4},persist{blocks=2}", "GEM1270", "one of no unit"),
        (SMALL, "tile{loops=m sizes=4 over=cores},persist{blocks=2}", "GEM1270", "one of cores"),
        (SMALL, f"{TILES},{THREADS},persist{{blocks=2}}", "GEM1270", "before tiles inside"),
        (SMALL, f"{TILES},persist{{blocks=4}},persist{{blocks=2}}", "GEM1270", "one persist"),
        (SMALL, f"{TILES},persist{{blocks=0}}", "GEM1272", "use 1 to 5"),
        (SMALL, f"{TILES},persist{{blocks=6}}", "GEM1272", "blocks=6 for 6 tiles"),
        (SMALL, f"{PAIRS},persist{{blocks=4}}", "GEM1272", "blocks=4 for 4 tiles of clusters"),
        (Gemm(m=4, n=8, k=5), f"{TILES},persist{{blocks=1}}", "GEM1272", "leave persist out"),
        (Gemm(m=0, n=8, k=5), f"{TILES},persist{{blocks=1}}", "GEM1272", "1 for 0 tiles"),
    ],
)
def test_errors(after: After, gemm: Gemm, schedule: str, code: str, words: str) -> None:
    with pytest.raises(ScheduleError, match=words) as found:
        after(gemm, schedule)
    assert found.value.code == code
