"""What a measurement on a GPU comes to: a table, and a verdict on each suite."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Bar:
    """What a suite has to reach; a ratio is PyTorch's time over ours."""

    mean: float | None = None
    least: float | None = None
    overhead: float | None = None
    microseconds: float | None = None


BARS: Final[Mapping[str, Bar]] = {
    "square": Bar(least=1.0),
    "fp8": Bar(least=1.0),
    "tf32": Bar(least=0.97),
    "llm": Bar(mean=1.05, least=0.90),
    "epilogue": Bar(overhead=0.02),
    "launch": Bar(microseconds=10.0),
}

BEST: Final = "best of all"
"""The fastest kernel of each case."""


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """For each suite: how many kernels are wrong, and the figures of each schedule."""
    suites: dict[str, Any] = {}
    for suite in dict.fromkeys(row["suite"] for row in rows):
        own = [row for row in rows if row["suite"] == suite]
        found: dict[str, Any] = {
            "kernels": sum("wrong" in row for row in own),
            "wrong": sum(bool(row.get("wrong")) for row in own),
            "refused": sum("refused" in row for row in own),
            "left_out": sum("left_out" in row for row in own),
        }
        schedules = dict(_figures(own, BARS.get(suite)))
        suites[suite] = found | ({"schedules": schedules} if schedules else {})
    return suites


def _figures(rows: Sequence[Row], bar: Bar | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """The figures of every name, and of the best kernel of each case where there are several.

    Bare products and calls that look at their arrays are there for comparison: no bar is theirs.
    """
    ours = [row for row in rows if "schedule" in row and not row.get("wrong")]
    by_name: dict[str, list[Row]] = {}
    for row in ours:
        by_name.setdefault(row["name"], []).append(row)
    timed = [row for row in ours if "ratio" in row and not row["name"].startswith("product, ")]
    if len({row["name"] for row in timed}) > 1:
        best: dict[str, Row] = {}
        for row in timed:
            old = best.get(row["case"])
            best[row["case"]] = row if old is None or row["ratio"] > old["ratio"] else old
        by_name[BEST] = list(best.values())
    for name, own in by_name.items():
        found = _figure(own)
        if found:
            if bar is not None and not name.startswith("product, ") and not name.endswith(", call"):
                found["met"] = _is_met(found, bar)
            yield name, found


def _figure(rows: Sequence[Row]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    ratios = {row["case"]: row["ratio"] for row in rows if "ratio" in row}
    if ratios:
        worst = min(ratios, key=lambda case: ratios[case])
        mean = statistics.geometric_mean(ratios.values())
        found |= {"cases": len(ratios), "mean": mean, "least": ratios[worst], "worst": worst}
    if overheads := [row["overhead"] for row in rows if "overhead" in row]:
        found["overhead"] = max(overheads)
    if costs := [row["microseconds"]["median"] for row in rows if "microseconds" in row]:
        found["microseconds"] = max(costs)
    return found


def _is_met(found: Mapping[str, Any], bar: Bar) -> bool:
    """Whether all that the bar speaks of was measured and reaches it."""
    return all(
        name in found and (found[name] >= value if is_floor else found[name] < value)
        for name, value, is_floor in (
            ("mean", bar.mean, True),
            ("least", bar.least, True),
            ("overhead", bar.overhead, False),
            ("microseconds", bar.microseconds, False),
        )
        if value is not None
    )


def table(found: Mapping[str, Any]) -> str:
    """All timed rows, then the wrong ones, then the suites."""
    rows: Sequence[Row] = found["rows"]
    lines = [_line(row) for row in rows if "seconds" in row or "microseconds" in row]
    lines += ["", *(_trouble(row) for row in rows if _trouble(row))]
    lines += ["", *_verdicts(found["summary"])]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    time, scale = (row["seconds"], 1e6) if "seconds" in row else (row["microseconds"], 1.0)
    said = f"{row['suite']:9}{row['case']:36}{row['name']:28}{time['median'] * scale:10.2f} us"
    said += f" ({time['lower'] * scale:.2f}-{time['upper'] * scale:.2f})"
    for key, unit, digits in RATES:
        if key in row:
            said += f"  {row[key]:.{digits}f} {unit}"
    if "overhead" in row:
        said += f"  {row['overhead']:+.2%} of the product"
    return said


RATES: Final = (("tflops", "TFLOP/s", 1), ("terabytes", "TB/s", 2), ("ratio", "of torch", 3))


def _trouble(row: Row) -> str:
    named = f"{row['suite']:9}{row['case']:36}{row['name']:28}"
    if row.get("wrong"):
        keys = (
            "error",
            "error_by_bound",
            "first_wrong",
            "exact_on_integers",
            "same_bits",
            "damage",
        )
        return f"{named} WRONG " + ", ".join(f"{key} {row[key]}" for key in keys if key in row)
    for key in ("refused", "left_out", "missing"):
        if key in row:
            return f"{named} {key.replace('_', ' ')}: {row[key]}"
    return ""


TROUBLES: Final = (
    "error",
    "error_by_bound",
    "first_wrong",
    "wrong_elements",
    "exact_on_integers",
    "same_bits",
    "damage",
)


def _verdicts(suites: Mapping[str, Any]) -> Iterator[str]:
    for suite, found in suites.items():
        counts = ", ".join(f"{found[key]} {key.replace('_', ' ')}" for key in COUNTS if found[key])
        yield f"{suite}: {counts or 'nothing'}"
        for name, figures in found.get("schedules", {}).items():
            yield f"    {name:32}{_figure_text(figures)}"


COUNTS: Final = ("kernels", "wrong", "refused", "left_out")


def _figure_text(figures: Mapping[str, Any]) -> str:
    words: list[str] = []
    if "mean" in figures:
        words.append(f"geometric mean {figures['mean']:.3f} of {figures['cases']} cases")
        words.append(f"worst {figures['least']:.3f} at {figures['worst']}")
    if "overhead" in figures:
        words.append(f"epilogue {figures['overhead']:+.2%}")
    if "microseconds" in figures:
        words.append(f"{figures['microseconds']:.2f} us a call")
    if "met" in figures:
        words.append("meets the bar" if figures["met"] else "BELOW THE BAR")
    return ", ".join(words)
