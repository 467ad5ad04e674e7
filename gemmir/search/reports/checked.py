"""The check of every stage of a job, on its own problem or on a smaller one by the same passes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from gemmir.check import Row, check
from gemmir.compiler import Job, prepare
from gemmir.errors import BackendError, GemmirError, ProblemError, ScheduleError
from gemmir.gemm import Gemm
from gemmir.passes.persist import Persist
from gemmir.passes.stream_k import StreamK
from gemmir.passes.vectorize import Vectorize
from gemmir.schedule import Schedule

FLOPS_OF_VECTORS: Final = 2_000_000
FLOPS_OF_BLOCKS: Final = 80_000_000
"""What takes about a second to evaluate: products of vectors, and those of whole tiles and blocks,
which are left to NumPy."""

WHOLE: Final = ("mxu", "wgmma", "mma")
"""Units that multiply whole tiles and blocks."""

MOST_TRIED: Final = 12

FEW_BLOCKS: Final = 3
"""Blocks that take all tiles in turn, where a problem is too small for as many as a GPU has."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What was found of the stages, by their names; `about` says of which problem, or why not."""

    about: str
    rows: Mapping[str, Row]

    @property
    def wrong(self) -> int:
        """Stages that are wrong."""
        return sum(not row.ok for row in self.rows.values())


def checked(
    job: Job, *, most_flops: int | None = None, seed: int = 0, say: Callable[[str], None]
) -> Checked:
    """Check `job` on the largest problem of at most `most_flops` that its passes are legal for."""
    problem = job.problem
    if problem is None:
        return Checked(about="Not checked: the text is a later stage.", rows={})
    chosen, about = job, "Checked on this very problem"
    if not (problem.unknown or problem.unknown_factors):
        most = _most_flops(job) if most_flops is None else most_flops
        found = smaller(job, problem, most)
        if found is None:
            return Checked(
                about=f"Not checked: of no problem of up to {most:,} flops are these passes legal.",
                rows={},
            )
        chosen, about = found
    say(f"checking {len(job.schedule) + 2} stages")
    report = check(chosen, seed=seed, shrink=False)
    return Checked(
        about=f"{about}, against {report.reference}, with random data of seed {seed}.",
        rows={row.name: row for row in report.rows},
    )


def _most_flops(job: Job) -> int:
    units = {p.with_ for p in job.schedule.passes if isinstance(p, Vectorize)}
    return FLOPS_OF_BLOCKS if units & set(WHOLE) else FLOPS_OF_VECTORS


def smaller(job: Job, problem: Gemm, most_flops: int) -> tuple[Job, str] | None:
    """A job by the passes of `job` that is small enough, and words about it; None without one."""
    if problem.flops <= most_flops:
        return job, "Checked on this very problem"
    few = _with_few_blocks(job.schedule)
    ways = [(job.schedule, "")]
    ways += [] if few == job.schedule else [(few, f", on {FEW_BLOCKS} blocks in place of more")]
    for schedule, but in ways:
        for less in _halved(problem, most_flops):
            try:
                chosen = prepare(less, job.target, schedule)
                chosen.lower()
            except (ScheduleError, BackendError, ProblemError):
                continue
            sizes = f"{less.m} x {less.n} x {less.k}"
            return chosen, f"Checked on a smaller problem by the same passes, {sizes}{but}"
    return None


def _with_few_blocks(schedule: Schedule) -> Schedule:
    """`schedule` on as many persistent blocks as small problems have tiles for."""
    return Schedule(
        tuple(
            dataclasses.replace(p, blocks=min(p.blocks, FEW_BLOCKS))
            if isinstance(p, Persist | StreamK)
            else p
            for p in schedule.passes
        )
    )


def _halved(problem: Gemm, most_flops: int) -> Iterator[Gemm]:
    """Problems of at most `most_flops`, the largest first: the longest side is halved."""
    sizes = {name: int(getattr(problem, name)) for name in "mnk"}
    tried = 0
    while max(sizes.values()) > 1 and tried < MOST_TRIED:
        longest = max(sizes, key=lambda name: sizes[name])
        sizes[longest] = -(-sizes[longest] // 2)
        try:
            smaller = dataclasses.replace(problem, **sizes)
        except GemmirError:
            continue
        if smaller.flops <= most_flops:
            tried += 1
            yield smaller
