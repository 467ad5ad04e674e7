"""Read what `gemmir bench -o` has written."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

from gemmir.bench.contestants import ANY_M, GEMMIR, MATMUL, PEAK
from gemmir.gemm import Gemm
from gemmir.search.reports.measured import Bar, Case, Run, Speed

FACTS: Final = (
    "cpu",
    "target",
    "threads",
    "pinned_to",
    "rounds",
    "seed",
    "started",
    "system",
    "load_average_before",
    "load_average_after",
    "least_seconds_of_a_timing",
)

DEPTH: Final = re.compile(r"layout=panel:\d+x(\d+)")
"""How many neighbours along k a panel has side by side: so many products an instruction adds."""


def run_of(found: Mapping[str, Any], path: Path) -> Run:
    """The run in the JSON `found`; KeyError, TypeError or ValueError where it is none."""
    threads = int(found.get("threads", 1))
    classes = {
        str(name): tuple(_case(entry, threads) for entry in entries)
        for name, entries in found["classes"].items()
    }
    if not any(classes.values()):
        raise ValueError("it has no races")
    return Run(
        name=path.stem,
        title=f"Speeds on {found.get('cpu', 'an unknown CPU')}",
        target=str(found.get("target", "")),
        command=str(found.get("command", "")),
        facts=tuple(_facts(found)),
        classes=classes,
        bars=tuple(_bar(entry) for entry in found.get("bars", [])),
    )


def _facts(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = [(key.replace("_", " "), spelled_value(found[key])) for key in FACTS if key in found]
    facts += [(f"version of {name}", str(v)) for name, v in found.get("versions", {}).items()]
    for name, about in found.get("contestants", {}).items():
        told = ", ".join(str(about[key]) for key in ("version", "code_path") if about.get(key))
        facts += [(name, told)] if told else []
    return facts + [(name, f"missing: {why}") for name, why in found.get("missing", {}).items()]


def spelled_value(value: Any) -> str:
    """A value of JSON in words, for a list of facts."""
    if isinstance(value, dict):
        pairs = cast("Mapping[str, Any]", value).items()
        return ", ".join(f"{name} {spelled_value(one)}" for name, one in pairs)
    if isinstance(value, list):
        return ", ".join(spelled_value(one) for one in cast("list[Any]", value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _case(entry: Mapping[str, Any], threads: int) -> Case:
    results: Mapping[str, Any] = entry["results"]
    own = next((name for name in (ANY_M, MATMUL) if name in results), GEMMIR)
    speeds = {str(name): _speed(name, one, threads) for name, one in results.items()}
    limit, limit_is = _limit(speeds)
    speeds.pop(PEAK, None)
    return Case(
        label=str(entry["spelled"]),
        gemm=Gemm(**entry["problem"]),
        own=own,
        peers=tuple(
            name
            for name in speeds
            if not name.startswith(GEMMIR) or (own == ANY_M and name == GEMMIR)
        ),
        speeds=speeds,
        missing={
            **{str(name): str(why) for name, why in entry.get("unable", {}).items()},
            **{str(name): f"wrong: {why}" for name, why in entry.get("wrong", {}).items()},
        },
        limit=limit,
        limit_is=limit_is,
    )


def _speed(name: str, found: Mapping[str, Any], threads: int) -> Speed:
    seconds = found["cpu_seconds" if threads == 1 else "wall_seconds"]
    middle, lower, upper = (float(s) for s in seconds)
    gflops = float(found["gflops"])
    if not 0 < lower <= middle <= upper < math.inf or not 0 < gflops < math.inf:
        raise ValueError(f"{name} takes {middle:g} s, from {lower:g} to {upper:g}")
    return Speed(
        name=name,
        gflops=gflops,
        lower=gflops * middle / upper,
        upper=gflops * middle / lower,
        schedule=", ".join(str(step) for step in found.get("schedule", ())),
    )


def _limit(speeds: Mapping[str, Speed]) -> tuple[float | None, str]:
    """The FMA peak of the same race, and what instructions that add several products make of it."""
    if PEAK not in speeds:
        return None, ""
    depth = max((products_at_once(s.schedule) for s in speeds.values()), default=1)
    peak = speeds[PEAK].gflops
    if depth == 1:
        return peak, "FMA peak, measured in the same race"
    return depth * peak, f"FMA peak of the same race, times {depth} products an instruction adds"


def products_at_once(schedule: str) -> int:
    """How many products an instruction of a schedule adds to one sum."""
    if "with=dot" not in schedule:
        return 1
    return max((int(found) for found in DEPTH.findall(schedule)), default=1)


def _bar(entry: Mapping[str, Any]) -> Bar:
    return Bar(
        what=str(entry["what"]),
        value=math.nan if entry["value"] is None else float(entry["value"]),
        bar=float(entry["bar"]),
        most=bool(entry.get("most", False)),
        is_met=bool(entry["is_met"]),
    )
