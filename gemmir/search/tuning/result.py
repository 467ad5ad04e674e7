"""What a tune has found, as plain values: for JSON, and for reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gemmir.bench.contestants import cpu_model
from gemmir.gemm import Gemm
from gemmir.lockfile import Pin, pin_of, spelled
from gemmir.machine import machine_for
from gemmir.schedule import Schedule
from gemmir.search.tuning.found import Found
from gemmir.search.tuning.objective import Objective


def document(found: Found, objective: Objective, about: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that a tune has found; `about` says where, when and with what."""
    request = found.request
    return {
        "problem": spelled(request.gemm),
        "target": request.target,
        "threads": request.threads,
        "machine": {
            "name": machine_for(request.target).name,
            "cpu": cpu_model(),
            "gpu": objective.device or None,
        },
        "objective": {
            "name": objective.name,
            "unit": objective.unit,
            "is_measured": objective.is_measured,
        },
        "space": {"text": request.space.text, "points": found.size},
        "sampler": request.sampler,
        "seed": request.seed,
        "prior": request.prior,
        **about,
        "trials_wanted": request.trials,
        "trials_done": len(found.done),
        "ended": found.ended,
        "outcomes": found.outcomes,
        "refused": found.refused,
        **_winner(found, objective.unit),
        "convergence": found.convergence(),
    }


def _winner(found: Found, unit: str) -> dict[str, Any]:
    """Who won; of an interrupted tune the best of its trials so far, which is no verdict."""
    gemm, verdict = found.request.gemm, found.verdict
    if verdict is None:
        best = found.best
        value = None if best is None or best.outcome is None else best.outcome.value
        return {
            "winner": None,
            "tie": None,
            "best_so_far": None if best is None else best.schedule,
            **_value(gemm, value, unit),
        }
    standings = verdict.standings.values()
    standing = verdict.standings[verdict.winner]
    rows = [row for row in found.done if row.schedule == verdict.winner]
    interval = verdict.to_default_interval
    return {
        "winner": verdict.winner,
        "tie": verdict.is_tie,
        "tied": list(verdict.tied),
        "point": rows[0].point,
        "trial": rows[0].number,
        **_value(gemm, standing.value, unit),
        "interval": list(standing.interval),
        "is_default": verdict.winner == found.default,
        "default": found.default,
        "ratio_to_default": verdict.to_default,
        "ratio_to_default_interval": None if interval is None else list(interval),
        "race": [s.to_dict() for s in sorted(standings, key=lambda s: (s.ratio, s.schedule))],
        "fell_out": {text: f"{o.status}: {o.detail}" for text, o in verdict.failed.items()},
    }


def _value(gemm: Gemm, value: float | None, unit: str) -> dict[str, float | None]:
    """What was found, and the speed where that is a time."""
    seconds = value if unit == "s" else None
    speed = gemm.flops / seconds / 1e9 if seconds else None
    return {"value": value, "seconds": seconds, "gflops": speed}


def pin_for(found: Found, objective: Objective) -> Pin:
    """The winner as an entry of a lock file."""
    assert found.verdict is not None
    request, winner = found.request, found.verdict.winner
    return pin_of(
        request.gemm,
        request.target,
        request.threads,
        Schedule.parse(winner),
        objective=objective.name,
        value=float(f"{found.verdict.standings[winner].value:.6g}"),
    )
