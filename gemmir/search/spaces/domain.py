"""What may stand in a hole: numbers in a range, powers, divisors, multiples, equal parts, words.

    1..14                       whole numbers, both ends too; 8..64 step 8
    powers of 2 in 64..1024
    divisors of m               also up to 512, or in 8..512
    multiples of lanes up to n
    parts of k by 4 in 64..512  sizes that cut k into equal parts, rounded up to multiples of 4
    24 | 2 * lanes | k          numbers, also of the problem and the machine
    l2 | overlap | m,n          words
    'promote{operand=a …}' | '' quoted text: also passes, or none

`|` joins any of these; a value that comes again is left out. The first value is the one from which
searches begin.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from gemmir.errors import ScheduleError
from gemmir.search.spaces.expression import (
    Expression,
    Names,
    UndefinedError,
    Value,
    is_name,
    parse_expression,
)

Choice = int | str
"""What stands in a hole."""

MOST_VALUES: Final = 1 << 16
"""Of one hole: more are a mistake, and would only take memory."""

SERIES: Final = ("powers", "divisors", "multiples", "parts")

_SERIES: Final = re.compile(
    rf"(?P<kind>{'|'.join(SERIES)})\s+of\s+(?P<of>.+?)(?:\s+by\s+(?P<by>.+?))?"
    r"(?:\s+(?:in\s+(?P<low>.+?)\s*\.\.\s*(?P<high>.+?)|up\s+to\s+(?P<most>.+?)))?"
)
_RANGE: Final = re.compile(
    r"(?P<low>[^'\"]+?)\s*\.\.\s*(?P<high>[^'\"]+?)(?:\s+step\s+(?P<by>.+))?"
)
_QUOTED: Final = re.compile(r"'([^']*)'|\"([^\"]*)\"")
_WORD: Final = re.compile(r"[A-Za-z_][\w.:-]*(,[A-Za-z_][\w.:-]*)*")
_ALTERNATIVES: Final = re.compile(r"""((?:[^|'"]|'[^']*'|"[^"]*")*)(?:\||$)""")


@dataclass(frozen=True, kw_only=True)
class Term:
    """One of the alternatives of a hole: fixed text, or a series of numbers.

    `kind` is text, number, range or one of `SERIES`. `of` is the number, or what the series is of.
    """

    kind: str
    text: str = ""
    of: Expression | None = None
    by: Expression | None = None
    low: Expression | None = None
    high: Expression | None = None

    @property
    def expressions(self) -> Iterator[Expression]:
        """All that has to be computed for its values."""
        yield from (e for e in (self.of, self.by, self.low, self.high) if e is not None)


def parse_terms(text: str, line: int, known: Iterable[str]) -> tuple[Term, ...]:
    """The alternatives in `text`; a word that is not among the `known` names of numbers is text.

    Raises `ScheduleError` GEM1403 where there is an empty one, GEM1402 for one that is none.
    """
    pieces = [found[1].strip() for found in _ALTERNATIVES.finditer(text)]
    if pieces and not pieces[-1]:
        pieces.pop()  # what is behind the last alternative
    if not pieces or not all(pieces) or text.rstrip().endswith("|"):
        raise ScheduleError(
            "GEM1403",
            f"line {line}: an alternative of {text.strip()!r} is empty",
            "write values between |, and '' for none",
        )
    return tuple(_term(piece, line, frozenset(known)) for piece in pieces)


def _term(text: str, line: int, known: frozenset[str]) -> Term:
    def read(piece: str | None) -> Expression | None:
        return None if piece is None else parse_expression(piece, line)

    quoted = _QUOTED.fullmatch(text)
    if quoted is not None:
        return Term(kind="text", text=quoted[1] if quoted[1] is not None else quoted[2])
    series = _SERIES.fullmatch(text)
    if series is not None:
        return Term(
            kind=series["kind"],
            text=text,
            of=read(series["of"]),
            by=read(series["by"]),
            low=read(series["low"]),
            high=read(series["high"] or series["most"]),
        )
    span = _RANGE.fullmatch(text)
    if span is not None:
        low, high, by = read(span["low"]), read(span["high"]), read(span["by"])
        return Term(kind="range", text=text, low=low, high=high, by=by)
    if _WORD.fullmatch(text) and not (is_name(text) and text in known):
        return Term(kind="text", text=text)
    return Term(kind="number", text=text, of=parse_expression(text, line))


def values_of(name: str, terms: Sequence[Term], names: Names, line: int) -> tuple[Choice, ...]:
    """All values of a hole in the order of its alternatives, each once.

    Raises `ScheduleError` GEM1403 where there is none, or far too many.
    """
    found: dict[Choice, None] = {}
    for term in terms:
        for value in _values(name, term, names, line):
            found.setdefault(value)
            if len(found) > MOST_VALUES:
                raise ScheduleError(
                    "GEM1403",
                    f"line {line}: ?{name} has more than {MOST_VALUES} values",
                    "use a step, powers of 2, or divisors",
                )
    if not found:
        raise ScheduleError(
            "GEM1403",
            f"line {line}: ?{name} has no values here: {_nothing(terms, names)}",
            "widen its range, or add a number with |",
        )
    return tuple(found)


def _nothing(terms: Sequence[Term], names: Names) -> str:
    """The terms with their numbers."""

    def bounds(term: Term) -> str:
        low = "" if term.low is None else str(term.low.evaluate(names))
        high = "" if term.high is None else str(term.high.evaluate(names))
        return f"{term.text} is from {low or 'the least'} to {high or 'the most'}"

    return ", ".join(map(bounds, terms))


def _values(name: str, term: Term, names: Names, line: int) -> Iterator[Choice]:
    if term.kind == "text":
        yield term.text
        return

    def number(expression: Expression | None, default: int) -> int | Fraction:
        value: Value = default
        if expression is not None:
            value = _computed(name, expression, names, line)
        if isinstance(value, str):
            raise _no_number(name, str(expression), value, line)
        return value

    if term.kind == "number":
        assert term.of is not None
        value = _computed(name, term.of, names, line)
        if isinstance(value, Fraction):
            raise _no_number(name, term.text, value, line)
        yield int(value) if isinstance(value, bool) else value
        return
    of, by = (math.ceil(number(e, default)) for e, default in ((term.of, 0), (term.by, 1)))
    low = math.ceil(number(term.low, 1))
    if term.high is None and term.kind in ("powers", "multiples"):
        raise ScheduleError(
            "GEM1403",
            f"line {line}: ?{name}: {term.kind} of {term.of} have no end",
            f"write {term.kind} of {term.of} up to 1024",
        )
    high = math.floor(number(term.high, of))
    least = 2 if term.kind == "powers" else 1
    if (of if term.kind in ("powers", "multiples") else by) < least or by < 1:
        raise ScheduleError(
            "GEM1403",
            f"line {line}: ?{name}: {term.text} counts by {of if of < least else by}",
            f"use {least} or more",
        )
    yield from _MAKERS[term.kind](of, by, low, high)


def _computed(name: str, expression: Expression, names: Names, line: int) -> Value:
    try:
        return expression.evaluate(names)
    except UndefinedError as error:
        raise _no_number(name, expression.text, str(error), line) from None


def _no_number(name: str, text: str, value: object, line: int) -> ScheduleError:
    return ScheduleError(
        "GEM1403", f"line {line}: ?{name}: {text} is {value}, no whole number", "use // or ceil( )"
    )


def _range(of: int, by: int, low: int, high: int) -> Iterable[int]:
    return range(low, high + 1, by)


def _powers(of: int, by: int, low: int, high: int) -> Iterator[int]:
    value = 1
    while value <= high:
        if value >= low:
            yield value
        value *= of


def _divisors(of: int, by: int, low: int, high: int) -> Sequence[int]:
    small = [d for d in range(1, math.isqrt(max(of, 0)) + 1) if of % d == 0]
    both = sorted({*small, *(of // d for d in small)})
    return [d for d in both if low <= d <= high]


def _multiples(of: int, by: int, low: int, high: int) -> Iterable[int]:
    return range(-(-max(low, 1) // of) * of, high + 1, of)


def _parts(of: int, by: int, low: int, high: int) -> Sequence[int]:
    """`of` cut into 1, 2, 3 … parts, each rounded up to a multiple of `by`, the smallest first.

    From n to n / d parts there are about 2 sqrt(n) sizes: those of the smaller half are counted up.
    """
    if of < 1:
        return ()
    root = math.isqrt(of) + 1
    sizes = {-(-of // count) for count in range(1, root + 1)} | set(range(1, root + 1))
    equal = {size for size in sizes if size and -(-of // -(-of // size)) == size}
    rounded = {min(-(-size // by) * by, of) for size in equal}
    return sorted(size for size in rounded if low <= size <= high)


_MAKERS: Final[dict[str, Callable[[int, int, int, int], Iterable[int]]]] = {
    "range": _range,
    "powers": _powers,
    "divisors": _divisors,
    "multiples": _multiples,
    "parts": _parts,
}
