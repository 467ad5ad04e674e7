"""What each pass does to a problem on a CPU, in a line: the sizes of the tiles that it makes.

The schedule is followed pass by pass; nothing is lowered.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import singledispatch

from xdsl.passes import ModulePass

from gemmir.gemm import Gemm
from gemmir.ir.amx import TILE_ROWS, TILES
from gemmir.machine import CpuMachine
from gemmir.passes.expand_math import ExpandMath
from gemmir.passes.fuse_epilogue import FuseEpilogue
from gemmir.passes.fuse_pack import OTHER, FusePack
from gemmir.passes.interchange import Interchange
from gemmir.passes.otherwise import Otherwise
from gemmir.passes.parallelize import Parallelize
from gemmir.passes.part import Part
from gemmir.passes.peel import Peel
from gemmir.passes.persist import Persist
from gemmir.passes.pipeline import Pipeline
from gemmir.passes.prefetch import Prefetch
from gemmir.passes.prepack import Prepack
from gemmir.passes.promote import PACKED_TYPES, Promote
from gemmir.passes.split_k import SplitK, slice_size
from gemmir.passes.stream_k import StreamK
from gemmir.passes.swap_operands import SwapOperands
from gemmir.passes.tile import Tile
from gemmir.passes.unroll import Unroll
from gemmir.passes.unsign import Unsign
from gemmir.passes.vectorize import AMX, DOT, Vectorize
from gemmir.passes.version import Version
from gemmir.passes.widen_reads import WidenReads


@dataclass(frozen=True, kw_only=True)
class Blocking:
    """The sizes of the blocks: mc x kc of A and kc x nc of B packed, mr x nr of C in registers.

    A size is None where no pass decides it.
    """

    mc: int | None = None
    nc: int | None = None
    kc: int | None = None
    mr: int | None = None
    nr: int | None = None


@dataclass(frozen=True, kw_only=True)
class Registers:
    """Registers of a `kind` that the register tile needs, and how many there are."""

    accumulators: int
    row: int
    broadcast: int
    available: int
    kind: str = "vector registers"

    @property
    def used(self) -> int:
        """All that are needed at once."""
        return self.accumulators + self.row + self.broadcast


@dataclass
class Walk:
    """The problem as the passes so far have cut it.

    Of each element of C `sums` are in registers: that of a slice of k, and a running one.
    """

    problem: Gemm
    machine: CpuMachine
    width: int
    tile: dict[str, int]
    blocking: Blocking = field(default_factory=Blocking)
    carries: bool = False
    sums: int = 0
    registers: Registers | None = None
    lanes: int = 1
    neighbours: int = 1
    at_once: int = 1
    adds_along_k: bool = False

    @property
    def item_bytes(self) -> int:
        """Bytes of an element of A."""
        return self.problem.element.item_bytes

    def size(self, *dimensions: str) -> int:
        """Bytes of a tile over two dimensions: m and k is one of A, k and n of B, m and n of C."""
        gemm = self.problem
        of = {"mk": gemm.element, "kn": gemm.element_b, "mn": gemm.result}["".join(dimensions)]
        return math.prod(self.tile[d] for d in dimensions) * of.bits // 8


@singledispatch
def meaning(p: ModulePass, walk: Walk) -> str:
    """What pass `p` does to the problem in `walk`, which it moves on; "" where it is not known."""
    return ""


@meaning.register
def _(p: Tile, walk: Walk) -> str:
    counts: list[str] = []
    for name, size in zip(p.loops, p.sizes, strict=True):
        counts.append(f"{ceil_div(walk.tile[name], size)} of {name}")
        walk.tile[name] = min(walk.tile[name], size)
    over = f" over {p.over}" if p.over else ""
    sizes = [walk.size("m", "k"), walk.size("k", "n"), walk.size("m", "n")]
    shape = " x ".join(str(walk.tile[d]) for d in "mnk")
    tiles = ", ".join(f"{name} {bytes_text(s)}" for name, s in zip("abc", sizes, strict=True))
    return f"{', '.join(counts)}{over}; {shape}: {tiles}; {held_in(sum(sizes), walk.machine)}"


@meaning.register
def _(p: Promote, walk: Walk) -> str:
    if p.operand != "c":
        return _packed(p, walk)
    walk.carries = p.carry
    return _accumulators(walk) if p.to == "registers" else _summed(p, walk)


def _summed(p: Promote, walk: Walk) -> str:
    size = walk.size("m", "n")
    of = share_of(size, p.to, caches_of(walk.machine)[p.to])
    return f"c {walk.tile['m']} x {walk.tile['n']} summed in {p.layout}, {bytes_text(size)}, {of}"


def _accumulators(walk: Walk) -> str:
    rows, columns = walk.tile["m"], walk.tile["n"]
    if walk.at_once > 1:
        return _sums_in_tiles(walk, rows, columns)
    vectors = max(ceil_div(columns, walk.width), 1)
    walk.sums += 1
    walk.blocking = replace(walk.blocking, mr=rows, nr=columns, kc=walk.tile["k"])
    walk.registers = Registers(
        accumulators=walk.sums * rows * vectors,
        row=1 if 1 < rows < vectors else vectors,
        broadcast=rows if 1 < rows < vectors else 1,
        available=walk.machine.vector_registers,
    )
    return (
        f"{rows} x {columns} sums in {rows} x {vectors} registers, which all of "
        f"k={walk.tile['k']} goes through"
        + (", from what the slice before has left in c" if walk.carries else "")
        + (", beside those that they are added to" if walk.sums > 1 else "")
    )


def _sums_in_tiles(walk: Walk, rows: int, columns: int) -> str:
    down, across = (max(ceil_div(size, TILE_ROWS), 1) for size in (rows, columns))
    walk.blocking = replace(walk.blocking, mr=rows, nr=columns, kc=walk.tile["k"])
    walk.registers = Registers(
        accumulators=down * across,
        row=across if down > 1 else 1,
        broadcast=1,
        available=TILES,
        kind="matrix tiles",
    )
    return (
        f"{rows} x {columns} sums in {down} x {across} matrix tiles, which all of "
        f"k={walk.tile['k']} goes through"
    )


def _packed(p: Promote, walk: Walk) -> str:
    along = "m" if p.operand == "a" else "n"
    width = int((p.layout or "panel:1").split(":")[1].split("x")[0])
    extent = ceil_div(walk.tile[along], width) * width
    block = {"a": "mc", "b": "nc"}[p.operand]
    walk.blocking = replace(walk.blocking, **{block: walk.tile[along], "kc": walk.tile["k"]})
    item_bytes = walk.item_bytes if p.as_ is None else PACKED_TYPES[p.as_].size
    size = extent * walk.tile["k"] * item_bytes
    sliver = width * walk.tile["k"] * item_bytes
    capacities = caches_of(walk.machine)
    held = f", {share_of(size, p.to, capacities[p.to])}" if p.to in capacities else ""
    return (
        f"{p.operand} {extent} x {walk.tile['k']} packed{f' as {p.as_}' if p.as_ else ''}, "
        f"{bytes_text(size)}{held}; "
        f"a panel of {width} is {bytes_text(sliver)}, {share_of(sliver, 'l1', capacities['l1'])}"
    )


@meaning.register
def _(p: Vectorize, walk: Walk) -> str:
    found = walk.registers
    if found is None:
        return f"vectors of {p.width}"
    if p.along is not None:
        rows, columns = walk.blocking.mr or 0, walk.blocking.nr or 0
        sums = walk.sums * rows * columns
        found = replace(found, accumulators=sums, row=columns, broadcast=rows)
        walk.registers, walk.lanes = found, p.width or 1
        return (
            f"vectors of {p.width} along k; {found.accumulators} + {found.broadcast} + "
            f"{found.row} = {found.used} of {found.available} registers (sums, rows of a, "
            "columns of b)"
        )
    if p.with_ == AMX:
        return (
            f"tiles of {TILE_ROWS} rows and {walk.at_once} of k; {found.accumulators} + "
            f"{found.row} + {found.broadcast} = {found.used} of {found.available} matrix tiles "
            "(sums, those of b, one of a)"
        )
    what = "row of b, element of a" if found.broadcast == 1 else "vector of b, elements of a"
    if p.dealt and walk.problem.element_b.per_byte > 1:
        what = "halves of the bytes of a row of b and a vector of it, element of a"
        if p.width == 1 << walk.problem.element_b.bits:
            what = "words of a row of b, those shifted and the float of each number, element of a"
        found = replace(found, row=3, broadcast=1)
        walk.registers = found
    dealt = ", dealt" if p.dealt else ""
    return (
        f"vectors of {p.width}{dealt}; {found.accumulators} + {found.row} + {found.broadcast} = "
        f"{found.used} of {found.available} registers (sums, {what})"
    )


@meaning.register
def _(p: Unroll, walk: Walk) -> str:
    return f"{p.factor} steps of {p.loop} an iteration; each sum keeps its order"


@meaning.register
def _(p: WidenReads, walk: Walk) -> str:
    rows = "the last row" if p.rows == 1 else f"the last {p.rows} rows"
    return f"of {rows} of a tile {p.width} elements of a are read at once, and come from registers"


@meaning.register
def _(p: Peel, walk: Walk) -> str:
    return f"sums begin with the products of the first iteration over {p.loop}, not with zeros"


@meaning.register
def _(p: FusePack, walk: Walk) -> str:
    return f"the first tile of {OTHER[p.operand]} fills the panels of {p.operand} as it meets them"


@meaning.register
def _(p: Pipeline, walk: Walk) -> str:
    return f"{p.stages - 1} slices of {p.loop} are copied while one is multiplied, by {p.with_}"


@meaning.register
def _(p: Prefetch, walk: Walk) -> str:
    during = " and ".join(filter(None, (", ".join((p.during or ())[:-1]), *(p.during or ())[-1:])))
    share = f", a share in each iteration over {during}" if p.during else ""
    if p.ahead == 0:
        return f"the tile of {p.operand} that will be written comes to {p.to}{share}"
    later = "1 tile" if p.ahead == 1 else f"{p.ahead} tiles"
    return f"what is read of {p.operand} {later} of {p.loop} later comes to {p.to}{share}"


@meaning.register
def _(p: Prepack, walk: Walk) -> str:
    return f"{p.operand} may be packed before the call, and a function takes it packed"


@meaning.register
def _(p: Parallelize, walk: Walk) -> str:
    return f"the loop over {p.loop} runs on the {p.over}"


@meaning.register
def _(p: Interchange, walk: Walk) -> str:
    groups = f", in groups of {p.group}" if p.group else ""
    return f"loops from the outside in: {', '.join(p.order)}{groups}"


@meaning.register
def _(p: SplitK, walk: Walk) -> str:
    walk.tile["k"] = slice_size(walk.tile["k"], p.factor, walk.item_bytes)
    return f"{p.factor} slices of k, at most {walk.tile['k']} each, added in the order of k"


@meaning.register
def _(p: StreamK, walk: Walk) -> str:
    return f"slices of {p.slice} of k are dealt to {p.blocks} blocks, and added in the order of k"


@meaning.register
def _(p: Persist, walk: Walk) -> str:
    return f"{p.blocks} blocks take all tiles in turn"


@meaning.register
def _(p: SwapOperands, walk: Walk) -> str:
    walk.tile["m"], walk.tile["n"] = walk.tile["n"], walk.tile["m"]
    return "the transpose of c is computed: b and a change places"


@meaning.register
def _(p: Unsign, walk: Walk) -> str:
    if walk.adds_along_k:
        return "b has no sign in registers; 128 sums of the rows of a are taken off c"
    return "a has no sign in its panels; 128 sums of the columns of b are taken off c"


@meaning.register
def _(p: FuseEpilogue, walk: Walk) -> str:
    steps = f" ({walk.problem.epilogue})" if walk.problem.epilogue else ""
    return f"the epilogue{steps} is applied where c is written last, in registers"


@meaning.register
def _(p: ExpandMath, walk: Walk) -> str:
    return "exponentials become polynomials on vectors; no library is called"


@meaning.register
def _(p: Version, walk: Walk) -> str:
    numbers, word = (p.most or (), "at most") if p.sizes is None else (p.sizes, "exactly")
    pairs = list(zip(p.loops, numbers, strict=False))
    for name, number in pairs:
        walk.tile[name] = number if p.most is None else min(walk.tile[name], number)
    sizes = " and ".join(f"{name} of {word} {number}" for name, number in pairs)
    return f"a function for {sizes}, by the passes up to otherwise"


@meaning.register
def _(p: Part, walk: Walk) -> str:
    walk.tile[p.loop] = min(p.at, walk.tile[p.loop])
    what = {"m": "rows", "n": "columns"}.get(p.loop, p.loop)
    return f"a function for the first {p.at} {what}, by the passes up to otherwise"


@meaning.register
def _(p: Otherwise, walk: Walk) -> str:
    return "all others, by the passes that follow"


def _depth(p: Promote) -> int:
    """How many neighbours along k are adjacent in the panels that `p` makes."""
    depth = (p.layout or "").partition("x")[2]
    return int(depth) if depth.isdigit() else 1


def neighbours_of(passes: Sequence[ModulePass], problem: Gemm) -> int:
    """How many products of neighbours along k are added at once: of panels, or of rows of both."""
    found = [_depth(p) for p in passes if isinstance(p, Promote)]
    if any(map(adds_along_k, passes)):
        is_wider = any(isinstance(p, Promote) and p.as_ == "i16" for p in passes)
        found.append(2 if is_wider else 4 // problem.element.item_bytes)
    return max(found, default=1)


def adds_along_k(p: ModulePass) -> bool:
    """Whether `p` adds several products at once, with lanes along k."""
    return isinstance(p, Vectorize) and p.with_ == DOT and p.along is not None


def ceil_div(value: int, step: int) -> int:
    """How many parts of at most `step` there are in `value`."""
    return -(-value // max(step, 1))


def caches_of(machine: CpuMachine) -> dict[str, int]:
    """Bytes of each cache by name, the smallest first."""
    return {"l1": machine.l1_bytes, "l2": machine.l2_bytes, "l3": machine.l3_bytes}


def held_in(size: int, machine: CpuMachine) -> str:
    """The smallest cache that holds `size` bytes."""
    for name, capacity in caches_of(machine).items():
        if size <= capacity:
            return f"together {share_of(size, name, capacity)}"
    return f"together {bytes_text(size)}, more than L3"


def share_of(size: int, name: str, capacity: int) -> str:
    """`size` bytes as a percentage of a memory."""
    return f"{size / capacity:.0%} of {name.upper()}"


def bytes_text(size: int) -> str:
    """A number of bytes in the largest unit of which there is one."""
    for unit, scale in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size} B"
