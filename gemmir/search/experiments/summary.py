"""What a run says of each of its points: a median, its quartiles, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gemmir.measure import Timing, timing_of
from gemmir.search.experiments.plan import Point, name_of
from gemmir.search.experiments.records import Cell, Figure, Status, status_of


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A point: `timing` is of all samples of all repetitions, None where nothing counts.

    `of_peak` is its speed as a part of the FMA peak's in the same run.
    """

    point: Point
    status: Status
    detail: str | None
    repetitions: int
    timing: Timing | None
    of_peak: float | None
    figures: Mapping[str, Figure]

    @property
    def gflops(self) -> float | None:
        """10^9 floating-point operations a second at the median."""
        return self.timing and self.timing.gflops(self.point.problem.flops)

    def to_dict(self) -> dict[str, Any]:
        """This as plain values, for JSON."""
        return {
            "problem": name_of(self.point.problem),
            "target": self.point.target,
            "contestant": self.point.candidate.name,
            "kind": self.point.candidate.kind,
            "schedule": self.point.schedule,
            "status": self.status,
            "detail": self.detail,
            "repetitions": self.repetitions,
            "timing": self.timing and asdict(self.timing),
            "gflops": self.gflops,
            "of_peak": self.of_peak,
            "figures": {name: asdict(figure) for name, figure in self.figures.items()},
        }


def summaries(cells: Sequence[Cell]) -> list[Summary]:
    """Each point that has a cell; problems in their order, and of each the fastest first."""
    by_point: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        by_point.setdefault(cell.point.words, []).append(cell)
    timings = {words: _timing(those) for words, those in by_point.items()}
    peaks = {
        _place(those[0].point): timing.seconds
        for words, those in by_point.items()
        if those[0].point.candidate.kind == "peak" and (timing := timings[words])
    }
    found = [
        _summary(those, timings[words], peaks.get(_place(those[0].point)))
        for words, those in by_point.items()
    ]
    return sorted(found, key=_order)


def _place(point: Point) -> tuple[str, str]:
    return name_of(point.problem), point.target


def _order(summary: Summary) -> tuple[Any, ...]:
    gemm, seconds = summary.point.problem, summary.timing and summary.timing.seconds
    last = seconds is None
    return (gemm.flops, name_of(gemm), summary.point.target, last, seconds or 0.0)


def _timing(cells: Sequence[Cell]) -> Timing | None:
    seconds = [s for cell in cells if cell.outcome.status == "ok" for s in cell.seconds]
    return timing_of(seconds) if seconds else None


def _summary(cells: Sequence[Cell], timing: Timing | None, peak: float | None) -> Summary:
    status = status_of(cells)
    details = [c.outcome.detail for c in cells if c.outcome.status == status and c.outcome.detail]
    return Summary(
        point=cells[0].point,
        status=status,
        detail=details[0] if details else None,
        repetitions=len(cells),
        timing=timing,
        of_peak=peak / timing.seconds if peak and timing else None,
        figures=cells[0].outcome.figures or {},
    )
