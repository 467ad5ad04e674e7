"""Whether a schedule fits a machine: checked from its text alone, before anything is lowered.

The passes are followed as they cut the problem, so that the size of every promoted tile is known
when it is promoted.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from xdsl.passes import ModulePass

from gemmir.dtypes import ELEMENTS, PRODUCTS
from gemmir.errors import ScheduleError
from gemmir.gemm import MAX_ELEMENTS, Gemm
from gemmir.ir.amx import TILE_ROWS, TILES
from gemmir.ir.dialect import BLOCKS, CLUSTERS, CORES, INSIDE_BLOCK, MAPPINGS, WARPGROUPS
from gemmir.ir.specialize import PINGPONG, THREADS_OF_GROUP, default_registers
from gemmir.ir.warp_products import MMA_SHAPES
from gemmir.ir.warpgroup import WARPGROUP_ROWS
from gemmir.machine import CpuMachine, GpuMachine, Machine, TpuMachine
from gemmir.machine.cpu import DOT_FEATURES, TILE_FEATURES
from gemmir.passes.otherwise import Otherwise
from gemmir.passes.parallelize import Parallelize
from gemmir.passes.part import Part
from gemmir.passes.pipeline import TMA, Pipeline
from gemmir.passes.prepack import Prepack
from gemmir.passes.promote import CACHES, PACKED_TYPES, Promote
from gemmir.passes.split_k import SplitK, slice_size
from gemmir.passes.swap_operands import SwapOperands
from gemmir.passes.tile import Tile
from gemmir.passes.unsign import Unsign
from gemmir.passes.vectorize import AMX, DOT, MMA, WGMMA, Vectorize
from gemmir.passes.version import Version
from gemmir.schedule.default_gpu import LOAD_BYTES
from gemmir.schedule.fit_tpu import check_fits_tpu
from gemmir.schedule.schedule import Schedule
from gemmir.sizes import known

ADDRESS_REGISTERS = 40
"""Registers of a thread beside its tile: 73 less the 44 of an 8 x 4 tile, as ptxas reports them
for sm_80, and room for addresses of edges. Of the 232 of a warpgroup 192 may so be sums, which is
as many as ptxas 13.0 takes without spills."""


KNOWN_TILES = [{feature} for feature in TILE_FEATURES.values()]
"""What a CPU must have for factors that are both of a kind of which there are tiles."""

FRAGMENT_BYTES = 32
"""Bytes of each row of A and column of B that one product on tensor cores takes."""


@dataclass
class _Walk:
    """The problem as the passes so far have cut it.

    `factors` are the elements of A and B, and `packed_as` what they become in panels.

    Of the tile in registers there are `sums`: of slices of k, and of all of it.
    """

    machine: CpuMachine | GpuMachine
    dtype: str
    item_bytes: int
    tile: dict[str, int]
    block: dict[str, int] = field(default_factory=dict[str, int])
    factors: dict[str, str] = field(default_factory=dict[str, str])
    packed_as: dict[str, str] = field(default_factory=dict[str, str])
    accumulator: tuple[int, int] | None = None
    sums: int = 0
    held_bytes: dict[str, int] = field(default_factory=dict[str, int])
    stages: int = 1
    blocks_per_sm: int = 1
    warpgroups: int = 1
    other: _Walk | None = None
    """The problem of the sizes that a version leaves."""


def check_fits(schedule: Schedule, gemm: Gemm, machine: Machine) -> None:
    """Raise `ScheduleError` where `schedule` asks more of `machine` than it has.

    GEM0311 for a vector of a width that the unit does not have, GEM0312 for an accumulator tile
    that does not fit the registers, GEM0313 for packed tiles larger than their memory, GEM0318 for
    a unit that the machine does not have, GEM0379 for products that its tensor cores do not have;
    for a TPU those of `check_fits_tpu`.
    """
    if isinstance(machine, TpuMachine):
        check_fits_tpu(schedule, gemm, machine)
        return
    walk = _Walk(
        machine=machine,
        dtype=gemm.dtype,
        item_bytes=gemm.element.item_bytes,
        factors={"a": gemm.element.name, "b": gemm.element_b.name},
        tile=largest_sizes(gemm),
    )
    for p, after in zip(schedule.passes, (*schedule.passes, None)[1:], strict=True):
        if isinstance(p, Version):
            walk = _version(walk, p)
        elif isinstance(p, Part):
            walk = _part(walk, p)
        elif isinstance(p, Otherwise):
            walk = walk.other or walk
        elif isinstance(p, Promote) and isinstance(after, Prepack):
            _convert(walk, p)  # what is packed before the calls need not fit a cache
        else:
            _follow(walk, p)
    if isinstance(machine, GpuMachine):
        _check_blocks_per_sm(walk, machine)


def _version(walk: _Walk, p: Version) -> _Walk:
    """The problem of the sizes that `p` names, which knows that of the others."""
    tile = dict(walk.tile)
    for name, number in zip(p.loops, p.most or p.sizes or (), strict=False):
        tile[name] = min(tile.get(name, number), number)
    return replace(walk, tile=tile, held_bytes=dict(walk.held_bytes), other=walk)


def _part(walk: _Walk, p: Part) -> _Walk:
    """The problem of the first part, which knows that of the other; only a CPU calls functions."""
    if isinstance(walk.machine, GpuMachine):
        raise ScheduleError(
            "GEM1304",
            f"part: {walk.machine.target} has one kernel for all of C",
            "leave part out",
        )
    whole = walk.tile.get(p.loop, 0)
    rest = replace(walk, tile={**walk.tile, p.loop: max(whole - p.at, 0)})
    tile = {**walk.tile, p.loop: min(p.at, whole)}
    return replace(walk, tile=tile, held_bytes=dict(walk.held_bytes), other=rest)


def largest_sizes(gemm: Gemm) -> dict[str, int]:
    """The extents of a problem; of one that is known in a call only the most that it can be."""
    m, n, k = known((gemm.m, gemm.n, gemm.k), lambda unknown: MAX_ELEMENTS)
    return {"m": m, "n": n, "k": k, "batch": gemm.batch or 1}


def _follow(walk: _Walk, p: ModulePass) -> None:
    if isinstance(p, Tile):
        for name, size in zip(p.loops, p.sizes, strict=False):
            whole = walk.tile.get(name, size)
            walk.tile[name] = min(whole, size)
            if p.over == WARPGROUPS:
                walk.warpgroups *= max(-(-whole // max(size, 1)), 1)
        if p.over == BLOCKS:
            walk.block = dict(walk.tile)
            walk.blocks_per_sm = p.per_sm or 1
        _check_unit(walk, "tile", p.over)
    elif isinstance(p, SwapOperands):
        walk.tile["m"], walk.tile["n"] = walk.tile["n"], walk.tile["m"]
    elif isinstance(p, Promote) and p.operand == "c" and p.to in CACHES:
        _check_sum(walk, p)
    elif isinstance(p, Promote) and p.operand == "c":
        walk.accumulator = (walk.tile["m"], walk.tile["n"])
        walk.sums += p.to == "registers"
    elif isinstance(p, Promote):
        _check_capacity(walk, p)
    elif isinstance(p, Unsign):
        walk.packed_as["a"] = "u8"
    elif isinstance(p, Parallelize):
        _check_unit(walk, "parallelize", p.over)
    elif isinstance(p, SplitK):
        _check_split(walk, p)
    elif isinstance(p, Pipeline):
        _check_stages(walk, p)
    elif isinstance(p, Vectorize):
        _check_vectors(walk, p)


def _capacities(machine: CpuMachine | GpuMachine) -> dict[str, int]:
    """The bytes of each memory space that packed tiles may take."""
    if isinstance(machine, GpuMachine):
        return {"shared": machine.smem_bytes_per_block}
    return {"l1": machine.l1_bytes, "l2": machine.l2_bytes, "l3": machine.l3_bytes}


def _check_capacity(walk: _Walk, p: Promote) -> None:
    capacity = _capacities(walk.machine).get(p.to)
    short = {"a": "m", "b": "n"}.get(p.operand)
    if capacity is None or short is None or MAX_ELEMENTS in (walk.tile[short], walk.tile["k"]):
        return
    width = walk.tile[short]
    if p.to == "shared":
        kind, _, amount = (p.layout or "").partition(":")
        width = walk.block.get(short, width)
        width = max(width, int(amount)) if kind == "panel" and amount.isdigit() else width
    item_bytes = _convert(walk, p)
    size = width * walk.tile["k"] * item_bytes
    held = walk.held_bytes.get(p.to, 0) + size
    walk.held_bytes[p.to] = held
    if held > capacity:
        per_row = max(walk.tile["k"] * item_bytes, 1)
        room = max((capacity - (held - size)) // per_row, 0)
        raise ScheduleError(
            "GEM0313",
            f"promote: {p.operand} tile of {width} x {walk.tile['k']} is {size} bytes "
            f"and {p.to} of {walk.machine.name} holds {capacity}"
            + (f", {held - size} of them taken" if held > size else ""),
            f"tile {short} by at most {room} before it" if room else "tile k smaller",
        )


def _convert(walk: _Walk, p: Promote) -> int:
    """The bytes of an element of a copy, which may be of another type."""
    if p.as_ is None:
        return walk.item_bytes
    walk.packed_as[p.operand] = p.as_
    return PACKED_TYPES[p.as_].size if p.as_ in PACKED_TYPES else walk.item_bytes


def _check_sum(walk: _Walk, p: Promote) -> None:
    """C that is summed in a cache must find room there."""
    capacity = _capacities(walk.machine).get(p.to, 0)
    size = walk.tile["m"] * walk.tile["n"] * walk.item_bytes
    if size > capacity:
        room = capacity // max(walk.tile["m"] * walk.item_bytes, 1)
        raise ScheduleError(
            "GEM0313",
            f"promote: c of {walk.tile['m']} x {walk.tile['n']} is {size} bytes and {p.to} of "
            f"{walk.machine.name} holds {capacity}",
            f"tile n by at most {room} before it" if room else "tile m smaller",
        )


def _check_blocks_per_sm(walk: _Walk, machine: GpuMachine) -> None:
    """So many blocks as a multiprocessor shall hold must find room in its shared memory."""
    taken = walk.held_bytes.get("shared", 0) * walk.stages
    if walk.blocks_per_sm * taken > machine.smem_bytes_per_sm:
        raise ScheduleError(
            "GEM0313",
            f"tile: per_sm={walk.blocks_per_sm} blocks with {taken} bytes of shared memory each, "
            f"and a multiprocessor of {machine.name} holds {machine.smem_bytes_per_sm}",
            f"use per_sm={machine.smem_bytes_per_sm // taken}, or smaller tiles or fewer stages",
        )


def _check_stages(walk: _Walk, p: Pipeline) -> None:
    if p.with_ == TMA and not _has_warpgroups(walk.machine):
        raise ScheduleError(
            "GEM0318",
            f"pipeline: with={p.with_}, and {walk.machine.target} has no TMA",
            "use with=cp.async, without specialize",
        )
    if isinstance(walk.machine, GpuMachine) and not walk.machine.has_async_copies:
        raise ScheduleError(
            "GEM0318",
            f"pipeline: with={p.with_}, and {walk.machine.target} has no asynchronous copies",
            "leave pipeline out",
        )
    if p.pingpong:
        walk.warpgroups = PINGPONG
    held, walk.stages = walk.held_bytes.get("shared", 0), p.stages
    capacity = _capacities(walk.machine).get("shared", 0)
    if held * p.stages > capacity:
        raise ScheduleError(
            "GEM0313",
            f"pipeline: {p.stages} stages of {held} bytes are {held * p.stages}, and the shared "
            f"memory of a block of {walk.machine.name} holds {capacity}",
            f"use {capacity // held} stages" if held * 2 <= capacity else "tile k smaller",
        )


def _check_split(walk: _Walk, p: SplitK) -> None:
    _require_unit(walk.machine, "split-k: slices over blocks", BLOCKS, "leave split-k out")
    if p.factor > 1:
        size = slice_size(walk.tile["k"], p.factor, walk.item_bytes)
        walk.tile["k"] = min(walk.tile["k"], size)


def _check_unit(walk: _Walk, name: str, over: str | None) -> None:
    if over in MAPPINGS:
        _require_unit(walk.machine, f"{name}: over={over}", over)


def _require_unit(machine: CpuMachine | GpuMachine, what: str, unit: str, hint: str = "") -> None:
    units = _units(machine)
    if unit not in units:
        raise ScheduleError(
            "GEM0318", f"{what}, and {machine.target} has none", hint or f"use {', '.join(units)}"
        )


def _units(machine: CpuMachine | GpuMachine) -> tuple[str, ...]:
    if not isinstance(machine, GpuMachine):
        return (CORES,)
    if _has_warpgroups(machine):
        return (CLUSTERS, BLOCKS, *INSIDE_BLOCK)
    return (BLOCKS, *(unit for unit in INSIDE_BLOCK if unit != WARPGROUPS))


def _has_warpgroups(machine: CpuMachine | GpuMachine) -> bool:
    return isinstance(machine, GpuMachine) and bool(machine.wgmma_dtypes)


def _check_warpgroups(walk: _Walk) -> None:
    """Refuse types that warpgroups do not multiply, and sums that leave a thread no registers."""
    machine = walk.machine
    known = machine.wgmma_dtypes if isinstance(machine, GpuMachine) else ()
    if walk.dtype not in known:
        raise ScheduleError(
            "GEM0318",
            f"vectorize: with=wgmma multiplies {walk.dtype}, and {machine.target} has "
            + (f"warpgroups for {', '.join(known)}" if known else "no warpgroups"),
            "use with=mma or with=fma",
        )
    if walk.accumulator is None:
        return
    rows, columns = walk.accumulator
    _, most = default_registers(walk.warpgroups)
    needed = -(-rows // WARPGROUP_ROWS) * WARPGROUP_ROWS * columns // THREADS_OF_GROUP
    needed *= walk.sums
    if needed + ADDRESS_REGISTERS > most:
        fitting = (most - ADDRESS_REGISTERS) * THREADS_OF_GROUP
        raise ScheduleError(
            "GEM0312",
            f"vectorize: a tile of {rows} x {columns} takes {needed} registers of each thread, and "
            f"of {walk.warpgroups} warpgroups a thread has {most}, {ADDRESS_REGISTERS} of them for "
            "what is beside it",
            f"use tiles of at most {fitting} elements over warpgroups",
        )


def _check_tensor_cores(walk: _Walk, p: Vectorize) -> None:
    known = walk.machine.mma_dtypes if isinstance(walk.machine, GpuMachine) else ()
    if walk.dtype not in known:
        raise ScheduleError(
            "GEM0318",
            f"vectorize: with=mma multiplies {walk.dtype}, and {walk.machine.target} has "
            + (f"tensor cores for {', '.join(known)}" if known else "no tensor cores"),
            "use with=fma" + (f", or a dtype of {', '.join(known)}" if known else ""),
        )
    shapes = MMA_SHAPES.get(walk.dtype, ())
    _check_shape(walk, p.shape or next(iter(shapes), ()), shapes)


def _check_shape(
    walk: _Walk, shape: tuple[int, ...], known: tuple[tuple[int, int, int], ...]
) -> None:
    """Refuse a product that is longer along k than those of the machine."""
    machine = walk.machine
    assert isinstance(machine, GpuMachine)
    if shape in known and shape[2] * walk.item_bytes > machine.mma_k_bytes:
        fitting = [s for s in known if s[2] * walk.item_bytes <= machine.mma_k_bytes]
        raise ScheduleError(
            "GEM0379",
            f"vectorize: one product of {walk.dtype} takes {shape[2]} elements along k, and on "
            f"{machine.target} {machine.mma_k_bytes // walk.item_bytes}",
            f"use {' or '.join('shape=' + ','.join(map(str, s)) for s in fitting)}",
        )


def _check_dots(walk: _Walk, along: str | None) -> None:
    """Refuse products that this CPU does not add several at a time, as it does those of i16.

    With lanes along k pairs of bf16 may be taken apart instead.
    """
    machine = walk.machine
    factors = tuple(walk.packed_as.get(operand, name) for operand, name in walk.factors.items())
    if not isinstance(machine, CpuMachine):
        raise ScheduleError(
            "GEM0318",
            f"vectorize: with=dot is a unit of CPUs, and {machine.target} is none",
            "use with=mma or with=fma",
        )
    if along is not None and factors == ("bf16", "bf16"):
        return
    is_known = any(set(pair) == set(factors) for *pair, _ in DOT_FEATURES)
    if not is_known or machine.adds_products(*factors):
        return
    is_integer = ELEMENTS[PRODUCTS[walk.dtype].element.accumulator].is_integer
    raise ScheduleError(
        "GEM1328",
        f"vectorize: with=dot adds products of {factors[0]} and {factors[1]}, and {machine.target} "
        "has no instruction for them",
        "promote both with as=i16" if is_integer else "promote with as=f32 and use with=fma",
    )


def _check_tiles(walk: _Walk) -> None:
    """Refuse tiles where the machine has none for such factors, and more than it has registers.

    A row of accumulators takes one tile of A, and tiles of B that are kept for the next row.
    """
    machine = walk.machine
    factors = tuple(walk.packed_as.get(operand, name) for operand, name in walk.factors.items())
    is_cpu = isinstance(machine, CpuMachine)
    is_known = {TILE_FEATURES.get(name) for name in factors} in KNOWN_TILES
    if not is_cpu or (is_known and not machine.multiplies_tiles(*factors)):
        raise ScheduleError(
            "GEM0318",
            f"vectorize: with=amx multiplies tiles of bf16 or of bytes, and {machine.target} has "
            f"no instruction for {factors[0]} and {factors[1]}",
            "use with=dot or with=fma",
        )
    if walk.accumulator is None:
        return
    rows, columns = (-(-size // TILE_ROWS) for size in walk.accumulator)
    kept = columns if rows > 1 else 1
    needed = walk.sums * rows * columns + kept + 1
    if needed > TILES:
        raise ScheduleError(
            "GEM0312",
            f"vectorize: {walk.accumulator[0]} x {walk.accumulator[1]} sums take "
            f"{rows}*{columns} + {kept} + 1 = {needed} tiles, and {machine.name} has {TILES}",
            f"tile m and n by {2 * TILE_ROWS}",
        )


def _check_vectors(walk: _Walk, p: Vectorize) -> None:
    if p.with_ == DOT:
        _check_dots(walk, p.along)
    if p.with_ == MMA:
        _check_tensor_cores(walk, p)
    if p.with_ == WGMMA:
        _check_warpgroups(walk)
    if p.width is None:
        return
    vector_bytes = LOAD_BYTES if isinstance(walk.machine, GpuMachine) else walk.machine.vector_bytes
    item_bytes = walk.item_bytes
    if isinstance(walk.machine, CpuMachine):
        item_bytes = ELEMENTS[PRODUCTS[walk.dtype].element.accumulator].item_bytes
    lanes = vector_bytes // item_bytes
    if p.with_ in ("fma", DOT, AMX) and (p.width < 1 or p.width > lanes or p.width & (p.width - 1)):
        raise ScheduleError(
            "GEM0311",
            f"vectorize: width={p.width}, and a vector of {walk.machine.name} has {lanes} lanes of "
            f"{item_bytes} bytes",
            f"use {lanes} or a smaller power of two",
        )
    if p.with_ == AMX:
        _check_tiles(walk)
        return
    if walk.accumulator is None:
        return
    if isinstance(walk.machine, GpuMachine):
        _check_thread_registers(walk, walk.machine, walk.accumulator, p.with_)
        return
    rows, columns = walk.accumulator
    if p.along is not None:
        _check_lanes(walk, walk.machine, rows, columns)
        return
    vectors = max(-(-columns // p.width), 1)
    held = min(vectors, rows)  # vectors of B, or elements of A where there are fewer
    needed = walk.sums * rows * vectors + held + 1
    registers = walk.machine.vector_registers
    if needed > registers:
        fitting = max(
            (registers - 1 - vectors) // (walk.sums * vectors),
            min((registers - 1) // (walk.sums * vectors + 1), vectors),
        )
        raise ScheduleError(
            "GEM0312",
            f"vectorize: a tile of {rows} x {columns} needs "
            f"{f'{walk.sums}*' if walk.sums > 1 else ''}{rows}*{vectors} + {held} + 1 = "
            f"{needed} vector registers and {walk.machine.name} has {registers}",
            f"tile m by at most {fitting}" if fitting > 0 else "tile n smaller",
        )


def _check_lanes(walk: _Walk, machine: CpuMachine, rows: int, columns: int) -> None:
    """A vector for each element of the tile, and one for each row of A and column of B."""
    needed = walk.sums * rows * columns + rows + columns
    if needed > machine.vector_registers:
        raise ScheduleError(
            "GEM0312",
            f"vectorize: along=k of a tile of {rows} x {columns} needs "
            f"{f'{walk.sums}*' if walk.sums > 1 else ''}{rows}*{columns} + {rows} + {columns} = "
            f"{needed} vector registers and {machine.name} has {machine.vector_registers}",
            "tile m or n smaller",
        )


def _check_thread_registers(
    walk: _Walk, machine: GpuMachine, accumulator: tuple[int, int], unit: str
) -> None:
    """Sums, a column and a row of 32-bit registers, beside what addresses take.

    For tensor cores the tile is that of a warp, and two fragments of 32 bytes of k are held.
    """
    rows, columns = accumulator
    words = max(walk.item_bytes // 4, 1)
    if unit == "fma":
        needed = (walk.sums * rows * columns + rows + columns) * words + ADDRESS_REGISTERS
    else:
        fragment_bytes = (rows + columns) * FRAGMENT_BYTES
        held = walk.sums * rows * columns * words + fragment_bytes // 4
        needed = -(-held // machine.threads_per_warp) + ADDRESS_REGISTERS
    if needed > machine.registers_per_thread:
        raise ScheduleError(
            "GEM0312",
            f"vectorize: a tile of {rows} x {columns} needs about {needed} registers and a thread "
            f"of {machine.name} has {machine.registers_per_thread}",
            f"tile over {'threads' if unit == 'fma' else 'warps'} by less",
        )
