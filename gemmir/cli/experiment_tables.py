"""The tables of gemmir experiment, for people; `--json` has the same for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gemmir.cli.output import put, put_table

if TYPE_CHECKING:
    from gemmir.search.experiments.compare import Comparison, Difference
    from gemmir.search.experiments.records import Run, Session
    from gemmir.search.experiments.summary import Summary


MEANS: Final = 12
"""So many contestants have their mean in a line; `--json` has all."""


def run_dict(run: Run) -> dict[str, Any]:
    """A run as plain values, without its text."""
    return {name: value for name, value in asdict(run).items() if name != "spec"}


def put_head(path: Path, run: Run, sessions: Sequence[Session]) -> None:
    """What a run is, how far, and who measured it."""
    settings = run.settings
    rows = [
        ["file", f"{path}, run {run.number}, {run.name}, of {run.created}"],
        ["cells", f"{run.done} of {run.cells}: {_counted(run)}"],
        [
            "settings",
            f"{settings['repetitions']} repetitions of {settings['rounds']} samples, seed "
            f"{settings['seed']}, {settings['threads']} threads, CPUs {settings['cpus'] or 'any'}",
        ],
    ]
    for number, session in enumerate(sessions, start=1):
        ended = session.ended or "it was ended, or goes on"
        rows.append([f"session {number}", f"{session.started} to {ended}"])
        for worker in session.workers:
            of = worker.environment
            versions = ", ".join(f"{name} {version}" for name, version in of.versions.items())
            rows.append([f"  {worker.name}", f"{of.cpu} of {of.host}, {versions}"])
    if sessions and sessions[-1].revision:
        changed = ", with changes" if sessions[-1].is_dirty else ""
        rows.append(["revision", f"{sessions[-1].revision}{changed}"])
    put_table("", ["this run", ""], rows)


def _counted(run: Run) -> str:
    return ", ".join(f"{count} {status}" for status, count in run.statuses.items()) or "none yet"


def put_points(rows: Sequence[Summary]) -> None:
    """Times, figures, and reasons of what has neither."""
    from gemmir.search.experiments.plan import name_of

    timed = [row for row in rows if row.point.objective == "time"]
    if timed:
        columns = ["problem", "target", "contestant", " us", " quartiles", " GFLOP/s", " % of peak"]
        _put_targets(
            "",
            [*columns, ""],
            [
                [
                    name_of(row.point.problem),
                    row.point.target,
                    row.point.candidate.name,
                    *_cells(row),
                ]
                for row in timed
            ],
        )
    static = [row for row in rows if row.point.objective == "static"]
    if static:
        _put_targets(
            "",
            ["problem", "target", "contestant", "figure", " value", "unit"],
            [
                [name_of(row.point.problem), row.point.target, row.point.candidate.name, *cells]
                for row in static
                for cells in _figures(row)
            ],
        )
    for reason, who in _reasons(rows).items():
        put(f"  {', '.join(who)}: {reason}\n")


def _put_targets(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A table whose second column is the target, which stands above it where there is only one."""
    targets = {row[1] for row in rows}
    if len(targets) == 1:
        title = ", ".join(part for part in (title, f"on {targets.pop()}") if part)
        columns, *rows = [[*row[:1], *row[2:]] for row in (columns, *rows)]
    put_table(title, columns, rows)


def _cells(row: Summary) -> list[str]:
    timing = row.timing
    if timing is None or row.gflops is None:
        return ["-", "", "", "", row.status]
    peak = "" if row.of_peak is None else f"{100 * row.of_peak:.1f}"
    quartiles = f"{1e6 * timing.lower:.4g} .. {1e6 * timing.upper:.4g}"
    failed = "" if row.status == "ok" else row.status
    return [f"{1e6 * timing.seconds:.4g}", quartiles, f"{row.gflops:.1f}", peak, failed]


def _figures(row: Summary) -> list[list[str]]:
    if not row.figures:
        return [[row.status, "-", ""]]
    return [[name, _shown(f.value), f.unit] for name, f in row.figures.items()]


def _reasons(rows: Sequence[Summary]) -> dict[str, list[str]]:
    """Who has said why something is missing, by the first line of what it is."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.detail:
            status = "not known" if row.status == "ok" else row.status
            who = found.setdefault(f"{status}, {row.detail.splitlines()[0]}", [])
            if row.point.candidate.name not in who:
                who.append(row.point.candidate.name)
    return found


def put_comparison(title: str, found: Comparison, confidence: float) -> None:
    """Every difference with its verdict, and how many there are of each."""
    columns = ["problem", "target", "contestant", " old us", " new us", " new/old"]
    interval = f" {100 * confidence:g} % interval"
    columns += [interval, " Cliff's delta", " chance", "verdict"]
    _put_targets(title, columns, [_difference_cells(d) for d in found.differences])
    if found.changes:
        rows = [
            [c.problem, c.target, c.contestant, c.what, _shown(c.old), _shown(c.new), c.unit]
            for c in found.changes
        ]
        _put_targets("", ["problem", "target", "contestant", "what", " old", " new", ""], rows)
    counts = {
        verdict: sum(d.verdict == verdict for d in found.differences)
        for verdict in ("faster", "slower", "no difference seen")
    }
    said = ", ".join(f"{verdict}: {count}" for verdict, count in counts.items())
    methods = ", ".join(sorted({d.method for d in found.differences})) or "nothing timed"
    put(f"  {said}; by {methods}\n")
    means = [f"{name} {ratio:.4f}" for name, ratio in found.mean_ratios.items()]
    if means:
        put(f"  geometric means of new/old: {', '.join(means[:MEANS])}\n")
    if found.control is not None:
        put(f"  libraries and the FMA peak: {found.control:.4f}; so much does the machine differ\n")
    for name, only in (("old", found.only_old), ("new", found.only_new)):
        if only:
            put(f"  only in the {name} one: {', '.join(sorted(only))}\n")
    if any(d.method == "Mann-Whitney" for d in found.differences):
        put("  one repetition on a side: how much processes differ is not known\n")


def _difference_cells(d: Difference) -> list[str]:
    low, high = d.interval
    return [
        d.problem,
        d.target,
        d.new.contestant,
        f"{1e6 * d.old.seconds:.4g}",
        f"{1e6 * d.new.seconds:.4g}",
        f"{d.ratio:.4f}",
        f"{low:.4f} .. {high:.4f}",
        f"{d.delta:+.2f}",
        f"{d.chance:.2g}",
        d.verdict,
    ]


def _shown(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.6g}"
