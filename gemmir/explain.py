"""What a lowering decided and what that means on its machine, for a reader or a program.

The schedule is followed pass by pass with the sizes of the tiles that it makes; the instructions
are counted in the assembly. Nothing is measured.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import singledispatch
from typing import TYPE_CHECKING, Any, Final

from xdsl.passes import ModulePass

from gemmir.cost.core import TILE_LATENCY_CYCLES, TILE_PRODUCT_CYCLES
from gemmir.explain_cost import cost_facts, cost_lines
from gemmir.explain_gpu import gpu_explanation, gpu_lines
from gemmir.explain_tpu import tpu_explanation, tpu_lines
from gemmir.gemm import Gemm
from gemmir.ir.amx import ROW_BYTES, TILE_ROWS, TILES
from gemmir.machine import CpuMachine, GpuMachine, TpuMachine
from gemmir.passes.expand_math import ExpandMath
from gemmir.passes.fuse_epilogue import FuseEpilogue
from gemmir.passes.fuse_pack import OTHER, FusePack
from gemmir.passes.interchange import Interchange
from gemmir.passes.otherwise import Otherwise
from gemmir.passes.parallelize import Parallelize
from gemmir.passes.part import Part
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
from gemmir.schedule import pass_text
from gemmir.schedule.cpu.tiles import FMA_LATENCY_CYCLES, LOADS_PER_CYCLE

if TYPE_CHECKING:
    from gemmir.compiler import Lowered
    from gemmir.tpu_profile import Comparison


EXAMPLE_SIZE: Final = 1024
"""What is reckoned with in place of an extent that is known in a call only."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One pass of the schedule and what it does to the problem."""

    text: str
    meaning: str


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


@dataclass(frozen=True, kw_only=True)
class Reduction:
    """How one element of C is summed.

    `blocks` slices of at most `block` products, each summed from zero in one accumulator in the
    order of k by fused multiply-adds, and added in the same order. With several `lanes` a slice has
    an accumulator for each, which takes every so many products, or groups of `neighbours`, and
    whose halves are added. `depth` is the most roundings that a product goes through; `bound_depth`
    is what the error bound allows for. Matrix tiles take `at_once` products, the sum of which is
    added to the accumulator.
    """

    block: int
    blocks: int
    lanes: int = 1
    neighbours: int = 1
    at_once: int = 1
    depth: int
    bound_depth: int


@dataclass(frozen=True, kw_only=True)
class InnerLoop:
    """Instructions of one iteration of the loop that does the multiply-adds.

    `loads` are vector loads and broadcasts, also those within an FMA; `spills` are vector moves to
    and from the stack. `in_tiles` says that matrix tiles are meant, and not vectors.
    """

    fmas: int
    loads: int
    spills: int
    instructions: int
    in_tiles: bool = False


@dataclass(frozen=True, kw_only=True)
class Limit:
    """The best that the inner loop can do: cycles of an iteration by what they are spent on."""

    cycles_by: Mapping[str, float]
    flops: int
    peak_flops_per_cycle: int

    @property
    def flops_per_cycle(self) -> float:
        """Floating-point operations a cycle where nothing else is in the way."""
        return self.flops / max(max(self.cycles_by.values()), 1e-9)


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Everything that `explain` says; None where it is not known."""

    target: str
    cpu: str
    problem: Gemm | None
    flops_per_byte: float | None
    steps: tuple[Step, ...]
    blocking: Blocking | None
    registers: Registers | None
    reduction: Reduction | None
    inner_loop: InnerLoop | None
    limit: Limit | None

    def to_dict(self) -> dict[str, Any]:
        """This explanation as plain values, for JSON."""
        found = asdict(self)
        if self.registers is not None:
            found["registers"]["used"] = self.registers.used
        if self.limit is not None:
            found["limit"]["flops_per_cycle"] = self.limit.flops_per_cycle
        return found


def explanation(lowered: Lowered) -> Explanation:
    """Follow the schedule of `lowered`, for a CPU, and count the instructions of its code."""
    machine = _cpu_of(lowered)
    problem = None if lowered.problem is None else example_of(lowered.problem)
    steps, walk = _follow(lowered)
    loop = inner_loop(_assembly(lowered))
    return Explanation(
        target=lowered.target,
        cpu=machine.llvm_cpu,
        problem=lowered.problem,
        flops_per_byte=problem and problem.flops / max(problem.bytes_moved, 1),
        steps=steps,
        blocking=walk and walk.blocking,
        registers=walk and walk.registers,
        reduction=walk and _reduction(walk),
        inner_loop=loop,
        limit=_limit(loop, lowered) if loop and problem else None,
    )


def explain(
    lowered: Lowered,
    profile: Comparison | None = None,
    edits: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> str:
    """What was decided and what it is predicted to take, as text.

    Of a TPU with its `profile`, where one was made. `edits` is how many changes of the schedule are
    shown that the cost model likes best; `say` is told where that takes a while.
    """
    machine = lowered.machine
    problem = "not known" if lowered.problem is None else described(lowered.problem)
    if isinstance(machine, TpuMachine):
        texts = ["\n".join(tpu_lines(tpu_explanation(lowered, profile), machine, problem))]
    elif isinstance(machine, GpuMachine):
        texts = ["\n".join(gpu_lines(gpu_explanation(lowered), machine, problem))]
    else:
        found = explanation(lowered)
        sections = (
            _problem_lines(found, machine),
            _schedule_lines(found),
            _tile_lines(found),
            _loop_lines(found),
        )
        texts = ["\n".join(lines) for lines in sections]
    texts.append("\n".join(cost_lines(cost_facts(lowered, edits, say), machine)))
    return "\n\n".join(text for text in texts if text) + "\n"


def facts(
    lowered: Lowered,
    profile: Comparison | None = None,
    edits: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """What `explain` says, as plain values for JSON."""
    if isinstance(lowered.machine, TpuMachine):
        found = tpu_explanation(lowered, profile).to_dict()
    elif isinstance(lowered.machine, GpuMachine):
        found = gpu_explanation(lowered).to_dict()
    else:
        found = explanation(lowered).to_dict()
    return {**found, "cost": cost_facts(lowered, edits, say).to_dict()}


def example_of(gemm: Gemm) -> Gemm:
    """`gemm` with `EXAMPLE_SIZE` in place of what is known in a call only."""
    numbers = {name: EXAMPLE_SIZE for name in gemm.unknown if name in ("m", "n", "k")}
    return gemm.at(**numbers, **dict.fromkeys(gemm.unknown_factors, 1.0))


def _cpu_of(lowered: Lowered) -> CpuMachine:
    assert isinstance(lowered.machine, CpuMachine)
    return lowered.machine


def _assembly(lowered: Lowered) -> str:
    from gemmir.backends.cpu.assemble import assembly

    return assembly(lowered.artifact)


# What the passes do ------------------------------------------------------------------------------


@dataclass
class _Walk:
    """The problem as the passes so far have cut it."""

    problem: Gemm
    machine: CpuMachine
    width: int
    tile: dict[str, int]
    blocking: Blocking = field(default_factory=Blocking)
    carries: bool = False
    registers: Registers | None = None
    lanes: int = 1
    neighbours: int = 1
    at_once: int = 1
    adds_along_k: bool = False

    @property
    def item_bytes(self) -> int:
        return self.problem.element.item_bytes

    def size(self, *dimensions: str) -> int:
        """Bytes of a tile over two dimensions: m and k is one of A, k and n of B, m and n of C."""
        gemm = self.problem
        of = {"mk": gemm.element, "kn": gemm.element_b, "mn": gemm.result}["".join(dimensions)]
        return math.prod(self.tile[d] for d in dimensions) * of.bits // 8


def _follow(lowered: Lowered) -> tuple[tuple[Step, ...], _Walk | None]:
    problem = None if lowered.problem is None else example_of(lowered.problem)
    if problem is None:
        return tuple(Step(text=pass_text(p), meaning="") for p in lowered.schedule.passes), None
    lanes = _cpu_of(lowered).lanes(problem.accumulator.item_bytes)
    widths = [p.width for p in lowered.schedule.passes if isinstance(p, Vectorize) and p.width]
    walk = _Walk(
        problem=problem,
        machine=_cpu_of(lowered),
        width=widths[0] if widths else lanes,
        tile={"m": problem.m, "n": problem.n, "k": problem.k, "batch": problem.batch or 1},
        neighbours=_neighbours(lowered.schedule.passes, problem),
        adds_along_k=any(map(_adds_along_k, lowered.schedule.passes)),
    )
    if any(isinstance(p, Vectorize) and p.with_ == AMX for p in lowered.schedule.passes):
        walk.at_once = ROW_BYTES // walk.item_bytes
    others: list[dict[str, int]] = []
    parts: list[_Walk] = []
    steps: list[Step] = []
    for p in lowered.schedule.passes:
        if isinstance(p, Version | Part):
            others.append(dict(walk.tile))
        if isinstance(p, Part):
            others[-1][p.loop] -= min(p.at, others[-1][p.loop])
            parts.append(walk)
        if isinstance(p, Otherwise) and others:
            walk = replace(walk, tile=others.pop(), blocking=Blocking())
        steps.append(Step(text=pass_text(p), meaning=meaning(p, walk)))
    return tuple(steps), parts[0] if parts else walk


@singledispatch
def meaning(p: ModulePass, walk: _Walk) -> str:
    """What pass `p` does to the problem in `walk`, which it moves on; "" where it is not known."""
    return ""


@meaning.register
def _(p: Tile, walk: _Walk) -> str:
    counts: list[str] = []
    for name, size in zip(p.loops, p.sizes, strict=True):
        counts.append(f"{_ceil(walk.tile[name], size)} of {name}")
        walk.tile[name] = min(walk.tile[name], size)
    over = f" over {p.over}" if p.over else ""
    sizes = [walk.size("m", "k"), walk.size("k", "n"), walk.size("m", "n")]
    shape = " x ".join(str(walk.tile[d]) for d in "mnk")
    tiles = ", ".join(f"{name} {_bytes(s)}" for name, s in zip("abc", sizes, strict=True))
    return f"{', '.join(counts)}{over}; {shape}: {tiles}; {_held(sum(sizes), walk.machine)}"


@meaning.register
def _(p: Promote, walk: _Walk) -> str:
    if p.operand != "c":
        return _packed(p, walk)
    walk.carries = p.carry
    return _accumulators(walk) if p.to == "registers" else _summed(p, walk)


def _summed(p: Promote, walk: _Walk) -> str:
    size = walk.size("m", "n")
    of = _share(size, p.to, _caches(walk.machine)[p.to])
    return f"c {walk.tile['m']} x {walk.tile['n']} summed in {p.layout}, {_bytes(size)}, {of}"


def _accumulators(walk: _Walk) -> str:
    rows, columns = walk.tile["m"], walk.tile["n"]
    if walk.at_once > 1:
        return _sums_in_tiles(walk, rows, columns)
    vectors = max(_ceil(columns, walk.width), 1)
    walk.blocking = replace(walk.blocking, mr=rows, nr=columns, kc=walk.tile["k"])
    walk.registers = Registers(
        accumulators=rows * vectors,
        row=1 if 1 < rows < vectors else vectors,
        broadcast=rows if 1 < rows < vectors else 1,
        available=walk.machine.vector_registers,
    )
    return (
        f"{rows} x {columns} sums in {rows} x {vectors} registers, which all of "
        f"k={walk.tile['k']} goes through"
        + (", from what the slice before has left in c" if walk.carries else "")
    )


def _sums_in_tiles(walk: _Walk, rows: int, columns: int) -> str:
    down, across = (max(_ceil(size, TILE_ROWS), 1) for size in (rows, columns))
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


def _packed(p: Promote, walk: _Walk) -> str:
    along = "m" if p.operand == "a" else "n"
    width = int((p.layout or "panel:1").split(":")[1].split("x")[0])
    extent = _ceil(walk.tile[along], width) * width
    block = {"a": "mc", "b": "nc"}[p.operand]
    walk.blocking = replace(walk.blocking, **{block: walk.tile[along], "kc": walk.tile["k"]})
    item_bytes = walk.item_bytes if p.as_ is None else PACKED_TYPES[p.as_].size
    size = extent * walk.tile["k"] * item_bytes
    sliver = width * walk.tile["k"] * item_bytes
    capacities = _caches(walk.machine)
    held = f", {_share(size, p.to, capacities[p.to])}" if p.to in capacities else ""
    return (
        f"{p.operand} {extent} x {walk.tile['k']} packed{f' as {p.as_}' if p.as_ else ''}, "
        f"{_bytes(size)}{held}; "
        f"a panel of {width} is {_bytes(sliver)}, {_share(sliver, 'l1', capacities['l1'])}"
    )


@meaning.register
def _(p: Vectorize, walk: _Walk) -> str:
    found = walk.registers
    if found is None:
        return f"vectors of {p.width}"
    if p.along is not None:
        rows, columns = walk.blocking.mr or 0, walk.blocking.nr or 0
        found = replace(found, accumulators=rows * columns, row=columns, broadcast=rows)
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
        found = replace(found, row=3, broadcast=1)
        walk.registers = found
    dealt = ", dealt" if p.dealt else ""
    return (
        f"vectors of {p.width}{dealt}; {found.accumulators} + {found.row} + {found.broadcast} = "
        f"{found.used} of {found.available} registers (sums, {what})"
    )


@meaning.register
def _(p: Unroll, walk: _Walk) -> str:
    return f"{p.factor} steps of {p.loop} an iteration; each sum keeps its order"


@meaning.register
def _(p: WidenReads, walk: _Walk) -> str:
    rows = "the last row" if p.rows == 1 else f"the last {p.rows} rows"
    return f"of {rows} of a tile {p.width} elements of a are read at once, and come from registers"


@meaning.register
def _(p: FusePack, walk: _Walk) -> str:
    return f"the first tile of {OTHER[p.operand]} fills the panels of {p.operand} as it meets them"


@meaning.register
def _(p: Pipeline, walk: _Walk) -> str:
    return f"{p.stages - 1} slices of {p.loop} are copied while one is multiplied, by {p.with_}"


@meaning.register
def _(p: Prefetch, walk: _Walk) -> str:
    during = " and ".join(filter(None, (", ".join((p.during or ())[:-1]), *(p.during or ())[-1:])))
    share = f", a share in each iteration over {during}" if p.during else ""
    if p.ahead == 0:
        return f"the tile of {p.operand} that will be written comes to {p.to}{share}"
    return f"what is read of {p.operand} {p.ahead} tiles of {p.loop} later comes to {p.to}{share}"


@meaning.register
def _(p: Prepack, walk: _Walk) -> str:
    return f"{p.operand} may be packed before the call, and a function takes it packed"


@meaning.register
def _(p: Parallelize, walk: _Walk) -> str:
    return f"the loop over {p.loop} runs on the {p.over}"


@meaning.register
def _(p: Interchange, walk: _Walk) -> str:
    groups = f", in groups of {p.group}" if p.group else ""
    return f"loops from the outside in: {', '.join(p.order)}{groups}"


@meaning.register
def _(p: SplitK, walk: _Walk) -> str:
    walk.tile["k"] = slice_size(walk.tile["k"], p.factor, walk.item_bytes)
    return f"{p.factor} slices of k, at most {walk.tile['k']} each, added in the order of k"


@meaning.register
def _(p: StreamK, walk: _Walk) -> str:
    return f"slices of {p.slice} of k are dealt to {p.blocks} blocks, and added in the order of k"


@meaning.register
def _(p: Persist, walk: _Walk) -> str:
    return f"{p.blocks} blocks take all tiles in turn"


@meaning.register
def _(p: SwapOperands, walk: _Walk) -> str:
    walk.tile["m"], walk.tile["n"] = walk.tile["n"], walk.tile["m"]
    return "the transpose of c is computed: b and a change places"


@meaning.register
def _(p: Unsign, walk: _Walk) -> str:
    if walk.adds_along_k:
        return "b has no sign in registers; 128 sums of the rows of a are taken off c"
    return "a has no sign in its panels; 128 sums of the columns of b are taken off c"


@meaning.register
def _(p: FuseEpilogue, walk: _Walk) -> str:
    steps = f" ({walk.problem.epilogue})" if walk.problem.epilogue else ""
    return f"the epilogue{steps} is applied where c is written last, in registers"


@meaning.register
def _(p: ExpandMath, walk: _Walk) -> str:
    return "exponentials become polynomials on vectors; no library is called"


@meaning.register
def _(p: Version, walk: _Walk) -> str:
    numbers, word = (p.most or (), "at most") if p.sizes is None else (p.sizes, "exactly")
    pairs = list(zip(p.loops, numbers, strict=False))
    for name, number in pairs:
        walk.tile[name] = number if p.most is None else min(walk.tile[name], number)
    sizes = " and ".join(f"{name} of {word} {number}" for name, number in pairs)
    return f"a function for {sizes}, by the passes up to otherwise"


@meaning.register
def _(p: Part, walk: _Walk) -> str:
    walk.tile[p.loop] = min(p.at, walk.tile[p.loop])
    what = {"m": "rows", "n": "columns"}.get(p.loop, p.loop)
    return f"a function for the first {p.at} {what}, by the passes up to otherwise"


@meaning.register
def _(p: Otherwise, walk: _Walk) -> str:
    return "all others, by the passes that follow"


def _reduction(walk: _Walk) -> Reduction:
    k = walk.problem.k
    block = k if walk.carries else min(walk.blocking.kc or k, k)
    blocks = _ceil(k, block) if block else 0
    if walk.at_once > 1:
        return Reduction(
            block=block,
            blocks=blocks,
            at_once=walk.at_once,
            depth=min(walk.at_once // 2, block) + 1 + _ceil(block, walk.at_once) + blocks - 1,
            bound_depth=k + walk.problem.roundings,
        )
    return Reduction(
        block=block,
        blocks=blocks,
        lanes=walk.lanes,
        neighbours=walk.neighbours,
        depth=_ceil(block, walk.lanes) + walk.lanes.bit_length() - 1 + max(blocks - 1, 0),
        bound_depth=k + walk.problem.roundings,
    )


# Instructions ------------------------------------------------------------------------------------

_LABEL: Final = re.compile(r"^(\.?L\w+):")
_JUMP: Final = re.compile(r"^\s+(?:j\w+|b(?:\.\w+)?|cbn?z\s+\w+,|tbn?z\s+\w+,\s*#\w+,)\s+(\.?L\w+)")
_INSTRUCTION: Final = re.compile(r"^\s+[a-z][\w.]*(\s|$)")
_FMA: Final = re.compile(
    r"^\s+(?:vfn?m(?:add|sub)\d{3}p[sd]\s|vpdp\w+\s|vdpbf16ps\s|vpmaddwd\s|tdp\w+\s|fml[as]\s+v"
    r"|(?:[su]dot|usdot|bfdot|smlal2?)\s+v)"
)
_LOAD: Final = re.compile(
    r"^\s+(?:tileload|vf?\w+\s+(?:\$\w+,\s*)?[-\w.]*\([^)]*\)(?:\{\w+\})?,|ld(?:p|r|ur|1r?)\s+[{]?\s*[qvds]\d)"
)
_STACK: Final = re.compile(r"(?:%[xyzt]mm.*\(%r[sb]p|\(%r[sb]p.*%[xyzt]mm|\b[qv]\d.*\[sp)")


def inner_loop(assembly: str) -> InnerLoop | None:
    """The innermost loop with the most vector FMAs; None where there are none."""
    lines = assembly.splitlines()
    counted = [_count(lines[first : last + 1]) for first, last in _innermost(lines)]
    best = max(counted, key=lambda loop: loop.fmas, default=None)
    return best if best is not None and best.fmas else None


def _innermost(lines: Sequence[str]) -> list[tuple[int, int]]:
    """First and last line of every loop that is entered at its first line and holds no other."""
    labels = {
        found[1]: number for number, line in enumerate(lines) if (found := _LABEL.match(line))
    }
    jumps = [
        (number, labels[found[1]])
        for number, line in enumerate(lines)
        if (found := _JUMP.match(line)) and found[1] in labels
    ]
    back = [(target, number) for number, target in jumps if target <= number]
    return [
        (first, last)
        for first, last in back
        if not any(first <= f and g <= last and (f, g) != (first, last) for f, g in back)
        and all(first <= source <= last for source, target in jumps if first < target <= last)
    ]


def _count(lines: Sequence[str]) -> InnerLoop:
    return InnerLoop(
        fmas=sum(bool(_FMA.match(line)) for line in lines),
        loads=sum(bool(_LOAD.match(line)) and not _STACK.search(line) for line in lines),
        spills=sum(bool(_STACK.search(line)) for line in lines),
        instructions=sum(bool(_INSTRUCTION.match(line)) for line in lines),
        in_tiles=any("%tmm" in line for line in lines),
    )


def _depth(p: Promote) -> int:
    """How many neighbours along k are adjacent in the panels that `p` makes."""
    depth = (p.layout or "").partition("x")[2]
    return int(depth) if depth.isdigit() else 1


def _neighbours(passes: Sequence[ModulePass], problem: Gemm) -> int:
    """How many products of neighbours along k are added at once: of panels, or of rows of both."""
    found = [_depth(p) for p in passes if isinstance(p, Promote)]
    if any(map(_adds_along_k, passes)):
        is_wider = any(isinstance(p, Promote) and p.as_ == "i16" for p in passes)
        found.append(2 if is_wider else 4 // problem.element.item_bytes)
    return max(found, default=1)


def _limit_of_tiles(loop: InnerLoop, lowered: Lowered) -> Limit:
    """Each product takes its turn, and each load one for every row."""
    assert lowered.problem is not None
    flops = 2 * TILE_ROWS * TILE_ROWS * ROW_BYTES // lowered.problem.element.item_bytes
    return Limit(
        cycles_by={
            "products of tiles": float(loop.fmas * TILE_PRODUCT_CYCLES),
            "loads": loop.loads * TILE_ROWS / LOADS_PER_CYCLE,
            "latency of the sums": float(TILE_LATENCY_CYCLES),
        },
        flops=loop.fmas * flops,
        peak_flops_per_cycle=flops // TILE_PRODUCT_CYCLES,
    )


def _adds_along_k(p: ModulePass) -> bool:
    """Whether `p` adds several products at once, with lanes along k."""
    return isinstance(p, Vectorize) and p.with_ == DOT and p.along is not None


def _limit(loop: InnerLoop, lowered: Lowered) -> Limit:
    assert lowered.problem is not None
    if loop.in_tiles:
        return _limit_of_tiles(loop, lowered)
    item_bytes = lowered.problem.accumulator.item_bytes
    passes = lowered.schedule.passes
    steps = math.prod(p.factor for p in passes if isinstance(p, Unroll) and p.loop == "k")
    widths = [p.width for p in passes if isinstance(p, Vectorize) and p.width]
    lanes = widths[0] if widths else _cpu_of(lowered).lanes(item_bytes)
    depth = _neighbours(passes, lowered.problem)
    return Limit(
        cycles_by={
            "multiply-adds": loop.fmas / _cpu_of(lowered).fma_per_cycle,
            "loads": (loop.loads + loop.spills) / LOADS_PER_CYCLE,
            "latency of the sums": float(steps * FMA_LATENCY_CYCLES),
        },
        flops=2 * loop.fmas * lanes * depth,
        peak_flops_per_cycle=_cpu_of(lowered).flops_per_cycle(item_bytes) * depth,
    )


# Text --------------------------------------------------------------------------------------------


def _problem_lines(found: Explanation, machine: CpuMachine) -> Iterator[str]:
    if found.problem is None:
        yield "problem    not known: the text is a later stage"
    else:
        yield f"problem    {described(found.problem)}"
        example = example_of(found.problem)
        if found.problem.unknown:
            yield f"           with {EXAMPLE_SIZE} in place of any:"
        yield (
            f"           {example.flops:,} flops, {example.bytes_moved:,} bytes moved "
            f"at least: {found.flops_per_byte:.1f} flops a byte"
        )
    caches = ", ".join(f"{k.upper()} {_bytes(v)}" for k, v in _caches(machine).items())
    yield f"machine    {found.target} ({found.cpu}): {caches}"
    yield (
        f"           {machine.vector_registers} vector registers of {machine.vector_bytes} bytes, "
        f"{machine.fma_per_cycle} FMA a cycle"
    )


def described(gemm: Gemm) -> str:
    """A problem in one line."""
    words = [f"m={gemm.m} n={gemm.n} k={gemm.k} {gemm.dtype}"]
    words += [f"batch={gemm.batch}"] if gemm.batch is not None else []
    words += [f"groups={gemm.groups}"] if gemm.groups is not None else []
    words += ["masked"] if gemm.masked else []
    words += [f"scale_block={gemm.scale_block}"] if gemm.scale_block is not None else []
    words += [f"dtype_b={gemm.dtype_b}"] if gemm.dtype_b is not None else []
    words += [f"weight_group={gemm.weight_group}"] if gemm.weight_group is not None else []
    words += [f"{name}={getattr(gemm, name):g}" for name in ("alpha", "beta")]
    words += [name for name in ("trans_a", "trans_b") if getattr(gemm, name)]
    words += [f"ld{x}={gemm.leading(x)}" for x in "abc" if getattr(gemm, f"ld{x}") is not None]
    words += [f"epilogue={gemm.epilogue}"] if gemm.epilogue else []
    return " ".join(words)


def _schedule_lines(found: Explanation) -> Iterator[str]:
    yield "schedule"
    if not found.steps:
        yield "  no passes"
    for step in found.steps:
        yield f"  {step.text}"
        if step.meaning:
            yield f"      {step.meaning}"


def _tile_lines(found: Explanation) -> Iterator[str]:
    if found.blocking is not None:
        sizes = {k: v for k, v in asdict(found.blocking).items() if v is not None}
        yield f"blocking   {' '.join(f'{k}={v}' for k, v in sizes.items()) or 'none'}"
    if found.registers is not None:
        held = found.registers
        yield f"registers  {held.used} of {held.available} {held.kind}"
    if found.reduction is not None:
        has_versions = any(step.text == "otherwise" for step in found.steps)
        has_parts = any(step.text.startswith("part{") for step in found.steps)
        of = "c in the first part" if has_parts else "c"
        yield from _reduction_lines(found.reduction, of, has_versions=has_versions)


def _reduction_lines(found: Reduction, of: str, *, has_versions: bool) -> Iterator[str]:
    if found.lanes > 1:
        what = "product" if found.neighbours == 1 else f"{found.neighbours} products"
        yield (
            f"reduction  each element of {of}: {found.lanes} accumulators of every {found.lanes}th "
            f"{what}, in the order of"
        )
        yield "           k, the upper half of which is added to the lower one until one is left"
    elif found.at_once > 1:
        yield (
            f"reduction  each element of {of}: {found.blocks} blocks of k, each up to "
            f"{found.block} products; of {found.at_once}"
        )
        yield "           at once those of even and of odd places are summed, and both sums added"
    elif found.blocks <= 1:
        yield (
            f"reduction  each element of {of}: one accumulator, {found.block} fused multiply-adds "
            "in the order of k"
        )
    else:
        yield (
            f"reduction  each element of {of}: {found.blocks} blocks of k, each up to "
            f"{found.block} fused multiply-adds"
        )
        yield "           into one accumulator in the order of k, and added to c in that order"
    yield (
        f"           a product goes through at most {found.depth} roundings; the error bound "
        f"allows {found.bound_depth}, any order"
    )
    within = ", within one version" if has_versions and found.blocks > 1 else ""
    yield (
        "           this schedule gives the same bits whatever the threads, m and the batch"
        + within
    )


def _loop_lines(found: Explanation) -> Iterator[str]:
    loop, limit = found.inner_loop, found.limit
    if loop is None:
        yield "inner loop no loop of vector FMAs"
        return
    what = ("products of tiles", "tile loads") if loop.in_tiles else ("vector FMAs", "vector loads")
    yield (
        f"inner loop {loop.fmas} {what[0]}, {loop.loads} {what[1]}, {loop.spills} spills, "
        f"{loop.instructions} instructions"
    )
    if limit is None:
        return
    cycles = ", ".join(f"{name} {c:g}" for name, c in limit.cycles_by.items())
    share = limit.flops_per_cycle / limit.peak_flops_per_cycle
    yield f"           cycles an iteration: {cycles}"
    yield (
        f"bound      {limit.flops_per_cycle:.1f} flops a cycle, {share:.0%} of the peak of "
        f"{limit.peak_flops_per_cycle}; times the clock in GHz: GFLOP/s"
    )


def _ceil(value: int, step: int) -> int:
    return -(-value // max(step, 1))


def _caches(machine: CpuMachine) -> dict[str, int]:
    return {"l1": machine.l1_bytes, "l2": machine.l2_bytes, "l3": machine.l3_bytes}


def _held(size: int, machine: CpuMachine) -> str:
    """The smallest cache that holds `size` bytes."""
    for name, capacity in _caches(machine).items():
        if size <= capacity:
            return f"together {_share(size, name, capacity)}"
    return f"together {_bytes(size)}, more than L3"


def _share(size: int, name: str, capacity: int) -> str:
    return f"{size / capacity:.0%} of {name.upper()}"


def _bytes(size: int) -> str:
    for unit, scale in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size} B"
