"""What every op emitter works with: the text of a function and what each SSA value has become.

A vector<r x c> value is r rows of c lanes, a memref is a pointer with its sizes (strides are in the
type, or with it where they are dynamic), an index is i64. Where a vector belongs to a whole warp,
each thread has some of its rows: `Emitter.spread` says how many and of how many lanes. While
`Emitter.row` is set, vectors are that row of theirs only. Loops of known length count in 32 bits
where `counts_in_32_bits` says so, which saves a GPU an instruction for each that a wider counter
takes. `features` are LLVM's names of what the CPU has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

from xdsl.dialects.builtin import VectorType, bf16, i16
from xdsl.ir import Attribute, Block, Operation, SSAValue

from gemmir.backends.llvm.text import (
    FunctionText,
    Stride,
    lanes_type,
    scalar_type,
    splat_literal,
    transposed,
)
from gemmir.errors import BackendError
from gemmir.ir.dialect import Number, memref_type, strides_of
from gemmir.ir.index import Extent

_ADVICE = {
    "gemmir.gemm": "add promote{operand=c to=registers} and vectorize",
    "gemmir.epilogue": "add vectorize",
    "gemmir.pack": "add vectorize",
    "math.exp": "add expand-math after vectorize",
}

Rows: TypeAlias = list[str]


@dataclass(frozen=True)
class Pointer:
    """A memref: the address of its first element, and its sizes as operands.

    Of a swizzled one, `address` is that of the whole buffer and `origin` where the window begins.
    `strides` are operands too, in elements, where the type leaves some open.
    """

    address: str
    sizes: tuple[str, ...]
    origin: tuple[str, str] = ("0", "0")
    strides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Splat:
    """A constant vector of one literal; how many rows of it a thread has depends on where it is."""

    literal: str


@dataclass(frozen=True)
class Columns:
    """A vector<r x c> that is c lines of r lanes, as it lies in memory."""

    lines: Rows


@dataclass(frozen=True)
class Words:
    """A vector<r x d> whose rows have 32 bits, each as a word."""

    rows: Rows


Value: TypeAlias = "str | Rows | Pointer | Splat | Columns | Words"
Spread: TypeAlias = Callable[[tuple[int, int]], tuple[int, int]]
"""From the shape of a vector to the rows and lanes of it that one thread has."""

Table: TypeAlias = "Mapping[str, Callable[[Emitter, Any], None]]"
"""The emitter of each op, by the name of the op, so that a dialect need not be imported for it."""


@dataclass
class Emitter:
    """One LLVM function: the text so far, and what each SSA value has become.

    `entry` is the function of the module that others call, `threads` the number of threads of the
    loops over cores. `features` are those of the CPU, by LLVM's names, of which there are
    instructions for products and conversions; None leaves the choice to LLVM.
    """

    table: Table
    symbol: str
    text: FunctionText = field(default_factory=FunctionText)
    values: dict[SSAValue, Value] = field(default_factory=dict[SSAValue, Value])
    buffers: list[str] = field(default_factory=list[str])
    outlined: list[str] = field(default_factory=list[str])
    spread: Spread | None = None
    counts_in_32_bits: bool = False
    features: frozenset[str] | None = None
    entry: str = ""
    threads: str = ""
    row: int | None = None

    def shape(self, t: Attribute) -> tuple[int, int]:
        """Rows and lanes of a vector type that this thread has; a scalar is one row of one lane."""
        whole = shape_of(t)
        if not isinstance(t, VectorType):
            return whole
        rows, lanes = self.spread(whole) if self.spread is not None else whole
        return (rows if self.row is None else 1), lanes

    def has(self, *features: str) -> bool:
        """Whether the CPU has one of these features."""
        return self.features is not None and bool(self.features.intersection(features))

    def stored(self, element: Attribute) -> Number:
        """What elements are held as: of bf16 a CPU has the bits, for LLVM makes an f32 of each."""
        held = i16 if element == bf16 and self.features is not None else element
        return cast("Number", held)

    def row_type(self, t: Attribute) -> str:
        """The LLVM type of one row of `t`."""
        return lanes_type(self.stored(element_of(t)), self.shape(t)[1])

    def scalar(self, value: SSAValue) -> str:
        """The operand of an index, i1 or float value."""
        found = self.values[value]
        assert isinstance(found, str)
        return found

    def rows(self, value: SSAValue) -> Rows:
        """The rows of a vector; a scalar is its own single row."""
        found = self.values[value]
        assert not isinstance(found, Pointer | Words)
        if isinstance(found, Columns):
            scalar = scalar_type(self.stored(element_of(value.type)))
            lanes = shape_of(value.type)[0]
            found = transposed(self.text, scalar, found.lines, lanes)
            self.values[value] = found
        if isinstance(found, Splat):
            rows, lanes = self.shape(value.type)
            scalar = scalar_type(element_of(value.type))
            return [splat_literal(found.literal, scalar, lanes)] * rows
        if isinstance(found, str):
            return [found]
        return found if self.row is None else [found[self.row]]

    def pointer(self, value: SSAValue) -> Pointer:
        """The pointer of a memref."""
        found = self.values[value]
        assert isinstance(found, Pointer)
        return found

    def strides(self, value: SSAValue) -> tuple[Stride, ...]:
        """The strides of a memref in elements: numbers where they are static."""
        found = strides_of(memref_type(value))
        known = self.pointer(value).strides
        return tuple(known[dim] if s is None else s for dim, s in enumerate(found))

    def extent(self, extent: Extent) -> str:
        """The operand of an extent."""
        return str(extent) if isinstance(extent, int) else self.scalar(extent)

    def block(self, block: Block) -> None:
        """Emit the ops of a block in order."""
        self.ops(block.ops)

    def ops(self, ops: Iterable[Operation]) -> None:
        """Emit ops in order."""
        for op in ops:
            self.op(op)

    def op(self, op: Operation) -> None:
        """Emit one op."""
        emit = self.table.get(op.name)
        if emit is None:
            raise no_instruction(op)
        emit(self, op)


def no_instruction(op: Operation) -> BackendError:
    """What an op is refused with that this target cannot run."""
    return BackendError(
        "GEM0421",
        f"{op.name} has no instruction on this target",
        _ADVICE.get(op.name, "lower it with a pass first"),
    )


def shape_of(t: Attribute) -> tuple[int, int]:
    """Rows and lanes of a vector type; a scalar is one row of one lane."""
    if not isinstance(t, VectorType):
        return 1, 1
    shape = t.get_shape()
    if len(shape) != 2:
        raise BackendError("GEM0422", f"{t} is not a matrix of rows and lanes")
    return shape[0], shape[1]


def element_of(t: Attribute) -> Attribute:
    """The type of an element of a vector, or of a number."""
    return t.element_type if isinstance(t, VectorType) else t


def set_rows(e: Emitter, result: SSAValue, rows: Rows) -> None:
    """What `result` has become; while there is a `row`, one more row of it."""
    if not isinstance(result.type, VectorType):
        e.values[result] = rows[0]
    elif e.row is None:
        e.values[result] = rows
    else:
        before = e.values.get(result, [])
        assert isinstance(before, list)
        e.values[result] = [*before, *rows]
