"""Whether a schedule fits a TPU: its units, its blocks and its vector memory.

A block in VMEM is made of tiles of 8 rows (sublanes) by 128 columns (lanes) as its array is stored,
so that one which is not the whole array is a multiple of that: JAX, "Pallas TPU", section
"BlockSpecs and grid iteration".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from xdsl.passes import ModulePass

from gemmir.dtypes import ELEMENTS
from gemmir.errors import ScheduleError
from gemmir.gemm import Gemm
from gemmir.ir.attributes import Space
from gemmir.ir.dialect import GRID
from gemmir.machine import TpuMachine
from gemmir.passes.parallelize import Parallelize
from gemmir.passes.pipeline import DMA, Pipeline
from gemmir.passes.promote import Promote
from gemmir.passes.split_k import SplitK
from gemmir.passes.tile import Tile
from gemmir.passes.vectorize import MXU, Vectorize
from gemmir.schedule.schedule import Schedule


@dataclass(kw_only=True)
class _Walk:
    """The problem as the passes so far have cut it, and what they hold in VMEM."""

    gemm: Gemm
    machine: TpuMachine
    tile: dict[str, int]
    in_grid: bool = False
    blocks: dict[str, int] = field(default_factory=dict[str, int])


def check_fits_tpu(schedule: Schedule, gemm: Gemm, machine: TpuMachine) -> None:
    """Raise `ScheduleError` where `schedule` asks more of `machine` than it has.

    GEM0397 for blocks that do not fit the VMEM of a core, GEM0398 for blocks that are no whole
    tiles, GEM0399 for a unit, a memory or a product that the machine does not have.
    """
    tile = {"m": gemm.m, "n": gemm.n, "k": gemm.k, "batch": gemm.batch or 1}
    walk = _Walk(gemm=gemm, machine=machine, tile=tile)
    for p in schedule.passes:
        _follow(walk, p)


def _follow(walk: _Walk, p: ModulePass) -> None:
    if isinstance(p, Tile):
        for name, size in zip(p.loops, p.sizes, strict=False):
            walk.tile[name] = min(walk.tile.get(name, size), size)
        walk.in_grid = walk.in_grid or p.over == GRID
        _require(walk, p.over in (None, GRID), f"tile: over={p.over}", "use over=grid")
    elif isinstance(p, Parallelize):
        walk.in_grid = True
        _require(walk, p.over == GRID, f"parallelize: over={p.over}", "use over=grid")
    elif isinstance(p, Promote):
        _require(walk, p.to == Space.VMEM, f"promote: to={p.to}", "use to=vmem")
        walk.blocks[p.operand] = _block_bytes(walk, p.operand)
    elif isinstance(p, SplitK):
        _require(walk, False, "split-k: slices over blocks", "use tile{loops=k …}")
    elif isinstance(p, Pipeline):
        _require(walk, p.with_ == DMA, f"pipeline: with={p.with_}", f"use with={DMA}")
        _check_tiles(walk)
        _check_vmem(walk)
    elif isinstance(p, Vectorize):
        _require(walk, p.with_ == MXU, f"vectorize: with={p.with_}", f"use with={MXU}")
        known = walk.machine.mxu_dtypes
        _require(
            walk,
            walk.gemm.dtype in known,
            f"vectorize: with=mxu multiplies {walk.gemm.dtype}",
            f"use a dtype of {', '.join(known)}",
        )


def _require(walk: _Walk, holds: bool, what: str, hint: str) -> None:
    if not holds:
        raise ScheduleError("GEM0399", f"{what}, and {walk.machine.target} has none", hint)


def _block_bytes(walk: _Walk, operand: str) -> int:
    """Bytes of the buffers of one operand: two where its blocks change, one of an accumulator."""
    dims = {"a": "mk", "b": "kn", "c": "mn"}[operand]
    elements = math.prod(max(walk.tile[d], 1) for d in dims)
    if operand == "c":
        return elements * walk.gemm.accumulator.item_bytes
    return elements * walk.gemm.element.item_bytes * (2 if walk.in_grid else 1)


def _check_tiles(walk: _Walk) -> None:
    """Each dimension is cut at whole tiles of every array that has it, or not at all."""
    gemm, machine = walk.gemm, walk.machine
    along_lanes = {"n"} if not gemm.trans_b else {"k", "n"}
    along_lanes |= {"m"} if gemm.trans_a else {"k"}
    for name in ("m", "n", "k"):
        size, whole = walk.tile[name], getattr(gemm, name)
        step = machine.lanes if name in along_lanes else machine.sublanes
        if size < whole and size % step:
            raise ScheduleError(
                "GEM0398",
                f"tile: {name}={whole} by {size}, and a block is a multiple of {step} there or "
                "all of it",
                f"use {max(size // step, 1) * step} or {whole}",
            )


def _check_vmem(walk: _Walk) -> None:
    """All blocks, those of the epilogue and the value of the sum find room together."""
    gemm, capacity = walk.gemm, walk.machine.vmem_bytes_per_core
    outputs = [o for o in gemm.operands if o.name in ("c", "residual")]
    reads_c = gemm.operands[-1].access == "readwrite"
    tile = max(walk.tile["m"], 1) * max(walk.tile["n"], 1)
    item = ELEMENTS[gemm.result.name].item_bytes
    held = {**walk.blocks, "c and the epilogue": 2 * tile * item * (len(outputs) + reads_c)}
    held["c"] = tile * gemm.accumulator.item_bytes
    total = sum(held.values())
    if total > capacity:
        shares = ", ".join(f"{name} {size}" for name, size in held.items())
        smaller = max(("m", "n", "k"), key=lambda name: walk.tile[name])
        raise ScheduleError(
            "GEM0397",
            f"pipeline: blocks of {total} bytes ({shares}), and VMEM of {walk.machine.name} holds "
            f"{capacity}",
            f"tile {smaller} by {max(walk.tile[smaller] // 2, 1)}",
        )
