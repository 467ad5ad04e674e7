"""Wrong edits of what goes round the ring: each must give wrong numbers or fail, and be seen."""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.sharded.conftest import Ask
from tests.sharded.test_mesh import RULES, SHAPE, TOGETHER

BY_ROWS: Final = "gather x by rows"
ALONG_K: Final = "gather x along k"
REDUCE: Final = "reduce"
SCATTER: Final = "scatter rows"
ORDER: Final = "axes against the order of the mesh"

EDITS: Final[dict[str, tuple[str, str, str, str]]] = {
    "a permutation that skips devices": (
        BY_ROWS,
        "ring",
        "(i + distance) % ring.size",
        "(i + 2 * distance) % ring.size",
    ),
    "a permutation the other way round": (
        ALONG_K,
        "ring",
        "(i + distance) % ring.size",
        "(i - distance) % ring.size",
    ),
    "sums that go the other way round": (
        SCATTER,
        "ring",
        "(i + distance) % ring.size",
        "(i - distance) % ring.size",
    ),
    "devices counted in the order of the mesh": (
        ORDER,
        "ring",
        "numbers = ring.numbers",
        "numbers = range(ring.size)",
    ),
    "the last chunk is taken for its neighbour": (
        BY_ROWS,
        "ring",
        "coming = [(place(ring, -hop), behind)]",
        "coming = [(place(ring, -min(hop, ring.size // 2 - 1)), behind)]",
    ),
    "a chunk that comes from both sides": (
        ALONG_K,
        "ring",
        "if 2 * hop < ring.size:",
        "if 2 * hop <= ring.size:",
    ),
    "the sums from one side are lost": (
        SCATTER,
        "ring",
        "return total if ahead is None else total + ahead",
        "return total",
    ),
    "sums begin anew on the way": (
        REDUCE,
        "ring",
        "product(place(ring, hop), behind)",
        "product(place(ring, hop), None)",
    ),
    "a device leaves its own part out": (
        SCATTER,
        "ring",
        "for hop in range(far, 0, -1):",
        "for hop in range(far - 1, 0, -1):",
    ),
    "a device adds its part twice": (
        REDUCE,
        "ring",
        "if hop <= ring.size - 1 - far:",
        "if hop <= far:",
    ),
    "sums along k start again with each chunk": (
        ALONG_K,
        "shard",
        "self.sums(*self._pair(ring, index, chunk), c)",
        "self.sums(*self._pair(ring, index, chunk))",
    ),
    "the wrong part of w": (
        ALONG_K,
        "shard",
        "return chunk, _part(self.b, self.problem.b.labels, ring, index)",
        "return chunk, _part(self.b, self.problem.b.labels, ring, place(ring))",
    ),
    "a part of c in the wrong place": (
        BY_ROWS,
        "shard",
        "start = index * part.shape[axis]",
        "start = place(ring) * part.shape[axis]",
    ),
    "the epilogue before the sum is complete": (
        REDUCE,
        "shard",
        'return self._kernel(a, b, self.problem.sum_type, "", into)',
        "return self._kernel(a, b, self.problem.sum_type, self.problem.epilogue, into)",
    ),
    "an operand of the epilogue from another device": (
        REDUCE,
        "shard",
        "self._at(ring, place(ring))",
        "self._at(ring, place(ring, 1))",
    ),
}
"""By what is wrong: the sharding that shows it, a file, a text in it and the wrong one."""


@pytest.mark.parametrize("name", EDITS)
def test_a_wrong_edit_is_seen(ask: Ask, name: str) -> None:
    rule, *edit = EDITS[name]
    sizes: dict[str, Any] = SHAPE | {"epilogue": "bias+relu+residual"}
    mesh = {"d": 8} if rule in RULES else {"e": 2, "d": 4}
    found = ask(mesh=mesh, specs=(RULES | TOGETHER)[rule], **sizes, edit=edit)
    assert "ratios" not in found or max(found["ratios"].values()) > 1, found


@pytest.mark.parametrize("rule", [BY_ROWS, ALONG_K, REDUCE, SCATTER])
def test_the_sources_as_they_are_give_the_right_numbers(ask: Ask, rule: str) -> None:
    """Loaded in the way of the edits, with one that changes nothing."""
    edit = ["ring", "far = ring.size // 2", "far = ring.size >> 1"]
    sizes: dict[str, Any] = SHAPE | {"epilogue": "bias+relu+residual"}
    found = ask(mesh={"d": 8}, specs=RULES[rule], **sizes, edit=edit)
    assert max(found["ratios"].values()) <= 1, found
