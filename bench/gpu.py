"""Measure gemmir's kernels on a GPU beside PyTorch's, which are cuBLAS's; see bench/README.md.

In two steps, since the computer with the GPU may have neither xDSL nor a network:

    python bench/gpu.py --prepare DIR      here: lower every case, and write its code to DIR
    python bench/gpu.py --run DIR -o FILE  there: load, check and time what is in DIR

The second step needs PyTorch, NumPy, ml_dtypes, typer, and cuda-bindings or PyCUDA.
"""

from __future__ import annotations

import json
import os
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from gpu_worker import without_front_door

WRONG_RESULT: Final = 3
NO_DEVICE: Final = 4


def main(
    prepare: Annotated[
        Path | None, typer.Option(help="Lower the cases and write them to this folder.")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Measure what is in this folder.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write what was measured to this file.")
    ] = None,
    suite: Annotated[
        str, typer.Option(help="The suites, joined by commas, in order; default all.")
    ] = "",
    case: Annotated[
        list[str] | None,
        typer.Option(
            help="TYPE:MxNxK, then :nt for B transposed, :OUT, :EPILOGUE, :NAME=VALUE; "
            "with --run a pattern of those that are prepared."
        ),
    ] = None,
    schedule: Annotated[
        list[str] | None,
        typer.Option(
            help="A .schedule file, or a folder of them, to measure beside the default; "
            "PATTERN=FILE for the cases that it fits."
        ),
    ] = None,
    target: Annotated[str, typer.Option(help="The GPU to prepare for.")] = "cuda:sm_90a",
    jobs: Annotated[int, typer.Option(help="Processes that prepare.")] = os.cpu_count() or 1,
    seconds: Annotated[float, typer.Option(help="How long to time each problem.")] = 2.0,
    budget: Annotated[float, typer.Option(help="How long to measure altogether.")] = 600.0,
    seed: Annotated[int, typer.Option(help="Of the random operands.")] = 0,
) -> None:
    """Prepare a folder of kernels, or measure one."""
    if (prepare is None) == (run is None):
        raise typer.BadParameter("give --prepare DIR or --run DIR")
    if prepare is not None:
        write(prepare, target, suite, case or [], schedule or [], jobs)
        return
    assert run is not None
    without_front_door()
    from gpu_report import table
    from gpu_run import NoWorkerError, Run

    manifest = json.loads((run / "cases.json").read_text())
    manifest["cases"] = chosen(manifest["cases"], suite, case or [])
    measurement = Run(
        folder=run, manifest=manifest, seconds=seconds, seed=seed, budget=budget, output=output
    )
    try:
        found = measurement.measure()
    except NoWorkerError as error:
        typer.echo(f"nothing can be measured here: {error}", err=True)
        raise typer.Exit(NO_DEVICE) from None
    typer.echo(table(found), err=output is None, nl=False)
    if output is None:
        typer.echo(json.dumps(found, indent=1))
    if any(row.get("wrong") for row in found["rows"]):
        raise typer.Exit(WRONG_RESULT)


def chosen(cases: list[dict[str, Any]], suite: str, patterns: list[str]) -> list[dict[str, Any]]:
    """The prepared cases of the suites that are named, in that order, whose text fits a pattern."""
    known = dict.fromkeys(case["suite"] for case in cases)
    names = suite.split(",") if suite else list(known)
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"--suite {name}: prepared are {', '.join(known)}")
    return [
        case
        for name in names
        for case in cases
        if case["suite"] == name
        and (not patterns or any(fnmatchcase(case["text"], pattern) for pattern in patterns))
    ]


def write(
    folder: Path, target: str, suite: str, texts: list[str], schedules: list[str], jobs: int
) -> None:
    """Prepare the cases that are given, and those of the suites that are named."""
    from gpu_cases import SUITES, own_case
    from gpu_prepare import variants, write_folder

    from gemmir.errors import GemmirError

    names = suite.split(",") if suite else [] if texts else list(SUITES)
    for name in names:
        if name not in SUITES:
            raise typer.BadParameter(f"--suite {name}: the suites are {', '.join(SUITES)}")
    try:
        cases = [*map(own_case, texts), *(c for name in names for c in SUITES[name])]
    except (ValueError, GemmirError) as error:
        raise typer.BadParameter(f"--case {error}") from error
    try:
        found = variants(schedules)
    except ValueError as error:
        raise typer.BadParameter(f"--schedule {error}") from error
    write_folder(folder, target, cases, found, jobs)


if __name__ == "__main__":
    typer.run(main)
