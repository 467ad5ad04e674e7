"""The functions of a BLAS library against float64: every flag, and what they must leave alone."""

from __future__ import annotations

import ctypes
import resource
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given

from gemmir import Gemm
from gemmir.backends.cpu.blas import CONVENTIONS, Convention
from gemmir.gemm import Operand
from tests.blas.conftest import COLUMN, NUMPY, ROW, Call, Library
from tests.strategies import examples, furthest
from tests.test_guard_pages import READ, Guarded, Place, guarded, status_of

Array = npt.NDArray[Any]

AROUND = 77.0
"""What stands in arrays where the call has no business."""


def stored(values: Array, leading: int, order: int) -> Array:
    """A matrix in a flat array as BLAS has it, its rows or columns `leading` elements apart."""
    lines = values if order == ROW else values.T
    flat = np.full(leading * lines.shape[0], AROUND, values.dtype)
    _lines(flat, leading, lines.shape)[...] = lines
    return flat


def matrix(flat: Array, leading: int, order: int, shape: tuple[int, int]) -> Array:
    """The matrix of `shape` in a flat array: a view."""
    found = _lines(flat, leading, shape if order == ROW else shape[::-1])
    return found if order == ROW else found.T


def _lines(flat: Array, leading: int, shape: tuple[int, ...]) -> Array:
    return flat.reshape(shape[0], leading)[:, : shape[1]]


@st.composite
def calls(draw: st.DrawFn, most: int = 70) -> tuple[Call, str, Convention, bool]:
    """A call on random arrays, its element type, names, and whether it is that of Fortran."""
    dtype = draw(st.sampled_from(["f32", "f64"]))
    order = draw(st.sampled_from([ROW, COLUMN]))
    trans_a, trans_b = (draw(st.sampled_from("NTC")) for _ in "ab")
    sizes = st.integers(0, most) | st.sampled_from([0, 1, 16, 32, 33, 64])
    m, n, k = draw(sizes), draw(sizes), draw(sizes)
    alpha, beta = (draw(st.sampled_from([0.0, 1.0, -1.0, 0.7])) for _ in "ab")
    more = [draw(st.integers(0, 3)) for _ in "abc"]
    random = np.random.default_rng(draw(st.integers(0, 2**20)))
    is_fortran = order == COLUMN and draw(st.booleans())

    def array(rows: int, columns: int, extra: int) -> tuple[Array, int]:
        leading = max(columns if order == ROW else rows, 1) + extra
        values = random.uniform(-1, 1, (rows, columns)).astype(NUMPY[dtype])
        return stored(values, leading, order), leading

    a, lda = array(*((m, k) if trans_a == "N" else (k, m)), more[0])
    b, ldb = array(*((k, n) if trans_b == "N" else (n, k)), more[1])
    c, ldc = array(m, n, more[2])
    call = Call(
        order=order,
        trans_a=trans_a,
        trans_b=trans_b,
        m=m,
        n=n,
        k=k,
        alpha=alpha,
        a=a,
        lda=lda,
        b=b,
        ldb=ldb,
        beta=beta,
        c=c,
        ldc=ldc,
    )
    return call, dtype, draw(st.sampled_from(CONVENTIONS)), is_fortran


def operands(call: Call) -> tuple[Array, Array, Array]:
    """op(A), op(B) and C."""
    assert call.a is not None and call.b is not None and call.c is not None
    a_is_plain, b_is_plain = (t in "Nn" for t in (call.trans_a, call.trans_b))
    shape_a = (call.m, call.k) if a_is_plain else (call.k, call.m)
    shape_b = (call.k, call.n) if b_is_plain else (call.n, call.k)
    a = matrix(call.a, call.lda, call.order, shape_a)
    b = matrix(call.b, call.ldb, call.order, shape_b)
    c = matrix(call.c, call.ldc, call.order, (call.m, call.n))
    return a if a_is_plain else a.T, b if b_is_plain else b.T, c


def run(library: Library, call: Call, dtype: str, convention: Convention, fortran: bool) -> Array:
    """The C that a call leaves, in an array of its own; nothing around it may change."""
    assert call.c is not None
    own = replace(call, c=call.c.copy())
    (library.fortran if fortran else library.cblas)(own, dtype, convention)
    assert own.c is not None
    result = operands(own)[2].copy()
    operands(own)[2][...] = operands(call)[2]
    np.testing.assert_array_equal(own.c, call.c, "around C")
    return result


def error(call: Call, dtype: str, result: Array) -> float:
    """The largest error in units of its bound."""
    a, b, c = map(np.ascontiguousarray, operands(call))
    gemm = Gemm(m=call.m, n=call.n, k=call.k, dtype=dtype, alpha=call.alpha, beta=call.beta)
    return furthest(gemm, {"a": a, "b": b, "c": c}, result)


@given(calls())
@examples(3)
def test_any_call_is_within_the_bound(
    library: Library, case: tuple[Call, str, Convention, bool]
) -> None:
    assert error(*case[:2], run(library, *case)) <= 1


@pytest.mark.parametrize("sizes", [(200, 300, 400), (513, 65, 1000), (1, 2000, 700), (9, 5, 4000)])
@pytest.mark.parametrize("transposes", ["NN", "NT", "TN", "TT"])
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_large_ones_are_too(
    library: Library, sizes: tuple[int, int, int], transposes: str, dtype: str
) -> None:
    call = filled(sizes, transposes, dtype, alpha=0.7, beta=-1.0)
    assert error(call, dtype, run(library, call, dtype, CONVENTIONS[0], True)) <= 1


def filled(
    sizes: tuple[int, int, int],
    transposes: str = "NN",
    dtype: str = "f32",
    order: int = COLUMN,
    alpha: float = 1.0,
    beta: float = 0.0,
    seed: int = 0,
) -> Call:
    """A call on random arrays without gaps."""
    m, n, k = sizes
    random = np.random.default_rng(seed)
    shapes = (
        ((m, k) if transposes[0] == "N" else (k, m)),
        ((k, n) if transposes[1] == "N" else (n, k)),
        (m, n),
    )
    a, b, c = (random.uniform(-1, 1, s).astype(NUMPY[dtype]) for s in shapes)
    leading = [max(s[1] if order == ROW else s[0], 1) for s in shapes]
    a, b, c = (stored(x, ld, order) for x, ld in zip((a, b, c), leading, strict=True))
    return Call(
        order=order,
        trans_a=transposes[0],
        trans_b=transposes[1],
        m=m,
        n=n,
        k=k,
        alpha=alpha,
        a=a,
        lda=leading[0],
        b=b,
        ldb=leading[1],
        beta=beta,
        c=c,
        ldc=leading[2],
    )


@pytest.mark.parametrize("letters", ["nn", "nt", "tc", "cN", "Tn"])
def test_letters_may_be_small(library: Library, letters: str) -> None:
    call = filled((7, 5, 6), letters.upper())
    result = run(
        library, replace(call, trans_a=letters[0], trans_b=letters[1]), "f32", CONVENTIONS[0], True
    )
    assert error(call, "f32", result) <= 1


@pytest.mark.parametrize("sizes", [(5, 6, 7), (64, 48, 300), (200, 130, 260)])
@pytest.mark.parametrize("order", [ROW, COLUMN])
def test_c_is_not_read_where_beta_is_0(
    library: Library, sizes: tuple[int, int, int], order: int
) -> None:
    call = filled(sizes, order=order)
    assert call.c is not None
    call.c[:] = np.nan
    result = run(library, call, "f32", CONVENTIONS[0], False)
    call.c[:] = 0
    assert error(call, "f32", result) <= 1


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize(
    ("alpha", "k"), [(0.0, 4), (0.0, 0), (1.0, 0)], ids=["alpha=0", "both", "k=0"]
)
@pytest.mark.parametrize("beta", [0.0, 1.0, -2.0])
def test_a_product_of_nothing_only_scales_c(
    library: Library, dtype: str, alpha: float, k: int, beta: float
) -> None:
    """A and B are not read: there are none."""
    call = replace(filled((5, 3, 4), dtype=dtype), a=None, b=None, alpha=alpha, beta=beta, k=k)
    assert call.c is not None
    if beta == 0:
        call.c[:] = np.nan
    own = replace(call, c=call.c.copy())
    library.fortran(own, dtype)
    expected = np.zeros(15) if beta == 0 else beta * call.c
    np.testing.assert_array_equal(own.c, expected)


@pytest.mark.parametrize("empty", ["m", "n", "both"])
def test_without_rows_or_columns_nothing_is_touched(library: Library, empty: str) -> None:
    m, n = (0 if empty in ("m", "both") else 4), (0 if empty in ("n", "both") else 4)
    call = replace(filled((4, 4, 4)), m=m, n=n, a=None, b=None, c=None)
    library.fortran(call, "f32")
    library.cblas(call, "f32")
    library.cblas(replace(call, order=ROW), "f32")


def test_nan_and_infinity_are_numbers_like_others(library: Library) -> None:
    call = filled((3, 3, 3))
    assert call.a is not None and call.b is not None
    call.a[0], call.b[4] = np.nan, np.inf
    result = run(library, call, "f32", CONVENTIONS[0], False)
    a, b, _ = operands(call)
    np.testing.assert_array_equal(np.isnan(result), np.isnan(a @ b))
    assert not np.isnan(run(library, replace(call, alpha=0.0), "f32", CONVENTIONS[0], True)).any()


def test_alpha_that_is_not_a_number_is_no_0(library: Library) -> None:
    call = replace(filled((3, 3, 3)), alpha=float("nan"))
    assert np.isnan(run(library, call, "f32", CONVENTIONS[0], False)).all()


@pytest.mark.parametrize("sizes", [(33, 17, 9), (130, 70, 300), (300, 500, 257)])
def test_calls_from_several_threads_at_once(library: Library, sizes: tuple[int, int, int]) -> None:
    """Each has the bits that it has alone."""
    calls = [filled(sizes, t, seed=seed) for seed, t in enumerate(["NN", "NT", "TN", "TT"] * 4)]

    def called(call: Call) -> bytes:
        return run(library, call, "f32", CONVENTIONS[0], False).tobytes()

    alone = [called(call) for call in calls]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(called, calls * 4)) == alone * 4


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("transposes", ["NN", "NT", "TN", "TT"])
def test_without_memory_nothing_is_packed(
    library: Library, transposes: str, dtype: str, tmp_path: Path
) -> None:
    """Another product is called, in a process that may not have more memory than it has."""
    call = filled((601, 70, 1100), transposes, dtype, alpha=0.5, beta=2.0)
    assert call.c is not None
    fresh = replace(call, c=call.c.copy())
    path = Path(shutil.copy(library.path, tmp_path))  # a library that keeps no buffers yet

    def starved() -> None:
        own = Library(path=path, loaded=ctypes.CDLL(str(path)))
        own.fortran(filled((2, 2, 2), dtype=dtype), dtype)
        before = resource.getrlimit(resource.RLIMIT_AS)
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held, before[1]))
        taken = list(left_on_the_heap())
        own.fortran(fresh, dtype)
        resource.setrlimit(resource.RLIMIT_AS, before)
        assert taken[-1] is None
        assert error(call, dtype, operands(fresh)[2]) <= 1

    assert status_of(starved) == 0


def left_on_the_heap() -> Iterator[int | None]:
    """Take all blocks of 64 KiB and more that the C library has left; the last one is None."""
    malloc = ctypes.CDLL(None).malloc
    malloc.restype = ctypes.c_void_p
    for size in (1 << power for power in range(26, 15, -1)):
        while (block := malloc(ctypes.c_size_t(size))) is not None:
            yield block
    yield None


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("transposes", ["NN", "NT", "TN", "TT"])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (7, 13, 5), (31, 33, 65), (131, 67, 301)])
def test_nothing_outside_the_arrays_is_touched(
    library: Library, sizes: tuple[int, int, int], transposes: str, dtype: str
) -> None:
    """Each array lies against a page that cannot be touched, A and B on pages not to be written."""
    call = filled(sizes, transposes, dtype, alpha=0.5, beta=2.0)

    def at_both() -> None:
        places: tuple[Place, ...] = ("start", "end")
        for place in places:
            found = {name: _guarded(getattr(call, name), dtype, place) for name in "abc"}
            found["a"].protect(READ)
            found["b"].protect(READ)
            moved = replace(call, **{name: g.array for name, g in found.items()})
            library.fortran(moved, dtype)
            assert error(call, dtype, operands(moved)[2]) <= 1

    assert status_of(at_both) == 0


def _guarded(values: Array, dtype: str, place: Place) -> Guarded:
    operand = Operand(name="x", shape=values.shape, strides=(1,), dtype=dtype, access="readwrite")
    made = guarded(operand, place)
    made.array[...] = values
    return made
