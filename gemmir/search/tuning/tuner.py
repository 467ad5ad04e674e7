"""A tune: trials of points of a space, a race of the best of them, and who won.

    request = Request(gemm=gemm, space=Space.read("my.space"), trials=64)
    found = tune(request, Path("my.study"), MeasuredSeconds(Trials(gemm)))
    found.verdict.winner, found.verdict.is_tie

The first trials are the default schedule and what the cost model likes best; then a sampler
proposes. Nothing illegal becomes a trial, and nothing wrong is timed. Whatever a trial does, the
tune goes on, and all that it has found is on disk before the next begins.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from gemmir.errors import ScheduleError
from gemmir.search.spaces import BoundSpace
from gemmir.search.tuning.final import Verdict, decide, finalists
from gemmir.search.tuning.found import Ended, Found, Progress, Request
from gemmir.search.tuning.objective import Objective
from gemmir.search.tuning.prior import default_text, first_points, guesses
from gemmir.search.tuning.proposer import Known, Proposal, Proposer
from gemmir.search.tuning.result import document
from gemmir.search.tuning.study import Row, Study

ENOUGH: Final = 2.0
"""Who is so many times slower than the best so far is timed once only."""


def tune(
    request: Request,
    path: Path,
    objective: Objective,
    *,
    resume: bool = False,
    about: Mapping[str, Any] | None = None,
    watch: Callable[[Progress], None] = lambda progress: None,
) -> Found:
    """Find the fastest schedule; `path` is the study, and `objective` what is to be small.

    `about` is put beside the result in the study.

    An interrupt ends it with what was found so far. Raises `ScheduleError` GEM1417 where no trial
    was right; and as `Study`, `Space.bind` and `decide` do.
    """
    space = request.space.bind(request.gemm, request.target)
    with ExitStack() as stack:
        stack.enter_context(objective)
        study = stack.enter_context(Study(path, request.plan(objective), resume=resume))
        found = _Tune(request, space, objective, study, watch).run()
        if found.verdict is not None:
            study.declare(document(found, objective, about or {}))
        return found


class _Tune:
    def __init__(
        self,
        request: Request,
        space: BoundSpace,
        objective: Objective,
        study: Study,
        watch: Callable[[Progress], None],
    ) -> None:
        self.request, self.space = request, space
        self.objective, self.study, self.watch = objective, study, watch
        self.default = default_text(space, request.threads)
        self.started = time.monotonic()
        self.spent = sum(row.outcome.took for row in study.rows if row.outcome is not None)

    def run(self) -> Found:
        """All trials that are missing, and then the race."""
        verdict: Verdict | None = None
        try:
            ended = self._trials()
            verdict = self._race(ended)
        except KeyboardInterrupt:
            ended = "interrupt"
        return Found(
            request=self.request,
            rows=self.study.rows,
            verdict=verdict,
            default=self.default,
            ended=ended,
            size=self.space.size,
        )

    def _trials(self) -> Ended:
        known = self._known()
        first = self._first(known)
        proposer = Proposer(self.space, self.request.sampler, self.request.seed, known)
        for row in self.study.rows:
            proposer.replay(row)
            if row.outcome is None:
                row = self._tried(row)
            proposer.told(row)
        while len(self.study.rows) < self.request.trials:
            if self._is_over():
                return "budget"
            number = len(self.study.rows)
            proposal = self._next(first, proposer)
            if proposal is None:
                return "space"
            row = Row(
                number=number,
                point=proposal.point,
                schedule=str(self.space.schedule(proposal.point)),
                source=proposal.source,
                asked=proposal.asked,
                refused=proposal.refused,
            )
            self.study.declare(None)
            self.study.begin(row, self.space.holes)
            proposer.told(self._tried(row))
        return "trials"

    def _known(self) -> list[Known]:
        """What the model knows, where it is asked."""
        if not self.request.prior:
            return []

        def told(done: int, of: int) -> None:
            self.watch(Progress(doing="asking the cost model", done=done, wanted=of, best=None))

        return guesses(self.space, self.request.threads, self.request.seed, told)

    def _first(self, known: Sequence[Known]) -> list[tuple[str, dict[str, int | str]]]:
        if not self.request.prior:
            return []
        return list(first_points(self.space, known, self.default, self.request.trials))

    def _next(
        self, first: list[tuple[str, dict[str, int | str]]], proposer: Proposer
    ) -> Proposal | None:
        """The next point of those to begin with that is legal and new, or of the sampler."""
        tried = [row.point for row in self.study.rows]
        refused: Counter[str] = Counter()
        while first:
            source, point = first.pop(0)
            if point in tried:
                continue
            reason = proposer.refusal(point)
            if reason is None:
                asked = proposer.asked
                return Proposal(point=point, source=source, asked=asked, refused=dict(refused))
            refused[reason] += 1
        return proposer.next()

    def _tried(self, row: Row) -> Row:
        best = self._best()
        self._say("trial", row=None)
        outcome = self.objective.trial(row.schedule, None if best is None else ENOUGH * best)
        self.study.finish(row, outcome)
        ended = self.study.rows[row.number]
        self._say("trial", row=ended)
        return ended

    def _best(self) -> float | None:
        return min(self._values().values(), default=None)

    def _values(self) -> dict[str, float]:
        """What was found of every schedule that is right."""
        found: dict[str, float] = {}
        for row in self.study.rows:
            value = row.value
            if value is not None:
                found[row.schedule] = value
        return found

    def _race(self, ended: Ended) -> Verdict:
        values = self._values()
        if not values:
            raise ScheduleError("GEM1417", *self._none_right(ended))

        def told(block: int, blocks: int, left: int) -> None:
            doing = f"race of the best, {left} left"
            best = self._best()
            self.watch(Progress(doing=doing, done=block, wanted=blocks, best=best))

        return decide(
            self.objective,
            finalists(values, self.default),
            self.default,
            seed=self.request.seed,
            rounds=self.request.race,
            watch=told,
        )

    def _none_right(self, ended: Ended) -> tuple[str, str]:
        """Why there is no winner, in numbers."""
        found: Counter[str] = Counter()
        for row in self.study.rows:
            if row.outcome is not None:
                found[f"{row.outcome.status}: {row.outcome.detail}"] += 1
        if not found and ended == "budget":
            return (
                f"the budget of {self.request.budget:g} s was over before the first trial",
                "give more seconds, or --no-prior, which does not ask the cost model first",
            )
        if not found:
            return "the space has no legal point", "gemmir space count says why"
        words, count = found.most_common(1)[0]
        return f"none of {found.total()} trials is right; {count} of them: {words}", (
            "gemmir check of one of them finds the pass that is at fault"
        )

    def _is_over(self) -> bool:
        budget = self.request.budget
        return budget is not None and self.spent + time.monotonic() - self.started > budget

    def _say(self, doing: str, row: Row | None) -> None:
        done = sum(row.outcome is not None for row in self.study.rows)
        wanted = self.request.trials
        self.watch(Progress(doing=doing, done=done, wanted=wanted, best=self._best(), row=row))
