"""What a lowering for a CPU decided and what that means on the machine.

The schedule is followed pass by pass (`gemmir.explain_passes`), and the instructions of the
innermost loop are counted in the assembly. Nothing is measured.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from gemmir.cost.core import TILE_LATENCY_CYCLES, TILE_PRODUCT_CYCLES
from gemmir.explain_passes import (
    Blocking,
    Registers,
    Walk,
    adds_along_k,
    bytes_text,
    caches_of,
    ceil_div,
    meaning,
    neighbours_of,
)
from gemmir.gemm import Gemm
from gemmir.ir.amx import ROW_BYTES, TILE_ROWS
from gemmir.machine import CpuMachine
from gemmir.passes.otherwise import Otherwise
from gemmir.passes.part import Part
from gemmir.passes.unroll import Unroll
from gemmir.passes.vectorize import AMX, Vectorize
from gemmir.passes.version import Version
from gemmir.schedule import pass_text
from gemmir.schedule.cpu.tiles import FMA_LATENCY_CYCLES, LOADS_PER_CYCLE

if TYPE_CHECKING:
    from gemmir.compiler import Lowered


EXAMPLE_SIZE: Final = 1024
"""What is reckoned with in place of an extent that is known in a call only."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One pass of the schedule and what it does to the problem."""

    text: str
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Reduction:
    """How one element of C is summed.

    `blocks` slices of at most `block` products, each summed from zero in one accumulator in the
    order of k by fused multiply-adds, and added in the same order. With several `lanes` a slice has
    an accumulator for each, which takes every so many products, or groups of `neighbours`, and
    whose halves are added. `depth` is the most roundings that a product goes through; `bound_depth`
    is what the error bound allows for. Matrix tiles take `at_once` products, the sum of which is
    added to the accumulator. Slices are added to C, or in registers to a `running` sum.
    """

    block: int
    blocks: int
    lanes: int = 1
    neighbours: int = 1
    at_once: int = 1
    running: bool = False
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


def _follow(lowered: Lowered) -> tuple[tuple[Step, ...], Walk | None]:
    problem = None if lowered.problem is None else example_of(lowered.problem)
    if problem is None:
        return tuple(Step(text=pass_text(p), meaning="") for p in lowered.schedule.passes), None
    lanes = _cpu_of(lowered).lanes(problem.accumulator.item_bytes)
    widths = [p.width for p in lowered.schedule.passes if isinstance(p, Vectorize) and p.width]
    walk = Walk(
        problem=problem,
        machine=_cpu_of(lowered),
        width=widths[0] if widths else lanes,
        tile={"m": problem.m, "n": problem.n, "k": problem.k, "batch": problem.batch or 1},
        neighbours=neighbours_of(lowered.schedule.passes, problem),
        adds_along_k=any(map(adds_along_k, lowered.schedule.passes)),
    )
    if any(isinstance(p, Vectorize) and p.with_ == AMX for p in lowered.schedule.passes):
        walk.at_once = ROW_BYTES // walk.item_bytes
    others: list[dict[str, int]] = []
    parts: list[Walk] = []
    steps: list[Step] = []
    for p in lowered.schedule.passes:
        if isinstance(p, Version | Part):
            others.append(dict(walk.tile))
        if isinstance(p, Part):
            others[-1][p.loop] -= min(p.at, others[-1][p.loop])
            parts.append(walk)
        if isinstance(p, Otherwise) and others:
            walk = replace(walk, tile=others.pop(), blocking=Blocking(), sums=0)
        steps.append(Step(text=pass_text(p), meaning=meaning(p, walk)))
    return tuple(steps), parts[0] if parts else walk


def _reduction(walk: Walk) -> Reduction:
    k = walk.problem.k
    block = k if walk.carries else min(walk.blocking.kc or k, k)
    blocks = ceil_div(k, block) if block else 0
    if walk.at_once > 1:
        return Reduction(
            block=block,
            blocks=blocks,
            at_once=walk.at_once,
            depth=min(walk.at_once // 2, block) + 1 + ceil_div(block, walk.at_once) + blocks - 1,
            bound_depth=k + walk.problem.roundings,
        )
    return Reduction(
        block=block,
        blocks=blocks,
        lanes=walk.lanes,
        neighbours=walk.neighbours,
        running=walk.sums > 1,
        depth=ceil_div(block, walk.lanes) + walk.lanes.bit_length() - 1 + max(blocks - 1, 0),
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


def _limit(loop: InnerLoop, lowered: Lowered) -> Limit:
    assert lowered.problem is not None
    if loop.in_tiles:
        return _limit_of_tiles(loop, lowered)
    item_bytes = lowered.problem.accumulator.item_bytes
    passes = lowered.schedule.passes
    steps = math.prod(p.factor for p in passes if isinstance(p, Unroll) and p.loop == "k")
    widths = [p.width for p in passes if isinstance(p, Vectorize) and p.width]
    lanes = widths[0] if widths else _cpu_of(lowered).lanes(item_bytes)
    depth = neighbours_of(passes, lowered.problem)
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


def cpu_sections(found: Explanation, machine: CpuMachine, problem: str) -> tuple[str, ...]:
    """What `found` says, as paragraphs of text; `problem` is it in one line."""
    sections = (
        _problem_lines(found, machine, problem),
        _schedule_lines(found),
        _tile_lines(found),
        _loop_lines(found),
    )
    return tuple(map("\n".join, sections))


def _problem_lines(found: Explanation, machine: CpuMachine, problem: str) -> Iterator[str]:
    if found.problem is None:
        yield "problem    not known: the text is a later stage"
    else:
        yield f"problem    {problem}"
        example = example_of(found.problem)
        if found.problem.unknown:
            yield f"           with {EXAMPLE_SIZE} in place of any:"
        yield (
            f"           {example.flops:,} flops, {example.bytes_moved:,} bytes moved "
            f"at least: {found.flops_per_byte:.1f} flops a byte"
        )
    caches = ", ".join(f"{k.upper()} {bytes_text(v)}" for k, v in caches_of(machine).items())
    yield f"machine    {found.target} ({found.cpu}): {caches}"
    yield (
        f"           {machine.vector_registers} vector registers of {machine.vector_bytes} bytes, "
        f"{machine.fma_per_cycle} FMA a cycle"
    )


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
        to = "a running sum" if found.running else "c"
        yield f"           into one accumulator in the order of k, and added to {to} in that order"
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
