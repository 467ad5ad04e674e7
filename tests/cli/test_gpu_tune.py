"""Time on a GPU as an objective: tunes, experiments and reports on one that is emulated."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from gemmir.backends.ptx.driver import find_driver
from gemmir.errors import MissingError
from gemmir.search.experiments.state import environment
from gemmir.search.tuning.study import read_study
from tests.cli.conftest import Cli
from tests.search.gpu import TARGET, FakeGpu, install

PROBLEM = ("--m", "20", "--n", "24", "--k", "32", "--dtype", "f16", "--target", TARGET)
TUNE = ("tune", *PROBLEM, "--study", "s", "--space", "my.space", "--no-prior", "--trials", "2")
SHORT = ("--rounds", "1", "--race", "1")

SPACE = """
?kt = 16 | 32
tile{loops=m,n sizes=32,24 over=blocks per_sm=1}
tile{loops=m,n sizes=32,24 over=warps}
promote{operand=c to=registers}
tile{loops=k sizes=?kt}
promote{operand=a to=shared layout=swizzle:32}
promote{operand=b to=shared layout=swizzle:32}
vectorize{with=mma width=8}
"""

SPEC = """
repetitions = 2
rounds = 2
sample_seconds = 0.002
warm_up_seconds = 0.001
targets = ["cuda:sm_80", "cuda:sm_90a"]
[[problem]]
m = 20
n = 24
k = 16
dtype = "f16"
"""


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.space").write_text(SPACE)


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpu]:
    yield install(monkeypatch, tmp_path)
    find_driver.cache_clear()
    environment.cache_clear()


@pytest.fixture
def no_gpu() -> None:
    find_driver.cache_clear()
    try:
        find_driver()
    except MissingError:
        return
    pytest.skip("there is a GPU")


def test_a_tune_takes_times_where_the_gpu_is(gpu: FakeGpu, cli: Cli) -> None:
    result = cli(*TUNE, *SHORT, "--pin", "my.lock", "--json")
    assert result.status == 0, result.err
    assert "objective: time of a launch on Fake A100 (measured)\n" in result.err
    found = json.loads(result.out)
    assert found["outcomes"] == {"ok": 2} and found["winner"] in found["tied"]
    assert found["objective"] == {
        "name": "time of a launch on Fake A100",
        "unit": "s",
        "is_measured": True,
    }
    assert found["machine"]["gpu"] == "Fake A100" and found["machine"]["name"] == "sm_80"
    assert all(row["rounds"] == 8 for row in found["race"]), "all raced in common rounds"
    low, high = found["interval"]
    assert 0 < low <= found["seconds"] <= high
    kept = read_study(Path("s"))
    assert kept.plan["objective"] == found["objective"]["name"]
    (pin,) = tomllib.loads(Path("my.lock").read_text())["pin"]
    assert pin["objective"] == found["objective"]["name"] and pin["cpu"] == "sm_80"
    compiled = cli("compile", *PROBLEM, "--lock", "my.lock", "--json")
    assert ",".join(json.loads(compiled.out)["schedule"]) == found["winner"]
    shown = cli(*TUNE, *SHORT, "--resume")
    assert f"on {TARGET} (Fake A100)" in shown.out and "measured)" in shown.out
    page = cli("report", "s", "-o", "page.html")
    assert page.status == 0, page.err
    text = Path("page.html").read_text()
    assert "time of a launch on Fake A100" in text and "not measured" not in text


def test_a_study_of_times_is_not_gone_on_with_by_a_model(gpu: FakeGpu, cli: Cli) -> None:
    assert cli(*TUNE, *SHORT).status == 0
    result = cli(*TUNE, *SHORT, "--objective", "static", "--resume")
    assert result.status == 1 and "GEM1413" in result.err
    assert "objective time of a launch on Fake A100" in result.err


def test_what_is_wrong_on_the_gpu_never_wins(gpu: FakeGpu, cli: Cli) -> None:
    gpu.be("wrong")
    result = cli(*TUNE, *SHORT, "--objective", "time")
    assert result.status == 5 and "GEM1417: none of 2 trials is right; 2 of them: wrong" in (
        " ".join(result.err.split())
    )
    assert {row.outcome.status for row in read_study(Path("s")).rows if row.outcome} == {"wrong"}


def test_static_is_what_models_say_also_where_the_gpu_is(gpu: FakeGpu, cli: Cli) -> None:
    gpu.be("crashes")
    result = cli(*TUNE, *SHORT, "--objective", "static", "--json")
    assert result.status == 0, result.err
    assert "objective: predicted time, by the static cost model (not measured)\n" in result.err
    found = json.loads(result.out)
    assert not found["objective"]["is_measured"] and found["machine"]["gpu"] is None


def test_without_a_gpu_auto_is_static_and_says_why(no_gpu: None, cli: Cli) -> None:
    result = cli(*TUNE, *SHORT, "--json")
    assert result.status == 0, result.err
    line = next(line for line in result.err.splitlines() if line.startswith("objective: "))
    assert line.startswith("objective: predicted time, by the static cost model (not measured); ")
    assert f"times for {TARGET} need a GPU of that architecture: " in line


def test_without_a_gpu_time_is_an_error_that_names_static(no_gpu: None, cli: Cli) -> None:
    result = cli(*TUNE, *SHORT, "--objective", "time")
    assert result.status == 4 and result.err.startswith("error GEM1460: times for cuda:sm_80 need")
    assert "--objective static" in result.err and not Path("s").exists()


def test_other_machines_have_one_objective(cli: Cli) -> None:
    cpu = ("tune", "--m", "9", "--n", "9", "--k", "9", "--study", "s", "--objective", "static")
    result = cli(*cpu)
    assert result.status == 1 and "GEM1462: the objective static of cpu" in result.err
    result = cli(*cpu[:-1], "time", "--dtype", "bf16", "--target", "tpu:v5e")
    assert result.status == 4 and "GEM1461" in result.err and "--objective static" in result.err
    result = cli(*TUNE, "--objective", "speed")
    assert result.status == 2 and "--objective speed: there are auto, time, static" in result.err


def test_an_experiment_takes_times_where_the_gpu_is(gpu: FakeGpu, cli: Cli) -> None:
    environment.cache_clear()
    Path("x.toml").write_text(SPEC)
    result = cli("experiment", "run", "x.toml", "--json")
    assert result.status == 0, result.err
    found = json.loads(result.out)
    timed, static = sorted(found["points"], key=lambda point: point["target"])
    assert timed["target"] == TARGET and timed["repetitions"] == 2
    assert timed["timing"]["count"] == 4 and timed["status"] == "ok" and not timed["figures"]
    assert static["repetitions"] == 1 and static["timing"] is None
    assert "predicted time" in static["figures"]
    assert '"gpu": "Fake A100"' in result.out, "the file says on what they were taken"
    again = cli("experiment", "run", "x.toml", "--workers", "2", "--append")
    assert again.status == 1 and "GEM1429: times on a GPU (cuda:sm_80) are taken" in again.err
    page = cli("report", "x.db", "-o", "page.html")
    assert page.status == 0, page.err
    assert "Fake A100" in Path("page.html").read_text()


def test_an_experiment_says_when_it_lacks_the_gpu(no_gpu: None, cli: Cli) -> None:
    Path("x.toml").write_text(f'objective = "time"\n{SPEC}')
    result = cli("experiment", "run", "x.toml", "--plan")
    assert result.status == 4 and "GEM1460" in result.err
    Path("x.toml").write_text(SPEC)
    plan = json.loads(cli("experiment", "run", "x.toml", "--plan", "--json").out)
    assert {cell["objective"] for cell in plan["cells"]} == {"static"}
