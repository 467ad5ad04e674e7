"""arrays: laid out as the signature says, with guards around them."""

from pathlib import Path

import numpy as np
import pytest

from gemmir.arrays import ALIGNMENT, INTEGER_BITS, load_array, make_operands
from gemmir.dtypes import ELEMENTS
from gemmir.errors import CallError, ParseError
from gemmir.gemm import Gemm
from gemmir.ir.build import build
from gemmir.signature import Signature, signature_of


def signature(gemm: Gemm) -> Signature:
    return signature_of(build(gemm))


def test_arrays_lie_as_the_signature_says() -> None:
    made = signature(Gemm(m=3, n=4, k=5, lda=9, beta=1.0, epilogue="bias"))
    operands = make_operands(made, seed=3)
    assert list(operands.by_name) == ["a", "b", "bias", "c"]
    for argument, array in zip(made.arguments, operands.arrays, strict=True):
        assert array.shape == argument.shape
        assert array.strides == tuple(4 * s for s in argument.strides)
        assert array.ctypes.data % ALIGNMENT == 0
        assert (np.abs(array) <= 1).all()
    again = make_operands(made, seed=3)
    for one, other in zip(operands.arrays, again.arrays, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (make_operands(made, seed=4).arrays[0] != operands.arrays[0]).any()


def test_gaps_and_a_written_output_begin_as_nan() -> None:
    operands = make_operands(signature(Gemm(m=3, n=4, k=5, lda=9)))
    assert np.isnan(operands.output).all()
    a = operands.by_name["a"]
    assert np.isnan(a.flat[5:9]).all()
    assert not np.isnan(a.array).any()


def test_damage_is_found_by_name() -> None:
    before = make_operands(signature(Gemm(m=3, n=4, k=5, ldc=6)))
    after = before.copy()
    after.output[...] = 1
    assert after.damage(before) == ""
    after.by_name["c"].flat[5] = 1
    assert after.damage(before) == "memory outside the output was written, at c"
    after.by_name["b"].array[0, 0] = 3
    assert after.damage(before) == "memory outside the output was written, at b, c"
    behind = before.copy()
    behind.by_name["a"].memory[-1] = 0
    assert behind.damage(before).endswith("at a")


def test_given_arrays_are_copied_into_place() -> None:
    a = np.arange(15, dtype=np.float32).reshape(3, 5)
    operands = make_operands(signature(Gemm(m=3, n=4, k=5, lda=9)), given={"a": a})
    np.testing.assert_array_equal(operands.arrays[0], a)
    assert not np.shares_memory(operands.arrays[0], a)


@pytest.mark.parametrize(
    ("name", "array", "code"),
    [
        ("x", np.zeros((3, 5), np.float32), "GEM0502: there is no operand 'x'; there are a, b, c"),
        ("a", np.zeros((3, 5)), "GEM0504: a has dtype float64 where float32"),
        ("a", np.zeros((5, 3), np.float32), r"GEM0506: a has shape \(5, 3\) where \(3, 5\)"),
    ],
)
def test_given_arrays_must_fit(name: str, array: object, code: str) -> None:
    with pytest.raises(CallError, match=code):
        make_operands(signature(Gemm(m=3, n=4, k=5)), given={name: np.asarray(array)})


def test_too_large_a_problem_is_an_error() -> None:
    with pytest.raises(CallError, match="GEM0514: there is no memory for a"):
        make_operands(signature(Gemm(m=2**20, n=1, k=2**20, dtype="f64")))


@pytest.mark.parametrize("name", ["bf16", "e4m3", "e5m2"])
def test_types_that_numpy_lacks_are_read_as_bits(name: str, tmp_path: Path) -> None:
    made = signature(Gemm(m=2, n=2, k=2, dtype=name))
    a = np.array([[1, 2], [3, 4]]).astype(ELEMENTS[name].numpy)
    np.save(tmp_path / "a.npy", a.view(f"V{a.itemsize}"))
    for given in (load_array(tmp_path / "a.npy"), a.view(f"u{a.itemsize}"), a):
        found = make_operands(made, given={"a": given}).by_name["a"].array
        np.testing.assert_array_equal(found, a)
    with pytest.raises(CallError, match=r"GEM0504: .*float32") as raised:
        make_operands(made, given={"a": a.astype(np.float32)})
    assert raised.value.hint == f"pass array.astype(ml_dtypes.{a.dtype})"


def test_integers_are_any_and_gaps_the_furthest_from_zero() -> None:
    operands = make_operands(signature(Gemm(m=30, n=30, k=30, lda=33, dtype="i8", beta=1)))
    a, c = operands.by_name["a"], operands.by_name["c"]
    assert (a.array.min(), a.array.max()) == (-128, 127)
    assert (a.flat[30:33] == -128).all()
    assert (np.abs(c.array) <= 2**INTEGER_BITS).all()
    before = operands.copy()
    a.flat[31] = 0
    assert operands.damage(before)


def test_npy_files_are_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones(3))
    np.testing.assert_array_equal(load_array(tmp_path / "a.npy"), np.ones(3))
    (tmp_path / "b.npy").write_text("nothing of the kind")
    for name in ("b.npy", "c.npy"):
        with pytest.raises(ParseError, match=f"GEM0208: .*{name} cannot be read"):
            load_array(tmp_path / name)
