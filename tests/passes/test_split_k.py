"""split-k: slices of k on blocks of their own, and their parts added in a fixed order."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xdsl.dialects import arith
from xdsl.dialects.builtin import DYNAMIC_INDEX, ModuleOp

import gemmir
from gemmir.arrays import make_operands
from gemmir.errors import ScheduleError
from gemmir.evaluate import evaluate
from gemmir.gemm import Gemm
from gemmir.ir.build import build
from gemmir.ir.dialect import EpilogueOp, ForallOp, memref_type
from gemmir.ir.index import constant_of
from gemmir.ir.loops import gemms
from gemmir.lowering import run_passes
from gemmir.passes.split_k import plan
from gemmir.signature import signature_of

After = Callable[[Gemm, str], ModuleOp]

SMALL = Gemm(m=7, n=12, k=100)
TILES = (
    "tile{loops=m,n sizes=8,8 over=blocks},tile{loops=m,n sizes=4,4 over=threads},"
    "promote{operand=c to=registers},tile{loops=k sizes=16},"
    "promote{operand=a to=shared layout=panel:12},promote{operand=b to=shared layout=panel:12}"
)
VECTORS = "vectorize{with=fma width=4},unroll{loop=k factor=4}"


def grid(module: ModuleOp) -> list[tuple[str, int | None, int | None]]:
    """Unit, end and step of every loop, outermost first."""
    loops = [op for op in module.walk() if isinstance(op, ForallOp)]
    return [(o.over.data, constant_of(o.ub), constant_of(o.step)) for o in loops]


@pytest.mark.parametrize(
    "gemm",
    [
        SMALL,
        Gemm(m=7, n=12, k=96, alpha=2, beta=3),
        Gemm(m=1, n=1, k=33, beta=1),
        Gemm(m=0, n=5, k=40),
        Gemm(m=5, n=9, k=40, trans_a=True, trans_b=True, lda=6, ldb=41, ldc=10),
        Gemm(m=5, n=9, k=40, epilogue="bias+relu+residual"),
        Gemm(m=9, n=8, k=70, dtype="bf16", epilogue="bias"),
        Gemm(m=9, n=8, k=70, dtype="f16", out="f16", beta=2),
    ],
    ids=str,
)
def test_the_meaning_stays(after: After, gemm: Gemm) -> None:
    after(gemm, "split-k{factor=2}" + (",fuse-epilogue" if gemm.steps else ""))


@given(
    m=st.integers(0, 11),
    n=st.integers(0, 11),
    k=st.integers(17, 120),
    factor=st.integers(2, 8),
    beta=st.sampled_from([0, 1, 3]),
)
def test_every_size_goes_all_the_way(
    after: After, m: int, n: int, k: int, factor: int, beta: int
) -> None:
    gemm = Gemm(m=m, n=n, k=k, beta=beta, epilogue="residual")
    try:
        after(gemm, f"split-k{{factor={factor}}},{TILES},fuse-epilogue,{VECTORS}")
    except ScheduleError as error:
        assert error.code == "GEM0348"


def test_matrices_of_a_batch(after: After) -> None:
    gemm = Gemm(m=7, n=6, k=40, batch=3, batch_stride_b=0, beta=1, epilogue="bias")
    tiles = TILES.replace("loops=m,n sizes=8,8", "loops=batch,m,n sizes=1,8,8", 1)
    after(gemm, f"split-k{{factor=3}},{tiles},fuse-epilogue,{VECTORS}")


def test_slices_are_whole_lines_and_the_last_is_shorter(after: After) -> None:
    module = after(SMALL, "split-k{factor=4}")
    (inner,) = gemms(module)
    assert memref_type(inner.a).get_shape() == (7, DYNAMIC_INDEX)
    assert grid(module)[0] == ("blocks", 4, 1)
    even = after(Gemm(m=7, n=12, k=128), "split-k{factor=4}")
    assert memref_type(gemms(even)[0].a).get_shape() == (7, 32)


def test_threads_have_neighbouring_pieces_as_wide_as_n_allows(after: After) -> None:
    def pieces(n: int, dtype: str = "f32") -> tuple[tuple[int, ...], list[object]]:
        module = after(Gemm(m=40, n=n, k=40, dtype=dtype), "split-k{factor=2}")
        (added,) = [op for op in module.walk() if isinstance(op, EpilogueOp)]
        return memref_type(added.output).get_shape(), list(grid(module)[1:])

    assert pieces(36) == ((1, 4), [("blocks", 360, 256), ("threads", 256, 1)])
    assert pieces(6) == ((1, 2), [("blocks", 120, 128), ("threads", 128, 1)])
    assert pieces(7) == ((1, 1), [("blocks", 280, 256), ("threads", 256, 1)])
    assert pieces(36, "f64") == ((1, 2), [("blocks", 720, 256), ("threads", 256, 1)])


def test_parts_are_added_in_the_order_of_k(after: After) -> None:
    module = after(Gemm(m=2, n=4, k=64, alpha=2, beta=3), "split-k{factor=4}")
    (added,) = [op for op in module.walk() if isinstance(op, EpilogueOp)]
    *parts, _ = added.body.block.args
    total = parts[0]
    for part in parts[1:]:
        (use,) = part.uses
        assert isinstance(use.operation, arith.AddfOp)
        assert use.operation.operands[0] is total
        total = use.operation.result


def test_the_bits_do_not_depend_on_the_tiles() -> None:
    """Neither on the shape of the blocks nor on what else is in the grid."""
    results: list[bytes] = []
    for m, tiles in itertools.product((8, 24), ("8,8", "4,8", "8,4")):
        schedule = f"split-k{{factor=3}},{TILES.replace('8,8', tiles, 1)},{VECTORS}"
        lowered = gemmir.lower(Gemm(m=m, n=16, k=90), target="cuda:sm_80", schedule=schedule)
        assert lowered.problem is not None
        module = build(lowered.problem)
        run_passes(module, lowered.schedule)
        operands = make_operands(signature_of(module), seed=3)
        generator = np.random.default_rng(7)
        operands.arrays[1][...] = generator.uniform(-1, 1, (90, 16))
        operands.arrays[0][:8] = generator.uniform(-1, 1, (8, 90))
        evaluate(module, operands.arrays)
        results.append(operands.output[:8].tobytes())
    assert len(set(results)) == 1


def test_an_epilogue_goes_into_the_sum_of_the_parts(after: After) -> None:
    gemm = Gemm(m=4, n=8, k=40, epilogue="bias+gelu")
    loose = after(gemm, "split-k{factor=2}")
    fused = after(gemm, "split-k{factor=2},fuse-epilogue")
    count = [sum(isinstance(op, EpilogueOp) for op in m.walk()) for m in (loose, fused)]
    assert count == [2, 1]


@pytest.mark.parametrize(
    ("gemm", "schedule", "code", "words"),
    [
        (SMALL, "split-k{factor=2 order=atomic}", "GEM0346", "use order=fixed"),
        (SMALL, "tile{loops=m sizes=4},split-k{factor=2}", "GEM0345", "the first pass"),
        (SMALL, "split-k{factor=2},split-k{factor=2}", "GEM0345", "the first pass"),
        (SMALL, "promote{operand=c to=registers},split-k{factor=2}", "GEM0345", "the first pass"),
        (SMALL, "split-k{factor=1}", "GEM0347", "use 2 or more"),
        (Gemm(m=4, n=4, k=0), "split-k{factor=2}", "GEM0347", "leave split-k out"),
        (SMALL, "split-k{factor=8}", "GEM0348", "1 of them empty; use factor=7"),
        (Gemm(m=4, n=4, k=9), "split-k{factor=2}", "GEM0348", "leave split-k out"),
        (SMALL, f"split-k{{factor=2}},{TILES},{VECTORS},split-k{{factor=2}}", "GEM0301", "put"),
    ],
)
def test_errors(after: After, gemm: Gemm, schedule: str, code: str, words: str) -> None:
    with pytest.raises(ScheduleError, match=words) as found:
        after(gemm, schedule)
    assert found.value.code == code


@given(k=st.integers(17, 4000), factor=st.integers(2, 40))
def test_the_factor_that_is_named_is_legal(k: int, factor: int) -> None:
    (gemm,) = gemms(build(Gemm(m=1, n=1, k=k)))
    try:
        found = plan(gemm, factor, "fixed")
    except ScheduleError as error:
        named = int(error.hint.removeprefix("use factor="))
        found = plan(gemm, named, "fixed")
        assert named < factor
    assert (found.factor - 1) * found.size < k <= found.factor * found.size
