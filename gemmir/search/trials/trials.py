"""One schedule of one problem, tried in a process of its own.

It is compiled, its results are compared with float64 for arrays of two kinds, and only then is it
timed; a time that no core can reach does not count. Whatever goes wrong there, an exception, a
crash, an endless loop, too much memory, is the outcome of that trial and of nothing else.

    with Trials(gemm, cpus=[1]) as trials:
        outcome = trials.run("tile{loops=m,n sizes=64,64}")
"""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np

from gemmir.bench.contestants import GEMMIR, Contestant
from gemmir.bench.worker import LEAST_SECONDS, WARM_SECONDS
from gemmir.closing import Closing
from gemmir.errors import ParseError
from gemmir.gemm import Gemm
from gemmir.machine import HOST, CpuMachine, machine_for
from gemmir.search.trials.memory import Memory
from gemmir.search.trials.outcome import Outcome, Sample, Status, bad, seconds_of
from gemmir.search.trials.places import Place, place_for
from gemmir.search.trials.processes import Child, GoneError, LateError, Template, TemplateError
from gemmir.search.trials.roofline import Limit, Roofline, peak_of_one_thread

MIB: Final = 1 << 20

AGAIN: Final = 3
"""So often is a trial begun whose process somebody else has killed."""

PEAK_SECONDS: Final = 60.0
"""So long may it take to measure what the core can do, whatever the limit of a trial is."""

PEAK_ROUNDS: Final = 5
"""So often at least it is timed what the core can do, of which the fastest counts."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long a trial may take, how much memory it may have, and how often it is timed.

    `memory_bytes` are those beside the arrays of the problem. A timing is so many calls that it
    takes about `sample_seconds`, after `warm_up_seconds` of calls that are not timed.
    """

    seconds: float = 60.0
    memory_bytes: int = 4096 * MIB
    rounds: int = 5
    sample_seconds: float = LEAST_SECONDS
    warm_up_seconds: float = WARM_SECONDS


Templates = dict[frozenset[tuple[str, str]], Template]
"""The processes that trials are forks of, by their environments."""


class Trials(Closing):
    """Trials of one problem, each in a process of its own; `close` ends all of them.

    They run on CPUs of this computer, or on a GPU of it. With `templates` of somebody else, who
    ends them, several problems share what takes long to start.
    """

    def __init__(
        self,
        gemm: Gemm,
        *,
        target: str = HOST,
        threads: int = 1,
        cpus: Sequence[int] = (),
        seed: int = 0,
        limits: Limits | None = None,
        roofline: Limit | None = None,
        templates: Templates | None = None,
    ) -> None:
        require_known(gemm)
        self.machine = machine_for(target)
        self.place: Place = place_for(self.machine, gemm, threads)
        self.gemm, self.target, self.threads = gemm, target, threads
        self.limits = limits or Limits()
        self._cpus = list(cpus)
        self._has_templates = templates is None
        self._templates: Templates = {} if templates is None else templates
        self._roofline = roofline or self.place.limit
        self._is_measured = self._roofline is None
        self._template(self.place.environment)
        self._memory = Memory(gemm, seed)

    def close(self) -> None:
        """End all processes, but for those of somebody else."""
        if self._has_templates:
            end_templates(self._templates)
        self._memory.close()

    def run(self, who: str | Contestant, *, enough: float | None = None) -> Outcome:
        """Try a schedule, or anybody else who takes part in races.

        Whose first timing is more than `enough` seconds of a call is not timed again.
        """
        contestant = self.contestant(who) if isinstance(who, str) else who
        started = time.monotonic()
        found = bad("crashed", "")
        for _ in range(AGAIN):
            try:
                found = self._tried(contestant, enough)
                break
            except KilledError as error:
                found = bad("crashed", str(error))
        return replace(found, took=time.monotonic() - started)

    def contestant(self, schedule: str) -> Contestant:
        """gemmir with a schedule."""
        return Contestant(
            name=GEMMIR,
            peer=self.place.peer,
            environment=self.place.environment,
            schedule=schedule,
        )

    def entry(self, contestant: Contestant) -> Entry:
        """A process for a contestant, which goes on until it is closed: for a race of several."""
        return Entry(self, contestant)

    @property
    def roofline(self) -> Limit:
        """What this computer can do at most; of a CPU it is measured when it is first asked for."""
        if self._roofline is None:
            self._roofline = self.measured_roofline()
        return self._roofline

    def forbids(self, seconds: float) -> str:
        """Why no call can take so few `seconds`; "" where one can.

        The core may have been measured while another program slowed it down. So it is measured
        again before a time is refused, and the faster one counts from then on.
        """
        refusal = self.roofline.forbids(self.gemm, seconds)
        if not refusal or not self._is_measured:
            return refusal
        self._roofline = max(
            self.roofline, self.measured_roofline(), key=lambda limit: limit.flops_per_second
        )
        return self.roofline.forbids(self.gemm, seconds)

    def child(self, contestant: Contestant, *, threads: int) -> Child:
        """A process for a contestant."""
        settings = {
            "target": self.target,
            "threads": threads,
            "schedule": contestant.schedule,
            "call": contestant.call,
            **(self.place.settings if contestant.peer == self.place.peer else {}),
        }
        size = 3 * self._memory.layout.area_bytes
        spec = {
            "peer": contestant.peer,
            "settings": settings,
            "cpus": self._cpus,
            "memory_bytes": self.limits.memory_bytes + 2 * size,
        }
        for _ in range(AGAIN):
            template = self._template(contestant.environment)
            try:
                return template.fork(spec, self._memory.file)
            except (TemplateError, OSError):
                self.forget(contestant)
        raise KilledError("nothing can be started: the process of which trials are forks is killed")

    def forget(self, contestant: Contestant) -> None:
        """Start another template the next time, for this one is gone."""
        template = self._templates.pop(frozenset(contestant.environment.items()), None)
        if template is not None:
            template.close()

    @property
    def memory(self) -> Memory:
        """What all of its processes share."""
        return self._memory

    @property
    def processes(self) -> list[int]:
        """The processes that trials are forks of, one for each environment."""
        return [template.pid for template in self._templates.values()]

    def _template(self, environment: Mapping[str, str]) -> Template:
        key = frozenset(environment.items())
        if key not in self._templates:
            self._templates[key] = Template(environment)
        return self._templates[key]

    def _tried(self, contestant: Contestant, enough: float | None) -> Outcome:
        with self.entry(contestant) as entry:
            found = entry.check()
            return self._timed(entry, found, enough) if found.ok else found

    def _timed(self, entry: Entry, checked: Outcome, enough: float | None) -> Outcome:
        samples: list[Sample] = []
        for _ in range(self.limits.rounds):
            found = entry.sample()
            if isinstance(found, Outcome):
                return found
            samples.append(found)
            seconds = seconds_of(samples, self.threads)
            if enough is not None and seconds[0] > enough:
                break
        made = replace(checked, samples=tuple(samples), seconds=seconds_of(samples, self.threads))
        return entry.final(made)

    def measured_roofline(self) -> Roofline:
        """The multiply-adds of one thread, by the fastest of some timings."""
        with self.entry(peak_of_one_thread()) as entry:
            entry.extend(PEAK_SECONDS)
            prepared = entry.prepare()
            assert prepared.ok, prepared.detail
            rounds = max(self.limits.rounds, PEAK_ROUNDS)
            found = [entry.sample() for _ in range(rounds)]
        seconds = [s.cpu for s in found if isinstance(s, Sample)]
        assert seconds, found
        assert isinstance(self.machine, CpuMachine)
        return Roofline.of(self.machine, self.gemm, prepared.flops / min(seconds), self.threads)


def end_templates(templates: Templates) -> None:
    """End processes that trials are forks of, and with them all that are left."""
    for template in templates.values():
        template.close()
    templates.clear()


class KilledError(Exception):
    """Somebody else has killed the process of a trial."""


class Entry(Closing):
    """One contestant in its process, which goes on until it is closed."""

    def __init__(self, trials: Trials, contestant: Contestant) -> None:
        self.contestant = contestant
        self._trials = trials
        is_peak = contestant.peer.endswith(".peak")
        self._child = trials.child(contestant, threads=1 if is_peak else trials.threads)
        self._until = time.monotonic() + trials.limits.seconds
        self._flops = 0
        self._about: Mapping[str, Any] = {}
        self._error: float | None = None
        self._has_begun = False

    def close(self) -> None:
        """End the process."""
        try:
            self._child.end()
        except TemplateError:
            self._trials.forget(self.contestant)

    def begin(self) -> None:
        """Have it compile, while others do something else; `prepare` waits for it."""
        self._child.say("prepare", gemm=asdict(self._trials.gemm))
        self._has_begun = True

    def prepare(self) -> Outcome:
        """Compile; ok where there is something to be called."""
        if not self._has_begun:
            self.begin()
        found = self._answer("prepare")
        if isinstance(found, Outcome):
            return found
        self._flops, self._about = found["flops"], found["about"]
        return self._ok()

    def check(self) -> Outcome:
        """Compile, compute every case, and compare; ok where all is right."""
        prepared = self.prepare()
        if not prepared.ok:
            return prepared
        for case in self._trials.memory.cases:
            found = self._ask("compute", case=case.name)
            if isinstance(found, Outcome):
                return found
            fault = self._fault(case.name)
            if fault:
                return self._bad("wrong", fault)
        return self._ok()

    def sample(self) -> Sample | Outcome:
        """Time it once; an outcome where that fails."""
        limits = self._trials.limits
        found = self._ask(
            "time",
            sample_seconds=limits.sample_seconds,
            warm_up_seconds=limits.warm_up_seconds,
        )
        return found if isinstance(found, Outcome) else Sample(**found)

    def final(self, timed: Outcome) -> Outcome:
        """`timed`, unless no core is so fast, or the calls that were timed were wrong."""
        value = timed.value
        assert value is not None
        started = time.monotonic()
        forbidden = self._trials.forbids(value)
        self._until += time.monotonic() - started  # it waits while the core is measured
        if forbidden:
            return replace(timed, status="impossible", detail=forbidden)
        if self._trials.memory.shown.by_name["c"].argument.access != "write":
            return timed
        found = self._ask("show")
        if isinstance(found, Outcome):
            return found
        fault = self._fault(self._trials.memory.cases[-1].name)
        if fault:
            return replace(timed, status="wrong", detail=f"after many calls, {fault}")
        return timed

    def extend(self, seconds: float) -> None:
        """Give it so many more seconds from now on."""
        self._until = time.monotonic() + seconds

    def _fault(self, case: str) -> str:
        memory = self._trials.memory
        (wanted,) = (c for c in memory.cases if c.name == case)
        fault, error = wanted.fault(memory.shown)
        if error is not None and np.isfinite(error):
            self._error = max(self._error or 0.0, error)
        return fault

    def _ok(self) -> Outcome:
        return Outcome(status="ok", flops=self._flops, about=self._about, error=self._error)

    def _bad(self, status: Status, detail: str) -> Outcome:
        return replace(self._ok(), status=status, detail=detail)

    def _ask(self, do: str, **given: Any) -> dict[str, Any] | Outcome:
        self._child.say(do, **given)
        return self._answer(do)

    def _answer(self, do: str) -> dict[str, Any] | Outcome:
        try:
            answer = self._child.answer(until=self._until)
        except LateError:
            return self._bad(
                "timeout", f"{do} has not ended within {self._trials.limits.seconds:g} s"
            )
        except TemplateError as error:
            self._trials.forget(self.contestant)
            raise KilledError(str(error)) from error
        except GoneError as error:
            if error.status == -signal.SIGKILL:
                raise KilledError(str(error)) from error
            return self._bad("crashed", str(error))
        if "illegal" in answer:
            return self._bad("illegal", answer["illegal"])
        if "crashed" in answer:
            return self._bad("crashed", answer["crashed"])
        return answer


def require_known(gemm: Gemm) -> None:
    """`ParseError` GEM1410 where a trial would not know what to compute."""
    unknown = (*gemm.unknown, *gemm.unknown_factors)
    if unknown:
        raise ParseError(
            "GEM1410",
            f"{', '.join(unknown)} known in a call only: trials are of one problem",
            "give the numbers",
        )
