"""Blocks that were found by profiling many, and what the profile said of them.

`tpu.json` holds one entry for a problem of a machine, written by `bench/tpu.py`. The figures are of
libtpu's static profile, ours beside those of XLA's own product in the same run: nothing here was
measured on a TPU.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Found:
    """The blocks for one problem: their sizes, and the order of the loops, outermost first.

    All of the operand `whole` is in VMEM before the first step, where one is.
    """

    order: str
    m: int
    n: int
    k: int
    whole: str


def found_blocks(target: str, dtype: str, shape: tuple[int, int, int]) -> Found | None:
    """The entry for a product of `dtype` of the shape m, n, k on `target`, where there is one."""
    return _entries().get((target, dtype, shape))


@cache
def _entries() -> dict[tuple[str, str, tuple[int, int, int]], Found]:
    text = files(__name__).joinpath("tpu.json").read_text(encoding="utf-8")
    return {_key(entry): Found(**entry["blocks"]) for entry in json.loads(text)["entries"]}


def _key(entry: dict[str, Any]) -> tuple[str, str, tuple[int, int, int]]:
    m, n, k = entry["shape"]
    return entry["target"], entry["dtype"], (m, n, k)
