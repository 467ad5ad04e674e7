"""The cost of a kernel for any machine."""

from __future__ import annotations

from typing import Final

from xdsl.dialects.builtin import ModuleOp

from gemmir.cost.cpu import predict_cpu
from gemmir.cost.gpu import predict_gpu
from gemmir.cost.prediction import Prediction
from gemmir.cost.tpu import predict_tpu
from gemmir.ir.context import parse_module
from gemmir.lowering import run_passes
from gemmir.machine import CpuMachine, GpuMachine, Machine
from gemmir.schedule import Schedule

EXAMPLE_SIZE: Final = 1024
"""What is reckoned with in place of an extent that is known in a call only."""


def predict(
    module: ModuleOp,
    machine: Machine,
    *,
    threads: int = 1,
    warm: bool = True,
    unknown: float = EXAMPLE_SIZE,
) -> Prediction:
    """What the kernel in `module`, of the last stage, takes on `machine`.

    With `warm` calls before have left in the caches of a CPU what fits there; `unknown` stands for
    extents that are known in a call only.
    """
    if isinstance(machine, CpuMachine):
        return predict_cpu(module, machine, threads=threads, warm=warm, unknown=unknown)
    if isinstance(machine, GpuMachine):
        return predict_gpu(module, machine, unknown=unknown)
    return predict_tpu(module, machine)


def predict_schedule(
    source: str,
    schedule: Schedule,
    machine: Machine,
    *,
    threads: int = 1,
    warm: bool = True,
) -> Prediction:
    """What `schedule` makes of the module in `source`; as `predict`, without emitting anything.

    Raises `ScheduleError` where a pass cannot do what it should.
    """
    module = parse_module(source)
    run_passes(module, schedule)
    return predict(module, machine, threads=threads, warm=warm)
