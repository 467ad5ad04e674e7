"""Times of the rungs of a ladder on this computer's CPU.

Each rung has a process of its own (`gemmir.search.trials`), which compiles it and compares what it
computes of the whole problem with float64. Then all take turns on one CPU, round after round, the
peak of the FMA unit among them; a slow rung takes part in fewer rounds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

from gemmir.bench.race import cpus_for
from gemmir.compiler import lower, prepare
from gemmir.cost import predict_schedule
from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.search.ladders.figure import Figure
from gemmir.search.ladders.rungs import Rung
from gemmir.search.trials import Limits, Outcome, Sample, Trials
from gemmir.search.trials.outcome import seconds_of
from gemmir.search.trials.roofline import peak_of_one_thread
from gemmir.search.trials.trials import Entry

PEAK: Final = "peak"

LIMIT_SECONDS: Final = 40.0
"""One rung: to compile, compute twice and compare, and its first timing."""

TURN_SECONDS: Final = 0.5
"""Of a round: a rung whose call takes longer takes part in so many fewer rounds."""

FEWEST: Final = 3
"""Rounds that every rung takes part in."""

ROUNDS: Final = 11

MULTIPLY_ADD: Final = re.compile(
    r"^\s+(?P<name>vfn?m(?:add|sub)\w+|fmadd|fmla|vpmull[dw]|vpmadd\w+|vpdp\w+|vdpbf16\w+)\s"
)
"""Instructions that multiply, and add or stand beside an addition, of x86-64 and AArch64."""

SCALAR: Final = re.compile(r"(?:ss|sd)$|^fmadd$")


@dataclass
class _Racer:
    """A rung that takes part: its process and what it was timed at."""

    trials: Trials
    threads: int
    schedule: str | None
    checked: Outcome | None = None
    samples: list[Sample] = field(default_factory=list[Sample])
    failed: str = ""


def measure(
    gemm: Gemm,
    target: str,
    rungs: Sequence[Rung],
    *,
    threads: int,
    cpu: int | None,
    rounds: int = ROUNDS,
    seed: int = 0,
    watch: Callable[[str], None] = lambda words: None,
) -> dict[str, Figure]:
    """Time `rungs`, by name; the rung called threads on `threads` CPUs, the others on one.

    `watch` is told what is done. What is wrong, or takes longer than `LIMIT_SECONDS`, has no time,
    and a note that says so.
    """
    limits = Limits(seconds=LIMIT_SECONDS, rounds=1)
    cpus = cpus_for(threads, cpu)
    found: dict[str, Figure] = {}
    with ExitStack() as stack:
        one = stack.enter_context(
            Trials(gemm, target=target, cpus=cpus[:1], seed=seed, limits=limits)
        )
        racers = {
            rung.name: _Racer(trials=one, threads=1, schedule=str(rung.schedule))
            for rung in rungs
            if not rung.schedule.is_threaded
        }
        threaded = [rung for rung in rungs if rung.schedule.is_threaded]
        racers[PEAK] = _Racer(trials=one, threads=1, schedule=None)
        _race(racers, rounds, watch)
        peak = _speed_of(racers[PEAK])
        for rung in threaded:
            several = stack.enter_context(
                Trials(
                    gemm,
                    target=target,
                    threads=threads,
                    cpus=cpus,
                    seed=seed,
                    limits=limits,
                )
            )
            racers[rung.name] = _Racer(trials=several, threads=threads, schedule=str(rung.schedule))
            _race({rung.name: racers[rung.name]}, rounds, watch)
    for rung in rungs:
        racer = racers[rung.name]
        found[rung.name] = _figure(racer, gemm, peak)
    return found


def _race(racers: Mapping[str, _Racer], rounds: int, watch: Callable[[str], None]) -> None:
    """Check everybody, then time them in turns."""
    with ExitStack() as stack:
        entries: dict[str, Entry] = {}
        for name, racer in racers.items():
            watch(f"{name}: compile and compare")
            contestant = (
                peak_of_one_thread()
                if racer.schedule is None
                else racer.trials.contestant(racer.schedule)
            )
            entry = stack.enter_context(racer.trials.entry(contestant))
            checked = entry.prepare() if racer.schedule is None else entry.check()
            racer.checked = checked
            if checked.ok:
                entries[name] = entry
            else:
                racer.failed = f"{checked.status}: {checked.detail}"
        for number in range(rounds):
            for name, entry in entries.items():
                racer = racers[name]
                if racer.failed or not _takes_part(racer, number):
                    continue
                watch(f"round {number + 1} of {rounds}: {name}")
                entry.extend(LIMIT_SECONDS)
                sample = entry.sample()
                if isinstance(sample, Sample):
                    racer.samples.append(sample)
                else:
                    racer.failed = f"{sample.status}: {sample.detail}"


def _speed_of(peak: _Racer) -> float | None:
    """Operations a second of the FMA unit, by the fastest timing."""
    if peak.checked is None or not peak.samples:
        return None
    return peak.checked.flops / min(sample.cpu for sample in peak.samples)


def _takes_part(racer: _Racer, number: int) -> bool:
    """Whether a rung takes its turn in round `number`: a slow one in every so many of them."""
    if number < FEWEST:
        return True
    longest = max(s.cpu * s.calls for s in racer.samples)
    return number % max(round(longest / TURN_SECONDS), 1) == 0


def _figure(racer: _Racer, gemm: Gemm, peak: float | None) -> Figure:
    if racer.failed or not racer.samples:
        return Figure(how="unknown", note=racer.failed or "it was not timed")
    assert racer.checked is not None
    timed = seconds_of(racer.samples, racer.threads)
    made = Outcome(status="ok", seconds=timed).timing
    return Figure(
        how="measured",
        seconds=made.seconds,
        lower=made.lower,
        upper=made.upper,
        count=made.count,
        of_peak=None if peak is None else gemm.flops / made.seconds / (peak * racer.threads),
        note=f"right at {gemm.m} x {gemm.n} x {gemm.k} too",
    )


def code_facts(gemm: Gemm, machine: CpuMachine, rung: Rung) -> dict[str, float | str]:
    """What is in the assembly of a rung, and what the cost model says moves."""
    from gemmir.backends.cpu.assemble import assembly

    lowered = lower(gemm, machine.target, rung.schedule)
    facts: dict[str, float | str] = {**instructions(assembly(lowered.artifact))}
    cost = predict_schedule(lowered.source, lowered.schedule, machine)
    facts |= {f"bytes into {name.upper()}": moved for name, moved in cost.bytes_by_level.items()}
    facts["predicted seconds"] = cost.seconds
    facts["predicted to be bound by"] = cost.bound_by
    return facts


def instructions(assembly: str) -> dict[str, float | str]:
    """Multiply-adds in the text, of scalars and of vectors, and the busiest instruction of them."""
    names = [m["name"] for line in assembly.splitlines() if (m := MULTIPLY_ADD.match(line))]
    scalar = sum(SCALAR.search(name) is not None for name in names)
    return {
        "scalar multiply-adds": scalar,
        "vector multiply-adds": len(names) - scalar,
    }


def predicted(gemm: Gemm, machine: CpuMachine, rung: Rung, threads: int) -> Figure:
    """What the cost model says of a rung on a CPU that this computer does not have."""
    job = prepare(gemm, machine.target, rung.schedule)
    count = threads if rung.schedule.is_threaded else 1
    cost = predict_schedule(job.source, job.schedule, machine, threads=count)
    return Figure(
        how="static",
        seconds=cost.seconds,
        of_peak=cost.roof_seconds / count / cost.seconds,
        facts=code_facts(gemm, machine, rung),
        note="the cost model",
    )
