"""A compiled GEMM some of whose sizes are those of the arrays that it is called with.

For each set of shapes and strides that it meets it keeps an ordinary `Kernel`, which makes all the
checks and passes the sizes on behind the addresses.
"""

from __future__ import annotations

import operator
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final, SupportsIndex, TypeAlias

from gemmir.backend import Loaded
from gemmir.errors import CallError
from gemmir.kernel import BoundCall, Kernel, as_array, in_order
from gemmir.signature import Argument, Signature
from gemmir.sizes import DisagreementError, Layout, Unknown, sizes_of

SHAPES_KEPT: Final = 256
"""Kernels of known sizes that one runtime kernel keeps."""

Shapes: TypeAlias = "tuple[tuple[tuple[int, ...], tuple[int, ...]] | None, ...]"
"""The shape and strides in bytes of each operand; None for an output that is still to be made."""


class RuntimeKernel(Kernel):
    """A compiled function of arrays of several sizes.

    It is called as a `Kernel` is; sizes and leading dimensions that were unknown are read off the
    arrays, and a new output has the shape that follows from the others, without gaps.
    """

    def __init__(self, function: Callable[..., int], signature: Signature) -> None:
        self.signature = signature
        self._function = function
        self._kernels: OrderedDict[Shapes, Kernel] = OrderedDict()

    def __call__(self, *operands: object, out: Any = None, **named: object) -> Any:
        """Run on `operands`; returns `out`, or a new array where it is None."""
        values = self._ordered(operands, named)
        return self._kernel(values, out)(*values, out=out)

    def bind(self, *operands: object, out: Any = None, **named: object) -> BoundCall:
        """The call of these arrays as a function without arguments, checked now and not again."""
        values = self._ordered(operands, named)
        return self._kernel(values, out).bind(*values, out=out)

    def at(self, **sizes: int) -> Kernel:
        """The kernel of arrays with these sizes, which shares the code of this one.

        `CallError` GEM1358 where a size is missing or is none of this kernel, is no whole number or
        less than 0, and where rows of the output would overlap.
        """
        names = self.signature.sizes
        wrong = sorted({*names} ^ {*sizes}) or [n for n in names if not _is_size(sizes[n])]
        if wrong:
            raise CallError(
                "GEM1358",
                f"the sizes {', '.join(f'{n}={s}' for n, s in sizes.items()) or 'none'}",
                f"give {', '.join(names)}, each 0 or more",
            )
        signature = self.signature.at(sizes)
        _require_apart(signature.arguments[-1])
        values = [sizes[name] for name in names]
        function = self._function
        entry = function.entry if isinstance(function, Loaded) else function

        def call(*addresses: int) -> int:
            return entry(*addresses, *values)

        return Kernel(Loaded(entry=call, owner=function), signature)

    def __repr__(self) -> str:
        shown = (
            f"{a.name}: {a.dtype}[{', '.join(map(_shown, a.shape))}]"
            for a in self.signature.arguments
        )
        return f"<RuntimeKernel {self.signature.symbol}({', '.join(shown)})>"

    def _ordered(self, operands: tuple[object, ...], named: Mapping[str, object]) -> Any:
        names = [argument.name for argument in self.signature.arguments]
        return in_order(names[:-1], names[-1], operands, named)

    def _kernel(self, operands: tuple[Any, ...], out: Any) -> Kernel:
        """The kernel for arrays like these."""
        try:
            key: Shapes = tuple([(v.shape, v.strides) for v in operands])
            key = (*key, None if out is None else (out.shape, out.strides))
            found = self._kernels.get(key)
        except (AttributeError, TypeError):  # an array of another library
            return self._new(operands, out)
        if found is None:
            found = self._new(operands, out)
            self._kernels[key] = found
            if len(self._kernels) > SHAPES_KEPT:
                self._kernels.popitem(last=False)
        return found

    def _new(self, operands: tuple[Any, ...], out: Any) -> Kernel:
        values = operands if out is None else (*operands, out)
        stated = self.signature.arguments[: len(values)]
        found = [_layout(own, value) for own, value in zip(stated, values, strict=True)]
        layouts = [Layout(name=a.name, shape=a.shape, strides=a.strides) for a in stated]
        if out is None:
            *_, last = self.signature.arguments
            layouts.append(Layout(name=last.name, shape=(), strides=()))
            found.append(layouts[-1])
        try:
            sizes = sizes_of(self.signature.sizes, layouts, found)
        except DisagreementError as error:
            raise CallError("GEM1358", str(error), "pass arrays that fit one another") from None
        if out is None:
            sizes = self._with_output(sizes)
        return self.at(**sizes)

    def _with_output(self, sizes: dict[str, int]) -> dict[str, int]:
        """`sizes` where a new output has no gaps."""
        last = self.signature.arguments[-1]
        rows = {n.name for n in last.strides if isinstance(n, Unknown)} - {
            n.name for n in last.shape if isinstance(n, Unknown)
        }
        length = last.shape[-1]
        width = sizes[length.name] if isinstance(length, Unknown) else length
        return {name: max(width, 1) if name in rows else size for name, size in sizes.items()}


def _is_size(size: object) -> bool:
    return isinstance(size, SupportsIndex) and 0 <= operator.index(size) <= sys.maxsize


def _require_apart(output: Argument) -> None:
    """`CallError` GEM1358 where rows of the output have elements in common."""
    (rows, length), (apart, _) = output.shape, output.strides
    if rows > 1 and apart < length:
        raise CallError(
            "GEM1358",
            f"rows of {output.name} have {length} elements and begin every {apart}",
            f"pass an array whose rows are {length} or more apart",
        )


def _shown(extent: int) -> str:
    return extent.name if isinstance(extent, Unknown) else str(extent)


def _layout(own: Argument, value: object) -> Layout:
    """How an array lies; a `CallError` where it can be no operand whatever the sizes are."""
    array = as_array(own.name, value)
    if array.ndim != len(own.shape):
        raise CallError(
            "GEM1358",
            f"{own.name} has shape {array.shape} where {len(own.shape)} dimensions are needed",
            f"pass an array of {' x '.join(map(_shown, own.shape))}",
        )
    if min(array.strides, default=0) < 0:
        raise CallError(
            "GEM1358",
            f"{own.name} has negative strides {array.strides} (in bytes)",
            f"pass a copy, such as {own.name}.copy()",
        )
    strides = tuple(s // array.itemsize for s in array.strides)
    return Layout(name=own.name, shape=array.shape, strides=strides)
