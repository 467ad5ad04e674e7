"""gemmir opt: run passes over IR and print it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gemmir.cli.crash import reproducible
from gemmir.cli.options import Json, read_text, schedule_of
from gemmir.cli.output import put, put_json, write_file

if TYPE_CHECKING:
    from gemmir.lowering import Stage

LEVELS = "gemm, tiled, promoted or vectorized"


def opt(
    *,
    file: Annotated[
        Path, typer.Argument(help="MLIR text; - is standard input.", metavar="FILE.mlir")
    ],
    passes: Annotated[
        str | None,
        typer.Option("--passes", "-p", help="Passes, or a file of them.", metavar="PIPELINE"),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", help=f"The level that FILE must have: {LEVELS}.", metavar="STAGE"),
    ] = None,
    end: Annotated[
        str | None,
        typer.Option("--to", help="Stop at the last stage of this level.", metavar="STAGE"),
    ] = None,
    target: Annotated[
        str, typer.Option(help="The machine that the default schedule is for.")
    ] = "cpu",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file.")] = None,
    json: Json = False,
) -> None:
    """Run passes over IR and print the result.

    Without -p, runs the passes that the text carries, or the default schedule of its problem. What
    is printed carries the passes that are still to come. xdsl-opt knows the same passes under
    names like gemmir-tile.
    """
    from gemmir.compiler import prepare_text

    job = prepare_text(
        read_text(file), target, stage=start, schedule=schedule_of(passes), name=str(file)
    )
    with reproducible(job):
        stage = _last(list(job.stages.values()), end)
    if output is not None:
        write_file(output, stage.text.encode())
    if json:
        file_name = None if output is None else str(output)
        put_json({"name": stage.name, "level": stage.level, "text": stage.text, "file": file_name})
    elif output is None:
        put(stage.text)


def _last(stages: list[Stage], level: str | None) -> Stage:
    """The last stage, or the last one of `level`."""
    found = [stage for stage in stages if level in (None, stage.level)]
    if not found:
        levels = ", ".join(dict.fromkeys(stage.level for stage in stages))
        raise typer.BadParameter(f"--to {level}: the stages are at the levels {levels}")
    return found[-1]
