"""Calling a kernel: what it accepts, what it refuses, and that a refusal writes nothing.

The functions here are Python callables that work through addresses, as machine code does.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gemmir.backend import Loaded
from gemmir.errors import CallError
from gemmir.kernel import AllocationError, Array, Kernel
from gemmir.signature import Access, Argument, Signature

SHAPE = (3, 4)


def argument(
    name: str,
    access: Access = "read",
    shape: tuple[int, ...] = SHAPE,
    strides: tuple[int, ...] = (4, 1),
    dtype: str = "f32",
) -> Argument:
    return Argument(name=name, dtype=dtype, shape=shape, strides=strides, access=access)


def at(address: int, slot: Argument) -> Array:
    """The array of `slot` at an address."""
    dtype = {"f32": np.float32, "f64": np.float64}[slot.dtype]
    memory = memoryview((ctypes.c_char * max(slot.span_bytes, 1)).from_address(address))
    strides = [s * slot.item_bytes for s in slot.strides]
    return np.ndarray(slot.shape, dtype, memory.cast("B"), strides=strides)


class AddUp:
    """c = sum of the inputs (+ c); counts its calls."""

    def __init__(self, signature: Signature, status: int = 0) -> None:
        self.signature = signature
        self.status = status
        self.calls = 0

    def __call__(self, *addresses: int) -> int:
        self.calls += 1
        if self.status:
            return self.status
        *inputs, out = map(at, addresses, self.signature.arguments)
        old = out.copy() if self.signature.arguments[-1].access == "readwrite" else 0
        out[...] = sum(inputs, start=np.zeros_like(out)) + old
        return 0


def kernel_of(*arguments: Argument, status: int = 0) -> tuple[Kernel, AddUp]:
    signature = Signature(symbol="gemm", arguments=arguments)
    function = AddUp(signature, status)
    return Kernel(function, signature), function


@pytest.fixture
def kernel() -> Kernel:
    return kernel_of(argument("a"), argument("b"), argument("c", "write"))[0]


@pytest.fixture
def a() -> Array:
    return np.arange(12, dtype=np.float32).reshape(SHAPE)


@pytest.fixture
def b() -> Array:
    return np.full(SHAPE, 100, np.float32)


def test_it_makes_the_output(kernel: Kernel, a: Array, b: Array):
    c = kernel(a, b)
    np.testing.assert_array_equal(c, a + b)
    assert c.flags.c_contiguous and c.flags.owndata


def test_out_is_written_and_returned(kernel: Kernel, a: Array, b: Array):
    c = np.empty(SHAPE, np.float32)
    assert kernel(a, b, out=c) is c
    np.testing.assert_array_equal(c, a + b)


def test_operands_may_be_named(a: Array, b: Array):
    arguments = (argument("a"), argument("b", shape=(4,), strides=(1,)), argument("c", "write"))
    kernel, _ = kernel_of(*arguments)
    row = np.arange(4, dtype=np.float32)
    for call in (
        lambda: kernel(a, row),
        lambda: kernel(a, b=row),
        lambda: kernel(b=row, a=a),
    ):
        np.testing.assert_array_equal(call(), a + row)


def test_a_padded_output_is_made_with_its_strides(a: Array):
    kernel, _ = kernel_of(argument("a"), argument("c", "write", strides=(7, 1)))
    c = kernel(a)
    assert c.strides == (28, 4)
    np.testing.assert_array_equal(c, a)


def test_f64_batches(a: Array):
    shape, strides = (2, 3, 4), (12, 4, 1)
    kernel, _ = kernel_of(
        argument("a", shape=shape, strides=strides, dtype="f64"),
        argument("c", "write", shape=shape, strides=strides, dtype="f64"),
    )
    wide = np.stack([a, -a]).astype(np.float64)
    np.testing.assert_array_equal(kernel(wide), wide)


Make = Callable[[Array], object]


BAD_INPUTS: list[tuple[str, str, Make]] = [
    ("GEM0503", "a is a list, not an array; pass .*np.asarray", lambda a: a.tolist()),
    ("GEM0503", "a is a NoneType", lambda a: None),
    ("GEM0503", "masked", lambda a: np.ma.masked_array(a)),
    ("GEM0504", "float64 where float32.*astype.np.float32", lambda a: a.astype(np.float64)),
    ("GEM0504", "int32", lambda a: a.astype(np.int32)),
    ("GEM0505", "other byte order", lambda a: a.astype(a.dtype.newbyteorder())),
    ("GEM0506", r"\(3, 5\) where \(3, 4\)", lambda a: np.zeros((3, 5), np.float32)),
    ("GEM0506", "transposed", lambda a: np.zeros((4, 3), np.float32)),
    ("GEM0506", r"reshape\(3, 4\)", lambda a: np.zeros(12, np.float32)),
    ("GEM0506", r"\(1, 3, 4\)", lambda a: a[None]),
    ("GEM0507", "ascontiguousarray", lambda a: np.asfortranarray(a)),
    (
        "GEM0507",
        r"\(32, 4\) where \(16, 4\).*\(4, 1\) elements",
        lambda a: np.tile(a, 2)[:, :4],
    ),
    ("GEM0507", r"\(0, 4\)", lambda a: np.broadcast_to(a[:1], SHAPE)),
    ("GEM0508", "negative strides", lambda a: a[::-1]),
    ("GEM0508", "negative strides", lambda a: a[:, ::-1]),
    ("GEM0509", "not a multiple of the 4 bytes", lambda a: unaligned(SHAPE, np.float32)),
]


@pytest.mark.parametrize(("code", "words", "make"), BAD_INPUTS)
def test_an_input_that_does_not_fit_is_refused(
    a: Array, b: Array, code: str, words: str, make: Make
):
    kernel, function = kernel_of(argument("a"), argument("b"), argument("c", "write"))
    out = np.full(SHAPE, 7, np.float32)
    for call in (
        lambda: kernel(make(a), b, out=out),
        lambda: kernel(make(a), b),
        lambda: kernel(b=b, a=make(a), out=out),
        lambda: kernel.bind(make(a), b, out=out),
    ):
        with pytest.raises(CallError, match=f"{code}: .*{words}") as raised:
            call()
        assert raised.value.code == code and isinstance(raised.value, ValueError)
    assert function.calls == 0 and (out == 7).all()


def unaligned(shape: tuple[int, ...], dtype: type[np.floating[Any]]) -> Array:
    """A contiguous array that starts one byte after a multiple of its element."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.zeros(size + 64, np.uint8)[1 : size + 1].view(dtype).reshape(shape)


@pytest.mark.parametrize(
    ("code", "make"),
    [
        ("GEM0503", lambda: [[0.0] * 4] * 3),
        ("GEM0504", lambda: np.zeros(SHAPE)),
        ("GEM0505", lambda: np.zeros(SHAPE, np.dtype(np.float32).newbyteorder())),
        ("GEM0506", lambda: np.zeros((4, 3), np.float32)),
        ("GEM0507", lambda: np.zeros((3, 8), np.float32)[:, ::2]),
        ("GEM0508", lambda: np.zeros(SHAPE, np.float32)[::-1]),
        ("GEM0509", lambda: unaligned(SHAPE, np.float32)),
        ("GEM0510", lambda: read_only(np.zeros(SHAPE, np.float32))),
    ],
)
def test_an_output_that_does_not_fit_is_refused(
    a: Array, b: Array, code: str, make: Callable[[], object]
):
    kernel, function = kernel_of(argument("a"), argument("b"), argument("c", "write"))
    for call in (kernel, kernel.bind):
        with pytest.raises(CallError, match=f"{code}: c "):
            call(a, b, out=make())
    assert function.calls == 0


def read_only(array: Array) -> Array:
    array.flags.writeable = False
    return array


def test_inputs_may_be_read_only(kernel: Kernel, a: Array, b: Array):
    np.testing.assert_array_equal(kernel(read_only(a), read_only(b)), a + b)


def test_inputs_may_be_one_array(kernel: Kernel, a: Array):
    np.testing.assert_array_equal(kernel(a, a), 2 * a)


def test_subclasses_of_ndarray_are_taken_as_arrays(
    kernel: Kernel, a: Array, b: Array, tmp_path: Any
):
    mapped = np.memmap(tmp_path / "a", np.float32, "w+", shape=SHAPE)
    mapped[...] = a
    np.testing.assert_array_equal(kernel(mapped, b), a + b)
    assert kernel(a, b, out=mapped) is mapped
    np.testing.assert_array_equal(mapped, a + b)


@pytest.mark.parametrize(
    ("operands", "named", "code", "words"),
    [
        ("", "", "GEM0501", "0 operands are given where 2 are needed: a, b"),
        ("a", "", "GEM0501", "1 operands"),
        ("aab", "", "GEM0501", "3 operands.*pass c as out="),
        ("aabb", "", "GEM0501", "4 operands"),
        ("ab", "a", "GEM0502", "operand a is given twice"),
        ("ab", "c", "GEM0502", "no operand 'c' to read; pass c as out="),
        ("a", "x", "GEM0502", "no operand 'x'.*a, b"),
    ],
)
def test_the_operands_are_counted(
    kernel: Kernel, a: Array, operands: str, named: str, code: str, words: str
):
    for call in (kernel, kernel.bind):
        with pytest.raises(CallError, match=f"{code}: .*{words}"):
            call(*[a for _ in operands], **{name: a for name in named})


def test_a_dimension_of_one_may_have_any_stride():
    kernel, _ = kernel_of(
        argument("a", shape=(1, 4), strides=(4, 1)),
        argument("c", "write", shape=(1, 4), strides=(99, 1)),
    )
    row = np.arange(24, dtype=np.float32).reshape(6, 4)
    np.testing.assert_array_equal(kernel(row[::-3][:1]), row[5:])
    assert kernel(row[2:3]).flags.c_contiguous


def test_an_empty_array_may_lie_anywhere():
    kernel, function = kernel_of(
        argument("a", shape=(3, 0), strides=(1, 1)),
        argument("c", "write", strides=(4, 1)),
    )
    empty = unaligned((3, 4), np.float32)[::-1, :0]
    np.testing.assert_array_equal(kernel_sum_of_nothing(kernel, empty), np.zeros(SHAPE))
    assert function.calls == 0


def kernel_sum_of_nothing(kernel: Kernel, empty: Array) -> Array:
    """Call `kernel` with a function that stands for a reduction over nothing."""

    def zero(_: int, out: int) -> int:
        ctypes.memset(out, 0, 48)
        return 0

    return Kernel(zero, kernel.signature)(empty)


def test_an_empty_output_is_made():
    kernel, function = kernel_of(
        argument("a", shape=(0, 4)), argument("c", "write", shape=(0, 4), strides=(9, 1))
    )
    assert kernel(np.zeros((0, 4), np.float32)).shape == (0, 4)
    assert function.calls == 1


def test_a_readwrite_output_must_be_given(a: Array):
    kernel, function = kernel_of(argument("a"), argument("c", "readwrite"))
    for call in (kernel, kernel.bind):
        with pytest.raises(CallError, match=r"GEM0512: c is read before.*pass out=c"):
            call(a)
    assert function.calls == 0
    c = np.ones(SHAPE, np.float32)
    np.testing.assert_array_equal(kernel(a, out=c), a + 1)


def test_no_memory_is_both_errors(a: Array):
    kernel, _ = kernel_of(argument("a"), argument("c", "write"), status=1)
    out = np.full(SHAPE, 7, np.float32)
    for call in (lambda: kernel(a, out=out), kernel.bind(a, out=out)):
        with pytest.raises(AllocationError, match="GEM0513") as raised:
            call()
        assert isinstance(raised.value, CallError) and isinstance(raised.value, MemoryError)
    assert (out == 7).all()


OVERLAPS: list[Callable[[Array], tuple[Array, Array]]] = [
    lambda pool: (pool[:12].reshape(SHAPE), pool[:12].reshape(SHAPE)),
    lambda pool: (pool[:12].reshape(SHAPE), pool[11:23].reshape(SHAPE)),
    lambda pool: (pool[11:23].reshape(SHAPE), pool[:12].reshape(SHAPE)),
    lambda pool: (pool[4:16].reshape(SHAPE), pool[3:15].reshape(SHAPE)),
]

APART: list[Callable[[Array], tuple[Array, Array]]] = [
    lambda pool: (pool[:12].reshape(SHAPE), pool[12:24].reshape(SHAPE)),
    lambda pool: (pool[12:24].reshape(SHAPE), pool[:12].reshape(SHAPE)),
]


@pytest.mark.parametrize("pair", OVERLAPS)
@pytest.mark.parametrize("place", [0, 1])
def test_an_output_over_an_input_is_refused(
    b: Array, pair: Callable[[Array], tuple[Array, Array]], place: int
):
    kernel, function = kernel_of(argument("a"), argument("b"), argument("c", "write"))
    pool = np.zeros(64, np.float32)
    given, out = pair(pool)
    operands = (given, b) if place == 0 else (b, given)
    for call in (kernel, kernel.bind):
        with pytest.raises(CallError, match=f"GEM0511: out .* overlaps {'ab'[place]} "):
            call(*operands, out=out)
    assert function.calls == 0


@pytest.mark.parametrize("pair", APART)
def test_an_output_beside_an_input_is_fine(
    kernel: Kernel, b: Array, pair: Callable[[Array], tuple[Array, Array]]
):
    pool = np.arange(24, dtype=np.float32)
    given, out = pair(pool)
    expected = given + b
    np.testing.assert_array_equal(kernel(given, b, out=out), expected)


def test_interleaved_columns_do_not_overlap():
    """Two halves of the columns of one matrix: their bounds overlap and their elements do not."""
    kernel, _ = kernel_of(argument("a", strides=(8, 1)), argument("c", "write", strides=(8, 1)))
    pool = np.arange(24, dtype=np.float32).reshape(3, 8)
    left, right = pool[:, :4], pool[:, 4:]
    expected = left.copy()
    np.testing.assert_array_equal(kernel(left, out=right), expected)
    np.testing.assert_array_equal(kernel.bind(right, out=left)(), expected)
    with pytest.raises(CallError, match="GEM0511"):
        kernel(pool[:, :4], out=pool[:, 3:7])


def test_what_numpy_cannot_decide_counts_as_overlap(monkeypatch: pytest.MonkeyPatch):
    def too_hard(*_: object, **__: object) -> bool:
        raise np.exceptions.TooHardError

    monkeypatch.setattr("gemmir.kernel._shares_memory", too_hard)
    kernel, _ = kernel_of(argument("a", strides=(8, 1)), argument("c", "write", strides=(8, 1)))
    pool = np.zeros((3, 8), np.float32)
    with pytest.raises(CallError, match="GEM0511"):
        kernel(pool[:, :4], out=pool[:, 4:])


class Foreign:
    """An array of another library."""

    def __init__(self, array: Array) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


class OnGpu(Foreign):
    """An array in the memory of a GPU."""

    def __dlpack__(self, **options: Any) -> Any:
        raise BufferError("the data is on cuda:0")

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)


def test_arrays_of_other_libraries_are_shared(kernel: Kernel, a: Array, b: Array):
    np.testing.assert_array_equal(kernel(Foreign(a), Foreign(read_only(b))), a + b)
    c = np.zeros(SHAPE, np.float32)
    out = Foreign(c)
    assert kernel(Foreign(a), b, out=out) is out
    np.testing.assert_array_equal(c, a + b)
    call = kernel.bind(Foreign(a), b, out=out)
    c.fill(0)
    assert call() is out
    np.testing.assert_array_equal(c, a + b)


def test_arrays_of_other_libraries_are_checked_too(kernel: Kernel, a: Array, b: Array):
    with pytest.raises(CallError, match="GEM0504"):
        kernel(Foreign(a.astype(np.float64)), b)
    with pytest.raises(CallError, match="GEM0511"):
        kernel(a, b, out=Foreign(a))
    with pytest.raises(CallError, match="GEM0510"):
        kernel(a, b, out=Foreign(read_only(np.zeros(SHAPE, np.float32))))
    with pytest.raises(CallError, match="GEM0503: a is a OnGpu that cannot be shared"):
        kernel(OnGpu(a), b)


def test_a_bound_call_follows_the_arrays(kernel: Kernel, a: Array, b: Array):
    c = np.zeros(SHAPE, np.float32)
    call = kernel.bind(a, b, out=c)
    assert call() is c
    a += 1
    np.testing.assert_array_equal(call(), a + b)


def test_a_bound_call_makes_one_output_and_keeps_all_alive():
    kernel, _ = kernel_of(argument("a"), argument("b"), argument("c", "write"))
    call = kernel.bind(np.full(SHAPE, 2, np.float32), b=np.full(SHAPE, 3, np.float32))
    del kernel
    others = [np.full(SHAPE, 9, np.float32) for _ in range(32)]
    c = call()
    assert (c == 5).all() and call() is c
    assert len(others) == 32


def test_a_kernel_keeps_its_code_alive(a: Array):
    class Owner:
        """Stands for the memory of the code."""

    signature = Signature(symbol="gemm", arguments=(argument("a"), argument("c", "write")))
    owner = Owner()
    alive = weakref.ref(owner)
    call = Kernel(Loaded(entry=AddUp(signature), owner=owner), signature).bind(a)
    del owner
    assert alive() is not None
    np.testing.assert_array_equal(call(), a)
    del call
    assert alive() is None


def test_threads_may_call_one_kernel(kernel: Kernel):
    failures: list[int] = []

    def work(number: int) -> None:
        mine = np.full(SHAPE, number, np.float32)
        for _ in range(200):
            if not (kernel(mine, mine) == 2 * number).all():
                failures.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_the_short_and_the_long_road_agree(
    kernel: Kernel, a: Array, b: Array, monkeypatch: pytest.MonkeyPatch
):
    short = kernel(a, b)

    def never(self: Kernel, values: object) -> None:
        return None

    monkeypatch.setattr(Kernel, "_quick", never)
    np.testing.assert_array_equal(kernel(a, b), short)


def test_arrays_that_fit_take_the_short_road(
    kernel: Kernel, a: Array, b: Array, monkeypatch: pytest.MonkeyPatch
):
    def never(*_: object) -> None:
        raise AssertionError("took the long road")

    monkeypatch.setattr(Kernel, "_check", never)
    np.testing.assert_array_equal(kernel(a, b, out=np.empty(SHAPE, np.float32)), a + b)


def test_it_says_what_it_is(kernel: Kernel, a: Array):
    assert repr(kernel) == "<Kernel gemm(a: f32[3, 4], b: f32[3, 4], c: f32[3, 4])>"
    assert repr(kernel.bind(a, a)) == f"<{kernel!r} bound to 3 arrays>"
