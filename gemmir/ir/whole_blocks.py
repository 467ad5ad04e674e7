"""Products of whole blocks, by the matrix unit of a TPU.

    gemmir.gemm %a, %b, %acc  first %f    ->    %x = vector.transfer_read %a_block
                                                %y = vector.transfer_read %b_block
                                                %z = pallas.dot %x, %y
                                                %s = select(%f, 0, %acc) + %z, stored into %acc

Blocks are read to their full size. Only along k zeros are put in the place of what is past the
edge: rows and columns past it end in rows and columns of C that are not copied back. An accumulator
that no step before has written to is not stored: the epilogue takes the product as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from xdsl.dialects import arith
from xdsl.dialects.builtin import IntegerType, VectorType
from xdsl.ir import Block, SSAValue

from gemmir.errors import ScheduleError
from gemmir.ir.dialect import EpilogueOp, GemmOp, Number, enclosing_ops, memref_type
from gemmir.ir.grid import erase_unused
from gemmir.ir.index import before
from gemmir.ir.pallas import CallOp, DotOp, in_vmem
from gemmir.ir.transfers import Tile, read, splat, store_tile, write
from gemmir.ir.views import chain, extents, subview


@dataclass(frozen=True, kw_only=True)
class BlockPlan:
    """One product on blocks in VMEM, and the epilogues that take its sum."""

    gemm: GemmOp
    call: CallOp
    accumulator: SSAValue
    epilogues: tuple[EpilogueOp, ...]

    @property
    def is_scratch(self) -> bool:
        """Whether the sum goes on from one step to the next."""
        return isinstance(self.accumulator.owner, Block)


def plan_blocks(gemm: GemmOp) -> BlockPlan:
    """Find the step that `gemm` is part of; `ScheduleError` (GEM0366, GEM0367) if it is in none."""
    calls = [o for o in enclosing_ops(gemm) if isinstance(o, CallOp)]
    if not calls:
        raise ScheduleError(
            "GEM0366",
            "vectorize: with=mxu multiplies the blocks of a step of a grid, and there is none",
            "put pipeline{loop=… stages=2 with=dma} before vectorize",
        )
    function = enclosing_ops(gemm)[-1]
    epilogues = [o for o in function.walk() if isinstance(o, EpilogueOp)]
    outside = [o for o in epilogues if not all(in_vmem(v) for v in o.operands)]
    if outside:
        raise ScheduleError(
            "GEM0367",
            f"vectorize: with=mxu, and {len(outside)} epilogue stands outside the grid",
            "put fuse-epilogue before pipeline",
        )
    accumulator = chain(gemm.c)[0]
    return BlockPlan(
        gemm=gemm,
        call=calls[0],
        accumulator=accumulator,
        epilogues=tuple(o for o in epilogues if chain(o.inputs[0])[0] is accumulator),
    )


def vectorize_blocks(plans: Sequence[BlockPlan]) -> None:
    """Multiply, sum and store whole blocks."""
    for plan in plans:
        total = _multiply(plan.gemm)
        if plan.is_scratch:
            _accumulate(plan, total)
        for epilogue in plan.epilogues:
            _store(epilogue, plan, total)
        plan.gemm.detach()
        plan.gemm.erase()
        erase_unused(plan.call.body.block)


def _multiply(gemm: GemmOp) -> SSAValue:
    """The product of the blocks of A and B."""
    if extents(gemm.a)[1] == 0:
        accumulator = memref_type(chain(gemm.c)[0])
        return splat(gemm, 0, VectorType(accumulator.element_type, accumulator.get_shape()))
    x, y = (_whole(gemm, value, dim) for value, dim in ((gemm.a, 1), (gemm.b, 0)))
    return before(gemm).insert(DotOp(x, y)).result


def _whole(gemm: GemmOp, value: SSAValue, k: int) -> SSAValue:
    """All of the block that `value` is a view of, with zeros past its extent along `k`."""
    builder = before(gemm)
    block = chain(value)[0]
    rows, columns = memref_type(block).get_shape()
    extent = extents(value)[k]
    is_full = extent == (rows, columns)[k]
    if not is_full:
        window = (extent, columns) if k == 0 else (rows, extent)
        block = subview(builder, block, (0, 0), window)
    in_bounds = (is_full or k != 0, is_full or k != 1)
    return read(builder, gemm, block, (0, 0), (rows, columns), in_bounds)


def _accumulate(plan: BlockPlan, product: SSAValue) -> None:
    """Add to what the steps before have left in the accumulator."""
    gemm, builder = plan.gemm, before(plan.gemm)
    made = cast("VectorType[Number]", product.type)
    rows, columns = made.get_shape()
    full = (True, True)
    if gemm.first is not None or gemm.beta.value.data:
        old = read(builder, gemm, plan.accumulator, (0, 0), (rows, columns), full)
        if gemm.first is not None:
            zero = splat(gemm, 0, made)
            old = builder.insert(arith.SelectOp(gemm.first, zero, old)).result
        is_integer = isinstance(made.element_type, IntegerType)
        add = arith.AddiOp if is_integer else arith.AddfOp
        product = builder.insert(add(old, product)).result
    write(builder, gemm, product, plan.accumulator, (0, 0), full)


def _store(epilogue: EpilogueOp, plan: BlockPlan, total: SSAValue) -> None:
    """Run an epilogue on whole blocks."""
    for number, operand in enumerate(epilogue.operands):
        epilogue.operands[number] = chain(operand)[0]
    rows, columns = memref_type(plan.accumulator).get_shape()
    known: dict[SSAValue, SSAValue] = {}
    if not plan.is_scratch:
        pairs = zip(epilogue.body.block.args, epilogue.operands, strict=True)
        known = {argument: total for argument, value in pairs if value is plan.accumulator}
    tile = Tile((0, 0), (rows, columns), (True, True))
    store_tile(before(epilogue), epilogue, tile, known)
    epilogue.detach()
    epilogue.erase()
