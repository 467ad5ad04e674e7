"""interchange: the loops directly around a GEMM in another order."""

import itertools
from collections.abc import Callable, Mapping
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xdsl.dialects import scf
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import SSAValue

from gemmir.errors import ScheduleError
from gemmir.gemm import Gemm
from gemmir.ir.build import build
from gemmir.ir.context import make_context, parse_module
from gemmir.ir.dialect import ForallOp
from gemmir.ir.index import constant_of
from gemmir.ir.loops import dimension_of
from gemmir.lowering import run_passes
from gemmir.passes.interchange import Interchange
from gemmir.schedule import Schedule

After = Callable[[Gemm, str], ModuleOp]

SMALL = Gemm(m=7, n=9, k=5, alpha=2, beta=3)
TILES = "tile{loops=m,n,k sizes=3,4,2}"


BLOCKS = "tile{loops=m,n sizes=3,2 over=blocks}"


def nest(module: ModuleOp) -> list[tuple[str | None, int | None, int | None]]:
    """Dimension, end and step of every loop, outermost first."""
    loops = [op for op in module.walk() if isinstance(op, scf.ForOp | ForallOp)]
    return [(dimension_of(o), constant_of(o.ub), constant_of(o.step)) for o in loops]


@pytest.mark.parametrize("order", list(itertools.permutations("mnk"))[1:], ids="".join)
def test_every_order_has_the_meaning_and_the_bounds(after: After, order: tuple[str, ...]) -> None:
    module = after(SMALL, f"{TILES},interchange{{order={','.join(order)}}}")
    bounds = {"m": (7, 3), "n": (9, 4), "k": (5, 2)}
    assert nest(module) == [(name, *bounds[name]) for name in order]


def test_the_ir_is_that_of_tiling_in_the_other_order(after: After) -> None:
    gemm = Gemm(m=6, n=8, k=4)
    swapped = after(gemm, "tile{loops=m,n sizes=3,4},interchange{order=n,m}")
    assert str(swapped) != str(after(gemm, "tile{loops=m,n sizes=3,4}"))
    assert nest(swapped) == nest(after(gemm, "tile{loops=n,m sizes=4,3}"))


def test_inner_loops_alone_may_change(after: After) -> None:
    module = after(SMALL, f"{TILES},interchange{{order=k,n}}")
    assert [name for name, _, _ in nest(module)] == ["m", "k", "n"]


def test_tiles_that_overlap_change_places_among_themselves(after: After) -> None:
    gemm = Gemm(m=7, n=9, k=5)
    schedule = "tile{loops=m,n sizes=3,4 edges=overlap},interchange{order=n,m}"
    assert [name for name, _, _ in nest(after(gemm, schedule))] == ["n", "m"]


def test_later_passes_follow_the_new_order(after: After) -> None:
    steps = "promote{operand=c to=registers},vectorize{with=fma width=4}"
    after(SMALL, f"{TILES},interchange{{order=k,n,m}},{steps}")


def test_loops_over_blocks_change_places(after: After) -> None:
    module = after(SMALL, f"{BLOCKS},interchange{{order=n,m}}")
    assert nest(module) == [("n", 9, 2), ("m", 7, 3)]


def tiles(gemm: Gemm, order: str) -> list[tuple[int, int]]:
    """Row and column of the tile of each block, in the order of the blocks."""
    module = build(gemm)
    run_passes(module, Schedule.parse(f"{BLOCKS},interchange{{{order}}}"))
    (loop,) = [op for op in module.walk() if isinstance(op, ForallOp)]
    number = loop.body.block.args[0]
    seen: list[tuple[int, int]] = []
    for block in range(constant_of(loop.ub) or 0):
        values: dict[SSAValue, int] = {number: block}

        def value(of: SSAValue, values: dict[SSAValue, int] = values) -> int:
            known = constant_of(of)
            return values[of] if known is None else known

        for op in loop.body.block.ops:
            if op.name in COMPUTE:
                values[op.results[0]] = COMPUTE[op.name](*map(value, op.operands))
        at = {of.name_hint: found for of, found in values.items()}
        seen.append((at["i"] // 3, at["j"] // 2))
    return seen


COMPUTE: Final[Mapping[str, Callable[[int, int], int]]] = {
    "arith.addi": lambda x, y: x + y,
    "arith.subi": lambda x, y: x - y,
    "arith.muli": lambda x, y: x * y,
    "arith.minsi": lambda x, y: min(x, y),
    "arith.divui": lambda x, y: x // y,
    "arith.remui": lambda x, y: x % y,
}


def test_groups_go_down_a_few_tiles_and_then_across() -> None:
    gemm = Gemm(m=8, n=7, k=5)
    assert tiles(gemm, "order=m,n group=2") == [
        *((0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2), (0, 3), (1, 3)),
        *((2, 0), (2, 1), (2, 2), (2, 3)),
    ]
    assert tiles(gemm, "order=n,m group=2")[:4] == [(0, 0), (0, 1), (1, 0), (1, 1)]


@given(m=st.integers(1, 40), n=st.integers(1, 30), group=st.integers(2, 9))
def test_every_tile_has_one_block(m: int, n: int, group: int) -> None:
    for order in ("m,n", "n,m"):
        found = tiles(Gemm(m=m, n=n, k=1), f"order={order} group={group}")
        rows, columns = -(-m // 3), -(-n // 2)
        assert sorted(found) == list(itertools.product(range(rows), range(columns)))


@given(m=st.integers(0, 20), n=st.integers(0, 12), group=st.integers(2, 5))
def test_groups_keep_the_meaning(after: After, m: int, n: int, group: int) -> None:
    steps = "tile{loops=m,n sizes=2,1 over=threads},promote{operand=c to=registers}"
    gemm = Gemm(m=m, n=n, k=3, beta=2)
    after(gemm, f"{BLOCKS},interchange{{order=m,n group={group}}},{steps}")


def test_groups_of_a_batch_are_inside_its_matrices(after: After) -> None:
    gemm = Gemm(m=7, n=9, k=2, batch=3)
    blocks = "tile{loops=batch,m,n sizes=1,3,2 over=blocks}"
    module = after(gemm, f"{blocks},interchange{{order=m,n group=2}}")
    assert nest(module) == [("batch", 3, 1), ("m,n", 15, 1)]


@pytest.mark.parametrize(
    ("gemm", "schedule", "code", "words"),
    [
        (SMALL, f"{TILES},interchange{{order=k}}", "GEM0340", "as in order=k,n,m"),
        (SMALL, f"{TILES},interchange{{order=k,m}}", "GEM0340", "order=k,m of the nest m,n,k"),
        (SMALL, f"{TILES},interchange{{order=k,k}}", "GEM0340", "order=k,k"),
        (SMALL, "interchange{order=m,n}", "GEM0340", "of the nest none"),
        (
            SMALL,
            "tile{loops=n,m sizes=4,3},promote{operand=a to=l2 layout=panel:3},"
            "tile{loops=k sizes=2},interchange{order=k,m}",
            "GEM0340",
            "of the nest k",
        ),
        (
            SMALL,
            "tile{loops=m sizes=3 over=cores},tile{loops=n sizes=4},interchange{order=n,m}",
            "GEM0340",
            "of the nest n",
        ),
        (
            SMALL,
            "tile{loops=m,n sizes=3,4},parallelize{loop=m},interchange{order=n,m}",
            "GEM0341",
            "a loop over cores stays where it is",
        ),
        (
            SMALL,
            f"{BLOCKS},tile{{loops=m,n sizes=1,1 over=threads}},interchange{{order=n,m}}",
            "GEM0341",
            "a loop over threads stays where it is",
        ),
        (SMALL, f"{TILES},interchange{{order=n,k group=2}}", "GEM0343", "of two loops over blocks"),
        (
            Gemm(m=7, n=9, k=2, batch=3),
            "tile{loops=batch,m,n sizes=1,3,2 over=blocks},interchange{order=m,n,batch group=2}",
            "GEM0343",
            "an order of two",
        ),
        (SMALL, f"{BLOCKS},interchange{{order=m,n group=1}}", "GEM0344", "use 2 or more"),
    ],
)
def test_errors(after: After, gemm: Gemm, schedule: str, code: str, words: str) -> None:
    with pytest.raises(ScheduleError, match=words) as found:
        after(gemm, schedule)
    assert found.value.code == code


OVERLAPPING = """
func.func @f(%a: memref<7x4xf32>, %b: memref<4x9xf32>, %c: memref<7x9xf32>) {
  %0 = arith.constant 0 : index
  %2 = arith.constant 2 : index
  %4 = arith.constant 4 : index
  %7 = arith.constant 7 : index
  %latest = arith.constant 3 : index
  scf.for %i = %0 to %7 step %4 {
    scf.for %k = %0 to %4 step %2 {
      %first = arith.cmpi eq, %k, %0 : index
      %m = arith.minsi %i, %latest : index
      %ak = memref.subview %a[%m, %k] [4, 2] [1, 1]
        : memref<7x4xf32> to memref<4x2xf32, strided<[4, 1], offset: ?>>
      %bk = memref.subview %b[%k, 0] [2, 9] [1, 1]
        : memref<4x9xf32> to memref<2x9xf32, strided<[9, 1], offset: ?>>
      %cm = memref.subview %c[%m, 0] [4, 9] [1, 1]
        : memref<7x9xf32> to memref<4x9xf32, strided<[9, 1], offset: ?>>
      gemmir.gemm %ak, %bk, %cm first %first alpha 1.0 : f64 beta 0.0 : f64
        : memref<4x2xf32, strided<[4, 1], offset: ?>>, memref<2x9xf32, strided<[9, 1], offset: ?>>,
          memref<4x9xf32, strided<[9, 1], offset: ?>>
    } {gemmir.dim = "k"}
  } {gemmir.dim = "m"}
  func.return
}
"""


def test_k_never_moves_across_tiles_that_overlap() -> None:
    """With k outside, the rows that two tiles share would be added to twice in each slice."""
    module = parse_module(OVERLAPPING)
    with pytest.raises(ScheduleError, match="edges=clip") as found:
        Interchange(("k", "m")).apply(make_context(), module)
    assert found.value.code == "GEM0342"
    assert str(module) == str(parse_module(OVERLAPPING))


def test_loops_over_a_grid_change_places(after: After) -> None:
    grid = BLOCKS.replace("blocks", "grid")
    module = after(SMALL, f"{grid},interchange{{order=n,m}}")
    assert [loop[0] for loop in nest(module)] == ["n", "m"]
    assert {op.over.data for op in module.walk() if isinstance(op, ForallOp)} == {"grid"}


@pytest.mark.parametrize(
    ("schedule", "code"),
    [
        ("interchange{order=n,m group=2}", "GEM0343"),
        ("interchange{order=m,n}", "GEM0344"),
        ("tile{loops=k sizes=2},interchange{order=k,n}", "GEM0340"),
    ],
)
def test_what_a_grid_refuses(after: After, schedule: str, code: str) -> None:
    with pytest.raises(ScheduleError) as found:
        after(SMALL, f"{BLOCKS.replace('blocks', 'grid')},{schedule}")
    assert found.value.code == code
