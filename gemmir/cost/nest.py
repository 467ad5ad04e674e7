"""The loops of a CPU kernel as the model sees them: what each touches, and what it computes.

A nest is read from the IR of the last stage alone. A block is what runs one after the other: loops,
the places in memory that are touched, and how many instructions of which kind that takes. What is
behind a condition counts by the share of the times that it is so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, cast

from xdsl.dialects import arith, func, memref, scf, vector
from xdsl.dialects.builtin import (
    FixedBitwidthType,
    IndexType,
    MemRefType,
    ModuleOp,
    VectorType,
)
from xdsl.ir import Attribute, BlockArgument, Operation, SSAValue
from xdsl.ir import Block as IrBlock

from gemmir.cost.indices import Indices, Linear, LoopVariable
from gemmir.ir.amx import (
    TileLoadOp,
    TileProductOp,
    TileStoreOp,
    TileType,
    group_of,
    tile_type,
)
from gemmir.ir.attributes import PanelAttr
from gemmir.ir.dialect import (
    CORES,
    ColumnOp,
    ExtendOp,
    ForallOp,
    LaneSumOp,
    OuterProductOp,
    PairProductOp,
    PrefetchOp,
    memref_type,
    strides_of,
)
from gemmir.ir.transfers import EXCHANGED
from gemmir.ir.views import cast_strides, offsets_of, sizes_of

Kind = Literal["read", "write", "prefetch"]


DIVIDE_INSTRUCTIONS: Final = 8
"""A division takes the place of so many: uops.info, VDIVPS of Zen 5 and Golden Cove."""

CONVERT_INSTRUCTIONS: Final = 2
COLUMN_INSTRUCTIONS: Final = 4
"""Elements that are made wider: a vector is taken apart and converted; of a column of A each
element is loaded, converted and spread, which takes 2 cycles of f16 on Zen 5."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Memory:
    """An argument or a buffer, however it is looked at."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Array:
    """A matrix in memory by the strides of its dimensions in bytes, or cut into panels.

    Views that count its elements in another way are arrays of their own with the same `memory`.
    """

    memory: Memory
    shape: tuple[float, ...]
    strides: tuple[float, ...]
    item_bytes: float
    panel: PanelAttr | None = None

    @property
    def bytes(self) -> float:
        """Bytes of all elements; a stride of 0 repeats them."""
        sizes = zip(self.shape, self.strides, strict=True)
        count = math.prod(size for size, stride in sizes if stride)
        return count * self.item_bytes


@dataclass(frozen=True, eq=False, kw_only=True)
class Access:
    """A box of an array that an op touches, `share` of the times; where it is moves with loops."""

    array: Array
    begin: tuple[Linear, ...]
    size: tuple[float, ...]
    kind: Kind
    share: float = 1.0


@dataclass(kw_only=True)
class Work:
    """Instructions on vectors as long as a register, by what carries them out.

    `products` are multiply-adds, `tile_products` those of matrix tiles; `split_loads` and
    `split_stores` are those that touch a second cache line, `masked_stores` those of part of a
    vector, `masked_elements` loads of an element that may not be there. `chain` is how many
    multiply-adds of an iteration wait for one another, and `tile_chain` how many of tiles.
    """

    products: float = 0.0
    loads: float = 0.0
    stores: float = 0.0
    split_loads: float = 0.0
    split_stores: float = 0.0
    masked_stores: float = 0.0
    masked_elements: float = 0.0
    arithmetic: float = 0.0
    shuffles: float = 0.0
    prefetches: float = 0.0
    flops: float = 0.0
    chain: float = 0.0
    tile_products: float = 0.0
    tile_chain: float = 0.0

    def add(self, other: Work, times: float) -> None:
        """Add what is done so many times."""
        for name in COUNTED:
            setattr(self, name, getattr(self, name) + times * getattr(other, name))


COUNTED: Final = (
    "products",
    "loads",
    "stores",
    "split_loads",
    "split_stores",
    "masked_stores",
    "masked_elements",
    "arithmetic",
    "shuffles",
    "prefetches",
    "flops",
    "tile_products",
)


@dataclass(kw_only=True)
class Nest:
    """What runs one after the other; a loop has a `variable` and runs so often, `over` cores."""

    variable: LoopVariable | None = None
    cores: bool = False
    share: float = 1.0
    items: list[Nest | Access] = field(default_factory=list["Nest | Access"])
    work: Work = field(default_factory=Work)

    @property
    def trips(self) -> float:
        """How often the body runs."""
        return self.variable.trips if self.variable else 1.0

    @property
    def nests(self) -> list[Nest]:
        """The loops inside, in order."""
        return [item for item in self.items if isinstance(item, Nest)]

    @property
    def accesses(self) -> list[Access]:
        """What is touched outside of loops inside."""
        return [item for item in self.items if isinstance(item, Access)]

    def walk(self) -> Iterator[Nest]:
        """This and all loops inside."""
        yield self
        for nest in self.nests:
            yield from nest.walk()


@dataclass(frozen=True, kw_only=True)
class _View:
    """What a value of type memref is: a box of an array."""

    array: Array
    begin: tuple[Linear, ...]


@dataclass(kw_only=True)
class Reader:
    """Reads the nest of a function; `vector_bytes` is the length of a register."""

    module: ModuleOp
    vector_bytes: int
    indices: Indices
    views: dict[SSAValue, _View] = field(default_factory=dict[SSAValue, _View])

    def function(self, name: str, arguments: Sequence[SSAValue] | None = None) -> Nest:
        """The nest of a function, called with `arguments`, or by itself."""
        found = next(
            op for op in self.module.ops if isinstance(op, func.FuncOp) and op.sym_name.data == name
        )
        for number, value in enumerate(found.body.block.args):
            if arguments is not None:
                self._give(value, arguments[number])
            elif isinstance(value.type, MemRefType):
                self.views[value] = self._whole(value)
        nest = Nest()
        self._block(found.body.block, nest, 1.0)
        return nest

    def _give(self, value: SSAValue, argument: SSAValue) -> None:
        if argument in self.views:
            self.views[value] = self.views[argument]
        else:
            self.indices.given[value] = argument

    def _whole(self, value: SSAValue) -> _View:
        """A value as an array of its own."""
        found = memref_type(value)
        shape = tuple(self.indices.extent(value, d) for d in range(len(found.get_shape())))
        item = _bits(found.element_type) / 8
        panel = found.layout if isinstance(found.layout, PanelAttr) else None
        strides = (item,) * len(shape) if panel else self._strides(value, shape, item)
        array = Array(
            memory=Memory(),
            shape=shape,
            strides=strides,
            item_bytes=item,
            panel=panel,
        )
        return _View(array=array, begin=(Linear(),) * len(shape))

    def _strides(self, value: SSAValue, shape: Sequence[float], item: float) -> tuple[float, ...]:
        """Bytes between neighbours; of strides that a call says, those without gaps."""
        dense = [math.prod(shape[d + 1 :]) for d in range(len(shape))]
        stated = strides_of(memref_type(value))
        return tuple(
            (default if s is None else s) * item for s, default in zip(stated, dense, strict=True)
        )

    def _block(self, block: IrBlock, nest: Nest, share: float) -> None:
        for op in block.ops:
            self._op(op, nest, share)

    def _op(self, op: Operation, nest: Nest, share: float) -> None:
        if isinstance(op, scf.ForOp | ForallOp):
            self._loop(op, nest, share)
        elif isinstance(op, scf.IfOp):
            holds = self.indices.mean(op.cond)
            for region, part in ((op.true_region, holds), (op.false_region, 1 - holds)):
                if part > 0:
                    for block in region.blocks:
                        self._block(block, nest, share * part)
            nest.work.arithmetic += share
        elif isinstance(op, func.CallOp):
            inside = self.function(op.callee.root_reference.data, list(op.arguments))
            inside.share = share
            nest.items.append(inside)
        elif isinstance(op, memref.SubviewOp):
            self._subview(op)
        elif isinstance(op, memref.ReinterpretCastOp):
            self._cast(op)
        elif isinstance(op, memref.AllocOp | memref.AllocaOp):
            self.views[op.memref] = self._whole(op.memref)
        elif isinstance(op, vector.TransferReadOp | vector.TransferWriteOp):
            self._transfer(op, nest, share)
        elif isinstance(op, TileLoadOp | TileStoreOp):
            self._tile(op, nest, share)
        elif isinstance(op, PrefetchOp):
            self._prefetch(op, nest, share)
        elif isinstance(op, memref.LoadOp):
            nest.work.loads += share
            view = self.views.get(op.memref)
            if view is not None:
                begin = self._moved(view, list(op.indices))
                size = (1.0,) * len(begin)
                nest.items.append(
                    Access(array=view.array, begin=begin, size=size, kind="read", share=share)
                )
        else:
            self._compute(op, nest.work, share)

    def _loop(self, op: scf.ForOp | ForallOp, nest: Nest, share: float) -> None:
        variable = self.indices.enter(op.body.block.args[0], op.lb, op.ub, op.step)
        inside = Nest(variable=variable, share=share)
        inside.cores = isinstance(op, ForallOp) and op.over.data == CORES
        if variable.trips <= 0:
            return
        nest.items.append(inside)
        self._block(op.body.block, inside, 1.0)
        if isinstance(op, scf.ForOp):
            carried = op.body.block.args[1:]
            vectors = [v for v in carried if isinstance(v.type, VectorType)]
            tiles = [v for v in carried if isinstance(v.type, TileType)]
            inside.work.chain = max((_chain(v) for v in vectors), default=0)
            inside.work.tile_chain = max((_chain(v) for v in tiles), default=0)

    def _registers(self, found: Attribute) -> float:
        rows, lanes, item = _vector(found)
        return rows * math.ceil(lanes * item / self.vector_bytes)

    def _subview(self, op: memref.SubviewOp) -> None:
        source = self.views.get(op.source)
        if source is None:
            return
        offsets = offsets_of(op)
        begin = self._moved(source, offsets)
        self.views[op.result] = _View(array=source.array, begin=begin)

    def _moved(self, view: _View, offsets: Sequence[SSAValue | int]) -> tuple[Linear, ...]:
        """Where a box begins that is cut from a view; dimensions that were dropped stay."""
        dropped = len(view.begin) - len(offsets)
        added = [Linear()] * dropped + [self.indices.linear(o) for o in offsets]
        return tuple(b.plus(a) for b, a in zip(view.begin, added, strict=True))

    def _cast(self, op: memref.ReinterpretCastOp) -> None:
        source = self.views.get(op.source)
        if source is None:
            return
        item = source.array.item_bytes
        shape = tuple(self.indices.mean(s) for s in sizes_of(op))
        strides = tuple(self.indices.mean(s) * item for s in cast_strides(op))
        array = Array(
            memory=source.array.memory,
            shape=shape,
            strides=strides,
            item_bytes=item,
        )
        self.views[op.result] = _View(array=array, begin=(Linear(),) * len(shape))

    def _transfer(
        self, op: vector.TransferReadOp | vector.TransferWriteOp, nest: Nest, share: float
    ) -> None:
        is_read = isinstance(op, vector.TransferReadOp)
        made = op.result.type if is_read else op.vector.type
        view = self.views.get(op.source)
        if view is None:
            return
        rows, lanes, item = _vector(made)
        exchanged = op.permutation_map.data == EXCHANGED
        shape = (lanes, rows) if exchanged else (rows, lanes)
        begin = self._moved(view, list(op.indices))
        size = (1.0,) * (len(begin) - 2) + tuple(map(float, shape))
        kept = _inside(size, view.array)
        kind: Kind = "read" if is_read else "write"
        nest.items.append(Access(array=view.array, begin=begin, size=kept, kind=kind, share=share))
        masked = not all(bool(flag.value.data) for flag in op.in_bounds.data)
        self._count_transfer(op, view.array, (rows, lanes, item), masked, nest.work, share)

    def _count_transfer(
        self,
        op: vector.TransferReadOp | vector.TransferWriteOp,
        array: Array,
        made: tuple[int, int, float],
        masked: bool,
        work: Work,
        share: float,
    ) -> None:
        rows, lanes, item = made
        is_read = isinstance(op, vector.TransferReadOp)
        found = memref_type(op.source)
        panel = found.layout if isinstance(found.layout, PanelAttr) else None
        strides = array.strides[-2:] if panel is None else (item, item)
        if not isinstance(found.layout, PanelAttr):
            known = strides_of(found)[-2:]
            strides = tuple(
                s if k is None else k * item for k, s in zip(known, strides, strict=True)
            )
        if op.permutation_map.data == EXCHANGED:
            strides = strides[::-1]
        if panel is not None and panel.depth.data > 1:
            count = self._grouped(op, made, panel.depth.data)
            shuffled = 0.0
        elif strides[0] == item and strides[1] != item and min(rows, lanes) > 1:
            count = lanes * math.ceil(rows * item / self.vector_bytes)
            shuffled = rows * max(math.log2(max(lanes, 2)), 1) if not is_read else 0.0
            shuffled = shuffled * max(lanes * item / self.vector_bytes, 1 / 8)
            if is_read:
                shuffled = lanes * max(math.log2(max(rows, 2)), 1) / 2
        elif lanes > 1 and strides[1] != item:
            count, shuffled = float(rows * lanes), float(rows * lanes)
        else:
            repeats = 1 if strides[0] == 0 else rows
            count, shuffled = repeats * float(math.ceil(lanes * item / self.vector_bytes)), 0.0
        wide = min(lanes * item, self.vector_bytes)
        crossing = 0.0
        if lanes > 1 and strides[1] == item and (strides[0] % 64 or wide % 32):
            crossing = max(wide - item, 0.0) / 64
        work.shuffles += shuffled * share
        if is_read:
            work.loads += count * share
            work.split_loads += crossing * count * share
            work.masked_elements += (rows * share) if masked and lanes == 1 else 0.0
        else:
            work.split_stores += crossing * count * share
            work.stores += count * share
            work.masked_stores += count * share * masked

    def _grouped(
        self,
        op: vector.TransferReadOp | vector.TransferWriteOp,
        made: tuple[int, int, float],
        depth: int,
    ) -> float:
        """Instructions on panels of some depth: a word for each row of A, or whole registers."""
        rows, lanes, item = made
        if isinstance(op, vector.TransferReadOp) and lanes == depth:
            return float(rows)
        return math.ceil(rows * lanes * item / self.vector_bytes)

    def _tile(self, op: TileLoadOp | TileStoreOp, nest: Nest, share: float) -> None:
        """Rows of a tile, each of which is a load or a store."""
        is_read = isinstance(op, TileLoadOp)
        memory, tile = (op.source, op.result) if is_read else (op.target, op.tile)
        view, made, group = self.views.get(memory), tile_type(tile), group_of(memory)
        if view is None:
            return
        rows, columns = made.shape
        begin = self._moved(view, list(op.indices))
        shape = (float(rows * group), float(columns // group))
        kept = _inside((1.0,) * (len(begin) - 2) + shape, view.array)
        kind: Kind = "read" if is_read else "write"
        nest.items.append(Access(array=view.array, begin=begin, size=kept, kind=kind, share=share))
        if is_read:
            nest.work.loads += rows * share
        else:
            nest.work.stores += rows * share

    def _prefetch(self, op: PrefetchOp, nest: Nest, share: float) -> None:
        view = self.views.get(op.source)
        if view is None:
            return
        found = memref_type(op.source)
        owner = op.source.owner
        shape = [float(s) for s in found.get_shape()]
        if isinstance(owner, memref.SubviewOp):
            sizes = sizes_of(owner)
            shape = [self.indices.mean(s) for s in sizes[len(sizes) - len(shape) :]]
        size = (1.0,) * (len(view.begin) - len(shape)) + tuple(shape)
        nest.items.append(
            Access(array=view.array, begin=view.begin, size=size, kind="prefetch", share=share)
        )
        rows, columns = sorted(shape[-2:]) if len(shape) > 1 else (1.0, shape[0])
        lines = rows * math.ceil(columns * view.array.item_bytes / 64)
        nest.work.prefetches += lines * share

    def _compute(self, op: Operation, work: Work, share: float) -> None:
        if not op.results or isinstance(op, arith.ConstantOp):
            return
        made = op.results[0].type
        if isinstance(op, OuterProductOp | PairProductOp):
            count = self._registers(made)
            rows, lanes, _ = _vector(made)
            work.products += count * share
            work.flops += 2 * rows * lanes * op.depth * share
        elif isinstance(op, TileProductOp):
            (rows, columns), (_, k) = tile_type(op.acc).shape, tile_type(op.lhs).shape
            work.tile_products += share
            work.flops += 2 * rows * columns * k * share
        elif isinstance(op, ColumnOp):
            work.shuffles += 2 * _vector(op.block.type)[0] * share
        elif isinstance(op, LaneSumOp):
            rows, lanes, _ = _vector(op.source.type)
            work.shuffles += rows * math.log2(max(lanes, 2)) * share
            work.arithmetic += rows * math.log2(max(lanes, 2)) * share
        elif isinstance(made, VectorType):
            work.arithmetic += self._registers(op.results[0].type) * _weight(op) * share
        elif isinstance(made, IndexType):
            work.arithmetic += 0.5 * share


def _weight(op: Operation) -> float:
    """Instructions that an op takes for each register of its result."""
    if isinstance(op, arith.DivfOp):
        return DIVIDE_INSTRUCTIONS
    if not isinstance(op, ExtendOp | arith.ExtFOp):
        return 1.0
    is_column = _vector(op.results[0].type)[1] == 1
    return COLUMN_INSTRUCTIONS if is_column else CONVERT_INSTRUCTIONS


def _inside(size: Sequence[float], array: Array) -> tuple[float, ...]:
    """The part of a box that is inside its array."""
    return tuple(min(s, extent) for s, extent in zip(size, array.shape, strict=True))


def _vector(found: Attribute) -> tuple[int, int, float]:
    """Rows, lanes and bytes of an element of a vector type."""
    made = cast("VectorType[Attribute]", found)
    shape = made.get_shape()
    rows, lanes = shape if len(shape) == 2 else (1, shape[0])
    return rows, lanes, _bits(made.element_type) / 8


def _bits(element: Attribute) -> int:
    assert isinstance(element, FixedBitwidthType)
    return element.bitwidth


def _chain(value: BlockArgument) -> int:
    """How many products of an iteration are added to a carried sum one after the other."""
    count, current = 0, cast("SSAValue", value)
    while True:
        users = [
            use.operation
            for use in current.uses
            if isinstance(use.operation, OuterProductOp | PairProductOp | TileProductOp)
            and use.operation.acc is current
        ]
        if not users:
            return count
        count, current = count + 1, users[0].result


def entry_of(module: ModuleOp) -> str:
    """The function that callers call: the one that no other calls."""
    functions = [op for op in module.ops if isinstance(op, func.FuncOp)]
    called = {op.callee.root_reference.data for op in module.walk() if isinstance(op, func.CallOp)}
    return next(f.sym_name.data for f in functions if f.sym_name.data not in called)
