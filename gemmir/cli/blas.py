"""gemmir blas: a BLAS library that other programs can be run on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemmir.cli.options import Json
from gemmir.cli.output import check_writable, note, put, put_json, write_file

if TYPE_CHECKING:
    from gemmir.blas import BlasLibrary


def blas(
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The shared library to write.")
    ] = Path("libgemmirblas.so"),
    target: Annotated[str, typer.Option(help="A CPU; see gemmir targets.")] = "cpu",
    json: Json = False,
) -> None:
    """Write a BLAS library: sgemm and dgemm, for Fortran and C, as gemmir compiles them.

    A program that was linked with another BLAS runs on it by LD_PRELOAD, and has all other
    functions from its own BLAS: all transposes, leading dimensions, alpha and beta, row-major and
    column-major, and errors told to its xerbla_ or cblas_xerbla. The functions also have the names
    of a BLAS with 64-bit integers (sgemm_64_, cblas_sgemm64_), and those in the wheels of NumPy and
    SciPy (scipy_cblas_sgemm64_).

    Linking needs a C compiler, for another architecture its cross compiler.
    """
    from gemmir.blas import blas_library

    check_writable(output)
    library = blas_library(target)
    write_file(output, library.data)
    note(f"wrote {output}, {len(library.data)} bytes")
    if json:
        put_json(_summary(library, output))
        return
    put(f"{output} for {target} ({library.machine.llvm_cpu}): {' '.join(library.symbols)}\n")


def _summary(library: BlasLibrary, output: Path) -> dict[str, Any]:
    return {
        "file": str(output),
        "bytes": len(library.data),
        "target": library.machine.target,
        "cpu": library.machine.llvm_cpu,
        "symbols": list(library.symbols),
        "schedules": {name: list(made.schedule.steps) for name, made in library.products.items()},
    }
