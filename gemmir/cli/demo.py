"""gemmir demo: one layer of BERT from problem to GFLOP/s, beside NumPy."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import typer

from gemmir.cli.options import Json
from gemmir.cli.output import put, put_json, put_table

if TYPE_CHECKING:
    from gemmir.demo import Demo


def demo(*, json: Json = False) -> None:
    """Lower, check and time BERT-base's MLP up-projection on one core, beside NumPy.

    M=128 N=3072 K=768 in f32 with bias and gelu. NumPy does the same work in place; calls of the
    two are interleaved.
    """
    from gemmir.demo import ONE_THREAD, run_demo

    if any(os.environ.get(name) != value for name, value in ONE_THREAD.items()):
        _again(dict(ONE_THREAD), json=json)
    found = run_demo()
    if json:
        put_json(_values(found))
    else:
        _print(found)


def _again(environment: dict[str, str], *, json: bool) -> None:
    """Run this command in a process whose BLAS has one thread from the start."""
    command = [sys.executable, "-m", "gemmir", "demo", *(["--json"] if json else [])]
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    sys.stderr.write(done.stderr)
    put(done.stdout)
    raise typer.Exit(done.returncode)


def _values(found: Demo) -> dict[str, Any]:
    lowered, problem = found.lowered, found.lowered.problem
    assert problem is not None
    return {
        "problem": {"m": problem.m, "n": problem.n, "k": problem.k, "epilogue": problem.epilogue},
        "cpu": found.cpu,
        "core": found.core,
        "blas": found.blas,
        "blas_threads": 1 if found.has_one_thread else None,
        "schedule": list(lowered.schedule.steps),
        "stages": [
            {
                "name": stage.name,
                "level": stage.level,
                "lines": stage.text.count("\n"),
                "milliseconds": stage.seconds * 1e3,
            }
            for stage in lowered.stages.values()
        ],
        "timings": {
            name: {
                "seconds": timing.seconds,
                "quartiles": [timing.lower, timing.upper],
                "calls": timing.count,
                "gflops": timing.gflops(problem.flops),
            }
            for name, timing in found.timings.items()
        },
        "max_error": found.largest.error,
        "bound": found.largest.bound,
    }


def _print(found: Demo) -> None:
    values = _values(found)
    problem = values["problem"]
    sizes = " ".join(f"{name}={problem[name]}" for name in "mnk")
    put(f"BERT-base MLP up-projection: {sizes} f32, {problem['epilogue']}\n")
    steps = ["", *values["schedule"]]
    rows = [
        [s["name"], s["level"], str(s["lines"]), f"{s['milliseconds']:.1f}", step]
        for s, step in zip(values["stages"], steps, strict=True)
    ]
    put_table("", ["stage", "level", " lines", " ms", "pass"], rows)
    timings = [
        [name, f"{t['seconds'] * 1e3:.2f}", f"{t['gflops']:.1f}", f"{t['calls']}"]
        for name, t in values["timings"].items()
    ]
    put_table("", ["on one core", " ms", " GFLOP/s", " calls"], timings)
    threads = "one thread" if found.has_one_thread else "its own number of threads"
    put(
        f"{found.cpu}{'' if found.core is None else f', core {found.core}'}; "
        f"NumPy with {found.blas}, {threads}; medians of interleaved calls\n"
        f"max |error| against float64 {found.largest.error:.2e}, bound there "
        f"{found.largest.bound:.2e}\n"
    )
