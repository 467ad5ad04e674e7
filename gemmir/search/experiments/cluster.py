"""Spreading cells over the workers of a Dask cluster.

Each worker has one cell at a time, on CPUs of its host that no other worker measures on. Workers
may come and go: the cell of one that is lost is given to another. The coordinator sends the points,
takes what comes back, and writes it; a worker that was thought to be lost is not listened to.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from gemmir.errors import MissingError
from gemmir.search.experiments.cells import Bench, Measure
from gemmir.search.experiments.modules import distributed
from gemmir.search.experiments.plan import Point, Settings
from gemmir.search.experiments.records import Outcome, Pending, Worker
from gemmir.search.experiments.running import Measured
from gemmir.search.experiments.state import Environment, State, environment
from gemmir.search.experiments.store import now

SCHEME: Final = "dask://"
DASK_SCHEMES: Final = ("tcp://", "tls://", "ucx://")

CONNECT_SECONDS: Final = 10.0
WORKER_SECONDS: Final = 60.0
"""So long is waited for the first worker, and for another one where all are lost."""

LOOK_SECONDS: Final = 0.25
"""So often it is looked who is there."""

MOST_LOSSES: Final = 5
"""A cell with which so many workers were lost has crashed."""

KEPT: Final = "gemmir_bench"
"""The attribute of a Dask worker in which its bench stays from cell to cell."""

MakeBench = Callable[[Settings, Sequence[int]], Measure]


@dataclass(frozen=True, kw_only=True)
class Place:
    """A worker and the CPUs on which it measures."""

    address: str
    worker: Worker
    host: str
    cpus: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class _Sent:
    """A cell that a worker has."""

    cell: Pending
    place: Place
    at: str


class Cluster:
    """The workers of a scheduler to which `client` is connected."""

    is_here = False

    def __init__(self, client: Any, bench: MakeBench = Bench) -> None:
        self._client = client
        self._bench = bench
        self._key = f"{socket.gethostname()} {os.getpid()} {time.time_ns()}"
        self._places: dict[str, Place] = {}
        self._known: dict[str, tuple[Environment, tuple[int, ...]]] = {}
        self._wait_for_one()

    @property
    def environment(self) -> Environment:
        """That of all workers, in what matters."""
        return next(iter(self._known.values()))[0]

    def measured(self, cells: Sequence[Pending], settings: Settings) -> Generator[Measured]:
        """Every cell, as it comes back."""
        waiting = deque(cells)
        sent: dict[Any, _Sent] = {}
        losses: dict[int, int] = {}
        try:
            while waiting or sent:
                for place in self.free(settings, sent):
                    if waiting:
                        cell = waiting.popleft()
                        future = self._send(cell, place, settings)
                        sent[future] = _Sent(cell=cell, place=place, at=now())
                for future in self._come_back(sent):
                    of = sent.pop(future)
                    outcome = self.outcome(future, of.place)
                    if outcome is None:
                        losses[of.cell.row] = losses.get(of.cell.row, 0) + 1
                        if losses[of.cell.row] < MOST_LOSSES:
                            waiting.appendleft(of.cell)
                            continue
                        outcome = _lost(of)
                    yield Measured(cell=of.cell, worker=of.place.worker, outcome=outcome)
        finally:
            for future in sent:
                future.cancel()
            with suppress(Exception):
                self._client.run(_forget, on_error="ignore")

    def _send(self, cell: Pending, place: Place, settings: Settings) -> Any:
        return self._client.submit(
            measure_there,
            self._key,
            cell.point,
            settings,
            place.cpus,
            self._bench,
            workers=[place.address],
            allow_other_workers=False,
            pure=False,
            retries=0,
        )

    def _come_back(self, sent: dict[Any, _Sent]) -> list[Any]:
        """The cells that are done, and those whose workers are gone."""
        if not sent:
            time.sleep(LOOK_SECONDS)
            return []
        with suppress(TimeoutError):
            distributed().wait(list(sent), timeout=LOOK_SECONDS, return_when="FIRST_COMPLETED")
        done = [future for future in sent if future.done()]
        there = self._addresses() if len(done) < len(sent) else set[str]()
        gone = [f for f, of in sent.items() if f not in done and of.place.address not in there]
        for future in gone:
            future.cancel()
        return done + gone

    def outcome(self, future: Any, place: Place) -> Outcome | None:
        """What a worker has found; None where it was lost. A fault of gemmir is raised.

        A cell may be done and its worker lost before the outcome is fetched: Dask would compute it
        again on that very worker, and wait for it for ever.
        """
        if future.status not in ("finished", "error"):
            return None
        while True:
            try:
                return future.result(timeout=LOOK_SECONDS)
            except (TimeoutError, OSError, distributed().scheduler.KilledWorker):
                if future.status == "error" or place.address not in self._addresses():
                    future.cancel()
                    return None

    def free(self, settings: Settings, sent: dict[Any, _Sent]) -> Iterator[Place]:
        """The workers that have nothing to do; waits for one where there is none at all."""
        there = self._addresses()
        if not there:
            self._wait_for_one()
            there = self._addresses()
        for address in self._places.keys() - there:
            del self._places[address]
        for address in sorted(there - self._places.keys()):
            self._meet(address)
            place = self._place(address, settings.threads)
            if place is not None:
                self._places[address] = place
        busy = {of.place.address for of in sent.values()}
        return (place for address, place in self._places.items() if address not in busy)

    def _addresses(self) -> set[str]:
        return set(self._client.nthreads())

    def _wait_for_one(self) -> None:
        """`MissingError` GEM1427 where no worker comes."""
        end = time.monotonic() + WORKER_SECONDS
        while not self._addresses():
            if time.monotonic() > end:
                raise MissingError(
                    "GEM1427",
                    f"the Dask cluster has had no worker for {WORKER_SECONDS:g} s",
                    "start one: dask worker tcp://HOST:PORT --nthreads 1; then --resume",
                )
            time.sleep(LOOK_SECONDS)
        for address in sorted(self._addresses()):
            self._meet(address)

    def _meet(self, address: str) -> None:
        """Ask a new worker where and what it is; GEM1427 where its times are not of this run."""
        if address in self._known:
            return
        answers = self._client.run(about_worker, workers=[address], on_error="ignore")
        if not isinstance(answers.get(address), tuple):
            return
        found, cpus = answers[address]
        wanted = environment()
        first = next(iter(self._known.values()))[0] if self._known else found
        changes = [*replace(wanted, cpu=found.cpu).differences(found), *first.differences(found)]
        if changes:
            raise MissingError(
                "GEM1427",
                f"the worker {address} is of another kind: {'; '.join(dict.fromkeys(changes))}",
                "install the same gemmir there, on CPUs of one kind, or leave that worker out",
            )
        self._known[address] = (found, cpus)

    def _place(self, address: str, threads: int) -> Place | None:
        """CPUs of its host that no other worker has; None where there are too few."""
        if address not in self._known:
            return None
        found, allowed = self._known[address]
        taken = {c for p in self._places.values() if p.host == found.host for c in p.cpus}
        free = [cpu for cpu in allowed if cpu not in taken]
        if allowed and len(free) < threads:
            return None
        worker = Worker(name=address, environment=found)
        cpus = tuple(free[:threads])
        return Place(address=address, worker=worker, host=found.host, cpus=cpus)


@contextmanager
def cluster(workers: str) -> Generator[Cluster]:
    """The cluster of that address, or so many processes of this computer.

    Raises `MissingError` GEM1427 where it is neither, or cannot be reached, and GEM1426 without
    Dask.
    """
    dask = distributed()
    if workers.isdecimal() and int(workers) > 0:
        local = dask.LocalCluster(
            n_workers=int(workers),
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            memory_limit=None,
            silence_logs=logging.ERROR,
        )
        with local, dask.Client(local) as client:
            yield Cluster(client)
        return
    address = workers.replace(SCHEME, "tcp://", 1)
    if not address.startswith(DASK_SCHEMES):
        raise MissingError(
            "GEM1427",
            f"--workers {workers}: no address of a scheduler, and no number of processes",
            f"use {SCHEME}HOST:PORT, or 2",
        )
    try:
        client = dask.Client(address, timeout=CONNECT_SECONDS)
    except (OSError, TimeoutError, ValueError) as error:
        raise MissingError(
            "GEM1427",
            f"--workers {workers}: no Dask scheduler answers there: {error}",
            "start one by dask scheduler, and workers by dask worker tcp://HOST:PORT --nthreads 1",
        ) from error
    with client:
        yield Cluster(client)


# On a worker --------------------------------------------------------------------------------------


def measure_there(
    key: str, point: Point, settings: Settings, cpus: Sequence[int], make: MakeBench
) -> Outcome:
    """Measure on this worker, whose bench stays for the next cell of the same coordinator."""
    worker = distributed().get_worker()
    wanted = (key, tuple(cpus))
    kept: tuple[tuple[str, tuple[int, ...]], Measure] | None = getattr(worker, KEPT, None)
    if kept is None or kept[0] != wanted:
        if kept is not None:
            kept[1].close()
        kept = (wanted, make(settings, cpus))
        setattr(worker, KEPT, kept)
    return kept[1].measure(point)


def about_worker() -> tuple[Environment, tuple[int, ...]]:
    """What this worker runs on and with, and the CPUs that it may use."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return environment(), tuple(allowed)


def _forget(dask_worker: Any) -> None:
    """End what a worker has kept."""
    kept: tuple[Any, Measure] | None = getattr(dask_worker, KEPT, None)
    if kept is not None:
        kept[1].close()
        delattr(dask_worker, KEPT)


# What came of it ----------------------------------------------------------------------------------


UNKNOWN: Final = State(
    load_average=None, mhz=None, celsius=None, governor=None, affinity=(), steal_seconds=None
)
"""The state of a machine that was lost."""


def _lost(of: _Sent) -> Outcome:
    return Outcome(
        status="crashed",
        started=of.at,
        ended=now(),
        before=UNKNOWN,
        after=UNKNOWN,
        detail=f"{MOST_LOSSES} workers were lost while they measured it",
    )
