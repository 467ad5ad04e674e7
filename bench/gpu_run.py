"""Measure a prepared folder within a budget of time, in processes that may fail.

The cases go to a worker one by one. Where a kernel takes its worker along, or never ends, that is a
row, and the rest of its case goes on in another. What was found so far is always in the file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from typing import Any, Final

from gpu_monitor import Monitor
from gpu_report import summary

CHECK_PART: Final = 0.25
"""Checks come first, but what they do not do in this part of the budget is left for the end."""

START_SECONDS: Final = 120.0
"""A worker may take so long to begin, and to import PyTorch on a computer that has just started."""

STARTS: Final = 2
"""Tries to begin: the one before may not have left the GPU yet."""

SILENT_SECONDS: Final = 20.0
"""A kernel that is not done for so long never will be."""

END_SECONDS: Final = 20.0
"""How long a process that was killed is waited for."""

CASE_SECONDS: Final = 1.0
"""What a timed case takes beside its timing."""

LEAST_SECONDS: Final = 0.2
"""How long a problem is timed however little is left."""

WORKER: Final = (sys.executable, str(Path(__file__).with_name("gpu_worker.py")))


class WorkerGoneError(Exception):
    """A worker has ended, or says nothing any more; the message says which."""


class NoWorkerError(Exception):
    """No worker can begin."""


class Process:
    """A worker, and what it says."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answers: Queue[dict[str, Any] | None] = Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(json.loads(line))
        self._answers.put(None)

    def ask(self, question: Mapping[str, Any]) -> None:
        """Send a case."""
        assert self._process.stdin is not None
        try:
            print(json.dumps(question), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            self._answers.put(None)

    def answer(self, seconds: float) -> dict[str, Any]:
        """The next thing that it says, within so long."""
        try:
            found = self._answers.get(timeout=seconds)
        except Empty:
            raise WorkerGoneError(f"nothing happened for {seconds:.0f} seconds") from None
        if found is None:
            raise WorkerGoneError(f"the process ended with status {self._process.wait()}")
        return found

    def end(self) -> None:
        """End it, whatever it does; one whose kernel does not end may stay for a while."""
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS)


@dataclass(kw_only=True)
class Run:
    """One measurement of a folder."""

    folder: Path
    manifest: Mapping[str, Any]
    seconds: float
    seed: int
    budget: float
    output: Path | None
    command: Sequence[str] = WORKER
    monitor: Monitor = field(default_factory=Monitor)
    head: dict[str, Any] = field(default_factory=dict[str, Any])
    rows: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def __post_init__(self) -> None:
        self._begin = time.perf_counter()
        self._worker: Process | None = None
        self._is_warm = False

    @property
    def left(self) -> float:
        """Seconds of the budget."""
        return self.budget - (time.perf_counter() - self._begin)

    def measure(self) -> dict[str, Any]:
        """Do all cases, or as many as there is time for.

        `NoWorkerError` where none can begin; after the first, what was found until then is the
        answer.
        """
        try:
            self._measure(self.manifest["cases"])
        except NoWorkerError as error:
            if not self.head:
                raise
            lost = {"suite": "", "case": "", "name": "", "wrong": True}
            self.rows.append({**lost, "error": f"no worker begins any more: {error}"})
        finally:
            if self._worker is not None:
                self._worker.end()
            self.monitor.end()
        return self._write()

    def _measure(self, cases: Sequence[dict[str, Any]]) -> None:
        self._note_refused(cases)
        queue = deque(case for case in cases if case["kernels"])
        late: list[dict[str, Any]] = []
        while queue:
            case = queue.popleft()
            is_check = case["task"] == "check"
            if is_check and queue and self.left < (1 - CHECK_PART) * self.budget:
                late.append(case)
            else:
                self._do(case, 1 + sum(c["task"] != "check" for c in queue))
        for case in late:
            self._do(case, 1)

    def _note_refused(self, cases: Sequence[Mapping[str, Any]]) -> None:
        for case in cases:
            for name, error in case["refused"].items():
                self.rows.append({**_named(case), "name": name, "refused": error})

    def _do(self, case: dict[str, Any], waiting: int) -> None:
        """A case, again without each kernel that ended its worker."""
        share = self.left / waiting - CASE_SECONDS
        seconds = max(min(self.seconds, share), LEAST_SECONDS)
        kernels = dict(case["kernels"])
        while kernels:
            if self.left < CASE_SECONDS:
                self.rows.append({**_named(case), "name": "", "left_out": "the budget is spent"})
                break
            guilty = self._once({**case, "kernels": kernels}, seconds)
            if guilty is None:
                break
            if guilty not in kernels:
                break
            del kernels[guilty]
        self._write()

    def _once(self, case: Mapping[str, Any], seconds: float) -> str | None:
        """The kernel that ended its worker, "" where it is not known, None where all went well."""
        worker = self._ready()
        guilty, begin, done = "", time.perf_counter(), list[str]()
        try:
            worker.ask({"case": case, "seconds": seconds, "seed": self.seed})
            while True:
                found = worker.answer(self._patience(seconds))
                self._is_warm = True
                if found["event"] == "done":
                    return None
                if found["event"] == "about":
                    self.head |= {k: v for k, v in found.items() if k != "event"}
                    self._is_warm = False
                elif found["event"] == "start":
                    guilty = found["kernel"]
                elif found["event"] == "failed":
                    raise WorkerGoneError(found["error"])
                else:
                    done.append(found["row"]["name"])
                    self._add(case, found["row"], begin)
        except WorkerGoneError as error:
            worker.end()
            self._worker = None
            known = case["kernels"].get(guilty, {})
            row = {key: known[key] for key in ("schedule", "launch") if key in known}
            self._add(case, {"name": guilty, "wrong": True, "error": str(error), **row}, begin)
            for name in done:
                case["kernels"].pop(name, None)
            return guilty

    def _patience(self, seconds: float) -> float:
        return SILENT_SECONDS + seconds if self._is_warm else START_SECONDS

    def _ready(self) -> Process:
        """A worker that has begun: a new one where there is none, tried twice."""
        if self._worker is not None:
            return self._worker
        self._is_warm = False
        said = ""
        for _ in range(STARTS):
            worker = Process([*self.command, str(self.folder)])
            try:
                about = worker.answer(START_SECONDS)
            except WorkerGoneError as error:
                worker.end()
                said = str(error)
                continue
            self.head |= {k: v for k, v in about.items() if k != "event"}
            self._worker = worker
            return worker
        raise NoWorkerError(said)

    def _add(self, case: Mapping[str, Any], row: Mapping[str, Any], begin: float) -> None:
        whole = {**_named(case), **row, **self.monitor.since(begin)}
        self.rows.append(whole)
        print(said(whole), file=sys.stderr, flush=True)

    def _write(self) -> dict[str, Any]:
        """All that is known, in the file too."""
        found = {
            **{key: value for key, value in self.manifest.items() if key != "cases"},
            **self.head,
            "seed": self.seed,
            "budget_seconds": self.budget,
            "spent_seconds": time.perf_counter() - self._begin,
            "smi": self.monitor.first,
            "summary": summary(self.rows),
            "rows": self.rows,
        }
        if self.output is not None:
            partial = self.output.with_name(self.output.name + ".tmp")
            partial.write_text(json.dumps(found, indent=1) + "\n")
            os.replace(partial, self.output)
        return found


def _named(case: Mapping[str, Any]) -> dict[str, Any]:
    return {"suite": case["suite"], "case": case["text"]}


def said(row: Mapping[str, Any]) -> str:
    """A row as a line of progress."""
    numbers = {
        name: f"{row[key]:.4g}"
        for name, key in (
            ("error/bound", "error_by_bound"),
            ("TFLOP/s", "tflops"),
            ("ratio", "ratio"),
            ("overhead", "overhead"),
        )
        if key in row
    }
    for key, factor in (("seconds", 1e6), ("microseconds", 1.0)):
        if key in row:
            numbers = {"us": f"{row[key]['median'] * factor:.2f}", **numbers}
    words = [f"{name} {value}" for name, value in numbers.items()]
    words += [f"{key}: {row[key]}" for key in ("error", "missing", "left_out") if key in row]
    wrong = "WRONG " if row.get("wrong") else ""
    return f"{wrong}{row['case']} {row['name']}: {', '.join(words)}"
