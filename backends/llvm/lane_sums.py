"""Emitter of gemmir.lanesum: halves of several rows are added at once, in one vector.

    x0 … x7, y0 … y7   ->   x0+x4 … x3+x7, y0+y4 … y3+y7   ->   …   ->   a lane for each row

A vector of w lanes then takes w - 1 additions for w rows, where one row by itself takes as many as
halves it has. What is added to what, and in which order, is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import FixedBitwidthType, IntegerType

from gemmir.backends.llvm.emitter import Emitter, Rows, element_of, set_rows
from gemmir.backends.llvm.text import FunctionText, scalar_type
from gemmir.ir.dialect import LaneSumOp

BLOCK_BYTES = 16
"""Shuffles within blocks of 16 bytes, the same in each, take one instruction on x86, and so do
those that choose whole blocks."""

NOTHING = -1
"""A lane that holds no sum."""


@dataclass(frozen=True, kw_only=True)
class _Lanes:
    """Vectors as LLVM has them: the type of an element, how two are added, lanes of a block."""

    text: FunctionText
    scalar: str
    add: str
    block: int

    def shuffled(self, x: str, y: str, lanes: int, chosen: Sequence[int]) -> str:
        """The `chosen` lanes of x and y, which have so many each."""
        wide = f"<{lanes} x {self.scalar}>"
        mask = ", ".join(f"i32 {lane}" for lane in chosen)
        return self.text.value(
            f"shufflevector {wide} {x}, {wide} {y}, <{len(chosen)} x i32> <{mask}>"
        )

    def sum(self, x: str, y: str, lanes: int) -> str:
        """x + y, lane by lane."""
        return self.text.value(f"{self.add} <{lanes} x {self.scalar}> {x}, {y}")


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """A vector of several rows, each in a part of it; `rows` are their numbers, from left to right.

    A vector of nothing is None.
    """

    vector: str | None
    rows: tuple[int, ...]


def lane_sum(e: Emitter, op: LaneSumOp) -> None:
    """The rows of the result, whose elements are taken out of the vectors of sums.

    Neighbours along a row come to lie in one block, so that a row is stored from there.
    """
    element = element_of(op.result.type)
    assert isinstance(element, FixedBitwidthType)
    scalar, lanes = scalar_type(element), e.shape(op.source.type)[1]
    block = max(min(BLOCK_BYTES // element.size, lanes), 1)
    add = "add" if isinstance(element, IntegerType) else "fadd"
    unit = _Lanes(text=e.text, scalar=scalar, add=add, block=block)
    rows, columns = e.shape(op.result.type)
    source = e.rows(op.source)
    across = min(1 << (columns - 1).bit_length(), block)
    high = lanes // block
    places: dict[int, tuple[str, int]] = {}
    for top in range(0, rows, lanes // across):
        for left in range(0, columns, across):
            numbers = [
                row * columns + column if row < rows and column < columns else NOTHING
                for down in range(0, lanes // across, high)
                for column in range(left, left + across)
                for row in range(top + down, top + down + high)
            ]
            found = _added(unit, [_alone(source, n) for n in numbers], lanes)
            assert found.vector is not None
            places |= {n: (found.vector, at) for at, n in enumerate(found.rows) if n != NOTHING}
    made: Rows = []
    for row in range(rows):
        made.append(_row(unit, [places[row * columns + c] for c in range(columns)], lanes))
    set_rows(e, op.result, made)


def _alone(source: Rows, number: int) -> _Parts:
    return _Parts(vector=None if number == NOTHING else source[number], rows=(number,))


def _added(unit: _Lanes, parts: list[_Parts], lanes: int) -> _Parts:
    """One vector with a lane for each row of as many `parts` as it has lanes."""
    size = lanes
    while size > 1:
        pairs = zip(parts[::2], parts[1::2], strict=True)
        parts = [_halved(unit, x, y, lanes, size) for x, y in pairs]
        size //= 2
    return parts[0]


def _halved(unit: _Lanes, x: _Parts, y: _Parts, lanes: int, size: int) -> _Parts:
    """x and y in one vector: of each row the lower half of its `size` lanes plus the upper one.

    Rows of several blocks come one after another, first those of x; others stay in their blocks,
    where those of y follow those of x.
    """
    count = lanes // size
    within = count if size > unit.block else unit.block // size
    order = [
        (of, first + part)
        for first in range(0, count, within)
        for of in (0, 1)
        for part in range(within)
    ]
    rows = tuple((x, y)[of].rows[part] for of, part in order)
    if x.vector is None and y.vector is None:
        return _Parts(vector=None, rows=rows)
    lower, upper = (
        unit.shuffled(
            x.vector or "poison",
            y.vector or "poison",
            lanes,
            [
                of * lanes + part * size + half + lane
                for of, part in order
                for lane in range(size // 2)
            ],
        )
        for half in (0, size // 2)
    )
    return _Parts(vector=unit.sum(lower, upper, lanes), rows=rows)


def _row(unit: _Lanes, places: Sequence[tuple[str, int]], lanes: int) -> str:
    """A row of the result: a scalar, lanes of one or two vectors, or elements of more."""
    vectors = list(dict.fromkeys(vector for vector, _ in places))
    if len(places) == 1:
        (vector, at) = places[0]
        return unit.text.value(f"extractelement <{lanes} x {unit.scalar}> {vector}, i64 {at}")
    if len(vectors) <= 2:
        chosen = [vectors.index(vector) * lanes + at for vector, at in places]
        return unit.shuffled(vectors[0], vectors[-1], lanes, chosen)
    made, t = "poison", f"<{len(places)} x {unit.scalar}>"
    for number, (vector, at) in enumerate(places):
        one = unit.text.value(f"extractelement <{lanes} x {unit.scalar}> {vector}, i64 {at}")
        made = unit.text.value(f"insertelement {t} {made}, {unit.scalar} {one}, i64 {number}")
    return made
