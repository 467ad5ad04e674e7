"""unroll: several copies of the body of the k loop, and a loop for what remains."""

import itertools
from collections.abc import Callable

import pytest
from xdsl.dialects import scf
from xdsl.dialects.builtin import ModuleOp

from gemmir.errors import ScheduleError
from gemmir.gemm import Gemm
from gemmir.ir.dialect import OuterProductOp
from gemmir.ir.index import constant_of

After = Callable[[Gemm, str], ModuleOp]

VECTORS = "promote{operand=c to=registers},vectorize{with=fma width=4}"


def sums(module: ModuleOp) -> list[tuple[list[int | None], int]]:
    """Begin, end and step of each loop that carries sums, and the products in it."""
    loops = [op for op in module.walk() if isinstance(op, scf.ForOp) and op.iter_args]
    return [
        (
            [constant_of(v) for v in (loop.lb, loop.ub, loop.step)],
            sum(isinstance(op, OuterProductOp) for op in loop.body.block.ops),
        )
        for loop in loops
    ]


@pytest.mark.parametrize(
    ("k", "factor", "expected"),
    [
        (8, 4, [([0, 8, 4], 4)]),
        (8, 8, [([0, 8, 8], 8)]),
        (10, 4, [([0, 8, 4], 4), ([8, 10, 1], 1)]),
        (3, 2, [([0, 2, 2], 2), ([2, 3, 1], 1)]),
    ],
)
def test_what_remains_has_a_loop_of_its_own(
    after: After, k: int, factor: int, expected: list[tuple[list[int | None], int]]
) -> None:
    module = after(Gemm(m=3, n=4, k=k), f"{VECTORS},unroll{{loop=k factor={factor}}}")
    assert sums(module) == expected


@pytest.mark.parametrize("k", [3, 4, 5, 6, 7, 9])
def test_slices_of_any_size_keep_the_meaning(after: After, k: int) -> None:
    """The last slice of k has a size that is known only when it runs."""
    gemm = Gemm(m=3, n=6, k=k, alpha=2, beta=3)
    after(gemm, f"tile{{loops=k sizes=4}},{VECTORS},unroll{{loop=k factor=3}}")


def test_products_are_summed_one_after_another(after: After) -> None:
    """Unrolling makes no partial sums: each copy adds to the result of the one before."""
    module = after(Gemm(m=3, n=4, k=8), f"{VECTORS},unroll{{loop=k factor=4}}")
    products = [op for op in module.walk() if isinstance(op, OuterProductOp)]
    for one, next_ in itertools.pairwise(products):
        assert next_.acc is one.result


def test_other_loops_stay(after: After) -> None:
    gemm = Gemm(m=7, n=9, k=8)
    tiles = "tile{loops=n sizes=8},promote{operand=b to=l2 layout=panel:4},tile{loops=n sizes=4}"

    def others(schedule: str) -> int:
        found = [op for op in after(gemm, schedule).walk() if isinstance(op, scf.ForOp)]
        return sum(not op.iter_args for op in found)

    assert others(f"{tiles},{VECTORS},unroll{{loop=k factor=4}}") == others(f"{tiles},{VECTORS}")


@pytest.mark.parametrize(
    ("schedule", "code", "words"),
    [
        (f"{VECTORS},unroll{{loop=k factor=1}}", "GEM0380", "factor=1 repeats nothing"),
        (f"{VECTORS},unroll{{loop=k factor=9}}", "GEM0380", "use 2 to 8"),
        (
            f"{VECTORS},unroll{{loop=k factor=2}},unroll{{loop=k factor=2}}",
            "GEM0382",
            "unrolled already",
        ),
        (f"{VECTORS},unroll{{loop=m factor=2}}", "GEM0381", "no innermost loop over m"),
        ("tile{loops=k sizes=2},unroll{loop=k factor=2}", "GEM0381", "after vectorize"),
    ],
)
def test_errors(after: After, schedule: str, code: str, words: str) -> None:
    with pytest.raises(ScheduleError, match=words) as found:
        after(Gemm(m=3, n=4, k=8), schedule)
    assert found.value.code == code


def test_steps_of_k_are_those_of_the_product(after: After) -> None:
    """Of f64 two products of tensor cores are fed at once, and a step is as long as both."""
    schedule = (
        "tile{loops=m,n sizes=16,8 over=blocks},tile{loops=m,n sizes=16,8 over=warps},"
        "promote{operand=c to=registers},promote{operand=a to=shared layout=swizzle:32},"
        "promote{operand=b to=shared layout=swizzle:32},vectorize{with=mma width=1},"
        "unroll{loop=k factor=2}"
    )
    for dtype in ("f64", "f16"):
        after(Gemm(m=16, n=8, k=64, dtype=dtype), schedule)
