"""tile: loops around smaller problems, clipped, overlapping or even at the edge."""

from collections.abc import Callable

import pytest
from xdsl.dialects import arith, memref, scf
from xdsl.dialects.builtin import DYNAMIC_INDEX, ModuleOp

from gemmir.errors import ScheduleError
from gemmir.gemm import Gemm
from gemmir.ir.dialect import ForallOp, GemmOp, memref_type
from gemmir.ir.index import constant_of
from gemmir.ir.loops import dimension_of, gemms

After = Callable[[Gemm, str], ModuleOp]

SMALL = Gemm(m=7, n=9, k=5)

PROBLEMS = [
    SMALL,
    Gemm(m=7, n=9, k=5, alpha=2, beta=3),
    Gemm(m=7, n=9, k=5, beta=1),
    Gemm(m=7, n=9, k=5, trans_a=True, trans_b=True, lda=8, ldb=6, ldc=11),
    Gemm(m=1, n=1, k=1),
    Gemm(m=0, n=9, k=5),
    Gemm(m=7, n=0, k=5),
]


def nest(module: ModuleOp) -> list[tuple[str | None, int | None, int | None]]:
    """Dimension, end and step of every loop, outermost first."""
    loops = [op for op in module.walk() if isinstance(op, scf.ForOp | ForallOp)]
    return [(dimension_of(o), constant_of(o.ub), constant_of(o.step)) for o in loops]


def shapes(gemm: GemmOp) -> list[tuple[int, ...]]:
    return [memref_type(v).get_shape() for v in (gemm.a, gemm.b, gemm.c)]


@pytest.mark.parametrize("gemm", PROBLEMS, ids=str)
@pytest.mark.parametrize(
    "schedule",
    [
        "tile{loops=m sizes=3}",
        "tile{loops=n sizes=4}",
        "tile{loops=k sizes=2}",
        "tile{loops=m,n,k sizes=3,4,2}",
        "tile{loops=k,n,m sizes=2,4,3}",
        "tile{loops=m,n,k sizes=100,100,100}",
        "tile{loops=m,k sizes=4,4},tile{loops=n,m,k sizes=2,3,3}",
        "tile{loops=k sizes=3},tile{loops=k sizes=2}",
        "tile{loops=m sizes=2 over=cores},tile{loops=n,k sizes=4,2}",
    ],
)
def test_clipped_tiles_keep_the_meaning(after: After, gemm: Gemm, schedule: str) -> None:
    after(gemm, schedule)


@pytest.mark.parametrize(
    "schedule",
    [
        "tile{loops=m,n sizes=3,4 edges=overlap}",
        "tile{loops=m,n sizes=3,4 edges=overlap},tile{loops=k sizes=2}",
        "tile{loops=m sizes=5 edges=overlap},tile{loops=m sizes=2 edges=overlap}",
    ],
)
def test_overlapping_tiles_keep_the_meaning(after: After, schedule: str) -> None:
    after(SMALL, schedule)


@pytest.mark.parametrize("shared", [None, 0])
def test_a_batch_is_opened_one_by_one(after: After, shared: int | None) -> None:
    gemm = Gemm(m=4, n=5, k=3, batch=3, batch_stride_b=shared, beta=2)
    module = after(gemm, "tile{loops=batch,m,k sizes=1,3,2}")
    (inner,) = gemms(module)
    assert shapes(inner) == [(DYNAMIC_INDEX,) * 2, (DYNAMIC_INDEX, 5), (DYNAMIC_INDEX, 5)]


@pytest.mark.parametrize("gemm", PROBLEMS, ids=str)
@pytest.mark.parametrize(
    "schedule",
    [
        "tile{loops=m,n sizes=3,4 edges=peel}",
        "tile{loops=k sizes=2},tile{loops=n,m sizes=4,3 edges=peel}",
        "tile{loops=m,n sizes=100,4 edges=peel}",
        "tile{loops=m sizes=2 over=cores edges=peel},tile{loops=n sizes=4 edges=peel}",
    ],
)
def test_peeled_tiles_keep_the_meaning(after: After, gemm: Gemm, schedule: str) -> None:
    after(gemm, schedule)


def test_a_peeled_tile_has_a_loop_and_a_static_size_of_its_own(after: After) -> None:
    module = after(SMALL, "tile{loops=m,n sizes=3,4 edges=peel}")
    assert [shapes(g)[2] for g in gemms(module)] == [(3, 4), (3, 1), (1, 4), (1, 1)]
    columns = [("n", 8, 4), ("n", 9, 4)]
    assert nest(module) == [("m", 6, 3), *columns, ("m", 7, 3), *columns]


@pytest.mark.parametrize("gemm", PROBLEMS, ids=str)
@pytest.mark.parametrize(
    "schedule",
    [
        "tile{loops=m,n sizes=3,4 edges=even}",
        "tile{loops=k sizes=2},tile{loops=n,m sizes=4,5 edges=even}",
        "tile{loops=m,n sizes=100,1 edges=even}",
        "tile{loops=m sizes=6 edges=even},tile{loops=m sizes=2 edges=even}",
        "tile{loops=m sizes=4},tile{loops=m sizes=3 edges=even}",
    ],
)
def test_even_tiles_keep_the_meaning(after: After, gemm: Gemm, schedule: str) -> None:
    after(gemm, schedule)


@pytest.mark.parametrize(
    ("m", "size", "sizes"),
    [
        (7, 3, [3, 2, 2]),
        (16, 6, [6, 5, 5]),
        (17, 8, [6, 6, 5]),
        (9, 6, [5, 4]),
        (10, 6, [5, 5]),
        (12, 6, [6, 6]),
        (5, 6, [5]),
    ],
)
def test_even_tiles_differ_by_one_at_most(
    after: After, m: int, size: int, sizes: list[int]
) -> None:
    module = after(Gemm(m=m, n=4, k=2), f"tile{{loops=m sizes={size} edges=even}}")
    found: list[int] = []
    for loop, gemm in zip(
        (op for op in module.walk() if isinstance(op, scf.ForOp)), gemms(module), strict=True
    ):
        begin, end, step = (constant_of(v) for v in (loop.lb, loop.ub, loop.step))
        assert begin is not None and end is not None and step is not None
        assert begin == sum(found)
        found += [shapes(gemm)[2][0]] * len(range(begin, end, step))
    assert found == sizes


def test_loops_stand_in_the_order_given(after: After) -> None:
    module = after(Gemm(m=8, n=6, k=4), "tile{loops=n,k,m sizes=3,2,4}")
    assert nest(module) == [("n", 6, 3), ("k", 4, 2), ("m", 8, 4)]
    assert shapes(gemms(module)[0]) == [(4, 2), (2, 3), (4, 3)]


def test_a_second_tile_cuts_the_tiles_of_the_first(after: After) -> None:
    module = after(Gemm(m=8, n=6, k=4), "tile{loops=m sizes=4},tile{loops=m sizes=2}")
    assert nest(module) == [("m", 8, 4), ("m", 4, 2)]


def test_a_clipped_tile_has_a_dynamic_size_and_an_overlapping_one_has_not(after: After) -> None:
    clip = after(SMALL, "tile{loops=m sizes=3}")
    overlap = after(SMALL, "tile{loops=m sizes=3 edges=overlap}")
    assert [shapes(gemms(m)[0])[2] for m in (clip, overlap)] == [(DYNAMIC_INDEX, 9), (3, 9)]


def test_only_a_cut_of_k_makes_first_slices(after: After) -> None:
    def first(gemm: Gemm, schedule: str) -> bool:
        return gemms(after(gemm, schedule))[0].first is not None

    assert first(SMALL, "tile{loops=k sizes=2}")
    assert not first(SMALL, "tile{loops=m,n sizes=2,2}")
    assert not first(SMALL, "tile{loops=k sizes=5}")
    assert not first(Gemm(m=7, n=9, k=5, beta=1), "tile{loops=k sizes=2}")


def test_no_data_is_moved(after: After) -> None:
    module = after(SMALL, "tile{loops=m,n,k sizes=3,4,2}")
    moving = (memref.AllocOp, memref.AllocaOp, memref.CopyOp)
    assert not any(isinstance(op, moving) for op in module.walk())
    assert len(gemms(module)) == 1


def test_over_cores_opens_a_forall(after: After) -> None:
    module = after(SMALL, "tile{loops=m sizes=3 over=cores}")
    assert [type(op) for op in module.walk() if isinstance(op, scf.ForOp | ForallOp)] == [ForallOp]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("loops=m sizes=3", "loops=n sizes=3"),
        ("loops=m sizes=3", "loops=m sizes=4"),
        ("loops=m sizes=3", "loops=m sizes=3 edges=overlap"),
        ("loops=m sizes=3", "loops=m sizes=3 edges=peel"),
        ("loops=m sizes=3 edges=peel", "loops=m sizes=3 edges=even"),
        ("loops=m sizes=3", "loops=m sizes=3 over=cores"),
    ],
)
def test_every_parameter_changes_the_ir(after: After, one: str, other: str) -> None:
    assert str(after(SMALL, f"tile{{{one}}}")) != str(after(SMALL, f"tile{{{other}}}"))


def test_tiles_that_divide_need_no_arithmetic(after: After) -> None:
    module = after(Gemm(m=8, n=6, k=4), "tile{loops=m,n sizes=4,3 edges=overlap}")
    assert not any(isinstance(op, arith.MinSIOp) for op in module.walk())


BATCH = Gemm(m=4, n=4, k=4, batch=2)
PACKED_A = "tile{loops=k sizes=5},promote{operand=a to=l2 layout=panel:2},"


@pytest.mark.parametrize(
    ("gemm", "schedule", "code", "words"),
    [
        (SMALL, "tile{loops=m,n sizes=4}", "GEM0320", "2 loops and 1 sizes"),
        (SMALL, "tile{loops=m,m sizes=4,2}", "GEM0321", "name each of m, n, k at most once"),
        (SMALL, "tile{loops=batch sizes=1}", "GEM0321", "'batch'"),
        (SMALL, "tile{loops=m sizes=4 edges=mask}", "GEM0322", "use clip or overlap or peel"),
        (
            SMALL,
            "tile{loops=m sizes=4 over=tiles}",
            "GEM0323",
            "use one of cores, clusters, blocks",
        ),
        (SMALL, "tile{loops=k sizes=4 over=cores}", "GEM0324", "k carries the sum"),
        (SMALL, "tile{loops=m,n sizes=4,4 over=cores}", "GEM0324", "one of m, n or batch"),
        (BATCH, "tile{loops=m sizes=2}", "GEM0325", "open batch first"),
        (SMALL, "tile{loops=m sizes=0}", "GEM0326", "m cannot be cut by 0"),
        (BATCH, "tile{loops=batch sizes=2}", "GEM0326", "batch cannot be cut by 2"),
        (Gemm(m=2, n=2, k=0), "tile{loops=k sizes=1}", "GEM0326", "k=0 has no slices"),
        (SMALL, "tile{loops=k sizes=2 edges=overlap}", "GEM0327", "k carries the sum"),
        (
            SMALL,
            "tile{loops=m sizes=4},tile{loops=m sizes=3 edges=overlap}",
            "GEM1354",
            "m may be less than 3 at run time",
        ),
        (
            SMALL,
            "promote{operand=a to=l3 layout=panel:4},tile{loops=m sizes=4 edges=halve}",
            "GEM1354",
            "tiles are whole panels",
        ),
        (
            SMALL,
            f"{PACKED_A}tile{{loops=m sizes=2 edges=overlap}}",
            "GEM0327",
            "m=7 by 2 would begin tiles inside packed panels",
        ),
        (
            Gemm(m=7, n=9, k=5, beta=1),
            "tile{loops=m sizes=4 edges=overlap}",
            "GEM0327",
            "m=7 by 4 would add to overlapping elements twice",
        ),
        (
            SMALL,
            "tile{loops=k sizes=2},tile{loops=m sizes=4 edges=overlap}",
            "GEM0327",
            "no loop over k outside",
        ),
        (SMALL, "tile{loops=k,m sizes=2,4 edges=overlap}", "GEM0327", "k carries the sum"),
        (SMALL, "tile{loops=k sizes=2 edges=even}", "GEM1384", "k=5 by 2 cannot be even: k "),
        (
            SMALL,
            "tile{loops=m sizes=4 over=cores edges=even}",
            "GEM1384",
            "one set of tiles after another; use edges=clip",
        ),
        (
            SMALL,
            f"{PACKED_A}tile{{loops=m sizes=2 edges=even}}",
            "GEM1384",
            "m=7 by 2 cannot be even: tiles would begin inside packed panels",
        ),
        (
            Gemm(m=4, n=6, k=6, weight_group=2, dtype_b="i4"),
            "tile{loops=n sizes=4 edges=even}",
            "GEM1384",
            "cut bytes of B",
        ),
        (
            SMALL,
            "tile{loops=m sizes=4 over=cores edges=overlap}",
            "GEM0327",
            "two of the cores write the same elements",
        ),
        (
            SMALL,
            "tile{loops=m sizes=4},tile{loops=n sizes=4 over=blocks}",
            "GEM0319",
            "over=blocks inside another loop",
        ),
        (
            SMALL,
            "tile{loops=m sizes=4 over=threads}",
            "GEM0319",
            "over=threads stands inside none",
        ),
        (
            SMALL,
            "tile{loops=m sizes=4 over=blocks},tile{loops=m sizes=2 over=threads},"
            "tile{loops=n sizes=2 over=warps}",
            "GEM0319",
            "stands inside threads, blocks",
        ),
        (
            SMALL,
            "tile{loops=m sizes=4 over=blocks edges=peel}",
            "GEM0327",
            "every unit runs once",
        ),
        (
            SMALL,
            "promote{operand=c to=registers},tile{loops=m sizes=2}",
            "GEM0328",
            "put tile before promote",
        ),
        (
            Gemm(m=4, n=8, k=5),
            "promote{operand=c to=registers},vectorize{with=fma width=8},tile{loops=m sizes=2}",
            "GEM0301",
            "put tile before vectorize",
        ),
    ],
)
def test_errors(after: After, gemm: Gemm, schedule: str, code: str, words: str) -> None:
    with pytest.raises(ScheduleError, match=words) as found:
        after(gemm, schedule)
    assert found.value.code == code


@pytest.mark.parametrize(
    "schedule",
    [
        "tile{loops=m,n sizes=3,4 over=grid}",
        "tile{loops=n,m sizes=4,3 over=grid},tile{loops=k sizes=2}",
        "tile{loops=m sizes=3 over=grid},tile{loops=n sizes=4 over=grid}",
        "tile{loops=m,n sizes=100,100 over=grid}",
    ],
)
@pytest.mark.parametrize("gemm", PROBLEMS, ids=str)
def test_loops_over_a_grid_keep_the_meaning(after: After, gemm: Gemm, schedule: str) -> None:
    module = after(gemm, schedule)
    loops = [op for op in module.walk() if isinstance(op, ForallOp)]
    assert {loop.over.data for loop in loops} == {"grid"}
    assert sorted(dimension_of(loop) or "" for loop in loops) == ["m", "n"]


@pytest.mark.parametrize(
    ("schedule", "code", "words"),
    [
        ("tile{loops=k sizes=2 over=grid}", "GEM0324", "k carries the sum"),
        ("tile{loops=m sizes=4 over=grid edges=peel}", "GEM0327", "over=grid cannot peel"),
        ("tile{loops=m sizes=4 over=grid edges=overlap}", "GEM0327", "use clip or peel"),
        ("tile{loops=k sizes=2},tile{loops=m sizes=4 over=grid}", "GEM0319", "the first tile"),
        (
            "tile{loops=m sizes=4 over=grid},tile{loops=m sizes=2 over=grid}",
            "GEM0319",
            "of m, which is cut already; tile it once",
        ),
        ("tile{loops=m sizes=4 over=grid per_sm=2}", "GEM0352", "goes with over=blocks"),
    ],
)
def test_errors_of_a_grid(after: After, schedule: str, code: str, words: str) -> None:
    with pytest.raises(ScheduleError, match=words) as found:
        after(SMALL, schedule)
    assert found.value.code == code
