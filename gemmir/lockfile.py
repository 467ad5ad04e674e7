"""Schedules pinned in a file: what `gemmir tune --pin` has found, for a problem on a machine.

    lock = Lock.read("gemmir.lock")
    gemmir.compile(gemm, schedule=lock.schedule(gemm))      # the default one where it has none

The file is TOML, one `[[pin]]` for each problem, target, CPU and number of threads, in their order,
so that a version control system shows what has changed. It says what is to be run and nothing of
how it is run: whoever reads it lowers the schedule as any other.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Final, cast

from gemmir.compiler import lower
from gemmir.errors import BackendError, ParseError, ProblemError, ScheduleError
from gemmir.gemm import Gemm
from gemmir.machine import HOST, Machine, TpuMachine, machine_for
from gemmir.schedule import Schedule
from gemmir.sizes import ANY, Unknown
from gemmir.threads import planned

FORMAT: Final = 1

KINDS: Final[Mapping[str, type]] = {
    **dict.fromkeys(("problem", "target", "cpu"), str),
    "threads": int,
    "schedule": list,
}
"""What stands behind the keys that every pin has."""

HEAD: Final = (
    "# Schedules that gemmir tune --pin has found; --lock of gemmir compile and others reads them."
)

ALWAYS: Final = ("m", "n", "k", "dtype")
"""What is said of every problem; other fields are, where they are not the default ones."""

IMPLIED: Final = (
    *("out", "lda", "ldb", "ldc", "batch_stride_a", "batch_stride_b", "batch_stride_c"),
)
"""Fields that may say what would be so without them: such words make no other problem."""

NEAR: Final = 0.6
"""How alike the words of two problems are, from 0 to 1, for one to be a hint at the other."""


@dataclass(frozen=True, kw_only=True)
class Pin:
    """One schedule: the problem and the machine that it is for, and how it was found.

    `value` is what `objective` came to, None where nothing was found out.
    """

    problem: str
    target: str
    cpu: str
    threads: int
    schedule: tuple[str, ...]
    objective: str = ""
    value: float | None = None

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What no other pin of a file has."""
        return self.problem, self.target, self.cpu, self.threads

    @property
    def kind(self) -> str:
        """Of which kind the machine is: cpu, cuda, tpu."""
        return self.target.split(":")[0]

    @property
    def place(self) -> tuple[str, str, str, int]:
        """What two pins have in common that are for the same problem on the same processor."""
        return self.problem, self.kind, self.cpu, self.threads

    def __str__(self) -> str:
        """What it is for, in words."""
        threads = f" with {self.threads} threads" if self.threads > 1 else ""
        cpu = "" if self.cpu in self.target else f" ({self.cpu})"
        return f"{self.problem} on {self.target}{cpu}{threads}"

    def lines(self) -> Iterator[str]:
        """The pin as TOML."""
        yield "[[pin]]"
        for name in ("problem", "target", "cpu"):
            yield f"{name} = {json.dumps(getattr(self, name))}"
        yield f"threads = {self.threads}"
        yield "schedule = ["
        yield from (f"  {json.dumps(step)}," for step in self.schedule)
        yield "]"
        if self.objective:
            yield f"objective = {json.dumps(self.objective)}"
        if self.value is not None:
            yield f"value = {self.value!r}"


@dataclass(frozen=True)
class Lock:
    """The pins of a file, in the order of their keys; `origin` is the file, for messages."""

    pins: tuple[Pin, ...] = ()
    origin: str = "the lock"

    @staticmethod
    def read(path: str | Path) -> Lock:
        """The pins in a file; `ParseError` GEM1418 where it cannot be read."""
        try:
            found = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise _unreadable(path, reason or str(error)) from error
        if found.get("version") != FORMAT:
            raise _unreadable(path, f"its version is {found.get('version')!r}, not {FORMAT}")
        return Lock(tuple(_pins(path, found)), str(path))

    def schedule(
        self, gemm: Gemm, target: str = HOST, threads: int | None = None
    ) -> Schedule | None:
        """The schedule of a problem, None where there is no pin for it.

        One that was tuned for the same CPU by its other name, `cpu` or `cpu:znver5`, is one for it
        too, if it fits. `threads` are as for `gemmir.lower`. Raises `ScheduleError` GEM1419 where
        the one that is pinned for `target` itself can no longer be lowered.
        """
        wanted = _key(gemm, target, threads)
        pins = [pin for pin in self.pins if pin.place == wanted.place]
        pin = next((pin for pin in pins if pin.target == target), next(iter(pins), None))
        if pin is None:
            return None
        try:
            chosen = Schedule.parse("\n".join(pin.schedule))
            lower(gemm, target, chosen)
        except (ScheduleError, BackendError, ProblemError) as error:
            if pin.target != target:
                return None
            raise ScheduleError(
                "GEM1419",
                f"{self.origin} has a schedule for {pin.problem} that no longer fits: "
                f"{error.code}: {error.message}",
                "tune again with --pin, or leave --lock out",
            ) from error
        return chosen

    def nearest(self, gemm: Gemm, target: str = HOST, threads: int | None = None) -> Pin | None:
        """The pin that is most like what `schedule` lacks: of the same problem for something else,
        or of the problem for the same kind of machine whose words are most alike; None without.
        """
        wanted = _key(gemm, target, threads)

        def likeness(pin: Pin) -> float:
            return SequenceMatcher(None, pin.problem, wanted.problem).ratio()

        of_kind = [pin for pin in self.pins if pin.kind == wanted.kind]
        same = [pin for pin in self.pins if pin.problem == wanted.problem]
        alike = [pin for pin in of_kind if likeness(pin) >= NEAR]
        ranked = sorted(
            same or alike,
            key=lambda pin: (pin.kind != wanted.kind, -likeness(pin), pin.cpu != wanted.cpu),
        )
        return next(iter(ranked), None)

    def with_pin(self, pin: Pin) -> Lock:
        """This with one more pin, or with another in the place of one."""
        others = [p for p in self.pins if p.key != pin.key]
        return replace(self, pins=tuple(sorted((*others, pin), key=lambda p: p.key)))

    def __str__(self) -> str:
        """The text of the file."""
        blocks = ["\n".join(pin.lines()) for pin in self.pins]
        return "\n\n".join([f"{HEAD}\nversion = {FORMAT}", *blocks]) + "\n"


def pin_of(
    gemm: Gemm,
    target: str,
    threads: int,
    schedule: Schedule,
    *,
    objective: str = "",
    value: float | None = None,
) -> Pin:
    """The pin of a schedule."""
    return Pin(
        problem=spelled(gemm),
        target=target,
        cpu=cpu_of(machine_for(target)),
        threads=threads,
        schedule=schedule.steps,
        objective=objective,
        value=value,
    )


def spelled(gemm: Gemm) -> str:
    """A problem as words: its fields that are not the default ones, nor say what is so anyway."""
    for name in IMPLIED:
        plain = replace(gemm, **{name: None})
        if plain.operands == gemm.operands:
            gemm = plain
    words: list[str] = []
    for field in fields(gemm):
        value = getattr(gemm, field.name)
        if field.name not in ALWAYS and field.default is not MISSING and value == field.default:
            continue
        words.append(f"{field.name}={'any' if isinstance(value, Unknown) else value}")
    return " ".join(words)


def cpu_of(machine: Machine) -> str:
    """The name of the processor that code for `machine` is made for."""
    return machine.name if isinstance(machine, TpuMachine) else machine.llvm_cpu


def threads_of(target: str, threads: int | None) -> int:
    """For how many threads a schedule is: the environment speaks of this computer."""
    return planned(threads) if target == HOST else threads or 1


def _key(gemm: Gemm, target: str, threads: int | None) -> Pin:
    """A pin without a schedule: what one would be for."""
    return pin_of(gemm, target, threads_of(target, threads), Schedule())


def _respelled(problem: str) -> str:
    """The words of a problem as they are written now; others as they are."""
    words = [word.partition("=") for word in problem.split()]
    given = {name: value for name, _, value in words}
    kinds = {field.name: str(field.type) for field in fields(Gemm)}
    try:
        return spelled(Gemm(**{n: _value(kinds[n], v) for n, v in given.items()}))
    except (KeyError, TypeError, ValueError, ProblemError):
        return problem


def _value(kind: str, word: str) -> Any:
    """The value of a field of `Gemm`, as `spelled` writes it."""
    if word == "any":
        return ANY
    if kind.startswith("bool"):
        return word == "True"
    if kind.startswith("float"):
        return float(word)
    return int(word) if kind.startswith("int") else word


def _pins(path: str | Path, found: Mapping[str, Any]) -> Iterator[Pin]:
    seen: set[tuple[str, str, str, int]] = set()
    entries: object = found.get("pin", [])
    if not isinstance(entries, list):
        raise _unreadable(path, "pin is no list: each begins with [[pin]]")
    for number, entry in enumerate(cast("list[dict[str, Any]]", entries), start=1):
        try:
            whole: dict[str, Any] = {**entry, "schedule": tuple(entry["schedule"])}
            pin = Pin(**whole)
        except (TypeError, KeyError) as error:
            raise _unreadable(path, f"pin {number}: {error}") from error
        wrong = [name for name, kinds in KINDS.items() if not isinstance(entry.get(name), kinds)]
        if wrong or not all(isinstance(step, str) for step in entry["schedule"]):
            name = wrong[0] if wrong else "schedule"
            raise _unreadable(path, f"pin {number}: {name} = {entry[name]!r}")
        if (respelled := replace(pin, problem=_respelled(pin.problem))).key not in seen:
            pin = respelled
        if pin.key in seen:
            raise _unreadable(path, f"pin {number} is there twice: {pin.problem} {pin.target}")
        seen.add(pin.key)
        yield pin


def _unreadable(path: str | Path, reason: str) -> ParseError:
    return ParseError(
        "GEM1418", f"the lock file {path} cannot be read: {reason}", "gemmir tune --pin writes one"
    )
