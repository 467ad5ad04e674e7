"""Points by chance, and how many there are: what goes over all of a bound space, or part of it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Final

from gemmir.errors import ScheduleError
from gemmir.search.spaces.legality import Census, Refusal
from gemmir.search.spaces.walk import Point, Refused

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy

    from gemmir.search.spaces.bound import BoundSpace

PATIENCE: Final = 50_000
"""What drawing may cost for one more point before all points are gone through instead: 1 for a rule
of the space that is broken, and for the others as `COST` has it, by the time that they take."""

COST: Final = {"rules": 1, "checks": 10, "lowering": 500}

MOST_VISITED: Final = 1_000_000
"""Points and branches that are gone through to find those that hold the rules."""

Progress = Callable[[int], None]


def whole_census(space: BoundSpace, lower: bool, most: int, progress: Progress) -> Census | None:
    """Every point counted; None where more than `most` hold the rules of the space."""
    refused: Counter[str] = Counter()
    legal = examined = 0
    for found in space.tree.walk():
        if isinstance(found, Refused):
            refused[found.reason] += found.points
            progress(found.points)
            continue
        examined += 1
        if examined > most:
            return None
        refusal = space.refusal_of(found, lower=lower)
        legal += refusal is None
        if refusal is not None:
            refused[refusal.reason] += 1
        progress(1)
    return Census(
        size=space.size,
        examined=space.size,
        legal=legal,
        refused=dict(refused.most_common()),
        lowered=lower,
    )


def drawn_census(
    space: BoundSpace, lower: bool, most: int, seed: int, progress: Progress
) -> Census:
    """`most` points counted, drawn from all."""
    refused: Counter[str] = Counter()
    legal = 0
    for index in islice(shuffled(random.Random(seed), space.size), most):
        refusal = space.refusal(space.at(index), lower=lower)
        legal += refusal is None
        if refusal is not None:
            refused[refusal.reason] += 1
        progress(1)
    return Census(
        size=space.size,
        examined=min(most, space.size),
        legal=legal,
        refused=dict(refused.most_common()),
        lowered=lower,
    )


def shuffled(chance: random.Random, size: int) -> Iterator[int]:
    """The numbers below `size` in random order, with no more memory than was drawn.

    Fisher and Yates's shuffle, of which only the places that differ are kept.
    """
    moved: dict[int, int] = {}
    for place in range(size):
        other = chance.randrange(place, size)
        yield moved.get(other, other)
        moved[other] = moved.pop(place, place)


def sample(space: BoundSpace, count: int, seed: int, *, lower: bool) -> list[Point]:
    """See `BoundSpace.sample`."""
    chance = random.Random(seed)
    drawn = (space.at(index) for index in shuffled(chance, space.size))
    search = _Search(space=space, wanted=count, lower=lower)
    if not search.through(drawn):
        search.through(_rest(search, chance))
    if count and not search.found:
        raise search.failed("none of them is")
    return search.found


class _Search:
    """Legal points among those that come, until there are enough or it takes too long."""

    def __init__(self, *, space: BoundSpace, wanted: int, lower: bool) -> None:
        self.space = space
        self.wanted = wanted
        self.lower = lower
        self.found: list[Point] = []
        self.reasons: Counter[str] = Counter()

    def through(self, points: Iterator[Point]) -> bool:
        """Take what is legal of `points`; False where it took too long to find one more."""
        spent = 0
        while len(self.found) < self.wanted:
            point = next(points, None)
            if point is None:
                return True
            refusal, cost = self._asked(point)
            if refusal is None:
                self.found.append(point)
                spent = 0
                continue
            self.reasons[refusal.reason] += 1
            spent += cost
            if spent > PATIENCE:
                return False
        return True

    def _asked(self, point: Point) -> tuple[Refusal | None, int]:
        """Why a point is illegal, and what it has cost to find out."""
        if isinstance(self.space.tree.names(point), str):
            return self.space.refusal(point, lower=False), COST["rules"]
        refusal = self.space.refusal(point, lower=False)
        if refusal is not None or not self.lower:
            return refusal, COST["checks"]
        return self.space.refusal(point), COST["lowering"]

    def failed(self, how_many: str) -> ScheduleError:
        """GEM1405: what was looked at, and why it was refused."""
        looked = len(self.found) + self.reasons.total()
        shown = "; ".join(f"{n} by {reason}" for reason, n in self.reasons.most_common(3))
        return ScheduleError(
            "GEM1405",
            f"of {self.space.size} points {looked} were looked at, and {how_many} legal: {shown}",
            "loosen what refuses most of them, or give holes fewer values",
        )


def _rest(search: _Search, chance: random.Random) -> Iterator[Point]:
    """All points that hold the rules in random order, but for those that were found."""
    space = search.space
    visited = [*islice(space.tree.walk(), MOST_VISITED + 1)]
    if len(visited) > MOST_VISITED:
        raise search.failed(f"too few, {len(search.found)}, are")
    rest = [space.point(names) for names in visited if not isinstance(names, Refused)]
    chance.shuffle(rest)
    known = {tuple(point.values()) for point in search.found}
    return (point for point in rest if tuple(point.values()) not in known)


def strategy(space: BoundSpace, *, lower: bool) -> SearchStrategy[Point]:
    """See `BoundSpace.strategy`. In place of a value with which no point holds the rules the next
    one is taken with which some point does."""
    import hypothesis.strategies as st

    @st.composite
    def points(draw: DrawFn) -> Point:
        chosen: Point = {}
        for name, values in space.holes.items():
            place = values.index(draw(st.sampled_from(values)))
            turned = (*values[place:], *values[:place])
            possible = (v for v in turned if space.tree.may_go_on({**chosen, name: v}))
            chosen[name] = next(possible, values[0])
        return chosen

    def is_legal(point: Mapping[str, int | str]) -> bool:
        return space.refusal(point, lower=lower) is None

    return points().filter(is_legal)
