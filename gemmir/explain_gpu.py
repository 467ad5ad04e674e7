"""What a lowering for a GPU decided: its launch, and the instructions of its PTX.

The instructions are counted in the text. What ptxas makes of it, registers and spills, is known
where ptxas is found.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from gemmir.backend import Launch
from gemmir.gemm import Gemm
from gemmir.machine import GpuMachine
from gemmir.schedule import pass_text

if TYPE_CHECKING:
    from gemmir.compiler import Lowered

KINDS: Final = {
    "multiply-adds": ("fma",),
    "loads from shared memory": ("ld.shared",),
    "loads from global memory": ("ld.global",),
    "stores to shared memory": ("st.shared",),
    "barriers": ("bar.sync", "barrier"),
}
"""What is counted in the loop over k, by how its instructions begin."""

_LABEL: Final = re.compile(r"^(\$\w+):")
_INSTRUCTION: Final = re.compile(r"^\s+(?:@!?%\w+\s+)?([a-z][\w.:]*)\b(.*);")


@dataclass(frozen=True, kw_only=True)
class GpuExplanation:
    """What was decided; `loop` counts the instructions of the loop with most multiply-adds."""

    target: str
    problem: Gemm | None
    flops_per_byte: float | None
    steps: tuple[str, ...]
    launch: Launch
    loop: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """This explanation as plain values, for JSON."""
        return asdict(self)


def gpu_explanation(lowered: Lowered) -> GpuExplanation:
    """Read the launch and count the instructions of `lowered`."""
    problem, artifact = lowered.problem, lowered.artifact
    assert artifact.launch is not None
    return GpuExplanation(
        target=lowered.target,
        problem=problem,
        flops_per_byte=problem and problem.flops / max(problem.bytes_moved, 1),
        steps=tuple(pass_text(p) for p in lowered.schedule.passes),
        launch=artifact.launch,
        loop=loop_counts(artifact.text),
    )


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
    """The instruction names of every piece of text between a label and a branch back to it."""
    places: dict[str, int] = {}
    names: list[str] = []
    for line in ptx.splitlines():
        if label := _LABEL.match(line):
            places[label.group(1)] = len(names)
        if found := _INSTRUCTION.match(line):
            names.append(found.group(1))
            target = found.group(2).strip()
            if found.group(1).startswith("bra") and target in places:
                yield names[places[target] :]


def launch_lines(launch: Launch) -> Iterator[str]:
    """How the kernels are started, one on a line, and the workspaces that they share."""
    for kernel in launch.kernels:
        named = f" ({kernel.symbol})" if len(launch.kernels) > 1 else ""
        yield f"launch     {kernel}{named}"
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
    yield from launch_lines(found.launch)
    if found.loop:
        counts = ", ".join(f"{n} {kind}" for kind, n in found.loop.items())
        yield f"loop       {counts}"
