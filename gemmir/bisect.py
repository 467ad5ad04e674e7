"""Which pass is at fault: the first stage that is wrong, on a problem as small as can be found.

All passes run, which takes milliseconds. To run the stages takes longer, so that they are searched
as a sorted list is: the last and the first, and then the one in the middle between one that is
right and a later one that is wrong. The pass between two such neighbours is at fault; a fault that
a later pass undoes is not looked for, as `gemmir.check` does. Large problems are tried small first,
with the same schedule. `Found.script` is a Python file that runs just this pass on the IR before
it, and shows the wrong element.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gemmir.arrays import make_operands
from gemmir.check import (
    EMULATED,
    INTERPRETED,
    INVALID_IR,
    MACHINE_CODE,
    Row,
    Run,
    Sample,
    command_line,
    replacements,
    samples_of,
    smallest_of,
    stage_names,
)
from gemmir.compiler import Job, prepare, prepare_text
from gemmir.errors import GemmirError, MismatchError, ParseError, ProblemError, ScheduleError
from gemmir.evaluate import evaluate
from gemmir.gemm import Gemm
from gemmir.ir.context import parse_module
from gemmir.lowering import run_pass, stage_text
from gemmir.machine import HOST
from gemmir.passes.tile import Tile
from gemmir.reference import Reference, reference_of, reference_of_gemm, says_all
from gemmir.schedule import Schedule
from gemmir.signature import signature_of

EASY_FLOPS: Final = 500_000
"""Problems of fewer operations are tried as they are: a stage of them takes a second or so."""

SMALL_EXTENTS: Final = (13, 40, 136)
"""Extents of smaller problems that are tried before a large one, where its schedule takes them."""

BACKENDS: Final = {"cpu": MACHINE_CODE, "cuda": EMULATED, "tpu": INTERPRETED}
"""The name of the stage behind the passes, by the kind of machine."""

WRONG: Final = 3
"""The exit status of a reproducer that shows the fault."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """The pass at fault: `stage` is wrong and `right` before it is not.

    `step` is the pass as text, or the backend; `row` what is wrong, in `problem`, which is None
    where only the IR is known. `ran` says which stages were run, in their order, and `script` is
    the text of a Python file that shows it again.
    """

    stage: str
    right: str
    step: str
    row: Row
    problem: Gemm | None
    target: str
    schedule: Schedule
    ran: tuple[str, ...]
    command: str
    script: str

    def to_dict(self) -> dict[str, Any]:
        """This as plain values, for JSON."""
        return {
            "stage": self.stage,
            "right": self.right,
            "step": self.step,
            "fault": self.row.fault,
            "element": None
            if self.row.first_wrong is None
            else dataclasses.asdict(self.row.first_wrong),
            "problem": None if self.problem is None else dataclasses.asdict(self.problem),
            "target": self.target,
            "schedule": list(self.schedule.steps),
            "ran": list(self.ran),
            "command": self.command,
        }


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a bisection found: the pass at fault, or None where the last stages are right.

    `problems` are the sizes that were tried, `ran` the stages that were run.
    """

    found: Found | None
    problems: tuple[str, ...]
    ran: tuple[str, ...]

    def require_ok(self) -> None:
        """`MismatchError` GEM1443 that names the pass and the element."""
        if self.found is None:
            return
        found = self.found
        raise MismatchError(
            "GEM1443",
            f"{found.step or found.stage} is at fault: stage {found.stage}: {found.row.fault}",
            f"again by: {found.command}" if found.command else "",
        )


def bisect(
    subject: Gemm | Job,
    *,
    target: str = HOST,
    schedule: Schedule | str | Path | None = None,
    threads: int | None = None,
    gemm: Gemm | None = None,
    replace: Mapping[str, str] | None = None,
    seed: int = 0,
    shrink: bool = True,
    watch: Callable[[str], None] = lambda words: None,
) -> Outcome:
    """Find the first wrong stage of `subject`; the arguments are those of `gemmir.check.check`.

    `watch` is told which stage runs. With `replace` or with IR of a later level the problem stays
    as it is. Raises `ParseError` GEM1444 where sizes or factors are known in a call only, and as
    `gemmir.lower` does.
    """
    job = prepare(subject, target, schedule, threads) if isinstance(subject, Gemm) else subject
    signature = signature_of(parse_module(job.source))
    unknown = (*signature.sizes, *((job.problem.unknown_factors) if job.problem else ()))
    if unknown:
        raise ParseError(
            "GEM1444",
            f"{', '.join(unknown)} known in a call only: a bisection is of one problem",
            "give numbers, such as those of the call that went wrong",
        )
    texts = replacements(job.schedule, replace or {})
    is_fixed = bool(texts) or gemm is not None or job.problem is None or not _is_whole(job)
    tried: list[str] = []
    ran: list[str] = []
    for smaller in [job] if is_fixed else _growing(job):
        tried.append("as it is" if smaller.problem is None else _sizes(smaller.problem))
        search = _Search(job=smaller, gemm=gemm, texts=texts, seed=seed, watch=watch)
        wrong = search.first_wrong()
        ran += [f"{name} of {tried[-1]}" for name in search.rows]
        if wrong is None:
            continue
        if shrink and not is_fixed:
            search, wrong = _shrunk(search, wrong)
        found = search.found(wrong, tuple(ran))
        return Outcome(found=found, problems=tuple(tried), ran=tuple(ran))
    return Outcome(found=None, problems=tuple(tried), ran=tuple(ran))


def _sizes(gemm: Gemm) -> str:
    return f"{gemm.m} x {gemm.n} x {gemm.k}"


def _is_whole(job: Job) -> bool:
    """Whether the problem of `job` says all that it computes, so that a smaller one can be made."""
    return job.problem is not None and says_all(job.problem, job.source)


def _growing(job: Job) -> Iterator[Job]:
    """Jobs like `job` that are smaller, where it is large, and then `job` itself."""
    problem = job.problem
    assert problem is not None
    if problem.flops > EASY_FLOPS and problem.groups is None:
        for extents in _small_extents(job.schedule):
            m, n, k = (
                min(size, whole)
                for size, whole in zip(extents, (problem.m, problem.n, problem.k), strict=True)
            )
            small = dataclasses.replace(problem, m=m, n=n, k=k)
            if small.flops >= problem.flops:
                continue
            try:
                smaller = prepare(small, job.target, job.schedule)
                _modules(smaller, {})
            except (ScheduleError, ProblemError):
                continue
            yield smaller
    yield job


def _small_extents(schedule: Schedule) -> Iterator[tuple[int, int, int]]:
    """m, n and k to try: of a few rows, and a little more than the smallest tiles."""
    tiles = {"m": 1, "n": 1, "k": 1}
    sizes: dict[str, list[int]] = {name: [] for name in tiles}
    for p in schedule.passes:
        if isinstance(p, Tile):
            for loop, size in zip(p.loops, p.sizes, strict=True):
                sizes.setdefault(loop, []).append(size)
    least = [min((s for s in sizes[name] if s > 1), default=4) for name in "mnk"]
    yield least[0] + 1, least[1] + 3, min(least[2], 8) + 1
    yield 2 * least[0], 2 * least[1], least[2] + 4
    for extent in SMALL_EXTENTS:
        yield extent, extent, extent


@dataclass(frozen=True, kw_only=True)
class _Stage:
    """A stage as text, or what is wrong with the pass that should have made it."""

    name: str
    step: str
    text: str
    fault: str = ""


def _modules(job: Job, texts: Mapping[str, str]) -> list[_Stage]:
    """The IR before the first pass and after each, up to one that fails by its own fault.

    A pass that refuses is a `ScheduleError`, as always; one that leaves invalid IR or breaks down
    is at fault.
    """
    module = parse_module(job.source)
    stages: list[_Stage] = []
    for number, name in enumerate(stage_names(job.schedule)):
        step = job.schedule.steps[number - 1] if number else ""
        try:
            if name in texts:
                module = parse_module(texts[name], f"the replacement of {name}")
            elif number:
                run_pass(job.schedule.passes[number - 1], module, verify=True)
        except GemmirError as error:
            if error.code != INVALID_IR:
                raise
            return [*stages, _Stage(name=name, step=step, text="", fault=str(error))]
        except Exception as error:
            fault = f"the pass broke down: {type(error).__name__}: {error}"
            return [*stages, _Stage(name=name, step=step, text="", fault=fault)]
        rest = Schedule(job.schedule.passes[number:])
        stages.append(_Stage(name=name, step=step, text=stage_text(module, rest)))
    return stages


class _Search:
    """A binary search for the first wrong stage of one job."""

    def __init__(
        self,
        *,
        job: Job,
        gemm: Gemm | None,
        texts: Mapping[str, str],
        seed: int,
        watch: Callable[[str], None],
    ) -> None:
        self.job, self.gemm, self.texts, self.seed, self.watch = job, gemm, texts, seed, watch
        self.samples = tuple(samples_of(job, gemm, seed))
        self.stages = _modules(job, texts)
        self.rows: dict[str, Row] = {}
        self._run = Run(job=job, samples=self.samples, texts=texts)

    def name(self, number: int) -> str:
        """The name of a stage."""
        if number < len(self.stages):
            return self.stages[number].name
        return BACKENDS[self.job.machine.kind]

    def row(self, number: int) -> Row:
        """A stage that is run, or was before."""
        name = self.name(number)
        if name not in self.rows:
            self.watch(f"{self.job.problem and _sizes(self.job.problem)}: {name}")
            self.rows[name] = self._made(number)
        return self.rows[name]

    def _made(self, number: int) -> Row:
        """The row of a stage; whatever breaks down in it is its fault."""
        try:
            return self._ran(number)
        except Exception as error:
            step = self.stages[number].step if number < len(self.stages) else ""
            fault = f"{type(error).__name__}: {error}"
            return Row(
                name=self.name(number), step=step, status="wrong", seconds=0.0, message=fault
            )

    def _ran(self, number: int) -> Row:
        if number == len(self.stages):
            module = parse_module(self.stages[-1].text)
            return next(iter(self._run.last(module, self.name(number))))
        stage = self.stages[number]
        if stage.fault:
            return Row(
                name=stage.name, step=stage.step, status="wrong", seconds=0.0, message=stage.fault
            )
        module = parse_module(stage.text)
        return self._run.row(stage.name, stage.step, lambda given: evaluate(module, given.arrays))

    def first_wrong(self) -> int | None:
        """The number of a wrong stage whose predecessor is right; None where the last are right.

        Stages that were replaced are run in any case. Code of a machine runs only where the last
        stage is right: of wrong IR it may do anything.
        """
        last = len(self.stages) - 1
        replaced = [n for n, stage in enumerate(self.stages) if stage.name in self.texts]
        wrong = next((n for n in [*replaced, last] if not self.row(n).ok), None)
        if wrong is None:
            return last + 1 if not self.row(last + 1).ok else None
        if not self.row(0).ok:
            return 0
        right = 0
        while wrong - right > 1:
            middle = (right + wrong) // 2
            if self.row(middle).ok:
                right = middle
            else:
                wrong = middle
        return wrong

    def found(self, wrong: int, ran: Sequence[str]) -> Found:
        """What is to be said of the wrong stage of that number."""
        row, job = self.row(wrong), self.job
        step = row.step
        problem = job.problem if self.gemm is None else self.gemm
        is_known = problem is not None and not self.texts and self.gemm is None
        command = command_line(problem, job, self.seed) if is_known and problem else ""
        return Found(
            stage=row.name,
            right=self.name(wrong - 1) if wrong else "",
            step=step,
            row=row,
            problem=problem,
            target=job.target,
            schedule=job.schedule,
            ran=tuple(ran),
            command=command.replace("gemmir check", "gemmir bisect", 1),
            script=self._script(wrong, row, problem),
        )

    def _script(self, wrong: int, row: Row, problem: Gemm | None) -> str:
        after = self.stages[wrong].text if wrong < len(self.stages) else ""
        is_replaced = row.name in self.texts
        before = self.stages[max(wrong - 1, 0)].text
        return script_of(
            title=f"{row.name} is wrong: {row.fault}",
            source=self.job.source,
            before=before,
            step=row.step if 0 < wrong < len(self.stages) else "",
            stage=row.name,
            after=after if is_replaced else "",
            target=self.job.target,
            problem=problem,
            is_level=self.gemm is not None,
            seed=self.seed,
        )


def _shrunk(search: _Search, wrong: int) -> tuple[_Search, int]:
    """The same fault in the smallest problem that is found; the one at hand where none is."""
    job = search.job
    assert job.problem is not None
    name = search.name(wrong)
    search.watch(f"{name}: a smaller problem")
    if wrong < len(search.stages) and search.stages[wrong].fault:
        return search, wrong
    smallest = smallest_of(job, job.problem, name, search.seed)
    if smallest is None or smallest == job.problem:
        return search, wrong
    smaller = _Search(
        job=prepare(smallest, job.target, job.schedule),
        gemm=None,
        texts={},
        seed=search.seed,
        watch=search.watch,
    )
    is_same = not smaller.row(wrong).ok and (wrong == 0 or smaller.row(wrong - 1).ok)
    return (smaller, wrong) if is_same else (search, wrong)


# Reproducing -------------------------------------------------------------------------------------

SCRIPT: Final = '''\
"""{title}

Runs one pass, or the backend, on the IR before it, and compares both with wider arithmetic:

    python {name}

Needs gemmir and nothing else; the exit status is 3 where the fault is seen, and 0 where not.
"""

import sys

from gemmir.bisect import replay

SOURCE = r"""
{source}"""
"""What is to be computed: the IR before the first pass."""

BEFORE = r"""
{before}"""
"""The IR before the pass, which is right."""

AFTER = r"""
{after}"""
"""IR that takes the place of what the pass makes, where that was replaced."""

sys.exit(
    replay(
        source=SOURCE,
        before=BEFORE,
        step={step!r},
        stage={stage!r},
        after=AFTER,
        target={target!r},
        problem={problem!r},
        is_level={is_level!r},
        seed={seed!r},
    )
)
'''
"""The text of a reproducer."""


def script_of(
    *,
    title: str,
    source: str,
    before: str,
    step: str,
    stage: str,
    after: str,
    target: str,
    problem: Gemm | None,
    is_level: bool,
    seed: int,
) -> str:
    """A Python file that shows a fault again; `replay` has what its values mean."""
    said = " ".join(title.split()).replace("\\", "/").replace('"', "'")
    return SCRIPT.format(
        title=said,
        name=f"bisect-{stage}.py",
        source=source.strip() + "\n",
        before=before.strip() + "\n",
        step=step,
        stage=stage,
        after=after.strip() + "\n" if after else "",
        target=target,
        problem=None if problem is None else json.loads(json.dumps(dataclasses.asdict(problem))),
        is_level=is_level,
        seed=seed,
    )


def replay(
    *,
    source: str,
    before: str,
    step: str,
    stage: str,
    after: str,
    target: str,
    problem: Mapping[str, Any] | None,
    is_level: bool,
    seed: int,
) -> int:
    """Run one pass on the IR before it and print what is wrong; 3 where something is.

    `step` is the pass, and "" for the backend, or for the source itself. `after` takes the place
    of what the pass makes. `problem` is what must be computed, of a `source` that is of a later
    level where `is_level` says so.
    """
    gemm = None if problem is None else Gemm(**problem)
    is_backend = stage in BACKENDS.values()
    job = prepare_text(before, target, schedule=Schedule.parse(step))
    sample = _sample_of(source, gemm, is_level, seed)
    run = Run(job=job, samples=(sample,), texts={})
    module = parse_module(before)
    rows = [run.row("before", "", lambda given: evaluate(module, given.arrays))]
    if is_backend:
        rows += list(run.last(parse_module(before), stage))
    elif step:
        rows.append(_pass_again(run, job.schedule, before, after.strip(), stage))
    for row in rows:
        print(f"{row.name}: {row.status}{': ' + row.fault if row.fault else ''}")
    return 0 if all(row.ok for row in rows) else WRONG


def _pass_again(run: Run, schedule: Schedule, before: str, after: str, stage: str) -> Row:
    """The stage that a pass makes of `before`, or `after` in its place."""
    (step,) = schedule.steps
    module = parse_module(after or before)
    if not after:
        try:
            run_pass(schedule.passes[0], module, verify=True)
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"
            return Row(name=stage, step=step, status="wrong", seconds=0.0, message=fault)
    return run.row(stage, step, lambda given: evaluate(module, given.arrays))


def _sample_of(source: str, gemm: Gemm | None, is_level: bool, seed: int) -> Sample:
    """Random arrays for the arguments of `source`, and what must come out."""
    operands = make_operands(signature_of(parse_module(source)), seed)

    def reference(emulated: bool) -> Reference:
        if is_level and gemm is not None:
            return reference_of_gemm(gemm, operands, emulated=emulated)
        return reference_of(source, gemm, operands, emulated=emulated)

    return Sample(sizes="", operands=operands, reference=reference)
