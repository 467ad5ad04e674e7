"""Random products on random meshes: every axis asks for something of the table, or for nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from tests.sharded.conftest import Ask
from tests.sharded.test_mesh import require_right

MESHES: Final = (
    {"e": 2, "d": 4},
    {"e": 4, "d": 2},
    {"e": 2, "d": 2, "f": 2},
    {"e": 3, "d": 2},
    {"e": 2, "d": 1},
)

TRIPLES: Final = ("...", "m.m", ".nn", "mnn", "knn", "mnm", "mkm", "kk.", "kkm", "kkn")
"""Where an axis is in x, w and the result."""

EPILOGUES: Final = ("", "bias", "bias+gelu", "residual", "bias+relu+residual", "silu")
EXACT: Final = ("", "bias+relu+residual")
"""Epilogues whose derivative is exact on whole numbers."""

ORDER: Final = "GEM0554"
"""What is refused of specs that are drawn axis by axis: the axes of a dimension need an order."""


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    """A case of `worker.Case`."""
    mesh = draw(st.sampled_from(MESHES))
    rows = draw(st.sampled_from([1, 1, 2]))
    x: list[list[str]] = [[] for _ in range(rows + 1)]
    w: list[list[str]] = [[], []]
    result: list[list[str]] = [[] for _ in range(rows + 1)]
    for axis in draw(st.permutations(list(mesh))):
        in_x, in_w, in_result = draw(st.sampled_from(TRIPLES))
        row = draw(st.integers(0, rows - 1))
        if in_x != ".":
            x[row if in_x == "m" else rows].append(axis)
        if in_w != ".":
            w["kn".index(in_w)].append(axis)
        if in_result != ".":
            result[row if in_result == "m" else rows].append(axis)

    def extent(*along: Sequence[str]) -> int:
        parts = (math.prod(mesh[axis] for axis in axes) for axes in along)
        return draw(st.integers(1, 3)) * math.lcm(*parts)

    gradient = draw(st.booleans())
    epilogue = draw(st.sampled_from(EXACT if gradient else EPILOGUES))
    dtype, product = draw(st.sampled_from([("f32", None), ("bf16", None), ("f32", "bf16x3")]))
    return {
        "mesh": mesh,
        "specs": [[axes or None for axes in spec] for spec in (x, w, result)],
        "rows": [extent(x[row], result[row]) for row in range(rows)],
        "k": extent(x[rows], w[0]),
        "n": extent(w[1], result[rows]),
        "dtype": dtype,
        "product": product,
        "overlap": draw(st.sampled_from([None, False])),
        "epilogue": epilogue,
        "gradient": gradient,
        "whole": gradient and bool(epilogue),
    }


@settings(
    max_examples=12, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
@given(case=cases())
@example(
    case={
        "mesh": {"e": 2, "d": 2, "f": 2},
        "specs": [[None, ["d", "f", "e"]], [["d", "f", "e"], None], [None, ["f", "e"]]],
        "rows": [1],
        "k": 24,
        "n": 4,
        "gradient": True,
    }
)
def test_random_products(ask: Ask, case: dict[str, Any]) -> None:
    found = ask(**case)
    assume(found.get("code") != ORDER)
    require_right(found)
