"""Writing what the thread does that copies for the warpgroups of a block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.dialects import arith, scf
from xdsl.ir import Block, Operation, SSAValue

from gemmir.ir.dialect import ForallOp, enclosing_ops
from gemmir.ir.index import Extent, as_index, constant_of
from gemmir.ir.loops import trips
from gemmir.ir.role import Role, is_arithmetic
from gemmir.ir.specialize import SpecializePlan
from gemmir.ir.tma import ArriveExpectOp, TmaLoadOp, WaitOp
from gemmir.ir.views import subview


@dataclass
class Producer(Role):
    """The thread that copies. Of a barrier of empty stages no phase has ended at first."""

    maps: Sequence[SSAValue] = ()

    first_parity = 1

    def warpgroup(self, loop: ForallOp, builder: Builder) -> None:
        """Nothing that is copied is one warpgroup's."""

    def clone(self, op: Operation, builder: Builder) -> None:
        """Only what may lead to where a slice begins."""
        if isinstance(op, scf.YieldOp):
            return
        own = set(_made_in(op))
        used = {o for inner in op.walk() for o in inner.operands} - own - self.known.keys()
        is_plain = all(is_arithmetic(inner) for inner in op.walk())
        if is_plain and all(_is_outside(o, self.plan) for o in used):
            builder.insert(op.clone(self.known))

    def k_loop(self, builder: Builder, stage: list[SSAValue]) -> list[SSAValue]:
        loop = self.plan.loop
        made, body, inner = self.open(loop, builder, stage)
        number, parity = body.args[1:]
        inner.insert(WaitOp(self.empty, number, parity))
        total = sum(load.bytes for load in self.plan.loads)
        inner.insert(ArriveExpectOp(self.full, number, bytes=total))
        for op in loop.body.block.ops:
            self.clone(op, inner)
        for which in range(len(self.plan.loads)):
            self.load(inner, which, number)
        inner.insert(scf.YieldOp(*self.advance(inner, number, parity)))
        return list(made.results)

    def load(self, builder: Builder, which: int, stage: SSAValue) -> None:
        """Begin to copy a slice, box by box."""
        load, view = self.plan.loads[which], self.view(builder, which, stage)
        begin: list[Extent] = [0, 0]
        if load.split > 1:
            part = load.copied[1 - load.k] // load.split
            rank = self.rank(builder)
            begin[1 - load.k] = self.times(builder, rank, part)
        part_shape = list(load.copied)
        part_shape[1 - load.k] //= load.split
        at = self.coordinates(builder, load.pack.source, self.maps[which])
        mask = (1 << load.split) - 1 if load.split > 1 else None
        for row in range(0, part_shape[0], load.box[0]):
            for column in range(0, part_shape[1], load.box[1]):
                places = [self.plus(builder, begin[d], (row, column)[d]) for d in (0, 1)]
                whole = load.box == load.shape
                target = view if whole else subview(builder, view, places, load.box)
                indices = [*at[:-2]]
                for d in (0, 1):
                    indices.append(self.plus(builder, at[d - 2], places[d]))
                builder.insert(
                    TmaLoadOp(
                        self.maps[which],
                        [as_index(self.plan.loop, i) for i in indices],
                        self.full,
                        stage,
                        target,
                        multicast=mask,
                    )
                )

    def rank(self, builder: Builder) -> SSAValue:
        """The number of this block in its cluster, the innermost loop fastest."""
        total: Extent = 0
        for loop in self.plan.ranks:
            variable: Extent = loop.body.block.args[0]
            step = constant_of(loop.step)
            if step != 1:
                variable = builder.insert(arith.DivUIOp(variable, loop.step)).result
            total = self.plus(builder, self.times(builder, total, trips(loop)), variable)
        return as_index(self.plan.loop, total)


def _is_outside(value: SSAValue, plan: SpecializePlan) -> bool:
    """Whether a value is made outside of what is rewritten."""
    owner = value.owner
    holder = owner if isinstance(owner, Operation) else owner.parent_op()
    if isinstance(owner, Block):
        return holder is plan.block or plan.block not in enclosing_ops(holder) if holder else True
    return plan.block not in enclosing_ops(owner)


def _made_in(op: Operation) -> Iterator[SSAValue]:
    """The values that an op and those in it make."""
    for inner in op.walk():
        yield from inner.results
        for region in inner.regions:
            yield from region.block.args
