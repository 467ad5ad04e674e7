"""Tables of a report: columns that can be sorted, with every number that a plot shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

Value = str | float | int | bool | None
"""What a cell holds: None where there is nothing to say."""

LONG: Final = 40

LARGE: Final = 1e4
LARGEST: Final = 1e15
"""Between these all digits before the point are written, and none behind it."""

ABSENT: Final = "·"


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column; `form` is how its numbers are written, as `format` takes it.

    `is_code` is for texts of schedules and the like.
    """

    name: str
    form: str = ""
    is_code: bool = False


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell as it is shown, and what it is sorted by: "" where there is nothing."""

    text: str
    key: str
    is_number: bool
    is_code: bool = False

    @property
    def is_long(self) -> bool:
        """Whether it is a sentence."""
        return len(self.text) > LONG


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows under columns; `caption` says what they are."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]

    @property
    def filled(self) -> Table:
        """This table without the columns in which nothing stands."""
        places = range(len(self.columns))
        kept = [place for place in places if any(row[place] is not None for row in self.rows)]
        return Table(
            caption=self.caption,
            columns=tuple(self.columns[place] for place in kept),
            rows=tuple(tuple(row[place] for place in kept) for row in self.rows),
        )

    @property
    def cells(self) -> list[list[Cell]]:
        """The rows as they are shown."""
        return [
            [cell(value, column) for value, column in zip(row, self.columns, strict=True)]
            for row in self.rows
        ]

    @property
    def is_numeric(self) -> list[bool]:
        """Of each column whether it holds numbers."""
        return [
            any(_is_number(row[place]) for row in self.rows) for place in range(len(self.columns))
        ]


def cell(value: Value, column: Column) -> Cell:
    """`value` as `column` writes it."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return Cell(text=ABSENT, key="", is_number=False)
    if isinstance(value, bool):
        word = "yes" if value else "no"
        return Cell(text=word, key=word, is_number=False)
    if isinstance(value, int | float):
        return Cell(text=_written(value, column.form), key=repr(value), is_number=True)
    return Cell(text=str(value), key=str(value), is_number=False, is_code=column.is_code)


def _written(value: float, form: str) -> str:
    """A number; whole ones have all of their digits where any number of them may be written."""
    if not form.endswith("g") or abs(value) >= LARGEST:
        return format(value, form)
    is_whole = float(value).is_integer() or abs(value) >= LARGE
    return f"{round(value):,}" if is_whole else format(value, form)


def columns(*names: str | tuple[str, str]) -> tuple[Column, ...]:
    """Columns of names, or of names and the way numbers are written."""
    return tuple(
        Column(name=n) if isinstance(n, str) else Column(name=n[0], form=n[1]) for n in names
    )


def words(rows: Sequence[tuple[str, str]], caption: str) -> Table:
    """A table of two columns of text."""
    return Table(caption=caption, columns=columns("what", "value"), rows=tuple(rows))


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
