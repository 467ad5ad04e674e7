"""The file of an experiment: what is put in comes out, whole cells or none, one writer."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest

from gemmir.errors import OutputError, ParseError
from gemmir.search.experiments.plan import plan
from gemmir.search.experiments.store import Store
from tests.search.experiments.examples import CANDIDATES, SETTINGS, WORKER, outcome, points
from tests.search.experiments.examples import small_plan as planned


def test_what_is_put_in_comes_out(tmp_path: Path) -> None:
    path, made, found = tmp_path / "x.db", planned(), outcome("ok", 0.5, 0.25)
    with Store.writer(path, create=True) as store:
        run = store.add_run(made)
        session = store.begin(run, WORKER.environment)
        pending = store.pending(run)
        assert [(p.point, p.repetition) for p in pending] == [
            (made.points[c.point], c.repetition) for c in made.cells
        ]
        assert store.finish(pending[1].row, session, WORKER, found)
        assert [p.position for p in store.pending(run)] == [0, *range(2, 18)]
        store.end(session)
    with Store.reader(path) as store:
        (own,) = store.runs()
        assert (own.name, own.spec, own.plan) == ("a", made.spec, made.hash)
        assert (own.cells, own.done, own.statuses) == (18, 1, {"ok": 1})
        (cell,) = store.cells(run)
        assert (cell.outcome, cell.seconds) == (found, (0.25, 0.125))
        assert (cell.point, cell.position) == (pending[1].point, 1)
        (session_,) = store.sessions(run)
        assert session_.workers == (WORKER,) and session_.ended is not None
        assert (session_.revision, session_.is_dirty) == ("abc", True)
        assert list(store.points(run).values()) == list(made.points)


def test_the_view_has_every_sample(tmp_path: Path) -> None:
    with Store.writer(tmp_path / "x.db", create=True) as store:
        run = store.add_run(planned())
        session = store.begin(run, WORKER.environment)
        store.finish(store.pending(run)[0].row, session, WORKER, outcome("ok", 3.0, 5.0))
    connection = sqlite3.connect(tmp_path / "x.db")
    rows = connection.execute("SELECT round, seconds, calls, worker, flops FROM times").fetchall()
    (flops,) = {row[-1] for row in rows}
    assert [row[:-1] for row in rows] == [(0, 1.5, 7, "here"), (1, 2.5, 7, "here")]
    assert flops in (2 * 8**3, 2 * 16**3)


def test_a_cell_is_completed_once(tmp_path: Path) -> None:
    with Store.writer(tmp_path / "x.db", create=True) as store:
        run = store.add_run(planned())
        session = store.begin(run, WORKER.environment)
        row = store.pending(run)[0].row
        assert store.finish(row, session, WORKER, outcome("ok", 1.0))
        assert not store.finish(row, session, WORKER, outcome("wrong", 2.0))
        (cell,) = store.cells(run)
        assert cell.outcome == outcome("ok", 1.0)


def test_a_cell_is_completed_as_a_whole(tmp_path: Path) -> None:
    """Two samples of one round cannot be; the cell is then as it was."""
    with Store.writer(tmp_path / "x.db", create=True) as store:
        run = store.add_run(planned())
        session = store.begin(run, WORKER.environment)
        row = store.pending(run)[0].row
        bad = outcome("ok", 1.0, float("nan"))
        with pytest.raises(sqlite3.IntegrityError):
            store.finish(row, session, WORKER, bad)
        assert len(store.pending(run)) == 18 and store.cells(run) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from gemmir.search.experiments.store import Store
from tests.search.experiments.examples import WORKER, outcome
with Store.writer(Path(sys.argv[1])) as store:
    session = store.begin(1, WORKER.environment)
    first, second, *_ = store.pending(1)
    store.finish(first.row, session, WORKER, outcome("ok", 1.0))
    store.connection.execute("PRAGMA cache_size = 1")
    store.connection.set_trace_callback(
        lambda text: os.kill(os.getpid(), signal.SIGKILL) if "INTO states" in text else None
    )
    store.finish(second.row, session, WORKER, outcome("ok", *[2.0] * 5000))
"""
"""So many samples that a part of them is in the file before it is killed."""


@pytest.mark.parametrize("opened", ["to be read", "to be written"])
def test_killed_inside_of_a_cell(opened: str, tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with Store.writer(path, create=True) as store:
        store.add_run(planned())
    before = path.stat().st_size
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(path)],
        env={**os.environ, "PYTHONPATH": str(root)},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert path.stat().st_size > before and Path(f"{path}-journal").exists(), "half a cell"
    with (Store.reader if opened == "to be read" else Store.writer)(path) as store:
        assert [cell.seconds for cell in store.cells(1)] == [(0.5,)]
        assert len(store.pending(1)) == 17
        assert store.sessions(1)[0].ended is None
        assert store.run(1).done == 1


def test_a_reader_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with Store.writer(path, create=True) as store:
        run = store.add_run(planned())
    with Store.reader(path) as store, pytest.raises(sqlite3.OperationalError, match="readonly"):
        store.begin(run, WORKER.environment)
    path.chmod(0o444)
    with Store.reader(path) as store:
        assert store.run().number == run


def test_cells_are_read_as_of_one_moment(tmp_path: Path) -> None:
    """A cell that is completed while another process reads is there as a whole, or not at all."""
    path = tmp_path / "x.db"
    with Store.writer(path, create=True) as writer:
        run = writer.add_run(planned())
        session = writer.begin(run, WORKER.environment)
        rows = [pending.row for pending in writer.pending(run)]
        writer.finish(rows.pop(), session, WORKER, outcome("ok", 1.0, 2.0))
        with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as connection:
            writer.connection.execute("PRAGMA busy_timeout = 0")

            def write(query: str) -> None:
                """Complete a cell when the cells are read, behind their samples."""
                if "SELECT cells.id" in query:
                    with suppress(sqlite3.OperationalError):
                        writer.finish(rows.pop(), session, WORKER, outcome("ok", 1.0, 2.0))

            connection.set_trace_callback(write)
            cells = Store(path, connection).cells(run)
        assert [len(cell.seconds) for cell in cells] == [2]
        assert len(rows) == 16, "it was tried"


def test_one_process_writes_and_others_read(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with Store.writer(path, create=True) as store:
        run = store.add_run(planned())
        with (
            pytest.raises(OutputError, match="GEM1424"),
            Store.writer(path),
        ):
            pass
        with Store.reader(path) as reader:
            assert reader.run().number == run
    with Store.writer(path) as store:
        assert store.run(run).name == "a"


def test_runs_are_found_by_number_and_name(tmp_path: Path) -> None:
    with Store.writer(tmp_path / "x.db", create=True) as store:
        with pytest.raises(ParseError, match="GEM1428"):
            store.run()
        first, second = (store.add_run(planned()) for _ in range(2))
        other = store.add_run(plan("b", "", SETTINGS, points(4)))
        assert (store.run().number, store.run("b").number) == (other, other)
        assert (store.run(1).number, store.run("a").number) == (first, second)
        with pytest.raises(ParseError, match=r"GEM1428: .* has no run c; .*1 \(a\).*3 \(b\)"):
            store.run("c")


@pytest.mark.parametrize("what", ["nothing", "text", "another database", "another version"])
def test_other_files_are_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / "x.db"
    if what == "text":
        path.write_text("name = 'a'\n" * 100)
    elif what == "another database":
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE t (x)")
    elif what == "another version":
        with Store.writer(path, create=True):
            pass
        with sqlite3.connect(path) as other:
            other.execute("PRAGMA user_version = 2")
    with pytest.raises(ParseError, match="GEM1421"), Store.reader(path):
        pass
    with pytest.raises(ParseError, match="GEM1421"), Store.writer(path):
        pass


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with Store.writer(path, create=True) as store:
        run = store.add_run(planned())
    whole = bytearray(path.read_bytes())
    with sqlite3.connect(path) as other:
        (page,) = other.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'points'"
        ).fetchone()
        (size,) = other.execute("PRAGMA page_size").fetchone()
    whole[(page - 1) * size : page * size] = b"\xff" * size
    path.write_bytes(whole)
    with pytest.raises(ParseError, match=r"GEM1421: .* is damaged"), Store.reader(path) as store:
        store.points(run)


def test_candidates_of_a_plan_are_kept(tmp_path: Path) -> None:
    with Store.writer(tmp_path / "x.db", create=True) as store:
        run = store.add_run(planned())
        assert {p.candidate.name: p.candidate for p in store.points(run).values()} == {
            c.name: c for c in CANDIDATES
        }
