"""gemmir demo: one layer of BERT from problem to GFLOP/s, beside NumPy, for a GPU and for a TPU."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import typer

from gemmir.cli.options import Json
from gemmir.cli.output import note, put, put_json, put_table

if TYPE_CHECKING:
    from gemmir.compiler import Lowered
    from gemmir.demo import Demo
    from gemmir.demo_gpu import GpuDemo
    from gemmir.demo_tpu import TpuDemo
    from gemmir.measure import Timing
    from gemmir.reference import Element

EXCERPT: Final = ("def _", "        out_shape=")
"""How the first line of a Pallas file that is shown begins, and the first that is not: the kernel,
its grid and its blocks."""


def demo(*, json: Json = False) -> None:
    """Lower, check and time BERT-base's MLP up-projection on one core, beside NumPy.

    M=128 N=3072 K=768 in f32 with bias and gelu. NumPy does the same work in place; calls of the
    two are interleaved.

    Then the same layer for a GPU, in bf16, by the same passes: its PTX runs in the emulator on a
    smaller problem, and all of it on a GPU where there is one.

    Then for a TPU, by the same passes again: its Pallas kernel runs in the interpreter of JAX, and
    libtpu profiles it beside XLA's own product; without one of the two that part is left out.
    """
    from gemmir.demo import ONE_THREAD, run_demo
    from gemmir.jax_modules import ON_CPU

    environment = {**ONE_THREAD, **ON_CPU}
    if any(os.environ.get(name) != value for name, value in environment.items()):
        _again(environment, json=json)
    found = run_demo(note)
    if json:
        put_json(_values(found))
    else:
        _print(found)


def _again(environment: Mapping[str, str], *, json: bool) -> None:
    """Run this command in a process with `environment`, which packages read when imported."""
    command = [sys.executable, "-m", "gemmir", "demo", *(["--json"] if json else [])]
    done = subprocess.run(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    put(done.stdout)
    raise typer.Exit(done.returncode)


def _values(found: Demo) -> dict[str, Any]:
    lowered, problem = found.lowered, found.lowered.problem
    assert problem is not None
    return {
        "problem": {"m": problem.m, "n": problem.n, "k": problem.k, "epilogue": problem.epilogue},
        "cpu": found.cpu,
        "core": found.core,
        "blas": found.blas,
        "blas_threads": 1 if found.has_one_thread else None,
        **_lowering(lowered),
        "timings": {name: _timing(timing, problem.flops) for name, timing in found.timings.items()},
        "max_error": found.largest.error,
        "bound": found.largest.bound,
        "gpu": _gpu_values(found.gpu, problem.flops),
        "tpu": _tpu_values(found.tpu),
    }


def _lowering(lowered: Lowered) -> dict[str, Any]:
    return {"schedule": list(lowered.schedule.steps), "stages": lowered.stages.to_list()}


def _timing(timing: Timing, flops: int) -> dict[str, Any]:
    return {
        "seconds": timing.seconds,
        "quartiles": [timing.lower, timing.upper],
        "calls": timing.count,
        "gflops": timing.gflops(flops),
    }


def _gpu_values(found: GpuDemo, flops: int) -> dict[str, Any]:
    emulated, on_gpu = found.emulated, found.on_gpu
    assert found.lowered.artifact.launch is not None and found.lowered.problem is not None
    return {
        "target": found.lowered.target,
        "dtype": found.lowered.problem.dtype,
        **_lowering(found.lowered),
        "launch": asdict(found.lowered.artifact.launch),
        "code": asdict(found.code),
        "emulated": {
            "problem": {name: getattr(emulated.problem, name) for name in "mnk"},
            "seconds": emulated.seconds,
            "max_error": emulated.largest.error,
            "bound": emulated.largest.bound,
            "races": 0,
            "worst_bank_conflict": emulated.report.worst_bank_conflict,
        },
        "on_gpu": on_gpu
        and {
            "name": on_gpu.name,
            "target": on_gpu.target,
            **_timing(on_gpu.timing, flops),
            "max_error": on_gpu.largest.error,
            "bound": on_gpu.largest.bound,
        },
        "not_on_gpu": found.reason,
    }


def _tpu_values(found: TpuDemo) -> dict[str, Any]:
    interpreted, profile = found.interpreted, found.profile
    assert found.lowered.problem is not None
    return {
        "target": found.lowered.target,
        "dtype": found.lowered.problem.dtype,
        **_lowering(found.lowered),
        "pallas": found.lowered.artifact.text,
        "interpreted": interpreted
        and {
            "seconds": interpreted.seconds,
            "max_error": interpreted.largest.error,
            "bound": interpreted.largest.bound,
        },
        "not_interpreted": found.not_interpreted,
        "profile": profile and profile.to_dict(),
        "not_profiled": found.not_profiled,
    }


def _print(found: Demo) -> None:
    values = _values(found)
    problem = values["problem"]
    sizes = " ".join(f"{name}={problem[name]}" for name in "mnk")
    put(f"BERT-base MLP up-projection: {sizes} f32, {problem['epilogue']}\n")
    _put_stages(values)
    timings = [
        [name, f"{t['seconds'] * 1e3:.2f}", f"{t['gflops']:.1f}", f"{t['calls']}"]
        for name, t in values["timings"].items()
    ]
    put_table("", ["on one core", " ms", " GFLOP/s", " calls"], timings)
    threads = "one thread" if found.has_one_thread else "its own number of threads"
    put(
        f"{found.cpu}{'' if found.core is None else f', core {found.core}'}; "
        f"NumPy with {found.blas}, {threads}; medians of interleaved calls\n"
        f"{_error(found.largest)}\n"
    )
    _print_gpu(found.gpu, values["gpu"])
    _print_tpu(found.tpu, values["tpu"])
    _put_uses({"CPU": values, "GPU": values["gpu"], "TPU": values["tpu"]})


def _put_stages(values: dict[str, Any]) -> None:
    steps = ["", *values["schedule"]]
    rows = [
        [s["name"], s["level"], str(s["lines"]), f"{s['milliseconds']:.1f}", step]
        for s, step in zip(values["stages"], steps, strict=True)
    ]
    put_table("", ["stage", "level", " lines", " ms", "pass"], rows)


def _put_uses(machines: Mapping[str, dict[str, Any]]) -> None:
    """How often each schedule has each pass."""
    uses = [Counter(map(_pass_name, values["schedule"])) for values in machines.values()]
    names = dict.fromkeys(name for used in uses for name in used)
    rows = [[name, *(str(used[name] or "-") for used in uses)] for name in names]
    put("\nOne vocabulary, three machines\n")
    put_table("", ["pass", *(f" on the {machine}" for machine in machines)], rows)


def _print_gpu(found: GpuDemo, values: dict[str, Any]) -> None:
    from gemmir.explain_code import code_lines
    from gemmir.explain_gpu import launch_lines

    put(f"\nThe same layer for {values['target']}, {values['dtype']} inputs\n")
    _put_stages(values)
    assert found.lowered.artifact.launch is not None
    for line in (*launch_lines(found.lowered.artifact.launch), *code_lines(found.code)):
        put(line + "\n")
    for line in _ran_lines(found):
        put(line + "\n")


def _print_tpu(found: TpuDemo, values: dict[str, Any]) -> None:
    from gemmir.tpu_profile import comparison_lines

    put(f"\nThe same layer for {values['target']}, {values['dtype']} inputs\n")
    _put_stages(values)
    put("its Pallas file, from the kernel to the blocks:\n\n")
    for line in _excerpt(values["pallas"]):
        put(f"    {line}".rstrip() + "\n")
    put("\n")
    if found.interpreted is None:
        put(f"interpret  not run: {found.not_interpreted}\n")
    else:
        seconds = found.interpreted.seconds
        put(f"interpret  the whole layer in Pallas's interpreter, {seconds:.1f} s with compiling\n")
        put(f"           {_error(found.interpreted.largest)}\n")
    if found.profile is None:
        put(f"profile    not made: {found.not_profiled}\n")
    else:
        for line in comparison_lines(found.profile):
            put(line + "\n")


def _excerpt(text: str) -> Iterator[str]:
    """The lines of a Pallas file from the kernel to the blocks."""
    begin, end = EXCERPT
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith(begin))
    last = next(i for i, line in enumerate(lines) if line.startswith(end))
    yield from lines[first:last]
    yield "        …"


def _pass_name(step: str) -> str:
    return step.split("{")[0]


def _ran_lines(found: GpuDemo) -> Iterator[str]:
    """What ran, in the emulator and on a GPU."""
    emulated, on_gpu, problem = found.emulated, found.on_gpu, found.lowered.problem
    sizes = " ".join(f"{name}={getattr(emulated.problem, name)}" for name in "mnk")
    passes = emulated.report.worst_bank_conflict
    conflicts = "no bank conflicts" if passes <= 1 else f"bank conflicts of up to {passes:g} passes"
    yield (
        f"emulator   {sizes} by the same schedule, {emulated.seconds:.1f} s: no races, no access "
        f"out of bounds, {conflicts}"
    )
    yield f"           {_error(emulated.largest)}"
    if on_gpu is None:
        yield f"GPU        not run: {found.reason}"
        return
    assert problem is not None
    yield (
        f"GPU        {on_gpu.name}, {on_gpu.target}: {on_gpu.timing.seconds * 1e6:.1f} us, "
        f"{on_gpu.timing.gflops(problem.flops):.0f} GFLOP/s, the kernel alone"
    )
    yield f"           {_error(on_gpu.largest)}"


def _error(largest: Element) -> str:
    return f"max |error| against float64 {largest.error:.2e}, bound there {largest.bound:.2e}"
