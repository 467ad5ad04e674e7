"""Grouped GEMM: several products in one launch, whose rows are known when it runs."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from xdsl.dialects import scf
from xdsl.dialects.builtin import DYNAMIC_INDEX

import gemmir
from gemmir.arrays import Operands, make_operands
from gemmir.backends.cpu.assemble import header
from gemmir.check import check
from gemmir.errors import CallError, ProblemError, ScheduleError
from gemmir.evaluate import EvaluationError, evaluate
from gemmir.gemm import COUNTS, OFFSETS, Gemm
from gemmir.ir.build import build
from gemmir.ir.dialect import ForallOp, enclosing_ops, memref_type
from gemmir.ir.loops import gemms
from gemmir.ir.problem import problem_of
from gemmir.lowering import run_passes
from gemmir.schedule import Schedule
from gemmir.signature import signature_of
from tests.strategies import epilogues, examples

Array = npt.NDArray[Any]

MOE = Gemm(m=37, n=20, k=24, groups=4, epilogue="bias+relu+residual")
BLOCKS = "parallelize{loop=group over=blocks},tile{loops=m,n sizes=16,16 over=blocks}"
ROWS = "tile{loops=group,m,n sizes=1,16,16 over=blocks}"
THREADS = (
    "tile{loops=m,n sizes=4,4 over=threads},promote{operand=c to=registers},tile{loops=k sizes=8},"
    "promote{operand=a to=shared layout=panel:20},promote{operand=b to=shared layout=panel:20}"
)
VECTORS = "vectorize{with=fma width=4},unroll{loop=k factor=2}"


MASKED = replace(MOE, masked=True)


@st.composite
def grouped_problems(draw: st.DrawFn, most: int = 40) -> Gemm:
    return Gemm(
        m=draw(st.integers(0, most)),
        n=draw(st.integers(0, most)),
        k=draw(st.integers(0, most)),
        groups=draw(st.integers(1, 6)),
        masked=draw(st.booleans()),
        alpha=draw(st.sampled_from([1.0, -0.5])),
        beta=draw(st.sampled_from([0.0, 1.0, 0.3])),
        trans_b=draw(st.booleans()),
        epilogue=draw(epilogues()),
    )


def operands_of(gemm: Gemm, seed: int = 0) -> Operands:
    return make_operands(signature_of(build(gemm)), seed)


def require_right(gemm: Gemm, target: str, schedule: str | None = None, seed: int = 0) -> None:
    check(gemm, target=target, schedule=schedule, shrink=False, seed=seed).require_ok()


def test_operands_are_rows_of_all_and_a_matrix_for_each() -> None:
    gemm = replace(MOE, trans_b=True, ldb=32)
    shapes = {o.name: (o.shape, o.strides, o.dtype, o.access) for o in gemm.operands}
    assert list(shapes) == ["a", "b", "offsets", "bias", "residual", "c"]
    assert shapes["a"] == ((37, 24), (24, 1), "f32", "read")
    assert shapes["b"] == ((4, 20, 24), (640, 32, 1), "f32", "read")
    assert shapes["offsets"] == ((5,), (1,), "i32", "read")
    assert shapes["bias"] == ((4, 20), (20, 1), "f32", "read")
    assert shapes["c"] == ((37, 20), (20, 1), "f32", "readwrite")


def test_masked_operands_have_a_matrix_of_rows_for_each() -> None:
    shapes = {o.name: (o.shape, o.strides, o.access) for o in replace(MASKED, ldc=32).operands}
    assert list(shapes) == ["a", "b", "counts", "bias", "residual", "c"]
    assert shapes["a"] == ((4, 37, 24), (888, 24, 1), "read")
    assert shapes["counts"] == ((4,), (1,), "read")
    assert shapes["residual"] == ((4, 37, 20), (740, 20, 1), "read")
    assert shapes["c"] == ((4, 37, 20), (1184, 32, 1), "readwrite")
    assert MASKED.flops == 4 * MOE.flops


def test_the_masked_reference_leaves_rows_beyond_the_counts() -> None:
    arrays = {name: o.array for name, o in operands_of(MASKED).by_name.items()}
    arrays[COUNTS][:] = (0, 37, 5, 1)
    found = MASKED.reference(arrays)
    for g, rows in enumerate(arrays[COUNTS].tolist()):
        part = {n: x[g][:rows] for n, x in arrays.items() if n in ("a", "c", "residual")}
        part |= {n: arrays[n][g] for n in ("b", "bias")}
        one = replace(MASKED, m=rows, groups=None, masked=False)
        assert np.array_equal(found[g, :rows], one.reference(part))
        assert np.array_equal(found[g, rows:], arrays["c"][g, rows:])


def test_the_reference_is_one_product_after_another() -> None:
    arrays = {name: o.array for name, o in operands_of(MOE).by_name.items()}
    arrays[OFFSETS][:] = (0, 5, 5, 30, 33)
    expected = arrays["c"].astype(np.float64)
    for g, (begin, end) in enumerate(pairwise(arrays[OFFSETS].tolist())):
        part = {**arrays, "b": arrays["b"][g], "bias": arrays["bias"][g]}
        part = {n: x[begin:end] if n in ("a", "c", "residual") else x for n, x in part.items()}
        one = replace(MOE, m=end - begin, groups=None)
        expected[begin:end] = one.reference(part)
    assert np.array_equal(MOE.reference(arrays), expected)
    assert np.array_equal(expected[33:], arrays["c"][33:])
    assert (MOE.error_bound(arrays)[33:] == 0).all()


@given(grouped_problems(), st.integers(0, 5))
def test_random_offsets_are_legal_and_have_an_empty_group(gemm: Gemm, seed: int) -> None:
    offsets = operands_of(replace(gemm, masked=False), seed).by_name[OFFSETS].array
    sizes = np.diff(offsets)
    assert offsets[0] == 0
    assert offsets[-1] <= gemm.m
    assert (sizes >= 0).all()
    assert (sizes == 0).any()


@given(grouped_problems(), st.integers(0, 5), st.sampled_from(["cpu", "cuda:sm_80"]))
@examples(0.3)
def test_every_stage_of_the_default_schedule(gemm: Gemm, seed: int, target: str) -> None:
    lowered = gemmir.lower(gemm, target)
    operands = operands_of(gemm, seed)
    module = build(gemm)
    arrays = {name: o.array for name, o in operands.copy().by_name.items()}
    expected, bound = gemm.reference(arrays), gemm.error_bound(arrays)
    for number in range(len(lowered.schedule) + 1):
        if number:
            run_passes(module, Schedule(lowered.schedule.passes[number - 1 : number]))
        found = operands.copy()
        evaluate(module, found.arrays)
        assert (np.abs(found.output - expected) <= bound).all()
        assert not found.damage(operands)


@pytest.mark.parametrize("target", ["cpu", "cuda:sm_80"])
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("gemm", [MOE, MASKED], ids=["offsets", "counts"])
def test_machine_code_is_right(gemm: Gemm, target: str, seed: int) -> None:
    require_right(gemm, target, seed=seed)


def test_products_of_tensor_cores() -> None:
    gemm = Gemm(m=70, n=40, k=80, groups=3, dtype="bf16", out="bf16", beta=0.5, epilogue="bias")
    require_right(gemm, "cuda:sm_80")
    require_right(replace(gemm, trans_b=True), "cuda:sm_80", seed=1)


@pytest.mark.parametrize("order", ["order=n,m", "order=m,n group=2"])
def test_blocks_of_a_product_in_another_order(order: str) -> None:
    schedule = f"{BLOCKS},interchange{{{order}}},{THREADS},fuse-epilogue,{VECTORS}"
    require_right(MOE, "cuda:sm_80", schedule)


def test_products_on_cores() -> None:
    schedule = "parallelize{loop=group},tile{loops=m,n sizes=4,8},promote{operand=c to=registers}"
    require_right(MOE, "cpu", f"{schedule},fuse-epilogue,vectorize{{with=fma width=8}}")


def blocks_of(gemm: Gemm, schedule: str) -> int:
    launch = gemmir.lower(gemm, "cuda:sm_80", schedule).artifact.launch
    assert launch is not None
    (kernel,) = launch.kernels
    return kernel.blocks


def test_one_launch_has_a_block_for_every_tile_of_the_most_rows() -> None:
    assert blocks_of(MOE, f"{BLOCKS},{THREADS},fuse-epilogue,{VECTORS}") == 4 * 3 * 2


@pytest.mark.parametrize(
    ("m", "groups", "tiles"),
    [(37, 4, 6), (1, 4, 1), (3, 4, 3), (16, 1, 1), (17, 1, 2), (160, 3, 12), (0, 3, 0)],
)
def test_rows_of_all_products_have_as_many_tiles_as_they_can_need(
    m: int, groups: int, tiles: int
) -> None:
    schedule = f"{ROWS},{THREADS},{VECTORS}"
    gemm = Gemm(m=m, n=20, k=8, groups=groups)
    assert blocks_of(gemm, schedule) == tiles * 2


@given(grouped_problems(), st.integers(0, 9))
@examples(0.3)
def test_every_tile_of_rows_finds_its_product(gemm: Gemm, seed: int) -> None:
    operands = operands_of(gemm, seed)
    arrays = {name: o.array for name, o in operands.copy().by_name.items()}
    expected, bound = gemm.reference(arrays), gemm.error_bound(arrays)
    module = build(gemm)
    run_passes(module, Schedule.parse("tile{loops=group,m,n sizes=1,3,5 over=blocks}"))
    evaluate(module, operands.arrays)
    assert (np.abs(operands.output - expected) <= bound).all()


def test_blocks_of_rows_in_the_emulator() -> None:
    schedule = f"{ROWS},{THREADS},fuse-epilogue,{VECTORS}"
    for seed in range(3):
        require_right(MOE, "cuda:sm_80", schedule, seed)
    require_right(MASKED, "cuda:sm_80", schedule)
    assert blocks_of(MASKED, schedule) == 4 * 3 * 2


def test_masked_rows_are_refused_over_a_grid() -> None:
    with pytest.raises(ScheduleError, match="GEM1292"):
        gemmir.lower(MASKED, "tpu:v5e")


def test_rows_of_products_are_cut_over_blocks() -> None:
    with pytest.raises(ScheduleError, match="use loops=group,m,n") as found:
        gemmir.lower(MOE, "cuda:sm_80", "tile{loops=m,n sizes=4,4 over=blocks}")
    assert found.value.code == "GEM0319"


def test_a_block_without_rows_copies_and_multiplies_nothing() -> None:
    module = build(MOE)
    run_passes(module, Schedule.parse(BLOCKS))
    (inner,) = gemms(module)
    branch, *loops = enclosing_ops(inner)[:-2]
    assert isinstance(branch, scf.IfOp)
    assert all(isinstance(op, ForallOp) for op in loops)
    assert memref_type(inner.a).get_shape() == (DYNAMIC_INDEX, 24)


@pytest.mark.parametrize("target", ["cpu", "cuda:sm_80"])
def test_every_stage_goes_on_from_its_text(target: str) -> None:
    lowered = gemmir.lower(MOE, target)
    assert lowered.stages["gemm"].name == "00-gemm"
    for stage in lowered.stages.values():
        again = gemmir.lower_text(stage.text, target)
        assert again.artifact.text == lowered.artifact.text


@pytest.mark.parametrize(
    "gemm",
    [
        replace(MOE, epilogue="bias+residual"),
        replace(MASKED, epilogue="bias+residual", ldb=24),
        Gemm(m=5, n=7, k=3, groups=1, beta=2, lda=8, ldb=9, ldc=10),
        Gemm(m=16, n=8, k=32, groups=2, dtype="bf16", trans_b=True, ldb=40),
    ],
    ids=str,
)
def test_the_problem_is_found_in_the_ir(gemm: Gemm) -> None:
    assert problem_of(build(gemm)) == gemm


@pytest.mark.parametrize(
    "offsets", [(0, 5, 3, 20, 30), (0, 5, 9, 20, 38), (-1, 5, 9, 20, 30)], ids=str
)
def test_offsets_that_are_no_rows_are_found(offsets: tuple[int, ...]) -> None:
    operands = operands_of(MOE)
    operands.by_name[OFFSETS].array[:] = offsets
    with pytest.raises(EvaluationError, match=r"GEM0904: .*memref\.subview"):
        evaluate(build(MOE), operands.arrays)


def test_a_call_keeps_rows_of_no_group() -> None:
    gemm = Gemm(m=12, n=5, k=7, groups=2)
    kernel = gemmir.compile(gemm)
    generator = np.random.default_rng(0)
    a, b = (generator.uniform(-1, 1, s).astype(np.float32) for s in ((12, 7), (2, 7, 5)))
    c = np.full((12, 5), 3, np.float32)
    assert kernel(a, b, np.array([0, 4, 9], np.int32), out=c) is c
    assert np.allclose(c[:4], a[:4] @ b[0], atol=1e-5)
    assert np.allclose(c[4:9], a[4:9] @ b[1], atol=1e-5)
    assert (c[9:] == 3).all()
    with pytest.raises(CallError, match="GEM0512"):
        kernel(a, b, np.array([0, 4, 9], np.int32))


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"groups": 0}, "GEM0122", "use 1 or more"),
        ({"groups": -1}, "GEM0102", "groups=-1 is negative"),
        ({"groups": 2, "batch": 3}, "GEM0123", "leave batch out"),
        ({"groups": 2, "trans_a": True}, "GEM0123", "leave trans_a out"),
        ({"masked": True}, "GEM0123", "give groups"),
    ],
)
def test_problems_that_are_refused(fields: dict[str, Any], code: str, words: str) -> None:
    with pytest.raises(ProblemError, match=words) as found:
        Gemm(m=4, n=4, k=4, **fields)
    assert found.value.code == code


def test_split_k_is_for_one_product() -> None:
    with pytest.raises(ScheduleError, match="GEM0345"):
        gemmir.lower(replace(MOE, k=64), "cuda:sm_80", "split-k{factor=2}")


def test_the_header_has_offsets_of_32_bits() -> None:
    text = header(gemmir.lower(MOE).artifact.signature)
    assert "const int32_t *__restrict offsets" in text
