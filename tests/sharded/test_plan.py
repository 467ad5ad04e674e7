"""What is to be gathered and added up, told from specs alone: no JAX is needed."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Any, Final

import pytest

from gemmir.errors import CallError
from gemmir.sharded.plan import Lying, Plan, plan

SIZES: Final = {"d": 4, "e": 2, "one": 1}


def lying(name: str, labels: str, shape: Mapping[str, int], spec: tuple[Any, ...]) -> Lying:
    """An array whose dimensions are letters, and its spec: an entry is a word of axes."""
    axes = tuple(tuple(entry.split()) for entry in spec)
    return Lying(name=name, labels=tuple(labels), shape=tuple(shape[n] for n in labels), axes=axes)


def planned(
    x: tuple[str, str],
    w: tuple[str, str],
    result: tuple[str, str],
    *,
    m: int = 16,
    k: int = 32,
    n: int = 24,
    overlap: bool | None = None,
) -> Plan:
    """The plan of `mk, kn -> mn`."""
    shape = {"m": m, "k": k, "n": n}
    return plan(
        lying("x", "mk", shape, x),
        lying("w", "kn", shape, w),
        lying("the result", "mn", shape, result),
        SIZES,
        item_bytes=2,
        overlap=overlap,
    )


NONE: Final = ("", "")

TABLE: Final = (
    (NONE, NONE, NONE, "", ""),
    (("d", ""), NONE, ("d", ""), "", ""),
    (NONE, ("", "d"), ("", "d"), "", ""),
    (("d", ""), ("", "d"), ("", "d"), "gather_a m", ""),
    (("", "d"), ("", "d"), ("", "d"), "gather_a k", ""),
    (("d", ""), ("", "d"), ("d", ""), "gather_b n", ""),
    (("d", ""), ("d", ""), ("d", ""), "gather_b k", ""),
    (("", "d"), ("d", ""), NONE, "", "reduce m"),
    (("", "d"), ("d", ""), ("d", ""), "", "scatter m"),
    (("", "d"), ("d", ""), ("", "d"), "", "scatter n"),
)
"""Specs of x, w and the result that one axis can have, and what they ask for."""


def said(found: Plan) -> tuple[str, str]:
    """The collectives of a plan in words."""
    gathers, sums = (
        ", ".join(f"{each.kind} {each.label}" for each in group)
        for group in (found.gathers, found.sums)
    )
    return gathers, sums


@pytest.mark.parametrize(("x", "w", "result", "gathers", "sums"), TABLE)
def test_what_an_axis_asks_for(
    x: tuple[str, str], w: tuple[str, str], result: tuple[str, str], gathers: str, sums: str
) -> None:
    found = planned(x, w, result)
    assert said(found) == (gathers, sums)
    assert (found.ring is None) == (not gathers and not sums)
    assert planned(x, w, result, overlap=False).ring is None


def test_every_other_triple_is_refused_with_one_that_is_in_the_table() -> None:
    places = (NONE, ("d", ""), ("", "d"))
    legal = [case[:3] for case in TABLE]
    for triple in itertools.product(places, places, places):
        if triple in legal:
            continue
        with pytest.raises(CallError) as caught:
            planned(*triple)
        assert caught.value.code == "GEM0552"
        specs = re.findall(r"P\((.*?)\)", caught.value.hint)
        near = tuple(tuple(re.sub(r"'|None", "", s).split(", ")) for s in specs)
        assert near in legal, caught.value.hint


BACKWARDS: Final = (
    ("", ""),
    ("", "reduce k"),
    ("reduce m", ""),
    ("scatter m", "gather_a m"),
    ("scatter k", "gather_a k"),
    ("gather_b n", "scatter n"),
    ("gather_b k", "scatter k"),
    ("", ""),
    ("gather_a m", "gather_b m"),
    ("gather_a n", "gather_b n"),
)
"""What the derivatives by x and by w of each of the table ask for."""


@pytest.mark.parametrize(("case", "wanted"), [*zip(TABLE, BACKWARDS, strict=True)])
def test_derivatives_are_in_the_table_too(
    case: tuple[tuple[str, str], tuple[str, str], tuple[str, str], str, str],
    wanted: tuple[str, str],
) -> None:
    x, w, result, *_ = case
    shape = {"m": 16, "k": 32, "n": 24}
    a, b = lying("x", "mk", shape, x), lying("w", "kn", shape, w)
    c = lying("the result", "mn", shape, result)
    by_x = plan(c, b, a, SIZES, item_bytes=2, overlap=None)
    by_w = plan(a, c, b, SIZES, item_bytes=2, overlap=None)
    assert ("".join(said(by_x)), "".join(said(by_w))) == wanted


def test_axes_that_ask_for_the_same_are_one_ring() -> None:
    found = planned(("d e", ""), ("", "d e"), ("", "d e"))
    (ring,) = found.gathers
    assert (ring.axes, ring.size, ring.label) == (("d", "e"), 8, "m")
    assert found.ring is ring


def test_what_moves_the_most_goes_round_the_ring() -> None:
    fsdp_and_tensor = (("e", "d"), ("d", "e"), ("e", ""))
    wide = planned(*fsdp_and_tensor, m=2048, k=64, n=64)
    deep = planned(*fsdp_and_tensor, m=16, k=4096, n=4096)
    assert said(wide) == ("gather_b n", "reduce m")
    assert wide.ring in wide.sums
    assert deep.ring in deep.gathers


def test_an_axis_of_one_device_asks_for_nothing() -> None:
    found = planned(("", "one"), ("one", ""), NONE)
    assert (found.gathers, found.sums, found.ring) == ((), (), None)


def test_a_sum_for_all_goes_by_what_can_be_cut() -> None:
    assert said(planned(("", "d"), ("d", ""), NONE, m=18)) == ("", "reduce n")
    assert said(planned(("e", "d"), ("d", ""), ("e", ""), m=18)) == ("", "reduce n")
    assert said(planned(("", "d"), ("d", ""), NONE, m=18, n=18)) == ("", "reduce None")
    assert planned(("", "d"), ("d", ""), NONE, m=18, n=18).ring is None


def test_pieces_of_a_sum_for_all_lie_together_when_it_is_scattered_too() -> None:
    """Scattered by rows as well, it goes round by columns."""
    found = planned(("", "d e"), ("d e", ""), ("e", ""))
    assert said(found) == ("", "reduce n, scatter m")


Refused = tuple[str, tuple[Any, Any, Any], dict[str, Any], str, str]

ERRORS: Final[tuple[Refused, ...]] = (
    ("GEM0550", (("f", ""), NONE, ("f", "")), {}, "does not have", "'d' or 'e' or 'one'"),
    ("GEM0551", (("d", ""), NONE, ("d", "")), {"m": 18}, "dimension 0 of x has 18", "16 or 20"),
    ("GEM0551", (("d", ""), NONE, ("d", "")), {"m": 3}, "has 3 elements", "use 4"),
    ("GEM0551", (NONE, ("", "d e"), ("", "d e")), {"n": 20}, "dimension 1 of w", "16 or 24"),
    ("GEM0551", (("", "d"), ("d", ""), ("d", "")), {"m": 18}, "of the result", "16 or 20"),
    ("GEM0552", (("d", ""), NONE, NONE), {}, "makes no product", "the result P('d', None)"),
    ("GEM0552", (("", "d"), NONE, NONE), {}, "makes no product", "w P('d', None)"),
    ("GEM0554", (("e d", ""), NONE, ("d e", "")), {}, "stand in an order", "in one order"),
    ("GEM0554", (("d e", ""), ("", "d"), ("e", "d")), {}, "stand in an order", "in one order"),
    ("GEM0556", (NONE, NONE, NONE), {"overlap": True}, "no communication", "leave overlap out"),
    (
        "GEM0556",
        (("", "d"), ("d", ""), NONE),
        {"overlap": True, "m": 18, "n": 18},
        "sums of 18 x 18",
        "multiples of 4",
    ),
)


@pytest.mark.parametrize(("code", "specs", "sizes", "message", "hint"), ERRORS)
def test_errors(
    code: str,
    specs: tuple[tuple[str, str], tuple[str, str], tuple[str, str]],
    sizes: dict[str, Any],
    message: str,
    hint: str,
) -> None:
    with pytest.raises(CallError) as caught:
        planned(*specs, **sizes)
    assert caught.value.code == code
    assert message in caught.value.message
    assert hint in caught.value.hint
