"""The process of one contestant: it does what each line of JSON on its input asks.

    load                      import the library; what it is, or why it cannot be used
    enter gemm given result   read the operands, compute once, and write the result to a file
    time sample warm          seconds of one call, over as many as take so long, after others
    leave                     forget the problem

Answers are lines of JSON on the standard output; what libraries print goes to the error output.
It runs as a script, without the front door of the package, which would import the compiler.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, TextIO

if TYPE_CHECKING:
    from gemmir.bench.entrant import Entrant, Peer
    from gemmir.gemm import Gemm

PR_SET_PDEATHSIG: Final = 1
"""Of linux/prctl.h."""

LEAST_SECONDS: Final = 0.02
"""One timing is so many calls that it takes about this long, or one call."""

WARM_SECONDS: Final = 1e-3
"""Calls that are made before each timing, since others have had the caches: so long, or one."""

LONG_SECONDS: Final = 0.04
"""A call that takes longer warms its caches itself."""

PIN_SECONDS: Final = 0.05
"""So long is waited, before threads are given CPUs, for all of them to work."""

WORKED_SECONDS: Final = 1e-3
"""Who has had a CPU for so long is one of them, and not a thread that only began and waits."""


def without_front_door() -> None:
    """Let the parts of gemmir be imported without its front door, which imports the compiler."""
    root = Path(__file__).resolve().parent.parent
    if "gemmir" not in sys.modules:
        package = ModuleType("gemmir")
        package.__path__ = [str(root)]
        sys.modules["gemmir"] = package


class Worker:
    """One contestant: `peer` is its module, `settings` say how it runs."""

    def __init__(self, peer: str, settings: Mapping[str, Any]) -> None:
        self.module = peer
        self.settings = settings
        self.peer: Peer | None = None
        self.entrant: Entrant | None = None
        self.seconds = 0.0
        self.cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []

    def answer(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Do one thing; what cannot be done is `unable`, with the reason."""
        from gemmir.bench.entrant import UnableError
        from gemmir.errors import GemmirError

        try:
            return getattr(self, asked["do"])(**asked.get("with", {}))
        except UnableError as error:
            return {"unable": str(error)}
        except (GemmirError, OSError, AttributeError, RuntimeError, TypeError, ValueError) as error:
            return {"unable": f"{type(error).__name__}: {str(error).splitlines()[0]}"}

    def load(self) -> dict[str, Any]:
        """Import the library."""
        from gemmir.bench.entrant import Settings

        find = import_module(self.module).find
        peer: Peer = find(Settings(**self.settings))
        self.peer = peer
        return {"about": dict(peer.about)}

    def enter(self, gemm: Mapping[str, Any], given: str, result: str) -> dict[str, Any]:
        """Compute once, of the operands in a folder into NaNs, and write what came out."""
        import numpy as np

        from gemmir.bench.operands import read
        from gemmir.gemm import Gemm

        assert self.peer is not None
        problem: Gemm = Gemm(**gemm)
        operands = read(problem, Path(given))
        arrays = {name: operand.array for name, operand in operands.by_name.items()}
        self._spread()
        self.entrant = self._entrant(problem, arrays)
        self._first_call()
        np.save(result, np.ascontiguousarray(self.entrant.output()))
        self.seconds = 0.0
        about = {**self.peer.about, **self.entrant.about}
        return {"flops": self.entrant.flops, "about": about}

    @property
    def _several(self) -> bool:
        """Whether there are several threads, each of which can have a CPU of its own."""
        return self.settings["threads"] > 1 and len(self.cpus) > 1

    def _spread(self) -> None:
        """Let this thread, and those that it makes, run on all CPUs of the contestant."""
        if self._several:
            os.sched_setaffinity(0, self.cpus)

    def _first_call(self) -> None:
        """Compute once; of several threads each then has a CPU of its own."""
        assert self.entrant is not None
        before = _thread_seconds()
        self.entrant.repeat(1)
        if self._several:
            self._pin(before)

    def _pin(self, before: Mapping[int, float]) -> None:
        """Give each of the threads that work a CPU of its own.

        The thread that calls could run on all of them so far, as those could that it made. Calls
        go on until as many have worked as there should be: one of them may do all at first, and
        Linux counts the time of a thread when it leaves the CPU.
        """
        assert self.entrant is not None
        threads = self.settings["threads"]
        end = time.perf_counter() + PIN_SECONDS
        while True:
            worked = _worked(before)
            if len(worked) >= threads or time.perf_counter() > end:
                break
            self.entrant.repeat(1)
        for thread, cpu in zip(sorted(worked[:threads]), self.cpus, strict=False):
            os.sched_setaffinity(thread, {cpu})

    def _entrant(self, gemm: Gemm, arrays: Mapping[str, Any]) -> Entrant:
        """The problem itself; of weights, for who cannot, the product of what they stand for."""
        from gemmir.bench.entrant import UnableError
        from gemmir.bench.operands import dequantised

        assert self.peer is not None
        try:
            return self.peer.enter(gemm, arrays)
        except UnableError:
            if not gemm.has_weights or gemm.result.name != "f32":
                raise
        found = self.peer.enter(*dequantised(gemm, arrays))
        called = f"{found.about['called']}, of weights in f32"
        return replace(found, about={**found.about, "called": called})

    def time(
        self, sample_seconds: float = LEAST_SECONDS, warm_up_seconds: float = WARM_SECONDS
    ) -> dict[str, Any]:
        """CPU seconds of this process and wall seconds of one call."""
        assert self.entrant is not None
        if not self.seconds:
            cpu, wall = self._estimate()
            self.seconds = self._counted(cpu, wall)
            if self.seconds >= LONG_SECONDS:
                return {"cpu": cpu, "wall": wall, "calls": 1}
        calls = max(round(sample_seconds / self.seconds), 1)
        if self.seconds < LONG_SECONDS:
            warm = max(round(warm_up_seconds / self.seconds), 1)
            self.entrant.repeat(min(calls, warm))
        cpu, wall = self._timed(calls)
        return {"cpu": cpu, "wall": wall, "calls": calls}

    def leave(self) -> dict[str, Any]:
        """Forget the problem."""
        self.entrant = None
        return {}

    def _estimate(self) -> tuple[float, float]:
        """About the seconds of one call, from a batch that is doubled until the clock can tell.

        The very first call does not count, for libraries compile or allocate in it.
        """
        calls = 1
        while True:
            cpu, wall = self._timed(calls)
            if self._counted(cpu, wall) * calls >= LEAST_SECONDS / 8:
                return cpu, wall
            calls *= 2

    def _counted(self, cpu: float, wall: float) -> float:
        """The time that counts: a thread that has to wait for the CPU does not take longer."""
        return cpu if self.settings["threads"] == 1 else wall

    def _timed(self, calls: int) -> tuple[float, float]:
        assert self.entrant is not None
        wall, cpu = time.perf_counter_ns(), time.process_time_ns()
        self.entrant.repeat(calls)
        cpu, wall = time.process_time_ns() - cpu, time.perf_counter_ns() - wall
        return max(cpu, 1) * 1e-9 / calls, wall * 1e-9 / calls


def _thread_seconds() -> dict[int, float]:
    """Seconds that each thread of this process has had a CPU, where Linux tells."""
    found: dict[int, float] = {}
    for file in Path("/proc/self/task").glob("*/schedstat"):
        try:
            found[int(file.parent.name)] = int(file.read_text().split()[0]) * 1e-9
        except (OSError, ValueError):
            continue
    return found


def _worked(before: Mapping[int, float]) -> list[int]:
    """The threads that have had a CPU for a while since then, the busiest first."""
    now = _thread_seconds()
    worked = {thread: seconds - before.get(thread, 0.0) for thread, seconds in now.items()}
    busy = [thread for thread, seconds in worked.items() if seconds >= WORKED_SECONDS]
    return sorted(busy, key=lambda thread: -worked[thread])


def end_with_parent(by: signal.Signals = signal.SIGKILL) -> None:
    """Have Linux end this process, even a stopped one, with that which asks it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, by)


def main(arguments: Sequence[str]) -> None:
    """Answer until there are no more questions."""
    end_with_parent()
    spec = json.loads(arguments[0])
    if spec["cpus"] and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, spec["cpus"])
    answers: TextIO = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    without_front_door()
    worker = Worker(spec["peer"], spec["settings"])
    for line in sys.stdin:
        print(json.dumps(worker.answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
