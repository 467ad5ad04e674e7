"""Whether one thing is faster than another, by how much, and how sure that is.

A repetition is a process, and processes differ: memory lies elsewhere, the machine is in another
state. Samples of one process are alike and no evidence of their own, so that each repetition counts
once, by the median of its samples (Georges, Buytaert, Eeckhout, Statistically Rigorous Java
Performance Evaluation, OOPSLA 2007; Kalibera, Jones, Rigorous Benchmarking in Reasonable Time, ISMM
2013). Logarithms of these medians are compared by Student's t: in pairs where both sides are in the
same blocks of one run, and by Welch's test between runs. With a single repetition there is only the
scatter of its samples: they are compared by Mann and Whitney's test, and the interval is
bootstrapped; differences between processes are then not known. Chances are corrected for the number
of comparisons by Holm's method.
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from gemmir.errors import CallError
from gemmir.search.experiments.modules import scipy_stats
from gemmir.search.experiments.plan import name_of
from gemmir.search.experiments.records import Cell, Run, status_of

Verdict = Literal["faster", "slower", "no difference seen"]
Method = Literal["paired t", "Welch's t", "Mann-Whitney"]

CONFIDENCE: Final = 0.95

RESAMPLES: Final = 2000
SEED: Final = 0
"""Of the bootstrap: the same numbers give the same interval."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """One side of a comparison: the median of all, and how many repetitions and samples there are.

    `by_repetition` has the median of each repetition by its number.
    """

    contestant: str
    seconds: float
    samples: tuple[float, ...]
    by_repetition: Mapping[int, float]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """`new` beside `old`, of one problem on one target.

    `ratio` is the time of `new` over that of `old`, with `interval` at the confidence that was
    asked for. `delta` is Cliff's: how much more often a sample of `new` is the longer one than the
    shorter one, from -1 to 1. `chance` is that of such a difference where there is none, corrected.
    """

    problem: str
    target: str
    old: Side
    new: Side
    ratio: float
    interval: tuple[float, float]
    delta: float
    chance: float
    method: Method
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        """This as plain values, for JSON."""
        sides = {
            side: {
                "contestant": of.contestant,
                "seconds": of.seconds,
                "repetitions": len(of.by_repetition),
                "samples": len(of.samples),
            }
            for side, of in (("old", self.old), ("new", self.new))
        }
        return asdict(self) | sides


@dataclass(frozen=True, kw_only=True)
class Change:
    """A figure that is not timed, or a status, which is not the same on both sides."""

    problem: str
    target: str
    contestant: str
    what: str
    old: float | str
    new: float | str
    unit: str = ""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Every pair that is on both sides, and what is on one side only.

    `control` is the geometric mean of the ratios of libraries and of the FMA peak, which gemmir
    does not change: how much slower the machine was. None where there are none, or in one run.
    """

    differences: tuple[Difference, ...]
    changes: tuple[Change, ...]
    only_old: tuple[str, ...]
    only_new: tuple[str, ...]
    control: float | None = None

    @property
    def mean_ratios(self) -> dict[str, float]:
        """The geometric mean of the ratios of each contestant, the least first."""
        ratios: dict[str, list[float]] = {}
        for difference in self.differences:
            ratios.setdefault(difference.new.contestant, []).append(difference.ratio)
        means = {name: statistics.geometric_mean(some) for name, some in ratios.items()}
        return dict(sorted(means.items(), key=lambda item: item[1]))

    def to_dict(self) -> dict[str, Any]:
        """This as plain values, for JSON."""
        return {
            "control": self.control,
            "differences": [difference.to_dict() for difference in self.differences],
            "changes": [asdict(change) for change in self.changes],
            "only_old": list(self.only_old),
            "only_new": list(self.only_new),
            "mean_ratios": self.mean_ratios,
        }


Key = tuple[str, str, str]
"""A problem, a target and a contestant."""


def compare_runs(
    old: Sequence[Cell], new: Sequence[Cell], *, confidence: float = CONFIDENCE
) -> Comparison:
    """Each contestant of a problem on a target with itself in another run."""
    before, after = _by_key(old), _by_key(new)
    both = [(key, key) for key in before if key in after]
    found = _compared(before, after, both, confidence, in_blocks=False)
    return replace(found, control=_control(_by_key(old, peaks=True), _by_key(new, peaks=True)))


MATTERS: Final = ("threads", "rounds", "warm_up_seconds", "sample_seconds")
"""Settings by which times of the same code differ."""


def unlike(old: Run, before: Sequence[Cell], new: Run, after: Sequence[Cell]) -> list[str]:
    """What of two runs makes their times those of other machines, or of another way to measure."""
    pairs = [(name, old.settings.get(name), new.settings.get(name)) for name in MATTERS]
    was, now = (", ".join(sorted({cell.cpu for cell in cells})) for cells in (before, after))
    if was and now:
        pairs.append(("cpu", was, now))
    return [f"{what} was {a} and is {b}" for what, a, b in pairs if a != b]


def compare_contestants(
    cells: Sequence[Cell], baseline: str, *, confidence: float = CONFIDENCE
) -> Comparison:
    """Each contestant of a run with `baseline`; `CallError` GEM1422 where that has no times."""
    there = _by_key(cells)
    names = list(dict.fromkeys(contestant for _, _, contestant in there))
    if baseline not in names:
        raise CallError(
            "GEM1422",
            f"no contestant that was measured is called {baseline}",
            f"use one of {', '.join(names)}" if names else "measure one first",
        )
    pairs = [
        ((problem, target, baseline), (problem, target, contestant))
        for problem, target, contestant in there
        if contestant != baseline and (problem, target, baseline) in there
    ]
    found = _compared(there, there, pairs, confidence, in_blocks=True)
    return replace(found, changes=(), only_old=(), only_new=())


def _control(old: Mapping[Key, Sequence[Cell]], new: Mapping[Key, Sequence[Cell]]) -> float | None:
    """The mean ratio of what gemmir does not change."""
    ratios: list[float] = []
    for key in old.keys() & new.keys():
        if old[key][0].point.candidate.kind != "schedule":
            sides = [_side(key, cells[key]) for cells in (old, new)]
            ratios += [b.seconds / a.seconds for a, b in [sides] if a and b]
    return _mean(ratios)


def _mean(ratios: Sequence[float]) -> float | None:
    """The geometric mean, None of nothing."""
    return statistics.geometric_mean(ratios) if ratios else None


def _by_key(cells: Sequence[Cell], *, peaks: bool = False) -> dict[Key, list[Cell]]:
    """Small problems first; without the peak, which is no contestant, unless `peaks`."""
    found: dict[Key, list[Cell]] = {}
    for cell in sorted(cells, key=lambda c: (c.point.problem.flops, name_of(c.point.problem))):
        point = cell.point
        if peaks or point.candidate.kind != "peak":
            key = (name_of(point.problem), point.target, point.candidate.name)
            found.setdefault(key, []).append(cell)
    return found


def _compared(
    before: Mapping[Key, Sequence[Cell]],
    after: Mapping[Key, Sequence[Cell]],
    pairs: Sequence[tuple[Key, Key]],
    confidence: float,
    *,
    in_blocks: bool,
) -> Comparison:
    differences: list[Difference] = []
    changes: list[Change] = []
    for was, now in pairs:
        old, new = _side(was, before[was]), _side(now, after[now])
        if old is not None and new is not None:
            made = _difference(now, old, new, confidence, in_blocks=in_blocks)
            differences.append(made)
        changes += _changes(now, before[was], after[now])
    return Comparison(
        differences=tuple(_judged(differences, confidence)),
        changes=tuple(changes),
        only_old=tuple(map(_named, before.keys() - after.keys())),
        only_new=tuple(map(_named, after.keys() - before.keys())),
    )


def _named(key: Key) -> str:
    problem, target, contestant = key
    return f"{contestant}: {problem} on {target}"


def _side(key: Key, cells: Sequence[Cell]) -> Side | None:
    """None where nothing was timed that is right."""
    timed = {
        cell.repetition: cell.seconds
        for cell in cells
        if cell.outcome.status == "ok" and cell.seconds
    }
    samples = tuple(s for seconds in timed.values() for s in seconds)
    if not samples:
        return None
    return Side(
        contestant=key[2],
        seconds=statistics.median(samples),
        samples=samples,
        by_repetition={number: statistics.median(s) for number, s in timed.items()},
    )


def _changes(key: Key, old: Sequence[Cell], new: Sequence[Cell]) -> list[Change]:
    problem, target, contestant = key
    was, now = status_of(old), status_of(new)

    def change(what: str, a: float | str, b: float | str, unit: str = "") -> Change:
        return Change(
            problem=problem,
            target=target,
            contestant=contestant,
            what=what,
            old=a,
            new=b,
            unit=unit,
        )

    found = [change("status", was, now)] if was != now else []
    before, after = (cells[0].outcome.figures or {} for cells in (old, new))
    return found + [
        change(name, before[name].value, after[name].value, after[name].unit)
        for name in before
        if name in after and before[name].value != after[name].value
    ]


def _difference(
    key: Key, old: Side, new: Side, confidence: float, *, in_blocks: bool
) -> Difference:
    """One comparison, whose chance is that of it alone, and whose verdict is open."""
    ratio, interval, chance, method = _tested(old, new, confidence, in_blocks=in_blocks)
    return Difference(
        problem=key[0],
        target=key[1],
        old=old,
        new=new,
        ratio=ratio,
        interval=interval,
        delta=_delta(old.samples, new.samples),
        chance=chance,
        method=method,
        verdict="no difference seen",
    )


Tested = tuple[float, tuple[float, float], float, Method]
"""The ratio of times, its interval, the chance of it, and by what method."""


def _tested(old: Side, new: Side, confidence: float, *, in_blocks: bool) -> Tested:
    blocks = sorted(old.by_repetition.keys() & new.by_repetition.keys())
    if in_blocks and len(blocks) > 1:
        logs = [math.log(new.by_repetition[b] / old.by_repetition[b]) for b in blocks]
        return (*_t(logs, None, confidence), "paired t")
    if min(len(old.by_repetition), len(new.by_repetition)) > 1:
        a, b = ([math.log(s) for s in side.by_repetition.values()] for side in (old, new))
        return (*_t(b, a, confidence), "Welch's t")
    return (*_of_samples(old.samples, new.samples, confidence), "Mann-Whitney")


def _t(
    logs: Sequence[float], others: Sequence[float] | None, confidence: float
) -> tuple[float, tuple[float, float], float]:
    """Student's t of logarithms against 0, or Welch's against `others`.

    Where nothing varies there is no chance in it: the difference is what it is.
    """
    stats = scipy_stats()
    shift = statistics.fmean(logs) - (0.0 if others is None else statistics.fmean(others))
    ratio = math.exp(shift)
    if len({*logs}) == 1 and (others is None or len({*others}) == 1):
        return ratio, (ratio, ratio), 0.0 if shift else 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found = (
            stats.ttest_1samp(logs, 0.0)
            if others is None
            else stats.ttest_ind(logs, others, equal_var=False)
        )
        low, high = found.confidence_interval(confidence)
    return ratio, (math.exp(low), math.exp(high)), float(found.pvalue)


def _of_samples(
    old: Sequence[float], new: Sequence[float], confidence: float
) -> tuple[float, tuple[float, float], float]:
    """The ratio of the medians of single processes."""
    stats = scipy_stats()
    ratio = statistics.median(new) / statistics.median(old)
    chance = float(stats.mannwhitneyu(new, old, alternative="two-sided").pvalue)
    if min(len(old), len(new)) < 2:
        return ratio, (0.0, math.inf), 1.0
    found = stats.bootstrap(
        (np.asarray(new), np.asarray(old)),
        _ratio_of_medians,
        confidence_level=confidence,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(SEED),
    )
    interval = found.confidence_interval
    return ratio, (float(interval.low), float(interval.high)), chance


def _ratio_of_medians(new: npt.NDArray[Any], old: npt.NDArray[Any], axis: int) -> Any:
    return np.median(new, axis=axis) / np.median(old, axis=axis)


def _delta(old: Sequence[float], new: Sequence[float]) -> float:
    """Cliff's: the part of all pairs in which `new` is longer, less that in which it is shorter."""
    ordered = np.sort(np.asarray(old))
    shorter = np.searchsorted(ordered, np.asarray(new), side="left").sum()
    not_longer = np.searchsorted(ordered, np.asarray(new), side="right").sum()
    pairs = len(old) * len(new)
    return float(shorter - (pairs - not_longer)) / pairs


def _judged(differences: Sequence[Difference], confidence: float) -> list[Difference]:
    """With chances that hold for all of them together, and verdicts."""
    chances = holm([difference.chance for difference in differences])
    found: list[Difference] = []
    for difference, chance in zip(differences, chances, strict=True):
        low, high = difference.interval
        verdict: Verdict = "no difference seen"
        if chance <= 1 - confidence and (high < 1 or low > 1):
            verdict = "faster" if high < 1 else "slower"
        found.append(replace(difference, chance=chance, verdict=verdict))
    return found


def holm(chances: Sequence[float]) -> list[float]:
    """Chances corrected for their number (Holm, Scandinavian Journal of Statistics 6, 1979)."""
    order = sorted(range(len(chances)), key=lambda i: chances[i])
    found, least = [0.0] * len(chances), 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, (len(chances) - rank) * chances[i]))
        found[i] = least
    return found
