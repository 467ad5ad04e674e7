"""The gemmir dialect: gemm, epilogue, pack, prefetch and outerproduct."""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemmir.evaluate import EvaluationError, evaluate
from gemmir.gemm import Gemm, Operand
from gemmir.ir.context import parse_module

Array = npt.NDArray[Any]
Run = Callable[..., None]
Compute = Callable[[str, str, Sequence[Array]], Array]


def _memref(shape: Sequence[int], strides: Sequence[int], dtype: str) -> str:
    sizes = "x".join(map(str, shape))
    return f"memref<{sizes}x{dtype}, strided<[{', '.join(map(str, strides))}]>>"


def _matrix(
    operand: Operand, *, transposed: bool, batch: int | None
) -> tuple[list[int], list[int]]:
    """Extents and strides that `gemmir.gemm` sees of an array."""
    shape, strides = list(operand.shape), list(operand.strides)
    if transposed:
        shape[-2:], strides[-2:] = shape[:-3:-1], strides[:-3:-1]
    if batch is not None and len(shape) == 2:
        shape, strides = [batch, *shape], [0, *strides]
    return shape, strides


def _module_text(gemm: Gemm) -> str:
    a, b, c = gemm.operands
    matrices = [
        _matrix(operand, transposed=transposed, batch=gemm.batch)
        for operand, transposed in ((a, gemm.trans_a), (b, gemm.trans_b), (c, False))
    ]
    types = [_memref(o.shape, o.strides, gemm.dtype) for o in (a, b, c)]
    seen = [_memref(*m, gemm.dtype) for m in matrices]
    casts = [
        f"%{o.name}2 = memref.reinterpret_cast %{o.name} to offset: [0], sizes: {shape}, "
        f"strides: {strides} : {before} to {after}"
        for o, (shape, strides), before, after in zip((a, b, c), matrices, types, seen, strict=True)
    ]
    arguments = [
        f'%{o.name}: {t} {{gemmir.name = "{o.name}", gemmir.access = "{o.access}"}}'
        for o, t in zip((a, b, c), types, strict=True)
    ]
    return "\n".join(
        [
            f"func.func @gemm({', '.join(arguments)}) {{",
            *casts,
            f"gemmir.gemm %a2, %b2, %c2 alpha {gemm.alpha:e} : f64 beta {gemm.beta:e} : f64 "
            f": {', '.join(seen)}",
            "func.return",
            "}",
        ]
    )


def _array(operand: Operand, dtype: Any, generator: np.random.Generator) -> tuple[Array, Array]:
    """The array of an operand in memory of its span, and that memory."""
    memory = generator.uniform(-1, 1, max(operand.span, 1)).astype(dtype)
    strides = [s * memory.itemsize for s in operand.strides]
    return np.ndarray(operand.shape, dtype, memory.data, strides=strides), memory


@st.composite
def _gemms(draw: st.DrawFn) -> Gemm:
    extent = st.integers(0, 9)
    m, n, k = draw(extent), draw(extent), draw(extent)
    trans_a, trans_b = draw(st.booleans()), draw(st.booleans())
    cols_a, cols_b = (m if trans_a else k), (k if trans_b else n)
    pad = st.integers(0, 3)
    batch = draw(st.none() | st.integers(1, 3))
    shared = batch is not None and 0 not in (m, n, k)
    return Gemm(
        m=m,
        n=n,
        k=k,
        dtype=draw(st.sampled_from(["f32", "f64"])),
        alpha=draw(st.sampled_from([1.0, 0.0, -0.5, 3.25])),
        beta=draw(st.sampled_from([0.0, 1.0, -2.0])),
        trans_a=trans_a,
        trans_b=trans_b,
        lda=max(cols_a, 1) + draw(pad),
        ldb=max(cols_b, 1) + draw(pad),
        ldc=max(n, 1) + draw(pad),
        batch=batch,
        batch_stride_b=draw(st.sampled_from([None, 0])) if shared else None,
    )


@settings(max_examples=60, deadline=None)
@given(gemm=_gemms(), seed=st.integers(0, 2**32 - 1))
def test_gemm_is_its_reference(gemm: Gemm, seed: int) -> None:
    generator = np.random.default_rng(seed)
    made = {o.name: _array(o, gemm.element.numpy, generator) for o in gemm.operands}
    arrays = {name: array for name, (array, _) in made.items()}
    if gemm.beta == 0:
        arrays["c"][...] = np.nan
    before = {name: array.copy() for name, array in arrays.items()}
    expected, bound = gemm.reference(before), gemm.error_bound(before)
    memory = made["c"][1]
    outside = np.ones(memory.shape, bool)
    if arrays["c"].size:
        np.ndarray(arrays["c"].shape, bool, outside.data, strides=gemm.operands[-1].strides)[
            ...
        ] = False
    kept = memory[outside]
    evaluate(parse_module(_module_text(gemm)), [arrays[o.name] for o in gemm.operands])
    assert np.all(np.abs(arrays["c"] - expected) <= bound)
    np.testing.assert_array_equal(memory[outside], kept)
    np.testing.assert_array_equal(arrays["a"], before["a"])


def _small_gemm(run: Run, words: str, old: float, *, k: int = 2) -> float:
    """C = old .. after gemm of ones, m = n = 1; %yes and %no may be used."""
    a, b = np.ones((1, k), np.float32), np.ones((k, 1), np.float32)
    c = np.full((1, 1), old, np.float32)
    types = f"memref<1x{k}xf32>, memref<{k}x1xf32>, memref<1x1xf32>"
    body = f"""
      %yes = arith.constant true
      %no = arith.constant false
      gemmir.gemm %a, %b, %c {words} : {types}
    """
    signature = f"%a: memref<1x{k}xf32>, %b: memref<{k}x1xf32>, %c: memref<1x1xf32>"
    run(signature, body, a, b, c)
    return float(c[0, 0])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("alpha 1.0 : f64 beta 0.0 : f64", 2),
        ("alpha 1.0 : f64 beta 2.0 : f64", 12),
        ("first %yes alpha 1.0 : f64 beta 2.0 : f64", 12),
        ("first %no alpha 1.0 : f64 beta 2.0 : f64", 7),
        ("first %no alpha 3.0 : f64 beta 0.0 : f64", 11),
        ("first %yes alpha 3.0 : f64 beta 0.0 : f64", 6),
    ],
)
def test_first_decides_what_becomes_of_the_old_c(run: Run, words: str, expected: float) -> None:
    assert _small_gemm(run, words, 5) == expected


def test_without_k_only_beta_acts(run: Run) -> None:
    assert _small_gemm(run, "alpha 1.0 : f64 beta 0.0 : f64", np.nan, k=0) == 0
    assert _small_gemm(run, "alpha 1.0 : f64 beta 0.5 : f64", 4, k=0) == 2


def test_zero_beta_does_not_read_c_and_zero_alpha_reads_the_product(run: Run) -> None:
    assert _small_gemm(run, "alpha 1.0 : f64 beta 0.0 : f64", np.nan) == 2
    a, b = np.full((1, 1), np.nan, np.float32), np.ones((1, 1), np.float32)
    c = np.ones((1, 1), np.float32)
    t = "memref<1x1xf32>"
    body = f"gemmir.gemm %a, %b, %c alpha 0.0 : f64 beta 1.0 : f64 : {t}, {t}, {t}"
    run(f"%a: {t}, %b: {t}, %c: {t}", body, a, b, c)
    assert np.isnan(c[0, 0])


def test_extents_that_do_not_fit_at_run_time(run: Run) -> None:
    cut = "memref<2x?xf32, strided<[3, 1]>>"
    body = f"""
      %i2 = arith.constant 2 : index
      %t = memref.subview %m[0, 0] [2, %i2] [1, 1] : memref<2x3xf32> to {cut}
      gemmir.gemm %t, %b, %c alpha 1.0 : f64 beta 0.0 : f64
        : {cut}, memref<3x2xf32>, memref<2x2xf32>
    """
    arguments = "%m: memref<2x3xf32>, %b: memref<3x2xf32>, %c: memref<2x2xf32>"
    arrays = [np.zeros(s, np.float32) for s in ((2, 3), (3, 2), (2, 2))]
    with pytest.raises(EvaluationError, match=r"GEM0907: .*\[2, 2\] by \[3, 2\] is not \[2, 2\]"):
        run(arguments, body, *arrays)


def test_uninitialised_panels_show(run: Run) -> None:
    buffer = "memref<2x2xf32, #gemmir.panel<0, 2, 4>>"
    t = "memref<2x2xf32>"
    body = f"""
      %p = memref.alloc() : {buffer}
      gemmir.gemm %p, %b, %c alpha 1.0 : f64 beta 0.0 : f64 : {buffer}, {t}, {t}
      memref.dealloc %p : {buffer}
    """
    b, c = np.ones((2, 2), np.float32), np.zeros((2, 2), np.float32)
    run(f"%b: {t}, %c: {t}", body, b, c)
    assert np.all(np.isnan(c))


def _epilogue(run: Run, old: float, operands: str = "%old, %one") -> Array:
    body = f"""
      %one = arith.constant 1.0 : f32
      gemmir.epilogue ins(%x : memref<2x2xf32>) outs(%m : memref<2x2xf32>) {{
      ^bb0(%e: f32, %old: f32):
        %r = arith.addf {operands} : f32
        gemmir.yield %r : f32
      }}
    """
    x, m = np.array([[1, 2], [3, 4]], np.float32), np.full((2, 2), old, np.float32)
    run("%x: memref<2x2xf32>, %m: memref<2x2xf32>", body, x, m)
    return m


def test_epilogue_reads_the_old_output_if_its_body_does(run: Run) -> None:
    np.testing.assert_array_equal(_epilogue(run, 5), np.full((2, 2), 6))
    np.testing.assert_array_equal(_epilogue(run, np.nan, "%e, %one"), [[2, 3], [4, 5]])
    np.testing.assert_array_equal(_epilogue(run, np.nan, "%one, %one"), np.full((2, 2), 2))


def test_epilogue_extents_must_agree(run: Run) -> None:
    cut = "memref<2x?xf32, strided<[2, 1]>>"
    body = f"""
      %i1 = arith.constant 1 : index
      %t = memref.subview %x[0, 0] [2, %i1] [1, 1] : memref<2x2xf32> to {cut}
      gemmir.epilogue ins(%t : {cut}) outs(%x : memref<2x2xf32>) {{
      ^bb0(%e: f32, %old: f32):
        gemmir.yield %e : f32
      }}
    """
    with pytest.raises(EvaluationError, match=r"GEM0907: gemmir\.epilogue"):
        run("%x: memref<2x2xf32>", body, np.zeros((2, 2), np.float32))


@pytest.mark.parametrize("dim", [0, 1])
def test_pack_fills_the_last_panel_with_zeros(run: Run, dim: int) -> None:
    """Of four panels of 3 the first two are touched by 4 rows; 2 of 3 columns are written."""
    x = 1 + np.arange(8, dtype=np.float32).reshape(4, 2)
    shape, room = ("4x2", "12x3") if dim == 0 else ("2x4", "3x12")
    sizes = room.replace("x", ", ")
    panels = f"memref<{room}xf32, #gemmir.panel<{dim}, 3, 9>, #gemmir.space<l2>>"
    body = f"""
      %p = memref.alloc() : {panels}
      gemmir.pack %x into %p : memref<{shape}xf32> into {panels}
      gemmir.prefetch %x : memref<{shape}xf32>
      %all = memref.subview %p[0, 0] [{sizes}] [1, 1] : {panels} to {panels}
      gemmir.epilogue ins(%all : {panels}) outs(%m : memref<{room}xf32>) {{
      ^bb0(%e: f32, %old: f32):
        gemmir.yield %e : f32
      }}
      memref.dealloc %p : {panels}
    """
    expected = np.full((12, 3), np.nan, np.float32)
    expected[:6, :2] = 0
    expected[:4, :2] = x
    m = np.zeros((12, 3) if dim == 0 else (3, 12), np.float32)
    source = x if dim == 0 else np.ascontiguousarray(x.T)
    run(f"%x: memref<{shape}xf32>, %m: memref<{room}xf32>", body, source, m)
    np.testing.assert_array_equal(m if dim == 0 else m.T, expected)


def test_pack_fills_a_panel_past_the_extents(run: Run) -> None:
    """A matrix of 4 rows lies in panels of 6; a kernel may read all of the last panel."""
    panels = "memref<4x1xf32, #gemmir.panel<0, 6, 6>>"
    wide = "memref<6x1xf32, strided<[1, 6]>>"
    body = f"""
      %p = memref.alloc() : {panels}
      gemmir.pack %x into %p : memref<4x1xf32> into {panels}
      %flat = memref.subview %p[0, 0] [4, 1] [1, 1]
        : {panels} to memref<4x1xf32, strided<[1, 6], offset: ?>>
      %all = memref.reinterpret_cast %flat to offset: [0], sizes: [6, 1], strides: [1, 6]
        : memref<4x1xf32, strided<[1, 6], offset: ?>> to {wide}
      gemmir.epilogue ins(%all : {wide}) outs(%m : memref<6x1xf32>) {{
      ^bb0(%e: f32, %old: f32):
        gemmir.yield %e : f32
      }}
      memref.dealloc %p : {panels}
    """
    m = np.full((6, 1), np.nan, np.float32)
    run("%x: memref<4x1xf32>, %m: memref<6x1xf32>", body, np.ones((4, 1), np.float32), m)
    np.testing.assert_array_equal(m[:, 0], [1, 1, 1, 1, 0, 0])


def test_pack_into_too_little_room(run: Run) -> None:
    panels = "memref<?x2xf32, #gemmir.panel<0, 3, 6>>"
    body = f"""
      %i3 = arith.constant 3 : index
      %p = memref.alloc(%i3) : {panels}
      gemmir.pack %x into %p : memref<4x2xf32> into {panels}
    """
    with pytest.raises(EvaluationError, match=r"GEM0904: gemmir\.pack .*4x2 elements at .* of 3x2"):
        run("%x: memref<4x2xf32>", body, np.ones((4, 2), np.float32))


def test_outerproduct_rounds_once_in_f32(compute: Compute) -> None:
    """(1 + e)**2 - (1 + 2e) is e**2 exactly; it would be 0 if the product were rounded."""
    e = 2.0**-12
    tile = np.full((2, 3), -(1 + 2 * e), np.float32)
    ops = f"""
      %col = arith.constant dense<[[{1 + e}], [1.0]]> : vector<2x1xf32>
      %row = arith.constant dense<[[{1 + e}, 1.0, 2.0]]> : vector<1x3xf32>
      %y = gemmir.outerproduct %col, %row, %x0 : vector<2x1xf32>, vector<1x3xf32>, VECTOR
    """
    exact = np.outer([1 + e, 1], [1 + e, 1, 2]) + tile.astype(np.float64)
    found = compute(ops, "f32", [tile])
    np.testing.assert_array_equal(found, exact.astype(np.float32))
    assert found[0, 0] == 2.0**-24


def test_outerproduct_in_f64(compute: Compute) -> None:
    ops = """
      %col = arith.constant dense<[[2.0], [3.0]]> : vector<2x1xf64>
      %row = arith.constant dense<[[5.0, 7.0]]> : vector<1x2xf64>
      %y = gemmir.outerproduct %col, %row, %x0 : vector<2x1xf64>, vector<1x2xf64>, VECTOR
    """
    found = compute(ops, "f64", [np.ones((2, 2))])
    np.testing.assert_array_equal(found, [[11, 15], [16, 22]])


VECTORIZED = """
func.func @gemm(%a: memref<48x56xf32>, %b: memref<56x40xf32>, %c: memref<48x40xf32>) {
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %mr = arith.constant 6 : index
  %nr = arith.constant 8 : index
  %m = arith.constant 48 : index
  %n = arith.constant 40 : index
  %k = arith.constant 56 : index
  %pad = arith.constant 0.0 : f32
  %start = arith.constant dense<0.0> : vector<6x8xf32>
  gemmir.forall %i = %zero to %m step %mr over cores {
    scf.for %j = %zero to %n step %nr {
      %at = memref.subview %a[%i, 0] [6, 56] [1, 1]
        : memref<48x56xf32> to memref<6x56xf32, strided<[56, 1], offset: ?>>
      %sum = scf.for %p = %zero to %k step %one iter_args(%acc = %start) -> (vector<6x8xf32>) {
        %col = vector.transfer_read %at[%zero, %p], %pad {in_bounds = [true, true]}
          : memref<6x56xf32, strided<[56, 1], offset: ?>>, vector<6x1xf32>
        %row = vector.transfer_read %b[%p, %j], %pad {in_bounds = [true, true]}
          : memref<56x40xf32>, vector<1x8xf32>
        %next = gemmir.outerproduct %col, %row, %acc
          : vector<6x1xf32>, vector<1x8xf32>, vector<6x8xf32>
        scf.yield %next : vector<6x8xf32>
      }
      vector.transfer_write %sum, %c[%i, %j] {in_bounds = [true, true]}
        : vector<6x8xf32>, memref<48x40xf32>
    }
  }
  func.return
}
"""


def test_a_vectorized_gemm_is_right_and_quick() -> None:
    gemm = Gemm(m=48, n=40, k=56)
    generator = np.random.default_rng(0)
    a, b, c = (_array(o, np.float32, generator)[0] for o in gemm.operands)
    module = parse_module(VECTORIZED)
    start = perf_counter()
    evaluate(module, [a, b, c])
    seconds = perf_counter() - start
    arrays = {"a": a, "b": b}
    assert np.all(np.abs(c - gemm.reference(arrays)) <= gemm.error_bound(arrays))
    assert seconds < 2, f"about 6,700 vector ops took {seconds:.2f} s"
