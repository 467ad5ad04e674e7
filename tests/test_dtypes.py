"""Element types: problems, exact and rounded references, every stage of a lowering for a GPU."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gemmir
from gemmir import Gemm
from gemmir.arrays import make_operands
from gemmir.backend import backend_for
from gemmir.backends.ptx.run import run_ptx
from gemmir.check import check
from gemmir.dtypes import BY_MLIR, ELEMENTS, PRODUCTS, TF32_UNIT, restrided
from gemmir.errors import BackendError, ProblemError, ScheduleError
from gemmir.evaluate import evaluate
from gemmir.evaluate.products import rounded_to_tf32
from gemmir.evaluate.values import never_written
from gemmir.explain import explain
from gemmir.ir.build import build
from gemmir.ir.context import parse_module
from gemmir.ir.problem import problem_of
from gemmir.ir.warp_products import MMA_SHAPES
from gemmir.machine import GpuMachine, machine_for
from gemmir.reference import reference_of, reference_of_gemm
from gemmir.signature import signature_of

MIXED = tuple(name for name, product in PRODUCTS.items() if product.is_mixed)
FLOATS = tuple(name for name in MIXED if not PRODUCTS[name].element.is_integer)
TENSOR = tuple(name for name in PRODUCTS if name in MMA_SHAPES)
"""What tensor cores multiply."""
LAYOUTS = ((False, False), (False, True), (True, False), (True, True))
ODD = Gemm(m=50, n=40, k=70)
"""No extent is a multiple of a tile, and rows of 8 bits are not of 16 bytes."""

PTXAS = shutil.which("ptxas")


def transposed(gemm: Gemm, layout: tuple[bool, bool]) -> Gemm:
    return replace(gemm, trans_a=layout[0], trans_b=layout[1])


def test_names_and_spellings() -> None:
    floats = {"f32", "f64", "f16", "bf16", "f8E4M3FN", "f8E5M2"}
    assert set(BY_MLIR) == floats | {"i4", "i8", "ui8", "i16", "i32"}
    assert ELEMENTS["e4m3"].numpy.name == "float8_e4m3fn"
    assert ELEMENTS["e5m2"].numpy.name == "float8_e5m2"
    for name, product in PRODUCTS.items():
        assert product.results[0] == product.element.accumulator
        assert product.element.name == (name if product.precision is None else "f32")
        assert product.precision in (None, name)


@pytest.mark.parametrize("name", [n for n, e in ELEMENTS.items() if e.per_byte == 1])
def test_memory_in_another_shape(name: str) -> None:
    element = ELEMENTS[name]
    flat = np.arange(12).astype(element.numpy)
    shown = restrided(flat[1:], (2, 3), (4 * element.item_bytes, element.item_bytes))
    assert shown.dtype == element.numpy
    np.testing.assert_array_equal(shown.astype(int), [[1, 2, 3], [5, 6, 7]])
    shown[...] = np.zeros((), element.numpy)
    assert flat[1:4].astype(int).tolist() == [0, 0, 0]
    assert int(flat[4]) == 4


@pytest.mark.parametrize("name", PRODUCTS)
def test_the_ir_says_the_problem(name: str) -> None:
    for out in PRODUCTS[name].results:
        gemm = Gemm(m=3, n=5, k=7, dtype=name, out=out, epilogue="bias+relu")
        module = build(gemm)
        found = problem_of(module)
        assert (found.dtype, found.result, found.element) == (name, gemm.result, gemm.element)
        assert str(parse_module(str(module))) == str(module)
        types = {a.name: a.dtype for a in signature_of(module).arguments}
        stored = PRODUCTS[name].element.name
        assert types == {"a": stored, "b": stored, "bias": out, "c": out}


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("GEM0104", {"dtype": "i8", "out": "f32"}),
        ("GEM0104", {"dtype": "f32", "out": "bf16"}),
        ("GEM0104", {"dtype": "e4m3", "out": "e4m3"}),
        ("GEM0112", {"dtype": "i8", "alpha": 0.5}),
        ("GEM0112", {"dtype": "u8", "beta": 2.0**31}),
        ("GEM0112", {"dtype": "u8", "beta": float("nan")}),
        ("GEM0113", {"dtype": "i8", "epilogue": "bias+gelu"}),
    ],
)
def test_what_a_type_does_not_have(code: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(ProblemError) as raised:
        Gemm(m=2, n=2, k=2, **wrong)
    assert raised.value.code == code
    assert raised.value.hint


@pytest.mark.parametrize("name", ["i8", "u8"])
def test_integers_are_exact_and_wrap(name: str) -> None:
    gemm = Gemm(m=3, n=4, k=33, dtype=name, alpha=-70_000, beta=90_000, epilogue="bias+relu")
    operands = make_operands(signature_of(build(gemm)))
    arrays = dict(zip(operands.by_name, operands.arrays, strict=True))
    exact = reference_of_gemm(gemm, operands)
    a, b, bias, c = (arrays[n].astype(object) for n in ("a", "b", "bias", "c"))

    def wrapped(x: Any) -> Any:
        return (x + 2**31) % 2**32 - 2**31

    expected = wrapped(wrapped(a @ b * -70_000 + c * 90_000) + bias)
    expected = np.where(expected > 0, expected, 0)
    assert exact.expected.tolist() == expected.tolist()
    assert not exact.bound.any()
    evaluate(build(gemm), operands.arrays)
    assert exact.compare(operands.output).first_wrong is None


def test_tf32_is_rounded_to_nearest_and_halves_away_from_zero() -> None:
    step = 2.0**-10
    numbers = np.array([1 + step / 2, 1 + step / 4, -1 - step / 2, np.inf, np.nan, 0], np.float32)
    np.testing.assert_array_equal(
        rounded_to_tf32(numbers), np.array([1 + step, 1, -1 - step, np.inf, np.nan, 0], np.float32)
    )
    drawn = np.random.default_rng(0).uniform(-1, 1, 1000).astype(np.float32)
    assert (np.abs(rounded_to_tf32(drawn) - drawn) <= TF32_UNIT * np.abs(drawn)).all()


def test_bounds_hold_the_roundings_of_a_tensor_core() -> None:
    gemm = Gemm(m=4, n=4, k=64)
    arrays = {name: np.ones((4, 64) if name == "a" else (64, 4), np.float32) for name in "ab"}
    plain, tf32, f16, fp8 = (
        replace(gemm, dtype=name).error_bound(arrays)[0, 0]
        for name in ("f32", "tf32", "f16", "e4m3")
    )
    assert plain < f16 < tf32 < fp8
    assert tf32 == pytest.approx(64 * 2 * TF32_UNIT, rel=0.02)
    assert replace(gemm, dtype="e4m3").error_bound(arrays, emulated=True)[0, 0] == f16


@pytest.mark.parametrize("dtype", [e.numpy for e in ELEMENTS.values()], ids=str)
def test_new_memory_is_noticed(dtype: np.dtype[Any]) -> None:
    found = np.full(3, never_written(dtype), dtype)
    assert np.isnan(found.astype(float)).all() or (np.abs(found.astype(float)) >= 128).all()


@pytest.mark.parametrize("name", FLOATS)
def test_ir_alone_has_the_bound_of_the_problem(name: str) -> None:
    gemm = Gemm(m=5, n=6, k=7, dtype=name, out="bf16", epilogue="bias+relu")
    source = str(build(gemm)) + "\n"
    operands = make_operands(signature_of(parse_module(source)))
    by_gemm, by_ir = (reference_of(source, known, operands) for known in (gemm, None))
    np.testing.assert_array_equal(by_ir.expected, by_gemm.expected)
    np.testing.assert_allclose(by_ir.bound, by_gemm.bound, rtol=0.2)


def stages_are_right(gemm: Gemm, target: str) -> gemmir.Lowered:
    """Every stage of the default lowering of `gemm` in the evaluator, its PTX in the emulator."""
    lowered = gemmir.lower(gemm, target=target)
    operands = make_operands(signature_of(build(gemm)), seed=gemm.m + gemm.k)
    reference = reference_of_gemm(gemm, operands)
    for name, stage in lowered.stages.items():
        own = operands.copy()
        evaluate(parse_module(stage.text), own.arrays)
        wrong = reference.compare(own.output).first_wrong
        assert wrong is None, f"{name}: {wrong}"
        assert not own.damage(operands)
    own = operands.copy()
    report = run_ptx(lowered.artifact, lowered.artifact.text, own.arrays)
    assert reference.compare(own.output).first_wrong is None
    assert not own.damage(operands)
    matrices = [a for a in report.shared if a.text.startswith("ldmatrix")] if report else []
    assert all(access.ratio == 1 for access in matrices)
    return lowered


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("name", TENSOR)
def test_every_stage_is_right(name: str, layout: tuple[bool, bool]) -> None:
    stages_are_right(transposed(replace(ODD, dtype=name), layout), "cuda:sm_90a")


@pytest.mark.parametrize("name", TENSOR)
def test_batches_strides_and_epilogues(name: str) -> None:
    whole = PRODUCTS[name].element.is_integer
    gemm = Gemm(
        m=17,
        n=9,
        k=36,
        dtype=name,
        batch=2,
        batch_stride_b=0,
        lda=40,
        ldb=12,
        ldc=13,
        alpha=3 if whole else 0.7,
        beta=-2 if whole else 0.3,
        epilogue="bias+relu+residual",
    )
    stages_are_right(gemm, "cuda:sm_90a")


@pytest.mark.parametrize("out", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("name", [name for name in FLOATS if name in TENSOR])
def test_narrow_results(name: str, out: str) -> None:
    stages_are_right(Gemm(m=20, n=24, k=48, dtype=name, out=out, beta=0.5), "cuda:sm_90a")


@pytest.mark.parametrize("name", TENSOR)
def test_empty_sums(name: str) -> None:
    stages_are_right(Gemm(m=3, n=4, k=0, dtype=name, beta=2.0), "cuda:sm_90a")


@pytest.mark.parametrize("name", TENSOR)
def test_going_on_from_text_gives_the_same_ptx(name: str) -> None:
    lowered = gemmir.lower(replace(ODD, dtype=name), target="cuda:sm_90a")
    for stage in lowered.stages.values():
        again = gemmir.lower_text(stage.text, target="cuda:sm_90a")
        assert again.artifact.text == lowered.artifact.text


@pytest.mark.parametrize(
    ("name", "instruction"),
    [
        ("f16", "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"),
        ("bf16", "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"),
        ("tf32", "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"),
        ("i8", "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32"),
        ("u8", "mma.sync.aligned.m16n8k32.row.col.s32.u8.u8.s32"),
        ("e4m3", "mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32"),
        ("e5m2", "mma.sync.aligned.m16n8k32.row.col.f32.e5m2.e5m2.f32"),
        ("f64", "mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64"),
    ],
)
def test_instructions(name: str, instruction: str) -> None:
    along_k = Gemm(m=128, n=128, k=256, dtype=name, trans_b=True)
    target = "cuda:sm_80" if name == "f64" else "cuda:sm_89"
    text = gemmir.lower(along_k, target).artifact.text
    assert instruction in text.split()
    assert "cp.async.cg.shared.global" in text
    assert ("ldmatrix.sync" in text) == (name != "f64")
    assert ("cvt.rna.tf32.f32" in text) == (name == "tf32")
    across = transposed(along_k, (True, False))
    text = gemmir.lower(across, target).artifact.text
    assert ("ldmatrix.sync" in text) == (name in ("f16", "bf16"))


@pytest.mark.parametrize(
    ("name", "types", "depth"),
    [
        ("f16", "f32.f16.f16", 16),
        ("bf16", "f32.bf16.bf16", 16),
        ("tf32", "f32.tf32.tf32", 8),
        ("i8", "s32.s8.s8", 32),
        ("u8", "s32.u8.u8", 32),
        ("e4m3", "f32.e4m3.e4m3", 32),
        ("e5m2", "f32.e5m2.e5m2", 32),
    ],
)
def test_instructions_of_warpgroups(name: str, types: str, depth: int) -> None:
    along_k = Gemm(m=128, n=128, k=256, dtype=name, trans_b=True)
    text = gemmir.lower(along_k, target="cuda:sm_90a").artifact.text
    assert re.search(rf"wgmma\.mma_async\.sync\.aligned\.m64n\d+k{depth}\.{types} ", text)
    assert "cp.async.bulk.tensor" in text
    across = gemmir.lower(transposed(along_k, (True, False)), target="cuda:sm_90a").artifact.text
    assert ("wgmma.mma_async" in across) == (name in ("f16", "bf16"))


def test_turing_has_shorter_products_and_no_asynchronous_copies() -> None:
    half = Gemm(m=128, n=128, k=128, dtype="f16")
    lowered = stages_are_right(half, "cuda:sm_75")
    assert "vectorize{with=mma width=8 shape=16,8,8}" in str(lowered.schedule)
    assert "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32" in lowered.artifact.text
    assert "cp.async" not in lowered.artifact.text
    for layout in LAYOUTS:
        stages_are_right(transposed(replace(ODD, dtype="f16"), layout), "cuda:sm_75")


@pytest.mark.parametrize("name", MIXED)
def test_machines_without_such_products(name: str) -> None:
    gemm = replace(ODD, dtype=name)
    targets = ["cpu:x86-64-v3"] if name not in ("f16", "bf16", "i8", "u8") else []
    targets += ["cuda:sm_75"] if name != "f16" else []
    targets += ["cuda:sm_80"] if name in ("e4m3", "e5m2") else []
    targets += ["cuda:sm_90a"] if name not in TENSOR else []
    for target in targets:
        with pytest.raises(ScheduleError) as raised:
            gemmir.lower(gemm, target=target)
        assert raised.value.code == "GEM0316"
        assert ("cuda:sm_90a" in raised.value.hint) == (name in TENSOR)


def emitted(text: str, target: str) -> str:
    machine = machine_for(target)
    return backend_for("ptx").emit(parse_module(text), machine).text


@pytest.mark.parametrize(
    ("dtype", "target", "says"),
    [
        ("bf16", "cuda:sm_75", "has no asynchronous copies"),
        ("e4m3", "cuda:sm_80", "no product of e4m3"),
        ("f64", "cuda:sm_86", "no product of f64"),
    ],
)
def test_a_gpu_refuses_what_it_does_not_have(dtype: str, target: str, says: str) -> None:
    lowered = gemmir.lower(Gemm(m=32, n=32, k=256, dtype=dtype), target="cuda:sm_90a")
    last = list(lowered.stages.values())[-1].text
    assert emitted(last, "cuda:sm_90a") == lowered.artifact.text
    with pytest.raises(BackendError, match=f"GEM0426: .*{says}"):
        emitted(last, target)


def test_no_instruction_of_that_shape() -> None:
    lowered = gemmir.lower(Gemm(m=32, n=32, k=16, dtype="bf16"), target="cuda:sm_80")
    last = list(lowered.stages.values())[-1].text
    shorter = last.replace("8 : i64, 16 : i64]", "8 : i64, 4 : i64]")
    assert shorter != last
    with pytest.raises(BackendError, match=r"GEM0427: .*bf16 in the shape \(16, 8, 4\)"):
        emitted(shorter, "cuda:sm_80")


def test_no_fragment_of_that_depth() -> None:
    lowered = gemmir.lower(Gemm(m=16, n=8, k=64, dtype="bf16"), target="cuda:sm_80")
    last = list(lowered.stages.values())[-1].text
    deeper = last.replace("vector<16x16xbf16>", "vector<16x32xbf16>")
    deeper = deeper.replace("vector<16x8xbf16>", "vector<32x8xbf16>")
    assert deeper != last
    with pytest.raises(BackendError, match=r"GEM0428: .*32 elements of k, 64 bytes"):
        emitted(deeper, "cuda:sm_80")


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("name", ["f16", "tf32", "f64"])
def test_no_bank_conflicts(name: str, layout: tuple[bool, bool]) -> None:
    gemm = transposed(Gemm(m=64, n=64, k=32, dtype=name), layout)
    lowered = gemmir.lower(gemm, target="cuda:sm_90a")
    operands = make_operands(signature_of(build(gemm)))
    report = run_ptx(lowered.artifact, lowered.artifact.text, operands.arrays)
    assert report is not None
    assert report.worst_bank_conflict == 1


@pytest.mark.skipif(PTXAS is None, reason="ptxas is not on PATH")
@pytest.mark.parametrize("target", ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90a", "sm_120"])
def test_ptxas_takes_every_type_and_layout(target: str, tmp_path: Path) -> None:
    machine = machine_for(f"cuda:{target}")
    assert isinstance(machine, GpuMachine)
    for name, layout in itertools.product(machine.mma_dtypes, LAYOUTS):
        gemm = transposed(Gemm(m=256, n=256, k=128, dtype=name), layout)
        text = tmp_path / "kernel.ptx"
        text.write_text(gemmir.lower(gemm, target=f"cuda:{target}").artifact.text)
        command = [str(PTXAS), "-v", f"-arch={target}", str(text), "-o", str(tmp_path / "cubin")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (name, layout, done.stderr)
        assert "0 bytes spill stores" in done.stderr, (name, layout, done.stderr)


@pytest.mark.parametrize("name", TENSOR)
def test_explain_names_the_products_at_once(name: str) -> None:
    lowered = gemmir.lower(Gemm(m=64, n=64, k=64, dtype=name), target="cuda:sm_90a")
    assert f"{MMA_SHAPES[name][0][2]} at once" in explain(lowered)


@pytest.mark.parametrize("name", ["i8", "tf32", "f64"])
def test_split_sums(name: str) -> None:
    gemm = Gemm(m=20, n=12, k=140, dtype=name, alpha=-3, beta=2, epilogue="bias")
    whole = gemmir.lower(gemm, target="cuda:sm_90a").schedule
    report = check(gemm, target="cuda:sm_90a", schedule=f"split-k{{factor=2}},{whole}")
    assert report.ok, report.first_wrong
