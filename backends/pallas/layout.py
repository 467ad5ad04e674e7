"""Lines of Python, broken where they would be too long."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

INDENT: Final = "    "

WIDTH: Final = 96
"""Characters of a line."""


def broken(head: str, items: Sequence[str], tail: str, depth: int) -> list[str]:
    """`head` items `tail` on one line where that fits, otherwise one item a line."""
    margin = INDENT * depth
    whole = f"{margin}{head}{', '.join(items)}{tail}"
    if len(whole) <= WIDTH:
        return [whole]
    inner = INDENT * (depth + 1)
    return [f"{margin}{head}", *(f"{inner}{item}," for item in items), f"{margin}{tail}"]


def wrapped(text: str, depth: int) -> list[str]:
    """A statement on one line where that fits; one that ends with a call, with one operand each."""
    begin = re.search(r"= [\w.]+\(", text)
    is_long = len(INDENT) * depth + len(text) > WIDTH
    if not is_long or begin is None or _end_of(text, begin.end()) != len(text) - 1:
        return [INDENT * depth + text]
    items = list(_operands(text[begin.end() : -1]))
    return broken(text[: begin.end()], items, ")", depth)


def _end_of(text: str, start: int) -> int | None:
    """Where the bracket closes that was opened before `start`."""
    depth = 1
    for at, character in enumerate(text[start:], start):
        depth += (character in "([{") - (character in ")]}")
        if depth == 0:
            return at
    return None


def _operands(text: str) -> Iterator[str]:
    """The parts between commas that are in no brackets."""
    depth = start = 0
    for at, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            yield text[start:at].strip()
            start = at + 1
    yield text[start:].strip()
