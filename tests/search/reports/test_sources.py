"""Files of experiments and of tunes: what is read is what is in them."""

from __future__ import annotations

import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from gemmir.gemm import Gemm
from gemmir.search.experiments.plan import Candidate, Point, plan
from gemmir.search.experiments.records import Outcome
from gemmir.search.experiments.store import Store
from gemmir.search.reports.build import page_of
from gemmir.search.reports.drawing import svg
from gemmir.search.reports.ladders import rungs
from gemmir.search.reports.measured import Ladder, Run, Study
from gemmir.search.reports.page import html_of
from gemmir.search.reports.sources import read
from gemmir.search.trials.outcome import bad
from gemmir.search.tuning.study import Row
from gemmir.search.tuning.study import Study as KeptStudy
from tests.cli.conftest import Cli, cli
from tests.search.experiments.examples import SETTINGS, STATE, WORKER, outcome, points, small_plan
from tests.search.reports.conftest import HOSTILE
from tests.search.tuning.fakes import outcome as outcome_of

__all__ = ["cli"]

RESULTS = Path(__file__).parents[3] / "bench" / "results"


def contents(path: Path) -> str:
    sources = [(str(path), source) for source in read(path)]
    return html_of(page_of(sources, [], title="t", command="", measure=False))


def stored(path: Path, outcomes: dict[str, Outcome]) -> None:
    """A run of the small plan, with what came of each candidate; 1 ms for others."""
    with Store.writer(path, create=True) as store:
        run = store.add_run(small_plan())
        session = store.begin(run, WORKER.environment)
        for cell in store.pending(run):
            name = cell.point.candidate.name
            seconds = outcome("ok", 1e-3 * (1 + cell.repetition), 2e-3)
            store.finish(cell.row, session, WORKER, outcomes.get(name, seconds))


def test_speeds_of_an_experiment_are_those_of_all_repetitions(tmp_path: Path) -> None:
    path = tmp_path / "e.db"
    stored(path, {"openblas": outcome("unable")})
    run, *others = read(path)
    assert isinstance(run, Run) and not others and run.target == "cpu"
    (cases,) = run.classes.values()
    assert [case.label for case in cases] == ["8 x 8 x 8 f32", "16 x 16 x 16 f32"]
    for case in cases:
        assert case.missing == {"openblas": "unable: because"}
        speed = case.speeds["default"]
        assert case.own == "default" and len(speed.samples) == 6
        assert case.gemm is not None
        median = statistics.median(speed.samples)
        assert speed.gflops == pytest.approx(case.gemm.flops / median / 1e9)
        assert "best of my" in case.speeds
    facts = dict(run.facts)
    assert facts["git of session 1"] == "abc+" and facts["seed"] == "3"
    assert "6 ok" not in facts["statuses"] and "18 of 18" in facts["cells"]


def test_an_experiment_that_has_begun_is_reported_too(tmp_path: Path) -> None:
    path = tmp_path / "e.db"
    with Store.writer(path, create=True) as store:
        store.add_run(small_plan())
    assert read(path) == []
    assert "<main" in contents(path)


def test_points_of_a_space_are_a_study(tmp_path: Path) -> None:
    candidates = [
        Candidate(name=f"tiles: mr={mr}", kind="schedule", space="tiles.space", point={"mr": mr})
        for mr in range(5)
    ]
    points = [
        Point(
            problem=Gemm(m=8, n=8, k=8),
            target="cpu",
            candidate=candidate,
            objective="time",
            schedule=HOSTILE,
        )
        for candidate in candidates
    ]
    path = tmp_path / "e.db"
    with Store.writer(path, create=True) as store:
        run = store.add_run(plan("a", "", dataclasses.replace(SETTINGS, repetitions=1), points))
        session = store.begin(run, WORKER.environment)
        for cell in store.pending(run):
            assert cell.point.candidate.point is not None
            mr = int(cell.point.candidate.point["mr"])
            found = outcome("ok", 2e-3 * (5 - mr)) if mr else outcome("illegal")
            store.finish(cell.row, session, WORKER, found)
    speeds, study = read(path)
    assert isinstance(speeds, Run) and isinstance(study, Study) and not study.is_search
    (cases,) = speeds.classes.values()
    assert list(cases[0].speeds) == ["best of tiles"]
    assert {t.point["mr"]: t.value for t in study.trials} == {
        0: None,
        **{mr: pytest.approx(1e-3 * (5 - mr)) for mr in range(1, 5)},
    }
    assert study.winner is not None and study.winner.point == {"mr": 4}
    text = contents(path)
    assert HOSTILE not in text and "All points, in the order of measuring" in text


def test_numbers_without_times_are_a_table_and_plots(tmp_path: Path) -> None:
    path = tmp_path / "e.db"
    bare = Outcome(
        status="ok", started="", ended="", before=STATE, after=STATE, figures=outcome().figures
    )
    stored(path, {"openblas": bare, "default": bare, "mr=6": bare})
    (run,) = [source for source in read(path) if isinstance(source, Run)]
    assert {(s.name, s.value, s.unit) for s in run.statics} == {("registers", 40.0, "registers")}
    assert len(run.statics) == 6
    assert "Numbers that are no speeds" in contents(path)


def test_a_run_is_chosen(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "e.db"
    stored(path, {})
    assert "has other runs" not in contents(path)
    with Store.writer(path) as store:
        store.add_run(plan("second", "", SETTINGS, points(8)))
    (run,) = read(path, "a")
    assert isinstance(run, Run)
    assert run.note == "The file has other runs, which --run shows: second (2)."
    assert cli("report", str(path), "--run", "a", "--no-bandwidth").status == 0
    assert "GEM1428" in cli("report", str(path), "--run", "b").err
    (tmp_path / "r.json").write_text("{}")
    unused = cli("report", "r.json", "--run", "a")
    assert unused.status == 2 and "no file of gemmir experiment" in " ".join(unused.err.split())


def tuned() -> dict[str, Any]:
    """What a tune prints as JSON."""
    trials: list[dict[str, Any]] = [
        {
            "number": number,
            "value": None if number == 2 else 1e-3 / (1 + number),
            "best": 1e-3,
            "status": "wrong" if number == 2 else "ok",
            "detail": HOSTILE if number == 2 else "",
            "source": "tpe" if number else "default",
            "point": {"mr": number, "way": HOSTILE},
            "schedule": f"tile{{loops=m sizes={number + 1}}}",
        }
        for number in range(5)
    ]
    standings = [
        {
            "schedule": trials[number]["schedule"],
            "value": trials[number]["value"],
            "interval": [0.9 * trials[number]["value"], 1.1 * trials[number]["value"]],
            "ratio_to_best": 1.0,
            "ratio_interval": [0.9, 1.1],
            "rounds": 9,
        }
        for number in (0, 3, 4)
    ]
    return {
        "problem": "m=8 n=8 k=8 dtype=f32",
        "target": "cpu",
        "machine": {"name": "host", "cpu": HOSTILE},
        "objective": {"name": "CPU time of a call", "unit": "s", "is_measured": True},
        "space": {"text": HOSTILE, "points": 9},
        "seed": 4,
        "refused": {HOSTILE: 3},
        "winner": trials[4]["schedule"],
        "tie": True,
        "tied": [trials[3]["schedule"], trials[4]["schedule"]],
        "default": trials[0]["schedule"],
        "ratio_to_default": 5.0,
        "ratio_to_default_interval": [4.9, 5.1],
        "race": standings,
        "convergence": trials,
    }


def test_a_tune_is_read_from_its_json(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps(tuned()))
    (study,) = read(path)
    assert isinstance(study, Study)
    assert [trial.value is None for trial in study.trials] == [False, False, True, False, False]
    assert study.winner is not None and study.winner.number == 4
    assert study.baseline == 1e-3
    assert [f.is_tied for f in study.finalists] == [False, True, True]
    assert [f.is_default for f in study.finalists] == [True, False, False]
    outcome = dict(study.outcome)
    assert outcome["verdict"] == "a tie of 2, decided by rule"
    assert outcome["over the default schedule"] == "5.0000 (4.9000 to 5.1000)"
    text = contents(path)
    assert HOSTILE not in text and "The race of the best" in text
    assert "(not measured)" not in text
    found = tuned()
    found["objective"]["is_measured"] = False
    path.write_text(json.dumps(found))
    assert "time of a call, µs (not measured)" in contents(path)


@pytest.mark.parametrize("key", ["value", "point", "number", "schedule"])
def test_a_broken_tune_is_refused(cli: Cli, tmp_path: Path, key: str) -> None:
    found = tuned()
    del found["convergence"][1][key]
    (tmp_path / "t.json").write_text(json.dumps(found))
    assert f"GEM1432: t.json is broken: it lacks '{key}'" in cli("report", "t.json").err
    (tmp_path / "t.json").write_text(json.dumps({"convergence": []}))
    assert "GEM1432: t.json is broken: it has no trials" in cli("report", "t.json").err


def test_an_unfinished_tune_has_the_best_so_far(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    found: dict[str, Any] = {**tuned(), "winner": None, "tie": None, "race": []}
    path.write_text(json.dumps(found))
    (study,) = read(path)
    assert isinstance(study, Study) and study.winner is not None
    assert study.winner.number == 4 and not study.outcome and not study.finalists
    assert "The race of the best" not in contents(path)


@pytest.mark.parametrize("is_declared", [False, True])
def test_a_tune_is_read_from_its_study(cli: Cli, tmp_path: Path, is_declared: bool) -> None:
    pytest.importorskip("optuna")
    found = tuned()
    path = tmp_path / "t.db"
    plan = {"problem": "Gemm(m=8, n=8, k=8)", "target": "cpu", "objective": "CPU time", "seed": 9}
    with KeptStudy(path, plan, resume=False) as kept:
        for entry in found["convergence"]:
            row = Row(
                number=entry["number"],
                point=entry["point"],
                schedule=entry["schedule"],
                source=entry["source"],
                asked=1,
            )
            kept.begin(row, {"mr": tuple(range(5)), "way": (HOSTILE,)})
            if entry["number"] != 1:
                value = entry["value"]
                kept.finish(row, outcome_of(value) if value else bad("wrong", HOSTILE))
        if is_declared:
            kept.declare(found)
    (study,) = read(path)
    assert isinstance(study, Study) and study.target == "cpu"
    assert [trial.number for trial in study.trials] == [0, 2, 3, 4], "one has not ended"
    assert study.trials[1].detail == HOSTILE and study.trials[1].value is None
    assert study.winner is not None and study.winner.point == {"mr": 4, "way": HOSTILE}
    assert bool(study.finalists) == bool(study.outcome) == is_declared
    assert cli("report", str(path), "-o", "t.html").status == 0
    unused = cli("report", str(path), "--run", "a")
    assert unused.status == 2 and "no file of gemmir experiment" in " ".join(unused.err.split())


def test_speeds_on_a_gpu_are_read() -> None:
    path = RESULTS / "gpu-h200.json"
    (run,) = read(path)
    assert isinstance(run, Run)
    row = next(r for r in json.loads(path.read_text())["rows"] if r["suite"] == "square")
    (case,) = [
        case
        for case in run.classes["square"]
        if case.gemm == Gemm(m=8192, n=8192, k=8192, dtype="bf16", trans_b=True, out="bf16")
    ]
    assert row["case"] == "bf16:8192x8192x8192:nt:bf16"
    assert case.speeds["default"].gflops == 1e3 * row["tflops"]
    assert case.ratio == pytest.approx(row["ratio"]) and case.best_peer == "torch"
    assert case.limit is not None and case.limit > 900e3 and "H200" in case.limit_is
    assert "0 wrong" in dict(run.facts)["checked"]
    assert {s.unit for s in run.statics if s.is_measured} == {"µs"}
    parsed = [case.gemm for cases in run.classes.values() for case in cases]
    assert None not in parsed and any(g and g.epilogue == "bias+gelu" for g in parsed)
    assert any(g and g.scale_block == 128 for g in parsed)


def test_static_profiles_of_tpus_are_read() -> None:
    (run,) = read(RESULTS / "tpu-static.json")
    assert isinstance(run, Run) and not run.classes
    rows = json.loads((RESULTS / "tpu-static.json").read_text())["rows"]
    found = {(s.label, s.contestant, s.name): s.value for s in run.statics}
    for row in rows:
        assert found[row["case"], "gemmir", "speed over that of XLA"] == row["ratio"]
        assert found[row["case"], "XLA", "MXU utilisation"] == row["xla_mxu_utilisation"]
        assert found[row["case"], "XLA", "cycles"] == row["xla"]["cycles"][row["method"]]
    assert "not measured" in dict(run.facts)["label"]


def climbed() -> dict[str, Any]:
    """What a ladder prints as JSON."""
    common: dict[str, Any] = {
        "ok": True,
        "checked": "right",
        "how": "measured",
        "note": "",
        "facts": {},
    }
    first: dict[str, Any] = {
        "name": "naive",
        "title": HOSTILE,
        "why": HOSTILE,
        "schedule": [],
        "edits": [],
        "gflops": 0.5,
        "of_peak": 0.002,
        "ratio_to_before": None,
    }
    second: dict[str, Any] = {
        **first,
        "name": "tiled",
        "title": "Tiled",
        "schedule": ["tile{loops=m sizes=4}"],
        "edits": ["+ tile{loops=m sizes=4}"],
        "gflops": 5.0,
        "ratio_to_before": 10.0,
    }
    third = {**second, "title": "Not timed", "gflops": None, "of_peak": None, "note": "no GPU"}
    return {
        "ok": True,
        "problem": {"m": 64, "n": 64, "k": 64, "dtype": "f32"},
        "target": "cpu",
        "machine": "a CPU",
        "left_out": {"cores": "one core"},
        "rungs": [{**common, **rung} for rung in (first, second, third)],
    }


def test_a_ladder_is_read(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "l.json"
    path.write_text(json.dumps(climbed()))
    (ladder,) = read(path)
    assert isinstance(ladder, Ladder)
    assert [rung.gflops for rung in ladder.rungs] == [0.5, 5.0, None]
    figure = rungs(ladder)
    assert "10 times as fast" in figure.alt
    assert [row[3] for row in figure.table.rows] == [None, 10.0, 10.0]
    assert figure.caption.startswith("Speeds, measured; the numbers")
    assert HOSTILE not in contents(path)
    found = climbed()
    found["command"] = "gemmir ladder --json"
    found["rungs"][0] |= {"how": "emulated", "gflops": 0.001}
    found["rungs"][1]["how"] = "static"
    path.write_text(json.dumps(found))
    (mixed,) = read(path)
    assert isinstance(mixed, Ladder)
    assert mixed.command == "gemmir ladder --json"
    figure = rungs(mixed)
    assert "emulated, static; nothing was measured" in figure.caption
    assert [row[0] for row in figure.table.rows][1:] == ["tiled: Tiled", "tiled: Not timed"]
    assert ", x 10.00, static" in svg(figure)
    found = climbed()
    found["rungs"][1]["gflops"] = -1
    path.write_text(json.dumps(found))
    assert "GEM1432: l.json is broken: gflops of rung tiled is -1" in cli("report", "l.json").err
