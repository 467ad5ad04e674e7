"""What a schedule is predicted to take, what binds it, and which small changes would help most.

Nothing is run: `gemmir.cost` reckons with the IR of the last stage. Changes are lowered and looked
at in the same way, so that a gain is one of the model, and of those that are close to each other
the model does not know the order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from gemmir.cost import Prediction, predict_schedule
from gemmir.cost.edits import Edit, edits
from gemmir.errors import GemmirError
from gemmir.machine import CpuMachine, GpuMachine, Machine
from gemmir.schedule import check_fits

if TYPE_CHECKING:
    from gemmir.compiler import Lowered

MOST_LOWERED: Final = 60
"""Changes that are lowered and reckoned with; the rest of them are not looked at."""

SLOW_SECONDS: Final = 1.0
LEAST_GAIN: Final = 0.002
"""A change that the model says gains less is none."""

REAL_GAINS: Final = (
    (0.01, 0.46),
    (0.02, 0.61),
    (0.05, 0.67),
    (0.1, 0.76),
    (0.2, 0.88),
    (0.5, 0.95),
)
LARGE_GAINS: Final = 0.99
"""Of pairs of schedules of a problem for a CPU, for which a gain below the first number was
predicted, the share in which the one was measured to be faster than the other, and of the others:
docs/cost-model.md. Of GPUs and TPUs no orders of schedules were measured."""


@dataclass(frozen=True, kw_only=True)
class Gain:
    """A change of the schedule, and the share of the time that it is predicted to save.

    `real` is how often such a gain was one where it was measured, None where that is not known.
    """

    change: str
    schedule: str
    seconds: float
    gain: float
    real: float | None


@dataclass(frozen=True, kw_only=True)
class CostFacts:
    """The prediction, operations a byte at each level of memory, and the best changes.

    `problem_flops` are the operations of the problem: those of the prediction, without the lanes
    that fill up vectors and tiles.
    """

    prediction: Prediction
    problem_flops: float
    intensity: Mapping[str, float | None]
    tried: int
    illegal: int
    gains: tuple[Gain, ...]

    def to_dict(self) -> dict[str, Any]:
        """This as plain values, for JSON."""
        found = asdict(replace(self, gains=()))
        found["prediction"] = self.prediction.to_dict()
        found["gains"] = [asdict(gain) for gain in self.gains]
        return found


def cost_facts(
    lowered: Lowered, count: int, say: Callable[[str], None] = lambda _: None
) -> CostFacts:
    """Predict `lowered`, and find the `count` changes that the model likes best."""
    prediction = predict_schedule(
        lowered.source,
        lowered.schedule,
        lowered.machine,
        threads=lowered.threads or 1,
    )
    moved = prediction.bytes_by_level
    intensity = {name: prediction.flops / n if n >= 1 else None for name, n in moved.items()}
    tried, found = (0, []) if count == 0 else _tried(lowered, say)
    gains = [_gain(edit, made, prediction, lowered.machine) for edit, made in found]
    better = sorted((g for g in gains if g.gain >= LEAST_GAIN), key=lambda g: (-g.gain, g.schedule))
    return CostFacts(
        prediction=prediction,
        problem_flops=_problem_flops(lowered, prediction),
        intensity=intensity,
        tried=tried,
        illegal=tried - len(found),
        gains=tuple(better[:count]),
    )


def _problem_flops(lowered: Lowered, prediction: Prediction) -> float:
    """The operations of the problem, or all that are predicted where sizes are not known.

    None more are counted than are predicted, as of groups whose rows a call says.
    """
    problem = lowered.problem
    if problem is None or problem.unknown:
        return prediction.flops
    return min(float(problem.flops), prediction.flops)


def _tried(
    lowered: Lowered, say: Callable[[str], None]
) -> tuple[int, list[tuple[Edit, Prediction]]]:
    """How many changes were looked at, and what those take that are legal."""
    found: list[tuple[Edit, Prediction]] = []
    start, tried, is_told = time.monotonic(), 0, False
    for edit in edits(lowered.schedule, lowered.machine):
        if tried == MOST_LOWERED:
            break
        tried += 1
        if time.monotonic() - start > SLOW_SECONDS and not is_told:
            say("lowering changes of the schedule; --edits 0 leaves them out")
            is_told = True
        made = _prediction(lowered, edit)
        if made is not None:
            found.append((edit, made))
    return tried, found


def _prediction(lowered: Lowered, edit: Edit) -> Prediction | None:
    """What a change takes; None where it is not legal."""
    try:
        if lowered.problem is not None:
            check_fits(edit.schedule, lowered.problem, lowered.machine)
        return predict_schedule(
            lowered.source,
            edit.schedule,
            lowered.machine,
            threads=lowered.threads or 1,
        )
    except GemmirError:
        return None


def _gain(edit: Edit, made: Prediction, before: Prediction, machine: Machine) -> Gain:
    gain = 1 - made.seconds / before.seconds
    return Gain(
        change=edit.text,
        schedule=str(edit.schedule),
        seconds=made.seconds,
        gain=gain,
        real=_real(gain) if isinstance(machine, CpuMachine) else None,
    )


def _real(gain: float) -> float:
    """How often a predicted gain was one."""
    return next((share for below, share in REAL_GAINS if gain < below), LARGE_GAINS)


# As text -----------------------------------------------------------------------------------------


def cost_lines(found: CostFacts, machine: Machine) -> Iterator[str]:
    """`found` as lines of text."""
    p = found.prediction
    useful = found.problem_flops
    speed = f", {_speed(useful / p.seconds / 1e9)} GFLOP/s" if useful else ""
    yield (
        f"predicted  {_time(p.seconds)}{speed}, {p.of_roof:.0%} of the arithmetic peak; bound by "
        f"{p.bound_by}"
    )
    if useful < 0.99 * p.flops:
        filling = 1 - useful / p.flops
        yield f"           of the operations {filling:.0%} only fill up vectors and tiles"
    spent = sorted(p.seconds_by.items(), key=lambda item: -item[1])
    shares = ", ".join(f"{name} {s / p.seconds:.0%}" for name, s in spent if s >= p.seconds / 100)
    yield f"           busy: {shares}"
    for name, moved in p.bytes_by_level.items():
        per_byte = found.intensity[name]
        each = f", {per_byte:,.4g} flops a byte" if per_byte is not None else ""
        yield f"           {_between(name, machine)} {_size(moved)}{each}"
    if not found.tried:
        return
    if not found.gains:
        yield f"changes    none of {found.tried} small ones is predicted to be faster"
        return
    yield f"changes    the best of {found.tried} small ones by the model, {found.illegal} illegal"
    for gain in found.gains:
        real = "" if gain.real is None else f" (of such, {gain.real:.0%} were faster when measured)"
        yield f"  {gain.gain:.1%} less time{real}:"
        yield f"      {gain.change}"


def _between(name: str, machine: Machine) -> str:
    """Between which memories bytes move."""
    if isinstance(machine, CpuMachine):
        far = {"l1": "L2", "l2": "L3", "l3": "memory"}[name]
        return f"{name.upper()} and {far}"
    if isinstance(machine, GpuMachine):
        return {"shared": "shared memory", "l2": "L2 and multiprocessors", "dram": "memory"}[name]
    return "HBM and VMEM"


def _time(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def _speed(gflops: float) -> str:
    return f"{gflops:,.0f}" if gflops >= 1000 else f"{gflops:.4g}"


def _size(count: float) -> str:
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count:.0f} B"
