"""What a tune tries first: the default schedule, and what the cost model likes best."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from gemmir.compiler import prepare
from gemmir.cost import predict_schedule
from gemmir.errors import GemmirError, ScheduleError
from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule import default_schedule
from gemmir.search.spaces import BoundSpace
from gemmir.search.tuning.proposer import Known

DRAWN: Final = 128
"""Points of a CPU that the model is asked about: a fraction of a second a dozen."""

DRAWN_OF_OTHERS: Final = 24
"""Those of a GPU or TPU, whose kernels have more IR."""

SHARE: Final = 4
"""One trial in so many is the model's."""


def guesses(
    space: BoundSpace, threads: int, seed: int, watch: Callable[[int, int], None]
) -> list[Known]:
    """Points of `space` that are legal, the fastest first, as far as the model knows."""
    try:
        count = DRAWN if isinstance(space.machine, CpuMachine) else DRAWN_OF_OTHERS
        drawn = space.sample(count, seed, lower=False)
    except ScheduleError:
        return []
    found: list[Known] = []
    for number, point in enumerate(drawn, start=1):
        seconds = predicted(space.gemm, space.target, str(space.schedule(point)), threads)
        if seconds is not None:
            found.append(Known(point=point, seconds=seconds))
        watch(number, len(drawn))
    return sorted(found, key=lambda known: known.seconds)


def predicted(gemm: Gemm, target: str, schedule: str, threads: int) -> float | None:
    """Seconds of a call by the cost model; None where the schedule is illegal."""
    try:
        job = prepare(gemm, target, schedule)
        found = predict_schedule(job.source, job.schedule, job.machine, threads=threads)
        return found.seconds
    except GemmirError:
        return None


def default_text(space: BoundSpace, threads: int) -> str | None:
    """The default schedule of the problem, None where the machine has none."""
    try:
        return str(default_schedule(space.gemm, space.machine, threads))
    except ScheduleError:
        return None


def first_points(
    space: BoundSpace, known: Sequence[Known], default: str | None, trials: int
) -> Iterator[tuple[str, dict[str, int | str]]]:
    """The points to begin with, and why: the default schedule where the space has it, then the
    model's, for a quarter of all trials."""
    point = None if default is None else space.point_of(default)
    if point is not None:
        yield "default", point
    for guess in known[: max(trials // SHARE, 1)]:
        if guess.point != point:
            yield "model", guess.point
