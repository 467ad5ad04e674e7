"""Measure gemmir on this CPU beside the libraries that are here; see bench/README.md."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Final, cast

import compiling
import numpy as np
import peers
import typer
from compiling import Compiling
from harness import (
    GEMMIR,
    LEAST_SECONDS,
    NUMPY,
    PEAK,
    PRODUCT,
    Course,
    Measured,
    WrongResultError,
    epilogue_course,
    peak_contestant,
    pinned,
    product_course,
    race,
)
from peers import Blas, Missing
from suites import SUITES, Case, Verdict, ratio, shape

from gemmir.cache import source_fingerprint
from gemmir.cli.output import note, put_table
from gemmir.dtypes import PRODUCTS
from gemmir.llvm import versions
from gemmir.machine.host import host_cpu

COMPILE: Final = "compile"
NAMES: Final = (*SUITES, COMPILE)
GIVEN: Final = "given"
"""The suite of the problems of `--shape`."""

BAR_MISSED: Final = 1
WRONG_RESULT: Final = 3

DTYPES: Final = tuple(name for name, product in PRODUCTS.items() if not product.is_mixed)
"""The element types that a CPU multiplies and adds in: those of the problems of `--shape`."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was measured of one problem."""

    suite: str
    m: int
    n: int
    k: int
    dtype: str
    epilogue: str
    schedules: Mapping[str, Sequence[str]]
    measured: Mapping[str, Measured]
    ratios: Mapping[str, float]
    percent_of_peak: float
    verdict: Verdict | None

    @property
    def problem(self) -> str:
        """The sizes, type and epilogue, for a table."""
        sizes = f"{self.m} x {self.n} x {self.k} {self.dtype}"
        return f"{sizes} {self.epilogue}" if self.epilogue else sizes


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How everything is measured."""

    rounds: int
    seed: int
    blases: Sequence[Blas]


def main(
    suite: Annotated[
        str | None, typer.Option(help=f"Any of {', '.join(NAMES)}, joined by commas; default all.")
    ] = None,
    shapes: Annotated[
        list[str] | None,
        typer.Option("--shape", help="A problem of your own, MxNxK, in f32 and f64."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Timings of each contestant.")] = 15,
    cpu: Annotated[
        int | None, typer.Option(min=0, help="The CPU to run on; default the idlest.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the random operands.")] = 0,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all that was measured to this file.")
    ] = None,
    strict: Annotated[bool, typer.Option(help="Exit with 1 where a bar is missed.")] = False,
) -> None:
    """Measure gemmir beside the libraries that are on this computer."""
    cases = _cases(suite, shapes or [])
    with pinned(cpu) as chosen:
        found, missing = peers.find()
        settings = Settings(rounds=rounds, seed=seed, blases=found)
        before = _environment(chosen, settings, missing)
        put_table("", ["this run", ""], [[k, str(v)] for k, v in _head(before).items()])
        rows = [row for name, some in cases.items() for row in _run_suite(name, some, settings)]
        compiled = _run_compiling(rounds) if _wants_compiling(suite, shapes or []) else []
    if json_file is not None:
        _write(json_file, before, rows, compiled)
    missed = [r.verdict for r in (*rows, *compiled) if r.verdict and not r.verdict.is_met]
    if missed:
        note(f"{len(missed)} bars are missed")
    if missed and strict:
        raise typer.Exit(BAR_MISSED)


def _cases(suite: str | None, shapes: Sequence[str]) -> dict[str, tuple[Case, ...]]:
    """The problems of every suite that is asked for."""
    names = suite.split(",") if suite else [] if shapes else list(NAMES)
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        raise typer.BadParameter(f"unknown suites {', '.join(unknown)}; there are {NAMES}")
    chosen = {name: SUITES[name] for name in names if name != COMPILE}
    given = tuple(Case(gemm=shape(*_sizes(s), dtype)) for s in shapes for dtype in DTYPES)
    return {**chosen, GIVEN: given} if given else chosen


def _sizes(text: str) -> tuple[int, int, int]:
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)", text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is not MxNxK, such as 128x768x3072")
    return int(match[1]), int(match[2]), int(match[3])


def _wants_compiling(suite: str | None, shapes: Sequence[str]) -> bool:
    return COMPILE in suite.split(",") if suite else not shapes


def _run_suite(name: str, cases: Sequence[Case], settings: Settings) -> list[Row]:
    rows: list[Row] = []
    for case in cases:
        rows.append(_run_case(name, case, settings))
        note(f"{name}: {rows[-1].problem}")
    _show(name, rows)
    return rows


def _run_case(suite: str, case: Case, settings: Settings) -> Row:
    gemm = case.gemm
    course = _course(case, settings)
    measured = race([*course.contestants, peak_contestant(gemm.dtype)], settings.rounds)
    return Row(
        suite=suite,
        m=gemm.m,
        n=gemm.n,
        k=gemm.k,
        dtype=gemm.dtype,
        epilogue=gemm.epilogue,
        schedules=course.schedules,
        measured=measured,
        ratios={name: ratio(measured, name) for name in measured if name not in (GEMMIR, PEAK)},
        percent_of_peak=100 * measured[GEMMIR].gflops / measured[PEAK].gflops,
        verdict=case.bar.judge(measured) if case.bar else None,
    )


def _course(case: Case, settings: Settings) -> Course:
    if case.course == "epilogue":
        return epilogue_course(case.gemm, settings.seed)
    return product_course(case.gemm, settings.blases, settings.seed)


def _run_compiling(rounds: int) -> list[Compiling]:
    note(f"{COMPILE}: fresh processes, {rounds} rounds")
    rows = compiling.measure(rounds)
    columns = ["compile", " best", " median", " quartiles", " wall", " wall/CPU"]
    columns += [" figure", "bar", ""]
    put_table("compile, CPU seconds", columns, [_compiling_cells(row) for row in rows])
    return rows


def _compiling_cells(row: Compiling) -> list[str]:
    if row.times is None:
        return [row.name, "", "", "", "", "", *_verdict_cells(row.verdict)]
    cpu, wall = row.times.cpu, row.times.wall
    seconds = [
        f"{row.times.best_cpu:.4f}",
        f"{cpu.seconds:.4f}",
        f"{cpu.lower:.4f} .. {cpu.upper:.4f}",
        f"{wall.seconds:.4f}",
        f"{wall.seconds / cpu.seconds:.2f}",
    ]
    return [row.name, *seconds, *_verdict_cells(row.verdict)]


def _show(suite: str, rows: Sequence[Row]) -> None:
    names = [n for n in rows[0].measured if n not in (GEMMIR, PEAK)]
    columns = ["problem", " gemmir", " quartiles", " % of peak", " wall/CPU"]
    for name in names:
        columns += [f" {name}", " ratio"]
    columns += [" figure", "bar", ""]
    put_table(f"{suite}, GFLOP/s", columns, [_cells(row, names) for row in rows])


def _cells(row: Row, names: Sequence[str]) -> list[str]:
    own = row.measured[GEMMIR]
    flops = own.gflops * own.cpu.seconds
    cells = [
        row.problem,
        f"{own.gflops:.1f}",
        f"{flops / own.cpu.upper:.1f} .. {flops / own.cpu.lower:.1f}",
        f"{row.percent_of_peak:.1f}",
        f"{own.wall.seconds / own.cpu.seconds:.2f}",
    ]
    for name in names:
        cells += [f"{row.measured[name].gflops:.1f}", f"{row.ratios[name]:.3f}"]
    is_part = PRODUCT in row.measured
    return [*cells, *_verdict_cells(row.verdict, is_part=is_part)]


def _verdict_cells(verdict: Verdict | None, *, is_part: bool = False) -> list[str]:
    if verdict is None:
        return ["", "", ""]
    figure = f"{verdict.value:+.2%}" if is_part else f"{verdict.value:.3f}"
    return [figure, verdict.bar, "met" if verdict.is_met else "MISSED"]


def _environment(cpu: int | None, settings: Settings, missing: Sequence[Missing]) -> dict[str, Any]:
    """What the numbers depend on beside gemmir's schedules."""
    llvmlite, llvm = versions()
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpu": f"{_model()} ({host_cpu().name}), {os.cpu_count()} CPUs",
        "pinned_to": cpu,
        "load_average_before": os.getloadavg(),
        "system": platform.platform(),
        "versions": {
            "python": platform.python_version(),
            "gemmir": version("gemmir"),
            "commit": _commit(),
            "source": source_fingerprint()[:16],
            "numpy": np.__version__,
            "xdsl": version("xdsl"),
            "llvmlite": llvmlite,
            "llvm": llvm,
        },
        "peers": {blas.name: f"{blas.version} in {blas.file}" for blas in settings.blases},
        "missing_peers": {peer.name: peer.reason for peer in missing},
        "rounds": settings.rounds,
        "seed": settings.seed,
        "least_seconds_of_a_timing": LEAST_SECONDS,
        "threads": 1,
    }


def _head(environment: Mapping[str, Any]) -> dict[str, Any]:
    """The lines that stand above the tables."""
    keys = ("cpu", "pinned_to", "load_average_before", "rounds", "seed")
    peers_found: dict[str, str] = environment["peers"]
    lines = {key.replace("_", " "): environment[key] for key in keys}
    lines |= {name: text.split(" in ")[0] for name, text in peers_found.items()}
    lines |= {name: f"missing: {why}" for name, why in environment["missing_peers"].items()}
    return {**lines, NUMPY: environment["versions"]["numpy"]}


def _model() -> str:
    """The CPU's name as Linux tells it."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1] if match else platform.machine()


def _commit() -> str:
    """The commit that is checked out, with `+` where files differ from it; "" outside of git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def _write(
    path: Path, before: Mapping[str, Any], rows: Sequence[Row], compiled: Sequence[Compiling]
) -> None:
    result: dict[str, Any] = {
        "command": sys.argv,
        **before,
        "load_average_after": os.getloadavg(),
        "mkl_code_path": peers.mkl_code_path(),
        "throughput": [asdict(row) for row in rows],
        "compile": [asdict(row) for row in compiled],
    }
    lines = (f"{json.dumps(key)}: {_json_lines(value)}" for key, value in result.items())
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    note(f"written to {path}")


def _json_lines(value: object) -> str:
    """JSON with each item of a list of measurements on a line, and six digits of each number."""
    text = json.dumps(_rounded(value))
    return text.replace("[{", "[\n{").replace('}, {"', '},\n{"').replace("}]", "}\n]")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in cast("dict[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in cast("list[Any]", value)]
    return value


if __name__ == "__main__":
    try:
        typer.run(main)
    except WrongResultError as error:
        note(f"error: {error}")
        sys.exit(WRONG_RESULT)
