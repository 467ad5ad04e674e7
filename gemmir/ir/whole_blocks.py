"""Products of whole blocks, by the matrix unit of a TPU.

    gemmir.gemm %a, %b, %acc  first %f    ->    %x = vector.transfer_read %a_block
                                                %y = vector.transfer_read %b_block
                                                %z = pallas.dot %x, %y
                                                %s = select(%f, 0, %acc) + %z, stored into %acc

Of the last block along k only what is inside the array is read, with zeros past it. A loop inside a
step multiplies a part of the blocks at a time. An accumulator that is written once and whole is not
stored: the epilogue takes the product as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from xdsl.dialects import arith, memref
from xdsl.dialects.builtin import DYNAMIC_INDEX, IntegerType, VectorType
from xdsl.ir import Block, BlockArgument, SSAValue

from gemmir.errors import ScheduleError
from gemmir.ir.dialect import EpilogueOp, GemmOp, Number, enclosing_ops, memref_type
from gemmir.ir.grid import erase_unused
from gemmir.ir.index import before, constant_of, upper_bound
from gemmir.ir.pallas import CallOp, DotOp, in_vmem, is_block
from gemmir.ir.transfers import Tile, mask_of_rows, read, splat, store_tile, write
from gemmir.ir.views import chain, extents, offsets_of, sizes_of, subview, total_offsets


@dataclass(frozen=True, kw_only=True)
class BlockPlan:
    """One product on blocks in VMEM, and the buffer it is summed in, if it is stored at all."""

    gemm: GemmOp
    call: CallOp
    accumulator: SSAValue
    is_stored: bool


def plan_blocks(gemm: GemmOp) -> BlockPlan:
    """Find the step `gemm` is part of; `ScheduleError` (GEM0366 to GEM0368, GEM0383) if not."""
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
    rows, columns = extents(gemm.c)
    if not isinstance(rows, int) or not isinstance(columns, int):
        raise ScheduleError(
            "GEM0368",
            "vectorize: with=mxu, and the parts of a block that a loop goes through differ in size",
            "use sizes that divide the block, or edges=peel",
        )
    for value, k in ((gemm.a, 1), (gemm.b, 0)):
        _require_whole_parts(value, k)
    accumulator = chain(gemm.c)[0]
    if is_block(accumulator):
        raise ScheduleError(
            "GEM0383",
            "vectorize: with=mxu, and C is not summed in a buffer of its own",
            "put promote{operand=c to=vmem} before vectorize",
        )
    readers = [o for o in epilogues if any(chain(v)[0] is accumulator for v in o.inputs)]
    is_next = all(o.parent is gemm.parent for o in readers)
    is_alone = is_next and gemm.first is None and gemm.beta.value.data == 0
    return BlockPlan(
        gemm=gemm,
        call=calls[0],
        accumulator=accumulator,
        is_stored=not (is_alone and _buffer(gemm.c) is accumulator),
    )


def _require_whole_parts(value: SSAValue, k: int) -> None:
    """The last part of a block along `k` does not go beyond it; `ScheduleError` GEM0368."""
    block, views = chain(value)
    depth, size = memref_type(block).get_shape()[k], upper_bound(extents(value)[k])
    is_first = all(constant_of(offsets_of(view)[k]) == 0 for view in views)
    if size and depth % size and not is_first:
        raise ScheduleError(
            "GEM0368",
            f"vectorize: with=mxu, and the last of the parts of {size} along k goes beyond a block "
            f"of {depth}",
            f"use a size of k that divides {depth}",
        )


def _buffer(value: SSAValue) -> SSAValue:
    """The buffer that `value` is all of, otherwise itself."""
    buffer = chain(value)[0]
    return buffer if memref_type(buffer) == memref_type(value) else value


def vectorize_blocks(plans: Sequence[BlockPlan]) -> None:
    """Multiply, sum and store whole blocks."""
    totals: dict[SSAValue, SSAValue] = {}
    for plan in plans:
        total = _multiply(plan.gemm)
        if plan.is_stored:
            _accumulate(plan.gemm, total)
        else:
            totals[plan.accumulator] = total
        plan.gemm.detach()
        plan.gemm.erase()
    for call in {plan.call: None for plan in plans}:
        body = call.body.block
        _keep_sums(body, [plan.accumulator for plan in plans if plan.is_stored])
        for epilogue in [o for o in body.walk() if isinstance(o, EpilogueOp)]:
            _store(epilogue, totals)
        erase_unused(body)
        for buffer in call.scratch:
            if isinstance(buffer, BlockArgument) and not buffer.uses:
                body.erase_arg(buffer)


def _keep_sums(body: Block, accumulators: Sequence[SSAValue]) -> None:
    """Make accumulators that a loop inside the step comes back to buffers of the call."""
    for accumulator in dict.fromkeys(accumulators):
        if isinstance(accumulator.owner, memref.AllocaOp):
            kept = body.insert_arg(accumulator.type, len(body.args))
            kept.name_hint = accumulator.name_hint
            accumulator.replace_all_uses_with(kept)


def _multiply(gemm: GemmOp) -> SSAValue:
    """The product of what `gemm` has of the blocks of A and B."""
    if extents(gemm.a)[1] == 0:
        accumulator = memref_type(gemm.c)
        return splat(gemm, 0, VectorType(accumulator.element_type, accumulator.get_shape()))
    x, y = (_read(gemm, value, dim) for value, dim in ((gemm.a, 1), (gemm.b, 0)))
    return before(gemm).insert(DotOp(x, y, precision=gemm.precision)).result


def _read(gemm: GemmOp, value: SSAValue, k: int) -> SSAValue:
    """The part of a block that `value` is, filled up with zeros along `k` where it is shorter."""
    builder = before(gemm)
    block, views = chain(value)
    sizes = list(extents(value))
    at = total_offsets(builder, views)
    if isinstance(sizes[k], int):
        rows, columns = memref_type(value).get_shape()
        return read(builder, gemm, block, at, (rows, columns), (True, True))
    bound = upper_bound(sizes[k])
    assert bound is not None
    window = subview(builder, block, at, sizes)
    rows, columns = (bound if dim == k else size for dim, size in enumerate(sizes))
    assert isinstance(rows, int) and isinstance(columns, int)
    return read(builder, gemm, window, (0, 0), (rows, columns), (k != 0, k != 1))


def _accumulate(gemm: GemmOp, product: SSAValue) -> None:
    """Add to what is in the accumulator from before."""
    builder = before(gemm)
    buffer, views = chain(gemm.c)
    at = total_offsets(builder, views)
    made = cast("VectorType[Number]", product.type)
    rows, columns = made.get_shape()
    full = (True, True)
    if gemm.first is not None or gemm.beta.value.data:
        old = read(builder, gemm, buffer, at, (rows, columns), full)
        if gemm.first is not None:
            zero = splat(gemm, 0, made)
            old = builder.insert(arith.SelectOp(gemm.first, zero, old)).result
        is_integer = isinstance(made.element_type, IntegerType)
        add = arith.AddiOp if is_integer else arith.AddfOp
        product = builder.insert(add(old, product)).result
    write(builder, gemm, product, buffer, at, full)


def _store(epilogue: EpilogueOp, totals: Mapping[SSAValue, SSAValue]) -> None:
    """Run an epilogue on whole blocks; `totals` are buffers whose elements are known.

    Where it works on some rows of the blocks only, a mask leaves out the others.
    """
    builder, mask = before(epilogue), None
    block, views = chain(epilogue.output)
    rows, columns = memref_type(epilogue.output).get_shape()
    if DYNAMIC_INDEX in (rows, columns):
        (begin, _), (count, _) = offsets_of(views[0]), sizes_of(views[0])
        rows, columns = memref_type(block).get_shape()
        mask = mask_of_rows(builder, epilogue, begin, count, (rows, columns))
        for number, operand in enumerate(epilogue.operands):
            epilogue.operands[number] = chain(operand)[0]
    pairs = zip(epilogue.body.block.args, epilogue.operands, strict=True)
    known: dict[SSAValue, SSAValue] = {
        argument: totals[_buffer(value)] for argument, value in pairs if _buffer(value) in totals
    }
    tile = Tile((0, 0), (rows, columns), (True, True), mask)
    store_tile(builder, epilogue, tile, known)
    epilogue.detach()
    epilogue.erase()
