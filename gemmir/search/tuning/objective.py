"""What a tune makes small, and how it is found out: seconds that are measured on this computer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Protocol

import numpy as np

from gemmir.closing import Closing
from gemmir.search.trials import Outcome, Sample, Trials
from gemmir.search.trials.trials import AGAIN, Entry, KilledError

Rounds = Mapping[str, Sequence[float]]
"""The seconds of each schedule in common rounds, by its text."""


class Objective(Protocol):
    """Something of a schedule that is to be small; `is_measured` says that a clock told it.

    `device` is the GPU on which it did, "" for the CPU of this computer or where none did.
    """

    @property
    def name(self) -> str: ...

    @property
    def unit(self) -> str: ...

    @property
    def is_measured(self) -> bool: ...

    @property
    def device(self) -> str: ...

    def __enter__(self) -> Objective: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def trial(self, schedule: str, enough: float | None) -> Outcome:
        """Check a schedule and find its value; of one beyond `enough` roughly."""
        ...

    def race(
        self, schedules: Sequence[str], rounds: int, order: np.random.Generator
    ) -> tuple[Rounds, Mapping[str, Outcome]]:
        """The values of several in so many common rounds; who fails has none, and an outcome."""
        ...


class MeasuredSeconds(Closing):
    """Seconds of a call that a clock tells: of a CPU of this computer, or by events of its GPU."""

    unit = "s"
    is_measured = True

    def __init__(self, trials: Trials) -> None:
        self._trials = trials
        self.name = trials.place.clock
        self.device = trials.place.device

    def close(self) -> None:
        """End all processes."""
        self._trials.close()

    def trial(self, schedule: str, enough: float | None) -> Outcome:
        """In a process of its own."""
        return self._trials.run(schedule, enough=enough)

    def race(
        self, schedules: Sequence[str], rounds: int, order: np.random.Generator
    ) -> tuple[Rounds, Mapping[str, Outcome]]:
        """All at once, each in a process of its own; they take turns in an order that is drawn.

        Processes are new in every race, since where their memory lies is luck. If somebody else
        kills one of them all race again.
        """
        for _ in range(AGAIN):
            try:
                return self._race(schedules, rounds, order)
            except KilledError:
                continue
        killed = Outcome(status="crashed", detail=f"killed by others in {AGAIN} races")
        return {}, dict.fromkeys(schedules, killed)

    def _race(
        self, schedules: Sequence[str], rounds: int, order: np.random.Generator
    ) -> tuple[Rounds, Mapping[str, Outcome]]:
        times: dict[str, list[float]] = {text: [] for text in schedules}
        failed: dict[str, Outcome] = {}
        with ExitStack() as stack:
            entries = {text: stack.enter_context(self._entry(text)) for text in schedules}
            for text, entry in entries.items():
                entry.extend(self._trials.limits.seconds)
                found = entry.check()
                if not found.ok:
                    failed[text] = found
            for _ in range(rounds):
                for place in order.permutation(len(schedules)):
                    text = schedules[int(place)]
                    if text in failed:
                        continue
                    found = self._sampled(entries[text])
                    if isinstance(found, Outcome):
                        failed[text] = found
                    else:
                        times[text].append(found)
        return {t: s for t, s in times.items() if t not in failed}, failed

    def _entry(self, text: str) -> Entry:
        """A process; those for a GPU, which have all CPUs, compile at the same time."""
        entry = self._trials.entry(self._trials.contestant(text))
        if self.device:
            entry.begin()
        return entry

    def _sampled(self, entry: Entry) -> float | Outcome:
        entry.extend(self._trials.limits.seconds)
        found = entry.sample()
        if isinstance(found, Sample):
            return found.cpu if self._trials.threads == 1 else found.wall
        return found
