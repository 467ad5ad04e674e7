"""What a run says: the best peer of each problem, geometric means, and bars met or missed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gemmir.bench.contestants import GEMMIR, PEAK
from gemmir.bench.race import Race, Result
from gemmir.bench.suite import Bars, Class, Suite
from gemmir.gemm import Gemm


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A figure beside the bar that it has to reach."""

    what: str
    value: float
    bar: float

    @property
    def is_met(self) -> bool:
        """Whether it is reached."""
        return self.value >= self.bar


def spelled(gemm: Gemm) -> str:
    """A problem in a few words, for a table."""
    batch = f"{gemm.batch} * " if gemm.batch is not None else ""
    words = [f"{batch}{gemm.m} x {gemm.n} x {gemm.k}", gemm.dtype]
    other = getattr(gemm, "dtype_b", None)
    words += [f"x {other}"] if other not in (None, gemm.dtype) else []
    words += [f"-> {gemm.out}"] if gemm.out is not None else []
    words += ["A'"] if gemm.trans_a else []
    words += ["B'"] if gemm.trans_b else []
    words += [f"ld{x}={gemm.leading(x)}" for x in "abc" if getattr(gemm, f"ld{x}") is not None]
    words += [f"beta={gemm.beta:g}"] if gemm.beta else []
    return " ".join([*words, gemm.epilogue]).strip()


def peers_of(race: Race) -> list[str]:
    """The libraries that have a result."""
    own = (GEMMIR, PEAK)
    return [n for n in race.results if n not in own and not n.startswith(f"{GEMMIR}:")]


def others_of(race: Race) -> list[str]:
    """Everybody but gemmir and the peak, whether they have a result or are wrong."""
    found = [*race.results, *race.wrong]
    return [name for name in found if name not in (GEMMIR, PEAK)]


def best_peer(race: Race) -> str | None:
    """The fastest of them, or None where there is none."""
    return min(peers_of(race), key=lambda n: race.results[n].seconds.seconds, default=None)


def figure(race: Race) -> float | None:
    """Time of the best peer over gemmir's; None where gemmir or every peer has no time."""
    best = best_peer(race)
    return None if best is None or GEMMIR not in race.results else race.ratio(best)


def geometric_mean(values: Sequence[float]) -> float:
    """NaN of nothing."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values else math.nan


def figures(races: Sequence[Race]) -> list[float]:
    """The figures of those that have one."""
    return [value for value in map(figure, races) if value is not None]


def class_verdicts(of: Class, races: Sequence[Race]) -> list[Verdict]:
    """The geometric mean of a class and its worst problem, against their bars."""
    if not figures(races):
        return []
    mean = geometric_mean(figures(races))
    worst = min((r for r in races if figure(r) is not None), key=lambda r: figure(r) or 0.0)
    return [
        Verdict(what=of.name, value=mean, bar=of.bars.class_),
        Verdict(
            what=f"{of.name}, worst: {spelled(worst.gemm)} by {best_peer(worst)}",
            value=figure(worst) or 0.0,
            bar=of.bars.shape,
        ),
    ]


def suite_verdict(suite: Suite, races: Sequence[Race]) -> Verdict | None:
    """The geometric mean of everything, where there is more than one class."""
    values = figures(races)
    if len(suite.classes) < 2 or not values:
        return None
    return Verdict(what="the suite", value=geometric_mean(values), bar=suite.bars.suite)


def columns(names: Sequence[str]) -> list[str]:
    """The head of the table of a class, which `cells` fills; `names` are the peers in it."""
    first = ["problem", " gemmir", " quartiles", " % of peak", " wall/CPU"]
    return [*first, *(f" {name}" for name in names), "best peer", " ratio", ""]


def cells(race: Race, names: Sequence[str], bars: Bars) -> list[str]:
    """A line of the table: GFLOP/s of everybody, and the time of the best peer over gemmir's."""
    own = race.results.get(GEMMIR)
    peak = race.percent_of_peak
    row = [
        spelled(race.gemm),
        *(["-", "", ""] if own is None else _own_cells(own, peak)),
        "" if own is None else f"{own.wall.seconds / own.cpu.seconds:.2f}",
    ]
    row += [_speed(race, name) for name in names]
    value = figure(race)
    if value is None:
        return [*row, best_peer(race) or "", "", ""]
    met = "" if value >= bars.shape else f"below {bars.shape:g}"
    return [*row, best_peer(race) or "", f"{value:.3f}", met]


def _own_cells(own: Result, peak: float | None) -> list[str]:
    lower, upper = (own.flops / s / 1e9 for s in (own.seconds.upper, own.seconds.lower))
    percent = "" if peak is None else f"{peak:.1f}"
    return [f"{own.gflops:.1f}", f"{lower:.1f} .. {upper:.1f}", percent]


def _speed(race: Race, name: str) -> str:
    if name in race.wrong:
        return "wrong"
    return f"{race.results[name].gflops:.1f}" if name in race.results else "-"


def bars_text(race: Race, width: int = 40) -> list[str]:
    """A plot for a terminal: a line for each contestant, as long as it is fast."""
    names = [name for name in race.results if name != PEAK]
    most = max((race.results[name].gflops for name in race.results), default=1.0)
    room = max(map(len, names), default=0)
    return [
        f"  {name:<{room}} {race.results[name].gflops:8.1f} "
        + bar(race.results[name].gflops / most, width)
        for name in names
    ]


EIGHTHS = " ▏▎▍▌▋▊▉█"


def bar(part: float, width: int) -> str:
    """A bar that is `part` of `width` characters long, to an eighth of one."""
    eighths = round(max(0.0, min(part, 1.0)) * width * 8)
    whole, rest = divmod(eighths, 8)
    return "█" * whole + (EIGHTHS[rest] if rest else "")
