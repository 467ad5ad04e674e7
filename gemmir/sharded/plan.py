"""What a product of sharded arrays needs along each axis of the mesh, told from how they lie alone.

A product is `a, b -> c`, each with its dimensions named by labels as in `einsum`: `mk, kn -> mn`
forwards, `mn, kn -> mk` and `mk, mn -> kn` backwards. An axis of the mesh shards at most one
dimension of each, and the three together say what is to be done:

    a       b       c
    -       -       -       nothing: all devices along the axis do the same
    m       -       m       nothing: each has rows of its own
    -       n       n       nothing: each has columns of its own
    any     n       n       gather a: each multiplies its columns by all of a
    m       any     m       gather b: each multiplies its rows by all of b
    k       k       -       reduce: partial sums are added up for all
    k       k       m or n  scatter: partial sums are added up where they are to lie

Every other triple would compute something several times or needs an exchange that is no part of a
product; the error names the nearest of these. The table is closed under differentiation: the
products backwards of a triple are in it again.

Knows nothing of JAX, of kernels and of the mesh but the sizes of its axes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from gemmir.errors import CallError

Kind = Literal["gather_a", "gather_b", "reduce", "scatter"]
Axes = tuple[str, ...]
Place = str | None
"""The label of the dimension that an axis shards, if any."""

Triple = tuple[Place, Place, Place]
"""The places of one axis in a, b and c."""

SUM_BYTES: Final = 4
"""Bytes of an element of a sum, which is f32 or i32."""

CUT: Final = 1
LIE_ELSEWHERE: Final = 2
MOVE: Final = 3
"""What it costs to make another spec legal: an operand of which every device has a copy is cut in
place, the result comes to lie elsewhere, or an operand must be moved first."""


@dataclass(frozen=True, kw_only=True)
class Lying:
    """How one array lies on the mesh: the axes that shard each of its dimensions, major first."""

    name: str
    labels: tuple[str, ...]
    shape: tuple[int, ...]
    axes: tuple[Axes, ...]

    def along(self, label: str) -> Axes:
        """The axes that shard the dimension `label`."""
        return self.axes[self.labels.index(label)]

    def place(self, axis: str) -> Place:
        """The label of the dimension that `axis` shards."""
        return next(
            (n for n, axes in zip(self.labels, self.axes, strict=True) if axis in axes), None
        )

    def with_place(self, axis: str, label: Place) -> Lying:
        """This array with `axis` moved behind the other axes of `label`, or taken away."""
        pairs = zip(self.labels, self.axes, strict=True)
        axes = tuple(
            (*(a for a in old if a != axis), *((axis,) if name == label else ()))
            for name, old in pairs
        )
        return replace(self, axes=axes)

    @property
    def spec(self) -> str:
        """The PartitionSpec as Python code has it."""
        return f"P({', '.join(map(_spelled_axes, self.axes))})"


def _spelled_axes(axes: Axes) -> str:
    return repr(axes if len(axes) > 1 else axes[0] if axes else None)


@dataclass(frozen=True, kw_only=True)
class Collective:
    """One exchange between the `size` devices along `axes`, taken as one axis, major first.

    `extents` are those of its axes in the mesh, by name in the order of the mesh.

    `label` is the dimension that is gathered or scattered; of a reduction it is that by which the
    sums can go round a ring piece by piece, or None where no dimension of c can be cut.
    """

    kind: Kind
    axes: Axes
    extents: tuple[tuple[str, int], ...]
    label: str | None

    @property
    def size(self) -> int:
        """The number of devices."""
        return math.prod(extent for _, extent in self.extents)

    @property
    def numbers(self) -> tuple[int, ...]:
        """For each device its number where the axes are taken in the order of the mesh."""
        extents = dict(self.extents)
        strides = {
            axis: math.prod(extent for _, extent in self.extents[place + 1 :])
            for place, axis in enumerate(extents)
        }
        steps = tuple(strides[axis] for axis in self.axes)
        places = itertools.product(*(range(extents[axis]) for axis in self.axes))
        return tuple(
            sum(i * step for i, step in zip(index, steps, strict=True)) for index in places
        )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How `a, b -> c` is computed: gather, multiply, add up. `ring` is the one that overlaps."""

    a: Lying
    b: Lying
    c: Lying
    gathers: tuple[Collective, ...]
    sums: tuple[Collective, ...]
    ring: Collective | None

    @property
    def contracted(self) -> tuple[str, ...]:
        """The labels that a and b share and c lacks."""
        return _contracted(self.a, self.c)


def plan(
    a: Lying,
    b: Lying,
    c: Lying,
    sizes: Mapping[str, int],
    *,
    item_bytes: int,
    overlap: bool | None,
) -> Plan:
    """The plan of `a, b -> c` on a mesh whose axes have `sizes`.

    Of the collectives that can go round a ring the one that moves the most bytes does; with
    `overlap=True` there must be one, and with `overlap=False` none does. Raises `CallError`:
    GEM0550 where an axis is not in the mesh, GEM0551 where an extent cannot be shared out, GEM0552
    where the places of an axis make no product, GEM0554 where axes of one dimension stand in an
    order that would need an exchange, GEM0556 where nothing can go round a ring and should.
    """
    for array in (a, b, c):
        _check_axes(array, sizes)
    found = [_collective(axis, a, b, c, sizes) for axis in sizes]
    merged = _merge([each for each in found if each is not None], a, b, c)
    _check_order(merged, a, b, c)
    for array in (a, b, c):
        _check_extents(array, sizes)
    merged = tuple(each for each in merged if each.size > 1)
    gathers = tuple(each for each in merged if each.kind in ("gather_a", "gather_b"))
    sums = tuple(_cut(each, c, sizes, merged) for each in merged if each not in gathers)
    rings = [each for each in (*gathers, *sums) if each.label is not None]
    ring = None if overlap is False else _heaviest(rings, a, b, c, sizes, item_bytes)
    if overlap and ring is None:
        raise _no_ring(sums, c, sizes)
    return Plan(a=a, b=b, c=c, gathers=gathers, sums=sums, ring=ring)


def _no_ring(sums: tuple[Collective, ...], c: Lying, sizes: Mapping[str, int]) -> CallError:
    if not sums:
        return CallError(
            "GEM0556", "overlap=True, and the specs ask for no communication", "leave overlap out"
        )
    local = " x ".join(map(str, _local_shape(c, sizes)))
    return CallError(
        "GEM0556",
        f"overlap=True, and sums of {local} on {_named(sums[0].axes)} cannot go round the ring in "
        f"{sums[0].size} equal pieces",
        f"use rows or columns by multiples of {sums[0].size}, or leave overlap out",
    )


def _named(axes: Axes) -> str:
    return " and ".join(f"axis {axis!r}" for axis in axes)


def _local_shape(array: Lying, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The extents of one shard."""
    return tuple(
        extent // math.prod(sizes[axis] for axis in axes)
        for extent, axes in zip(array.shape, array.axes, strict=True)
    )


# What a spec may say ------------------------------------------------------------------------------


def _check_axes(array: Lying, sizes: Mapping[str, int]) -> None:
    named = [axis for axes in array.axes for axis in axes]
    for axis in named:
        if axis not in sizes:
            raise CallError(
                "GEM0550",
                f"the spec {array.spec} of {array.name} names the axis {axis!r}, which the mesh "
                "does not have",
                f"use {' or '.join(map(repr, sizes))}",
            )


def _check_extents(array: Lying, sizes: Mapping[str, int]) -> None:
    for number, (extent, axes) in enumerate(zip(array.shape, array.axes, strict=True)):
        parts = math.prod(sizes[axis] for axis in axes)
        if extent % parts:
            below, above = extent // parts * parts, -(-extent // parts) * parts
            raise CallError(
                "GEM0551",
                f"dimension {number} of {array.name} has {extent} elements, which the {parts} "
                f"devices along {_named(axes)} cannot share",
                f"use {above}" if below == 0 else f"use {below} or {above}",
            )


# What an axis asks for ----------------------------------------------------------------------------


def _contracted(a: Lying, c: Lying) -> tuple[str, ...]:
    return tuple(label for label in a.labels if label not in c.labels)


def _kind(triple: Triple, contracted: Iterable[str]) -> Kind | Literal["nothing"] | None:
    """What the places of an axis ask for; None where they make no product."""
    a, b, c = triple
    shares_sum = a is not None and a == b and a in contracted
    if shares_sum:
        return "reduce" if c is None else "scatter"
    if c is None:
        return "nothing" if a is None and b is None else None
    if b == c:
        return "nothing" if a is None else "gather_a"
    if a == c:
        return "nothing" if b is None else "gather_b"
    return None


def _collective(
    axis: str, a: Lying, b: Lying, c: Lying, sizes: Mapping[str, int]
) -> Collective | None:
    triple = (a.place(axis), b.place(axis), c.place(axis))
    kind = _kind(triple, _contracted(a, c))
    if kind is None:
        raise _no_product(axis, triple, a, b, c)
    if kind == "nothing":
        return None
    labels: Mapping[Kind, Place] = {
        "gather_a": triple[0],
        "gather_b": triple[1],
        "scatter": triple[2],
        "reduce": None,
    }
    extents = ((axis, sizes[axis]),)
    return Collective(kind=kind, axes=(axis,), extents=extents, label=labels[kind])


def _no_product(axis: str, triple: Triple, a: Lying, b: Lying, c: Lying) -> CallError:
    nearest = min(
        _legal_triples(a, b, c), key=lambda other: _distance(triple, other), default=triple
    )
    pairs = zip((a, b, c), nearest, strict=True)
    near_a, near_b, near_c = (
        array if array.place(axis) == place else array.with_place(axis, place)
        for array, place in pairs
    )
    return CallError(
        "GEM0552",
        f"axis {axis!r} of {a.name} {a.spec}, {b.name} {b.spec} and {c.name} {c.spec} makes no "
        "product without copies or an exchange of results",
        f"the nearest that does: {near_a.name} {near_a.spec}, {near_b.name} {near_b.spec}, "
        f"{near_c.name} {near_c.spec}",
    )


def _legal_triples(a: Lying, b: Lying, c: Lying) -> Iterator[Triple]:
    contracted = _contracted(a, c)
    for in_a in (None, *a.labels):
        for in_b in (None, *b.labels):
            for in_c in (None, *c.labels):
                if _kind((in_a, in_b, in_c), contracted) is not None:
                    yield in_a, in_b, in_c


def _distance(given: Triple, other: Triple) -> int:
    """How much has to be changed between two triples."""
    pairs = zip(given[:2], other[:2], strict=True)
    operands = (0 if old == new else MOVE if old else CUT for old, new in pairs)
    return sum(operands) + (LIE_ELSEWHERE if given[2] != other[2] else 0)


# What axes ask for together -----------------------------------------------------------------------


def _merge(found: list[Collective], a: Lying, b: Lying, c: Lying) -> tuple[Collective, ...]:
    """Axes that ask for the same along the same dimension, as one, in the order of their spec."""
    groups: dict[tuple[Kind, str | None], list[Collective]] = {}
    for each in found:
        groups.setdefault((each.kind, each.label), []).append(each)
    merged: list[Collective] = []
    for (kind, label), group in groups.items():
        where = {"gather_b": b, "scatter": c}.get(kind, a)
        order = [axis for axes in where.axes for axis in axes]
        axes = sorted((each.axes[0] for each in group), key=order.index)
        extents = tuple(extent for each in group for extent in each.extents)
        merged.append(Collective(kind=kind, axes=tuple(axes), extents=extents, label=label))
    return tuple(merged)


def _check_order(found: tuple[Collective, ...], a: Lying, b: Lying, c: Lying) -> None:
    """What stays of a dimension after gathers must lie alike in the two arrays that have it.

    So an axis that is gathered or scattered must be the minor one of its dimension.
    """
    for label in dict.fromkeys((*a.labels, *b.labels)):
        having = [
            (array, _kept(array, label, found, kind))
            for array, kind in ((a, "gather_a"), (b, "gather_b"), (c, "scatter"))
            if label in array.labels
        ]
        (first, kept), (second, also_kept) = having
        if kept is None or also_kept is None or kept != also_kept:
            raise CallError(
                "GEM0554",
                f"the axes of dimension {first.labels.index(label)} of {first.name} "
                f"{first.spec} and of dimension {second.labels.index(label)} of {second.name} "
                f"{second.spec} stand in an order that would need an exchange",
                "name the axes that both have first and in one order",
            )


def _kept(array: Lying, label: str, found: tuple[Collective, ...], kind: str) -> Axes | None:
    """The axes of a dimension without those of its collective, which must be the last ones."""
    axes = array.along(label)
    for each in found:
        if each.kind != kind or each.label != label:
            continue
        if axes[-len(each.axes) :] != each.axes:
            return None
        axes = axes[: -len(each.axes)]
    return axes


def _cut(
    each: Collective, c: Lying, sizes: Mapping[str, int], found: tuple[Collective, ...]
) -> Collective:
    """A reduction with the dimension of c by which its ring can cut the sums.

    That is not one that is scattered too, for then the pieces would not lie one after another.
    """
    if each.kind != "reduce":
        return each
    scattered = [other.label for other in found if other.kind == "scatter"]
    local = zip(c.labels, _local_shape(c, sizes), strict=True)
    fitting = (n for n, extent in local if n not in scattered and extent % each.size == 0)
    return replace(each, label=next(fitting, None))


def _heaviest(
    found: Iterable[Collective],
    a: Lying,
    b: Lying,
    c: Lying,
    sizes: Mapping[str, int],
    item_bytes: int,
) -> Collective | None:
    """The collective for which a device receives the most bytes."""

    def received(each: Collective) -> int:
        if each.kind in ("gather_a", "gather_b"):
            operand = a if each.kind == "gather_a" else b
            return (each.size - 1) * math.prod(_local_shape(operand, sizes)) * item_bytes
        pieces = 1 if each.kind == "scatter" else 2 / each.size  # all are gathered again
        return int((each.size - 1) * math.prod(_local_shape(c, sizes)) * pieces * SUM_BYTES)

    return max(found, key=received, default=None)
