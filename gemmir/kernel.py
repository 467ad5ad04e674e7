"""A compiled GEMM as a callable: it checks arrays, makes the output and runs the machine code.

All checks come before the code runs, so that a `CallError` means that nothing was written.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol, cast, runtime_checkable

import numpy as np
import numpy.typing as npt

from gemmir.backend import Loaded
from gemmir.dtypes import ELEMENTS, spelled
from gemmir.errors import CallError
from gemmir.packed import Packed, Packing, packed_among, unpacked
from gemmir.signature import Argument, Signature

Array = npt.NDArray[Any]

DTYPES: Final[dict[str, np.dtype[Any]]] = {name: e.stored for name, e in ELEMENTS.items()}
"""NumPy's type of an array of elements, in the byte order of this computer."""

OVERLAP_WORK: Final = 10_000
"""Steps in which NumPy must tell whether interleaved arrays overlap; if it cannot, they do."""

DATA_POINTER: Final = object.__basicsize__
"""Where an array object holds its data pointer: right behind its header.

PyArrayObject_fields in numpy/ndarraytypes.h, which is part of NumPy's binary interface.
"""


class AllocationError(CallError, MemoryError):
    """A kernel found no memory for its packed operands; nothing was written (GEM0513)."""


@runtime_checkable
class DLPack(Protocol):
    """An array of another library, which may be shared without a copy."""

    def __dlpack__(self) -> object: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...


_word_at: Final = ctypes.c_size_t.from_address


def _address_in_object(array: Array) -> int:
    return _word_at(id(array) + DATA_POINTER).value


def _address_by_interface(array: Array) -> int:
    return array.__array_interface__["data"][0]


def _fastest_address() -> Callable[[Array], int]:
    """How to read an array's address: in the object itself, 0.2 us, where that tells the truth.

    NumPy's own ways take 1.4 us.
    """
    if not hasattr(ctypes, "pythonapi"):  # elsewhere than in CPython an id is not an address
        return _address_by_interface
    probe = np.empty(2, np.float32)[1:]
    agree = _address_in_object(probe) == _address_by_interface(probe)
    return _address_in_object if agree else _address_by_interface


_address: Final = _fastest_address()


@dataclass(frozen=True, kw_only=True, slots=True)
class Slot:
    """What an array must be to be one operand; strides and sizes in bytes."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    span: int
    is_packed: bool
    is_written: bool
    per_byte: int = 1

    def accept(self, value: object) -> Array:
        """`value` as an array that shares its memory, or a `CallError` that says what is wrong."""
        array = as_array(self.name, value)
        self.check_type(array.dtype)
        self.check_shape(array.shape)
        self._check_strides(array)
        if self.is_written and not array.flags.writeable:
            raise CallError("GEM0510", f"{self.name} is read-only", "pass a writable array")
        return array

    def check_alignment(self, address: int) -> None:
        """`CallError` GEM0509 where an element at `address` would not be aligned to its size."""
        if address % self.dtype.itemsize and self.span:
            raise CallError(
                "GEM0509",
                f"{self.name} starts at address {address:#x}, which is not a multiple of the "
                f"{self.dtype.itemsize} bytes of an element",
                "pass a copy, such as array.copy()",
            )

    def check_type(self, found: np.dtype[Any]) -> None:
        """`CallError` GEM0504 where elements are of another type, GEM0505 of another byte order."""
        if found == self.dtype:
            return
        if found.newbyteorder() == self.dtype:
            raise CallError(
                "GEM0505",
                f"{self.name} is {self.dtype.name} in the other byte order",
                f"pass array.astype({spelled(self.dtype)})",
            )
        raise CallError(
            "GEM0504",
            f"{self.name} has dtype {found.name} where {self.dtype.name} is needed",
            f"pass array.astype({spelled(self.dtype)})"
            if self.per_byte == 1
            else "it has two elements a byte: pass gemmir.pack_int4(array)",
        )

    def check_shape(self, found: tuple[int, ...]) -> None:
        """`CallError` GEM0506 where an array has another shape."""
        needed = self.shape
        if found == needed:
            return
        transposed = len(needed) > 1 and found == (*needed[:-2], needed[-1], needed[-2])
        hint = "it is transposed: pass a contiguous copy of array.T" if transposed else ""
        if not transposed and math.prod(found) == math.prod(needed):
            hint = f"pass array.reshape{needed}"
        raise CallError(
            "GEM0506",
            f"{self.name} has shape {found} where {needed} is needed",
            hint or f"pass an array of shape {needed}",
        )

    def _check_strides(self, array: Array) -> None:
        pairs = zip(self.shape, array.strides, self.strides, strict=True)
        wrong = [(found, own) for n, found, own in pairs if n > 1 and found != own]
        if not wrong or not self.span:
            return
        itemsize = self.dtype.itemsize
        needed = tuple(s // itemsize for s in self.strides)
        if any(found < 0 for found, _ in wrong):
            raise CallError(
                "GEM0508",
                f"{self.name} has negative strides {array.strides} (in bytes)",
                f"pass a copy with strides of {needed} elements",
            )
        raise CallError(
            "GEM0507",
            f"{self.name} has strides {array.strides} where {self.strides} are needed (in bytes; "
            f"{needed} elements)",
            "pass np.ascontiguousarray(array)"
            if self.is_packed
            else "compile for the strides it has",
        )

    def new(self) -> Array:
        """A new array, with the strides of this operand."""
        if self.is_packed:
            return np.empty(self.shape, self.dtype)
        storage = np.empty(self.span, np.uint8)
        return np.ndarray(self.shape, self.dtype, storage, strides=self.strides)


def _is_packed(argument: Argument) -> bool:
    """Whether a plain new array has these strides, where they matter."""
    step = 1
    pairs = zip(argument.stored_shape, argument.stored_strides, strict=True)
    for extent, stride in reversed(tuple(pairs)):
        if extent > 1 and stride != step:
            return False
        step *= extent
    return True


def slot_for(argument: Argument) -> Slot:
    """The slot of one argument of a compiled function."""
    dtype = DTYPES[argument.dtype]
    return Slot(
        name=argument.name,
        dtype=dtype,
        shape=argument.stored_shape,
        strides=tuple(s * dtype.itemsize for s in argument.stored_strides),
        span=argument.span_bytes,
        is_packed=0 in argument.shape or _is_packed(argument),
        is_written=argument.access != "read",
        per_byte=argument.element.per_byte,
    )


_share: Final[Callable[[object], Array]] = partial(cast("Any", np.from_dlpack), copy=False)
_shares_memory: Final = cast("Callable[..., bool]", np.shares_memory)


def as_array(name: str, value: object) -> Array:
    """`value` as a plain NumPy array over the same memory; nothing is ever copied."""
    if isinstance(value, np.ma.MaskedArray):
        raise CallError(
            "GEM0503", f"{name} is a masked array, and masks are not read", "pass array.filled(0)"
        )
    if isinstance(value, np.ndarray):
        return value.view(np.ndarray)
    if not isinstance(value, DLPack):
        raise CallError(
            "GEM0503",
            f"{name} is a {type(value).__name__}, not an array",
            "pass a NumPy array or one with __dlpack__, such as np.asarray(value)",
        )
    try:
        return _share(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise CallError(
            "GEM0503",
            f"{name} is a {type(value).__name__} that cannot be shared: {error}",
            "pass an array in the memory of the CPU",
        ) from error


def _overlap(one: Array, other: Array) -> bool:
    """Whether two arrays share an element; also true where that is too hard to tell."""
    try:
        return _shares_memory(one, other, max_work=OVERLAP_WORK)
    except np.exceptions.TooHardError:
        return True


class Kernel:
    """A compiled function of arrays.

    `kernel(a, b, bias, out=c)` takes the operands that are read in the order of the signature, or
    by name, and writes the last one, which it also returns; without `out` that is a new array. Any
    array on the CPU with `__dlpack__` may be given. Nothing is converted or copied: whatever does
    not fit is a `CallError`. A kernel may be called from several threads at once, and lets other
    Python threads run meanwhile.

    `purpose` says what it computes and how; those of one purpose take each other's packed operands.
    """

    packing: Callable[[], Packing] | None = None
    """How an operand is packed before a call, where it can be."""

    def __init__(
        self, function: Callable[..., int], signature: Signature, purpose: str = ""
    ) -> None:
        self.signature = signature
        self._purpose = purpose
        self._function = function
        self._entry = function.entry if isinstance(function, Loaded) else function
        *inputs, output = map(slot_for, signature.arguments)
        self._inputs: tuple[Slot, ...] = tuple(inputs)
        self._output: Slot = output
        self._exact = tuple(
            (place, slot.dtype, slot.shape, slot.strides)
            for place, slot in enumerate((*inputs, output))
        )
        self._longest = max((slot.span for slot in inputs), default=0)
        self._unaligned = max(slot.dtype.itemsize for slot in (*inputs, output)) - 1
        self._needs_out = signature.arguments[-1].access == "readwrite"

    def __call__(self, *operands: object, out: Any = None, **named: object) -> Any:
        """Run on `operands`; returns `out`, or a new array where it is None."""
        packed = packed_among(operands, named)
        if packed is not None:
            operands_, named_ = unpacked(packed, self._purpose, operands, named)
            return packed.compute(*operands_, out=out, **named_)
        target = self._new_output() if out is None else out
        addresses = None if named else self._quick((*operands, target))
        if addresses is None:
            arrays, addresses = self._check(operands, named, target)
            target = arrays[-1]
        if self._entry(*addresses):
            raise _no_memory(self.signature.symbol)
        return target if out is None else out

    def bind(self, *operands: object, out: Any = None, **named: object) -> BoundCall:
        """The call of these arrays as a function without arguments, checked now and not again."""
        packed = packed_among(operands, named)
        if packed is not None:
            operands_, named_ = unpacked(packed, self._purpose, operands, named)
            return cast("Any", packed.compute).bind(*operands_, out=out, **named_)
        result = self._new_output() if out is None else out
        arrays, addresses = self._check(operands, named, result)
        return self._bound(addresses, arrays, result)

    def prepack(self, b: object) -> Packed:
        """B as this kernel reads it, packed once, for calls that take it in the place of b.

        It is for kernels of this problem, target, schedule and threads. Where this one does not say
        how B is packed before a call, a second one is compiled that does. Raises `CallError`:
        GEM1346 where no kernel can, and otherwise as a call with `b` would.
        """
        if self.packing is None:
            raise CallError(
                "GEM1346",
                f"{self!r} cannot take a packed operand",
                "compile a Gemm without scales, weights and unknown sizes, for a CPU",
            )
        packing = self.packing()
        array = packing.new()
        packing.pack(b, out=array)
        return Packed(
            operand=packing.operand,
            place=[slot.name for slot in self._inputs].index(packing.operand),
            array=array,
            signature=self.signature,
            purpose=self._purpose,
            compute=packing.compute,
        )

    def _bound(self, addresses: Sequence[int], arrays: Sequence[object], result: Any) -> BoundCall:
        return BoundCall(self, self._entry, addresses, arrays, result)

    def __repr__(self) -> str:
        arguments = ", ".join(
            f"{a.name}: {a.dtype}{list(a.shape)}" for a in self.signature.arguments
        )
        return f"<Kernel {self.signature.symbol}({arguments})>"

    def _quick(self, values: tuple[Any, ...]) -> list[int] | None:
        """The addresses of `values` if they need no closer look: `_check` for nearly all calls.

        For three arrays it takes 2 us, and `_check` takes 10.
        """
        if len(values) != len(self._exact) or _address is not _address_in_object:
            return None
        addresses: list[int] = []
        start = all_bits = 0
        for place, dtype, shape, strides in self._exact:
            value = values[place]
            if (
                type(value) is not np.ndarray
                or value.dtype is not dtype
                or value.shape != shape
                or value.strides != strides
            ):
                return None
            start = _word_at(id(value) + DATA_POINTER).value
            all_bits |= start
            addresses.append(start)
        if all_bits & self._unaligned or not values[-1].flags.writeable:
            return None
        lowest, end = start - self._longest, start + self._output.span
        for address in addresses[:-1]:
            if lowest < address < end:
                return None
        return addresses

    def _check(
        self, operands: tuple[object, ...], named: Mapping[str, object], out: object
    ) -> tuple[list[Array], list[int]]:
        """All arrays, the output last, and their addresses; a `CallError` if one does not fit."""
        slots = (*self._inputs, self._output)
        values = (*self._in_order(operands, named), out)
        arrays = [slot.accept(value) for slot, value in zip(slots, values, strict=True)]
        addresses = [_address(array) for array in arrays]
        for slot, address in zip(slots, addresses, strict=True):
            slot.check_alignment(address)
        for slot, array in zip(self._inputs, arrays, strict=False):
            _refuse_overlap(slot.name, array, arrays[-1])
        return arrays, addresses

    def _in_order(
        self, operands: tuple[object, ...], named: Mapping[str, object]
    ) -> tuple[object, ...]:
        names = [slot.name for slot in self._inputs]
        return in_order(names, self._output.name, operands, named)

    def _new_output(self) -> Array:
        self._require_out()
        return self._output.new()

    def _require_out(self) -> None:
        """An error where there is no output without `out`."""
        if self._needs_out:
            name = self._output.name
            raise CallError(
                "GEM0512",
                f"{name} is read before it is written (beta is not 0, or rows "
                "of no group stay), and out is not given",
                f"pass out={name} with its old values",
            )


class BoundCall:
    """`kernel.bind(…)`: runs on the same arrays at every call, which takes 0.4 us and the kernel.

    It holds the kernel and the arrays. A call reads what is in them then, writes the same output
    and returns it.
    """

    __slots__ = ("_addresses", "_arrays", "_entry", "_kernel", "_result")

    def __init__(
        self,
        kernel: Kernel,
        entry: Callable[..., int],
        addresses: Sequence[int],
        arrays: Sequence[object],
        result: Any,
    ) -> None:
        self._kernel = kernel
        self._entry = entry
        self._addresses = addresses
        self._arrays = arrays
        self._result = result

    def __call__(self) -> Any:
        if self._entry(*self._addresses):
            raise _no_memory(self._kernel.signature.symbol)
        return self._result

    def __repr__(self) -> str:
        return f"<{self._kernel!r} bound to {len(self._arrays)} arrays>"


def in_order(
    names: Sequence[str],
    output: str,
    operands: tuple[object, ...],
    named: Mapping[str, object],
) -> tuple[object, ...]:
    """The operands `names` that are read, those by name behind the others; `CallError` if wrong."""
    if len(operands) > len(names):
        raise _wrong_count(names, len(operands), output)
    for name in named:
        if name not in names[len(operands) :]:
            raise _wrong_name(names, name, output, given=name in names)
    missing = [name for name in names[len(operands) :] if name not in named]
    if missing:
        raise _wrong_count(names, len(operands) + len(named), output)
    return (*operands, *(named[name] for name in names[len(operands) :]))


def _refuse_overlap(name: str, array: Array, out: Array) -> None:
    if np.may_share_memory(array, out) and _overlap(array, out):
        raise CallError(
            "GEM0511",
            f"out ({_bytes_of(out)}) overlaps {name} ({_bytes_of(array)})",
            f"pass another array as out, or a copy of {name}",
        )


def _bytes_of(array: Array) -> str:
    first, end = np.lib.array_utils.byte_bounds(array)
    return f"bytes {first:#x} to {end:#x}"


def _wrong_count(names: Sequence[str], found: int, output: str) -> CallError:
    return CallError(
        "GEM0501",
        f"{found} operands are given where {len(names)} are needed: {', '.join(names)}",
        f"pass {output} as out=" if found == len(names) + 1 else "",
    )


def _wrong_name(names: Sequence[str], name: str, output: str, *, given: bool) -> CallError:
    if given:
        return CallError("GEM0502", f"operand {name} is given twice", "pass it once")
    hint = f"pass {output} as out=" if name == output else f"there are {', '.join(names)}"
    return CallError("GEM0502", f"there is no operand {name!r} to read", hint)


def _no_memory(symbol: str) -> AllocationError:
    return AllocationError(
        "GEM0513",
        f"{symbol} found no memory for its packed operands",
        "free some memory and call again",
    )
