"""Read what `gemmir tune` has written: the JSON of `--json`, or the file of its study."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, cast

from gemmir.search.reports.bench_file import spelled_value
from gemmir.search.reports.measured import Finalist, Study, Trial

FACTS: Final = (
    "problem",
    "target",
    "threads",
    "machine",
    "objective",
    "sampler",
    "seed",
    "prior",
    "versions",
    "system",
    "started",
    "pinned_to",
    "load_average_before",
    "study",
)


def holds_study(path: Path) -> bool:
    """Whether the SQLite file at `path` is a study of Optuna."""
    try:
        with closing(sqlite3.connect(f"file:{path.absolute()}?mode=ro", uri=True)) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            return {"studies", "trials"} <= {name for (name,) in tables}
    except sqlite3.Error:
        return False


def read_study(path: Path) -> Study:
    """The study in the file at `path`, also of one that has not come to its end."""
    from gemmir.search.tuning.study import read_study as read_kept

    kept = read_kept(path)
    rows = [row for row in kept.rows if row.outcome is not None]
    trials = [
        {
            "number": row.number,
            "value": row.value,
            "status": row.outcome.status if row.outcome is not None else "",
            "detail": row.outcome.detail if row.outcome is not None else "",
            "source": row.source,
            "point": row.point,
            "schedule": row.schedule,
        }
        for row in rows
    ]
    found: dict[str, Any] = {**kept.plan, **(kept.result or {}), "convergence": trials}
    return study_of(found, path)


def study_of(found: Mapping[str, Any], path: Path) -> Study:
    """The study in the JSON `found`; KeyError, TypeError or ValueError where it is none."""
    trials = tuple(_trial(entry) for entry in found["convergence"])
    if not trials:
        raise ValueError("it has no trials")
    default = found.get("default")
    problem = str(found.get("problem", "")).removeprefix("Gemm(").removesuffix(")")
    return Study(
        name=path.stem,
        title=f"Search for {problem} on {found.get('target', '')}",
        target=str(found.get("target", "")),
        command=str(found.get("command", "")),
        facts=tuple(_facts(found)),
        unit=_unit(found.get("objective")),
        is_measured=_is_measured(found.get("objective")),
        trials=trials,
        winner=_winner(found, trials),
        outcome=tuple(_outcome(found)),
        baseline=min(
            (t.value for t in trials if t.value is not None and t.schedule == default),
            default=None,
        ),
        finalists=tuple(_finalists(found)),
    )


def _unit(objective: Any) -> str:
    """The unit of what is searched for; of an unfinished study only its name is known."""
    if isinstance(objective, dict):
        return str(cast("Mapping[str, Any]", objective)["unit"])
    name = str(objective or "time")
    return "s" if "time" in name else name


def _is_measured(objective: Any) -> bool:
    """Whether a clock told the values; of an unfinished study only the name says it."""
    if not isinstance(objective, dict):
        return not any(word in str(objective) for word in ("predicted", "static"))
    return bool(cast("Mapping[str, Any]", objective).get("is_measured", True))


def _trial(entry: Mapping[str, Any]) -> Trial:
    value = entry["value"]
    if value is not None and not 0 < float(value) < math.inf:
        raise ValueError(f"trial {entry['number']} has the value {value}")
    return Trial(
        number=int(entry["number"]),
        point=cast("dict[str, int | str]", dict(entry["point"])),
        status=entry["status"],
        value=None if value is None else float(value),
        schedule=str(entry["schedule"]),
        detail=str(entry.get("detail") or ""),
        source=str(entry.get("source") or ""),
    )


def _winner(found: Mapping[str, Any], trials: Sequence[Trial]) -> Trial | None:
    """The declared one, or the best so far of a study that has not come to its end."""
    timed = [trial for trial in trials if trial.value is not None]
    declared = [trial for trial in timed if trial.schedule == found.get("winner")]
    return min(declared or timed, key=lambda trial: trial.value or 0.0, default=None)


def _facts(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in FACTS:
        if name in found:
            yield name.replace("_", " "), spelled_value(found[name])
    space = found.get("space")
    if isinstance(space, dict):
        known = cast("Mapping[str, Any]", space)
        yield "points of the space", f"{known.get('points', '')}"
        yield "space", str(known.get("text", ""))
    elif space is not None:
        yield "space", str(space)


def _outcome(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What was declared, in words; nothing of a study without a verdict."""
    if not found.get("winner"):
        return
    tied = len(found.get("tied") or ())
    yield "verdict", f"a tie of {tied}, decided by rule" if found.get("tie") else "a clear winner"
    if found.get("gflops"):
        yield "GFLOP/s", f"{found['gflops']:.4g}"
    ratio, interval = found.get("ratio_to_default"), found.get("ratio_to_default_interval")
    if ratio is not None:
        ends = f" ({interval[0]:.4f} to {interval[1]:.4f})" if interval else ""
        yield "over the default schedule", f"{ratio:.4f}{ends}"
    fell_out: Mapping[str, Any] = found.get("fell_out") or {}
    for schedule, why in fell_out.items():
        yield "fell out of the race", f"{why}: {schedule}"
    refused: Mapping[str, Any] = found.get("refused") or {}
    for reason, count in refused.items():
        yield "refused before a trial", f"{count} {reason}"


def _finalists(found: Mapping[str, Any]) -> Iterator[Finalist]:
    tied: set[str] = set(found.get("tied") or ())
    race: list[Mapping[str, Any]] = found.get("race") or []
    for entry in race:
        schedule = str(entry["schedule"])
        low, high = entry["interval"]
        low_ratio, high_ratio = entry["ratio_interval"]
        yield Finalist(
            schedule=schedule,
            value=float(entry["value"]),
            interval=(float(low), float(high)),
            ratio=float(entry["ratio_to_best"]),
            ratio_interval=(float(low_ratio), float(high_ratio)),
            rounds=int(entry["rounds"]),
            is_winner=schedule == found.get("winner"),
            is_tied=schedule in tied,
            is_default=schedule == found.get("default"),
        )
