"""Writing what one role of a block does: its loops once more, with what it has in them.

See `gemmir.ir.specialize` for what is decided before.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from xdsl.builder import Builder
from xdsl.dialects import arith, memref, scf
from xdsl.dialects.builtin import IndexType, IntegerAttr, i32
from xdsl.ir import Block, Operation, Region, SSAValue

from gemmir.ir.dialect import ForallOp, YieldOp, memref_type
from gemmir.ir.index import Extent, as_index, at_end, constant_of, entry_constant
from gemmir.ir.loops import DIMENSION
from gemmir.ir.specialize import SpecializePlan
from gemmir.ir.tma import CreateDescriptorOp
from gemmir.ir.views import chain, offsets_of, subview


@dataclass
class Role(ABC):
    """Writes what one role does: the loops of the block once more, with what it has in them."""

    plan: SpecializePlan
    wide: Sequence[SSAValue]
    full: SSAValue
    empty: SSAValue
    known: dict[SSAValue, SSAValue] = field(default_factory=dict[SSAValue, SSAValue])

    first_parity = 0

    def run(self, ops: Iterable[Operation], builder: Builder) -> None:
        """Write `ops` of the block."""
        stage = [self.constant(0), self.constant(self.first_parity)]
        self.block(ops, builder, stage)

    def block(
        self, ops: Iterable[Operation], builder: Builder, stage: list[SSAValue]
    ) -> list[SSAValue]:
        """Write `ops`; `stage` are the number and the parity of the next stage, and so returned."""
        for op in ops:
            if isinstance(op, YieldOp | scf.YieldOp):
                continue
            if op is self.plan.loop:
                stage = self.k_loop(builder, stage)
            elif self.plan.loop not in op.walk():
                self.clone(op, builder)
            elif isinstance(op, scf.ForOp):
                stage = self.outer_loop(op, builder, stage)
            else:
                assert isinstance(op, ForallOp)
                self.warpgroup(op, builder)
                stage = self.block(op.body.block.ops, builder, stage)
        return stage

    def outer_loop(
        self, loop: scf.ForOp, builder: Builder, stage: list[SSAValue]
    ) -> list[SSAValue]:
        """A loop around that over k, which passes on the stage."""
        made, body, inner = self.open(loop, builder, stage)
        stage = self.block(loop.body.block.ops, inner, list(body.args[1:]))
        inner.insert(scf.YieldOp(*self.after_tile(inner, stage)))
        return list(made.results)

    def after_tile(self, builder: Builder, stage: list[SSAValue]) -> list[SSAValue]:
        """The stage with which the next tile begins."""
        return stage

    def open(
        self, loop: scf.ForOp, builder: Builder, carried: Sequence[SSAValue]
    ) -> tuple[scf.ForOp, Block, Builder]:
        """The loop `loop`, empty, that carries these values."""
        body = Block(arg_types=[IndexType(), *[v.type for v in carried]])
        names = ("stage", "parity", "before" if loop is self.plan.loop else "turn")
        for argument, name in zip(body.args[1:], names, strict=False):
            argument.name_hint = name
        body.args[0].name_hint = loop.body.block.args[0].name_hint
        self.known[loop.body.block.args[0]] = body.args[0]
        made = scf.ForOp(*self.bounds(loop, builder), carried, Region(body))
        made.attributes[DIMENSION] = loop.attributes[DIMENSION]
        builder.insert(made)
        return made, body, at_end(body)

    def bounds(self, loop: scf.ForOp, builder: Builder) -> tuple[SSAValue, SSAValue, SSAValue]:
        """First, last and step of `loop` here."""
        return self.of(loop.lb), self.of(loop.ub), self.of(loop.step)

    def of(self, value: SSAValue) -> SSAValue:
        """What has become of `value` here."""
        return self.known.get(value, value)

    def extent(self, extent: Extent) -> Extent:
        """What has become of an extent here."""
        return extent if isinstance(extent, int) else self.of(extent)

    def constant(self, value: int) -> SSAValue:
        """A number of a stage or a parity."""
        return entry_constant(self.plan.loop, IntegerAttr(value, i32))

    def advance(self, builder: Builder, stage: SSAValue, parity: SSAValue) -> list[SSAValue]:
        """The stage after this one: behind the last the first, in the next phase."""
        one, zero, count = (self.constant(n) for n in (1, 0, self.plan.stages))
        after = builder.insert(arith.AddiOp(stage, one)).result
        wraps = builder.insert(arith.CmpiOp(after, count, "eq")).result
        following = builder.insert(arith.SelectOp(wraps, zero, after)).result
        turn = builder.insert(arith.ExtUIOp(wraps, i32)).result
        return [following, builder.insert(arith.XOrIOp(parity, turn)).result]

    def view(self, builder: Builder, number: int, stage: SSAValue) -> SSAValue:
        """The slice in the stage of this number of the buffer of a load."""
        load, whole = self.plan.loads[number], self.wide[number]
        at = builder.insert(arith.IndexCastOp(stage, IndexType())).result
        length = as_index(self.plan.loop, load.shape[load.slow])
        offsets: list[Extent] = [0, 0]
        offsets[load.slow] = builder.insert(arith.MuliOp(at, length)).result
        return subview(builder, whole, offsets, load.shape)

    def plus(self, builder: Builder, first: Extent, second: Extent) -> Extent:
        if isinstance(first, int) and isinstance(second, int):
            return first + second
        if first == 0 or second == 0:
            return second if first == 0 else first
        terms = [as_index(self.plan.loop, e) for e in (first, second)]
        return builder.insert(arith.AddiOp(terms[0], terms[1])).result

    def times(self, builder: Builder, value: Extent, factor: int) -> Extent:
        if isinstance(value, int):
            return value * factor
        if factor == 1:
            return value
        return builder.insert(arith.MuliOp(value, as_index(self.plan.loop, factor))).result

    def coordinates(self, builder: Builder, window: SSAValue, map: SSAValue) -> list[Extent]:
        """Where a window of an array begins in the tensor of its map.

        The TMA copies whole 16 bytes of adjacent elements, and takes no box that begins in between,
        even if nothing of it is inside. So one past the edge begins there, and not at the edge.
        """
        assert isinstance(map.owner, CreateDescriptorOp)
        root, views = chain(window)
        rank = len(memref_type(root).get_shape())
        adjacent = rank - 2 + map.owner.fast
        at: list[Extent] = [0] * rank
        dims = list(range(rank))
        for view in views:
            for dim, offset in zip(dims, offsets_of(view), strict=True):
                place = _past_the_edge(offset) if dim == adjacent else offset
                at[dim] = self.plus(builder, at[dim], self.extent(place))
            dropped = len(dims) - len(memref_type(view.result).get_shape())
            dims = dims[dropped:]
        return at[rank - len(memref_type(map.owner.tensor).get_shape()) :]

    @abstractmethod
    def warpgroup(self, loop: ForallOp, builder: Builder) -> None:
        """What the variable of a loop over warpgroups is here."""

    @abstractmethod
    def clone(self, op: Operation, builder: Builder) -> None:
        """Write an op that has nothing to do with stages."""

    @abstractmethod
    def k_loop(self, builder: Builder, stage: list[SSAValue]) -> list[SSAValue]:
        """Write the loop over k."""


def _past_the_edge(offset: Extent) -> Extent:
    """Where a tile of a unit is, also if that is past the edge, at which an empty one begins."""
    if not isinstance(offset, SSAValue) or not isinstance(offset.owner, arith.MinSIOp):
        return offset
    place = offset.owner.lhs
    is_of_unit = isinstance(place.owner, Block) and isinstance(place.owner.parent_op(), ForallOp)
    return place if is_of_unit or constant_of(place) is not None else offset


def is_arithmetic(op: Operation) -> bool:
    """Whether an op computes with numbers alone; a loop may be one that searches."""
    return op.name.startswith("arith.") or isinstance(op, memref.LoadOp | scf.ForOp | scf.YieldOp)
