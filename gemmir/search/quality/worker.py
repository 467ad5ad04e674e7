"""The process that measures the schedules of one problem, one after the other in one process.

It is asked by lines of JSON and answers each with one. Interleaved in one process and with the same
arrays, the schedules meet the same pages of memory and the same clock.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from gemmir.bench.entrant import Entrant, Settings
from gemmir.bench.operands import make
from gemmir.bench.peers.gemmir import find
from gemmir.bench.race import expected_of
from gemmir.bench.worker import end_with_parent
from gemmir.errors import GemmirError
from gemmir.gemm import Gemm

SAMPLE_SECONDS: Final = 2.5e-3
"""One sample is so many calls that it takes so long, or one call."""

TRIED_SECONDS: Final = 5e-4
"""Calls are doubled until they take so long, to see how many are a sample."""


class Worker:
    """Compiles and checks schedules, and times those that are right."""

    def __init__(self, gemm: Gemm, target: str, threads: int, seed: int) -> None:
        self.gemm = gemm
        self.settings = Settings(target=target, threads=threads)
        self.operands = make(gemm, seed)
        self.expected = expected_of(gemm, self.operands)
        self.arrays = {name: o.array for name, o in self.operands.by_name.items()}
        self.entrants: dict[str, Entrant] = {}
        self.random = np.random.default_rng(seed)

    def enter(self, schedules: Sequence[str]) -> dict[str, str]:
        """Compile and check each; what is wrong with it, "" for nothing."""
        return {schedule: self._enter(schedule) for schedule in schedules}

    def _enter(self, schedule: str) -> str:
        settings = Settings(
            target=self.settings.target, threads=self.settings.threads, schedule=schedule
        )
        output = self.arrays["c"]
        output[...] = np.nan if output.dtype.kind == "f" else 0
        try:
            entrant = find(settings).enter(self.gemm, self.arrays)
            entrant.repeat(1)
        except GemmirError as error:
            return f"{error.code}: {error.message}"
        fault = self.expected.compare(np.ascontiguousarray(entrant.output())).first_wrong
        if fault is None:
            self.entrants[schedule] = entrant
        return "" if fault is None else str(fault)

    def time(self, rounds: int, cpus: Sequence[int]) -> dict[str, list[float]]:
        """Seconds of a call of each, in `rounds` rounds whose order is random each time."""
        if cpus and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, cpus)
        calls = {name: self._calls(entrant) for name, entrant in self.entrants.items()}
        found: dict[str, list[float]] = {name: [] for name in self.entrants}
        names = list(self.entrants)
        for _ in range(rounds):
            self.random.shuffle(names)
            for name in names:
                if calls[name] > 1:
                    self.entrants[name].repeat(max(calls[name] // 4, 1))
                found[name].append(self._seconds(self.entrants[name], calls[name]))
        return found

    def _calls(self, entrant: Entrant) -> int:
        """How many calls are one sample."""
        entrant.repeat(1)
        calls = 1
        while (seconds := self._seconds(entrant, calls)) * calls < TRIED_SECONDS:
            calls *= 2
        return max(round(SAMPLE_SECONDS / seconds), 1)

    def _seconds(self, entrant: Entrant, calls: int) -> float:
        """Seconds of a call: of this process, where one thread may have to wait for the CPU."""
        clock = time.process_time_ns if self.settings.threads == 1 else time.perf_counter_ns
        start = clock()
        entrant.repeat(calls)
        return max(clock() - start, 1) * 1e-9 / calls


def main() -> None:
    """Answer until there are no more questions."""
    end_with_parent()
    first: Mapping[str, Any] = json.loads(sys.stdin.readline())
    worker = Worker(Gemm(**first["gemm"]), first["target"], first["threads"], first["seed"])
    print(json.dumps(worker.enter(first["schedules"])), flush=True)
    for line in sys.stdin:
        print(json.dumps(worker.time(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
