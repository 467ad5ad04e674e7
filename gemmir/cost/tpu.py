"""The cost of a kernel for a TPU: the cycles of its grid, as `explain_tpu` reckons them."""

from __future__ import annotations

import math

from xdsl.dialects.builtin import ModuleOp

from gemmir.cost.prediction import Prediction
from gemmir.explain_tpu import HBM, CallFacts, call_facts
from gemmir.ir.pallas import CallOp
from gemmir.machine import TpuMachine


def predict_tpu(module: ModuleOp, machine: TpuMachine) -> Prediction:
    """What the kernels of a module take, one after the other; see `predict`."""
    calls = [op for op in module.walk() if isinstance(op, CallOp)]
    found = [call_facts(call, machine) for call in calls]
    cycles_by: dict[str, float] = {"MXU": 0.0, "steps": 0.0, HBM: 0.0, "latency of copies": 0.0}
    for facts in found:
        steps, guess = _steps(facts, machine), facts.prediction
        cycles_by["MXU"] += guess.mxu_cycles_per_step * steps
        cycles_by["steps"] += guess.overhead_cycles_per_step * steps
        cycles_by[HBM] += guess.hbm_cycles_per_step * steps
        cycles_by["latency of copies"] += guess.copy_cycles_per_step * steps
    seconds_by = {name: cycles / machine.clock_hz for name, cycles in cycles_by.items()}
    return Prediction(
        target=machine.target,
        seconds=sum(facts.prediction.cycles for facts in found) / machine.clock_hz,
        bound_by=max(seconds_by, key=lambda name: seconds_by[name]),
        seconds_by=seconds_by,
        bytes_by_level={"hbm": float(sum(facts.hbm_bytes for facts in found))},
        flops=float(sum(facts.flops for facts in found)),
        roof_seconds=seconds_by["MXU"],
    )


def _steps(facts: CallFacts, machine: TpuMachine) -> float:
    """Steps that one core walks."""
    return math.prod(facts.grid) / machine.cores_per_device
