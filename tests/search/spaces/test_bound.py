"""Which points are legal: as lowering says, counted once each, and drawn without preference."""

from __future__ import annotations

from collections import Counter
from typing import Final

import hypothesis.strategies as st
import pytest
from hypothesis import given

import gemmir
from gemmir import Gemm
from gemmir.errors import GemmirError, ScheduleError
from gemmir.search.spaces import BoundSpace, Space, drawing
from gemmir.search.spaces.bound import REPEATED
from tests.strategies import examples

TARGET: Final = "cpu:x86-64-v3"
SMALL: Final = Gemm(m=30, n=24, k=20)

ROUGH: Final = """
?mr = 6 | 1..9
?nr = 16 | 8 | 12 | 24
?kc = k | 5 | 8
?edges = clip | peel | overlap
?width = 8 | 4 | 3 | 16
?level = l1 | l2 | l9
?steps_of_k = 1 | 2 | 40
?a = '' | 'promote{operand=a to=?level layout=panel:?mr}' | 'promote{operand=a}'
tile{loops=k sizes=?kc} if kc < k
?a
tile{loops=m,n sizes=?mr,?nr edges=?edges}
promote{operand=c to=registers}
vectorize{with=fma width=?width}
unroll{loop=k factor=?steps_of_k} if steps_of_k > 1
"""
"""A space that asks for what cannot be in many ways: by the text, the machine and the passes."""

NEAT: Final = """
?mr = 4 | 1..6
?nv = 1 | 2 | 3
?kc = 8 | 4 | k
?space = l1 | l2
let nr = nv * lanes
where mr * nv <= 9
where kc == k or mr < 6
tile{loops=k sizes=?kc} if kc < k
promote{operand=b to=?space layout=panel:?nr} if nv > 1
tile{loops=m,n sizes=?mr,?nr}
promote{operand=c to=registers}
vectorize{with=fma width=?lanes}
"""
"""A space of which a hole is not used where there is no copy."""


@pytest.fixture(scope="module")
def rough() -> BoundSpace:
    return Space.parse(ROUGH).bind(SMALL, TARGET)


@pytest.fixture(scope="module")
def neat() -> BoundSpace:
    return Space.parse(NEAT).bind(SMALL, TARGET)


def lowering_code(space: BoundSpace, text: str) -> str | None:
    """The code that lowering ends with, None where it succeeds."""
    try:
        gemmir.lower(space.gemm, space.target, text)
    except GemmirError as error:
        return error.code
    return None


@given(index=st.integers(0, 10**9))
def test_a_point_is_legal_if_and_only_if_it_lowers(rough: BoundSpace, index: int) -> None:
    point = rough.at(index % rough.size)
    refusal = rough.refusal(point)
    if refusal is None:
        assert lowering_code(rough, rough.text(point)) is None
    elif refusal.code is not None:
        assert lowering_code(rough, rough.text(point)) == refusal.code
        assert refusal.reason.startswith(refusal.code)
    else:
        assert refusal.reason == REPEATED


def test_points_are_refused_for_every_kind_of_reason(rough: BoundSpace) -> None:
    found = Counter(
        refusal.code for i in range(0, rough.size, 211) if (refusal := rough.refusal(rough.at(i)))
    )
    text, machine, passes = {"GEM0303"}, {"GEM0311", "GEM0312"}, {"GEM0327", "GEM0331"}
    for codes in (text, machine, passes):
        assert codes & {*found}, found


def test_without_lowering_no_legal_point_is_refused(rough: BoundSpace) -> None:
    for index in range(0, rough.size, 301):
        point = rough.at(index)
        quick = rough.refusal(point, lower=False)
        assert quick is None or quick == rough.refusal(point)


def test_sizes_are_asked_before_anything_is_lowered(rough: BoundSpace) -> None:
    found = {
        refusal.code
        for i in range(0, rough.size, 97)
        if (refusal := rough.refusal(rough.at(i), lower=False))
    }
    assert {"GEM0311", "GEM0312"} <= found


# Counting -----------------------------------------------------------------------------------------


def test_the_census_is_what_the_points_say(neat: BoundSpace) -> None:
    points = [neat.at(index) for index in range(neat.size)]
    assert len({tuple(p.values()) for p in points}) == neat.size == 6 * 3 * 3 * 2
    refusals = [neat.refusal(point, lower=False) for point in points]
    census = neat.count()
    assert census.is_exact
    assert census.refused == Counter(r.reason for r in refusals if r is not None)
    legal = [point for point, refusal in zip(points, refusals, strict=True) if refusal is None]
    assert census.legal == len(legal)
    assert [*neat.points()] == legal
    assert census.legal + sum(census.refused.values()) == neat.size
    assert set(census.refused) == {
        "where mr * nv <= 9 (line 7)",
        "where kc == k or mr < 6 (line 8)",
        REPEATED,
    }


def test_legal_points_spell_different_schedules(neat: BoundSpace) -> None:
    texts = [str(neat.schedule(point)) for point in neat.points()]
    assert len(texts) == len(set(texts))
    refused = [p for i in range(neat.size) if (p := neat.at(i))["nv"] == 1 and p["space"] == "l2"]
    assert refused
    assert all(str(neat.schedule({**p, "space": "l1"})) == str(neat.schedule(p)) for p in refused)


def test_a_hole_in_a_branch_that_is_not_taken_is_not_used() -> None:
    space = Space.parse(
        "?x = 5 | 7\n?edges = peel | overlap\nlet last = edges if m % x else 'clip'\n"
        "tile{loops=m sizes=?x edges=?last}"
    ).bind(SMALL, TARGET)
    assert [*space.points()] == [
        {"x": 5, "edges": "peel"},
        {"x": 7, "edges": "peel"},
        {"x": 7, "edges": "overlap"},
    ]


def test_progress_comes_to_the_size(neat: BoundSpace) -> None:
    told: list[int] = []
    neat.count(progress=told.append)
    assert sum(told) == neat.size


def test_a_large_space_is_counted_by_chance() -> None:
    space = Space.parse(
        "?x = 1..1000\n?y = 1..1000\n?z = 1..1000\nwhere x % 2 == 0\n"
        "tile{loops=m,n sizes=?x,?y}\nunroll{loop=k factor=?z}"
    ).bind(Gemm(m=2000, n=2000, k=8), TARGET)
    assert space.size == 10**9
    census = space.count(most=1000)
    assert (census.examined, census.is_exact) == (1000, False)
    assert abs(census.share - 0.5) < 6 * census.uncertainty
    assert census.refused == {"where x % 2 == 0 (line 4)": 1000 - census.legal}
    assert space.count(most=1000) == census


# Drawing ------------------------------------------------------------------------------------------


def test_a_sample_has_different_legal_points_and_a_seed(neat: BoundSpace) -> None:
    first = neat.sample(12, seed=5, lower=False)
    assert len({tuple(p.values()) for p in first}) == 12
    assert all(neat.refusal(point) is None for point in first)
    assert neat.sample(12, seed=5, lower=False) == first
    assert neat.sample(12, seed=6, lower=False) != first
    assert neat.sample(2, seed=5) == first[:2]


def test_all_legal_points_are_drawn_where_there_are_no_more(neat: BoundSpace) -> None:
    def key(point: dict[str, int | str]) -> str:
        return str(point)

    drawn = neat.sample(10**6, seed=1, lower=False)
    assert sorted(drawn, key=key) == sorted(neat.points(), key=key)


def test_every_legal_point_is_as_likely(neat: BoundSpace) -> None:
    """Of each of n points the first of a sample is one with p = 1/n: within 6 deviations."""
    legal = neat.count().legal
    draws = 40 * legal
    found = Counter(str(neat.sample(1, seed=s, lower=False)) for s in range(draws))
    assert len(found) == legal
    deviation = (draws * (1 / legal) * (1 - 1 / legal)) ** 0.5
    assert max(abs(n - draws / legal) for n in found.values()) < 6 * deviation


@pytest.mark.parametrize("count", [1, 3, 50])
def test_few_legal_points_of_many_are_found(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Where chance is hopeless the tree is gone through."""
    monkeypatch.setattr(drawing, "PATIENCE", 200)
    text = (
        "?x = 1..6000\n?y = 1..60000\nwhere x % 791 == 5\nwhere y in (1, 9)\nwhere x > 2000\n"
        "tile{loops=m,n sizes=?x,?y}"
    )
    space = Space.parse(text).bind(Gemm(m=70000, n=70000, k=4), TARGET)
    drawn = space.sample(count, seed=2, lower=False)
    legal = [(x, y) for x in range(2001, 6001) if x % 791 == 5 for y in (1, 9)]
    assert len(drawn) == min(count, len(legal)) == len({(p["x"], p["y"]) for p in drawn})
    assert {(p["x"], p["y"]) for p in drawn} <= {*legal}


def test_what_chance_has_found_is_not_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "PATIENCE", 20)
    space = Space.parse("?x = 1..200\nwhere x % 10 == 0\ntile{loops=m sizes=?x}").bind(
        Gemm(m=210, n=8, k=8), TARGET
    )
    drawn = [int(point["x"]) for point in space.sample(50, seed=1, lower=False)]
    assert sorted(drawn) == [*range(10, 201, 10)]


def test_where_nothing_is_legal_it_says_why() -> None:
    space = Space.parse("?x = 1..9\nwhere x > 4\nwhere x < 3\ntile{loops=m sizes=?x}").bind(
        SMALL, TARGET
    )
    with pytest.raises(ScheduleError) as caught:
        space.sample(2)
    assert caught.value.code == "GEM1405"
    assert "of 9 points" in caught.value.message
    assert "where x > 4 (line 2)" in caught.value.message
    assert space.sample(0) == []


def test_what_is_too_rare_to_find_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "PATIENCE", 100)
    monkeypatch.setattr(drawing, "MOST_VISITED", 1000)
    text = "?x = 1..9999\n?y = 1..9999\nwhere x * y == 99940009\ntile{loops=m,n sizes=?x,?y}"
    space = Space.parse(text).bind(Gemm(m=9999, n=9999, k=4), TARGET)
    with pytest.raises(ScheduleError, match="GEM1405: of 99980001 points"):
        space.sample(1, lower=False)


@examples(0.3)
@given(st.data())
def test_the_strategy_draws_legal_points(neat: BoundSpace, data: st.DataObject) -> None:
    point = data.draw(neat.strategy())
    assert neat.refusal(point) is None


# Other --------------------------------------------------------------------------------------------


def test_neighbours_are_legal_and_one_step_away(neat: BoundSpace) -> None:
    here = {"mr": 4, "nv": 2, "kc": 8, "space": "l1"}
    found = [*neat.neighbours(here)]
    changed = [{k: v for k, v in p.items() if here[k] != v} for p in found]
    assert changed == [
        {"mr": 3},
        {"nv": 1},
        {"kc": 4},
        {"kc": 20},
        {"space": "l2"},
    ]


def test_a_schedule_is_found_again(neat: BoundSpace) -> None:
    for point in neat.sample(5, seed=3, lower=False):
        assert neat.point_of(neat.schedule(point)) == point
    assert neat.point_of("tile{loops=m,n sizes=5,9}") is None


@pytest.mark.parametrize(
    ("point", "words"),
    [
        ({"mr": 7}, "?mr is 7, and its values are 4, 1, 2, 3, 5, 6; use 6"),
        ({"space": "l3"}, "?space is 'l3', and its values are l1, l2; use l"),
        ({"rows": 7}, "the space has no hole ?rows; its holes are ?mr, ?nv, ?kc, ?space; use ?"),
    ],
)
def test_what_is_no_point(neat: BoundSpace, point: dict[str, int | str], words: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        neat.refusal({**neat.first, **point})
    assert caught.value.code == "GEM1404"
    assert words in str(caught.value)
    with pytest.raises(ScheduleError, match=r"GEM1404: the point says nothing of \?mr; add mr=4"):
        neat.text({})


def test_numbers_that_do_not_exist_are_refused() -> None:
    space = Space.parse("?x = 2 | 3 | 0\nlet y = 12 / (x * 4)\ntile{loops=m sizes=?y}").bind(
        SMALL, TARGET
    )
    assert [getattr(space.refusal(space.at(i)), "reason", "") for i in range(3)] == [
        "line 3: y is no whole number",
        "GEM0421",
        "let y (line 2): it divides by 0",
    ]
    with pytest.raises(ScheduleError, match="GEM1404: the schedule of x=2 cannot be spelled: y is"):
        space.text({"x": 2})
