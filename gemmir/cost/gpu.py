"""The cost of a kernel for a GPU: a roofline of what its IR says that blocks do and move.

Counted are the products, the bytes that come from global memory and those that are read of shared
memory, the blocks and how many of them a multiprocessor holds. What warps wait for one another,
conflicts of banks and the instructions around the products are not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import singledispatch
from typing import Any, Final, cast

from xdsl.dialects import func, memref, scf, vector
from xdsl.dialects.builtin import FixedBitwidthType, MemRefType, ModuleOp, VectorType
from xdsl.ir import Attribute, Operation, SSAValue

from gemmir.cost.indices import Indices
from gemmir.cost.prediction import Prediction
from gemmir.ir.dialect import (
    BLOCKS,
    CLUSTERS,
    THREADS,
    WARPGROUPS,
    WARPS,
    ForallOp,
    OuterProductOp,
    is_shared,
    memref_type,
)
from gemmir.ir.nvgpu import AsyncCopyOp, LdMatrixOp, MmaSyncOp
from gemmir.ir.tma import TmaLoadOp, TmaStoreOp
from gemmir.ir.warpgroup import WarpgroupMmaOp, WarpSpecializeOp
from gemmir.machine import GpuMachine
from gemmir.schedule.hopper_model import (
    BEGIN_SECONDS,
    DRAM_SHARE,
    END_SECONDS,
    SHARED_BYTES_PER_CYCLE,
    SUSTAINED_CLOCK_HZ,
)

UNIT_THREADS: Final = {THREADS: 1, WARPS: 32, WARPGROUPS: 128}
L2_BYTES_PER_CYCLE: Final = 64
"""What a multiprocessor takes from L2 in a cycle: `COPY_BYTES_PER_SECOND` of `hopper_model`, and as
much on an A100 (NVIDIA A100 Tensor Core GPU Architecture: 5120 bytes a cycle for all of them)."""

MMA_FLOPS_PER_CYCLE: Final = {"cuda:sm_75": 1024, "cuda:sm_80": 2048, "cuda:sm_86": 1024}
"""Operations a cycle of the tensor cores of a multiprocessor on elements of 16 bits: NVIDIA A100
Tensor Core GPU Architecture, table 1; GA102, appendix A. Other GPUs have those of sm_86."""


@dataclass
class Counts:
    """What a kernel does in all: operations by unit, bytes, and the shape of its launch."""

    indices: Indices
    products: float = 0.0
    tensor_products: float = 0.0
    wide_products: float = 0.0
    item_bytes: float = 4.0
    loaded_bytes: float = 0.0
    stored_bytes: float = 0.0
    shared_bytes: float = 0.0
    blocks: float = 1.0
    threads: float = 1.0
    units: float = 1.0
    held_bytes: float = 0.0
    arguments: dict[SSAValue, float] = field(default_factory=dict[SSAValue, float])

    @property
    def flops(self) -> float:
        """All operations."""
        return self.products + self.tensor_products + self.wide_products


def predict_gpu(module: ModuleOp, machine: GpuMachine, *, unknown: float) -> Prediction:
    """What the kernels of a module take, one after the other; see `predict`."""
    found = [
        _kernel(op, unknown) for op in module.ops if isinstance(op, func.FuncOp) and op.body.blocks
    ]
    parts = [_seconds(counts, machine) for counts in found]
    total = {name: sum(part[name] for part in parts) for name in parts[0]}
    seconds = sum(max(part.values()) + BEGIN_SECONDS + END_SECONDS for part in parts)
    read = sum(c.loaded_bytes + c.stored_bytes for c in found)
    return Prediction(
        target=machine.target,
        seconds=seconds,
        bound_by=max(total, key=lambda name: total[name]),
        seconds_by=total,
        bytes_by_level={
            "shared": sum(c.shared_bytes for c in found),
            "l2": read,
            "dram": sum(_dram_bytes(c, machine) for c in found),
        },
        flops=sum(c.flops for c in found),
        roof_seconds=sum(_peak_seconds(c, machine) for c in found),
    )


def occupancy(counts: Counts, machine: GpuMachine) -> int:
    """Blocks that a multiprocessor holds at once, by shared memory and threads."""
    fits = [machine.max_blocks_per_sm]
    if counts.held_bytes:
        fits.append(int(machine.smem_bytes_per_sm // counts.held_bytes))
    fits.append(int(machine.max_threads_per_sm // max(counts.threads, 1)))
    return max(min(fits), 1)


def _peak_seconds(counts: Counts, machine: GpuMachine) -> float:
    """What the units take at the least, all multiprocessors at work."""
    wide = (machine.wgmma_flops_per_cycle_per_sm or 1) * 2 / counts.item_bytes
    tensor = MMA_FLOPS_PER_CYCLE.get(machine.target, 1024) * 2 / counts.item_bytes
    if machine.wgmma_flops_per_cycle_per_sm:
        tensor = wide / 2
    vector_flops = machine.flops_per_cycle(8 if counts.item_bytes == 8 else 4)
    cycles = (
        counts.wide_products / wide
        + counts.tensor_products / tensor
        + counts.products / vector_flops
    )
    return cycles / machine.sms / machine.clock_hz


def _seconds(counts: Counts, machine: GpuMachine) -> dict[str, float]:
    """Seconds by what they are spent on: units are idle in the last wave of blocks."""
    together = machine.sms * occupancy(counts, machine)
    waves = math.ceil(counts.blocks / machine.sms) * machine.sms / max(counts.blocks, 1)
    if counts.blocks > together:
        waves = math.ceil(counts.blocks / together) * together / counts.blocks
    clock = SUSTAINED_CLOCK_HZ if counts.wide_products else machine.clock_hz
    per_cycle = machine.sms * clock
    return {
        "products": _peak_seconds(counts, machine) * machine.clock_hz / clock * waves,
        "shared memory": counts.shared_bytes / SHARED_BYTES_PER_CYCLE / per_cycle * waves,
        "L2": (counts.loaded_bytes + counts.stored_bytes) / L2_BYTES_PER_CYCLE / per_cycle * waves,
        "DRAM": _dram_bytes(counts, machine) / machine.dram_bytes_per_second / DRAM_SHARE,
    }


def _dram_bytes(counts: Counts, machine: GpuMachine) -> float:
    """What moves at least: each array once, and what is read again and does not fit into L2."""
    once = sum(counts.arguments.values())
    again = max(counts.loaded_bytes + counts.stored_bytes - once, 0.0)
    missed = max(1 - machine.l2_bytes / once, 0.0) if once else 0.0
    return once + again * missed * math.sqrt(machine.sms) / machine.sms


def _kernel(op: func.FuncOp, unknown: float) -> Counts:
    counts = Counts(indices=Indices(unknown=unknown))
    for value in op.body.block.args:
        if isinstance(value.type, MemRefType):
            counts.arguments[value] = _size(counts, value)
    _body(op.body.block.ops, counts, 1.0)
    return counts


def _size(counts: Counts, value: SSAValue) -> float:
    found = memref_type(value)
    extents = [counts.indices.extent(value, d) for d in range(len(found.get_shape()))]
    return math.prod(extents) * _item(found.element_type)


def _item(element: Attribute) -> float:
    assert isinstance(element, FixedBitwidthType)
    return element.bitwidth / 8


def _body(ops: Any, counts: Counts, times: float) -> None:
    for op in ops:
        count(op, counts, times)


@singledispatch
def count(op: Operation, counts: Counts, times: float) -> None:
    """Add what an op does that runs so many times in all, each thread of it for itself."""
    for region in op.regions:
        for block in region.blocks:
            _body(block.ops, counts, times)


@count.register
def _(op: scf.ForOp, counts: Counts, times: float) -> None:
    variable = counts.indices.enter(op.body.block.args[0], op.lb, op.ub, op.step)
    _body(op.body.block.ops, counts, times * variable.trips)


@count.register
def _(op: ForallOp, counts: Counts, times: float) -> None:
    variable = counts.indices.enter(op.body.block.args[0], op.lb, op.ub, op.step)
    over, before = op.over.data, counts.units
    if over in (BLOCKS, CLUSTERS):
        counts.blocks = max(counts.blocks, times * variable.trips)
    else:
        counts.units = before * variable.trips
        counts.threads = max(counts.threads, counts.units * UNIT_THREADS[over])
    _body(op.body.block.ops, counts, times * variable.trips)
    counts.units = before


@count.register
def _(op: scf.IfOp, counts: Counts, times: float) -> None:
    holds = counts.indices.mean(op.cond)
    for region, part in ((op.true_region, holds), (op.false_region, 1 - holds)):
        for block in region.blocks if part > 0 else ():
            _body(block.ops, counts, times * part)


@count.register
def _(op: WarpSpecializeOp, counts: Counts, times: float) -> None:
    groups = op.warpgroups.value.data
    counts.threads = max(counts.threads, 128.0 * (groups + 1))
    for block in op.producer.blocks:
        _body(block.ops, counts, times)
    for block in op.consumers.blocks:
        for value in block.args:
            counts.indices.spread(value, groups)
        _body(block.ops, counts, times * groups)


@count.register
def _(op: memref.AllocaOp, counts: Counts, times: float) -> None:
    if is_shared(op.memref):
        counts.held_bytes += _size(counts, op.memref)


@count.register
def _(op: OuterProductOp, counts: Counts, times: float) -> None:
    shape = _shape(op.result.type)
    counts.products += 2 * math.prod(shape) * op.depth * times
    counts.item_bytes = _element_bytes(op.result.type)


@count.register
def _(op: MmaSyncOp, counts: Counts, times: float) -> None:
    rows, columns = _shape(op.acc.type)
    depth = _shape(op.lhs.type)[1]
    counts.tensor_products += 2 * rows * columns * depth * times
    counts.item_bytes = _element_bytes(op.lhs.type)


@count.register
def _(op: WarpgroupMmaOp, counts: Counts, times: float) -> None:
    rows, columns = _shape(op.acc.type)
    a, b = memref_type(op.a), memref_type(op.b)
    item = _item(a.element_type)
    depth = math.prod(a.get_shape()) // max(rows, 1)
    counts.wide_products += 2 * rows * columns * depth * times
    counts.shared_bytes += (math.prod(a.get_shape()) + math.prod(b.get_shape())) * item * times
    counts.item_bytes = item


@count.register
def _(op: AsyncCopyOp, counts: Counts, times: float) -> None:
    item = _item(memref_type(op.source).element_type)
    counts.loaded_bytes += op.elements.value.data * item * times


@count.register
def _(op: TmaLoadOp, counts: Counts, times: float) -> None:
    counts.loaded_bytes += _size(counts, op.target) * times


@count.register
def _(op: TmaStoreOp, counts: Counts, times: float) -> None:
    counts.stored_bytes += _size(counts, op.source) * times


@count.register
def _(op: LdMatrixOp, counts: Counts, times: float) -> None:
    counts.shared_bytes += _bytes(op.result.type) * times


@count.register
def _(op: vector.TransferReadOp, counts: Counts, times: float) -> None:
    if is_shared(op.source):
        counts.shared_bytes += _bytes(op.result.type) * times
    else:
        counts.loaded_bytes += _bytes(op.result.type) * times


@count.register
def _(op: vector.TransferWriteOp, counts: Counts, times: float) -> None:
    if is_shared(op.source):
        counts.shared_bytes += _bytes(op.vector.type) * times
    else:
        counts.stored_bytes += _bytes(op.vector.type) * times


def _shape(found: Attribute) -> tuple[int, ...]:
    return cast("VectorType[Attribute]", found).get_shape()


def _element_bytes(found: Attribute) -> float:
    return _item(cast("VectorType[Attribute]", found).element_type)


def _bytes(found: Attribute) -> float:
    return math.prod(_shape(found)) * _element_bytes(found)
