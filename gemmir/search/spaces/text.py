"""The text of a space: that of a schedule, with holes, and lines that say what stands in them.

    ?mr = 6 | 1..14                       # the values of a hole, the one to begin with first
    ?kc = powers of 2 in 64..1024 | k
    let nr = 2 * lanes                    # computed, and used as a hole is
    where mr * nr / lanes <= 24           # what a point must hold
    tile{loops=k sizes=?kc} if kc < k     # passes that only some points have
    tile{loops=m,n sizes=?mr,?nr}

Everything that is a schedule is a space with one point. A line whose end cannot be its end, because
it ends in `|`, `and`, `or`, an operator or an open bracket, goes on in the next one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from gemmir.errors import ScheduleError
from gemmir.search.spaces.domain import Term, parse_terms
from gemmir.search.spaces.expression import Expression, is_name, parse_expression

HOLE: Final = re.compile(r"\?(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})")
"""A hole where it stands: ?name, or ?{name} where a letter follows."""

_COMMENT: Final = re.compile(r"""((?:[^#'"]|'[^']*'|"[^"]*")*)(#.*)?""")
_DEFINITION: Final = re.compile(r"\?(?P<name>[^\s=]+)\s*=(?P<terms>.*)")
_LET: Final = re.compile(r"let\s+\??(?P<name>[^\s=]+)\s*=(?P<expression>.*)")
_WHERE: Final = re.compile(r"where\s+(?P<expression>.*)")
_CONDITIONAL: Final = re.compile(r"(?P<passes>.*[\w}])\s+if\s+(?P<condition>.+)")
_BEGINS: Final = re.compile(r"\?|let\s|where\s|[a-z][a-z-]*\{")
"""What a line that goes on does not go on with."""
_GOES_ON: Final = re.compile(r".*(\||[-+*/%<=>(]|\b(and|or|not|in))$")


@dataclass(frozen=True, kw_only=True)
class Hole:
    """`?name = terms` in a line."""

    line: int
    name: str
    terms: tuple[Term, ...]


@dataclass(frozen=True, kw_only=True)
class Let:
    """`let name = expression` in a line."""

    line: int
    name: str
    expression: Expression

    def __str__(self) -> str:
        return f"let {self.name} (line {self.line})"


@dataclass(frozen=True, kw_only=True)
class Where:
    """`where expression` in a line."""

    line: int
    expression: Expression

    def __str__(self) -> str:
        return f"where {self.expression} (line {self.line})"


@dataclass(frozen=True, kw_only=True)
class Passes:
    """Passes in a line, with holes; only points for which `condition` holds have them."""

    line: int
    text: str
    condition: Expression | None


@dataclass(frozen=True, kw_only=True)
class SpaceText:
    """What a text of a space says, in its order; `rules` are what is computed and required."""

    holes: tuple[Hole, ...]
    rules: tuple[Let | Where, ...]
    passes: tuple[Passes, ...]

    @property
    def uses(self) -> Iterator[tuple[int, tuple[str, ...]]]:
        """The names that every expression uses, and every hole in passes, with the line."""
        for hole in self.holes:
            for term in hole.terms:
                yield from ((hole.line, e.names) for e in term.expressions)
        yield from ((rule.line, rule.expression.names) for rule in self.rules)
        for line in self.passes:
            condition = () if line.condition is None else line.condition.names
            yield line.line, (*condition, *holes_in(line.text))

    def below(self, name: str) -> frozenset[str]:
        """The names that what stands in a hole, or is computed as `name`, contains itself."""
        for hole in self.holes:
            if hole.name == name:
                return frozenset(holes_in(" ".join(_fragments(hole))))
        for rule in self.rules:
            if isinstance(rule, Let) and rule.name == name:
                return frozenset({*holes_in(rule.expression.text), *rule.expression.names})
        return frozenset()


def _fragments(hole: Hole) -> Iterator[str]:
    return (term.text for term in hole.terms if term.kind == "text")


def holes_in(text: str) -> list[str]:
    """The names of the holes in a text."""
    return [found[1] or found[2] for found in HOLE.finditer(text)]


def parse_space(text: str, known: Iterable[str]) -> SpaceText:
    """What `text` says; `known` are the names of numbers of problems and machines.

    Raises `ScheduleError` GEM1400 for a line that is none, GEM1401 for a name that nothing defines
    and for a hole that stands nowhere or in itself, GEM1402 for an expression that cannot be read,
    GEM1403 for values that are none.
    """
    numbers = frozenset(known)
    holes: list[Hole] = []
    rules: list[Let | Where] = []
    passes: list[Passes] = []
    for line, content in _lines(text):
        if (found := _DEFINITION.fullmatch(content)) is not None:
            _check_name(found["name"], line, numbers, [*holes, *_lets(rules)])
            terms = parse_terms(found["terms"], line, numbers)
            holes.append(Hole(line=line, name=found["name"], terms=terms))
        elif (found := _LET.fullmatch(content)) is not None:
            _check_name(found["name"], line, numbers, [*holes, *_lets(rules)])
            expression = parse_expression(found["expression"], line)
            rules.append(Let(line=line, name=found["name"], expression=expression))
        elif (found := _WHERE.fullmatch(content)) is not None:
            rules.append(Where(line=line, expression=parse_expression(found["expression"], line)))
        else:
            passes.append(_passes(content, line))
    parsed = SpaceText(holes=tuple(holes), rules=tuple(rules), passes=tuple(passes))
    _check_names(parsed, numbers)
    return parsed


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines that say something, without comments, each with its number, joined where one
    goes on."""
    begun, held = 0, ""
    for number, raw in enumerate(text.splitlines(), 1):
        found = _COMMENT.match(raw)
        content = (raw if found is None else found[1]).strip()
        if not content:
            continue
        if held and _BEGINS.match(content):
            break
        begun, held = (begun, f"{held} {content}") if held else (number, content)
        is_passes = not held.startswith(("?", "let ", "where "))
        opened = held.count("(") > held.count(")")
        if not is_passes and (opened or _GOES_ON.fullmatch(held)):
            continue
        yield begun, held
        held = ""
    if held:
        raise ScheduleError(
            "GEM1400", f"line {begun}: {held!r} ends in its middle", "write the rest of it"
        )


def _passes(content: str, line: int) -> Passes:
    found = _CONDITIONAL.fullmatch(content)
    if found is None:
        return Passes(line=line, text=content, condition=None)
    condition = parse_expression(found["condition"], line)
    return Passes(line=line, text=found["passes"], condition=condition)


def _lets(rules: Sequence[Let | Where]) -> list[Let]:
    return [rule for rule in rules if isinstance(rule, Let)]


def _check_name(
    name: str, line: int, numbers: frozenset[str], before: Sequence[Hole | Let]
) -> None:
    taken = [found.line for found in before if found.name == name]
    if taken:
        raise ScheduleError(
            "GEM1400",
            f"line {line}: ?{name} is defined in line {taken[0]} already",
            "join both by |, or take another name",
        )
    if not is_name(name):
        raise ScheduleError(
            "GEM1400",
            f"line {line}: {name!r} is no name",
            "use letters, digits and _, such as mr",
        )
    if name in numbers:
        raise ScheduleError(
            "GEM1400",
            f"line {line}: {name} is a number of the problem or the machine, and cannot be a hole",
            f"use another name, such as {name}_tile",
        )


def _check_names(parsed: SpaceText, numbers: frozenset[str]) -> None:
    """Every name is defined, lets above their use, and every hole is used by a pass or a rule."""
    holes = {hole.name: hole.line for hole in parsed.holes}
    lets: set[str] = set()
    used: set[str] = set()

    def require(names: Iterable[str], line: int, what: str, allowed: Iterable[str]) -> None:
        near = [*allowed]
        for name in names:
            used.add(name)
            if name not in near:
                raise _undefined(name, line, what, near)

    for hole in parsed.holes:
        for term in hole.terms:
            for expression in term.expressions:
                for name in expression.names:
                    if name in holes:
                        raise ScheduleError(
                            "GEM1400",
                            f"line {hole.line}: the values of ?{hole.name} depend on ?{name}",
                            f"give ?{hole.name} values of its own, and say where they go together",
                        )
                require(expression.names, hole.line, expression.text, numbers)
    for rule in parsed.rules:
        require(rule.expression.names, rule.line, str(rule.expression), numbers | {*holes} | lets)
        if isinstance(rule, Let):
            lets.add(rule.name)
    everything = numbers | {*holes} | lets
    for line in parsed.passes:
        if line.condition is not None:
            require(line.condition.names, line.line, str(line.condition), everything)
    for number, text in _texts(parsed):
        if "?" in HOLE.sub("", text):
            raise ScheduleError(
                "GEM1400",
                f"line {number}: in {text!r} a ? stands before no name",
                "write ?name, or ?{name} where a letter follows",
            )
        for name in holes_in(text):
            used.add(name)
            if name not in everything:
                raise _no_hole(name, number, {*holes, *lets})
    for hole in parsed.holes:
        _check_circle(parsed, hole)
        _check_words(parsed, hole)
    for name, line in holes.items():
        if name not in used:
            raise ScheduleError(
                "GEM1401",
                f"line {line}: ?{name} stands nowhere, so that its values change nothing",
                "put it into a pass, or leave it out",
            )


def _check_words(parsed: SpaceText, hole: Hole) -> None:
    """A name of a number does not stand among words, nor where a loop is named."""
    names = [t.text for t in hole.terms if t.kind == "number" and is_name(t.text)]
    place = re.compile(rf"(loops?|order|during|operand)=[^ }}]*\?\{{?{hole.name}\b")
    stands = any(place.search(text) for _, text in _texts(parsed))
    if names and (stands or any(term.kind == "text" for term in hole.terms)):
        raise ScheduleError(
            "GEM1400",
            f"line {hole.line}: among the words of ?{hole.name} {names[0]} is a number of the "
            "problem or the machine",
            f"write '{names[0]}' for the word",
        )


def _check_circle(parsed: SpaceText, hole: Hole) -> None:
    """What stands in a hole does not contain that hole, nor what does."""
    found: set[str] = set()
    waiting = set(parsed.below(hole.name))
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting |= parsed.below(name) - found
    if hole.name in found:
        raise ScheduleError(
            "GEM1401",
            f"line {hole.line}: ?{hole.name} stands in itself",
            "leave it out of its own values",
        )


def _texts(parsed: SpaceText) -> Iterator[tuple[int, str]]:
    """Every text that becomes passes."""
    yield from ((line.line, line.text) for line in parsed.passes)
    yield from ((hole.line, text) for hole in parsed.holes for text in _fragments(hole))
    for rule in parsed.rules:
        if isinstance(rule, Let):
            yield rule.line, rule.expression.text


def _no_hole(name: str, line: int, holes: set[str]) -> ScheduleError:
    near = get_close_matches(name, sorted(holes), n=1, cutoff=0.0)
    return ScheduleError(
        "GEM1401",
        f"line {line}: nothing says what stands in ?{name}",
        f"write ?{name} = 1..8" + (f", or use ?{near[0]}" if near else ""),
    )


def _undefined(name: str, line: int, what: str, known: Iterable[str]) -> ScheduleError:
    near = get_close_matches(name, sorted(known), n=1, cutoff=0.0)
    return ScheduleError(
        "GEM1401",
        f"line {line}: {what!r} uses {name}, which is neither a hole above it nor a number of the "
        "problem or the machine",
        f"use {near[0]}" if near else "",
    )
