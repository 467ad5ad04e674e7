"""How long gemmir takes itself: to be imported, to compile, to load from the cache, to check.

    python bench/compiling.py --rounds 15 --json FILE --strict

Every figure comes from fresh processes, one for each round, which run in turns.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Final

import typer

from gemmir.cli.output import note, put_table
from gemmir.measure import Timing, on_one_core, timing_of

SIZES: Final = (512, 1024, 2048, 4096)
"""Edges of the squares that are compiled; each has 8 times the work of the one before."""

CACHED_SIZE: Final = 1024

IMPORTING: Final = "from gemmir import Gemm, compile"
CACHED: Final = f"compile {CACHED_SIZE} cubed, from the cache"
CHECKING: Final = "gemmir check 48 x 40 x 56, whole process"

IMPORT_SECONDS: Final = 0.5
COLD_SECONDS: Final = 0.15
CACHED_SECONDS: Final = 0.02
CHECK_SECONDS: Final = 5.0

LONGER: Final = 1.03
"""A larger problem may take this many times the smaller one's CPU time: medians of the same work
differ by one or two per cent from run to run."""

CLOCK: Final = """
import json, sys, time
def timed(work):
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu
"""

IMPORT: Final = (
    CLOCK
    + """
def front_door():
    from gemmir import Gemm, compile
print(json.dumps({"import": timed(front_door)}))
"""
)

COMPILE: Final = (
    CLOCK
    + """
from gemmir import Gemm, compile
size = int(sys.argv[1])
gemm = Gemm(m=size, n=size, k=size)
print(json.dumps({"first": timed(lambda: compile(gemm))}))
"""
)

COMPILE_TWICE: Final = (
    CLOCK
    + """
from gemmir import Gemm, compile
from gemmir.cache import ObjectCache
size, off = int(sys.argv[1]), ObjectCache(None)
gemm = Gemm(m=size, n=size, k=size)
first, second = (timed(lambda: compile(gemm, cache=off)) for _ in range(2))
print(json.dumps({"first": first, "second": second}))
"""
)

CHECK: Final = (
    "import sys; from gemmir.cli import main; sys.exit(main())",
    *("check", "--m", "48", "--n", "40", "--k", "56"),
)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A figure beside what it is to be."""

    value: float
    bar: str
    is_met: bool


@dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds of one piece of work, in CPU time of its process and in wall time."""

    best_cpu: float
    cpu: Timing
    best_wall: float
    wall: Timing


@dataclass(frozen=True, kw_only=True)
class Compiling:
    """One piece of work, and the bar that the median of its CPU time has.

    A row that compares two others has no times of its own.
    """

    name: str
    verdict: Verdict | None
    times: Times | None = None


@dataclass(frozen=True, kw_only=True)
class Bar:
    """Most seconds of CPU time that the median may take."""

    seconds: float

    def judge(self, value: float) -> Verdict:
        """The figure against this bar."""
        return Verdict(value=value, bar=f"< {self.seconds:g} s", is_met=value < self.seconds)


Pair = tuple[float, float]

BAR_MISSED: Final = 1


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Processes of each kind.")] = 15,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all that was measured to this file.")
    ] = None,
    strict: Annotated[bool, typer.Option(help="Exit with 1 where a bar is missed.")] = False,
) -> None:
    """Measure how long gemmir takes itself."""
    with on_one_core():
        rows = measure(rounds)
    columns = ["compile", " best", " median", " quartiles", " wall", " wall/CPU"]
    put_table("CPU seconds", [*columns, " figure", "bar", ""], [_cells(row) for row in rows])
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
        note(f"wrote {json_file}")
    if strict and any(row.verdict is not None and not row.verdict.is_met for row in rows):
        raise typer.Exit(BAR_MISSED)


def _cells(row: Compiling) -> list[str]:
    found = row.verdict
    met = [] if found is None else ["met" if found.is_met else "MISSED"]
    verdict = ["", "", ""] if found is None else [f"{found.value:.3f}", found.bar, *met]
    if row.times is None:
        return [row.name, "", "", "", "", "", *verdict]
    cpu, wall = row.times.cpu, row.times.wall
    return [
        row.name,
        f"{row.times.best_cpu:.4f}",
        f"{cpu.seconds:.4f}",
        f"{cpu.lower:.4f} .. {cpu.upper:.4f}",
        f"{wall.seconds:.4f}",
        f"{wall.seconds / cpu.seconds:.2f}",
        *verdict,
    ]


def measure(rounds: int) -> list[Compiling]:
    """Every figure of this suite; `RuntimeError` where a process fails."""
    with tempfile.TemporaryDirectory() as folder:
        _run([COMPILE, str(CACHED_SIZE)], cache=folder)
        found: dict[str, list[Pair]] = {}
        for _ in range(rounds):
            for name, pair in _round(folder).items():
                found.setdefault(name, []).append(pair)
    return _judged(found)


def _round(folder: str) -> dict[str, Pair]:
    """Each process once."""
    found = {IMPORTING: _run([IMPORT], cache="off")["import"]}
    for size in SIZES:
        pairs = _run([COMPILE_TWICE, str(size)], cache="off")
        found[_cold(size)] = pairs["first"]
        found[f"compile {size} cubed, cold, once more"] = pairs["second"]
    cached = _run([COMPILE, str(CACHED_SIZE)], cache=folder)
    found[CACHED] = cached["first"]
    found[CHECKING] = _whole_process(CHECK)
    return found


def _cold(size: int) -> str:
    return f"compile {size} cubed, cold"


def _bars() -> dict[str, Bar]:
    return {
        IMPORTING: Bar(seconds=IMPORT_SECONDS),
        **{_cold(size): Bar(seconds=COLD_SECONDS) for size in SIZES},
        CACHED: Bar(seconds=CACHED_SECONDS),
        CHECKING: Bar(seconds=CHECK_SECONDS),
    }


def _judged(found: Mapping[str, Sequence[Pair]]) -> list[Compiling]:
    bars = _bars()
    rows = [_row(name, pairs, bars.get(name)) for name, pairs in found.items()]
    return rows + [_growth(found, a, b) for a, b in pairwise(SIZES)]


def _row(name: str, pairs: Sequence[Pair], bar: Bar | None) -> Compiling:
    wall, cpu = ([float(x) for x in column] for column in zip(*pairs, strict=True))
    times = Times(best_cpu=min(cpu), cpu=timing_of(cpu), best_wall=min(wall), wall=timing_of(wall))
    verdict = bar.judge(times.cpu.seconds) if bar else None
    return Compiling(name=name, verdict=verdict, times=times)


def _growth(found: Mapping[str, Sequence[Pair]], size: int, larger: int) -> Compiling:
    """The larger problem's CPU time over that of the smaller one."""
    before, after = (timing_of([cpu for _, cpu in found[_cold(n)]]) for n in (size, larger))
    grown = after.seconds / before.seconds
    verdict = Verdict(value=grown, bar=f"<= {LONGER:g} times", is_met=grown <= LONGER)
    return Compiling(name=f"{larger} cubed against {size} cubed, cold", verdict=verdict)


def _run(code: Sequence[str], *, cache: str) -> dict[str, Pair]:
    """What a script prints about itself; `cache` is a folder or `off`."""
    done = _process(code, cache)
    return {name: (wall, cpu) for name, (wall, cpu) in json.loads(done).items()}


def _whole_process(code: Sequence[str]) -> Pair:
    """Seconds of a process from its start to its end."""
    wall, cpu = time.perf_counter(), _children()
    _process(code, "off")
    return time.perf_counter() - wall, _children() - cpu


def _children() -> float:
    times = os.times()
    return times.children_user + times.children_system


def _process(code: Sequence[str], cache: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", *code],
        env={**os.environ, "GEMMIR_CACHE": cache},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"a fresh process failed: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    typer.run(main)
