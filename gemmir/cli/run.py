"""gemmir run: compile a problem and run it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemmir.cli.crash import reproducible
from gemmir.cli.options import Json, ProblemOptions
from gemmir.cli.output import check_writable, note, put, put_json, write_file

if TYPE_CHECKING:
    from gemmir.arrays import Operands
    from gemmir.compiler import Job
    from gemmir.gemm import Gemm
    from gemmir.kernel import Kernel
    from gemmir.measure import Timing
    from gemmir.reference import Comparison


def run(
    *,
    problem: ProblemOptions,
    array: Annotated[
        list[str] | None,
        typer.Option(help="Take an operand from a file; others are random.", metavar="NAME=X.npy"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random arrays.")] = 0,
    seconds: Annotated[float, typer.Option(help="How long to measure.")] = 1.0,
    interpret: Annotated[
        bool, typer.Option("--interpret", help="Run a kernel for a TPU in Pallas's interpreter.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the result to a .npy file.")
    ] = None,
    json: Json = False,
) -> None:
    """Compile a problem, run it, and print its speed and its error.

    Arrays are random in [-1, 1), or taken from .npy files. The result is compared with wider
    arithmetic; the exit status is 3 where it is not within its error bound. For a GPU the time is
    that of the kernel, by the GPU's own clock; the status is 4 where there is none that runs it.
    So it is for a TPU, except that --interpret runs its kernel without one: then the time says
    nothing of a TPU.
    """
    from gemmir.arrays import load_array
    from gemmir.errors import MismatchError
    from gemmir.jax_modules import stay_on_cpu

    given = {name: load_array(path) for name, path in map(_named_file, array or [])}
    if interpret and not problem.target.startswith("tpu:"):
        raise typer.BadParameter(f"--interpret with --target {problem.target}: name a tpu target")
    if interpret:
        stay_on_cpu()
    if output is not None:
        check_writable(output)
    job = problem.job()
    with reproducible(job):
        found, operands, compared = _measure(job, given, seed, seconds, interpret=interpret)
    if output is not None:
        write_file(output, _npy(operands))
        note(f"wrote {output}")
    if json:
        put_json(found)
    else:
        put("".join(f"{line}\n" for line in _lines(found)))
    if compared is not None and compared.first_wrong is not None:
        raise MismatchError(
            "GEM0802", str(compared.first_wrong), "gemmir check finds the pass that is at fault"
        )


def _named_file(pair: str) -> tuple[str, Path]:
    name, equals, file = pair.partition("=")
    if not equals:
        raise typer.BadParameter(f"--array {pair}: write NAME=FILE.npy")
    return name, Path(file)


def _room(gemm: Gemm) -> int:
    """The rows that all products of a grouped GEMM have room for."""
    return gemm.m * (gemm.groups or 1) if gemm.masked else gemm.m


def _rows(gemm: Gemm, operands: Operands) -> int:
    """The rows that they have."""
    from gemmir.gemm import COUNTS, OFFSETS

    if gemm.masked:
        return int(operands.by_name[COUNTS].array.sum())
    return int(operands.by_name[OFFSETS].array[-1])


def _measure(
    job: Job, given: dict[str, Any], seed: int, seconds: float, *, interpret: bool
) -> tuple[dict[str, Any], Operands, Comparison | None]:
    """Compile, run once to compare, and then again and again in other memory to measure."""
    from gemmir.arrays import make_operands

    lowered = job.lower()
    kernel = lowered.compile(interpret=interpret)
    operands = make_operands(lowered.artifact.signature, seed, given)
    compared, origin = _compare_after(job, operands, kernel)
    *inputs, output = operands.copy().arrays
    timing = _timed(kernel, inputs, output, seconds)
    flops = job.problem.flops if job.problem else None
    if flops and job.problem and job.problem.groups is not None:
        flops = flops // _room(job.problem) * _rows(job.problem, operands)
    largest = compared.largest if compared else None
    found = {
        "schedule": list(job.schedule.steps),
        "interpreted": interpret,
        "seconds": timing.seconds,
        "quartiles": [timing.lower, timing.upper],
        "calls": timing.count,
        "gflops": None if flops is None else timing.gflops(flops),
        "max_error": largest and largest.error,
        "bound": largest and largest.bound,
        "within_bound": None if compared is None else compared.first_wrong is None,
        "compared_with": origin,
    }
    return found, operands, compared


def _timed(kernel: Kernel, inputs: list[Any], output: Any, seconds: float) -> Timing:
    """The time of a call; of a GPU or TPU that of the kernel, without copying the arrays over."""
    from gemmir.gpu_kernel import GpuKernel
    from gemmir.measure import interleaved
    from gemmir.tpu_kernel import TpuKernel

    if isinstance(kernel, GpuKernel | TpuKernel):
        return kernel.measure(*inputs, out=output, seconds=seconds)
    return interleaved({"gemmir": kernel.bind(*inputs, out=output)}, seconds)["gemmir"]


def _compare_after(job: Job, operands: Operands, kernel: Any) -> tuple[Comparison | None, str]:
    """Run once into the arrays; how the result compares, where it is known what it should be."""
    from gemmir.errors import ParseError
    from gemmir.machine import GpuMachine
    from gemmir.reference import reference_of

    try:
        emulated = not isinstance(job.machine, GpuMachine)
        reference = reference_of(job.source, job.problem, operands, emulated=emulated)
    except ParseError:
        reference = None
    *inputs, output = operands.arrays
    kernel(*inputs, out=output)
    if reference is None:
        return None, "nothing: the text is a later stage, which does not say the problem"
    return reference.compare(output), reference.origin


def _lines(found: dict[str, Any]) -> list[str]:
    lower, upper = (x * 1e3 for x in found["quartiles"])
    lines = [
        f"time       {found['seconds'] * 1e3:.4g} ms, median of {found['calls']} "
        f"(quartiles {lower:.4g} to {upper:.4g})"
    ]
    if found["interpreted"]:
        lines.append("where      in Pallas's interpreter, whose time says nothing of a TPU")
    elif found["gflops"] is not None:
        lines.append(f"speed      {found['gflops']:.2f} GFLOP/s")
    if found["max_error"] is not None:
        lines.append(f"max error  {found['max_error']:.3g}, bound there {found['bound']:.3g}")
    return [*lines, f"compared   with {found['compared_with']}"]


def _npy(operands: Operands) -> bytes:
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(operands.output))
    return buffer.getvalue()
