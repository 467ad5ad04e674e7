"""Running an experiment: the coordinator, which alone writes the file.

A crew measures, this computer or the workers of a cluster; each cell that comes back is written
before the next is looked at. Whatever ends the coordinator leaves the cells that are done, and the
others are measured when it is resumed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from gemmir.errors import OutputError
from gemmir.search.experiments.cells import Bench, Measure
from gemmir.search.experiments.plan import Plan, Settings, name_of
from gemmir.search.experiments.planning import plan_of
from gemmir.search.experiments.records import Outcome, Pending, Run, Worker
from gemmir.search.experiments.spec import Spec
from gemmir.search.experiments.state import Environment, environment
from gemmir.search.experiments.store import Store

Mode = Literal["new", "resume", "append"]

SHOWN: Final = 5
"""So many of the changes are named, and the rest are counted."""

HERE: Final = "here"
"""The name of the worker that is this process."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A cell that came back."""

    cell: Pending
    worker: Worker
    outcome: Outcome


class Crew(Protocol):
    """Who measures cells, in any order, each once.

    `is_here` says that it is this computer alone, on the CPUs of the settings; others choose
    theirs. `environment` is that of all who measure.
    """

    @property
    def is_here(self) -> bool: ...

    @property
    def environment(self) -> Environment: ...

    def measured(self, cells: Sequence[Pending], settings: Settings) -> Generator[Measured]: ...


class Alone:
    """This computer measures, one cell after the other."""

    is_here = True

    def __init__(self, bench: Callable[[Settings, Sequence[int]], Measure] = Bench) -> None:
        self._bench = bench

    @property
    def environment(self) -> Environment:
        """That of this process."""
        return environment()

    def measured(self, cells: Sequence[Pending], settings: Settings) -> Generator[Measured]:
        """Every cell in its order."""
        worker = Worker(name=HERE, environment=self.environment)
        with closing(self._bench(settings, settings.cpus)) as bench:
            for cell in cells:
                yield Measured(cell=cell, worker=worker, outcome=bench.measure(cell.point))


@dataclass(frozen=True, kw_only=True)
class Begun:
    """What is known before the first cell: the run, how much of it is done, and its cells."""

    run: Run
    settings: Settings
    pending: Sequence[Pending]


def run_experiment(
    spec: Spec,
    path: Path,
    crew: Crew,
    *,
    mode: Mode = "new",
    begun: Callable[[Begun], None] = lambda _: None,
    done: Callable[[Measured], None] = lambda _: None,
) -> Run:
    """Measure all cells of `spec` that the file does not have; the run, as it is then.

    `begun` is told once what there is to do, `done` of each cell that is in the file. Raises
    `OutputError` GEM1423 where the file has runs and is to have a new one, or where the last of
    them, which is to be resumed, is of another plan or was measured elsewhere.
    """
    is_new = not path.expanduser().exists()
    with Store.writer(path, create=True) as store:
        try:
            run, settings = _begin(store, spec, mode, crew)
        except BaseException:
            if is_new:
                store.path.unlink()
            raise
        pending = store.pending(run)
        begun(Begun(run=store.run(run), settings=settings, pending=pending))
        session = store.begin(run, environment())
        try:
            with closing(crew.measured(pending, settings)) as measured:
                for found in measured:
                    if store.finish(found.cell.row, session, found.worker, found.outcome):
                        done(found)
        finally:
            store.end(session)
        return store.run(run)


def _begin(store: Store, spec: Spec, mode: Mode, crew: Crew) -> tuple[int, Settings]:
    """The run that is gone on with, or a new one."""
    runs = store.runs()
    if runs and mode == "new":
        last = runs[-1]
        left = last.cells - last.done
        raise OutputError(
            "GEM1423",
            f"{store.path} has a run of {last.name} already, with {left} of {last.cells} cells "
            "to be measured",
            "add --resume to go on with it, --append for another run, or name another file by -o",
        )
    elsewhere = None if crew.is_here else ()
    if not runs or mode == "append":
        made = plan_of(spec, elsewhere)
        return store.add_run(made), made.settings
    last = runs[-1]
    made = plan_of(spec, (last.settings["cpus"] or None) if crew.is_here else elsewhere)
    changes = [*changed(store, last, made), *_elsewhere(store, last, crew.environment)]
    if changes:
        more = f", and {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
        raise OutputError(
            "GEM1423",
            f"run {last.number} of {store.path} cannot be resumed: "
            f"{'; '.join(changes[:SHOWN])}{more}",
            "undo the change, or add another run by --append",
        )
    return last.number, made.settings


def changed(store: Store, run: Run, plan: Plan) -> list[str]:
    """What of a plan is not as it was when the run began; nothing where all is."""
    if run.plan == plan.hash:
        return []
    settings: Mapping[str, Any] = json.loads(json.dumps(asdict(plan.settings)))
    found = [
        f"{name} was {run.settings.get(name)} and is {value}"
        for name, value in settings.items()
        if run.settings.get(name) != value
    ]
    if run.name != plan.name:
        found.append(f"the name was {run.name} and is {plan.name}")
    was = {point.words: point for point in store.points(run.number).values()}
    now = {point.words: point for point in plan.points}
    for word, some, others in (("is gone", was, now), ("is new", now, was)):
        for words, point in some.items():
            if words not in others:
                who = f"{point.candidate.name} for {name_of(point.problem)} on {point.target}"
                found.append(f"{who} {word}{_schedule(point.schedule)}")
    return found or ["the order of its problems or contestants has changed"]


def _schedule(text: str | None) -> str:
    return "" if text is None else f" ({text})"


def _elsewhere(store: Store, run: Run, now: Environment) -> list[str]:
    """What makes those who measure now another compiler or CPU than those who did."""
    measured = [worker for session in store.sessions(run.number) for worker in session.workers]
    return measured[0].environment.differences(now) if measured else []
