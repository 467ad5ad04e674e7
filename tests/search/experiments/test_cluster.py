"""Workers of a Dask cluster: one is killed in the middle, and every cell is there once."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gemmir.errors import MissingError
from gemmir.search.experiments import cluster as clusters
from gemmir.search.experiments.cluster import Cluster, Place, cluster
from gemmir.search.experiments.modules import distributed
from gemmir.search.experiments.running import Measured, run_experiment
from gemmir.search.experiments.spec import parse_spec
from gemmir.search.experiments.store import Store
from tests.search.experiments.examples import SETTINGS, WORKER, FakeBench

TEXT = """
repetitions = 4
peak = false
[[problem]]
m = [8, 16, 24]
n = 8
k = 8
[[schedule]]
[[schedule]]
name = "b"
text = "unroll{loop=k factor=2}"
"""

CELLS = 3 * 2 * 4


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Two processes of one thread each, which are started again where they are killed."""
    dask = distributed()
    os.environ["FAKE_SECONDS"] = "0.05"
    try:
        local = dask.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            memory_limit=None,
        )
        with local, dask.Client(local) as made:
            yield made
    finally:
        del os.environ["FAKE_SECONDS"]


def test_a_worker_is_killed_in_the_middle(client: Any, tmp_path: Path) -> None:
    pids: dict[str, int] = client.run(os.getpid)
    told: list[Measured] = []

    def done(measured: Measured) -> None:
        told.append(measured)
        if len(told) == 5:
            os.kill(pids[measured.worker.name], signal.SIGKILL)

    path = tmp_path / "x.db"
    spec = parse_spec(TEXT, "mine.toml", Path())
    run = run_experiment(spec, path, Cluster(client, FakeBench), done=done)
    assert (run.done, run.statuses) == (CELLS, {"ok": CELLS})
    with Store.reader(path) as store:
        cells = store.cells(run.number)
        (session,) = store.sessions(run.number)
    counts = Counter((cell.point.words, cell.repetition) for cell in cells)
    assert len(counts) == CELLS and set(counts.values()) == {1}
    assert {len(cell.outcome.samples) for cell in cells} == {10}
    workers = {cell.worker for cell in cells}
    assert len(workers) >= 2 and workers == {worker.name for worker in session.workers}
    assert Counter(m.cell.row for m in told) == {m.cell.row: 1 for m in told}
    assert run.settings["cpus"] == [], "workers choose theirs"


def test_workers_of_one_host_have_cpus_of_their_own(client: Any) -> None:
    crew = Cluster(client, FakeBench)
    end = time.monotonic() + 20
    while len(client.nthreads()) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    settings = SETTINGS
    places = list(crew.free(settings, {}))
    allowed = len(os.sched_getaffinity(0))
    assert len(places) == min(2, allowed)
    taken = [cpu for place in places for cpu in place.cpus]
    assert len(set(taken)) == len(taken) == len(places)
    assert list(Cluster(client, FakeBench).free(replace(SETTINGS, threads=allowed + 1), {})) == []


@pytest.mark.parametrize("workers", ["10.0.0.7:8786", "0", "dask", "-1"])
def test_what_is_no_address(workers: str) -> None:
    with pytest.raises(MissingError, match="GEM1427"), cluster(workers):
        pass


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "CONNECT_SECONDS", 0.3)
    with (
        pytest.raises(MissingError, match=r"GEM1427: .* no Dask scheduler"),
        cluster("dask://127.0.0.1:9"),
    ):
        pass


class Forgetful:
    """A client whose only worker is gone, and a future of it that says it has finished."""

    status = "finished"
    cancelled = False

    def nthreads(self) -> dict[str, int]:
        return {} if self.cancelled or self.asked else {"tcp://gone": 1}

    def __init__(self) -> None:
        self.asked = 0

    def run(self, function: Any, workers: list[str], on_error: str) -> dict[str, Any]:
        return {worker: function() for worker in workers}

    def result(self, timeout: float) -> None:
        self.asked += 1
        raise TimeoutError

    def cancel(self) -> None:
        self.cancelled = True


def test_a_worker_is_lost_between_its_cell_and_the_answer() -> None:
    client = Forgetful()
    crew = Cluster(client, FakeBench)
    place = Place(address="tcp://gone", worker=WORKER, host="h", cpus=(0,))
    assert crew.outcome(client, place) is None
    assert client.cancelled
