"""How predictions rank measured times, on orders that are known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gemmir.cli import main
from gemmir.errors import ParseError
from gemmir.gemm import Gemm
from gemmir.search.quality.measurements import Case, Measured, Measurements
from gemmir.search.quality.ranking import correlations, quality, ranking, regret, summary

BLOCKS = (
    "tile{{loops=m,n sizes={},{}}},promote{{operand=c to=registers}},vectorize{{with=fma width=8}}"
)


def test_a_known_order() -> None:
    """3 of 4 pairs of 1 2 3 4 ... are turned round in 2 1 3 4: one pair of six."""
    tau, rho = correlations([1.0, 2.0, 3.0, 4.0], [2.0, 1.0, 3.0, 4.0])
    assert tau == pytest.approx(4 / 6)
    assert rho == pytest.approx(0.8)
    assert correlations([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) == (0.0, 0.0)


def test_regret_is_what_is_lost_by_trying_k() -> None:
    predicted, measured = [1.0, 2.0, 3.0], [1.2, 1.1, 1.0]
    assert regret(predicted, measured, 1) == pytest.approx(0.2)
    assert regret(predicted, measured, 2) == pytest.approx(0.1)
    assert regret(predicted, measured, 8) == 0


def test_a_summary_is_of_problems_and_not_of_schedules() -> None:
    good = ranking("a", "1x1x1", [1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    bad = ranking("a", "2x2x2", [1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0])
    both = summary("a", [good, bad])
    assert (both.tau, both.worst_tau, both.problems, both.schedules) == (0.0, -1.0, 2, 7)
    assert both.regret[1] == pytest.approx(1.5) and both.worst_regret[1] == pytest.approx(3.0)
    assert good.ratio == pytest.approx(1.0) and good.ratio_spread == pytest.approx(1.0)


def _measurements(*sizes: tuple[int, int]) -> Measurements:
    """Tiles of 8 columns, whose times are as tiles of few rows take longer."""
    measured = tuple(
        Measured(schedule=BLOCKS.format(m, n), seconds=1e-6 / m, least=1e-6 / m, most=1e-6 / m)
        for m, n in sizes
    )
    gemm = Gemm(m=96, n=96, k=96)
    case = Case(class_="made", gemm=gemm, measured=measured)
    return Measurements(target="cpu:znver3", about={"cpu": "none"}, cases=(case,))


def test_the_model_knows_that_tiles_of_few_rows_wait_for_their_sums() -> None:
    found = quality(_measurements((1, 8), (2, 8), (4, 8), (8, 8)))
    assert found.whole.tau > 0.6
    assert found.rankings[0].problem == "96x96x96"


def test_too_few_schedules_have_no_order() -> None:
    with pytest.raises(ParseError, match="GEM1453"):
        quality(_measurements((8, 8)))


def test_the_command_prints_tables_and_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "made.json"
    path.write_text(_measurements((1, 8), (2, 8), (8, 8)).dump())
    assert main(["cost", "quality", str(path), "--problems"]) == 0
    out = capsys.readouterr().out
    assert "made, 1" in out or "made" in out
    assert "96x96x96" in out and "regret@1" in out
    assert main(["cost", "quality", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found[0]["target"] == "cpu:znver3" and found[0]["whole"]["problems"] == 1


def test_stored_times_of_tpus_are_ranked_across_problems(
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = Path(__file__).parents[3] / "bench/results/tpu-static.json"
    assert main(["cost", "quality", str(path), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["whole"]["tau"] > 0.9 and len(found["about"]["problems"]) == 13


def test_measuring_goes_on_where_it_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite, path = tmp_path / "suite.toml", tmp_path / "found.json"
    suite.write_text('[[class]]\nname = "tiny"\nshapes = ["4x4x4", "8x8x8"]\n')
    command = ["cost", "measure", "--suite", str(suite), "-o", str(path), "--schedules", "2"]
    assert main([*command, "--rounds", "1"]) == 0
    before = path.read_text()
    capsys.readouterr()
    assert main([*command, "--rounds", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cases"] == 2
    assert path.read_text() == before
    assert main([*command, "--target", "cpu:x86-64-v3"]) == 1
