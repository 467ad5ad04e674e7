"""A results file: every number, and what it depends on."""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np

from gemmir.bench.contestants import cpu_model
from gemmir.bench.race import Field, Race, Result
from gemmir.bench.report import Verdict, spelled
from gemmir.bench.worker import LEAST_SECONDS
from gemmir.cache import source_fingerprint
from gemmir.gemm import Gemm
from gemmir.llvm import versions


def environment(
    *, target: str, threads: int, cpus: Sequence[int], rounds: int, seed: int
) -> dict[str, Any]:
    """What the numbers depend on beside the contestants."""
    llvmlite, llvm = versions()
    return {
        "command": shlex.join(["gemmir", *sys.argv[1:]]),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpu": f"{cpu_model()}, {os.cpu_count()} CPUs",
        "pinned_to": list(cpus),
        "load_average_before": _load(),
        "system": platform.platform(),
        "versions": {
            "python": platform.python_version(),
            "gemmir": version("gemmir"),
            "commit": commit(),
            "source": source_fingerprint()[:16],
            "numpy": np.__version__,
            "xdsl": version("xdsl"),
            "llvmlite": llvmlite,
            "llvm": llvm,
        },
        "target": target,
        "threads": threads,
        "rounds": rounds,
        "seed": seed,
        "least_seconds_of_a_timing": LEAST_SECONDS,
    }


def document(
    before: Mapping[str, Any],
    field: Field,
    classes: Mapping[str, Sequence[Race]],
    verdicts: Sequence[Verdict],
) -> dict[str, Any]:
    """All of a run, as JSON has it."""
    return {
        **before,
        "load_average_after": _load(),
        "contestants": dict(field.about),
        "missing": dict(field.unable),
        "classes": {name: [_race(race) for race in races] for name, races in classes.items()},
        "bars": [asdict(verdict) | {"is_met": verdict.is_met} for verdict in verdicts],
    }


def text_of(found: Mapping[str, Any]) -> str:
    """JSON with each measurement on a line, and six digits of each number."""
    lines = (f"{json.dumps(key)}: {_lines(value)}" for key, value in found.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def commit() -> str:
    """The commit that is checked out, with `+` where files differ from it; "" outside of git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def _race(race: Race) -> dict[str, Any]:
    return {
        "spelled": spelled(race.gemm),
        "problem": given(race.gemm),
        "best_peer": race.best_peer,
        "ratio": race.ratio,
        "percent_of_peak": race.percent_of_peak,
        "unable": dict(race.unable),
        "wrong": dict(race.wrong),
        "results": {name: _result(result) for name, result in race.results.items()},
    }


def given(gemm: Gemm) -> dict[str, Any]:
    """The fields of a problem that are not the default ones, and its sizes and type."""
    plain = asdict(Gemm(m=1, n=1, k=1))
    always = ("m", "n", "k", "dtype")
    return {n: v for n, v in asdict(gemm).items() if n in always or v != plain[n]}


def _result(result: Result) -> dict[str, Any]:
    timings = {
        name: [timing.seconds, timing.lower, timing.upper]
        for name, timing in (("cpu_seconds", result.cpu), ("wall_seconds", result.wall))
    }
    about = result.about
    extra = {key: about[key] for key in ("called", "schedule", "code_path") if key in about}
    counts = {"calls": result.calls, "rounds": result.seconds.count}
    return {"gflops": result.gflops, **counts, **timings, **extra}


def _load() -> list[float]:
    return list(os.getloadavg()) if hasattr(os, "getloadavg") else []


def _lines(value: object) -> str:
    text = json.dumps(_rounded(value), ensure_ascii=False)
    for before, after in (("[{", "[\n{"), ("}, {", "},\n{"), ("}]", "}\n]")):
        text = text.replace(before, after)
    return text.replace('}, "', '},\n"')


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in cast("dict[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in cast("list[Any]", value)]
    return value
