"""What every op emitter works with: the lines of a kernel and what each SSA value has become.

A memref in VMEM is a `Ref`; a vector, an index or a flag is an `Expr`, a piece of Python. An
expression that is used once stands where it is used, unless the line gets too long or something is
written before; every other one gets a name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias, TypeGuard

from xdsl.dialects.builtin import VectorType
from xdsl.ir import Attribute, Operation, SSAValue

from gemmir.backends.pallas.layout import wrapped
from gemmir.backends.pallas.names import Names
from gemmir.errors import BackendError
from gemmir.ir.index import Extent

INLINE: Final = 72
"""An expression of more characters gets a line of its own."""

CHOICE, CONDITION, BOTH, SUM, PRODUCT, SIGN, ATOM = range(7)
"""How tightly the outermost operator of an expression binds."""

_ADVICE: Final = {
    "gemmir.gemm": "add pipeline{… with=dma} and then vectorize{with=mxu}",
    "gemmir.epilogue": "add fuse-epilogue before pipeline, and then vectorize{with=mxu}",
    "gemmir.forall": "tile over=grid, and add pipeline, which makes the grid of a kernel of it",
    "gemmir.pack": "add pipeline{… with=dma}, which makes blocks of what is copied to vmem",
}


@dataclass(frozen=True, kw_only=True)
class Expr:
    """A piece of Python.

    `shape` is that of the array it makes, in the order in which its axes lie, with 1 along which it
    is the same everywhere; () of a scalar, which stands for a whole vector too. `transposed` says
    that they lie the other way round than in the IR. `reads` says that it depends on what is in
    VMEM, `is_literal` that it is a number of Python, known when the kernel is traced.
    """

    text: str
    level: int = ATOM
    shape: tuple[int, ...] = ()
    transposed: bool = False
    reads: bool = False
    is_literal: bool = False

    def within(self, level: int) -> str:
        """The text as an operand of an operator of this level."""
        return self.text if self.level >= level else f"({self.text})"


ZERO: Final = Expr(text="0", is_literal=True)


@dataclass(frozen=True, kw_only=True)
class Ref:
    """A matrix in VMEM, or a part of it.

    `shape` is that of the matrix as it lies there, with 1 along an axis along which it is the same
    everywhere. `offsets` and `extents` say which part of it this is, in the order of the IR.
    """

    name: str
    shape: tuple[int, int]
    extents: tuple[Extent, Extent]
    offsets: tuple[Expr, Expr] = (ZERO, ZERO)
    transposed: bool = False


Table: TypeAlias = "Mapping[str, Callable[[Emitter, Any], None]]"
"""The emitter of each op, by the name of the op, so that a dialect need not be imported for it."""


@dataclass
class Emitter:
    """The body of one kernel: the lines so far, and what each SSA value has become."""

    table: Table
    names: Names
    values: dict[SSAValue, Expr | Ref] = field(default_factory=dict[SSAValue, Expr | Ref])
    lines: list[str] = field(default_factory=list[str])
    depth: int = 1
    _unnamed: dict[SSAValue, Expr] = field(default_factory=dict[SSAValue, Expr])

    def ref(self, value: SSAValue) -> Ref:
        """The matrix in VMEM that a memref is."""
        found = self.values.get(value)
        if not isinstance(found, Ref):
            raise BackendError(
                "GEM0460",
                f"{value.type} is no block of a kernel and no scratch buffer of it",
                "promote it to vmem before pipeline",
            )
        return found

    def expr(self, value: SSAValue) -> Expr:
        """The expression of a value, which is used here."""
        found = self.values[value]
        assert isinstance(found, Expr)
        self._unnamed.pop(value, None)
        return found

    def index(self, value: SSAValue, text: str) -> None:
        """An index of a step of the grid, which gets a name where it is used."""
        if value.uses.get_length():
            self._name(value, Expr(text=text))

    def define(
        self, op: Operation, inputs: Sequence[SSAValue], make: Callable[[Sequence[Expr]], Expr]
    ) -> None:
        """The result of `op` is what `make` makes of its inputs, the longest of which are named."""
        exprs = [self.expr(value) for value in inputs]
        made = make(exprs)
        while len(made.text) > INLINE and any(len(e.text) > INLINE // 2 for e in exprs):
            longest = max(range(len(exprs)), key=lambda n: len(exprs[n].text))
            exprs[longest] = self._name(inputs[longest], exprs[longest])
            made = make(exprs)
        result = op.results[0]
        made = replace(made, reads=made.reads or any(e.reads for e in exprs))
        self._set(result, made, default_name(op, made))

    def _set(self, result: SSAValue, made: Expr, otherwise: str) -> None:
        """Keep an expression for the place where it is used, or name it now."""
        if result.name_hint is None:
            result.name_hint = otherwise
        uses = result.uses.get_length()
        self.values[result] = made
        if made.is_literal or uses == 0:
            return
        if uses > 1 or len(made.text) > INLINE:
            self._name(result, made)
        elif made.reads:
            self._unnamed[result] = made

    def _name(self, value: SSAValue, made: Expr) -> Expr:
        """Give an expression a name, by a line of its own."""
        named = self.named(value.name_hint or "x", made)
        self.values[value] = named
        self._unnamed.pop(value, None)
        return named

    def named(self, wanted: str, made: Expr) -> Expr:
        """An expression under a name of its own; a name stays as it is."""
        if made.text.isidentifier():
            return made
        name = self.names.new(wanted, "x")
        self.line(f"{name} = {made.text}")
        return replace(made, text=name, level=ATOM, reads=False)

    def line(self, text: str) -> None:
        """Append a line, or an empty one."""
        self.lines += wrapped(text, self.depth) if text else [""]

    def statement(self, text: str) -> None:
        """Append a line that writes; what was read before is named before it."""
        self.settle()
        self.line(text)

    def settle(self) -> None:
        """Name every expression that reads what may now be written."""
        for value, made in list(self._unnamed.items()):
            self._name(value, made)

    @contextmanager
    def inner(self):
        """Lines one level deeper."""
        self.depth += 1
        yield
        self.settle()
        self.depth -= 1

    def ops(self, ops: Iterable[Operation]) -> None:
        """Emit ops in order."""
        for op in ops:
            self.op(op)

    def op(self, op: Operation) -> None:
        """Emit one op."""
        emit = self.table.get(op.name)
        if emit is None:
            raise BackendError(
                "GEM0461",
                f"{op.name} has no spelling in a Pallas kernel",
                _ADVICE.get(op.name, "lower it with a pass first"),
            )
        emit(self, op)


_NAMES: Final = {"pallas.dot": "product", "arith.minsi": "size"}


def default_name(op: Operation, made: Expr) -> str:
    """What a value is called that has no name in the IR: what is read is called as the array is."""
    of_array = re.search(r"\b(\w+)_ref\[", made.text)
    if op.name == "vector.transfer_read" and of_array:
        return of_array[1]
    return _NAMES.get(op.name, "x" if vectors(op.results) else "index")


def vectors(values: Iterable[SSAValue]) -> list[VectorType[Attribute]]:
    """The types of those values that are vectors."""
    return [value.type for value in values if _is_vector(value.type)]


def _is_vector(kind: Attribute) -> TypeGuard[VectorType[Attribute]]:
    return isinstance(kind, VectorType)


def element_of(value: SSAValue) -> Attribute:
    """The type of an element of a vector, or of a scalar."""
    return next((kind.element_type for kind in vectors([value])), value.type)


def shape_of(value: SSAValue) -> tuple[int, ...]:
    """The shape of a vector; () of a scalar."""
    return next((kind.get_shape() for kind in vectors([value])), ())
