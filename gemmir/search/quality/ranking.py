"""How the cost model ranks schedules that were measured.

Of each problem: Kendall's tau-b and Spearman's rho of predicted and measured times, and regret@k,
how much slower than the best of all the best of those k is that the model likes best. Of a class
and of all: means over problems, and the worst one. A tau of 1 is the same order, 0 none.
"""

from __future__ import annotations

import importlib
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol, cast

from gemmir.bench.suite import shape_of
from gemmir.compiler import prepare
from gemmir.cost import predict_schedule
from gemmir.errors import MissingError, ParseError
from gemmir.gemm import Gemm
from gemmir.search.quality.measurements import Case, Measurements

TAKEN: Final = (1, 4, 8)
"""Of how many schedules that the model likes best regret is reported."""

FEWEST: Final = 3
"""Schedules of a problem of which an order says something."""


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """How the schedules of one problem are ranked; `ratio` is predicted over measured time."""

    class_: str
    problem: str
    schedules: int
    tau: float
    rho: float
    regret: Mapping[int, float]
    ratio: float
    ratio_spread: float
    speed_spread: float


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Means over problems, the worst tau and the largest regret."""

    name: str
    problems: int
    schedules: int
    tau: float
    worst_tau: float
    rho: float
    regret: Mapping[int, float]
    worst_regret: Mapping[int, float]
    ratio: float
    ratio_spread: float


@dataclass(frozen=True, kw_only=True)
class Quality:
    """The rankings of all problems of a machine, of each class, and of all."""

    target: str
    about: Mapping[str, Any]
    rankings: tuple[Ranking, ...]
    classes: tuple[Summary, ...]
    whole: Summary

    def to_dict(self) -> dict[str, Any]:
        """This as plain values, for JSON."""
        return asdict(self)


def quality(found: Measurements, say: Callable[[str], None] = lambda _: None) -> Quality:
    """Predict all that was measured; `say` is told after each problem.

    Raises `ParseError` GEM1453 where no problem has enough schedules.
    """
    rankings: list[Ranking] = []
    for number, case in enumerate(found.cases, 1):
        if len(case.measured) >= FEWEST:
            rankings.append(ranked(case, found.target))
        say(f"{number} of {len(found.cases)}: {case.class_} {shape_of(case.gemm)}")
    if not rankings:
        raise ParseError(
            "GEM1453",
            f"no problem of {found.target} has {FEWEST} measured schedules to rank",
            "measure more with gemmir cost measure --schedules",
        )
    names = dict.fromkeys(r.class_ for r in rankings)
    classes = tuple(summary(name, [r for r in rankings if r.class_ == name]) for name in names)
    return Quality(
        target=found.target,
        about=found.about,
        rankings=tuple(rankings),
        classes=classes,
        whole=summary("all", rankings),
    )


def ranked(case: Case, target: str) -> Ranking:
    """Predict the schedules of a problem, and compare with the medians that were measured."""
    predicted = [_predicted(case.gemm, m.schedule, target) for m in case.measured]
    measured = [m.seconds for m in case.measured]
    return ranking(case.class_, shape_of(case.gemm), predicted, measured)


def ranking(
    class_: str, problem: str, predicted: Sequence[float], measured: Sequence[float]
) -> Ranking:
    """The ranking by `predicted` times against the `measured` ones."""
    tau, rho = correlations(predicted, measured)
    ratios = [math.log(p / m) for p, m in zip(predicted, measured, strict=True)]
    return Ranking(
        class_=class_,
        problem=problem,
        schedules=len(measured),
        tau=tau,
        rho=rho,
        regret={k: regret(predicted, measured, k) for k in TAKEN},
        ratio=math.exp(statistics.median(ratios)),
        ratio_spread=math.exp(statistics.pstdev(ratios)),
        speed_spread=max(measured) / min(measured),
    )


def regret(predicted: Sequence[float], measured: Sequence[float], k: int) -> float:
    """How much longer the best of the `k` that are predicted to be fastest takes than the best."""
    order = sorted(range(len(measured)), key=lambda i: predicted[i])
    return min(measured[i] for i in order[:k]) / min(measured) - 1


class _Correlation(Protocol):
    statistic: float


class _Stats(Protocol):
    def kendalltau(self, x: Sequence[float], y: Sequence[float]) -> _Correlation: ...
    def spearmanr(self, x: Sequence[float], y: Sequence[float]) -> _Correlation: ...


def correlations(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Kendall's tau-b and Spearman's rho; 0 where one of both never changes."""
    stats = _stats()
    if len(set(x)) < 2 or len(set(y)) < 2:
        return 0.0, 0.0
    return float(stats.kendalltau(x, y).statistic), float(stats.spearmanr(x, y).statistic)


def _stats() -> _Stats:
    """SciPy's statistics; `MissingError` GEM1450 where it is not installed."""
    try:
        return cast("_Stats", importlib.import_module("scipy.stats"))
    except ImportError as error:
        raise MissingError(
            "GEM1450",
            "rank correlations need SciPy, which is not installed",
            "pip install 'gemmir[experiments]'",
        ) from error


def _predicted(gemm: Gemm, schedule: str, target: str) -> float:
    job = prepare(gemm, target, schedule)
    made = predict_schedule(job.source, job.schedule, job.machine)
    return made.seconds


def summary(name: str, rankings: Sequence[Ranking]) -> Summary:
    """The means over several problems, each counted once."""

    def mean(values: Iterator[float]) -> float:
        return statistics.fmean(values)

    return Summary(
        name=name,
        problems=len(rankings),
        schedules=sum(r.schedules for r in rankings),
        tau=mean(r.tau for r in rankings),
        worst_tau=min(r.tau for r in rankings),
        rho=mean(r.rho for r in rankings),
        regret={k: mean(r.regret[k] for r in rankings) for k in TAKEN},
        worst_regret={k: max(r.regret[k] for r in rankings) for k in TAKEN},
        ratio=math.exp(mean(math.log(r.ratio) for r in rankings)),
        ratio_spread=math.exp(mean(math.log(r.ratio_spread) for r in rankings)),
    )
