"""Running passes over a module: timed, verified, and with every stage at hand as text.

A stage is the IR before the first pass or after one. Its text carries the passes that are still to
come in the module attribute `gemmir.schedule`, so that a stage that was printed can be parsed
elsewhere and taken to the end with the same result.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from xdsl.dialects import func, memref, scf
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Operation
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import VerifyException

from gemmir.errors import ParseError, ScheduleError
from gemmir.ir.attributes import Space, SpaceAttr
from gemmir.ir.context import make_context
from gemmir.ir.dialect import EpilogueOp, ForallOp, GemmOp, PackOp, UnpackOp, memref_type
from gemmir.ir.loops import GROUP, dimension_of
from gemmir.ir.pallas import CallOp
from gemmir.ir.versions import only_current
from gemmir.passes.otherwise import Otherwise
from gemmir.schedule.schedule import Schedule, pass_text

REMAINING: Final = "gemmir.schedule"
"""The module attribute that holds the passes still to come."""

LEVELS: Final = ("gemm", "tiled", "promoted", "vectorized")
"""Levels of the IR, in order."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The IR after one pass; `name` is `NN-pass`, `00-gemm` before the first."""

    name: str
    level: str
    step: str
    text: str
    seconds: float


class Stages(Mapping[str, Stage]):
    """The stages of a lowering in order, by name or by level: then the last of that level."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._by_name = {s.name: s for s in stages}
        self._by_level = {s.level: s for s in stages}

    def __getitem__(self, key: str) -> Stage:
        return self._by_name[key] if key in self._by_name else self._by_level[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def to_list(self) -> list[dict[str, Any]]:
        """What each stage is, without its text, as plain values for JSON."""
        return [
            {
                "name": stage.name,
                "level": stage.level,
                "lines": stage.text.count("\n"),
                "milliseconds": stage.seconds * 1e3,
            }
            for stage in self.values()
        ]


def level_of(module: ModuleOp) -> str:
    """The level of a module, from its ops alone."""
    level = "gemm"
    abstract = False
    for op in module.walk():
        if isinstance(op, GemmOp | EpilogueOp | PackOp | UnpackOp):
            abstract = True
        if _is_tiling(op) and level == "gemm":
            level = "tiled"
        is_buffer = isinstance(op, memref.AllocOp | memref.AllocaOp) and not _is_workspace(op)
        if is_buffer or isinstance(op, CallOp):
            level = "promoted"
    return level if abstract else "vectorized"


def _is_tiling(op: Operation) -> bool:
    """Whether `op` is a loop over tiles, or over whole products on other units, or a version."""
    return isinstance(op, ForallOp | func.CallOp) or (
        isinstance(op, scf.ForOp) and dimension_of(op) != GROUP
    )


def _is_workspace(op: memref.AllocOp | memref.AllocaOp) -> bool:
    """Whether a buffer brings nothing closer: it is in global memory."""
    return memref_type(op.memref).memory_space == SpaceAttr(Space.GLOBAL)


def run_pass(p: ModulePass, module: ModuleOp, *, verify: bool) -> None:
    """Run one pass; with `verify` an invalid result is a `ScheduleError` GEM0390 that names it."""
    if isinstance(p, Otherwise):
        p.apply(make_context(), module)
    else:
        with only_current(module):
            p.apply(make_context(), module)
    if not verify:
        return
    try:
        module.verify()
    except VerifyException as error:
        raise ScheduleError(
            "GEM0390",
            f"{pass_text(p)} left invalid IR: {str(error).splitlines()[0]}",
            "this is a fault of the pass",
        ) from None


def run_passes(module: ModuleOp, schedule: Schedule) -> None:
    """Run all passes and verify the result once."""
    last = len(schedule) - 1
    for number, p in enumerate(schedule.passes):
        run_pass(p, module, verify=number == last)


def run_stages(module: ModuleOp, schedule: Schedule) -> Iterator[Stage]:
    """Run the passes one by one, verifying after each; yields every stage with its text."""
    yield _stage(module, schedule, 0, 0.0)
    for number, p in enumerate(schedule.passes, 1):
        start = time.perf_counter()
        run_pass(p, module, verify=True)
        yield _stage(module, schedule, number, time.perf_counter() - start)


def _stage(module: ModuleOp, schedule: Schedule, number: int, seconds: float) -> Stage:
    step = schedule.steps[number - 1] if number else ""
    name = step.split("{")[0] if number else "gemm"
    return Stage(
        name=f"{number:02}-{name}",
        level=level_of(module),
        step=step,
        text=stage_text(module, Schedule(schedule.passes[number:])),
        seconds=seconds,
    )


def stage_text(module: ModuleOp, remaining: Schedule) -> str:
    """The text of `module`, with the passes still to come."""
    if remaining.passes:
        module.attributes[REMAINING] = StringAttr(str(remaining))
    text = str(module) + "\n"
    module.attributes.pop(REMAINING, None)
    return text


def take_remaining(module: ModuleOp) -> Schedule | None:
    """Remove and return the passes that a printed stage carries; None where it carries none.

    Raises `ParseError` GEM0205 where the attribute is no text.
    """
    found = module.attributes.pop(REMAINING, None)
    if found is None:
        return None
    if not isinstance(found, StringAttr):
        raise ParseError("GEM0205", f"{REMAINING} is {found}, not the text of a schedule")
    return Schedule.parse(found.data)
