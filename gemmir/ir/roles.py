"""Writing what the warpgroups of a block do apart: the loops of a block, once for each role.

See `gemmir.ir.specialize` for what is decided before.
"""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.builder import Builder
from xdsl.dialects import arith, memref
from xdsl.dialects.builtin import IndexType, MemRefType, StridedLayoutAttr
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.rewriter import InsertPoint

from gemmir.ir.attributes import SwizzleAttr
from gemmir.ir.consumer import Consumer, Stored
from gemmir.ir.dialect import BarrierOp, Number, UnpackOp, YieldOp, memref_type, static_strides
from gemmir.ir.index import at_end, before
from gemmir.ir.producer import Producer
from gemmir.ir.specialize import Load, SpecializePlan
from gemmir.ir.tma import CreateBarriersOp, CreateDescriptorOp
from gemmir.ir.views import chain
from gemmir.ir.warpgroup import WARPGROUP_ROWS, WARPS_OF_GROUP, ClusterBarrierOp, WarpSpecializeOp


def specialize(plan: SpecializePlan) -> None:
    """Rewrite the block of `plan`."""
    body = plan.block.body.block
    wide = [_all_stages(load, plan.stages) for load in plan.loads]
    maps = [_descriptor(load.root, load.box_type) for load in plan.loads]
    stored = _stored_map(plan)
    ops = [o for o in body.ops if not isinstance(o, memref.AllocaOp | YieldOp)]
    builder = before(ops[0])
    arrivals = WARPS_OF_GROUP * plan.readers * plan.cluster
    full = builder.insert(CreateBarriersOp(stages=plan.stages, arrivals=1)).result
    empty = builder.insert(CreateBarriersOp(stages=plan.stages, arrivals=arrivals)).result
    full.name_hint, empty.name_hint = "full", "empty"
    turn: SSAValue | None = None
    if plan.turns > 1:
        turn = builder.insert(CreateBarriersOp(stages=plan.turns, arrivals=WARPS_OF_GROUP)).result
        turn.name_hint = "turn"
    is_cluster = plan.cluster > 1
    builder.insert(ClusterBarrierOp() if is_cluster else BarrierOp())
    producer, consumers = Block(), Block(arg_types=[IndexType()])
    consumers.args[0].name_hint = "warpgroup"
    both = (
        Producer(plan, wide, full, empty, maps=maps),
        Consumer(plan, wide, full, empty, number=consumers.args[0], stored=stored, turn=turn),
    )
    for role, block in zip(both, (producer, consumers), strict=True):
        role.run(ops, at_end(block))
        block.add_op(YieldOp())
        _erase_unused(block)
    builder.insert(
        WarpSpecializeOp(
            Region(producer),
            Region(consumers),
            warpgroups=plan.warpgroups,
            registers=plan.registers,
        )
    )
    if is_cluster:
        builder.insert(ClusterBarrierOp())
    memory = [] if stored is None or plan.turns == 1 else [stored.memory]
    for op in reversed([*(load.alloca for load in plan.loads), *memory, *ops]):
        op.detach()
        op.erase(safe_erase=False)


def _all_stages(load: Load, stages: int) -> SSAValue:
    """A buffer of all stages beside the one of a single slice."""
    shape = list(load.shape)
    dim, width, chunk = (f.data for f in (load.layout.dim, load.layout.width, load.layout.chunk))
    shape[load.slow] *= stages
    layout = SwizzleAttr(dim, width, shape[load.slow] * width, chunk)
    space = memref_type(load.alloca.memref).memory_space
    made = MemRefType(load.element, shape, layout, space)
    alloca = memref.AllocaOp(operands=[[], []], result_types=[made])
    alloca.memref.name_hint = load.alloca.memref.name_hint
    before(load.alloca).insert(alloca)
    return alloca.memref


def _descriptor(root: SSAValue, box: MemRefType[Number]) -> SSAValue:
    """How boxes of an array are copied, at the entry of the function.

    Matrices of a batch that are all the same are one.
    """
    of = memref_type(root)
    owner = root.owner
    if isinstance(owner, Operation):
        builder = Builder(InsertPoint.after(owner))
    else:
        entry = next(o for o in owner.ops if not isinstance(o, arith.ConstantOp))
        builder = before(entry)
    tensor = root
    if len(of.get_shape()) == 3 and static_strides(of)[0] == 0:
        shape, strides = of.get_shape()[1:], static_strides(of)[1:]
        tensor = builder.insert(_matrix_of(root, shape, strides)).result
    made = builder.insert(CreateDescriptorOp(tensor, box))
    made.result.name_hint = f"{root.name_hint or 'operand'}_map"
    return made.result


def _stored_map(plan: SpecializePlan) -> Stored | None:
    """The map for pieces of C that go out through shared memory; None where none do."""
    unpacks = [o for o in plan.block.walk() if isinstance(o, UnpackOp)]
    if not unpacks:
        return None
    memory = chain(unpacks[0].source)[0].owner
    assert isinstance(memory, memref.AllocaOp)
    buffer = memref_type(memory.memref)
    layout = buffer.layout
    assert isinstance(layout, SwizzleAttr)
    width = layout.width.data
    box = WARPGROUP_ROWS, width
    swizzle = SwizzleAttr(1, width, WARPGROUP_ROWS * width, layout.chunk.data)
    made = MemRefType(buffer.element_type, box, swizzle, buffer.memory_space)
    return Stored(
        map=_descriptor(chain(unpacks[0].target)[0], made),
        box=box,
        buffers=buffer.get_shape()[1] // width,
        pieces=len(unpacks),
        memory=memory,
    )


def _matrix_of(
    root: SSAValue, shape: Sequence[int], strides: Sequence[int]
) -> memref.ReinterpretCastOp:
    source = memref_type(root)
    made = MemRefType(
        source.element_type, shape, StridedLayoutAttr(strides, 0), source.memory_space
    )
    return memref.ReinterpretCastOp.from_dynamic(root, [0], list(shape), list(strides), made)


def _erase_unused(block: Block) -> None:
    """Erase views and index arithmetic that nothing uses."""
    for op in reversed(list(block.walk())):
        is_plain = op.name.startswith("arith.") or isinstance(op, memref.SubviewOp | memref.LoadOp)
        if is_plain and not any(result.uses for result in op.results):
            op.detach()
            op.erase()
