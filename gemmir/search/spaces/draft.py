"""The text of a space while it is written, from a default schedule whose numbers become holes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gemmir.search.spaces.domain import Choice


@dataclass(kw_only=True)
class Draft:
    """What a space says so far; `first` has what the default schedule has in each hole."""

    about: str
    names: set[str] = field(default_factory=set[str])
    holes: dict[str, str] = field(default_factory=dict[str, str])
    lets: list[str] = field(default_factory=list[str])
    rules: list[str] = field(default_factory=list[str])
    passes: list[str] = field(default_factory=list[str])

    def hole(self, name: str, first: Choice, others: Iterable[Choice] | str, why: str) -> str:
        """A new hole, where the default has `first`; returns how it is written in a pass."""
        name = self._free(name)
        said = (
            others
            if isinstance(others, str)
            else " | ".join(str(value) for value in dict.fromkeys(others) if value != first)
        )
        values = f"{first} | {said}" if said else str(first)
        self.names.add(name)
        self.holes[name] = f"?{name} = {values}".ljust(44) + f"  # {why}"
        return f"?{name}"

    def let(self, name: str, expression: str) -> str:
        """A number that is computed; returns how it is written in a pass."""
        name = self._free(name)
        self.lets.append(f"let {name} = {expression}")
        self.names.add(name)
        return f"?{name}"

    def where(self, rule: str) -> None:
        """What a point must hold."""
        self.rules.append(f"where {rule}")

    def add(self, passes: str, condition: str | None = None) -> None:
        """Passes, for points only for which `condition` holds if there is one."""
        self.passes.append(passes if condition is None else f"{passes} if {condition}")

    @property
    def text(self) -> str:
        """All of it, in the order in which it can be read."""
        parts = [[f"# {self.about}"], [*self.holes.values()], self.lets, self.rules, self.passes]
        return "\n".join(line for part in parts for line in part) + "\n"

    def _free(self, name: str) -> str:
        number, found = 1, name
        while found in self.names:
            number += 1
            found = f"{name}{number}"
        return found


def powers(low: int, high: int) -> list[int]:
    """The powers of 2 from `low` to `high`, both included."""
    return [1 << e for e in range(high.bit_length()) if low <= 1 << e <= high]


def near(value: int, least: int, most: int) -> list[int]:
    """Powers of 2 from a quarter of `value` to four times as much, within bounds."""
    return powers(max(value // 4, least), min(value * 4, most))
