"""What a space can say, what becomes of it, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import hypothesis.strategies as st
import pytest
from hypothesis import given

from gemmir import ANY, Gemm, Schedule
from gemmir.errors import ParseError, ScheduleError
from gemmir.search.spaces import BoundSpace, Space
from gemmir.search.spaces.expression import FUNCTIONS, parse_expression

CUBE: Final = Gemm(m=96, n=80, k=64)
TARGET: Final = "cpu:x86-64-v3"
STEM: Final = "tile{loops=m,n sizes=?x,8}"


def bound(text: str, gemm: Gemm = CUBE) -> BoundSpace:
    return Space.parse(text).bind(gemm, TARGET)


def values(text: str, *, words: bool) -> tuple[int | str, ...]:
    stem = "promote{operand=c to=?x}" if words else STEM
    return bound(f"?x = {text}\n{stem}").holes["x"]


# Values -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("3", (3,)),
        ("1..4", (1, 2, 3, 4)),
        ("8..24 step 8", (8, 16, 24)),
        ("4 | 1..5", (4, 1, 2, 3, 5)),
        ("powers of 2 in 3..20", (4, 8, 16)),
        ("powers of 3 up to 9", (1, 3, 9)),
        ("divisors of m up to 12", (1, 2, 3, 4, 6, 8, 12)),
        ("divisors of n", (1, 2, 4, 5, 8, 10, 16, 20, 40, 80)),
        ("divisors of n in 5..k", (5, 8, 10, 16, 20, 40)),
        ("multiples of lanes in 9..n / 2", (16, 24, 32, 40)),
        ("multiples of 30 up to m", (30, 60, 90)),
        ("parts of 10", (1, 2, 3, 4, 5, 10)),
        ("parts of m by 8 in 16..64", (16, 24, 32, 48)),
        ("k | 2 * lanes", (64, 16)),
        ("vector_registers - 2 | l1_bytes // 4096", (14, 8)),
        ("l2 | panel:16 | m,n", ("l2", "panel:16", "m,n")),
        ("'' | 'm' | \"a | b\"", ("", "m", "a | b")),
        ("1 | 2 | 1", (1, 2)),
    ],
)
def test_values(text: str, found: tuple[int | str, ...]) -> None:
    assert values(text, words=isinstance(found[0], str)) == found


@given(st.integers(1, 400), st.integers(1, 9))
def test_equal_parts(extent: int, by: int) -> None:
    """They are the sizes ceil(extent / parts), rounded up, of every number of parts."""
    sizes = {-(-extent // count) for count in range(1, extent + 1)}
    rounded = {min(-(-size // by) * by, extent) for size in sizes}
    found = Space.parse(f"?x = parts of m by {by}\n{STEM}").bind(
        Gemm(m=extent, n=1, k=1), "cpu:x86-64-v3"
    )
    assert found.holes["x"] == tuple(sorted(rounded))


def test_a_schedule_is_a_space_with_one_point() -> None:
    text = (
        "tile{loops=m,n sizes=6,16}\npromote{operand=c to=registers}  # sums\nvectorize{with=fma}"
    )
    space = bound(text)
    assert (space.size, space.first) == (1, {})
    assert space.schedule({}) == Schedule.parse(text)


def test_holes_stand_in_values_in_lists_and_for_passes() -> None:
    space = bound(
        """
        ?x = 6 | 4                         # rows
        ?order = m,n | n,m
        ?keep = '' | 'promote{operand=b to=?level layout=panel:?nr}'
        ?level = l2 | l3
        ?hint = true | false
        let nr = 2 * lanes
        ?keep
        tile{loops=?order sizes=?x,?nr}
        tile{loops=k sizes=32} if x > 4
        promote{operand=c to=registers prefetch=?hint}
        """
    )
    point = {"x": 6, "order": "m,n", "keep": space.holes["keep"][1], "level": "l3", "hint": "true"}
    assert space.text(point).split("\n") == [
        "promote{operand=b to=l3 layout=panel:16}",
        "tile{loops=m,n sizes=6,16}",
        "tile{loops=k sizes=32}",
        "promote{operand=c to=registers prefetch=true}",
    ]
    other = space.text({**point, "x": 4, "keep": "", "order": "n,m", "hint": "false"})
    assert other.split("\n") == [
        "tile{loops=n,m sizes=4,16}",
        "promote{operand=c to=registers prefetch=false}",
    ]


def test_a_letter_may_follow_a_hole() -> None:
    space = bound("?x = 8 | 4\npromote{operand=a to=l2 layout=panel:?{x}x2}")
    assert space.text({"x": 4}) == "promote{operand=a to=l2 layout=panel:4x2}"


def test_lines_go_on() -> None:
    space = bound(f"?x = 1 |\n  2 |  # two\n  3\nwhere (x < 3\n  or x > 9) and\n  x > 1\n{STEM}")
    assert [point["x"] for point in space.points()] == [2]


# Expressions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7 / 2 * 2", 7),
        ("7 // 2", 3),
        ("-7 % 4 + 2 ** 3", 9),
        ("ceil(7 / 2) + floor(-1 / 2)", 3),
        ("min(x, 9) + max(x, 9, 10)", 15),
        ("gcd(12, 18) * lcm(4, 6) - abs(-2)", 70),
        ("log2(64)", 6),
        ("1 < x <= 5 and not x == 4", True),
        ("x > 5 or x in (1, 5)", True),
        ("x not in (1, 5)", False),
        ("'peel' if m % ?x else 'clip'", "peel"),
        ("word == 'l2' and word != 'l3'", True),
    ],
)
def test_expressions(text: str, value: int | str) -> None:
    found = parse_expression(text, 1)
    assert found.evaluate({"x": 5, "m": 96, "word": "l2"}) == value


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "().__class__",
        "x.real",
        "[y for y in (1, 2)]",
        "lambda: 1",
        "x := 3",
        "(1, 2)[0]",
        "f'{x}'",
        "1.5",
        "x is 1",
        "~x",
        "x << 70",
        "x @ x",
        "min(*x)",
        "max(1, default=2)",
        "x in y",
        "1 +",
        "None",
        "(" * 400 + "x" + ")" * 400,
    ],
)
def test_nothing_else_can_be_said(text: str) -> None:
    with pytest.raises(ScheduleError, match="GEM1402: line 3") as caught:
        parse_expression(text, 3)
    assert set(FUNCTIONS) <= set(caught.value.hint.replace(",", " ").split())


# Refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("?m = 3\ntile{loops=m sizes=?m}", "GEM1400: line 1: m is a number of the problem"),
        ("?x = 3\n?x = 4\n" + STEM, "GEM1400: line 2: ?x is defined in line 1 already; join"),
        ("?9 = 3", "GEM1400: line 1: '9' is no name"),
        ("?x = 1 |\n" + STEM, "GEM1400: line 1: '?x = 1 |' ends in its middle"),
        ("where (1 <", "GEM1400: line 1: 'where (1 <' ends in its middle"),
        ("?x = 3\n?y = x..9\n" + STEM, "GEM1400: line 2: the values of ?y depend on ?x"),
        ("?mr = 3\ntile{loops=m sizes=?ms}", "GEM1401: line 2: nothing says what stands in ?ms"),
        ("?mr = 3\ntile{loops=m sizes=?ms}", "or use ?mr"),
        ("?", "GEM1400: line 1: in '?' a ? stands before no name"),
        (
            "?x = 1 | 2\ntile{loops=m,n sizes=?{x,16}",
            "GEM1400: line 2: in 'tile{loops=m,n sizes=?{x,16}' a ?",
        ),
        ("?x = 'tile{loops=m sizes=?}'\n?x", "GEM1400: line 1: in 'tile{loops=m sizes=?}' a ?"),
        ("?x = parts of 0\n" + STEM, "GEM1403: line 1: ?x has no values here: parts of 0"),
        ("?x = 3", "GEM1401: line 1: ?x stands nowhere"),
        ("?x = '?y'\n?y = '?x'\n?x", "GEM1401: line 1: ?x stands in itself"),
        ("?x = 3\nwhere x < kk\n" + STEM, "GEM1401: line 2: 'x < kk' uses kk"),
        ("?x = 3\nwhere x < kk\n" + STEM, "use k"),
        ("?x = 3\nwhere y\nlet y = 2\n" + STEM, "GEM1401: line 2: 'y' uses y"),
        ("?x = none | m\nwhere x != 'none'\n?x", "GEM1400: line 1: among the words of ?x m is a"),
        ("?x = m | n\ntile{loops=?x sizes=4}", "write 'm' for the word"),
        ("?x = 1 | 2\ntile{loops=m sizes=?{y}}", "GEM1401: line 2: nothing says what stands in ?y"),
        ("?x = 3 || 4\n" + STEM, "GEM1403: line 1: an alternative of '3 || 4' is empty"),
        (
            "?x = 9..k/9\n" + STEM,
            "GEM1403: line 1: ?x has no values here: 9..k/9 is from 9 to 64/9",
        ),
        ("?x = k / 9\n" + STEM, "GEM1403: line 1: ?x: k / 9 is 64/9, no whole number"),
        ("?x = 1..2**30\n" + STEM, "GEM1403: line 1: ?x has more than 65536 values"),
        ("?x = 1..9 step 0\n" + STEM, "GEM1403: line 1: ?x: 1..9 step 0 counts by 0; use 1 or"),
        ("?x = powers of 1 up to 9\n" + STEM, "counts by 1; use 2 or more"),
        ("?x = powers of 2\n" + STEM, "GEM1403: line 1: ?x: powers of 2 have no end"),
        ("?x = 3\nwhere x < vmem_bytes_per_core\n" + STEM, "GEM1407: line 2 uses vmem_bytes_per"),
        ("?x = 3\ntyle{loops=m sizes=?x}", "GEM1408: line 2 cannot be read, whatever"),
        ("?x = 3\ntyle{loops=m sizes=?x}", "there is no pass 'tyle'"),
    ],
)
def test_refused(text: str, words: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        bound(text)
    assert words in str(caught.value)


def test_a_number_that_is_known_in_a_call_only_cannot_be_used() -> None:
    space = Space.parse("?x = 8 | k\n" + STEM)
    with pytest.raises(ScheduleError, match="GEM1407: line 1 uses k, which"):
        space.bind(Gemm(m=96, n=80, k=ANY), TARGET)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "a.space"
    path.write_text(f"?x = 2\n{STEM}\n")
    assert Space.read(path) == Space.parse(path.read_text())
    with pytest.raises(ParseError, match=r"GEM1406: the space .*b.space cannot be read"):
        Space.read(tmp_path / "b.space")
