"""The coordinator: one process for each contestant, which take turns on one CPU."""

from __future__ import annotations

import json
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from gemmir.arrays import Operands
from gemmir.bench.contestants import ANY_M, GEMMIR, MATMUL, PEAK, Contestant, Kind
from gemmir.bench.operands import make, write
from gemmir.closing import Closing
from gemmir.dtypes import ELEMENTS
from gemmir.errors import MissingError
from gemmir.gemm import Gemm
from gemmir.measure import Timing, on_one_core, timing_of
from gemmir.reference import Reference

OWN: Final[Mapping[Kind, str]] = {"product": GEMMIR, "calls": MATMUL, "any m": ANY_M}
"""Who is compared with the others."""

WORKER: Final = Path(__file__).parent / "worker.py"

FEW_ROUNDS: Final = 3
FAR: Final = 1.3
"""Whoever takes so many times as long as the fastest after so many rounds is not timed again."""

SLOW_SECONDS: Final = 0.1
"""With timings as long as this, even after one."""

FEWEST: Final = 5
MOST_SECONDS: Final = 2.5
"""Seconds of one contestant and one problem, if that leaves so many rounds."""

ANSWER_SECONDS: Final = 300.0
"""A contestant that does not answer for so long is ended."""


class GoneError(Exception):
    """The process of a contestant has ended, or does not answer."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """Of one contestant and one problem: seconds of a call, in CPU time and in wall time.

    `seconds` is the one that counts: CPU time with one thread, wall time with several.
    """

    calls: int
    flops: int
    seconds: Timing
    cpu: Timing
    wall: Timing
    about: Mapping[str, Any]

    @property
    def gflops(self) -> float:
        """10^9 floating-point operations a second at the median."""
        return self.seconds.gflops(self.flops)


@dataclass(frozen=True, kw_only=True)
class Race:
    """All that was found of one problem: `unable` says why a contestant has no result.

    `wrong` names those whose result is out of its bound, with the first element that is. `own` is
    the one of gemmir that is compared with `peers`, those of the results that are libraries.
    """

    gemm: Gemm
    own: str
    peers: Sequence[str]
    results: Mapping[str, Result]
    unable: Mapping[str, str]
    wrong: Mapping[str, str]

    @property
    def best_peer(self) -> str | None:
        """The fastest library, or None where none has a result."""
        return min(self.peers, key=lambda n: self.results[n].seconds.seconds, default=None)

    @property
    def ratio(self) -> float | None:
        """Time of the best peer over gemmir's: more than 1 means that gemmir is faster."""
        best = self.best_peer
        if best is None or self.own not in self.results:
            return None
        return self.results[best].seconds.seconds / self.results[self.own].seconds.seconds

    @property
    def percent_of_peak(self) -> float | None:
        """gemmir's speed of the FMA peak in this very race."""
        if self.own not in self.results or PEAK not in self.results:
            return None
        return 100 * self.results[self.own].gflops / self.results[PEAK].gflops


class Process:
    """The process of a contestant, which answers questions."""

    def __init__(
        self, contestant: Contestant, *, target: str, threads: int, cpus: Sequence[int]
    ) -> None:
        self.contestant = contestant
        self._stops = threads > 1
        settings = {
            "target": target,
            "threads": threads,
            "schedule": contestant.schedule,
            "call": contestant.call,
        }
        spec = {"peer": contestant.peer, "settings": settings, "cpus": list(cpus)}
        errors, name = tempfile.mkstemp(prefix="gemmir-bench-", suffix=".txt")
        self._errors = Path(name)
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(WORKER), json.dumps(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **contestant.environment},
            text=True,
        )
        os.close(errors)

    def ask(self, do: str, **given: Any) -> dict[str, Any]:
        """The answer to one question; `GoneError` where there is none."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            with self._running():
                self._process.stdin.write(json.dumps({"do": do, "with": given}) + "\n")
                self._process.stdin.flush()
                return self._answer()
        except (BrokenPipeError, json.JSONDecodeError) as error:
            raise GoneError(self._last_words()) from error

    def end(self) -> None:
        """End the process."""
        with suppress(OSError):
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        self._errors.unlink(missing_ok=True)

    @contextmanager
    def _running(self) -> Generator[None]:
        """Let it run in here only, where threads that wait for work would keep others from it."""
        if not self._stops:
            yield
            return
        self._process.send_signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGSTOP)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], ANSWER_SECONDS)
        if not ready:
            self.end()
            raise GoneError(f"it has not answered for {ANSWER_SECONDS:g} s")
        line = self._process.stdout.readline()
        if not line:
            raise GoneError(self._last_words())
        return json.loads(line)

    def _last_words(self) -> str:
        status = self._process.wait()
        words = self._errors.read_text(errors="replace").strip().splitlines()
        return f"its process ended with status {status}" + (f": {words[-1]}" if words else "")


class Field(Closing):
    """Everybody who takes part, each in a process that lives as long as this.

    `unable` says who cannot, and why; `about` what the others are.
    """

    def __init__(
        self, those: Sequence[Contestant], *, target: str, threads: int, cpus: Sequence[int]
    ) -> None:
        self.threads = threads
        self.unable: dict[str, str] = {}
        self.about: dict[str, Mapping[str, Any]] = {}
        self._start: Callable[[Contestant], Process] = lambda contestant: Process(
            contestant, target=target, threads=threads, cpus=cpus
        )
        self.unable |= {c.name: c.barred for c in those if c.barred}
        self._processes = {c.name: self._start(c) for c in those if not c.barred}
        for name in list(self._processes):
            answer = self._ask(name, "load")
            if "unable" in answer:
                self.unable[name] = answer["unable"]
                self._processes.pop(name).end()
            else:
                self.about[name] = answer["about"]

    def close(self) -> None:
        """End all processes."""
        for process in self._processes.values():
            process.end()

    @property
    def names(self) -> list[str]:
        """Who takes part."""
        return list(self._processes)

    def race(self, gemm: Gemm, *, rounds: int, seed: int, kind: Kind = "product") -> Race:
        """Let those of `kind` compute `gemm`, compare, and time those that are right in turns."""
        those = {name: process.contestant for name, process in self._processes.items()}
        asked = [n for n, c in those.items() if c.kind == kind or n in (GEMMIR, PEAK)]
        entered: dict[str, Mapping[str, Any]] = {}
        unable: dict[str, str] = {}
        wrong: dict[str, str] = {}
        with tempfile.TemporaryDirectory(prefix="gemmir-bench-") as folder:
            given, file = Path(folder, "given"), str(Path(folder, "result.npy"))
            given.mkdir()
            operands = make(gemm, seed)
            write(operands, given)
            expected: Reference | None = None
            for name in asked:
                paths = {"given": str(given), "result": file}
                answer = self._ask(name, "enter", gemm=asdict(gemm), **paths)
                if "unable" in answer:
                    unable[name] = answer["unable"]
                    continue
                if name != PEAK:
                    expected = expected or expected_of(gemm, operands)
                    fault = _compared(gemm, expected, file)
                    if fault:
                        wrong[name] = fault
                        continue
                entered[name] = answer
        times = self._turns(list(entered), rounds, unable)
        for name in asked:
            self._ask(name, "leave")
        results = {name: self._result(entered[name], found) for name, found in times.items()}
        return Race(
            gemm=gemm,
            own=OWN[kind],
            peers=[n for n in results if those[n].family or (kind == "any m" and n == GEMMIR)],
            results=results,
            unable=unable,
            wrong=wrong,
        )

    def _turns(
        self, names: Sequence[str], rounds: int, unable: dict[str, str]
    ) -> dict[str, list[dict[str, Any]]]:
        """A B C A B C; who is far behind after a few rounds, or slow, takes part in fewer."""
        times: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for number in range(rounds):
            for name in still_in(times, number):
                answer = self._ask(name, "time")
                if "unable" in answer:
                    unable[name] = answer["unable"]
                    del times[name]
                else:
                    times[name].append(answer)
        return times

    def _result(self, entered: Mapping[str, Any], times: Sequence[Mapping[str, Any]]) -> Result:
        cpu = timing_of([time["cpu"] for time in times])
        wall = timing_of([time["wall"] for time in times])
        return Result(
            calls=times[0]["calls"],
            flops=entered["flops"],
            seconds=cpu if self.threads == 1 else wall,
            cpu=cpu,
            wall=wall,
            about=entered["about"],
        )

    def _ask(self, name: str, do: str, **given: Any) -> dict[str, Any]:
        """An answer; one whose process is gone is unable, and gets another for the next problem."""
        process = self._processes[name]
        try:
            return process.ask(do, **given)
        except GoneError as error:
            process.end()
            if do != "load":
                self._processes[name] = self._start(process.contestant)
                self._processes[name].ask("load")
            return {"unable": str(error)}


def still_in(times: Mapping[str, Sequence[Mapping[str, Any]]], number: int) -> list[str]:
    """Who takes part in round `number`: in the first ones all do, in the very first even the slow.

    Later ones are for those that are not far behind, of which the order may still change, for
    gemmir and the peak, and for as many as there is time for.
    """
    if number == 0:
        return list(times)
    speeds = {name: statistics.median(t["wall"] for t in found) for name, found in times.items()}
    long = {name: seconds * times[name][0]["calls"] for name, seconds in speeds.items()}
    fastest = min((s for name, s in speeds.items() if name != PEAK), default=0.0)
    ahead = {n for n, s in speeds.items() if s <= FAR * fastest or n.startswith((GEMMIR, PEAK))}
    if number < FEW_ROUNDS:
        return [name for name in times if name in ahead or long[name] < SLOW_SECONDS]
    return [n for n in times if n in ahead and number < max(MOST_SECONDS / long[n], FEWEST)]


def expected_of(gemm: Gemm, operands: Operands) -> Reference:
    """The right answer in float64, and its bound.

    For f64 the answer itself is rounded as much as what is checked, which doubles the bound.
    """
    is_f64 = gemm.dtype == "f64"
    narrow = replace(gemm, dtype="f32", out=None) if is_f64 else gemm
    arrays = {name: operand.array for name, operand in operands.by_name.items()}
    scale = 2 * ELEMENTS["f64"].unit / ELEMENTS["f32"].unit if is_f64 else 1.0
    with np.errstate(all="ignore"):
        return Reference(
            origin="float64",
            expected=np.asarray(narrow.reference(arrays)),
            bound=np.asarray(scale * narrow.error_bound(arrays)),
            view=lambda output: output,
        )


def _compared(gemm: Gemm, expected: Reference, file: str) -> str:
    """What is wrong with the result in a file; "" for nothing."""
    found = np.load(file)
    wanted = ELEMENTS[gemm.operands[-1].dtype].numpy
    if found.dtype != wanted and found.dtype.kind == "V":
        found = found.view(wanted)
    if found.dtype != wanted or found.shape != expected.expected.shape:
        return f"it gives {found.dtype} {found.shape} for {wanted} {expected.expected.shape}"
    fault = expected.compare(found).first_wrong
    return "" if fault is None else str(fault)


def cpus_for(threads: int, cpu: int | None) -> list[int]:
    """The CPUs of a run: `cpu` and those behind it, or the idlest; none where the system cannot."""
    if not hasattr(os, "sched_getaffinity"):
        if cpu is not None:
            raise MissingError(
                "GEM1373", f"--cpu {cpu}: this system keeps no process on a CPU", "leave it out"
            )
        return []
    allowed = sorted(os.sched_getaffinity(0))
    if cpu is not None and cpu not in allowed:
        raise MissingError(
            "GEM1373",
            f"--cpu {cpu}: this process may run on {', '.join(map(str, allowed))}",
            f"use {allowed[0]}",
        )
    if threads > len(allowed):
        raise MissingError(
            "GEM1373",
            f"{threads} threads and {len(allowed)} CPUs: each thread has one",
            f"use --threads {len(allowed)}",
        )
    if cpu is None:
        with on_one_core() as core:
            cpu = allowed[0] if core is None else core
    at = allowed.index(cpu)
    return (allowed[at:] + allowed[:at])[:threads]


@contextmanager
def on_cpus(cpus: Sequence[int]) -> Generator[None]:
    """Keep this process on `cpus`, where the system can."""
    if not cpus or not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
