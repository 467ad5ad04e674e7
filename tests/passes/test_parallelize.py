"""parallelize: the iterations of a loop on several cores."""

from collections.abc import Callable

import pytest
from xdsl.dialects import func, memref, scf
from xdsl.dialects.builtin import ModuleOp

from gemmir.errors import ScheduleError
from gemmir.gemm import Gemm
from gemmir.ir.dialect import ForallOp
from gemmir.ir.loops import dimension_of

After = Callable[[Gemm, str], ModuleOp]

SMALL = Gemm(m=7, n=9, k=5, alpha=2, beta=3)
A = "promote{operand=a to=l2 layout=panel:3}"
B = "promote{operand=b to=l3 layout=panel:4}"
TILES = f"{B},tile{{loops=m sizes=3}},{A},tile{{loops=n sizes=4}}"


def the_forall(module: ModuleOp) -> ForallOp:
    (found,) = (op for op in module.walk() if isinstance(op, ForallOp))
    return found


@pytest.mark.parametrize("loop", ["m", "n"])
def test_the_meaning_stays_with_the_iterations_in_reverse(after: After, loop: str) -> None:
    """The evaluator runs a forall backwards."""
    schedule = f"tile{{loops=m,n sizes=3,4}},{B},parallelize{{loop={loop} over=cores}}"
    assert dimension_of(the_forall(after(SMALL, schedule))) == loop


def test_a_batch_may_run_on_the_cores(after: After) -> None:
    gemm = Gemm(m=4, n=5, k=3, batch=3, beta=2)
    module = after(gemm, "tile{loops=batch,m sizes=1,2},parallelize{loop=batch}")
    assert dimension_of(the_forall(module)) == "batch"


def test_the_outermost_loop_is_taken(after: After) -> None:
    module = after(SMALL, "tile{loops=m sizes=4},tile{loops=m sizes=2},parallelize{loop=m}")
    forall = the_forall(module)
    assert isinstance(forall.parent_op(), func.FuncOp)
    assert [dimension_of(op) for op in forall.walk() if isinstance(op, scf.ForOp)] == ["m"]


def test_a_buffer_that_an_iteration_fills_becomes_private(after: After) -> None:
    module = after(SMALL, f"{TILES},parallelize{{loop=m}}")
    parents = {
        (op.memref if isinstance(op, memref.AllocOp) else op.operands[0]).name_hint: op.parent_op()
        for op in module.walk()
        if isinstance(op, memref.AllocOp | memref.DeallocOp)
    }
    assert isinstance(parents["a_packed"], ForallOp)
    assert isinstance(parents["b_packed"], func.FuncOp)


def test_every_buffer_stays_freed_once(after: After) -> None:
    module = after(SMALL, f"{TILES},parallelize{{loop=m}}")
    for alloc in (op for op in module.walk() if isinstance(op, memref.AllocOp)):
        frees = [
            u.operation for u in alloc.memref.uses if isinstance(u.operation, memref.DeallocOp)
        ]
        assert [free.parent_op() for free in frees] == [alloc.parent_op()]


def test_inside_a_loop_over_k_the_team_starts_for_every_slice(after: After) -> None:
    module = after(SMALL, f"tile{{loops=k sizes=2}},{TILES},parallelize{{loop=m}}")
    parent = the_forall(module).parent_op()
    assert isinstance(parent, scf.ForOp)
    assert dimension_of(parent) == "k"


def test_it_is_what_tile_over_cores_builds(after: After) -> None:
    one = after(SMALL, "tile{loops=m sizes=3},parallelize{loop=m}")
    assert str(one) == str(after(SMALL, "tile{loops=m sizes=3 over=cores}"))


def test_loops_run_over_blocks_from_the_outside_in(after: After) -> None:
    steps = "parallelize{loop=m over=blocks},parallelize{loop=n over=blocks}"
    module = after(SMALL, f"tile{{loops=m,n sizes=3,4}},{steps},tile{{loops=k sizes=2}}")
    units = [op.over.data for op in module.walk() if isinstance(op, ForallOp)]
    assert units == ["blocks", "blocks"]


@pytest.mark.parametrize(
    ("schedule", "code", "words"),
    [
        (
            "tile{loops=m sizes=3},parallelize{loop=m over=threads}",
            "GEM0360",
            "use cores, blocks, grid",
        ),
        ("tile{loops=k sizes=3},parallelize{loop=k}", "GEM0361", "k carries the sum"),
        ("tile{loops=m,k sizes=3,2},parallelize{loop=n}", "GEM0362", "use m"),
        ("parallelize{loop=n}", "GEM0362", "tile first"),
        (
            "tile{loops=m sizes=3 over=cores},tile{loops=n sizes=3},parallelize{loop=n}",
            "GEM0363",
            "already",
        ),
        (
            "tile{loops=m sizes=3},tile{loops=n sizes=3 over=cores},parallelize{loop=m}",
            "GEM0363",
            "already",
        ),
        (
            "tile{loops=m,n sizes=3,4},parallelize{loop=n over=blocks}",
            "GEM0363",
            "the outermost loops",
        ),
    ],
)
def test_errors(after: After, schedule: str, code: str, words: str) -> None:
    with pytest.raises(ScheduleError, match=words) as found:
        after(SMALL, schedule)
    assert found.value.code == code


def test_tiles_that_overlap_are_not_shared_out(after: After) -> None:
    with pytest.raises(ScheduleError, match="edges=clip") as found:
        after(Gemm(m=7, n=9, k=5), "tile{loops=m sizes=3 edges=overlap},parallelize{loop=m}")
    assert found.value.code == "GEM0364"


def test_loops_run_over_a_grid_from_the_outside_in(after: After) -> None:
    tiles, steps = "tile{loops=m,n sizes=3,4}", "parallelize{loop=m over=grid}"
    module = after(SMALL, f"{tiles},{steps},{steps.replace('m ', 'n ')}")
    assert [op.over.data for op in module.walk() if isinstance(op, ForallOp)] == ["grid", "grid"]
    assert str(module) == str(after(SMALL, "tile{loops=m,n sizes=3,4 over=grid}"))
    with pytest.raises(ScheduleError, match="run the outermost loops over grid") as found:
        after(SMALL, f"{tiles},parallelize{{loop=n over=grid}}")
    assert found.value.code == "GEM0363"
