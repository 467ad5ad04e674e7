"""Tunes: what is tried, who wins, and what a study has after everything that can happen to it."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gemmir.errors import MismatchError, OutputError, ParseError, ScheduleError
from gemmir.gemm import Gemm
from gemmir.search.spaces import Space
from gemmir.search.trials import Outcome
from gemmir.search.tuning.final import MARGIN, decide, finalists, median_and_interval
from gemmir.search.tuning.found import Found, Request
from gemmir.search.tuning.proposer import SAMPLERS, Known, Proposer, Sampler
from gemmir.search.tuning.study import Row, Study, read_study
from gemmir.search.tuning.tuner import tune
from tests.search.tuning.fakes import FakeObjective, by_hash

GEMM = Gemm(m=48, n=64, k=32)

SPACE = Space.parse(
    """
    ?mr = 1..14
    ?nv = 1 | 2 | 3
    ?u = 1 | 2 | 4
    ?order = m,n | n,m
    let nr = nv * 8
    where mr * nv + nv + 1 <= vector_registers
    tile{loops=?order sizes=?mr,?nr edges=peel} if order == 'm,n'
    tile{loops=?order sizes=?nr,?mr edges=peel} if order == 'n,m'
    promote{operand=c to=registers}
    vectorize{with=fma width=8}
    unroll{loop=k factor=?u}
    """
)

TINY = Space.parse(
    """
    ?mr = 2 | 4 | 6
    ?u = 2 | 4
    tile{loops=m,n sizes=?mr,16 edges=peel}
    promote{operand=c to=registers}
    vectorize{with=fma width=8}
    unroll{loop=k factor=?u}
    """
)


def request(
    *, space: Space = SPACE, trials: int = 8, sampler: Sampler = "tpe", prior: bool = False
) -> Request:
    return Request(
        gemm=GEMM,
        space=space,
        target="cpu:x86-64-v3",
        trials=trials,
        sampler=sampler,
        seed=5,
        prior=prior,
    )


def points(found: Found) -> list[str]:
    return [json.dumps(row.point) for row in found.rows]


# What is tried -----------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_trial_is_legal_and_new(sampler: Sampler, tmp_path: Path) -> None:
    objective = FakeObjective(by_hash)
    found = tune(request(sampler=sampler), tmp_path / "s", objective)
    bound = SPACE.bind(GEMM, "cpu:x86-64-v3")
    assert len(found.done) == 8 and found.ended == "trials"
    assert len(set(points(found))) == 8
    assert all(bound.refusal(row.point) is None for row in found.rows)
    assert objective.tried == [row.schedule for row in found.rows]
    assert found.refused, "some of what a sampler proposes has too many registers"


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_tune_that_is_cut_goes_on_as_if_it_had_not_been(sampler: Sampler, tmp_path: Path) -> None:
    whole = tune(request(sampler=sampler), tmp_path / "whole", FakeObjective(by_hash))
    cut = tmp_path / "cut"
    for number in range(2):
        objective = FakeObjective(by_hash, interrupt_at=3)
        tune(request(sampler=sampler), cut, objective, resume=number > 0)
    part = tune(request(sampler=sampler), cut, FakeObjective(by_hash), resume=True)
    assert part.ended == "trials"
    assert points(part) == points(whole)
    assert [row.source for row in part.rows] == [row.source for row in whole.rows]
    assert part.refused == whole.refused and part.verdict is not None


@pytest.mark.parametrize("sampler", ["tpe", "grid"])
def test_a_small_space_is_exhausted(sampler: Sampler, tmp_path: Path) -> None:
    asked = request(space=TINY, trials=7, sampler=sampler)
    found = tune(asked, tmp_path / "s", FakeObjective(by_hash))
    assert found.ended == "space" and len(found.done) == 6 == len(set(points(found)))


def test_the_first_trials_are_the_default_schedule_and_the_models(tmp_path: Path) -> None:
    space = Space.parse(
        """
        ?mr = 1 | 2 | 8
        ?u = 1 | 4
        tile{loops=n,m sizes=8,?mr edges=peel}
        promote{operand=c to=registers}
        vectorize{with=fma width=8}
        unroll{loop=k factor=?u}
        """
    )
    bound = space.bind(GEMM, "cpu:x86-64-v3")
    asked = Request(gemm=GEMM, space=space, target="cpu:x86-64-v3", trials=6)
    found = tune(asked, tmp_path / "s", FakeObjective(by_hash))
    sources = [row.source for row in found.rows]
    assert sources[0] == "model"
    assert found.rows[0].point["mr"] == 8, "the model knows that more sums at once are faster"
    default = Space.parse("?u = 1 | 4\n" + "\n".join(_default(bound.gemm)))
    asked = Request(gemm=GEMM, space=default, target="cpu:x86-64-v3", trials=6)
    found = tune(asked, tmp_path / "t", FakeObjective(by_hash))
    assert (found.rows[0].source, found.rows[0].schedule) == ("default", found.default)


def _default(gemm: Gemm) -> Iterator[str]:
    """The default schedule with a hole for how often its loop is unrolled."""
    from gemmir.machine import machine_for
    from gemmir.schedule import default_schedule

    for step in default_schedule(gemm, machine_for("cpu:x86-64-v3")).steps:
        yield "unroll{loop=k factor=?u}" if step.startswith("unroll") else step


def test_a_budget_ends_the_trials(tmp_path: Path) -> None:
    asked = Request(
        gemm=GEMM, space=SPACE, target="cpu:x86-64-v3", prior=False, budget=0.0, trials=5
    )
    with pytest.raises(ScheduleError, match="budget of 0 s was over before the first trial"):
        tune(asked, tmp_path / "s", FakeObjective(by_hash))


def test_cmaes_begins_with_what_a_model_guesses() -> None:
    bound = SPACE.bind(GEMM, "cpu:x86-64-v3")
    best = bound.sample(1, seed=1)[0]
    known = [Known(point={**best, "mr": mr}, seconds=15.0 - mr) for mr in range(5, 15)]
    asked: list[list[str]] = []
    for guesses in (known, []):
        proposer = Proposer(bound, "cmaes", 3, guesses)
        asked.append([])
        for number in range(4):
            found = proposer.next()
            assert found is not None
            asked[-1].append(json.dumps(found.point))
            outcome = Outcome(status="ok", seconds=(1.0,))
            proposer.told(Row(**vars(found), number=number, schedule="", outcome=outcome))
    assert asked[0][0] == asked[1][0], "the very first is by chance"
    assert asked[0][1:] != asked[1][1:]


# Who wins ----------------------------------------------------------------------------------------


def test_nothing_that_is_not_ok_wins(tmp_path: Path) -> None:
    statuses = ("illegal", "wrong", "timeout", "crashed", "impossible")

    def value(schedule: str) -> float | Outcome:
        place = int(by_hash(schedule) * 1e9) % 6
        if place == 5:
            return by_hash(schedule)
        return Outcome(status=statuses[place], detail="planted", seconds=(1e-9,))

    found = tune(request(trials=20, sampler="random"), tmp_path / "s", FakeObjective(value))
    assert sum(found.outcomes.values()) == 20 and len(found.outcomes) >= 5
    assert found.verdict is not None
    assert isinstance(value(found.verdict.winner), float)
    right = [row.value for row in found.rows if row.value is not None]
    assert value(found.verdict.winner) == pytest.approx(min(right), rel=2 * MARGIN)


def test_where_nothing_is_right_there_is_no_winner(tmp_path: Path) -> None:
    objective = FakeObjective(lambda _: Outcome(status="wrong", detail="element [0, 0]"))
    with pytest.raises(ScheduleError, match="GEM1417: none of 6 trials is right; 6 of them: wrong"):
        tune(request(space=TINY), tmp_path / "s", objective)
    assert len(read_study(tmp_path / "s").rows) == 6, "all the same, everything is kept"


@pytest.mark.parametrize("seed", range(20))
def test_a_clear_winner_wins_whatever_the_noise(seed: int) -> None:
    values = {f"unroll{{loop=k factor={n}}}": 1 + 0.03 * n for n in range(1, 8)}
    found = decide(FakeObjective(values.__getitem__, noise=0.01), [*values], None, seed=seed)
    assert found.winner == "unroll{loop=k factor=1}" and not found.is_tie


@pytest.mark.parametrize("seed", range(20))
def test_equals_are_a_tie_and_the_rule_chooses(seed: int) -> None:
    values = {
        "unroll{loop=k factor=16}": 1.0,
        "unroll{loop=k factor=2},unroll{loop=k factor=2}": 0.999,
        "unroll{loop=k factor=4}": 1.001,
        "unroll{loop=k factor=8}": 1.08,
    }
    objective = FakeObjective(values.__getitem__, noise=0.005)
    found = decide(objective, [*values], None, seed=seed)
    assert found.is_tie and found.winner == "unroll{loop=k factor=4}", "few passes, short, first"
    assert set(found.tied) == {t for t, v in values.items() if v < 1.05}
    default = "unroll{loop=k factor=2},unroll{loop=k factor=2}"
    found = decide(objective, [*values], default, seed=seed)
    assert found.winner == default, "a default schedule gives way to none of its equals"
    assert found.to_default == 1.0


def test_the_default_is_beside_the_race_and_not_in_it() -> None:
    values = {"unroll{loop=k factor=2}": 2.0, "unroll{loop=k factor=4}": 1.0}
    objective = FakeObjective(values.__getitem__)
    found = decide(objective, ["unroll{loop=k factor=2}"], "unroll{loop=k factor=4}", seed=0)
    assert found.winner == "unroll{loop=k factor=2}"
    assert found.to_default == pytest.approx(0.5, rel=0.01)
    low, high = found.to_default_interval or (0.0, 0.0)
    assert low < 0.5 < high
    assert all(len(some) == 2 for some in objective.raced), "it stays to the end"


def test_who_fails_in_the_race_is_out() -> None:
    values: dict[str, float | Outcome] = {
        "unroll{loop=k factor=2}": Outcome(status="crashed", detail="SIGSEGV"),
        "unroll{loop=k factor=4}": 1.0,
    }
    found = decide(FakeObjective(values.__getitem__), [*values], None, seed=0)
    assert found.winner == "unroll{loop=k factor=4}" and list(found.failed) == [*values][:1]
    with pytest.raises(MismatchError, match="GEM1416"):
        decide(FakeObjective(values.__getitem__), [*values][:1], None, seed=0)


def test_the_near_ones_race_again_and_the_default_if_it_was_tried() -> None:
    values = {"a": 1.3, "b": 1.0, "c": 1.1, "d": 1.05}
    assert finalists(values, None) == ["b", "d", "c"]
    assert finalists(values, None, most=1) == ["b"]
    assert finalists(values, "a", most=2) == ["b", "d", "a"]
    assert finalists(values, "e", most=2) == ["b", "d"]


def test_static_values_have_no_intervals() -> None:
    objective = FakeObjective({"unroll{loop=k factor=2}": 3.0}.__getitem__, is_measured=False)
    objective.noise = 0.0
    found = decide(objective, ["unroll{loop=k factor=2}"], None, seed=0)
    assert found.standings[found.winner].interval == (3.0, 3.0)
    assert len(objective.raced) == 1


def test_an_interval_is_one_of_the_median() -> None:
    values = [float(n) for n in range(41)]
    middle, (low, high) = median_and_interval(values)
    assert (middle, low, high) == (20.0, 11.0, 29.0), "order statistics of a binomial at 0.99"
    assert median_and_interval([1.0, 2.0])[1] == (1.0, 2.0)


# What a study has --------------------------------------------------------------------------------


def test_a_study_is_begun_once(tmp_path: Path) -> None:
    path = tmp_path / "s"
    tune(request(space=TINY, trials=2), path, FakeObjective(by_hash), resume=True)
    with pytest.raises(OutputError, match="GEM1412"):
        tune(request(space=TINY, trials=2), path, FakeObjective(by_hash))
    objective = FakeObjective(by_hash)
    found = tune(request(space=TINY, trials=4), path, objective, resume=True)
    assert len(found.done) == 4 and len(objective.tried) == 2
    other = "is a study of sampler tpe, and this is one of random"
    with pytest.raises(ParseError, match=other):
        tune(request(space=TINY, sampler="random"), path, objective, resume=True)
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_what_is_no_study_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("a poem")
    for call in (lambda: read_study(path), lambda: Study(path, {}, resume=True)):
        with pytest.raises(ParseError, match="GEM1413"):
            call()
    assert path.read_text() == "a poem"
    with pytest.raises(OutputError, match="GEM1415"):
        Study(tmp_path / "no" / "s", {}, resume=False)


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE runs (x)")
    before = path.read_bytes()
    with pytest.raises(ParseError, match=r"GEM1413: .* it has the tables runs"):
        Study(path, {}, resume=True)
    assert path.read_bytes() == before


def test_a_file_with_the_name_of_the_lock_is_not_removed(tmp_path: Path) -> None:
    pins = tmp_path / "gemmir.lock"
    pins.write_text("version = 1\n")
    with Study(tmp_path / "gemmir", {}, resume=False):
        pass
    assert pins.read_text() == "version = 1\n"
    pins.unlink()
    with Study(tmp_path / "gemmir", {}, resume=True):
        assert pins.exists()
    assert not pins.exists()


def test_two_processes_do_not_share_a_study(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with Study(path, {}, resume=False):
        with pytest.raises(OutputError, match="GEM1414"):
            Study(path, {}, resume=True)
        assert read_study(path).rows == ()
    with Study(path, {}, resume=True):
        pass


def test_a_study_says_everything_to_its_readers(tmp_path: Path) -> None:
    path = tmp_path / "s"
    found = tune(request(space=TINY), path, FakeObjective(by_hash), about={"study": "s"})
    kept = read_study(path)
    assert kept.plan["problem"] == "m=48 n=64 k=32 dtype=f32" and kept.rows == found.rows
    assert kept.result is not None and found.verdict is not None
    assert kept.result["winner"] == found.verdict.winner and kept.result["study"] == "s"
    assert kept.result["trials_done"] == 6 and kept.result["tie"] == found.verdict.is_tie
    steps = kept.result["convergence"]
    assert [step["number"] for step in steps] == list(range(6))
    bests = [step["best"] for step in steps]
    assert bests == sorted(bests, reverse=True) and bests[-1] == min(s["value"] for s in steps)
    assert kept.result["objective"] == {
        "name": "seconds of nothing",
        "unit": "s",
        "is_measured": True,
    }


SCRIPT = """
import sys
from pathlib import Path
from tests.search.tuning.fakes import FakeObjective, by_hash
from tests.search.tuning.test_tuner import request
from gemmir.search.tuning.tuner import tune
at = int(sys.argv[2])
objective = FakeObjective(by_hash, die_at=None if at < 0 else at)
tune(request(trials=9), Path(sys.argv[1]), objective, resume=True)
"""


def test_a_tune_that_is_killed_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Killed in its third trial; the rows are those of a tune that was let alone."""
    whole = tune(request(trials=9), tmp_path / "whole", FakeObjective(by_hash))
    path = tmp_path / "killed"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    for at, ended in ((2, 2), (-1, 9)):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(path), str(at)], env=environment, check=False
        )
        assert done.returncode == (0 if at < 0 else -signal.SIGKILL)
        rows = read_study(path).rows
        assert [row.number for row in rows] == list(range(len(rows)))
        assert sum(row.outcome is not None for row in rows) == ended
        assert len(rows) - ended == (at >= 0), "the one that was running"
    kept = read_study(path)
    assert [row.point for row in kept.rows] == [row.point for row in whole.rows]
    assert kept.result is not None
    with sqlite3.connect(path) as store:
        assert store.execute("select count(*) from trials").fetchone() == (9,)
