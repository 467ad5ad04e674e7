"""A program for JAX as text: a Python file, the function in it, and the arrays that it takes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True)
class Array:
    """One array that a function takes; `dtype` is its name in NumPy or ml_dtypes: bfloat16."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, kw_only=True)
class Program:
    """The text of a Python file that defines `function`, which returns one array of JAX."""

    text: str
    function: str
    arguments: tuple[Array, ...]

    def to_json(self) -> str:
        """This program as JSON text."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Program:
        """The program that `to_json` wrote; `ValueError`, `KeyError` or `TypeError` otherwise."""
        fields = json.loads(text)
        arrays = (
            Array(shape=tuple(int(n) for n in entry["shape"]), dtype=str(entry["dtype"]))
            for entry in fields["arguments"]
        )
        return Program(
            text=str(fields["text"]), function=str(fields["function"]), arguments=tuple(arrays)
        )
