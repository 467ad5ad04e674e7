"""A space of schedules: their text with holes, and what may stand in them.

    space = Space.parse(text)                      # or Space.read(path)
    bound = space.bind(gemm, target)               # the values for one problem on one machine
    for point in bound.sample(10, seed=1): print(bound.schedule(point))

See `gemmir.search.spaces.text` for what a space can say, and docs/spaces.md for examples.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gemmir.errors import ParseError
from gemmir.gemm import Gemm
from gemmir.machine import HOST, machine_for
from gemmir.search.spaces.bound import BoundSpace
from gemmir.search.spaces.names import known_names
from gemmir.search.spaces.text import SpaceText, parse_space


@dataclass(frozen=True)
class Space:
    """A space as text, which is not yet of any problem or machine; equal where the text is."""

    text: str

    def __post_init__(self) -> None:
        """Raises as `parse` does."""
        self._parsed()

    @staticmethod
    def parse(text: str) -> Space:
        """The space that `text` spells.

        Raises `ScheduleError`: GEM1400 for a line that is none, GEM1401 for a name that nothing
        defines or a hole that stands nowhere, GEM1402 for an expression that cannot be read,
        GEM1403 for values that are none.
        """
        return Space(text)

    @staticmethod
    def read(path: str | Path) -> Space:
        """The space in a file; `ParseError` GEM1406 where it cannot be read."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise ParseError("GEM1406", f"the space {path} cannot be read: {reason}") from error
        return Space(text)

    def bind(self, gemm: Gemm, target: str = HOST) -> BoundSpace:
        """The space for `gemm` on the machine that `target` names.

        Raises `ScheduleError`: GEM1403 for a hole without values, GEM1407 where it needs a number
        that these do not have, GEM1408 for a line that no values of its holes make readable; and
        `MissingError` for an unknown target.
        """
        return BoundSpace(
            parsed=self._parsed(), gemm=gemm, target=target, machine=machine_for(target)
        )

    def _parsed(self) -> SpaceText:
        return parse_space(self.text, known_names())

    def __str__(self) -> str:
        return self.text
