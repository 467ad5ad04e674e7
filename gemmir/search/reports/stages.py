"""The way of one problem through the passes, stage by stage, as a page shows it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gemmir.bench.report import spelled
from gemmir.check import EMULATED, INTERPRETED, MACHINE_CODE, ON_GPU, Row, command_line
from gemmir.compiler import Job, Lowered
from gemmir.explain import described
from gemmir.explain_cpu import explanation
from gemmir.ir.context import parse_module
from gemmir.lowering import Stage
from gemmir.machine import CpuMachine
from gemmir.passes import pass_class
from gemmir.search.reports.checked import Checked, checked
from gemmir.search.reports.difference import Kind, Line, difference
from gemmir.search.reports.drawing import Figure
from gemmir.search.reports.highlight import lines_of
from gemmir.search.reports.predicted import prediction_of, time_of_resources
from gemmir.search.reports.tables import Column, Table, Value, columns

AROUND: Final = 3
"""Unchanged lines that are shown before and after a change."""

LEAST_FOLDED: Final = 4
"""Fewer lines than these are not folded: the words in their place would take as much room."""

TITLES: Final = {"llvm": "LLVM IR", "asm": "Assembly", "ptx": "PTX", "pallas": "Pallas kernel"}


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One line as it is shown: its number in the text after the pass, 0 for what was removed."""

    kind: Kind
    number: int
    html: str


@dataclass(frozen=True, kw_only=True)
class Passage:
    """Lines that stand together; `is_folded` where nothing in them or next to them changed."""

    lines: tuple[Shown, ...]
    is_folded: bool


@dataclass(frozen=True, kw_only=True)
class StageView:
    """The IR after one pass: what the pass is, what it did here, what it took, and its check.

    Every second part of `summary` is a name in code.
    """

    name: str
    level: str
    step: str
    summary: tuple[str, ...]
    meaning: str
    milliseconds: float
    ops_before: int | None
    ops: int
    added: int
    removed: int
    passages: tuple[Passage, ...]
    check: Row | None


@dataclass(frozen=True, kw_only=True)
class Code:
    """What a backend made of the last stage, and the checks of it."""

    title: str
    lines: tuple[str, ...]
    size: int
    checks: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class Viewer:
    """All stages of one problem."""

    slug: str
    title: str
    target: str
    command: str
    facts: tuple[tuple[str, str], ...]
    stages: tuple[StageView, ...]
    codes: tuple[Code, ...]
    explained: str
    prediction: Figure
    checked: Checked
    table: Table


def viewer(
    job: Job,
    *,
    slug: str = "ir",
    is_checked: bool = True,
    most_flops: int | None = None,
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> Viewer:
    """Lower `job` and look at every stage; raises as `Job.lower` does."""
    say(f"lowering for {job.target}")
    lowered = job.lower()
    found = (
        checked(job, most_flops=most_flops, seed=seed, say=say)
        if is_checked
        else Checked(about="Not checked: --no-check was given.", rows={})
    )
    stages = tuple(_views(lowered, found.rows))
    problem = lowered.problem
    return Viewer(
        slug=slug,
        title=_title(lowered),
        target=lowered.target,
        command="" if problem is None else _command(lowered, seed),
        facts=tuple(_facts(lowered)),
        stages=stages,
        codes=tuple(_codes(lowered, found.rows)),
        explained=lowered.explain(),
        prediction=time_of_resources(prediction_of(lowered), slug),
        checked=found,
        table=_table(stages, found.rows),
    )


def _title(lowered: Lowered) -> str:
    problem = lowered.problem
    if problem is None:
        what = "A stage"
    elif problem.unknown or problem.unknown_factors:
        what = described(problem)
    else:
        what = spelled(problem)
    return f"{what} on {lowered.target}, pass by pass"


def _facts(lowered: Lowered) -> Iterator[tuple[str, str]]:
    if lowered.problem is not None:
        yield "problem", described(lowered.problem)
    yield "target", lowered.target
    yield "schedule", str(lowered.schedule) or "no passes"


def _command(lowered: Lowered, seed: int) -> str:
    assert lowered.problem is not None
    words = shlex.split(command_line(lowered.problem, lowered, seed))
    return shlex.join([words[0], "report", *words[2:]])


def _views(lowered: Lowered, rows: Mapping[str, Row]) -> Iterator[StageView]:
    stages = [*lowered.stages.values()]
    meanings = _meanings(lowered)
    before: Stage | None = None
    ops_before: int | None = None
    for number, stage in enumerate(stages):
        ops = sum(1 for _ in parse_module(stage.text).walk()) - 1
        lines = difference(stage.text if before is None else before.text, stage.text)
        yield StageView(
            name=stage.name,
            level=stage.level,
            step=stage.step,
            summary=summary_of(stage.step) if number else ("The problem, before the first pass.",),
            meaning=meanings[number - 1] if number else "",
            milliseconds=1e3 * stage.seconds,
            ops_before=ops_before,
            ops=ops,
            added=sum(line.kind == "added" for line in lines),
            removed=sum(line.kind == "removed" for line in lines),
            passages=tuple(_passages(lines, before, stage)),
            check=rows.get(stage.name),
        )
        before, ops_before = stage, ops


def summary_of(step: str) -> tuple[str, ...]:
    """The first sentence about a pass; every second part is a name in code."""
    text = " ".join((pass_class(step.split("{")[0]).__doc__ or "").split("\n\n")[0].split())
    return tuple((text.split(". ")[0].rstrip(".") + ".").split("`"))


def _meanings(lowered: Lowered) -> list[str]:
    """What each pass does to this problem, where `gemmir.explain` says it."""
    if not isinstance(lowered.machine, CpuMachine):
        return [""] * len(lowered.schedule)
    return [step.meaning for step in explanation(lowered).steps]


def _passages(lines: Sequence[Line], before: Stage | None, stage: Stage) -> Iterator[Passage]:
    """The lines of a stage with those that its pass removed, in pieces of which some are folded."""
    texts = {
        "before": [] if before is None else lines_of(before.text, "mlir"),
        "after": lines_of(stage.text, "mlir"),
    }
    near = _near_changes(lines)
    piece: list[Shown] = []
    is_far = False
    for line, shown_open in zip(lines, near, strict=True):
        if piece and is_far == shown_open:
            yield _passage(piece, is_far)
            piece = []
        is_far = not shown_open
        text = texts["after"][line.after - 1] if line.after else texts["before"][line.before - 1]
        piece.append(Shown(kind=line.kind, number=line.after, html=text))
    if piece:
        yield _passage(piece, is_far)


def _passage(lines: Sequence[Shown], is_far: bool) -> Passage:
    return Passage(lines=tuple(lines), is_folded=is_far and len(lines) >= LEAST_FOLDED)


def _near_changes(lines: Sequence[Line]) -> list[bool]:
    """Of each line whether one near it changed; all, where none did."""
    changed = [place for place, line in enumerate(lines) if line.kind != "same"]
    if not changed:
        return [True] * len(lines)
    near = {p + shift for p in changed for shift in range(-AROUND, AROUND + 1)}
    return [place in near for place in range(len(lines))]


def _codes(lowered: Lowered, rows: Mapping[str, Row]) -> Iterator[Code]:
    kind, text = lowered.artifact.kind, lowered.artifact.text
    checks = tuple(rows[n] for n in (EMULATED, INTERPRETED, ON_GPU) if n in rows)
    yield _code(kind, text, checks)
    if isinstance(lowered.machine, CpuMachine):
        from gemmir.backends.cpu.assemble import assembly

        made = tuple(rows[n] for n in (MACHINE_CODE,) if n in rows)
        yield _code("asm", assembly(lowered.artifact), made)


def _code(kind: str, text: str, checks: tuple[Row, ...]) -> Code:
    lines = tuple(lines_of(text, kind))
    return Code(title=TITLES[kind], lines=lines, size=len(text), checks=checks)


def _table(stages: Sequence[StageView], rows: Mapping[str, Row]) -> Table:
    """All stages at a glance, and the checks of what came of them."""
    found = [_row(stage) for stage in stages]
    names = {stage.name for stage in stages}
    found += [
        (name, None, None, None, None, None, *_result(row), row.step)
        for name, row in rows.items()
        if name not in names
    ]
    return Table(
        caption="Stages of the lowering, lines added and removed, and their checks",
        columns=(
            *columns(
                "stage",
                "level",
                ("ops", "d"),
                ("added", "d"),
                ("removed", "d"),
                ("ms", ".2f"),
                "check",
                ("error / bound", ".4f"),
            ),
            Column(name="pass", is_code=True),
        ),
        rows=tuple(found),
    )


def _row(stage: StageView) -> tuple[Value, ...]:
    return (
        stage.name,
        stage.level,
        stage.ops,
        stage.added if stage.ops_before is not None else None,
        stage.removed if stage.ops_before is not None else None,
        stage.milliseconds if stage.ops_before is not None else None,
        *_result(stage.check),
        stage.step or None,
    )


def _result(row: Row | None) -> tuple[Value, Value]:
    if row is None:
        return "not checked", None
    element = row.first_wrong or row.largest
    reason = f": {row.fault}" if not row.ok or row.status == "skipped" else ""
    return f"{row.status}{reason}", None if element is None else element.ratio
