"""From the names of a point to its schedule: holes are filled in, line by line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Final

from xdsl.passes import ModulePass

from gemmir.errors import ScheduleError
from gemmir.schedule import Schedule
from gemmir.search.spaces.expression import Names, UndefinedError, Value
from gemmir.search.spaces.legality import Refusal, refused
from gemmir.search.spaces.text import HOLE, Let, Passes, SpaceText, holes_in

LINES_KEPT: Final = 1 << 16
"""Lines of passes that are kept as values: points share most of them, and one takes 0.1 ms."""


@lru_cache(maxsize=LINES_KEPT)
def passes_of(text: str) -> tuple[ModulePass, ...] | ScheduleError:
    """The passes in a line, or the error that there is instead."""
    try:
        return Schedule.parse(text).passes
    except ScheduleError as error:
        return error


@dataclass(frozen=True, kw_only=True)
class Spelling:
    """The passes of a space, as points fill them in."""

    parsed: SpaceText

    @cached_property
    def lets(self) -> Mapping[str, Let]:
        """What is computed, by its name."""
        return {rule.name: rule for rule in self.parsed.rules if isinstance(rule, Let)}

    def lines(self, names: Names) -> list[str]:
        """The lines that a point has; `UndefinedError` where a number in one does not exist."""
        found = (self._line(line, names, names.__getitem__) for line in self.parsed.passes)
        return [text for text in found if text]

    def read(self, names: Names) -> Schedule | Refusal:
        """The schedule of a point, or why there is none."""
        found: list[ModulePass] = []
        for line in self.parsed.passes:
            passes = self.passes(line, names)
            if isinstance(passes, Refusal):
                return passes
            found += passes
        return Schedule(tuple(found))

    def passes(self, line: Passes, names: Names) -> tuple[ModulePass, ...] | Refusal:
        """The passes that a point has of a line, or why they cannot be read."""
        try:
            text = self._line(line, names, names.__getitem__)
        except UndefinedError as error:
            return Refusal(reason=f"line {line.line}: {error}", message=str(error))
        found = passes_of(text)
        return refused(found) if isinstance(found, ScheduleError) else found

    def used(self, names: Names) -> frozenset[str]:
        """The names on which the text of a point depends, by way of what is computed from them."""
        found: set[str] = set()
        noting = _Noting(names=names, lets=self.lets, found=found)
        for line in self.parsed.passes:
            self._line(line, names, noting.__getitem__)
        return frozenset(found)

    def reached(self, line: Passes) -> frozenset[str]:
        """All names on which a line may depend, by way of what stands in others."""
        found: set[str] = set()
        waiting = {*holes_in(line.text), *(line.condition.names if line.condition else ())}
        while waiting:
            name = waiting.pop()
            found.add(name)
            waiting |= self.parsed.below(name) - found
        return frozenset(found)

    def _line(self, line: Passes, names: Names, value_of: Callable[[str], Value]) -> str:
        """A line with its holes filled in by `value_of`; empty where the point has it not."""
        if line.condition is not None and not line.condition.evaluate(names):
            return ""

        def fill(found: re.Match[str]) -> str:
            name = found[1] or found[2]
            return _shown(name, value_of(name))

        text = line.text
        while HOLE.search(text):
            text = HOLE.sub(fill, text)
        return text


@dataclass(frozen=True, kw_only=True)
class _Noting(Mapping[str, Value]):
    """The names of a point, which notes the holes and numbers behind all that is asked for."""

    names: Names
    lets: Mapping[str, Let]
    found: set[str]

    def __getitem__(self, name: str) -> Value:
        if name in self.lets:
            return self.lets[name].expression.evaluate(self)
        self.found.add(name)
        return self.names[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def _shown(name: str, value: Value) -> str:
    """A value as it stands in a pass."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Fraction):
        raise UndefinedError(f"{name} is no whole number")
    return str(value)
