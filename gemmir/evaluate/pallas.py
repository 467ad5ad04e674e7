"""The pallas dialect. A step sees of a block what is in the array; the rest of it is NaN.

The steps of a grid run in order, and blocks are copied as `gemmir.ir.pallas` says: what a step
leaves in the block of an output is copied back when the next step uses another one. Along a
parallel dimension the steps run from the last to the first, for they must not need each other.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from xdsl.dialects.builtin import MemRefType
from xdsl.ir import Attribute

from gemmir.evaluate.frame import Frame, Meanings, Step
from gemmir.evaluate.memref import drop_leading, memref_of, new_view
from gemmir.evaluate.products import multiply
from gemmir.evaluate.values import Array, dtype_of
from gemmir.evaluate.view import View
from gemmir.ir.pallas import PARALLEL, BlockAttr, CallOp, DotOp


def _dot(frame: Frame, op: DotOp) -> Step:
    summed, precision = dtype_of(op.result.type), op.precision

    def step(lhs: Array, rhs: Array) -> tuple[Array]:
        return (multiply(lhs, rhs, summed, precision),)

    return step


@dataclass(kw_only=True, eq=False)
class _Block:
    """The block of one array that is in VMEM, if any, and its number along each dimension."""

    array: View
    attribute: BlockAttr
    type: MemRefType[Attribute]
    number: tuple[int, ...] | None = None
    buffer: View | None = None

    def go_to(self, indices: Sequence[int], numbers: Sequence[int], *, is_output: bool) -> View:
        """The buffer for the step `indices`, with the block that this uses.

        `numbers` are what symbols of its map stand for.
        """
        of = self.attribute.map.data
        number = of.eval(indices, numbers[: of.num_symbols])
        if number == self.number and self.buffer is not None:
            return self.buffer
        if is_output:
            self.copy_back()
        self.number = tuple(number)
        self.buffer = new_view(self.type, self.type.get_shape(), on_heap=False)
        if not is_output:
            inside, window = self._inside()
            if 0 not in inside.sizes:
                inside.fill_from(window.array())
        return self.buffer

    def copy_back(self) -> None:
        """Copy the block that is there into the array."""
        if self.number is not None:
            inside, window = self._inside()
            window.fill_from(inside.array())

    def _inside(self) -> tuple[View, View]:
        """What of the buffer is within the array, and the window of the array that it is."""
        assert self.number is not None and self.buffer is not None
        extents = self.attribute.extents
        whole = self.array.sizes
        starts = [n * e for n, e in zip(self.number, extents, strict=True)]
        cut = [
            max(min(extent, size - start), 0)
            for start, extent, size in zip(starts, extents, whole, strict=True)
        ]
        starts = [min(start, size) for start, size in zip(starts, whole, strict=True)]
        dropped = len(extents) - len(self.buffer.sizes)
        window = drop_leading(self.array.window(starts, tuple(cut)), dropped)
        inside = self.buffer.window([0] * len(cut[dropped:]), tuple(cut[dropped:]))
        return inside, window


def _call(frame: Frame, op: CallOp) -> Step:
    body = op.body.block
    scratch = [memref_of(value) for value in op.scratch]
    types = [memref_of(value) for value in op.references]

    def step(*operands: View) -> tuple[()]:
        table, arrays = None, operands
        if op.prefetched is not None:
            table, *arrays = operands
        blocks = [
            _Block(array=array, attribute=attribute, type=of)
            for array, attribute, of in zip(arrays, op.blocks, types, strict=True)
        ]
        kept = [new_view(of, of.get_shape(), on_heap=False) for of in scratch]
        outputs = blocks[len(op.inputs) :]
        for indices in _steps(op):
            numbers = [] if table is None else _column(op, table, indices)
            views = [b.go_to(indices, numbers, is_output=b in outputs) for b in blocks]
            frame.run(body, (*indices, *views, *kept))
        for block in outputs:
            block.copy_back()
        return ()

    return step


def _column(op: CallOp, table: View, indices: Sequence[int]) -> list[int]:
    """The numbers that are prefetched for a step."""
    assert op.along is not None
    return table.array()[:, indices[op.along.value.data]].tolist()


def _steps(op: CallOp) -> Iterator[tuple[int, ...]]:
    """The indices of every step, in order."""
    words = [word.data for word in op.semantics]
    ranges: list[Sequence[int]] = [range(n) for n in op.extents]
    return itertools.product(
        *(r[::-1] if word == PARALLEL else r for r, word in zip(ranges, words, strict=True))
    )


MEANINGS: Final[Meanings] = {CallOp: _call, DotOp: _dot}
