"""Native calls: they do as `Kernel` does, arrays of every kind, and keep no count of references."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gemmir
from gemmir import thunk
from gemmir.backend import Artifact, Loaded
from gemmir.backends.cpu.assemble import assemble
from gemmir.backends.cpu.load import load
from gemmir.compiler import Gemm, compile
from gemmir.errors import CallError
from gemmir.kernel import AllocationError, Array, BoundCall, Kernel
from gemmir.machine.host import host_cpu
from gemmir.signature import Argument, Signature
from gemmir.thunk import NativeBoundCall, NativeKernel, Plans, lie_of, place_of, with_thunk

M, N, K = 3, 5, 2

GEMMS: Final = {
    "plain": Gemm(m=M, n=N, k=K),
    "read": Gemm(m=M, n=N, k=K, beta=1.0),
    "batch": Gemm(m=M, n=N, k=K, batch=2, epilogue="bias"),
    "padded": Gemm(m=M, n=N, k=K, lda=4, ldb=7, ldc=9),
    "doubles": Gemm(m=M, n=N, k=K, dtype="f64"),
    "row": Gemm(m=1, n=N, k=K),
    "empty": Gemm(m=M, n=0, k=K),
}


@pytest.fixture(params=GEMMS)
def pair(request: pytest.FixtureRequest) -> tuple[NativeKernel, Kernel]:
    return kernels(request.param)


def kernels(name: str) -> tuple[NativeKernel, Kernel]:
    """A kernel as `compile` gives it, and one of the same code that is called from Python."""
    native = compile(GEMMS[name])
    assert isinstance(native, NativeKernel)
    return native, Kernel(native.loaded, native.signature)


def fitting(argument: Argument, seed: int = 0) -> Array:
    """An array as the kernel asks for it."""
    dtype = np.dtype({"f32": np.float32, "f64": np.float64}[argument.dtype])
    storage = np.zeros(max(argument.span_bytes, 1) // dtype.itemsize, dtype)
    strides = [s * dtype.itemsize for s in argument.strides]
    array = np.ndarray(argument.shape, dtype, storage, strides=strides)
    array[...] = np.random.default_rng(seed).uniform(-1, 1, argument.shape)
    return array


class Sub(np.ndarray[Any, Any]):
    """A subclass of arrays."""


class Shared:
    """An array of another library."""

    def __init__(self, array: Array) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


def read_only(array: Array) -> Array:
    view = array[...]
    view.flags.writeable = False
    return view


def unaligned(array: Array) -> Array:
    moved = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    moved[...] = array
    return moved


KINDS: Final[dict[str, Callable[[Array], Any]]] = {
    "as it is": lambda x: x,
    "view": lambda x: x[...],
    "contiguous": np.ascontiguousarray,
    "by columns": np.asfortranarray,
    "transposed": lambda x: x.T,
    "swapped": lambda x: x.swapaxes(0, -1) if x.ndim else x,
    "backwards": lambda x: x[::-1] if x.ndim else x,
    "every other": lambda x: np.repeat(x, 2, axis=-1)[..., ::2] if x.ndim else x,
    "spread": lambda x: np.broadcast_to(x[:1], x.shape) if x.ndim and len(x) else x,
    "longer": lambda x: np.concatenate([x, x]) if x.ndim else x,
    "shorter": lambda x: x[1:] if x.ndim else x,
    "flat": lambda x: x.reshape(-1),
    "one more": lambda x: x[None],
    "five more": lambda x: x[None, None, None, None, None],
    "scalar": lambda x: np.array(1, x.dtype),
    "number": lambda x: x.dtype.type(1),
    "none": lambda x: np.zeros((0, *x.shape), x.dtype),
    "double": lambda x: x.astype(np.float64),
    "single": lambda x: x.astype(np.float32),
    "integers": lambda x: x.astype(np.int32),
    "other order": lambda x: x.astype(x.dtype.newbyteorder()),
    "own order": lambda x: x.astype(np.dtype(x.dtype.str)),
    "another descriptor": lambda x: x.astype(np.dtype(x.dtype, metadata={"own": 1})),
    "objects": lambda x: x.astype(object),
    "record": lambda x: x.astype([("x", np.float32)]),
    "read-only": read_only,
    "unaligned": unaligned,
    "subclass": lambda x: x.view(Sub),
    "masked": np.ma.masked_array,
    "list": lambda x: x.tolist(),
    "nothing": lambda x: None,
    "shared": Shared,
    "bytes": lambda x: x.tobytes(),
}


def outcome(run: Callable[[], Any], outputs: list[Any]) -> tuple[Any, ...]:
    """What a call did: its result or its error, and what is then in the arrays."""
    try:
        result = run()
    except Exception as error:
        told: Any = addresses_out(str(error))
        return type(error), told, [bits(output) for output in outputs]
    own = [result is output for output in outputs]
    if isinstance(result, np.ndarray):
        array = cast("Array", result)
        told = (array.dtype, array.shape, array.strides, bits(array))
    else:
        told = None
    return own, told, [bits(output) for output in outputs]


def addresses_out(message: str) -> str:
    """An error's text without the numbers that differ from array to array."""
    return " ".join(word for word in message.split() if not word.strip("(),;").startswith("0x"))


def bits(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return None
    array = cast("Array", value)
    return None if array.dtype.hasobject else array.tobytes()


@given(st.data(), st.sampled_from(sorted(GEMMS)))
def test_every_call_does_as_the_careful_one(data: st.DataObject, name: str):
    """Operands and out of any kind, named or not, over one another or not."""
    native, careful = kernels(name)
    arguments = native.signature.arguments
    kinds = st.sampled_from(sorted(KINDS)) | st.just("as it is")
    chosen = [data.draw(kinds, label=a.name) for a in arguments]
    alias = data.draw(st.none() | st.integers(0, len(arguments) - 2), label="out is operand")
    count = data.draw(st.just(len(arguments) - 1) | st.integers(0, len(arguments)), label="given")
    by_name = data.draw(st.integers(0, 2) | st.just(0), label="by name")
    with_out = data.draw(st.sampled_from(["out", "out", "no", "also x"]), label="how")

    def run_on(kernel: Kernel) -> tuple[Any, ...]:
        fit = [fitting(argument, i) for i, argument in enumerate(arguments)]
        made = [KINDS[kind](array) for kind, array in zip(chosen, fit, strict=True)]
        *operands, out = made
        if alias is not None:
            out = operands[alias]
        values = (*operands, out)[:count]
        positional = values[: len(values) - by_name]
        first = len(positional)
        names = [argument.name for argument in arguments][first:]
        named: dict[str, Any] = dict(zip(names, values[first:], strict=False))
        if with_out != "no":
            named["out"] = out
        if with_out == "also x":
            named["x"] = out
        return outcome(lambda: kernel(*positional, **named), made)

    assert run_on(native) == run_on(careful)


WAYS: Final[dict[str, Callable[[Kernel, list[Any]], Any]]] = {
    "out": lambda kernel, values: kernel(*values[:-1], out=values[-1]),
    "new": lambda kernel, values: kernel(*values[:-1]),
    "none": lambda kernel, values: kernel(*values[:-1], out=None),
    "bound": lambda kernel, values: kernel.bind(*values[:-1], out=values[-1])(),
    "other name": lambda kernel, values: kernel(*values[:-1], x=values[-1]),
    "two names": lambda kernel, values: kernel(*values[:-1], out=values[-1], x=values[-1]),
    "last by name": lambda kernel, values: kernel(*values[:-2], b=values[-2], out=values[-1]),
    "all in a row": lambda kernel, values: kernel(*values),
}


@pytest.mark.parametrize("way", WAYS)
def test_one_odd_array_does_as_the_careful_call(pair: tuple[NativeKernel, Kernel], way: str):
    native, careful = pair
    arguments = native.signature.arguments

    def of(kernel: Kernel, kind: str, place: int) -> tuple[Any, ...]:
        values: list[Any] = [fitting(a, i) for i, a in enumerate(arguments)]
        values[place] = KINDS[kind](values[place])
        return outcome(lambda: WAYS[way](kernel, values), values)

    for kind in KINDS:
        for place in range(len(arguments)):
            assert of(native, kind, place) == of(careful, kind, place), (kind, place)


@pytest.mark.parametrize("name", ["plain", "padded", "batch"])
def test_arrays_that_overlap_do_as_the_careful_call(name: str):
    native, careful = kernels(name)
    arguments = native.signature.arguments
    refused = 0
    for place, argument in enumerate(arguments[:-1]):
        reach = (argument.span_bytes + arguments[-1].span_bytes) // 4
        for shift in range(2 * reach + 2):
            told = [overlapping(kernel, place, shift) for kernel in (native, careful)]
            assert told[0] == told[1], (place, shift)
            refused += told[0][0] is CallError
    assert refused


def overlapping(kernel: Kernel, place: int, shift: int) -> tuple[Any, ...]:
    """A call whose output and one operand lie in one pool, so many elements apart."""
    arguments = kernel.signature.arguments
    values = [fitting(a, i) for i, a in enumerate(arguments)]
    reach = (arguments[place].span_bytes + arguments[-1].span_bytes) // 4
    pool = np.linspace(0, 1, 4 * reach + 4, dtype=np.float32)
    for at, offset in ((place, reach + 1), (len(arguments) - 1, shift)):
        strides = [s * 4 for s in arguments[at].strides]
        values[at] = np.ndarray(arguments[at].shape, np.float32, pool[offset:], strides=strides)
    return outcome(lambda: kernel(*values[:-1], out=values[-1]), [pool])


def test_arrays_that_fit_do_not_pass_through_python(
    pair: tuple[NativeKernel, Kernel], monkeypatch: pytest.MonkeyPatch
):
    def never(*_: object, **__: object) -> None:
        raise AssertionError("went through Python")

    monkeypatch.setattr(Kernel, "__call__", never)
    monkeypatch.setattr(BoundCall, "__call__", never)
    kernel, _ = pair
    *operands, out = [fitting(a) for a in kernel.signature.arguments]
    names = [a.access for a in kernel.signature.arguments]
    if kernel.signature.symbol and 0 not in out.shape:
        assert kernel(*operands, out=out) is out
        assert kernel.bind(*operands, out=out)() is out
    contiguous = out.flags.c_contiguous and names[-1] == "write" and 0 not in out.shape
    if contiguous:
        assert kernel(*operands, out=None).flags.owndata
        assert kernel(*operands).flags.c_contiguous


REPEATS: Final = 2000
"""Calls of a loop: one reference too many in each cannot be taken for anything else."""


def drift(run: Callable[[], object], values: list[Any]) -> int:
    """How far the count of references of any value goes from where it was, by many calls."""
    run()
    gc.collect()
    before = [sys.getrefcount(value) for value in values]
    for _ in range(REPEATS):
        run()
    gc.collect()
    after = [sys.getrefcount(value) for value in values]
    return max(abs(x - y) for x, y in zip(before, after, strict=True))


@pytest.mark.parametrize("name", ["plain", "read", "padded"])
def test_no_reference_is_lost_or_kept(name: str):
    kernel, _ = kernels(name)
    *operands, out = values = [fitting(a) for a in kernel.signature.arguments]
    bound = kernel.bind(*operands, out=out)
    watched = [*values, out.dtype, None, kernel, bound, np.ndarray, "out"]

    def wrong() -> None:
        for value in (out.T, 1):
            with suppress(CallError):
                kernel(*operands, out=value)

    assert drift(lambda: kernel(*operands, out=out), watched) < REPEATS // 2
    assert drift(bound, watched) < REPEATS // 2
    assert drift(wrong, watched) < REPEATS // 2
    if name == "plain":
        assert drift(lambda: kernel(*operands), watched) < REPEATS // 2
        assert drift(lambda: kernel(*operands, out=None), watched) < REPEATS // 2


def test_results_are_freed(pair: tuple[NativeKernel, Kernel]):
    kernel, _ = pair
    if kernel.signature.arguments[-1].access != "write":
        pytest.skip("its output must be given")
    operands = [fitting(a) for a in kernel.signature.arguments[:-1]]
    result = kernel(*operands)
    one = np.empty(1)
    assert sys.getrefcount(result) == sys.getrefcount(one)
    alive = weakref.ref(result)
    del result
    assert alive() is None


def test_a_kernel_and_its_code_are_freed_without_the_collector():
    kernel, _ = kernels("plain")
    loaded = load_text("ret i32 0")
    kernel = with_thunk(loaded, kernel.signature)
    assert isinstance(kernel, NativeKernel)
    bound = kernel.bind(*[fitting(a) for a in kernel.signature.arguments[:-1]])
    watched = [weakref.ref(kernel), weakref.ref(loaded)]
    gc.disable()
    try:
        del loaded, kernel
        assert all(ref() is not None for ref in watched)
        bound()
        del bound
        assert all(ref() is None for ref in watched)
    finally:
        gc.enable()


def test_a_bound_call_outlives_its_kernel_and_arrays():
    kernel, _ = kernels("plain")
    a, b = (fitting(x) for x in kernel.signature.arguments[:-1])
    expected = kernel(a, b).copy()
    bound = kernel.bind(a, b)
    assert isinstance(bound, NativeBoundCall) and repr(bound).endswith("bound to 3 arrays>")
    function: Any = bound.__call__
    del a, b, bound, kernel
    gc.collect()
    np.testing.assert_array_equal(function(), expected)


def load_text(body: str) -> Loaded:
    """Machine code of a function of three pointers %a, %b and %c."""
    text = f"define i32 @code(ptr %a, ptr %b, ptr %c) {{\n{body}\n}}\n"
    signature = Signature(symbol="code", arguments=compile(GEMMS["plain"]).signature.arguments)
    artifact = Artifact(kind="llvm", text=text, signature=signature, cpu=host_cpu().name)
    return load(assemble(artifact), signature)


def test_a_kernel_without_memory_raises_and_keeps_nothing():
    signature = compile(GEMMS["plain"]).signature
    kernel = with_thunk(load_text("ret i32 1"), signature)
    a, b, c = (fitting(x) for x in signature.arguments)
    for call in (
        lambda: kernel(a, b, out=c),
        lambda: kernel(a, b),
        kernel.bind(a, b, out=c),
        kernel.bind(a, b),
    ):
        with pytest.raises(AllocationError, match="GEM0513"):
            call()

    def fail() -> None:
        with suppress(AllocationError):
            kernel(a, b)

    assert drift(fail, [a, b, c, c.dtype, None]) < REPEATS // 2


SPIN: Final = """
  br label %again
again:
  %i = phi i64 [ 0, %0 ], [ %j, %again ]
  %j = add i64 %i, 1
  %x = load volatile float, ptr %a
  %go = fcmp une float %x, 0.0
  %late = icmp ugt i64 %j, 40000000000
  %stop = or i1 %go, %late
  br i1 %stop, label %end, label %again
end:
  store float %x, ptr %c
  ret i32 0
"""
"""It waits until its first operand is not 0, and says what it is then."""


@pytest.mark.parametrize("bound", [False, True])
def test_other_threads_run_while_a_long_kernel_does(bound: bool):
    shape, strides = (512, 512), (512, 1)
    a, b, c = (
        Argument(name=name, dtype="f32", shape=shape, strides=strides, access="read")
        for name in "abc"
    )
    arguments = (a, b, replace(c, access="write"))
    kernel = with_thunk(load_text(SPIN), Signature(symbol="code", arguments=arguments))
    a, b, c = (np.zeros(shape, np.float32) for _ in range(3))
    call = kernel.bind(a, b, out=c) if bound else lambda: kernel(a, b, out=c)
    started = threading.Event()

    def run() -> None:
        started.set()
        call()

    thread = threading.Thread(target=run)
    thread.start()
    started.wait()
    a[0, 0] = 3
    thread.join()
    assert c[0, 0] == 3


@pytest.mark.parametrize(("size", "releases"), [(16, 0), (64, 0), (80, 1), (512, 1)])
def test_short_kernels_keep_the_lock(size: int, releases: int):
    gemm = Gemm(m=size, n=size, k=size)
    made = compile(gemm)
    assert isinstance(made, NativeKernel)
    lies = [lie_of(np.empty((size, size), np.float32)) for _ in range(3)]
    assert made.table(lies)[2] == releases


def test_kernels_of_too_many_arguments_are_called_from_python():
    many = tuple(
        Argument(name=f"x{i}", dtype="f32", shape=(1,), strides=(1,), access="read")
        for i in range(thunk.thunk.MOST)
    )
    output = Argument(name="c", dtype="f32", shape=(1,), strides=(1,), access="write")
    loaded = load_text("ret i32 0")
    assert type(with_thunk(loaded, Signature(symbol="code", arguments=(*many, output)))) is Kernel
    fits = Signature(symbol="code", arguments=(*many[1:], output))
    assert isinstance(with_thunk(loaded, fits), NativeKernel)


def test_code_without_an_address_is_called_from_python():
    plain = compile(GEMMS["plain"])
    assert isinstance(plain, NativeKernel)
    hidden = Loaded(entry=plain.loaded.entry, owner=plain.loaded)
    assert type(with_thunk(hidden, plain.signature)) is Kernel


@pytest.fixture
def no_thunk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(thunk, "native", lambda: None)
    yield


@pytest.mark.usefixtures("no_thunk")
def test_without_the_interface_of_cpython_kernels_are_called_from_python():
    plain = compile(GEMMS["plain"])
    assert isinstance(plain, NativeKernel)
    kernel = with_thunk(plain.loaded, plain.signature)
    assert type(kernel) is Kernel
    a, b = (fitting(x) for x in plain.signature.arguments[:-1])
    np.testing.assert_array_equal(kernel(a, b), plain(a, b))
    plans = Plans(lambda a, b, out, threads: "slow")
    assert plans.call(a, b, None, None) == "slow" and plans.call(a, b, None, None) == "slow"
    plans.remember(kernel, lie_of(a), lie_of(b), None)


@pytest.mark.parametrize(
    ("name", "value"),
    [("implementation", "other"), ("_is_gil_enabled", lambda: False)],
)
def test_interpreters_of_another_kind_are_not_trusted(
    monkeypatch: pytest.MonkeyPatch, name: str, value: Any
):
    if name == "implementation":
        value = type("Implementation", (), {"name": "other"})()
    monkeypatch.setattr(sys, name, value, raising=False)
    assert thunk.native.__wrapped__() is None


def test_an_interface_that_lacks_a_function_is_not_used(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(thunk, "CALLED", (*thunk.CALLED, "PyNo_Such"))
    assert thunk.native.__wrapped__() is None


class Counted:
    """The slow road of `matmul`, which counts the calls."""

    def __init__(self) -> None:
        self.calls = 0
        self.plans = Plans(self)

    def __call__(self, a: Any, b: Any, out: Any, threads: Any) -> Any:
        self.calls += 1
        if a is None:
            raise CallError("GEM0520", "not an array")
        result = compile(Gemm(m=a.shape[0], n=b.shape[1], k=a.shape[1]))(a, b, out=out)
        kernel = compile(Gemm(m=a.shape[0], n=b.shape[1], k=a.shape[1]))
        self.plans.remember(kernel, lie_of(a), lie_of(b), threads)
        return result


def test_a_plan_serves_the_next_call():
    slow = Counted()
    for m in range(1, 9):
        a, b = np.ones((m, 3), np.float32), np.ones((3, 4), np.float32)
        out = np.zeros((m, 4), np.float32)
        first = slow.plans.call(a, b, None, None)
        assert slow.calls == m
        assert slow.plans.call(a, b, out, None) is out
        np.testing.assert_array_equal(first, out)
        np.testing.assert_array_equal(slow.plans.call(a, b, None, None), out)
        assert slow.calls == m


def test_a_plan_serves_no_other_call():
    slow = Counted()
    a, b, out = (np.ones((4, 4), np.float32) for _ in range(3))
    slow.plans.call(a, b, None, None)
    others: list[tuple[Any, Any, Any, Any]] = [
        (a, b, None, 2),
        (a, b, a, None),
        (a, b, read_only(out), None),
        (a.view(Sub), b, None, None),
        (a, b.astype(np.float64), None, None),
        (a.T, b, None, None),
        (None, None, None, None),
    ]
    for count, call in enumerate(others, 2):
        with suppress(CallError):
            slow.plans.call(*call)
        assert slow.calls == count


def test_a_plan_holds_what_it_knows_by_its_address():
    """No other type, and no other number of threads, may come to lie there."""
    slow, own, threads = Counted(), np.dtype(np.float32, metadata={"unit": "m"}), 10**6
    a, b = (np.ones((4, 4), own) for _ in range(2))
    before = sys.getrefcount(own), sys.getrefcount(threads)
    slow.plans.call(a, b, None, threads)
    assert sys.getrefcount(own) > before[0] and sys.getrefcount(threads) > before[1]
    slow.plans.call(a, b, None, threads)
    assert slow.calls == 1


def test_products_that_share_a_place_take_turns():
    found: dict[int, int] = {}
    pairs: list[tuple[int, int]] = []
    b = np.ones((3, 4), np.float32)
    for m in range(1, 2000):
        place = place_of(lie_of(np.empty((m, 3), np.float32)), lie_of(b))
        assert 0 <= place < thunk.PLANS
        if place in found:
            pairs.append((found[place], m))
        found[place] = m
    assert len(found) > thunk.PLANS * 3 // 4
    one, other = pairs[0]
    slow = Counted()
    for turn, rows in enumerate((one, other, one), 1):
        for _ in range(3):
            c = slow.plans.call(np.ones((rows, 3), np.float32), b, None, None)
            np.testing.assert_array_equal(c, np.full((rows, 4), 3, np.float32))
        assert slow.calls == turn


def test_matmul_from_many_threads_with_plans_that_are_replaced():
    wrong: list[int] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(150):
            m, n, k = (int(x) for x in rng.integers(1, 5, 3))
            a = rng.integers(-3, 3, (m, k)).astype(np.float32)
            b = rng.integers(-3, 3, (k, n)).astype(np.float32)
            if not np.array_equal(gemmir.matmul(a, b), a @ b):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_plans_keep_no_result():
    a, b = np.ones((6, 3), np.float32), np.ones((3, 4), np.float32)
    gemmir.matmul(a, b)
    assert drift(lambda: gemmir.matmul(a, b), [a, b, a.dtype, None]) < REPEATS // 2


def test_the_thunk_is_kept_on_disk(object_cache: str, monkeypatch: pytest.MonkeyPatch):
    assert thunk.native.__wrapped__() is not None

    def never() -> bytes:
        raise AssertionError("compiled again")

    monkeypatch.setattr(thunk.thunk, "assemble", never)
    assert thunk.native.__wrapped__() is not None


def test_kernels_can_be_called_as_descriptors_of_their_class():
    """The careful call of the class is still there, for those who call it by its name."""
    native, _ = kernels("plain")
    a, b = (fitting(x) for x in native.signature.arguments[:-1])
    np.testing.assert_array_equal(Kernel.__call__(native, a, b), native(a, b))


def test_addresses_are_those_of_numpy():
    """The layout that thunk.ll knows, read as it reads it."""
    array = np.empty((3, 4), np.float32)[1:]
    words = (ctypes.c_size_t * 9).from_address(id(array))
    dims = (ctypes.c_ssize_t * 2).from_address(words[4])
    strides = (ctypes.c_ssize_t * 2).from_address(words[5])
    assert words[1] == id(np.ndarray) and words[2] == array.__array_interface__["data"][0]
    assert (words[3] & 0xFFFFFFFF, tuple(dims), tuple(strides)) == (2, array.shape, array.strides)
    assert words[7] == id(array.dtype) and words[8] & 0x400
