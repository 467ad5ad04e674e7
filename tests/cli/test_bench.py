"""gemmir bench: a tiny race, and what it refuses. Nothing here asserts how fast anything is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli

TINY = ("bench", "--m", "8", "--n", "8", "--k", "8", "--against", "numpy", "--rounds", "3")

SUITE = """
[bars]
class = 1e-9
shape = 1e9
[[class]]
name = "one"
shapes = ["4x4x4", "5x5x5"]
[[class]]
name = "two"
shapes = ["3x3x3"]
"""


def test_one_problem_is_measured(cli: Cli):
    found = cli(*TINY, "--seed", "7", "--json")
    assert found.status == 0, found.err
    assert (found.json["seed"], found.json["rounds"]) == (7, 3)
    (entry,) = found.json["classes"]["given"]
    assert set(entry["results"]) == {"gemmir", "numpy", "fma peak"}
    assert entry["best_peer"] == "numpy"
    for name, result in entry["results"].items():
        middle, lower, upper = result["cpu_seconds"]
        assert 0 < lower <= middle <= upper and result["calls"] >= 1
        if name != "fma peak":
            assert result["gflops"] == pytest.approx(2 * 8**3 / middle / 1e9)
    assert entry["results"]["gemmir"]["schedule"]
    seconds = {name: r["cpu_seconds"][0] for name, r in entry["results"].items()}
    assert entry["ratio"] == pytest.approx(seconds["numpy"] / seconds["gemmir"])


def test_a_table_and_a_plot_are_printed(cli: Cli):
    found = cli(*TINY, "--target", "cpu:x86-64-v3", "--also", "vectorize{with=fma width=8}")
    if "GEM0606" in found.err:
        pytest.skip("this CPU does not run code for x86-64-v3")
    assert found.status == 0, found.err
    assert "8 x 8 x 8 f32" in found.out and "best peer" in found.out and "█" in found.out
    assert "gemmir:vectorize{with=fma width=8}" in found.out
    assert "given 1/1" in found.err


def test_a_suite_is_run_written_and_compared(cli: Cli, tmp_path: Path):
    Path(tmp_path, "s.toml").write_text(SUITE)
    arguments = ("bench", "--suite", "s.toml", "--against", "numpy", "--quick", "--class", "one")
    first = cli(*arguments, "-o", "old.json")
    assert first.status == 0, first.err
    document: dict[str, Any] = json.loads(Path(tmp_path, "old.json").read_text())
    assert [e["spelled"] for e in document["classes"]["one"]] == ["4 x 4 x 4 f32", "5 x 5 x 5 f32"]
    assert document["rounds"] == 5 and "two" not in document["classes"]
    second = cli(*arguments, "--compare", "old.json", "--strict")
    assert second.status == 1, "no ratio is 1e9"
    assert "new over old" in second.out and "MISSED" in second.out


def test_a_wrong_result_is_status_3(cli: Cli, monkeypatch: pytest.MonkeyPatch):
    from gemmir.bench import race

    def spoilt(gemm: Any, expected: Any, file: str) -> str:
        return "element [0, 0] is 1"

    monkeypatch.setattr(race, "_compared", spoilt)
    found = cli(*TINY)
    assert found.status == 3
    assert "GEM1372" in found.err and "is wrong" in found.err and "wrong" in found.out


def test_a_problem_without_a_kernel_is_status_1(cli: Cli, tmp_path: Path):
    text = '[[class]]\nname="x"\nproblem={dtype="e4m3"}\nshapes=["8x8x32"]\n'
    Path(tmp_path, "s.toml").write_text(text)
    found = cli("bench", "--suite", "s.toml", "--against", "numpy", "--rounds", "1")
    assert found.status == 1 and "GEM1376" in found.err


@pytest.mark.parametrize(
    ("arguments", "status", "part"),
    [
        (["--suite", "none.toml"], 1, "GEM1370"),
        (["--suite", "s.toml", "--m", "3"], 2, "--m would change nothing"),
        (["--m", "8", "--n", "8", "--k", "8", "--class", "x"], 2, "--class"),
        (["--m", "8", "--n", "8", "--k", "8", "--against", "nympy"], 4, "use numpy"),
        (["--m", "8", "--n", "8", "--k", "8", "--cpu", "9999"], 4, "GEM1373"),
        (["--m", "8", "--n", "8", "--k", "8", "--plot", "x.gif"], 4, "GEM1374"),
        (["--m", "8", "--n", "8", "--k", "8", "--compare", "s.toml"], 1, "GEM1375"),
        (["--m", "8", "--n", "8", "--k", "8", "--compare", "empty.json"], 1, "no classes"),
        (["--m", "8", "--n", "8", "--k", "8", "--compare", "empty.json", "--json"], 2, "--json"),
        (["--m", "8", "--n", "8", "--k", "8", "--also", "x{}", "--also", "x{}"], 2, "gemmir:x{}"),
        (["--suite", "s.toml", "--threads", "0"], 2, "at least one"),
        (["--m", "8", "--n", "8", "--k", "8", "--quick", "--rounds", "3"], 2, "--quick"),
        (["--m", "8", "--n", "8", "--k", "8", "--target", "tpu:v5e"], 2, "on this computer's CPU"),
        (["--m", "8", "--n", "8"], 2, "--k"),
        (["--m", "any", "--n", "8", "--k", "8"], 2, "known sizes"),
    ],
)
def test_what_makes_no_sense_is_refused(
    cli: Cli, tmp_path: Path, arguments: list[str], status: int, part: str
):
    Path(tmp_path, "s.toml").write_text(SUITE)
    Path(tmp_path, "empty.json").write_text('{"classes": {}}')
    found = cli("bench", *arguments)
    assert (found.status, part in found.err) == (status, True), found.err


@pytest.mark.parametrize("option", ["-o", "--plot"])
def test_a_file_that_cannot_be_written_is_refused_before_the_race(cli: Cli, option: str) -> None:
    found = cli(*TINY, option, "no/x.png")
    assert found.status == 1 and "GEM0701: no/x.png cannot be written" in found.err
    assert found.out == ""
