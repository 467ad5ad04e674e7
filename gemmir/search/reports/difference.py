"""What a pass changed in the text of the IR, line by line.

A pass that adds a constant shifts the numbers of all values after it. Lines that differ in such
numbers only, and in the same way wherever a value occurs, are not counted as changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Final, Literal

VALUE: Final = re.compile(r"%[\w$]+")
NUMBERED: Final = re.compile(r"%\d+\b")
SUFFIX: Final = re.compile(r"(%[A-Za-z_]\w*?)_\d+\b")

Kind = Literal["same", "added", "removed"]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line: its number in the text before, and in that after; 0 where it is not in it."""

    kind: Kind
    text: str
    before: int
    after: int


def difference(before: str, after: str) -> list[Line]:
    """The lines of both texts, in order: removed ones stand before what is in their place."""
    old, new = before.splitlines(), after.splitlines()
    shapes = [_shape(line) for line in old], [_shape(line) for line in new]
    first = _consistent(_aligned(*shapes), old, new)
    same = _consistent(sorted({*first, *_in_gaps(first, *shapes)}), old, new)
    return list(_merged(old, new, same))


def _aligned(old: Sequence[str], new: Sequence[str]) -> list[tuple[int, int]]:
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    return [
        (block.a + step, block.b + step)
        for block in matcher.get_matching_blocks()
        for step in range(block.size)
    ]


def _in_gaps(
    kept: Sequence[tuple[int, int]], old: Sequence[str], new: Sequence[str]
) -> Iterator[tuple[int, int]]:
    """Between the pairs of `kept`, each line with the first that has its shape."""
    a = b = 0
    for to_a, to_b in [*kept, (len(old), len(new))]:
        for place in range(a, to_a):
            found = next((other for other in range(b, to_b) if new[other] == old[place]), None)
            if found is not None:
                yield place, found
                b = found + 1
        a, b = to_a + 1, to_b + 1


def _shape(line: str) -> str:
    """A line without the numbers of its values."""
    return SUFFIX.sub(r"\1_#", NUMBERED.sub("%#", line))


def _consistent(
    pairs: Sequence[tuple[int, int]], old: Sequence[str], new: Sequence[str]
) -> list[tuple[int, int]]:
    """Those of `pairs` in which each value is the one that it has been in the pairs before.

    What is defined in a line that is not is no value of the pairs after it, unless that line is
    the head of a region: its arguments are the same ones even where a bound or a step is not.
    """
    there: dict[str, str] = {}
    back: dict[str, str] = {}
    kept: list[tuple[int, int]] = []
    for a, b in pairs:
        defined = _defined(old[a])
        renamed = list(zip(VALUE.findall(old[a]), VALUE.findall(new[b]), strict=True))
        used = [(x, y) for x, y in renamed if x not in defined]
        is_same = all(there.setdefault(x, y) == y and back.setdefault(y, x) == x for x, y in used)
        is_head = old[a].endswith("{")
        for x, y in renamed:
            if x in defined:
                there[x], back[y] = (y, x) if is_same or is_head else ("", "")
        if is_same:
            kept.append((a, b))
    return kept


def _defined(line: str) -> set[str]:
    """Values that begin in a line: results, and arguments of loops, blocks and functions."""
    text = line.strip()
    if text.startswith(("^", "func.func")):
        return set(VALUE.findall(text))
    head, equals, rest = text.partition(" = ")
    found = set(VALUE.findall(head)) if equals and head.startswith("%") else set[str]()
    loop = re.match(r"scf\.for (%[\w$]+) =", rest if found else text)
    names = re.search(r"iter_args\((.*?)\)", text)
    if loop:
        found.add(loop[1])
    if names:
        found.update(re.findall(r"(%[\w$]+) =", names[1]))
    if not found and "gemmir.forall" in text:
        found.update(VALUE.findall(text.partition(")")[0]))
    return found


def _merged(
    old: Sequence[str], new: Sequence[str], same: Sequence[tuple[int, int]]
) -> Iterator[Line]:
    a = b = 0
    for to_a, to_b in [*same, (len(old), len(new))]:
        for place in range(a, to_a):
            yield Line(kind="removed", text=old[place], before=place + 1, after=0)
        for place in range(b, to_b):
            yield Line(kind="added", text=new[place], before=0, after=place + 1)
        if to_b < len(new):
            yield Line(kind="same", text=new[to_b], before=to_a + 1, after=to_b + 1)
        a, b = to_a + 1, to_b + 1
