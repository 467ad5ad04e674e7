"""Which point is tried next: an Optuna sampler, asked in memory until its answer is legal and new.

What it answers depends on the seed, on how often it was asked and on what it was told, and on
nothing else: after each question it is given another seed, made of these two. A study that is gone
on with is told all of its rows again, and then asks for what it would have asked for anyway.

The numbers of a hole are places in the list of its values, in their order, so that a sampler sees
16 between 8 and 32; words have none. Who asks in vain for so many points gets a legal one by
chance, and once there is none that is new the search is at its end.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from gemmir.search.spaces import BoundSpace
from gemmir.search.tuning.libraries import optuna
from gemmir.search.tuning.study import Point, Row

Sampler = Literal["tpe", "random", "cmaes", "grid"]
SAMPLERS: Final[tuple[Sampler, ...]] = ("tpe", "random", "cmaes", "grid")

MOST_ASKED: Final = 64
"""Points that a sampler may propose in vain before chance decides."""

BY_CHANCE: Final = "chance"
"""The source of a point that no sampler has proposed."""

MOST_OF_A_GRID: Final = 20_000
"""Points of a grid; of a larger space it leaves out values in the middle of the longest holes."""

FAILED: Final = math.inf
"""What a sampler is told of a trial that is not ok: nothing is slower."""


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A point to be tried next, who proposed it, and what was refused on the way."""

    point: Point
    source: str
    asked: int
    refused: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Known:
    """A point whose seconds are known, or guessed by a model."""

    point: Point
    seconds: float


class Proposer:
    """Proposes points of `space`; `guesses` are told to a sampler that can begin with them."""

    def __init__(
        self, space: BoundSpace, sampler: Sampler, seed: int, guesses: Sequence[Known] = ()
    ) -> None:
        self._space, self._name, self._seed = space, sampler, seed
        self._values = {n: v for n, v in space.holes.items() if len(v) > 1}
        self._tried: set[str] = set()
        self._refusals: dict[str, str | None] = {}
        self._asked = 0
        library = optuna()
        self._library = library
        self._params = _Params(self._values, library)
        self._guesses = [self._params.numbers_only(g.point, g.seconds) for g in guesses]
        self._grid = self._make_grid() if sampler == "grid" else None
        self._study = library.create_study(sampler=self._sampler())
        self._open: Any = None

    def next(self) -> Proposal | None:
        """What to try next; None where every legal point was tried."""
        refused: Counter[str] = Counter()
        for _ in range(MOST_ASKED):
            if self._is_exhausted():
                break
            point = self._ask()
            reason = self.refusal(point)
            if reason is None and _key(point) not in self._tried:
                return self._proposal(point, self._name, refused)
            if reason is not None:
                refused[reason] += 1
            self._refuse()
        if self._grid is not None:
            return self._after_grid(refused)
        found = self._by_chance()
        return None if found is None else self._proposal(found, BY_CHANCE, refused)

    def told(self, row: Row) -> None:
        """Learn what came of a trial: of one that was proposed here, or of any other."""
        assert row.outcome is not None
        self._tried.add(_key(row.point))
        seconds = row.outcome.value
        value = FAILED if seconds is None else seconds
        if row.source == self._name and self._open is not None:
            self._end(values=value)
        else:
            self._study.add_trial(self._params.trial(row.point, value))

    def replay(self, row: Row) -> None:
        """Be where it was when `row` had been proposed; `told` comes next."""
        while self._asked < row.asked and not self._is_exhausted():
            if self._open is not None:
                self._refuse()
            self._ask()
        if row.source != self._name and self._open is not None:
            self._refuse()
        self._tried.add(_key(row.point))

    def refusal(self, point: Point) -> str | None:
        """Why a point is illegal, None where it is legal."""
        key = _key(point)
        if key not in self._refusals:
            found = self._space.refusal(point)
            self._refusals[key] = None if found is None else found.reason
        return self._refusals[key]

    @property
    def asked(self) -> int:
        """How often the sampler was asked."""
        return self._asked

    def _proposal(self, point: Point, source: str, refused: Mapping[str, int]) -> Proposal:
        return Proposal(point=point, source=source, asked=self._asked, refused=dict(refused))

    def _ask(self) -> Point:
        self._asked += 1
        self._study.sampler = self._sampler()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._open = self._study.ask(self._params.distributions)
        return self._params.point(self._open.params, self._space.holes)

    def _refuse(self) -> None:
        self._end(state=self._library.trial.TrialState.PRUNED)

    def _end(self, **found: Any) -> None:
        """End the open question. The sampler of a grid would stop an optimisation that is none."""
        if self._grid is not None:
            self._study.sampler = self._library.samplers.RandomSampler()
        self._study.tell(self._open, **found)
        self._open = None

    def _is_exhausted(self) -> bool:
        return self._grid is not None and self._sampler().is_exhausted(self._study)

    def _after_grid(self, refused: Mapping[str, int]) -> Proposal | None:
        """A grid goes on as long as it has points, and ends then."""
        if self._is_exhausted():
            return None
        later = self.next()
        if later is None:
            return None
        both = Counter(refused) + Counter(later.refused)
        return self._proposal(later.point, later.source, both)

    def _by_chance(self) -> Point | None:
        """A legal point that was not tried, by a draw of its own."""
        count = len(self._tried) + 1
        seed = self._seed_now()
        for point in self._space.sample(count, seed):
            if _key(point) not in self._tried:
                return point
        return None

    def _sampler(self) -> Any:
        """The sampler for the next question."""
        samplers, seed = self._library.samplers, self._seed_now()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if self._name == "random":
                return samplers.RandomSampler(seed=seed)
            if self._name == "tpe":
                return samplers.TPESampler(seed=seed)
            if self._name == "cmaes":
                return samplers.CmaEsSampler(
                    seed=seed,
                    source_trials=self._guesses or None,
                    warn_independent_sampling=False,
                )
            return samplers.GridSampler(self._grid, seed=self._seed)

    def _seed_now(self) -> int:
        digest = hashlib.sha256(f"{self._seed} {self._asked}".encode()).digest()
        return int.from_bytes(digest[:4], "big") >> 1

    def _make_grid(self) -> dict[str, list[int]]:
        """Places of the values of every hole, fewer of the longest where there are too many."""
        found = {name: list(range(len(values))) for name, values in self._values.items()}
        while math.prod(map(len, found.values())) > MOST_OF_A_GRID:
            name = max(found, key=lambda n: len(found[n]))
            places = found[name]
            found[name] = [p for number, p in enumerate(places) if number % 2 == 0]
        return found


@dataclass(frozen=True)
class _Params:
    """Points as a sampler sees them."""

    values: Mapping[str, Sequence[int | str]]
    library: Any
    distributions: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        kinds = self.library.distributions
        found: dict[str, Any] = {}
        for name, values in self.values.items():
            places = range(len(values))
            is_ordered = all(isinstance(v, int) for v in values)
            found[name] = (
                kinds.IntDistribution(0, len(values) - 1)
                if is_ordered
                else kinds.CategoricalDistribution(list(places))
            )
        object.__setattr__(self, "distributions", found)

    def _ordered(self, name: str) -> list[int | str]:
        """Numbers in their order, words as they are given."""
        values = list(self.values[name])
        return sorted(values) if all(isinstance(v, int) for v in values) else values

    def point(self, params: Mapping[str, int], holes: Mapping[str, Sequence[int | str]]) -> Point:
        """The point of what a sampler has chosen; of holes with one value there is no choice."""
        return {
            name: self._ordered(name)[params[name]] if name in self.values else values[0]
            for name, values in holes.items()
        }

    def trial(self, point: Point, value: float) -> Any:
        """A trial that is done."""
        return self._trial(point, value, self.distributions)

    def numbers_only(self, point: Point, value: float) -> Any:
        """The same without words, of which CMA-ES knows nothing."""
        kind = self.library.distributions.IntDistribution
        kept = {name: d for name, d in self.distributions.items() if isinstance(d, kind)}
        return self._trial(point, value, kept)

    def _trial(self, point: Point, value: float, distributions: Mapping[str, Any]) -> Any:
        return self.library.trial.create_trial(
            params={name: self._ordered(name).index(point[name]) for name in distributions},
            distributions=dict(distributions),
            value=value,
        )


def _key(point: Point) -> str:
    return repr(sorted(point.items()))
