"""Sizes that are known in a call only: the problem, the IR, machine code, its callers in C."""

from __future__ import annotations

import pickle
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given

import gemmir
from gemmir import ANY, Gemm, runtime_kernel
from gemmir.arrays import strided
from gemmir.backends.cpu.assemble import header
from gemmir.check import check
from gemmir.errors import BackendError, CallError, ProblemError, ScheduleError
from gemmir.evaluate import EvaluationError, evaluate
from gemmir.ir.build import build
from gemmir.ir.context import parse_module
from gemmir.ir.problem import problem_of
from gemmir.kernel import Kernel
from gemmir.lowering import run_passes
from gemmir.runtime_kernel import RuntimeKernel
from gemmir.schedule import Schedule
from gemmir.signature import Signature, signature_of
from gemmir.sizes import Unknown
from tests.strategies import arrays_for, examples, surroundings

Array = npt.NDArray[Any]

BLAS = Gemm(m=ANY, n=ANY, k=ANY, lda=ANY, ldb=ANY, ldc=ANY, alpha=ANY, beta=ANY)
ROWS = Gemm(m=ANY, n=40, k=24, epilogue="bias+relu")
KINDS = [
    replace(BLAS, dtype=dtype, trans_a=trans_a, trans_b=trans_b)
    for dtype in ("f32", "f64")
    for trans_a in (False, True)
    for trans_b in (False, True)
]


def arrays_of(gemm: Gemm, sizes: dict[str, int], gap: int = 2) -> dict[str, Array]:
    """Random arrays for these sizes, with `gap` elements between rows where that is unknown."""
    rows = {
        "lda": sizes.get("m" if gemm.trans_a else "k", 1),
        "ldb": sizes.get("k" if gemm.trans_b else "n", 1),
        "ldc": sizes.get("n", 1),
    }
    leads = {name: max(rows[name], 1) + gap for name in gemm.unknown if name in rows}
    return arrays_for(gemm.at(**{n: s for n, s in sizes.items() if n in gemm.unknown}, **leads))


def require_right(gemm: Gemm, arrays: dict[str, Array], got: Array) -> None:
    wrong = ~(np.abs(got - gemm.reference(arrays)) <= gemm.error_bound(arrays))
    assert not wrong.any(), np.argwhere(wrong)[0]


def with_beta(arrays: dict[str, Array], beta: float) -> dict[str, Array]:
    """`arrays` with that beta; where it is 0, C must not be read."""
    arrays["beta"][...] = beta
    if beta == 0:
        arrays["c"][...] = np.nan
    return arrays


# The problem -------------------------------------------------------------------------------------


def test_none_is_any() -> None:
    sizes: dict[str, Any] = {"m": None, "n": 4, "k": 5}
    assert Gemm(**sizes) == Gemm(m=ANY, n=4, k=5)
    assert hash(Gemm(m=ANY, n=4, k=5)) == hash(Gemm(m=ANY, n=4, k=5))
    assert Gemm(m=ANY, n=4, k=5) != Gemm(m=1, n=4, k=5)


def test_a_problem_is_what_it_prints_and_pickles() -> None:
    assert eval(repr(BLAS), {"Gemm": Gemm, "ANY": ANY}) == BLAS
    assert pickle.loads(pickle.dumps(BLAS)) == BLAS


def test_what_is_unknown_is_named() -> None:
    assert BLAS.unknown == ("m", "n", "k", "lda", "ldb", "ldc")
    assert BLAS.unknown_factors == ("alpha", "beta")
    assert [o.name for o in BLAS.operands] == ["a", "b", "alpha", "beta", "c"]
    assert ROWS.at(m=7) == Gemm(m=7, n=40, k=24, epilogue="bias+relu")


@pytest.mark.parametrize("name", ["flops", "bytes_moved"])
def test_nothing_is_reckoned_with_what_is_unknown(name: str) -> None:
    with pytest.raises(ProblemError, match=r"m is known only when.*gemm\.at\(m=64\)") as found:
        getattr(ROWS, name)
    assert found.value.code == "GEM1351"


def test_an_unknown_number_is_no_other() -> None:
    m = Unknown("m")
    assert m != 0 and m != -1 and m == Unknown("m") != Unknown("n")
    for compute in (lambda: m + 1, lambda: 2 * m, lambda: m < 3, lambda: max(m, 1), lambda: -m):
        with pytest.raises(ProblemError):
            compute()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"batch": 2}, "leave batch out"),
        ({"groups": 2}, "leave groups out"),
        ({"scale_block": 128}, "leave scale_block out"),
        ({"m": 4, "alpha": ANY, "dtype": "i8"}, "use a dtype of floats"),
        ({"k": ANY, "lda": 8}, "leave lda out, or use ANY"),
    ],
)
def test_wrong_problems(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ProblemError, match=words) as found:
        replace(Gemm(m=ANY, n=4, k=5), **fields)
    assert found.value.code == "GEM1350"


# The IR ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gemm", [ROWS, *KINDS, Gemm(m=4, n=ANY, k=ANY, epilogue="residual")])
def test_the_gemm_level_says_the_whole_problem(gemm: Gemm) -> None:
    module = build(gemm)
    module.verify()
    assert str(parse_module(str(module))) == str(module)
    found = problem_of(module)
    assert replace(found, epilogue=gemm.epilogue) == gemm


def test_a_signature_names_its_sizes() -> None:
    found = signature_of(build(BLAS))
    assert found.sizes == ("m", "n", "k", "lda", "ldb", "ldc")
    assert found.arguments[0].shape == (Unknown("m"), Unknown("k"))
    assert found.arguments[0].strides == (Unknown("lda"), 1)
    assert Signature.from_json(found.to_json()) == found
    known = found.at({"m": 3, "n": 4, "k": 5, "lda": 7, "ldb": 8, "ldc": 9})
    assert known.arguments[1].shape == (5, 4) and known.arguments[1].strides == (8, 1)


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (', gemmir.sizes = ["m"]', "", "GEM0412"),
        ('gemmir.sizes = ["m"]', 'gemmir.sizes = ["m", "k"]', "GEM0412"),
        ('gemmir.sizes = ["m"]', 'gemmir.sizes = ["rows"]', "GEM0413"),
    ],
)
def test_arguments_that_do_not_say_their_sizes(old: str, new: str, code: str) -> None:
    text = str(build(ROWS))
    assert old in text
    with pytest.raises(BackendError) as found:
        signature_of(parse_module(text.replace(old, new, 1)))
    assert found.value.code == code


def test_the_evaluator_refuses_arrays_of_two_sizes() -> None:
    arrays = arrays_for(ROWS.at(m=3)) | {"c": arrays_for(ROWS.at(m=4))["c"]}
    with pytest.raises(EvaluationError, match="m is 3 by the shape of a and 4 by the shape of c"):
        evaluate(build(ROWS), list(arrays.values()))


@pytest.mark.parametrize("target", ["cuda:sm_80", "tpu:v5e"])
def test_other_machines_need_numbers(target: str) -> None:
    for gemm in (ROWS, Gemm(m=4, n=8, k=8, beta=ANY)):
        with pytest.raises(ScheduleError, match=r"give (m|beta), or use a CPU") as found:
            gemmir.lower(gemm, target=target)
        assert found.value.code == "GEM1353"
    with pytest.raises(ScheduleError, match="give m, or use a CPU"):
        gemmir.lower_text(str(build(ROWS)), target=target)


@pytest.mark.parametrize(
    ("schedule", "code", "words"),
    [
        ("promote{operand=c to=registers}", "GEM1357", "tile m before it"),
        ("promote{operand=a to=l3 layout=panel:4}", "GEM1357", "tile m before it"),
        ("tile{loops=m sizes=4 edges=overlap}", "GEM1354", "version"),
        (
            "tile{loops=m sizes=8},promote{operand=a to=l3 layout=panel:4},"
            "tile{loops=m sizes=4 edges=halve}",
            "GEM1354",
            "use edges=clip",
        ),
    ],
)
def test_what_passes_need_to_know(schedule: str, code: str, words: str) -> None:
    with pytest.raises(ScheduleError, match=words) as found:
        gemmir.lower(Gemm(m=ANY, n=8, k=4), schedule=schedule)
    assert found.value.code == code


def test_passes_that_take_numbers_refuse_values() -> None:
    module = build(Gemm(m=4, n=8, k=8, alpha=ANY))
    with pytest.raises(ScheduleError, match="known at run time only") as found:
        run_passes(module, Schedule.parse("split-k{factor=2}"))
    assert found.value.code == "GEM1356"


def test_cores_are_dealt_known_columns() -> None:
    with pytest.raises(ScheduleError, match="leave threads out") as found:
        gemmir.lower(BLAS, threads=2)
    assert found.value.code == "GEM1359"
    with pytest.raises(ScheduleError, match="GEM1359: threads=2 of alpha known in a call only"):
        gemmir.lower(Gemm(m=4, n=64, k=8, alpha=ANY), threads=2)


@pytest.mark.parametrize("gemm", [ROWS, replace(BLAS, trans_b=True)])
def test_check_tries_several_sizes(gemm: Gemm) -> None:
    report = check(gemm)
    assert report.ok, report.first_wrong
    assert report.rows[-1].name == "machine-code"


def test_check_says_for_which_sizes_a_stage_is_wrong() -> None:
    lowered = gemmir.lower(ROWS)
    stage = lowered.stages["01-version"].text
    wrong = stage.replace("arith.cmpi eq, %m", "arith.cmpi ne, %m")
    assert wrong != stage
    row = check(lowered, replace={"01-version": wrong}).first_wrong
    assert row is not None and "m=" in row.fault


# Machine code ------------------------------------------------------------------------------------


@given(m=st.integers(0, 40), seed=st.integers(0, 3))
@example(m=0, seed=0)
@example(m=1, seed=0)
@example(m=12, seed=0)
@example(m=23, seed=0)
def test_any_number_of_rows(m: int, seed: int) -> None:
    arrays = arrays_for(ROWS.at(m=m), seed)
    kernel = gemmir.compile(ROWS)
    got = kernel(*list(arrays.values())[:-1])
    assert got.shape == (m, ROWS.n)
    require_right(ROWS, arrays, got)


@given(
    kind=st.integers(0, len(KINDS) - 1),
    m=st.integers(0, 90),
    n=st.integers(0, 90),
    k=st.integers(0, 90),
    beta=st.sampled_from([0.0, 1.0, -0.5]),
)
@example(kind=0, m=65, n=65, k=65, beta=0.0)
@example(kind=3, m=70, n=33, k=0, beta=-0.5)
@example(kind=5, m=13, n=31, k=64, beta=0.0)
def test_any_size_alpha_and_beta(kind: int, m: int, n: int, k: int, beta: float) -> None:
    """Nothing between, before or behind the rows of C is written, and no old C where beta is 0."""
    gemm = KINDS[kind]
    arrays = with_beta(arrays_of(gemm, {"m": m, "n": n, "k": k}), beta)
    expected, bound = gemm.reference(arrays), gemm.error_bound(arrays)
    before = surroundings(arrays["c"])
    *inputs, c = arrays.values()
    gemmir.compile(gemm)(*inputs, out=c)
    assert not (np.abs(c - expected) > bound).any() and not np.isnan(c).any()
    assert surroundings(arrays["c"]) == before


@pytest.mark.parametrize("dtype", ["bf16", "f16", "i8"])
@pytest.mark.parametrize(("trans_a", "trans_b"), [(False, False), (False, True), (True, False)])
@pytest.mark.parametrize("sizes", [(5, 3, 70), (33, 65, 17), (90, 20, 600)], ids=str)
def test_any_size_of_narrow_types(
    dtype: str, trans_a: bool, trans_b: bool, sizes: tuple[int, int, int]
) -> None:
    """A vector has as many lanes as there are sums, not elements."""
    gemm = Gemm(m=ANY, n=ANY, k=ANY, dtype=dtype, trans_a=trans_a, trans_b=trans_b)
    arrays = arrays_of(gemm, dict(zip("mnk", sizes, strict=True)))
    got = gemmir.compile(gemm)(*list(arrays.values())[:-1])
    require_right(gemm, arrays, got)


@given(m=st.integers(2, 40), rows=st.lists(st.integers(0, 39), min_size=2, max_size=5))
@examples(0.5)
def test_rows_have_the_same_bits_however_many_there_are(m: int, rows: list[int]) -> None:
    """Within one version: another number of rows of the same A."""
    gemm = Gemm(m=ANY, n=40, k=24)
    arrays = arrays_for(gemm.at(m=m))
    kernel = gemmir.compile(gemm)
    whole = kernel(arrays["a"], arrays["b"])
    picked = [r % m for r in rows]
    part = kernel(np.ascontiguousarray(arrays["a"][picked]), arrays["b"])
    np.testing.assert_array_equal(part.view(np.uint32), whole[picked].view(np.uint32))


def test_a_runtime_kernel_is_a_kernel() -> None:
    kernel = gemmir.compile(Gemm(m=ANY, n=4, k=5))
    assert isinstance(kernel, RuntimeKernel)
    assert repr(kernel) == "<RuntimeKernel gemm(a: f32[m, 5], b: f32[5, 4], c: f32[m, 4])>"
    a, b = (np.ones(shape, np.float32) for shape in ((3, 5), (5, 4)))
    out = np.empty((3, 4), np.float32)
    assert kernel(a, b=b, out=out) is out
    call = kernel.bind(a, b, out=out)
    a[...] = 2
    assert call() is out and (out == 10).all()
    assert kernel.at(m=3)(a, b).tolist() == out.tolist()


@pytest.mark.parametrize(
    ("a", "b", "out", "code", "words"),
    [
        ((3, 6), (5, 4), None, "GEM0506", r"a has shape \(3, 6\)"),
        ((3, 5), (5, 4), (4, 4), "GEM1358", "m is 3 by the shape of a and 4 by the shape of c"),
        ((5,), (5, 4), None, "GEM1358", "2 dimensions are needed"),
    ],
)
def test_arrays_that_do_not_fit(
    a: tuple[int, ...], b: tuple[int, ...], out: tuple[int, ...] | None, code: str, words: str
) -> None:
    kernel = gemmir.compile(Gemm(m=ANY, n=4, k=5))
    given_out = None if out is None else np.zeros(out, np.float32)
    with pytest.raises(CallError, match=words) as found:
        kernel(np.zeros(a, np.float32), np.zeros(b, np.float32), out=given_out)
    assert found.value.code == code


def test_values_that_are_no_arrays() -> None:
    kernel = gemmir.compile(Gemm(m=ANY, n=4, k=5))
    b = np.zeros((5, 4), np.float32)
    with pytest.raises(CallError, match="a is a list") as found:
        kernel([[0.0] * 5], b)
    assert found.value.code == "GEM0503"
    assert isinstance(kernel, RuntimeKernel)
    for wrong in ({"n": 3}, {"m": -1}, {"m": 2.5}, {"m": "3"}, {"m": 2**70}):
        with pytest.raises(CallError, match=r"GEM1358: .*give m, each 0 or more"):
            kernel.at(**cast("dict[str, int]", wrong))


@pytest.mark.parametrize("apart", [0, 3])
def test_rows_of_the_output_do_not_overlap(apart: int) -> None:
    kernel = gemmir.compile(Gemm(m=ANY, n=4, k=5, ldc=ANY))
    a, b, out = (np.ones(shape, np.float32) for shape in ((3, 5), (5, 4), (3, 4)))
    shared = strided(out.ravel(), (3, 4), (apart, 1))
    with pytest.raises(CallError, match=f"GEM1358: rows of c have 4 .* begin every {apart}; "):
        kernel(a, b, out=shared)
    assert (out == 1).all() and (kernel(a[:1], b, out=shared[:1]) == 5).all()


def test_rows_are_as_far_apart_as_they_are() -> None:
    gemm = Gemm(m=ANY, n=4, k=5, lda=ANY)
    a = np.arange(60, dtype=np.float32).reshape(6, 10)[:, :5]
    b = np.ones((5, 4), np.float32)
    np.testing.assert_array_equal(gemmir.compile(gemm)(a, b), a @ b)
    with pytest.raises(CallError, match="negative strides"):
        gemmir.compile(gemm)(a[::-1], b)


def test_arrays_of_one_shape_may_lie_otherwise_in_each_call() -> None:
    kernel = gemmir.compile(BLAS)
    for gap in (0, 3, 0, 1):
        arrays = with_beta(arrays_of(BLAS, {"m": 5, "n": 7, "k": 6}, gap), 0)
        *operands, c = arrays.values()
        require_right(BLAS, arrays, kernel(*operands, out=c.copy()))
        result = c[...]
        require_right(BLAS, arrays, kernel(*operands, out=result))
        assert kernel(*operands, out=result) is result


def test_the_shapes_that_are_kept_are_the_last_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_kernel, "SHAPES_KEPT", 2)
    kernel = gemmir.compile(Gemm(m=ANY, n=4, k=3))
    assert isinstance(kernel, RuntimeKernel)
    made: list[int] = []
    at = RuntimeKernel.at

    def counted(self: RuntimeKernel, **sizes: int) -> Kernel:
        made.append(sizes["m"])
        return at(self, **sizes)

    monkeypatch.setattr(RuntimeKernel, "at", counted)
    for m in (101, 102, 101, 102, 103, 102, 101):
        kernel(np.ones((m, 3), np.float32), np.ones((3, 4), np.float32))
    assert made == [101, 102, 103, 101]


def test_two_cores_give_the_same_bits() -> None:
    gemm = Gemm(m=ANY, n=96, k=24, epilogue="bias")
    arrays = arrays_for(gemm.at(m=29))
    *inputs, _ = arrays.values()
    one, two = (gemmir.compile(gemm, threads=threads)(*inputs) for threads in (1, 2))
    np.testing.assert_array_equal(one, two)


# C -----------------------------------------------------------------------------------------------

PROGRAM = r"""
#include <stdio.h>
#include "gemm.h"
int main(void) {
    float a[] = {1, 2, 3, 4, 5, 6}, b[] = {1, 0, 0, 1}, c[6], alpha = 2, beta = 0;
    if (gemm(a, b, &alpha, &beta, c, 3, 2, 2, 2, 2, 2)) return 1;
    for (int i = 0; i < 6; ++i) printf("%g ", c[i]);
    return 0;
}
"""


def test_c_passes_sizes_behind_the_arrays(tmp_path: Path) -> None:
    lowered = gemmir.lower(BLAS)
    text = header(lowered.artifact.signature)
    assert "one GEMM of any m, n, k, lda, ldb, ldc" in text
    assert "    float *__restrict c,\n    int64_t m,\n    int64_t n," in text
    (tmp_path / "gemm.h").write_text(text)
    (tmp_path / "main.c").write_text(PROGRAM)
    (tmp_path / "gemm.o").write_bytes(lowered.assemble())
    program = tmp_path / "main"
    made = ["cc", str(tmp_path / "main.c"), str(tmp_path / "gemm.o"), "-o", str(program)]
    subprocess.run(made, check=True, capture_output=True)
    done = subprocess.run([str(program)], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["2", "4", "6", "8", "10", "12"]
