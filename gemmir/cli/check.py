"""gemmir check: run every stage and the machine code against wider arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from gemmir.cli.crash import reproducible
from gemmir.cli.options import Json, ProblemOptions, read_text
from gemmir.cli.output import note, put, put_json, put_table

if TYPE_CHECKING:
    from gemmir.check import Report, Row

LARGE_FLOPS: Final = 100_000_000
"""The evaluator runs vectorized IR at about 5 MFLOP/s."""

LARGE_FLOPS_OF_BLOCKS: Final = 5_000_000_000
"""Whole blocks, as a TPU multiplies them, it leaves to NumPy: 1 GFLOP/s and more."""

SLOW_SECONDS: Final = 1.0
"""A stage that takes longer is reported while the others are still to come."""


def check(
    *,
    problem: ProblemOptions,
    replace: Annotated[
        list[str] | None,
        typer.Option(help="Take the IR of a stage from a file.", metavar="STAGE=FILE.mlir"),
    ] = None,
    ptx: Annotated[
        Path | None,
        typer.Option(help="Run this PTX in place of what is emitted.", metavar="FILE.ptx"),
    ] = None,
    pallas: Annotated[
        Path | None,
        typer.Option(help="Run this Python file in place of what is emitted.", metavar="FILE.py"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random arrays.")] = 0,
    shrink: Annotated[
        bool, typer.Option(help="Look for the smallest problem that is wrong, for 3 s.")
    ] = True,
    json: Json = False,
) -> None:
    """Check the IR after every pass, and then the machine code, against wider arithmetic.

    For a GPU the PTX runs in an emulator, which also finds races and accesses out of bounds. For a
    TPU the Pallas kernel is lowered as for one, and runs in Pallas's interpreter.

    Each stage runs on the same random arrays in [-1, 1), and each element must be within its
    a-priori error bound. The first wrong stage names the pass at fault, its first wrong element and
    the smallest wrong problem; the exit status is then 3. A FILE of a later level needs the sizes
    as well, which say what it must compute.
    """
    from gemmir.check import check as check_stages
    from gemmir.jax_modules import stay_on_cpu

    if ptx is not None and not problem.target.startswith("cuda:"):
        raise typer.BadParameter(f"--ptx with --target {problem.target}: name a cuda target")
    if pallas is not None and not problem.target.startswith("tpu:"):
        raise typer.BadParameter(f"--pallas with --target {problem.target}: name a tpu target")
    stay_on_cpu()
    texts = dict(replacement(pair) for pair in replace or [])
    is_stage = problem.file is not None and bool(problem.given)
    gemm = problem.gemm() if is_stage else None
    job = problem.job(both=True)

    flops = job.problem.flops if job.problem else 0
    if flops > (LARGE_FLOPS_OF_BLOCKS if job.machine.kind == "tpu" else LARGE_FLOPS):
        note(
            f"{flops:,} flops take minutes to evaluate; the same --schedule on a smaller problem "
            "finds the same faults"
        )

    def watch(row: Row) -> None:
        if row.seconds > SLOW_SECONDS:
            note(f"{row.name}: {row.status}, {row.seconds:.1f} s")

    with reproducible(job):
        report = check_stages(
            job,
            gemm=gemm,
            replace=texts,
            ptx="" if ptx is None else read_text(ptx),
            pallas="" if pallas is None else read_text(pallas),
            seed=seed,
            shrink=shrink,
            watch=watch,
        )
    if json:
        put_json(report.to_dict())
    else:
        _print(report)
    report.require_ok()


def replacement(pair: str) -> tuple[str, str]:
    """A stage and the text that takes its place; a usage error where there is no `=`."""
    stage, equals, file = pair.partition("=")
    if not equals:
        raise typer.BadParameter(f"--replace {pair}: write STAGE=FILE.mlir")
    return stage, read_text(Path(file))


def _print(report: Report) -> None:
    columns = ["stage", " max |error|", " bound", " error/bound", " s", "", "pass"]
    put_table("", columns, [_cells(row) for row in report.rows])
    put(f"compared with {report.reference}\n")


def _cells(row: Row) -> list[str]:
    element = row.first_wrong or row.largest
    numbers = ["-", "-", "-"]
    if element is not None:
        numbers = [f"{element.error:.2e}", f"{element.bound:.2e}", f"{element.ratio:.3f}"]
    skipped = f" ({row.message})" if row.status == "skipped" else ""
    return [row.name, *numbers, f"{row.seconds:.2f}", row.status + skipped, row.step]
