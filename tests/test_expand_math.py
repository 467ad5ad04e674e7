"""exp as arithmetic: at most two units in the last place, in the evaluator and in machine code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pytest

import gemmir
from gemmir import Gemm
from gemmir.evaluate import evaluate
from gemmir.ir.context import make_context, parse_module
from gemmir.passes.expand_math import F32, F64, ExpandMath, ExpFormat

Array = npt.NDArray[Any]

FORMATS: Final = {"f32": F32, "f64": F64}
TYPES: Final = {"f32": np.dtype(np.float32), "f64": np.dtype(np.float64)}

COUNT: Final = 1 << 16
"""Arguments of one call."""

EXP: Final = """
func.func @exp(%x: memref<1xCOUNTxTYPE> {gemmir.name = "x", gemmir.access = "read"},
               %y: memref<1xCOUNTxTYPE> {gemmir.name = "y", gemmir.access = "write"}) {
  %zero = arith.constant 0 : index
  %end = arith.constant COUNT : index
  %step = arith.constant WIDTH : index
  %pad = arith.constant 0.0 : TYPE
  scf.for %j = %zero to %end step %step {
    %v = vector.transfer_read %x[%zero, %j], %pad {in_bounds = [true, true]}
      : memref<1xCOUNTxTYPE>, vector<1xWIDTHxTYPE>
    %e = math.exp %v : vector<1xWIDTHxTYPE>
    vector.transfer_write %e, %y[%zero, %j] {in_bounds = [true, true]}
      : vector<1xWIDTHxTYPE>, memref<1xCOUNTxTYPE>
  }
  func.return
}
"""

Exp = Callable[[Array], Array]


def text_for(dtype: str, width: int) -> str:
    """exp of COUNT numbers, `width` at a time."""
    return EXP.replace("COUNT", str(COUNT)).replace("TYPE", dtype).replace("WIDTH", str(width))


def in_the_evaluator(dtype: str) -> Exp:
    """Expanded exp as the evaluator computes it."""
    module = parse_module(text_for(dtype, COUNT))
    ExpandMath().apply(make_context(), module)

    def exp(x: Array) -> Array:
        y = np.full_like(x, np.nan)
        evaluate(module, [x[None], y[None]])
        return y

    return exp


def in_machine_code(dtype: str) -> Exp:
    """Expanded exp as this computer's vector unit computes it."""
    text = text_for(dtype, 32 // TYPES[dtype].itemsize)
    kernel = gemmir.lower_text(text, schedule="expand-math").compile()
    return lambda x: kernel(x[None])[0]


WAYS: Final = {"evaluator": in_the_evaluator, "machine code": in_machine_code}


def sweeps(dtype: str, format_: ExpFormat) -> Iterator[Array]:
    """Arguments from end to end, near zero, around multiples of ln 2 / 2, and of every size."""
    t = TYPES[dtype]
    generator = np.random.default_rng(0)
    yield np.linspace(format_.low, format_.high, COUNT, dtype=t).clip(format_.low, format_.high)
    yield np.linspace(-1, 1, COUNT, dtype=t)
    halves = generator.integers(-200, 200, COUNT) * (np.log(2) / 2)
    yield (halves * (1 + generator.uniform(-1e-6, 1e-6, COUNT))).clip(-60, 60).astype(t)
    sizes = 2.0 ** generator.uniform(-120, 6, COUNT) * generator.choice([-1, 1], COUNT)
    yield sizes.astype(t)


def ulps(found: Array, x: Array) -> Array:
    """The error of `found` as exp(x), in units in the last place of the right answer."""
    wide = np.float64 if x.dtype == np.float32 else np.longdouble
    exact = np.exp(x.astype(wide))
    return np.abs(found.astype(wide) - exact) / np.spacing(exact.astype(x.dtype))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", FORMATS)
def test_the_error_is_at_most_two_units_in_the_last_place(dtype: str, way: str) -> None:
    exp = WAYS[way](dtype)
    for x in sweeps(dtype, FORMATS[dtype]):
        assert ulps(exp(x), x).max() <= 2


@pytest.mark.parametrize("dtype", FORMATS)
def test_both_ways_differ_by_less_than_their_roundings(dtype: str) -> None:
    """In f32 to the bit: there the evaluator, too, rounds a fused multiply-add once."""
    first, second = (way(dtype) for way in WAYS.values())
    for x in sweeps(dtype, FORMATS[dtype]):
        found, other = first(x), second(x)
        near = np.abs(found - other) <= 2 * np.spacing(found)
        assert near.all()
        if dtype == "f32":
            assert np.mean(found == other) > 0.999


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", FORMATS)
def test_beyond_the_ends_it_stays_where_it_is(dtype: str, way: str) -> None:
    t, format_ = TYPES[dtype], FORMATS[dtype]
    limits = np.finfo(t)
    x = np.zeros(COUNT, t)
    x[:4] = format_.low, -1e30, -np.inf, limits.min
    x[4:8] = format_.high, 1e30, np.inf, limits.max
    found = WAYS[way](dtype)(x)
    assert (found[8:] == 1).all()
    assert (found[:4] == found[0]).all() and (found[4:8] == found[4]).all()
    assert limits.tiny <= found[0] < 1.5 * limits.tiny
    assert limits.max / 1.5 < found[4] <= limits.max


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", FORMATS)
def test_nan_is_nan_and_no_other_lane_is(dtype: str, way: str) -> None:
    x = np.zeros(COUNT, TYPES[dtype])
    x[::3] = np.nan
    found = WAYS[way](dtype)(x)
    assert np.array_equal(np.isnan(found), np.isnan(x))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", FORMATS)
def test_it_grows(dtype: str, way: str) -> None:
    """Over steps that are wider than its error."""
    format_ = FORMATS[dtype]
    x = np.linspace(format_.low, format_.high, COUNT, dtype=TYPES[dtype])
    assert (np.diff(WAYS[way](dtype)(x)) > 0).all()


def arguments(dtype: str, columns: int) -> Array:
    """A row of arguments of an epilogue, with both ends of exp and what lies beyond."""
    x = np.linspace(-120, 120, columns, dtype=TYPES[dtype])
    x[:6] = 0.0, -1e4, 1e4, np.nan, -709.9, 709.9
    return x


@pytest.mark.parametrize("step", ["gelu", "silu"])
@pytest.mark.parametrize("dtype", FORMATS)
def test_epilogues_on_every_argument(dtype: str, step: str) -> None:
    """C = f(C), without terms: the epilogue alone, within its own few roundings."""
    gemm = Gemm(m=1, n=4099, k=0, dtype=dtype, beta=1.0, epilogue=step)
    x = arguments(dtype, gemm.n)
    a, b = np.empty((1, 0), x.dtype), np.empty((0, gemm.n), x.dtype)
    c = x[None].copy()
    gemmir.compile(gemm)(a, b, out=c)
    arrays = {"a": a, "b": b, "c": x[None]}
    with np.errstate(over="ignore"):
        expected, bound = gemm.reference(arrays)[0], gemm.error_bound(arrays)[0]
    finite = ~np.isnan(x)
    assert np.array_equal(np.isnan(c[0]), ~finite)
    assert (np.abs(c[0] - expected) <= bound)[finite].all()


@pytest.mark.parametrize("dtype", FORMATS)
def test_silu_to_a_few_units_in_the_last_place(dtype: str) -> None:
    """x / (1 + exp(-x)) has the relative error of exp and of two roundings, 3.5 units at most."""
    gemm = Gemm(m=1, n=8192, k=0, dtype=dtype, beta=1.0, epilogue="silu")
    x = np.linspace(-80, 80, gemm.n, dtype=TYPES[dtype])
    a, b = np.empty((1, 0), x.dtype), np.empty((0, gemm.n), x.dtype)
    c = x[None].copy()
    gemmir.compile(gemm)(a, b, out=c)
    wide = x.astype(np.longdouble)
    exact = wide / (1 + np.exp(-wide))
    assert (np.abs(c[0] - exact) <= 3.5 * np.spacing(np.abs(exact).astype(x.dtype))).all()
