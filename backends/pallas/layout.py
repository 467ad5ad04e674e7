"""Lines of Python, broken where they would be too long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gemmir.backends.pallas.emitter import INDENT

WIDTH: Final = 96
"""Characters of a line."""


def broken(head: str, items: Sequence[str], tail: str, depth: int) -> list[str]:
    """`head` items `tail` on one line where that fits, otherwise one item a line."""
    margin = INDENT * depth
    whole = f"{margin}{head}{', '.join(items)}{tail}"
    if len(whole) <= WIDTH and "\n" not in whole:
        return [whole]
    inner = INDENT * (depth + 1)
    return [f"{margin}{head}", *(f"{inner}{item}," for item in items), f"{margin}{tail}"]
