"""Calls of kernels on the CPU that do not pass through Python where nothing is unusual.

A `NativeKernel` is a `Kernel` whose `__call__` is a builtin function: machine code that checks the
arrays as `Kernel` does, word by word against a table, and enters the kernel. Whatever does not fit
goes to the `Kernel`, which knows the errors, subclasses and other libraries. So both give the same
results and the same errors, and one of them takes 0.1 us.

The lock of the interpreter is released around kernels for which that is worth it.

Where CPython's own interface cannot be called (another Python, one without the lock) everything
goes through `Kernel`.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from gemmir.backend import Loaded
from gemmir.backends.cpu import thunk
from gemmir.cache import ObjectCache, cache_key, default_path
from gemmir.errors import GemmirError
from gemmir.kernel import BoundCall, Kernel, Slot
from gemmir.llvm import Library
from gemmir.signature import Signature

Array = npt.NDArray[Any]
Words = npt.NDArray[np.int64]

HELD_PRODUCTS: Final = 1 << 18
"""Multiplications, those of 64 cubed, up to which a kernel keeps the interpreter's lock.

That is a few us, a thousandth of the time (sys.getswitchinterval) that a thread of Python waits
for another; giving the lock back and taking it again costs up to 0.1 us.
"""

PLANS: Final = 256
"""Places for products that `matmul` has seen: 64 minus the shift of the hash in thunk.ll is 8."""

FACTOR: Final = 0x9E3779B97F4A7C15
"""What thunk.ll multiplies a hash by: 2**64 over the golden ratio, odd."""

_WORD: Final = (1 << 64) - 1

METH_NOARGS: Final = 0x0004
METH_FASTCALL: Final = 0x0080
METH_KEYWORDS: Final = 0x0002
"""How a C function takes its arguments: CPython's methodobject.h, part of its stable interface."""

NEW_FROM_DESCR: Final = 94
"""Where PyArray_NewFromDescr lies in NumPy's table of functions: its binary interface."""

CALLED: Final = (
    "PyTuple_Size",
    "PyTuple_GetItem",
    "PyList_GetItem",
    "PyObject_Vectorcall",
    "PyErr_Clear",
    "Py_IncRef",
    "Py_DecRef",
    "PyEval_SaveThread",
    "PyEval_RestoreThread",
)
"""Functions of CPython that thunk.ll calls."""


class _MethodDef(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = (
        ("ml_name", ctypes.c_char_p),
        ("ml_meth", ctypes.c_void_p),
        ("ml_flags", ctypes.c_int),
        ("ml_doc", ctypes.c_char_p),
    )


@dataclass(frozen=True, kw_only=True)
class Thunk:
    """The native functions, ready to be made into builtin functions of Python."""

    call: _MethodDef
    bound: _MethodDef
    matmul: _MethodDef
    library: Library


@cache
def native() -> Thunk | None:
    """The thunk of this process, from the object cache if it is there; None where it cannot be."""
    if not _is_possible():
        return None
    try:
        library = thunk.link_thunk(_object(), _imports())
    except (GemmirError, AttributeError, ValueError):
        return None
    made = Thunk(
        call=_MethodDef(b"kernel", library["gemmir_call"], METH_FASTCALL | METH_KEYWORDS, None),
        bound=_MethodDef(b"bound", library["gemmir_bound"], METH_NOARGS, None),
        matmul=_MethodDef(b"matmul", library["gemmir_matmul"], METH_FASTCALL, None),
        library=library,
    )
    # Functions may be called until the process ends, so neither code nor descriptions are freed.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(made))
    return made


def _is_possible() -> bool:
    """Whether objects and arrays lie in memory as thunk.ll takes them to."""
    has_lock = getattr(sys, "_is_gil_enabled", lambda: True)()
    known = sys.implementation.name == "cpython" and hasattr(ctypes, "pythonapi") and has_lock
    return known and object.__basicsize__ == 16 and ctypes.sizeof(ctypes.c_void_p) == 8


def _object() -> bytes:
    cache = ObjectCache(default_path())
    key = cache_key("thunk", thunk.text())
    found = cache.get(key)
    if found is None:
        found = thunk.assemble(), thunk.SIGNATURE
        cache.put(key, *found)
    return found[0]


def _imports() -> dict[str, int]:
    """Addresses in this process; `AttributeError` or `ValueError` where one cannot be had."""
    addresses = {name: _address_of(getattr(ctypes.pythonapi, name)) for name in CALLED}
    capsule = import_module("numpy._core._multiarray_umath")._ARRAY_API
    get_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", ctypes.pythonapi)
    )
    table = ctypes.cast(get_pointer(capsule, None), ctypes.POINTER(ctypes.c_void_p))
    return {
        **addresses,
        "PyArray_NewFromDescr": cast("int", table[NEW_FROM_DESCR]),
        "PyArray_Type": id(np.ndarray),
        "_Py_NoneStruct": id(None),
    }


def _address_of(function: Any) -> int:
    return cast("int", ctypes.cast(function, ctypes.c_void_p).value)


def _builtin(definition: _MethodDef, own: tuple[object, ...]) -> Callable[..., Any]:
    """A builtin function of Python, with `own` as what it is called on."""
    make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.py_object)(
        ("PyCFunction_NewEx", ctypes.pythonapi)
    )
    return make(ctypes.addressof(definition), own, __name__)


@dataclass(frozen=True, kw_only=True)
class Lie:
    """Exactly how an array lies: what it must be to be taken without a closer look."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def words(self) -> tuple[int, ...]:
        """What a table says of it."""
        return (id(self.dtype), len(self.shape), *self.shape, *self.strides)


def lie_of(like: Slot | Array) -> Lie:
    """How an array lies, or the one that a slot asks for."""
    return Lie(dtype=like.dtype, shape=like.shape, strides=like.strides)


def with_thunk(loaded: Loaded, signature: Signature, purpose: str = "") -> Kernel:
    """The kernel of loaded code: a `NativeKernel` where that is possible."""
    made = native() if loaded.address is not None else None
    if made is None or len(signature.arguments) > thunk.MOST:
        return Kernel(loaded, signature, purpose)
    return NativeKernel(loaded, signature, made, purpose)


class NativeKernel(Kernel):
    """A kernel whose `__call__` is a builtin function, as is that of its bound calls."""

    __slots__ = ("__call__", "_thunk", "loaded")

    def __init__(
        self, loaded: Loaded, signature: Signature, made: Thunk, purpose: str = ""
    ) -> None:
        super().__init__(loaded, signature, purpose)
        self.loaded = loaded
        self._thunk = made
        slots = (*self._inputs, self._output)
        # Another object than this one, which would never be freed if it held itself.
        careful = Kernel(loaded, signature, purpose).__call__
        own = (self.table(list(map(lie_of, slots))), careful, sys.intern("out"))
        object.__setattr__(self, "__call__", _builtin(made.call, own))

    def table(self, lies: Sequence[Lie], threads: object = None) -> Words:
        """The table for calls of this kernel with such arrays, the output last."""
        assert self.loaded.address is not None
        head = (
            self.loaded.address,
            len(lies) - 1,
            self._releases,
            self._output.is_packed and not self._needs_out,
            self._unaligned,
            self._longest,
            self._output.span,
            id(threads),
        )
        return np.array([*head, *(word for lie in lies for word in lie.words)], np.int64)

    @property
    def output(self) -> Lie:
        """How the output lies."""
        return lie_of(self._output)

    @property
    def _releases(self) -> bool:
        """Whether the lock is released: for a GEMM, where m * n * k is more than a few us."""
        sizes = sorted(math.prod(slot.shape) for slot in self._inputs)[-2:]
        return math.prod(sizes) * math.prod(self._output.shape) > HELD_PRODUCTS**2

    def _bound(self, addresses: Sequence[int], arrays: Sequence[object], result: Any) -> BoundCall:
        plain = super()._bound(addresses, arrays, result)
        head = (self.loaded.address, len(addresses), self._releases)
        own = (np.array([*head, *addresses], np.int64), plain.__call__, result)
        function = _builtin(self._thunk.bound, own)
        return NativeBoundCall(self, function, addresses, arrays, result)


class NativeBoundCall(BoundCall):
    """A bound call whose `__call__` is a builtin function."""

    __slots__ = ("__call__",)

    def __init__(
        self,
        kernel: Kernel,
        function: Callable[[], Any],
        addresses: Sequence[int],
        arrays: Sequence[object],
        result: Any,
    ) -> None:
        super().__init__(kernel, function, addresses, arrays, result)
        object.__setattr__(self, "__call__", function)


class Plans:
    """The products that `matmul` has seen, found by machine code.

    `call(a, b, out, threads)` runs the kernel of a plan where one fits, and otherwise calls `slow`
    with the same. It is made when it is first called. Of products that share a place the last one
    stays.
    """

    __slots__ = ("_plans", "_slow", "call")

    def __init__(self, slow: Callable[[Any, Any, Any, Any], Any]) -> None:
        self._plans: list[tuple[Words, Kernel, object] | None] = [None] * PLANS
        self._slow = slow
        self.call: Callable[[Any, Any, Any, Any], Any] = self._first

    def _first(self, a: Any, b: Any, out: Any, threads: Any) -> Any:
        made, slow = native(), self._slow
        self.call = slow if made is None else _builtin(made.matmul, (self._plans, slow))
        return self.call(a, b, out, threads)

    def remember(self, kernel: Kernel, a: Lie, b: Lie, threads: object) -> None:
        """Let `call` run `kernel` on arrays that lie like these.

        A plan holds the objects whose addresses are in its table, lest others get their places.
        """
        if isinstance(kernel, NativeKernel):
            table = kernel.table([a, b, kernel.output], threads)
            self._plans[place_of(a, b)] = (table, kernel, (a, b, threads))


def place_of(a: Lie, b: Lie) -> int:
    """Where thunk.ll looks for the plan of a product."""
    mixed = (_hash(a) + _hash(b) * FACTOR) * FACTOR & _WORD
    return mixed * PLANS >> 64


def _hash(lie: Lie) -> int:
    total = len(lie.shape)
    for extent, stride in zip(lie.shape, lie.strides, strict=True):
        total = ((total + extent) * FACTOR + stride) * FACTOR & _WORD
    return total
