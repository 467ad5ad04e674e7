"""What a lowering for a GPU decided: its launch, and the instructions of its PTX.

The instructions are counted in the text; what ptxas makes of it is in `explain_code`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from xdsl.passes import ModulePass

from gemmir.backends.ptx.wgmma import PRODUCTS
from gemmir.explain_code import MachineCode, code_lines, machine_code
from gemmir.gemm import Gemm
from gemmir.ir.warp_products import MMA_SHAPES
from gemmir.launch import Launch
from gemmir.machine import GpuMachine
from gemmir.passes.promote import Promote
from gemmir.passes.split_k import SplitK, slice_size
from gemmir.passes.tile import Tile
from gemmir.passes.vectorize import Vectorize
from gemmir.schedule import pass_text

if TYPE_CHECKING:
    from gemmir.compiler import Lowered

KINDS: Final = {
    "multiply-adds": ("fma", "mma.sync", "wgmma.mma_async"),
    "loads from shared memory": ("ld.shared", "ldmatrix"),
    "loads from global memory": ("ld.global",),
    "asynchronous copies": ("cp.async.ca", "cp.async.cg", "cp.async.bulk.tensor"),
    "stores to shared memory": ("st.shared", "stmatrix"),
    "barriers": ("bar.sync", "barrier", "mbarrier"),
}
"""What is counted in the loop over k, by how its instructions begin."""

_LABEL: Final = re.compile(r"^(\$\w+):")
_INSTRUCTION: Final = re.compile(r"^\s+(?:@!?%\w+\s+)?([a-z][\w.:]*)\b([^;]*);?$")


@dataclass(frozen=True, kw_only=True)
class Sum:
    """How one element of C is summed: a property of the schedule, the same for every size of C.

    `slices` of at most `length` products are summed from zero in the order of k, `at_once` of them
    by one instruction, whose own order is not known; then the slices are added in their order.
    Within a slice each `part` may be summed from zero as well, and be added to a running sum.
    """

    slices: int
    length: int
    at_once: int
    part: int | None = None


@dataclass(frozen=True, kw_only=True)
class GpuExplanation:
    """What was decided; `loop` counts the PTX of the loop with most multiply-adds."""

    target: str
    problem: Gemm | None
    flops_per_byte: float | None
    steps: tuple[str, ...]
    sum: Sum | None
    launch: Launch
    loop: dict[str, int]
    code: MachineCode

    def to_dict(self) -> dict[str, Any]:
        """This explanation as plain values, for JSON."""
        found = asdict(self)
        if loop := self.code.loop:
            found["code"]["loop"]["share"] = loop.share
            found["code"]["loop"]["others_per_product"] = loop.others_per_product
        return found


def gpu_explanation(lowered: Lowered) -> GpuExplanation:
    """Read the launch, and count the instructions of `lowered` in PTX and in machine code."""
    problem, artifact, machine = lowered.problem, lowered.artifact, lowered.machine
    assert artifact.launch is not None and isinstance(machine, GpuMachine)
    return GpuExplanation(
        target=lowered.target,
        problem=problem,
        flops_per_byte=problem and problem.flops / max(problem.bytes_moved, 1),
        steps=tuple(pass_text(p) for p in lowered.schedule.passes),
        sum=problem and sum_of(problem, lowered.schedule.passes),
        launch=artifact.launch,
        loop=loop_counts(artifact.text),
        code=machine_code(artifact, machine),
    )


def sum_of(problem: Gemm, passes: Sequence[ModulePass]) -> Sum:
    """How `passes` let the elements of C be summed."""
    factors = [p.factor for p in passes if isinstance(p, SplitK)]
    slices = math.prod(factors)
    length = slice_size(problem.k, slices, problem.element.item_bytes) if factors else problem.k
    by_mma = [p for p in passes if isinstance(p, Vectorize) and p.with_ == "mma"]
    shapes = [p.shape or MMA_SHAPES[problem.dtype][0] for p in by_mma]
    at_once = shapes[0][2] if shapes else 1
    if any(isinstance(p, Vectorize) and p.with_ == "wgmma" for p in passes):
        at_once = PRODUCTS[problem.dtype].depth
    part = _part(problem, passes)
    return Sum(slices=slices, length=min(length, problem.k), at_once=at_once, part=part)


def _part(problem: Gemm, passes: Sequence[ModulePass]) -> int | None:
    """The slice of k of which C is promoted a second time; None where it is not."""
    size, sums = problem.k, 0
    for p in passes:
        if isinstance(p, Tile) and "k" in p.loops:
            size = min(size, p.sizes[p.loops.index("k")])
        elif isinstance(p, Promote) and (p.operand, p.to) == ("c", "registers"):
            sums += 1
    return size if sums > 1 else None


def loop_counts(ptx: str) -> dict[str, int]:
    """Instructions of the innermost loop with most multiply-adds, by kind; empty without one."""
    best: Counter[str] = Counter()
    for body in _loops(ptx):
        found: Counter[str] = Counter(instructions=len(body))
        for name in body:
            found.update(kind for kind, stems in KINDS.items() if name.startswith(stems))
        if found["multiply-adds"] > best["multiply-adds"]:
            best = found
    return dict(best)


def _loops(ptx: str) -> Iterator[list[str]]:
    """The instruction names from every label to the last branch back to it, inner loops first."""
    places: dict[str, int] = {}
    ends: dict[int, int] = {}
    names: list[str] = []
    for line in ptx.splitlines():
        if label := _LABEL.match(line):
            places[label.group(1)] = len(names)
        if found := _INSTRUCTION.match(line):
            names.append(found.group(1))
            target = found.group(2).strip()
            if found.group(1).startswith("bra") and target in places:
                ends[places[target]] = len(names)
    for first, end in sorted(ends.items(), key=lambda loop: (loop[1], -loop[0])):
        yield names[first:end]


def sum_lines(found: Sum) -> Iterator[str]:
    """How an element of C is summed."""
    step = f", {found.at_once} at once" if found.at_once > 1 else ""
    yield f"sum        {found.length} products in the order of k{step}, from zero"
    if found.part is not None:
        yield f"           every {found.part} of them for themselves, and then to a running sum"
    if found.slices > 1:
        yield (
            f"           in each of {found.slices} slices, which are then added in the same order; "
            "the bits do not depend on the blocks"
        )


def launch_lines(launch: Launch) -> Iterator[str]:
    """How the kernels are started, one on a line, and the workspaces that they share."""
    for kernel in launch.kernels:
        named = f" ({kernel.symbol})" if len(launch.kernels) > 1 else ""
        yield f"launch     {kernel}{named}"
        for tensor_map in kernel.tensor_maps:
            yield f"           tensor map of argument {tensor_map.argument}: {tensor_map}"
    if launch.workspace_bytes:
        yield f"workspace  {' + '.join(map(str, launch.workspace_bytes))} bytes of global memory"


def gpu_lines(found: GpuExplanation, machine: GpuMachine, problem: str) -> Iterator[str]:
    """`found` as lines of text; `problem` is the problem in one line."""
    yield f"problem    {problem}"
    yield f"machine    {found.target} ({machine.product}): {machine.sms} multiprocessors"
    yield ""
    yield "schedule"
    yield from (f"  {step}" for step in found.steps)
    yield ""
    if found.sum is not None:
        yield from sum_lines(found.sum)
    yield from launch_lines(found.launch)
    if found.loop:
        counts = ", ".join(f"{n} {kind}" for kind, n in found.loop.items())
        yield f"PTX loop   {counts}"
    yield from code_lines(found.code)
