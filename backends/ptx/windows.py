"""Where a window into shared memory begins, as i32 and with few instructions in a loop.

What is the same in every iteration is one number, found where the kernel begins; an index that
changes, such as a stage, costs one multiply-add.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from xdsl.dialects import arith
from xdsl.dialects.builtin import IndexType
from xdsl.ir import Operation, SSAValue

from gemmir.backends.llvm.emitter import Emitter
from gemmir.backends.llvm.text import is_literal
from gemmir.backends.ptx.launch import kernel_of
from gemmir.backends.ptx.shared import item_bytes, shared_buffers, shared_memory
from gemmir.errors import BackendError
from gemmir.ir.attributes import SWIZZLE_ROWS, SwizzleAttr
from gemmir.ir.dialect import memref_type, static_strides
from gemmir.ir.index import Extent, constant_of
from gemmir.ir.views import chain, offsets_of


@dataclass(frozen=True)
class Sum:
    """A constant plus values times factors."""

    constant: int
    factors: tuple[tuple[SSAValue, int], ...] = ()

    def plus(self, other: Sum) -> Sum:
        """This and another."""
        factors = Counter(dict(self.factors))
        factors.update(dict(other.factors))
        return Sum(self.constant + other.constant, tuple(factors.items()))

    def times(self, factor: int) -> Sum:
        """This so many times."""
        return Sum(self.constant * factor, tuple((v, n * factor) for v, n in self.factors))


def sum_of(extent: Extent) -> Sum:
    """An index as a sum of what it is made of."""
    known = constant_of(extent)
    if known is not None:
        return Sum(known)
    assert isinstance(extent, SSAValue)
    op = extent.owner
    if isinstance(op, arith.IndexCastOp):
        return sum_of(op.input)
    if isinstance(op, arith.AddiOp):
        return sum_of(op.lhs).plus(sum_of(op.rhs))
    if isinstance(op, arith.MuliOp):
        for x, y in ((op.lhs, op.rhs), (op.rhs, op.lhs)):
            factor = constant_of(y)
            if factor is not None:
                return sum_of(x).times(factor)
    return Sum(0, ((extent, 1),))


@dataclass(frozen=True, kw_only=True)
class Window:
    """A window into `root`, a buffer in shared memory, that begins at `offsets` of it."""

    root: SSAValue
    offsets: tuple[Sum, ...]

    @property
    def item_bytes(self) -> int:
        """Bytes of an element."""
        return item_bytes(memref_type(self.root))

    @property
    def swizzle(self) -> SwizzleAttr | None:
        """How the buffer is swizzled."""
        layout = memref_type(self.root).layout
        return layout if isinstance(layout, SwizzleAttr) else None

    def bytes_at(self, place: Sequence[int]) -> int:
        """How far the element `place` of the window is behind what its values make.

        In a swizzled buffer that is where it would be in one that is not.
        """
        at = [offset.constant + n for offset, n in zip(self.offsets, place, strict=True)]
        layout = self.swizzle
        if layout is None:
            strides = static_strides(memref_type(self.root))
            return self.item_bytes * sum(n * s for n, s in zip(at, strides, strict=True))
        fast, width = layout.dim.data, layout.width.data
        panel, within = divmod(at[fast], width)
        return self.item_bytes * (panel * layout.stride.data + at[1 - fast] * width + within)

    @property
    def factors(self) -> dict[SSAValue, int]:
        """What the values are multiplied by, in bytes."""
        layout = self.swizzle
        if layout is None:
            steps = list(static_strides(memref_type(self.root)))
        else:
            steps = [layout.width.data] * 2
            steps[layout.dim.data] = layout.stride.data // layout.width.data
        found = Counter[SSAValue]()
        for offset, step in zip(self.offsets, steps, strict=True):
            for value, factor in offset.factors:
                found[value] += factor * step * self.item_bytes
        return dict(found)


def window_of(e: Emitter, memory: SSAValue) -> Window:
    """The window that `memory` is.

    Raises `BackendError` GEM0447 where it begins in the middle of the pattern of a swizzle: that is
    taken from addresses, by the TMA and the products of warpgroups.
    """
    root, views = chain(memory)
    offsets = [Sum(0)] * len(memref_type(root).get_shape())
    for view in views:
        offsets = [o.plus(sum_of(n)) for o, n in zip(offsets, offsets_of(view), strict=True)]
    window = Window(root=root, offsets=tuple(offsets))
    layout = window.swizzle
    if layout is not None:
        fast, width = layout.dim.data, layout.width.data
        for dim, step in ((1 - fast, SWIZZLE_ROWS), (fast, width)):
            known = math.gcd(offsets[dim].constant, *_divisors(e, offsets[dim]))
            if known % step:
                raise BackendError(
                    "GEM0447",
                    f"a window of a swizzled buffer begins at a multiple of {known} along "
                    f"dimension {dim}",
                    f"its pattern begins at multiples of {step}: use larger tiles",
                )
    return window


def _divisors(e: Emitter, offset: Sum) -> list[int]:
    return [factor * e.text.divisor(e.scalar(value)) for value, factor in offset.factors]


MOST_BYTES = 1 << 18
"""What the address of a descriptor can say: PTX ISA 9.0, section "Matrix Descriptor Format". Above
that an address has the number of the block in its cluster, on hardware from the second block on."""


BLOCK_BITS: Final = 18
"""Bits of an address in the shared memory of one block: PTX ISA 9.0, "Matrix descriptor". What
stands above them is the number of the block in its cluster."""


def address(e: Emitter, window: Window, *, unit: int = 1, plus: int = 0) -> str:
    """Where `window` begins in shared memory, and `plus`, as i32.

    In `unit` bytes, where these are more than one, and then from the beginning of the memory of
    this block.
    """
    text = e.text
    begin = text.early(f"ptrtoint ptr addrspace(3) {_place(e, window.root)} to i32")
    if unit > 1:
        begin = text.early(f"and i32 {begin}, {(1 << BLOCK_BITS) - 1}")
        begin = text.early(f"udiv i32 {begin}, {unit}")
        begin = text.early(f"and i32 {begin}, {MOST_BYTES // unit - 1}")
    constant = window.bytes_at([0] * len(window.offsets)) // unit + plus
    later: list[str] = []
    for value, factor in window.factors.items():
        index = e.scalar(value)
        if is_literal(index):
            constant += int(index) * factor // unit
            continue
        is_early = index in text.early_names
        write = text.early if is_early else text.value
        if isinstance(value.type, IndexType):
            index = text.narrowed(index)
        term = write(f"mul i32 {index}, {factor // unit}")
        if is_early:
            begin = text.early(f"add i32 {begin}, {term}")
        else:
            later.append(term)
    begin = text.early(f"add i32 {begin}, {constant}") if constant else begin
    for term in later:
        begin = text.value(f"add i32 {begin}, {term}")
    return begin


def _place(e: Emitter, root: SSAValue) -> str:
    buffer = root.owner
    assert isinstance(buffer, Operation)
    kernel = kernel_of(buffer)
    number = next(n for n, b in enumerate(shared_buffers(kernel)) if b is buffer)
    return shared_memory(kernel, e.symbol).address(number)


def pointer(e: Emitter, window: Window) -> str:
    """The same as a pointer into shared memory."""
    return e.text.value(f"inttoptr i32 {address(e, window)} to ptr addrspace(3)")
