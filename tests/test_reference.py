"""reference: the IR computed in wider arithmetic agrees with Gemm, and its bounds hold."""

import numpy as np
import pytest

from gemmir.arrays import make_operands
from gemmir.errors import ParseError
from gemmir.gemm import Gemm
from gemmir.ir.build import build
from gemmir.ir.context import parse_module
from gemmir.reference import Element, reference_of, reference_of_gemm, says_all
from gemmir.signature import signature_of

PROBLEMS = (
    Gemm(m=5, n=6, k=7),
    Gemm(m=5, n=6, k=7, dtype="f64", alpha=0.3, beta=-1.5, epilogue="bias+gelu"),
    Gemm(m=4, n=3, k=9, trans_a=True, trans_b=True, ldc=8, epilogue="residual+silu"),
    Gemm(m=3, n=4, k=2, batch=2, batch_stride_b=0, epilogue="relu"),
)


@pytest.mark.parametrize("gemm", PROBLEMS, ids=lambda g: g.epilogue or "plain")
def test_ir_in_wide_arithmetic_agrees_with_the_problem(gemm: Gemm) -> None:
    source = str(build(gemm)) + "\n"
    operands = make_operands(signature_of(parse_module(source)))
    by_gemm = reference_of(source, gemm, operands)
    by_ir = reference_of(source, None, operands)
    assert by_gemm.origin.startswith("Gemm.reference in ")
    assert by_ir.origin.startswith("the gemm-level IR in ")
    assert by_ir.expected.shape == by_gemm.expected.shape
    # Constants of an epilogue are rounded in the IR.
    np.testing.assert_allclose(
        by_ir.expected, by_gemm.expected, rtol=1e-5 if gemm.dtype == "f32" else 1e-13, atol=1e-7
    )
    assert (by_ir.bound < 50 * by_gemm.bound + 1e-30).all()
    assert (by_ir.bound > by_gemm.bound / 50).all()
    assert says_all(gemm, source)
    assert not says_all(Gemm(m=gemm.m, n=gemm.n, k=gemm.k + 1), source)


def test_bound_without_an_epilogue_is_that_of_the_problem() -> None:
    gemm = Gemm(m=3, n=4, k=1, alpha=0.1, beta=100.0)
    source = str(build(gemm)) + "\n"
    operands = make_operands(signature_of(parse_module(source)))
    by_gemm, by_ir = (reference_of(source, known, operands) for known in (gemm, None))
    np.testing.assert_allclose(by_ir.bound, by_gemm.bound, rtol=1e-12)


def test_transposed_output_is_compared_through_its_view() -> None:
    source = str(build(Gemm(m=3, n=4, k=5))).replace(
        "gemmir.gemm %a, %b, %c alpha 1.000000e+00 : f64 beta 0.000000e+00 : f64 : "
        "memref<3x5xf32>, memref<5x4xf32>, memref<3x4xf32>",
        "%ct = memref.reinterpret_cast %c to offset: [0], sizes: [4, 3], strides: [1, 4] : "
        "memref<3x4xf32> to memref<4x3xf32, strided<[1, 4]>>\n"
        "%at = memref.reinterpret_cast %a to offset: [0], sizes: [5, 3], strides: [1, 5] : "
        "memref<3x5xf32> to memref<5x3xf32, strided<[1, 5]>>\n"
        "%bt = memref.reinterpret_cast %b to offset: [0], sizes: [4, 5], strides: [1, 4] : "
        "memref<5x4xf32> to memref<4x5xf32, strided<[1, 4]>>\n"
        "gemmir.gemm %bt, %at, %ct alpha 1.0 : f64 beta 0.0 : f64 : "
        "memref<4x5xf32, strided<[1, 4]>>, memref<5x3xf32, strided<[1, 5]>>, "
        "memref<4x3xf32, strided<[1, 4]>>",
    )
    operands = make_operands(signature_of(parse_module(source)))
    a, b, c = operands.arrays
    c[...] = a @ b
    reference = reference_of(source, None, operands)
    assert reference.expected.shape == (4, 3)
    compared = reference.compare(c)
    assert compared.first_wrong is None
    c[2, 1] += 1
    compared = reference.compare(c)
    assert compared.first_wrong is not None
    assert compared.first_wrong.index == (1, 2)


def test_first_and_largest_errors_are_found() -> None:
    gemm = Gemm(m=3, n=4, k=5)
    operands = make_operands(signature_of(build(gemm)))
    reference = reference_of_gemm(gemm, operands)
    result = reference.expected.astype(np.float32)
    assert reference.compare(result).first_wrong is None
    result[0, 3] += 1
    result[2, 1] += 5
    compared = reference.compare(result)
    assert compared.first_wrong is not None
    assert compared.largest is not None
    assert (compared.first_wrong.index, compared.largest.index) == ((0, 3), (2, 1))
    assert compared.largest.error == pytest.approx(5, rel=1e-5)
    assert compared.first_wrong.ratio > 1
    result[1, 1] = np.nan
    largest = reference.compare(result).largest
    assert largest is not None
    assert largest.index == (1, 1)


def test_overflow_of_the_element_type_is_no_fault() -> None:
    gemm = Gemm(m=1, n=1, k=1, alpha=3e38)
    operands = make_operands(signature_of(build(gemm)), given={"a": np.full((1, 1), 9, "f4")})
    operands.arrays[1][...] = 9
    reference = reference_of_gemm(gemm, operands)
    assert reference.compare(np.full((1, 1), np.inf, "f4")).first_wrong is None
    assert reference.compare(np.full((1, 1), 1.0, "f4")).first_wrong is not None


def test_nothing_to_compare() -> None:
    gemm = Gemm(m=0, n=4, k=5)
    operands = make_operands(signature_of(build(gemm)))
    compared = reference_of_gemm(gemm, operands).compare(operands.output)
    assert (compared.largest, compared.first_wrong) == (None, None)


def test_element_reads_as_a_sentence() -> None:
    element = Element(index=(1, 2), got=1.5, expected=1.0, error=0.5, bound=0.25)
    assert str(element) == "element [1, 2] is 1.5, expected 1: off by 0.5, and the bound is 0.25"
    assert element.ratio == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("arith.maximumf", "arith.maxnumf"), "has arith.maxnumf in its epilogue"),
        (("func.return", "%x = arith.constant 1 : index\nfunc.return"), "has arith.constant"),
    ],
)
def test_unknown_ir_is_refused(change: tuple[str, str], reason: str) -> None:
    source = str(build(Gemm(m=2, n=2, k=2, epilogue="relu"))).replace(*change)
    operands = make_operands(signature_of(parse_module(source)))
    with pytest.raises(ParseError, match=f"GEM0209.*{reason}"):
        reference_of(source, None, operands)
