"""Names in a Python file: legal ones, each given once."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable
from typing import Final

RESERVED: Final = frozenset({"jax", "jnp", "lax", "pl", "pltpu", "interpret", "_"})
"""Names that the file uses itself."""


class Names:
    """Python names, each given once."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = {*RESERVED, *taken}

    def new(self, wanted: str | None, otherwise: str) -> str:
        """A name like `wanted` that nothing has yet."""
        stem = python_name(wanted or otherwise)
        name, number = stem, 2
        while name in self._taken:
            name, number = f"{stem}_{number}", number + 1
        self._taken.add(name)
        return name


def python_name(word: str) -> str:
    """`word` as a name of Python: itself where that is one."""
    name = re.sub(r"\W", "_", word, flags=re.ASCII)
    if not name or name[0].isdigit():
        name = f"_{name}"
    return f"{name}_" if keyword.iskeyword(name) else name
