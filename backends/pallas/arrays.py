"""Arrays of a kernel as JAX holds them: dense, and cut into blocks.

In the IR an operand is a view of an argument: a transposed one has its strides exchanged, one that
is the same along a dimension has a stride of 0 there. Here the strides say in which order the axes
of the argument lie; block and index map follow that order, and a dimension of stride 0 has size 1.
Nothing is copied.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

from xdsl.dialects import memref
from xdsl.dialects.builtin import IntAttr, NoneAttr, StridedLayoutAttr
from xdsl.ir import SSAValue
from xdsl.ir.affine import AffineConstantExpr, AffineExpr

from gemmir.backends.pallas.types import item_bytes
from gemmir.errors import BackendError
from gemmir.ir.dialect import memref_type, static_strides
from gemmir.ir.pallas import BlockAttr


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis of an array in memory: its size, and what a block has of it.

    `block` is None where a block has one element and no such dimension. `dim` is the dimension of
    the block in the IR, and `index` the number of the block along it.
    """

    size: int
    block: int | None
    dim: int
    index: AffineExpr


@dataclass(frozen=True, kw_only=True)
class Operand:
    """An array that a kernel reads or writes: the value it is a view of, and its axes as they lie.

    `transposed` says that rows and columns of a block lie the other way round than in the IR.
    """

    base: SSAValue
    axes: tuple[Axis, ...]
    transposed: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array."""
        return tuple(axis.size for axis in self.axes)

    @property
    def block(self) -> tuple[int, int]:
        """The shape of a block, as the kernel sees it."""
        rows, columns = (axis.block for axis in self.axes if axis.block is not None)
        return rows, columns

    @property
    def is_whole(self) -> bool:
        """Whether a block is all of the array, in every step."""
        return all(
            axis.block == axis.size and isinstance(axis.index, AffineConstantExpr)
            for axis in self.axes
        )

    @property
    def item_bytes(self) -> int:
        """Bytes of an element."""
        return item_bytes(memref_type(self.base).element_type)


def operand_of(name: str, value: SSAValue, block: BlockAttr, reference: SSAValue) -> Operand:
    """How `value` lies, and its blocks; `name` is for errors."""
    base, offset = _base_of(value)
    sizes, strides = memref_type(value).get_shape(), static_strides(memref_type(value))
    dropped = len(block.extents) - len(memref_type(reference).get_shape())
    if len(sizes) - dropped != 2:
        raise BackendError(
            "GEM0467",
            f"blocks of {name} have {len(sizes) - dropped} dimensions",
            "tile the batch by 1, so that a block is a matrix",
        )
    order = _order(sizes, strides, memref_type(base).get_shape())
    axes: list[Axis] = []
    for dim in order:
        is_shared = strides[dim] == 0
        if is_shared and dim < dropped:
            continue
        extent = 1 if is_shared else block.extents[dim]
        axes.append(
            Axis(
                size=1 if is_shared else sizes[dim],
                block=None if dim < dropped else extent,
                dim=dim,
                index=AffineConstantExpr(0) if is_shared else block.map.data.results[dim],
            )
        )
    _require_all_of(name, base, axes, strides, offset)
    rows, columns = (dim for dim in order if dim >= dropped)
    return Operand(base=base, axes=tuple(axes), transposed=rows > columns)


def _base_of(value: SSAValue) -> tuple[SSAValue, int | None]:
    """The array that `value` is a view of, and where in it the view begins."""
    offset: int | None = 0
    layout = memref_type(value).layout
    if isinstance(layout, StridedLayoutAttr):
        offset = layout.offset.data if isinstance(layout.offset, IntAttr) else None
    while isinstance(value.owner, memref.ReinterpretCastOp):
        value = value.owner.source
    return value, offset


def _order(sizes: Sequence[int], strides: Sequence[int], base: Sequence[int]) -> list[int]:
    """The dimensions in the order in which they lie; one of stride 0 stays where it is.

    Those of size 1 may lie anywhere: they are where an array of the shape `base` has them.
    """
    moving = [dim for dim, stride in enumerate(strides) if stride]
    fitting = [order for order in permutations(moving) if _is_sorted(sizes, strides, order)]
    like_base = [o for o in fitting if [sizes[dim] for dim in o] == list(base)]
    order = list([*like_base, *fitting, tuple(moving)][0])
    for dim, stride in enumerate(strides):
        if not stride:
            order.insert(dim, dim)
    return order


def _is_sorted(sizes: Sequence[int], strides: Sequence[int], dims: Sequence[int]) -> bool:
    """Whether dimensions lie in this order."""
    own = [strides[dim] for dim in dims if sizes[dim] > 1]
    return own == sorted(own, reverse=True)


def _require_all_of(
    name: str, base: SSAValue, axes: Sequence[Axis], strides: Sequence[int], offset: int | None
) -> None:
    """A view shows every element of the array that it is of, once."""
    step = 1
    for axis in reversed(axes):
        if axis.size > 1 and strides[axis.dim] != step:
            raise _not_dense(name, base, strides)
        step *= axis.size
    if step != math.prod(memref_type(base).get_shape()) or offset != 0:
        raise _not_dense(name, base, strides)


def _not_dense(name: str, base: SSAValue, strides: Sequence[int]) -> BackendError:
    return BackendError(
        "GEM0468",
        f"{name} is a view with strides {tuple(strides)} of {memref_type(base)}, and arrays of JAX "
        "are dense",
        f"leave out ld{name} and batch_stride_{name}, or pass a copy without gaps",
    )


def require_dense(name: str, value: SSAValue) -> None:
    """An argument lies as JAX has arrays; `BackendError` GEM0469 where it has gaps between rows."""
    kind = memref_type(value)
    if isinstance(kind.layout, NoneAttr) or 0 in kind.get_shape():
        return
    step, strides = 1, static_strides(kind)
    for size, stride in reversed(list(zip(kind.get_shape(), strides, strict=True))):
        if size > 1 and stride != step:
            raise BackendError(
                "GEM0469",
                f"{name} has strides {strides}, and arrays of JAX are dense",
                f"leave out ld{name} and batch_stride_{name}, or pass a copy without gaps",
            )
        step *= size
