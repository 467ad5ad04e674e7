"""Coordinators: all cells are measured, whatever ends one, and each is in the file once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gemmir.errors import OutputError
from gemmir.search.experiments import running
from gemmir.search.experiments.plan import Point, Settings
from gemmir.search.experiments.records import Outcome, Run
from gemmir.search.experiments.running import Alone, Begun, Measured, Mode, run_experiment
from gemmir.search.experiments.spec import Spec, parse_spec
from gemmir.search.experiments.store import Store
from tests.search.experiments.examples import FakeBench

ROOT = Path(__file__).parents[3]

TEXT = """
repetitions = 3
rounds = 2
peers = ["numpy"]
[[problem]]
m = [8, 16]
n = 8
k = 8
"""

CELLS = 2 * 3 * 3


def spec(text: str = TEXT) -> Spec:
    return parse_spec(text, "mine.toml", Path())


def go(path: Path, mode: Mode = "new", text: str = TEXT, **more: Any) -> Run:
    return run_experiment(spec(text), path, Alone(FakeBench), mode=mode, **more)


def positions(told: Sequence[Measured]) -> list[int]:
    return [measured.cell.position for measured in told]


class Dies(FakeBench):
    """Is interrupted in its fifth cell."""

    def __init__(self, settings: Settings, cpus: Sequence[int]) -> None:
        super().__init__(settings, cpus)
        self.left = 4

    def measure(self, point: Point) -> Outcome:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().measure(point)


def test_everything_is_measured_in_the_order_of_the_plan(tmp_path: Path) -> None:
    begun: list[Begun] = []
    told: list[Measured] = []
    path = tmp_path / "x.db"
    run = go(path, begun=begun.append, done=told.append)
    assert (run.done, run.cells, run.statuses) == (CELLS, CELLS, {"ok": CELLS})
    assert positions(told) == list(range(CELLS)) and len(begun) == 1
    with Store.reader(path) as store:
        cells = store.cells(run.number)
        (session,) = store.sessions(run.number)
    assert [cell.position for cell in cells] == positions(told)
    assert {len(cell.seconds) for cell in cells} == {2}
    assert session.ended is not None and session.workers[0].name == "here"


def test_ctrl_c_and_resume(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with pytest.raises(KeyboardInterrupt):
        run_experiment(spec(), path, Alone(Dies))
    with Store.reader(path) as store:
        assert store.run().done == 4
    told: list[Measured] = []
    run = go(path, "resume", done=told.append)
    assert positions(told) == list(range(4, CELLS)) and run.done == CELLS
    with Store.reader(path) as store:
        assert len(store.sessions(run.number)) == 2 and len(store.runs()) == 1
    assert go(path, "resume").done == CELLS, "nothing is left, which is no fault"


def test_append_adds_a_run(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    assert go(path).number == 1
    assert go(path, "append").number == 2
    with Store.reader(path) as store:
        assert [run.done for run in store.runs()] == [CELLS, CELLS]


def test_a_file_with_runs_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    go(path)
    with pytest.raises(OutputError, match=r"GEM1423: .* has a run of mine already, with 0 of 18"):
        go(path)
    with Store.reader(path) as store:
        assert len(store.runs()) == 1


def test_resume_begins_where_nothing_was_begun(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with Store.writer(path, create=True):
        pass
    assert go(path, "resume").done == CELLS


@pytest.mark.parametrize(
    ("before", "after", "parts"),
    [
        ("rounds = 2", "rounds = 3", ("rounds was 2 and is 3",)),
        ("m = [8, 16]", "m = [8, 17]", ("default for 16 x 8 x 8 f32", "is gone", "17", "is new")),
        ('["numpy"]', '["blis"]', ("numpy for 8", "blis for 8")),
        ("k = 8\n", 'k = 8\n[[schedule]]\nname = "default"\ntext = "unroll{loop=k factor=2}"\n',
         ("default for 8 x 8 x 8 f32 on cpu is new (unroll{loop=k factor=2})",)),
        ("m = [8, 16]", "m = [16, 8]", ("the order",)),
    ],
)  # fmt: skip
def test_another_plan_is_not_resumed(
    before: str, after: str, parts: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / "x.db"
    with pytest.raises(KeyboardInterrupt):
        run_experiment(spec(), path, Alone(Dies))
    with pytest.raises(OutputError) as raised:
        go(path, "resume", TEXT.replace(before, after))
    assert raised.value.code == "GEM1423" and "--append" in str(raised.value)
    for part in parts:
        assert part in str(raised.value)
    assert go(path, "resume", TEXT + "# a comment\n").done == CELLS


def test_another_compiler_does_not_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.db"
    with pytest.raises(KeyboardInterrupt):
        run_experiment(spec(), path, Alone(Dies))
    here = running.environment()
    other = replace(here, source="0", versions={**here.versions, "llvm": "3.1"})
    monkeypatch.setattr(running, "environment", lambda: other)
    with pytest.raises(OutputError, match=r"gemmir's source: .* became 0; llvm: .* became 3\.1"):
        go(path, "resume")


def started(path: Path, mode: Mode, log: Path, seconds: float) -> subprocess.Popen[bytes]:
    """A coordinator in a process of its own."""
    (path.parent / "mine.toml").write_text(TEXT)
    words = ["-m", "tests.search.experiments.coordinator", str(path.parent / "mine.toml")]
    variables = {"PYTHONPATH": str(ROOT), "FAKE_LOG": str(log), "FAKE_SECONDS": str(seconds)}
    return subprocess.Popen(
        [sys.executable, *words, str(path), mode], env={**os.environ, **variables}
    )


def wait_for(log: Path, lines: int) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if log.exists() and len(log.read_text().splitlines()) >= lines:
            return
        time.sleep(0.002)
    raise AssertionError(f"{log} has fewer than {lines} lines")


def test_kill_9_and_resume(tmp_path: Path) -> None:
    """Each time some cells are done; in the end each is there once, and few were begun twice."""
    path, log = tmp_path / "x.db", tmp_path / "log"
    for number, lines in enumerate((3, 9)):
        process = started(path, "new" if number == 0 else "resume", log, 0.02)
        wait_for(log, lines)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with Store.reader(path) as store:
            done = store.run().done
            assert lines - 2 - number <= done <= len(log.read_text().splitlines())
            assert len(store.cells(1)) == done
    assert started(path, "resume", log, 0.0).wait() == 0
    with Store.reader(path) as store:
        cells = store.cells(1)
        assert len(store.runs()) == 1
        assert len(store.sessions(1)) == 3
    assert len(cells) == CELLS
    counts = Counter((cell.point.words, cell.repetition) for cell in cells)
    assert set(counts.values()) == {1}
    assert {len(cell.outcome.samples) for cell in cells} == {2}
    assert CELLS <= len(log.read_text().splitlines()) <= CELLS + 2


def test_two_coordinators_do_not_write_one_file(tmp_path: Path) -> None:
    path, log = tmp_path / "x.db", tmp_path / "log"
    process = started(path, "new", log, 0.05)
    wait_for(log, 1)
    try:
        with pytest.raises(OutputError, match="GEM1424"):
            go(path, "resume")
    finally:
        process.kill()
        process.wait()
