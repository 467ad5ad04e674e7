"""Measured schedules of problems: making them, and the file that keeps them."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from gemmir.bench.suite import Suite
from gemmir.errors import BackendError, GemmirError, ParseError
from gemmir.gemm import Gemm

FORMAT: Final = 1
LIMIT_SECONDS: Final = 600.0
"""A process that takes longer for all schedules of one problem is ended."""

LONG_FLOPS: Final = (3e9, 3e10)
LONG_ROUNDS: Final = (3, 2)
"""From so many operations on there are not more rounds than these."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A schedule, and the median of its seconds, with the least and the most."""

    schedule: str
    seconds: float
    least: float
    most: float


@dataclass(frozen=True, kw_only=True)
class Case:
    """A problem of a class with its measured schedules, and what was wrong with others."""

    class_: str
    gemm: Gemm
    measured: tuple[Measured, ...]
    refused: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """All cases of a machine, and what the numbers depend on."""

    target: str
    about: Mapping[str, Any]
    cases: tuple[Case, ...]

    def dump(self) -> str:
        """As JSON: each pass is spelled once, and a schedule is the numbers of its passes."""
        passes: dict[str, int] = {}

        def spelled(schedule: str) -> list[int]:
            steps = split_passes(schedule)
            return [passes.setdefault(step, len(passes)) for step in steps]

        rows = [
            {
                "class": case.class_,
                "gemm": changed(case.gemm),
                "schedules": [spelled(m.schedule) for m in case.measured],
                "seconds": [
                    [_digits(x) for x in (m.seconds, m.least, m.most)] for m in case.measured
                ],
                "refused": {text: reason for text, reason in case.refused.items()},
            }
            for case in self.cases
        ]
        head: dict[str, Any] = {"format": FORMAT, "target": self.target, **self.about}
        lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
        lines.append('"passes": ' + _listed(passes))
        lines.append('"cases": ' + _listed(rows))
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @staticmethod
    def parse(text: str, name: str) -> Measurements:
        """What `dump` wrote; `ParseError` GEM1451 where it is not that."""
        try:
            found: dict[str, Any] = json.loads(text)
            if found.pop("format") != FORMAT:
                raise ValueError(f"its format is not {FORMAT}")
            passes: list[str] = found.pop("passes")
            rows: list[Any] = found.pop("cases")
            cases = tuple(_case(row, passes) for row in rows)
            return Measurements(target=found.pop("target"), about=found, cases=cases)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, GemmirError) as error:
            raise ParseError(
                "GEM1451",
                f"{name} holds no measured schedules: {error}",
                "give a file that gemmir cost measure wrote",
            ) from error


def read(path: Path) -> Measurements:
    """The measurements in a file; `ParseError` GEM1451 where there are none."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ParseError("GEM1451", f"{path} cannot be read: {reason}") from error
    return Measurements.parse(text, str(path))


def is_measured(path: Path) -> bool:
    """Whether a file is one of measured schedules, and not of other results."""
    try:
        return '"passes": [' in path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return True


def split_passes(schedule: str) -> list[str]:
    """The text of each pass of a schedule: commas outside of braces separate them."""
    found, depth = [""], 0
    for character in schedule:
        depth += {"{": 1, "}": -1}.get(character, 0)
        if character == "," and depth == 0:
            found.append("")
        else:
            found[-1] += character
    return found


def changed(gemm: Gemm) -> dict[str, Any]:
    """The fields of a problem that are not as they are without being said."""
    plain = Gemm(m=gemm.m, n=gemm.n, k=gemm.k)
    return {
        f.name: getattr(gemm, f.name)
        for f in fields(gemm)
        if f.name in "mnk" or getattr(gemm, f.name) != getattr(plain, f.name)
    }


def _case(row: Mapping[str, Any], passes: list[str]) -> Case:
    spelled: list[list[int]] = row["schedules"]
    times: list[list[float]] = row["seconds"]
    measured = [
        Measured(schedule=",".join(passes[i] for i in numbers), seconds=s, least=least, most=most)
        for numbers, (s, least, most) in zip(spelled, times, strict=True)
    ]
    return Case(
        class_=row["class"],
        gemm=Gemm(**row["gemm"]),
        measured=tuple(measured),
        refused=row["refused"],
    )


def _digits(value: float) -> float:
    return float(f"{value:.4g}")


def _listed(values: Iterator[Any] | Sequence[Any] | Mapping[str, Any]) -> str:
    return "[\n" + ",\n".join(json.dumps(value) for value in values) + "\n]"


# Making them -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured: so many schedules of each problem, from the space around its default."""

    target: str
    schedules: int = 24
    rounds: int = 5
    seed: int = 0
    threads: int = 1
    cpus: tuple[int, ...] = ()


def drawn(gemm: Gemm, plan: Plan) -> list[str]:
    """The default schedule and others of the space around it, each once."""
    from gemmir.search.spaces import default_space

    bound = default_space(gemm, plan.target, plan.threads).bind(gemm, plan.target)
    points = [bound.first, *bound.sample(plan.schedules - 1, plan.seed)]
    return list(dict.fromkeys(str(bound.schedule(point)) for point in points))


def problems(suite: Suite) -> Iterator[tuple[str, Gemm]]:
    """The products of a suite with the names of their classes."""
    for class_ in suite.classes:
        for gemm in class_.problems if class_.kind == "product" else ():
            yield class_.name, gemm


def measure(
    class_: str,
    gemm: Gemm,
    schedules: Sequence[str],
    plan: Plan,
    alone: AbstractContextManager[object] | None = None,
) -> Case:
    """Compile, check and time schedules in a process of their own; `alone` is held while timing.

    Raises `BackendError` GEM1452 where the process ends or takes too long.
    """
    with tempfile.TemporaryDirectory(prefix="gemmir-") as folder, _Process(folder) as process:
        first = {"gemm": asdict(gemm), "schedules": list(schedules), "seed": plan.seed}
        faults = process.ask({**first, "target": plan.target, "threads": plan.threads})
        with alone or nullcontext():
            rounds = _rounds(gemm, plan.rounds)
            times = process.ask({"rounds": rounds, "cpus": list(plan.cpus)})
    measured = tuple(
        Measured(
            schedule=schedule,
            seconds=statistics.median(found),
            least=min(found),
            most=max(found),
        )
        for schedule, found in times.items()
    )
    refused = {schedule: fault for schedule, fault in faults.items() if fault}
    return Case(class_=class_, gemm=gemm, measured=measured, refused=refused)


def _rounds(gemm: Gemm, wanted: int) -> int:
    for flops, rounds in zip(LONG_FLOPS, LONG_ROUNDS, strict=True):
        if gemm.flops >= flops:
            wanted = min(wanted, rounds)
    return wanted


class _Process:
    """The process of `worker.py`, which keeps what it compiles in `folder`."""

    def __init__(self, folder: str) -> None:
        environment = {**os.environ, "GEMMIR_CACHE": folder, "OPENBLAS_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "gemmir.search.quality.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a question, in time."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None and stdout is not None
        timer = threading.Timer(LIMIT_SECONDS, self.process.kill)
        timer.start()
        try:
            stdin.write(json.dumps(question) + "\n")
            stdin.flush()
            answer = stdout.readline()
        except BrokenPipeError:
            answer = ""
        finally:
            timer.cancel()
        if not answer:
            raise BackendError(
                "GEM1452",
                f"the process that measures ended, or took more than {LIMIT_SECONDS:.0f} s",
                "measure fewer schedules, or a smaller problem",
            )
        return json.loads(answer)
