"""Going through all points of a space, leaving out at once what no continuation can make legal.

A point is built hole by hole. What needs a hole is done as soon as that has a value, so that the
points below a value that breaks a rule are counted without going through them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from gemmir.search.spaces.domain import Choice
from gemmir.search.spaces.expression import Value

Point = dict[str, Choice]
"""A value for every hole."""

Step = Callable[[dict[str, Value]], str | None]
"""Computes a name or requires something of those that there are; the reason where it refuses."""


@dataclass(frozen=True, kw_only=True)
class Refused:
    """So many points that have the values chosen so far are illegal for one reason."""

    reason: str
    points: int


@dataclass(frozen=True, kw_only=True)
class Tree:
    """The holes in their order, with what is done once the first 0, 1, 2 … of them have values.

    `numbers` are the names that every point has.
    """

    holes: Mapping[str, tuple[Choice, ...]]
    numbers: Mapping[str, Value]
    steps: Sequence[Sequence[Step]]

    @property
    def size(self) -> int:
        """All points, legal or not."""
        return prod(map(len, self.holes.values()))

    def names(self, point: Mapping[str, Choice]) -> dict[str, Value] | str:
        """All names of a point with their values, or the first reason why it is illegal."""
        names = dict(self.numbers)
        for number, steps in enumerate(self.steps):
            if number:
                name = [*self.holes][number - 1]
                names[name] = point[name]
            for step in steps:
                reason = step(names)
                if reason is not None:
                    return reason
        return names

    def walk(self) -> Iterator[dict[str, Value] | Refused]:
        """The names of every point in the order of the values, or how many are refused and why."""
        names: dict[str, Value] = dict(self.numbers)
        refused = self._refused(0, names)
        if refused is not None:
            yield refused
            return
        yield from self._below(0, names)

    def _refused(self, depth: int, names: dict[str, Value]) -> Refused | None:
        for step in self.steps[depth]:
            reason = step(names)
            if reason is not None:
                rest = [*self.holes.values()][depth:]
                return Refused(reason=reason, points=prod(map(len, rest)))
        return None

    def _below(self, depth: int, names: dict[str, Value]) -> Iterator[dict[str, Value] | Refused]:
        if depth == len(self.holes):
            yield dict(names)
            return
        name = [*self.holes][depth]
        for value in self.holes[name]:
            names[name] = value
            refused = self._refused(depth + 1, names)
            if refused is not None:
                yield refused
            else:
                yield from self._below(depth + 1, names)

    def may_go_on(self, chosen: Mapping[str, Choice]) -> bool:
        """Whether some point begins with the values `chosen` of the first holes and holds."""
        names: dict[str, Value] = dict(self.numbers)
        for depth in range(len(chosen) + 1):
            if depth:
                name = [*self.holes][depth - 1]
                names[name] = chosen[name]
            if self._refused(depth, names) is not None:
                return False
        return any(not isinstance(f, Refused) for f in self._below(len(chosen), names))
