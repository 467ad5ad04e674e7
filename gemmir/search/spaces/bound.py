"""A space for one problem on one machine: its points, which of them are legal, and why others are
not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property, partial
from itertools import islice
from typing import TYPE_CHECKING, Final

from gemmir.errors import ScheduleError
from gemmir.gemm import Gemm
from gemmir.machine import Machine
from gemmir.schedule import Schedule
from gemmir.search.spaces import drawing
from gemmir.search.spaces.domain import Choice, values_of
from gemmir.search.spaces.expression import Names, UndefinedError, Value
from gemmir.search.spaces.legality import (
    Census,
    Refusal,
    refused_by_checks,
    refused_by_lowering,
)
from gemmir.search.spaces.names import numbers_of
from gemmir.search.spaces.spelling import Spelling
from gemmir.search.spaces.text import Let, Passes, SpaceText, Where
from gemmir.search.spaces.walk import Point, Refused, Step, Tree

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

REPEATED: Final = "the same schedule again: it does not use a hole that has not its first value"
"""Two points may spell one schedule, where a hole stands in passes that they do not have."""

MOST_EXAMINED: Final = 200_000
"""Up to this many points are examined one by one to count them."""

READ_POINTS: Final = 64
VISITED: Final = 10_000
"""So many points are read, of so many that are gone through, to see that each line can be read."""


@dataclass(frozen=True, kw_only=True)
class BoundSpace:
    """A space for one problem on one machine; `Space.bind` makes it.

    A point is a dict with a value for every hole. It is legal where `refusal` has nothing against
    it: with `lower=True` it was lowered; without, the rules of the space were asked, whether the
    schedule can be read, and `check_fits`.
    """

    parsed: SpaceText
    gemm: Gemm
    target: str
    machine: Machine

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_lines()

    @cached_property
    def numbers(self) -> Mapping[str, int]:
        """The numbers of the problem and the machine, by the names that a space calls them."""
        return numbers_of(self.gemm, self.machine)

    @cached_property
    def holes(self) -> Mapping[str, tuple[Choice, ...]]:
        """The values of every hole, the one to begin with first."""
        return {
            hole.name: values_of(hole.name, hole.terms, self.numbers, hole.line)
            for hole in self.parsed.holes
        }

    @property
    def size(self) -> int:
        """All points, legal or not."""
        return self.tree.size

    @property
    def first(self) -> Point:
        """The first value of every hole: where searches begin. It need not be legal."""
        return {name: values[0] for name, values in self.holes.items()}

    @property
    def rules(self) -> tuple[str, ...]:
        """What a point must hold, as it is written and counted."""
        return tuple(str(rule) for rule in self.parsed.rules if isinstance(rule, Where))

    def text(self, point: Mapping[str, Choice]) -> str:
        """The schedule of a point, as lines of passes.

        Raises `ScheduleError` GEM1404 where it is no point of this space, or where a number that
        stands in its schedule does not exist.
        """
        names: dict[str, Value] = {**self.numbers, **self.checked(point)}
        try:
            for let in self.spelling.lets.values():
                names[let.name] = let.expression.evaluate(names)
            return "\n".join(self.spelling.lines(names))
        except UndefinedError as error:
            raise ScheduleError(
                "GEM1404",
                f"the schedule of {_shown(point)} cannot be spelled: {error}",
                "`refusal` says which points are legal",
            ) from None

    def schedule(self, point: Mapping[str, Choice]) -> Schedule:
        """The schedule of a point; raises as `text` and `Schedule.parse` do."""
        return Schedule.parse(self.text(point))

    # What is legal --------------------------------------------------------------------------------

    def refusal(self, point: Mapping[str, Choice], *, lower: bool = True) -> Refusal | None:
        """Why `point` is illegal, None if it is legal.

        Where it has a code that is what `gemmir.lower` says of the schedule. Raises `ScheduleError`
        GEM1404 where it is no point of this space.
        """
        chosen = self.checked(point)
        names = self.tree.names(chosen)
        if isinstance(names, str):
            return Refusal(reason=names, message=f"{_shown(chosen)}: {names}")
        return self.refusal_of(names, lower=lower)

    def points(self, *, lower: bool = False) -> Iterator[Point]:
        """All legal points in the order of their values."""
        for found in self.tree.walk():
            if not isinstance(found, Refused) and self.refusal_of(found, lower=lower) is None:
                yield self.point(found)

    def count(
        self,
        *,
        lower: bool = False,
        most: int = MOST_EXAMINED,
        seed: int = 0,
        progress: Callable[[int], None] = lambda points: None,
    ) -> Census:
        """How many points are legal, and how many are not for each reason.

        Where more than `most` points hold the rules of the space, so many of all points are drawn.
        `progress` is told of how many points more it is known.
        """
        found = drawing.whole_census(self, lower, most, progress)
        return drawing.drawn_census(self, lower, most, seed, progress) if found is None else found

    def sample(self, count: int, seed: int = 0, *, lower: bool = True) -> list[Point]:
        """`count` different legal points, all of which are as likely; fewer if there are no more.

        The same seed gives the same points. Raises `ScheduleError` GEM1405 where none is legal, or
        too few of too many are to find so many.
        """
        return drawing.sample(self, count, seed, lower=lower)

    def strategy(self, *, lower: bool = True) -> SearchStrategy[Point]:
        """A strategy of Hypothesis that draws legal points, and shrinks to the first values."""
        return drawing.strategy(self, lower=lower)

    def neighbours(self, point: Mapping[str, Choice], *, lower: bool = False) -> Iterator[Point]:
        """The legal points one step away: the next number of a hole, or any of its other words."""
        here = self.checked(point)
        for name, values in self.holes.items():
            for value in _near(here[name], values):
                other = {**here, name: value}
                if self.refusal(other, lower=lower) is None:
                    yield other

    def point_of(self, schedule: Schedule | str) -> Point | None:
        """A point that holds the rules of this space and spells `schedule`, if there is one."""
        wanted = Schedule.parse(schedule) if isinstance(schedule, str) else schedule
        passes = frozenset(wanted.passes)
        steps = [list(steps) for steps in self.tree.steps]
        for line in self.parsed.passes:
            reached = self.spelling.reached(line)
            depths = [depth for depth, name in enumerate(self.holes, 1) if name in reached]
            steps[max(depths, default=0)].append(partial(self._lacks, line, passes))
        for found in Tree(holes=self.holes, numbers=self.numbers, steps=steps).walk():
            if not isinstance(found, Refused) and self.spelling.read(found) == wanted:
                return self.point(found)
        return None

    def _lacks(self, line: Passes, wanted: frozenset[object], names: Names) -> str | None:
        """Says so where a line has a pass that is not `wanted`."""
        found = self.spelling.passes(line, names)
        return None if not isinstance(found, Refusal) and wanted.issuperset(found) else "another"

    # How points are made --------------------------------------------------------------------------

    @cached_property
    def spelling(self) -> Spelling:
        """How points are spelled."""
        return Spelling(parsed=self.parsed)

    @cached_property
    def tree(self) -> Tree:
        """The holes, and every rule where all that it needs is there."""
        depths = {name: number for number, name in enumerate(self.holes, 1)}
        steps: list[list[Step]] = [[] for _ in range(len(self.holes) + 1)]
        for rule in self.parsed.rules:
            depth = max((depths.get(name, 0) for name in rule.expression.names), default=0)
            if isinstance(rule, Let):
                depths[rule.name] = depth
            steps[depth].append(_step(rule))
        return Tree(holes=self.holes, numbers=self.numbers, steps=steps)

    def point(self, names: Names) -> Point:
        """The values of the holes among all names."""
        chosen: Point = {}
        for name in self.holes:
            value = names[name]
            assert isinstance(value, int | str)
            chosen[name] = value
        return chosen

    def at(self, index: int) -> Point:
        """The point with a number below `size`, counted in the order of the values."""
        chosen: Point = {}
        for name in reversed(tuple(self.holes)):
            index, place = divmod(index, len(self.holes[name]))
            chosen[name] = self.holes[name][place]
        return {name: chosen[name] for name in self.holes}

    def checked(self, point: Mapping[str, Choice]) -> Point:
        """`point` in the order of the holes; `ScheduleError` GEM1404 where it is none of these."""
        for name in point:
            if name not in self.holes:
                near = get_close_matches(name, [*self.holes], n=1, cutoff=0.0)
                known = ", ".join(f"?{hole}" for hole in self.holes) or "none"
                raise ScheduleError(
                    "GEM1404",
                    f"the space has no hole ?{name}; its holes are {known}",
                    f"use ?{near[0]}" if near else "give an empty point",
                )
        for name, values in self.holes.items():
            if name not in point:
                raise ScheduleError(
                    "GEM1404", f"the point says nothing of ?{name}", f"add {name}={values[0]}"
                )
            if point[name] not in values:
                shown = ", ".join(map(str, values[:8])) + (" …" if len(values) > 8 else "")
                raise ScheduleError(
                    "GEM1404",
                    f"?{name} is {point[name]!r}, and its values are {shown}",
                    f"use {_nearest(point[name], values)}",
                )
        return {name: point[name] for name in self.holes}

    def refusal_of(self, names: Mapping[str, Value], *, lower: bool) -> Refusal | None:
        """What there is against a point that holds the rules of the space."""
        read = self.spelling.read(names)
        if isinstance(read, Refusal):
            return read
        refusal = refused_by_checks(read, self.gemm, self.machine)
        if refusal is not None:
            return refusal
        if self._is_repeated(names, read):
            return Refusal(reason=REPEATED, message=REPEATED)
        return refused_by_lowering(str(read), self.gemm, self.target) if lower else None

    def _is_repeated(self, names: Mapping[str, Value], schedule: Schedule) -> bool:
        """Whether an earlier value of a hole that the point does not use spells the same."""
        point = self.point(names)
        used = self.spelling.used(names)
        for name, values in self.holes.items():
            if name in used:
                continue
            for value in values[: values.index(point[name])]:
                other = self.tree.names({**point, name: value})
                if not isinstance(other, str) and self.spelling.read(other) == schedule:
                    return True
        return False

    def _check_numbers(self) -> None:
        """Refuse a space that needs numbers which the problem or the machine does not have."""
        defined = {*self.numbers, *(h.name for h in self.parsed.holes), *self.spelling.lets}
        for line, names in self.parsed.uses:
            for name in names:
                if name not in defined:
                    near = get_close_matches(name, sorted(self.numbers), n=1, cutoff=0.0)[0]
                    raise ScheduleError(
                        "GEM1407",
                        f"line {line} uses {name}, which {self.target} or this problem has not",
                        f"use {near}, or another target",
                    )

    def _check_lines(self) -> None:
        """Refuse a space of which a line cannot be read, whatever stands in its holes."""
        open_lines: dict[int, Refusal] = {}
        read: set[int] = set()
        visited = islice(self.tree.walk(), VISITED)
        points = (found for found in visited if not isinstance(found, Refused))
        for found in islice(points, READ_POINTS):
            for line in self.parsed.passes:
                passes = self.spelling.passes(line, found)
                if isinstance(passes, Refusal):
                    open_lines.setdefault(line.line, passes)
                else:
                    read.add(line.line)
        for line, refusal in open_lines.items():
            if line not in read:
                raise ScheduleError(
                    "GEM1408",
                    f"line {line} cannot be read, whatever stands in its holes: {refusal.message}",
                    f"see {refusal.code}" if refusal.code else "",
                )


def _step(rule: Let | Where) -> Step:
    """What is done with a rule once its names have values."""
    evaluate = rule.expression.evaluate
    reason = str(rule)

    def compute(names: dict[str, Value]) -> str | None:
        assert isinstance(rule, Let)
        try:
            names[rule.name] = evaluate(names)
        except UndefinedError as error:
            return f"{reason}: {error}"
        return None

    def require(names: dict[str, Value]) -> str | None:
        try:
            return None if evaluate(names) else reason
        except UndefinedError as error:
            return f"{reason}: {error}"

    return compute if isinstance(rule, Let) else require


def _near(value: Choice, values: Sequence[Choice]) -> Iterator[Choice]:
    """The numbers next to a number, or all other values of a word."""
    numbers = sorted(v for v in values if isinstance(v, int))
    if not isinstance(value, int):
        yield from (v for v in values if v != value)
        return
    place = numbers.index(value)
    yield from numbers[max(place - 1, 0) : place]
    yield from numbers[place + 1 : place + 2]
    yield from (v for v in values if isinstance(v, str))


def _nearest(value: Choice, values: Sequence[Choice]) -> Choice:
    """The value to use instead."""
    numbers = [v for v in values if isinstance(v, int)]
    if isinstance(value, int) and numbers:
        return min(numbers, key=lambda v: abs(v - value))
    words = {str(v): v for v in values}
    return words[get_close_matches(str(value), [*words], n=1, cutoff=0.0)[0]]


def _shown(point: Mapping[str, Choice]) -> str:
    return " ".join(f"{name}={value}" for name, value in point.items()) or "the point"
