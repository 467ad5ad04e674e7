"""Figures of a compiled kernel that nothing is run for, in a process of its own.

    python -P -m gemmir.search.experiments.static_figures < JOB.json

JOB has a problem, a target, a schedule, or null for the default one, threads, and the process that
asks, with which this one ends. Of a CPU, registers and the instructions of the inner loop; of a
GPU, the launch, the loop of its PTX and what ptxas makes of it where it is found; of a TPU, traffic
and cycles by gemmir's model, and libtpu's static profile where libtpu is installed. Nothing is
measured and no result is compared.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any

from gemmir.bench.worker import end_with_parent
from gemmir.errors import GemmirError, MissingError, ProfileError

if TYPE_CHECKING:
    from gemmir.compiler import Lowered

Named = Iterator[tuple[str, float, str]]


def main() -> None:
    """Answer one job in JSON: figures and steps, or why the schedule is illegal."""
    end_with_parent(signal.SIGTERM)
    signal.signal(signal.SIGTERM, _end_all)
    from gemmir.compiler import lower
    from gemmir.gemm import Gemm

    job = json.load(sys.stdin)
    if os.getppid() != job["parent"]:
        return  # who asked has ended while this was starting
    try:
        lowered = lower(Gemm(**job["gemm"]), job["target"], job["schedule"], job["threads"])
        found, missing = figures(lowered, job["threads"] or 1)
    except GemmirError as error:
        answer: dict[str, Any] = {"illegal": str(error)}
    else:
        answer = {"figures": found, "missing": missing, "steps": list(lowered.schedule.steps)}
    json.dump(answer, sys.stdout)


def _end_all(number: int, frame: FrameType | None) -> None:
    """End this process, the first of its group, and libtpu's, which it may have started."""
    os.killpg(0, signal.SIGKILL)


def figures(lowered: Lowered, threads: int = 1) -> tuple[dict[str, tuple[float, str]], list[str]]:
    """Each figure with its unit, and what is not known because a tool is missing."""
    from gemmir.explain import facts
    from gemmir.machine import CpuMachine, TpuMachine

    found = facts(lowered)
    missing: list[str] = []
    if isinstance(lowered.machine, CpuMachine):
        own = list(_of_cpu(found))
    elif isinstance(lowered.machine, TpuMachine):
        profile, missing = _profiled(lowered)
        own = [*_of_tpu(found), *_of_profile(profile)]
    else:
        own, missing = list(_of_gpu(found)), list(found["code"]["missing"])
    every = (*_predicted(lowered, threads), *own)
    return {name: (float(value), unit) for name, value, unit in every}, missing


def _predicted(lowered: Lowered, threads: int) -> Named:
    """What the cost model says of the last stage."""
    from gemmir.cost import predict
    from gemmir.ir.context import parse_module

    module = parse_module([*lowered.stages.values()][-1].text)
    found = predict(module, lowered.machine, threads=threads)
    yield "predicted time", 1e6 * found.seconds, "us"


def _of_cpu(found: Mapping[str, Any]) -> Named:
    if found["registers"]:
        yield "vector registers", found["registers"]["used"], "registers"
    counts: Mapping[str, float] = found["inner_loop"] or {}
    for name, count in counts.items():
        yield f"inner loop: {name}", count, "instructions"
    if found["limit"]:
        yield "limit of the inner loop", found["limit"]["flops_per_cycle"], "flops/cycle"


def _of_gpu(found: Mapping[str, Any]) -> Named:
    launched = found["launch"]["kernels"]
    yield "blocks", sum(kernel["blocks"] for kernel in launched), "blocks"
    for name, count in found["loop"].items():
        yield f"loop: {name}", count, "instructions"
    kernels = found["code"]["kernels"]
    if not kernels:
        return
    resources = [kernel["resources"] for kernel in kernels]
    shared = [k["static_shared_bytes"] + k["dynamic_shared_bytes"] for k in kernels]
    yield "registers", max(r["registers"] for r in resources), "registers/thread"
    spilled = [r["spill_store_bytes"] + r["spill_load_bytes"] for r in resources]
    yield "spilled", sum(spilled), "bytes/thread"
    yield "shared memory", max(shared), "bytes/block"
    yield "warps of a multiprocessor", min(k["occupancy"]["warps"] for k in kernels), "warps"
    loop = found["code"]["loop"]
    if loop:
        yield "loop of machine code", sum(loop["opcodes"].values()), "instructions"


def _of_tpu(found: Mapping[str, Any]) -> Named:
    kernels = found["kernels"]
    predicted = [kernel["prediction"] for kernel in kernels]
    yield "VMEM", max(kernel["vmem_bytes"] for kernel in kernels), "bytes"
    yield "traffic of HBM", sum(kernel["hbm_bytes"] for kernel in kernels), "bytes"
    yield "predicted cycles", sum(p["cycles"] for p in predicted), "cycles"
    yield "predicted MXU utilisation", min(p["mxu_utilisation"] for p in predicted), ""


def _of_profile(profile: Mapping[str, Any] | None) -> Named:
    if profile is None:
        return
    ours = profile["ours"]
    yield "cycles", ours["cycles"], "cycles"
    yield "cycles of copies", ours["copy_cycles"], "cycles"
    yield "MXU utilisation", profile["mxu_utilisation"], ""
    yield "MXU utilisation of XLA", profile["xla_mxu_utilisation"], ""


def _profiled(lowered: Lowered) -> tuple[dict[str, Any] | None, list[str]]:
    """libtpu's profile, or why there is none."""
    from gemmir.cache import ObjectCache, default_path
    from gemmir.tpu_profile import compare

    try:
        found = compare(lowered, cache=ObjectCache(default_path()), say=_say)
    except (MissingError, ProfileError) as error:
        return None, [str(error)]
    return found.to_dict(), []


def _say(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    main()
