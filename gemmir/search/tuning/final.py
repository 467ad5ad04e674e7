"""Who is the fastest: the best of a tune race again, in common rounds, until that is clear.

In every round all that are still in are timed once, in an order that is drawn; so whatever the
computer does meanwhile, it does to all of them. What counts is the ratio of two times of one round.
Its median has an interval by ranks (the order statistics of a binomial law), which takes nothing
for granted of how times are distributed. Who is slower than the best by more than `MARGIN`, even at
the near end of its interval, is out; the others are equals.

Of those equals whose median is within `MARGIN` too the winner is the default schedule if it is one
of them, for then there is no reason to change it; else the one with the fewest passes, then the
shortest text, then the first in the alphabet. So who wins among equals is no matter of luck.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from gemmir.errors import MismatchError
from gemmir.schedule import Schedule
from gemmir.search.trials import Outcome
from gemmir.search.tuning.libraries import stats
from gemmir.search.tuning.objective import Objective

MARGIN: Final = 0.01
"""Kernels whose speeds differ by less are equals: so much do two processes of one kernel differ."""

CONFIDENCE: Final = 0.99
"""Of each interval: there are about a dozen, and none should be wrong."""

NEAR: Final = 1.15
"""Who was not more than so many times slower than the best in its trial is in the race."""

MOST: Final = 12
"""Schedules in the race."""

ROUNDS: Final = 40

BLOCK: Final = 8
"""Rounds in which processes go on; then all get new ones. The interval of a median at this
confidence is finite from so many on."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How one schedule did: the median of its values, and of its ratio to the best, with intervals.

    Values that are static have intervals of no length.
    """

    schedule: str
    value: float
    interval: tuple[float, float]
    ratio: float
    ratio_interval: tuple[float, float]
    rounds: int

    def to_dict(self) -> dict[str, Any]:
        """This as plain values, for JSON."""
        return {
            "schedule": self.schedule,
            "value": self.value,
            "interval": list(self.interval),
            "ratio_to_best": self.ratio,
            "ratio_interval": list(self.ratio_interval),
            "rounds": self.rounds,
        }


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Who won, who are its equals (itself among them), how everybody did, and who failed."""

    winner: str
    tied: tuple[str, ...]
    standings: Mapping[str, Standing]
    failed: Mapping[str, Outcome]
    to_default: float | None
    to_default_interval: tuple[float, float] | None

    @property
    def is_tie(self) -> bool:
        """Whether the rule decided."""
        return len(self.tied) > 1


def finalists(values: Mapping[str, float], default: str | None, most: int = MOST) -> list[str]:
    """The schedules of trials that race again, the best first; the default one if it was tried."""
    best = min(values.values())
    near = [text for text, value in values.items() if value <= NEAR * best]
    found = sorted(near, key=lambda text: (values[text], text))[:most]
    return [*found, *(text for text in values if text == default and text not in found)]


def decide(
    objective: Objective,
    schedules: Sequence[str],
    default: str | None,
    *,
    seed: int,
    rounds: int = ROUNDS,
    watch: Callable[[int, int, int], None] = lambda block, blocks, left: None,
) -> Verdict:
    """Let `schedules` race, and the default one beside them, in at least so many rounds.

    Raises `MismatchError` GEM1416 where none of them is right any more.
    """
    order = np.random.default_rng(seed)
    times: dict[str, list[float]] = {}
    failed: dict[str, Outcome] = {}
    there = list(schedules)
    if default is not None and default not in there:
        there.append(default)
    blocks = max(-(-rounds // BLOCK), 1) if objective.is_measured else 1
    for block in range(blocks):
        watch(block, blocks, len(there))
        found, fallen = objective.race(there, BLOCK, order)
        failed |= fallen
        for text, some in found.items():
            times.setdefault(text, []).extend(some)
        there = [text for text in there if text not in failed]
        left = [text for text in there if text in schedules]
        if not left:
            raise MismatchError("GEM1416", *_none_left(failed))
        equals = _equals(left, times)
        there = [text for text in there if text in equals or text == default]
    return _verdict(there, schedules, default, times, failed)


def _none_left(failed: Mapping[str, Outcome]) -> tuple[str, str]:
    text, found = next(iter(failed.items()))
    return f"all have failed in the race, {text} first: {found.detail}", "run the tune again"


def _verdict(
    there: Sequence[str],
    schedules: Sequence[str],
    default: str | None,
    times: Mapping[str, Sequence[float]],
    failed: Mapping[str, Outcome],
) -> Verdict:
    left = [text for text in there if text in schedules]
    tied = _equals(left, times)
    best = _best(left, times)
    near = [text for text in tied if _ratio(text, best, times)[0] <= 1 + MARGIN]
    winner = min(near, key=lambda text: _rank(text, default))
    right = {text: some for text, some in times.items() if text not in failed}
    to_default = interval = None
    if default in right:
        to_default, interval = median_and_interval(_ratios(right[default], right[winner]))
    return Verdict(
        winner=winner,
        tied=tuple(sorted(tied, key=lambda text: _rank(text, default))),
        standings={text: _standing(text, right, best) for text in right},
        failed=failed,
        to_default=to_default,
        to_default_interval=interval,
    )


def _standing(text: str, times: Mapping[str, Sequence[float]], best: str) -> Standing:
    value, interval = median_and_interval(times[text])
    ratio, ratio_interval = _ratio(text, best, times)
    return Standing(
        schedule=text,
        value=value,
        interval=interval,
        ratio=ratio,
        ratio_interval=ratio_interval,
        rounds=len(times[text]),
    )


def _best(schedules: Sequence[str], times: Mapping[str, Sequence[float]]) -> str:
    """The one with the least median over the rounds that all of them have had."""
    return min(schedules, key=lambda text: (float(np.median(times[text])), text))


def _equals(schedules: Sequence[str], times: Mapping[str, Sequence[float]]) -> list[str]:
    """Who may be as fast as the best."""
    best = _best(schedules, times)
    return [text for text in schedules if _ratio(text, best, times)[1][0] <= 1 + MARGIN]


def _ratio(
    text: str, best: str, times: Mapping[str, Sequence[float]]
) -> tuple[float, tuple[float, float]]:
    """The median of the ratio to the best, and its interval."""
    return median_and_interval(_ratios(times[text], times[best]))


def _ratios(some: Sequence[float], others: Sequence[float]) -> list[float]:
    """Of the rounds that both have had: who is out has had the first ones only."""
    return [one / other for one, other in zip(some, others, strict=False)]


def _rank(text: str, default: str | None) -> tuple[bool, int, int, str]:
    """The fixed rule: the least wins."""
    return text != default, len(Schedule.parse(text)), len(text), text


def median_and_interval(values: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """The median, and its interval by ranks; all that was seen where there are too few."""
    middle = float(np.median(values))
    if len(set(values)) == 1:
        return middle, (middle, middle)
    if len(values) < BLOCK:
        return middle, (min(values), max(values))
    found = stats().quantile_test(values, q=0, p=0.5).confidence_interval(CONFIDENCE)
    return middle, (float(found.low), float(found.high))
