"""gemmir experiment, through its options."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gemmir.search.experiments.plan import Point, Settings
from gemmir.search.experiments.records import Outcome
from gemmir.search.experiments.running import Alone
from gemmir.search.experiments.spec import EXAMPLE
from gemmir.search.experiments.store import Store
from tests.cli.conftest import Cli
from tests.search.experiments.examples import FakeBench, outcome

SPEC = """
repetitions = 2
rounds = 2
sample_seconds = 0.0001
warm_up_seconds = 0.00001
[[problem]]
m = [8, 16]
n = 32
k = 8
"""


class Wrong(FakeBench):
    """A bench whose schedules are wrong."""

    def measure(self, point: Point) -> Outcome:
        if point.candidate.kind == "schedule":
            return outcome("wrong")
        return super().measure(point)


class Interrupted(FakeBench):
    """Ctrl-C comes in the third cell."""

    def __init__(self, settings: Settings, cpus: Sequence[int]) -> None:
        super().__init__(settings, cpus)
        self.left = 2

    def measure(self, point: Point) -> Outcome:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().measure(point)


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(SPEC)
    return path


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Nothing is measured: a function that sets the bench of this computer."""

    def use(bench: type[FakeBench]) -> None:
        monkeypatch.setattr("gemmir.search.experiments.running.Alone", lambda: Alone(bench))

    use(FakeBench)
    return use


def test_init_writes_the_example(cli: Cli, tmp_path: Path) -> None:
    result = cli("experiment", "init")
    assert (result.status, result.out) == (0, "")
    assert "next: gemmir experiment run experiment.toml" in result.err
    assert (tmp_path / "experiment.toml").read_text() == EXAMPLE.read_text()
    assert cli("experiment", "init").status == 2
    assert cli("experiment", "init", "--force", "--json").json == {"wrote": "experiment.toml"}


def test_a_whole_experiment(cli: Cli, spec: Path, tmp_path: Path) -> None:
    """Really measured: run, show, export, and the refusal of another run."""
    spec.write_text(SPEC.replace("[8, 16]", "8"))
    found = cli("experiment", "run", "mine.toml", "--json")
    assert found.status == 0, found.err
    points = found.json["points"]
    assert {(p["contestant"], p["status"], p["timing"]["count"]) for p in points} == {
        ("default", "ok", 4),
        ("fma peak", "ok", 4),
    }
    assert all(p["gflops"] > 0 for p in points)
    assert re.search(r"^1/4 .*GFLOP/s; \d+ s left$", found.err, re.M)
    assert found.json["run"]["statuses"] == {"ok": 4}
    again = cli("experiment", "run", "mine.toml")
    assert again.status == 1 and "GEM1423" in again.err and "--append" in again.err
    shown = cli("experiment", "show", "mine.db")
    assert shown.status == 0 and "4 of 4: 4 ok" in shown.out and "fma peak" in shown.out
    exported = cli("experiment", "export", "mine.db", "--to", "csv")
    rows = list(csv.DictReader(exported.out.splitlines(keepends=True)))
    assert len(rows) == 8 and {row["contestant"] for row in rows} == {"default", "fma peak"}
    written = cli("experiment", "export", "mine.db", "--to", "t4", "--json")
    assert written.json["wrote"] == ["mine.json", "mine-metadata.json"]
    assert len(json.loads((tmp_path / "mine.json").read_text())["results"]) == 2
    assert cli("experiment", "export", "mine.db", "--to", "parquet").status == 0
    assert (tmp_path / "mine.parquet").read_bytes()[:4] == b"PAR1"
    assert cli("experiment", "export", "mine.db", "--to", "csv", "--json").status == 2


def test_the_plan_alone(
    cli: Cli, spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first(threads: int, cpu: int | None) -> list[int]:
        return [0]

    monkeypatch.setattr("gemmir.search.experiments.planning.cpus_for", first)
    found = cli("experiment", "run", "mine.toml", "--plan", "--json").json
    assert [cell["position"] for cell in found["cells"]] == list(range(8))
    shown = cli("experiment", "run", "mine.toml", "--plan")
    assert "8 cells" in shown.out and found["plan"][:12] in shown.out
    assert not (tmp_path / "mine.db").exists()
    for more in (("--resume",), ("--append",), ("-o", "x.db"), ("--workers", "2")):
        refused = cli("experiment", "run", "mine.toml", "--plan", *more)
        assert refused.status == 2 and "--plan measures nothing" in refused.err


def test_two_runs_are_compared(cli: Cli, spec: Path, fake: Any) -> None:
    for _ in range(2):
        assert cli("experiment", "run", "mine.toml", "--append").status == 0
    found = cli("experiment", "compare", "mine.db", "--json").json
    verdicts = {d["verdict"] for d in found["differences"]}
    assert verdicts == {"no difference seen"} and set(found["mean_ratios"].values()) == {1}
    assert "run 1 (mine)" in found["compared"] and "run 2 (mine)" in found["compared"]
    shown = cli("experiment", "compare", "mine.db", "1", "2")
    assert "faster: 0, slower: 0, no difference seen: 2" in shown.out
    assert cli("experiment", "compare", "mine.db", "1", "mine.db").status == 0
    assert cli("experiment", "compare", "mine.db", "7").status == 1
    alone = cli("experiment", "compare", "mine.db", "2")
    assert alone.status == 2 and "compared with itself" in " ".join(alone.err.split())


def test_another_way_to_measure_is_told(cli: Cli, spec: Path, fake: Any) -> None:
    assert cli("experiment", "run", "mine.toml").status == 0
    spec.write_text(SPEC.replace("rounds = 2", "rounds = 3"))
    assert cli("experiment", "run", "mine.toml", "--append").status == 0
    found = cli("experiment", "compare", "mine.db", "--json").json
    assert found["differs"] == ["rounds was 2 and is 3"]
    shown = cli("experiment", "compare", "mine.db")
    assert "not of the schedules alone: rounds was 2 and is 3" in shown.out


def test_contestants_are_compared(cli: Cli, spec: Path, fake: Any) -> None:
    spec.write_text(
        SPEC + "[[schedule]]\n[[schedule]]\nname = 'b'\ntext = 'unroll{loop=k factor=2}'\n"
    )
    assert cli("experiment", "run", "mine.toml").status == 0
    found = cli("experiment", "compare", "mine.db", "--json").json
    assert {d["verdict"] for d in found["differences"]} == {"faster"}, "names make times"
    assert {d["old"]["contestant"] for d in found["differences"]} == {"default"}
    assert {d["new"]["contestant"] for d in found["differences"]} == {"b"}
    named = cli("experiment", "compare", "mine.db", "--baseline", "b", "--json").json
    assert {d["verdict"] for d in named["differences"]} == {"slower"}
    missing = cli("experiment", "compare", "mine.db", "--baseline", "c")
    assert missing.status == 1 and "GEM1422" in missing.err


def test_wrong_results_are_kept_and_status_3(cli: Cli, spec: Path, fake: Any) -> None:
    fake(Wrong)
    found = cli("experiment", "run", "mine.toml")
    assert found.status == 3 and "GEM1425" in found.err and "because" in found.err
    assert "8 of 8: 4 ok, 4 wrong" in found.out
    assert cli("experiment", "show", "mine.db").status == 0


def test_ctrl_c_says_how_to_go_on(cli: Cli, spec: Path, fake: Any) -> None:
    fake(Interrupted)
    found = cli("experiment", "run", "mine.toml", "-o", "x.db")
    assert found.status == 130
    assert found.err.endswith("\n  gemmir experiment run mine.toml -o x.db --resume\n")
    again = cli("experiment", "run", "mine.toml", "-o", "my results.db")
    assert again.err.endswith(" -o 'my results.db' --resume\n")
    fake(FakeBench)
    assert cli("experiment", "run", "mine.toml", "-o", "x.db", "--resume").status == 0
    with Store.reader(Path("x.db")) as store:
        assert (store.run().done, len(store.sessions(1))) == (8, 2)


@pytest.mark.parametrize(
    ("words", "status", "part"),
    [
        (("run", "none.toml"), 1, "GEM1420"),
        (("run", "mine.toml", "--resume", "--append"), 2, "begins another"),
        (("run", "mine.toml", "--workers", "somewhere"), 4, "GEM1427"),
        (("show", "none.db"), 1, "GEM1421"),
        (("show", "mine.toml"), 1, "GEM1421"),
        (("compare", "mine.toml"), 1, "GEM1421"),
        (("export", "mine.toml", "--to", "xlsx"), 2, "xlsx"),
    ],
)
def test_what_is_refused(
    cli: Cli, spec: Path, words: tuple[str, ...], status: int, part: str
) -> None:
    found = cli("experiment", *words)
    assert found.status == status and part in found.err


def test_what_cannot_be_planned_leaves_no_file(cli: Cli) -> None:
    Path("x.toml").write_text('targets = ["cpu:z80"]\n[[problem]]\nm = 8\nn = 8\nk = 8\n')
    result = cli("experiment", "run", "x.toml")
    assert result.status == 4 and "GEM0602" in result.err
    assert not Path("x.db").exists()
    Path("x.db").touch()
    assert cli("experiment", "run", "x.toml").status == 4
    assert Path("x.db").exists(), "a file that was there is not ours to remove"
