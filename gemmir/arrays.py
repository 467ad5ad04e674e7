"""Arrays for the arguments of a compiled function, laid out as its signature says.

Between the rows of a padded array, and before and behind each array, lie NaNs: code that reads them
gets a wrong answer, and code that writes them is found out by `damage`. Integers have none: there
lies the one furthest from 0, which shows because integers are compared exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gemmir.dtypes import FOREIGN, restrided, spelled
from gemmir.errors import CallError, ParseError
from gemmir.gemm import COUNTS, OFFSETS
from gemmir.kernel import DTYPES
from gemmir.signature import Argument, Signature

Array = npt.NDArray[Any]

GUARD: Final = 64
"""Elements before and behind each array: four cache lines of f32."""

INTEGER_BITS: Final = 20
"""Bits of a random bias or residual beside its sign: about those of a sum of products."""

LEAST_HALVES: Final = 0x88
"""A byte of two integers of 4 bits that are furthest from 0."""

ALIGNMENT: Final = 64
"""Arrays begin on a cache line, so that timings do not depend on where memory was found."""


@dataclass(frozen=True, kw_only=True)
class Operand:
    """One array, and the memory around it."""

    argument: Argument
    memory: Array

    @property
    def flat(self) -> Array:
        """The memory from the first element on."""
        return self.memory[GUARD:]

    @property
    def array(self) -> Array:
        """The array as a caller holds it."""
        return strided(self.flat, self.argument.stored_shape, self.argument.stored_strides)

    def copy(self) -> Operand:
        """The same elements in other memory."""
        memory = _aligned(self.memory.size, self.memory.dtype)
        memory[:] = self.memory
        return Operand(argument=self.argument, memory=memory)

    def is_damaged(self, before: Operand) -> bool:
        """Whether anything has changed since `before` that no call may write."""
        bits = f"u{self.memory.itemsize}"
        changed = self.memory.view(bits) != before.memory.view(bits)
        if self.argument.access != "read":
            shape, strides = self.argument.stored_shape, self.argument.stored_strides
            strided(changed[GUARD:], shape, strides)[...] = False
        return bool(changed.any())


@dataclass(frozen=True, kw_only=True)
class Operands:
    """One array for each argument of a function, by name, in order."""

    by_name: Mapping[str, Operand]

    @property
    def arrays(self) -> list[Array]:
        """The arrays in the order of the arguments."""
        return [operand.array for operand in self.by_name.values()]

    @property
    def output(self) -> Array:
        """The last array, which is written."""
        return self.arrays[-1]

    def copy(self) -> Operands:
        """The same elements in other memory."""
        return Operands(by_name={name: operand.copy() for name, operand in self.by_name.items()})

    def damage(self, before: Operands) -> str:
        """What was written that may not be, compared with the arrays `before`; "" for nothing."""
        hit = [n for n, o in self.by_name.items() if o.is_damaged(before.by_name[n])]
        return f"memory outside the output was written, at {', '.join(hit)}" if hit else ""


def make_operands(
    signature: Signature, seed: int = 0, given: Mapping[str, Array] | None = None
) -> Operands:
    """An array for each argument: a copy of the one that is `given`, or random.

    Floats are in [-1, 1), integers of 8 bits are any, and others have `INTEGER_BITS` and a sign. An
    output that is only written begins as NaN, or as the integer furthest from 0. Raises
    `CallError`: GEM0502 for a name that is no argument, GEM0504 and GEM0506 for a type and a shape
    that do not fit, GEM0514 where memory is short.
    """
    given = given or {}
    names = [argument.name for argument in signature.arguments]
    for name in given:
        if name not in names:
            raise CallError(
                "GEM0502", f"there is no operand {name!r}", f"there are {', '.join(names)}"
            )
    generator = np.random.default_rng(seed)
    found: dict[str, Operand] = {}
    for argument in signature.arguments:
        operand = _new(argument)
        if argument.name in given:
            operand.array[...] = _fitting(argument, given[argument.name])
        elif argument.name == OFFSETS:
            rows = signature.arguments[-1].shape[0]
            operand.array[...] = _random_offsets(generator, operand.array.size, rows)
        elif argument.name == COUNTS:
            rows = signature.arguments[-1].shape[1]
            operand.array[...] = _random_counts(generator, operand.array.size, rows)
        elif argument.access != "write":
            operand.array[...] = _random(generator, operand.array)
        found[argument.name] = operand
    return Operands(by_name=found)


def guarded_bytes(argument: Argument) -> int:
    """Bytes of the memory of an argument, with what lies around it."""
    return argument.span_bytes + 2 * GUARD * DTYPES[argument.dtype].itemsize


def strided(
    flat: Array, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0
) -> Array:
    """The elements of `flat` at `offset` with `strides`, in elements."""
    in_bytes = tuple(s * flat.itemsize for s in strides)
    return restrided(flat[offset:], shape, in_bytes)


def load_array(path: Path) -> Array:
    """The array in a .npy file; `ParseError` GEM0208 where there is none."""
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ParseError("GEM0208", f"{path} cannot be read as .npy: {error}") from error


def _new(argument: Argument) -> Operand:
    dtype = DTYPES[argument.dtype]
    elements = argument.span_bytes // dtype.itemsize
    try:
        memory = _aligned(elements + 2 * GUARD, dtype)
    except (MemoryError, ValueError) as error:
        raise CallError(
            "GEM0514",
            f"there is no memory for {argument.name}, {argument.span_bytes} bytes",
            "use a smaller problem",
        ) from error
    memory[:] = LEAST_HALVES if argument.element.per_byte > 1 else _guard(dtype)
    return Operand(argument=argument, memory=memory)


def _guard(dtype: np.dtype[Any]) -> Any:
    """What nobody may read or write."""
    if dtype.kind not in "iu":
        return np.nan
    limits = np.iinfo(dtype)
    return limits.min or limits.max


def _random(generator: np.random.Generator, like: Array) -> Array:
    """Numbers of the type and shape of `like`."""
    if like.dtype.kind not in "iu":
        return generator.uniform(-1, 1, like.shape).astype(like.dtype)
    if like.itemsize > 1:
        return generator.integers(-(2**INTEGER_BITS), 2**INTEGER_BITS, like.shape, like.dtype)
    limits = np.iinfo(like.dtype)
    return generator.integers(limits.min, limits.max, like.shape, like.dtype, endpoint=True)


def _random_offsets(generator: np.random.Generator, count: int, rows: int) -> Array:
    """Where groups of rows begin and the last one ends; one of them is empty."""
    found = np.sort(generator.integers(0, rows + 1, count))
    found[0] = 0
    empty = int(generator.integers(1, count))
    found[empty] = found[empty - 1]
    return found


def _random_counts(generator: np.random.Generator, count: int, rows: int) -> Array:
    """How many rows each product has; one has none, where there are several."""
    found = generator.integers(0, rows + 1, count)
    if count > 1:
        found[int(generator.integers(count))] = 0
    return found


def _aligned(elements: int, dtype: np.dtype[Any]) -> Array:
    """Uninitialised memory that begins on a cache line."""
    room = np.empty(elements + ALIGNMENT // dtype.itemsize, dtype)
    start = -room.ctypes.data % ALIGNMENT // dtype.itemsize
    return room[start : start + elements]


def _is_bits_of(found: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    """Whether `found` is what a .npy file has for a type that NumPy lacks: its bits."""
    is_bits = found.kind in "Vu" and found.names is None and found.itemsize == wanted.itemsize
    return is_bits and wanted.isbuiltin == FOREIGN


def _fitting(argument: Argument, array: Array) -> Array:
    wanted = DTYPES[argument.dtype]
    if _is_bits_of(array.dtype, wanted):
        array = array.view(wanted)
    if array.dtype != wanted:
        raise CallError(
            "GEM0504",
            f"{argument.name} has dtype {array.dtype} where {wanted} is needed",
            f"pass array.astype({spelled(wanted)})",
        )
    shape = argument.stored_shape
    if array.shape != shape:
        raise CallError(
            "GEM0506", f"{argument.name} has shape {array.shape} where {shape} is needed"
        )
    return array
