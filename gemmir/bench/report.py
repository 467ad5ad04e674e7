"""What a run says: the best peer of each problem, geometric means, and bars met or missed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gemmir.bench.contestants import BOUND, FROM_PYTHON, GEMMIR, PEAK
from gemmir.bench.race import Race, Result
from gemmir.bench.suite import Bars, Class, Place, Suite, shape_of
from gemmir.gemm import Gemm

CALL_SECONDS: Final = 1e-6
"""What a prepared call may take longer than the machine code that it calls."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A figure beside its bar, which it has to reach, or with `most` may not exceed."""

    what: str
    value: float
    bar: float
    most: bool = False

    @property
    def is_met(self) -> bool:
        """Whether it does."""
        return self.value <= self.bar if self.most else self.value >= self.bar

    @property
    def cells(self) -> list[str]:
        """A line of the table of bars."""
        sign = "<=" if self.most else ">="
        met = "met" if self.is_met else "MISSED"
        return [self.what, f"{self.value:.3f}", f"{sign} {self.bar:g}", met]


def spelled(gemm: Gemm) -> str:
    """A problem in a few words, for a table."""
    batch = f"{gemm.batch} * " if gemm.batch is not None else ""
    words = [f"{batch}{gemm.m} x {gemm.n} x {gemm.k}", gemm.dtype]
    words += [f"x {gemm.dtype_b}"] if gemm.dtype_b not in (None, gemm.dtype) else []
    words += [f"/{gemm.weight_group}"] if gemm.weight_group is not None else []
    words += [f"-> {gemm.out}"] if gemm.out is not None else []
    words += ["A'"] if gemm.trans_a else []
    words += ["B'"] if gemm.trans_b else []
    words += [f"ld{x}={gemm.leading(x)}" for x in "abc" if getattr(gemm, f"ld{x}") is not None]
    words += [f"beta={gemm.beta:g}"] if gemm.beta else []
    return " ".join([*words, gemm.epilogue]).strip()


def geometric_mean(values: Sequence[float]) -> float:
    """NaN of nothing."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values else math.nan


def ratios(races: Sequence[Race]) -> list[float]:
    """The ratios of those that have one."""
    return [race.ratio for race in races if race.ratio is not None]


def verdicts(suite: Suite, found: Mapping[str, Sequence[Race]]) -> list[Verdict]:
    """Of each class its geometric mean, its worst problem and what calls cost; and of all."""
    all_of_them = [v for c in suite.classes for v in class_verdicts(c, found.get(c.name, []))]
    products = [r for c in suite.classes if c.kind == "product" for r in found.get(c.name, [])]
    if len(suite.classes) > 1 and ratios(products):
        mean = geometric_mean(ratios(products))
        all_of_them.append(Verdict(what="the suite", value=mean, bar=suite.bars.suite))
    return [*all_of_them, *_figures(suite, found)]


def _figures(suite: Suite, found: Mapping[str, Sequence[Race]]) -> list[Verdict]:
    """Those of problems that were measured; speeds are parts of the peak of their own race."""
    verdicts: list[Verdict] = []
    for figure in suite.figures:
        of = _part_of_peak(figure.of, found)
        over = 1.0 if figure.over is None else _part_of_peak(figure.over, found)
        if of is not None and over is not None:
            verdicts.append(Verdict(what=figure.what, value=of / over, bar=figure.least))
    return verdicts


def _part_of_peak(place: Place, found: Mapping[str, Sequence[Race]]) -> float | None:
    for race in found.get(place.class_, []):
        if shape_of(race.gemm) == place.shape and race.percent_of_peak is not None:
            return race.percent_of_peak / 100
    return None


def class_verdicts(of: Class, races: Sequence[Race]) -> list[Verdict]:
    """The geometric mean of a class and its worst problem, against their bars."""
    if of.kind == "calls":
        return [*_mean_and_worst(of, races), *_call_costs(races)]
    return _mean_and_worst(of, races)


def _mean_and_worst(of: Class, races: Sequence[Race]) -> list[Verdict]:
    pairs = [(race.ratio, race) for race in races if race.ratio is not None]
    if not pairs:
        return []
    least, worst = min(pairs, key=lambda pair: pair[0])
    return [
        Verdict(what=of.name, value=geometric_mean([r for r, _ in pairs]), bar=of.bars.class_),
        Verdict(
            what=f"{of.name}, worst: {spelled(worst.gemm)} by {worst.best_peer}",
            value=least,
            bar=of.bars.shape,
        ),
    ]


def _call_costs(races: Sequence[Race]) -> list[Verdict]:
    """Microseconds of a prepared call beside its machine code."""
    return [
        Verdict(
            what=f"prepared call over bare kernel, us: {spelled(race.gemm)}",
            value=1e6
            * (race.results[BOUND].seconds.seconds - race.results[GEMMIR].seconds.seconds),
            bar=1e6 * CALL_SECONDS,
            most=True,
        )
        for race in races
        if {BOUND, GEMMIR} <= set(race.results)
    ]


def others(races: Sequence[Race]) -> list[str]:
    """Everybody in a table but gemmir and the peak, whether with a result or wrong."""
    found = [n for race in races for n in (*race.results, *race.wrong) if n not in (race.own, PEAK)]
    return list(dict.fromkeys(found))


def columns(names: Sequence[str]) -> list[str]:
    """The head of the table of a class, which `cells` fills; `names` are the others in it."""
    marked = [f" {name}{'*' if name in FROM_PYTHON else ''}" for name in names]
    first = ["problem", " gemmir", " quartiles", " % of peak", " wall/CPU"]
    return [*first, *marked, "best peer", " ratio", ""]


def cells(race: Race, names: Sequence[str], bars: Bars) -> list[str]:
    """A line of the table: GFLOP/s of everybody, and the time of the best peer over gemmir's."""
    own = race.results.get(race.own)
    row = [
        spelled(race.gemm),
        *(["-", "", "", ""] if own is None else _own_cells(own, race.percent_of_peak)),
        *(_speed(race, name) for name in names),
        race.best_peer or "",
    ]
    value = race.ratio
    if value is None:
        return [*row, "", ""]
    return [*row, f"{value:.3f}", "" if value >= bars.shape else f"below {bars.shape:g}"]


def _own_cells(own: Result, peak: float | None) -> list[str]:
    lower, upper = (own.flops / s / 1e9 for s in (own.seconds.upper, own.seconds.lower))
    percent = "" if peak is None else f"{peak:.1f}"
    busy = f"{own.wall.seconds / own.cpu.seconds:.2f}"
    return [f"{own.gflops:.1f}", f"{lower:.1f} .. {upper:.1f}", percent, busy]


def _speed(race: Race, name: str) -> str:
    if name in race.wrong:
        return "wrong"
    return f"{race.results[name].gflops:.1f}" if name in race.results else "-"


def compared(found: Mapping[str, Sequence[Race]], old: Mapping[str, Any]) -> list[list[str]]:
    """Lines of a table: gemmir's GFLOP/s and ratio of each problem that an older file has, too.

    `old` is what such a file says. The last column is gemmir's speed over its old one, both as
    parts of the peak where there is one.
    """
    before: dict[str, Any] = {
        f"{name}: {entry['spelled']}": entry
        for name, entries in old.get("classes", {}).items()
        for entry in entries
    }
    rows: list[list[str]] = []
    for name, races in found.items():
        for race in races:
            entry = before.get(f"{name}: {spelled(race.gemm)}")
            own = race.results.get(race.own)
            if entry is None or own is None or race.own not in entry["results"]:
                continue
            rows.append(_change(race, own, entry))
    return rows


def _change(race: Race, own: Result, entry: Mapping[str, Any]) -> list[str]:
    was: float = entry["results"][race.own]["gflops"]
    peak, old_peak = race.percent_of_peak, entry["percent_of_peak"]
    change = peak / old_peak if peak and old_peak else own.gflops / was
    then, now = entry["ratio"], race.ratio
    return [
        spelled(race.gemm),
        f"{was:.1f}",
        f"{own.gflops:.1f}",
        "" if then is None else f"{then:.3f}",
        "" if now is None else f"{now:.3f}",
        f"{change:.3f}",
    ]


EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
WIDTH: Final = 40


def speeds_text(race: Race) -> list[str]:
    """A plot for a terminal: a line for each contestant, as long as it is fast."""
    names = [name for name in race.results if name != PEAK]
    most = max((result.gflops for result in race.results.values()), default=1.0)
    room = max(map(len, names), default=0)
    return [
        f"  {name:<{room}} {race.results[name].gflops:8.1f} "
        + bar(race.results[name].gflops / most)
        for name in names
    ]


def ratios_text(races: Sequence[Race]) -> list[str]:
    """A plot for a terminal: a line for each problem, half of the width where both are as fast."""
    room = max((len(spelled(race.gemm)) for race in races), default=0)
    return [
        f"  {spelled(race.gemm):<{room}} {race.ratio:6.3f} {bar(race.ratio / 2)}"
        for race in races
        if race.ratio is not None
    ]


def bar(part: float) -> str:
    """A bar that is `part` of `WIDTH` characters long, to an eighth of one."""
    eighths = round(max(0.0, min(part, 1.0)) * WIDTH * 8)
    whole, rest = divmod(eighths, 8)
    return "█" * whole + (EIGHTHS[rest] if rest else "")
