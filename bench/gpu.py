"""Measure gemmir's kernels on a GPU beside PyTorch's, which are cuBLAS's; see bench/README.md.

In two steps, since the computer with the GPU may have neither xDSL nor a network:

    python bench/gpu.py --prepare DIR      here: lower every case, and write its code to DIR
    python bench/gpu.py --run DIR -o FILE  there: load, check and time what is in DIR

The second step needs PyTorch, NumPy, ml_dtypes, typer, and cuda-bindings or PyCUDA.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from gemmir.gemm import Gemm

MANIFEST: Final = "cases.json"
"""The file of a prepared folder that lists what is in it."""

DEFAULT: Final = "default"
"""The name of a problem's own schedule."""

WRONG_RESULT: Final = 3

CASES: Final = (
    "f32:1024x1024x1024",
    "f32:2048x2048x2048",
    "f32:4096x4096x4096",
    "f16:4096x4096x4096",
    "bf16:4096x4096x4096",
)
"""What is measured when no case is given."""


def main(
    prepare: Annotated[
        Path | None, typer.Option(help="Lower the cases and write them to this folder.")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Measure what is in this folder.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write what was measured to this file.")
    ] = None,
    case: Annotated[
        list[str] | None,
        typer.Option(help=f"TYPE:MxNxK, or TYPE:MxNxK:nt for B transposed; default {CASES}."),
    ] = None,
    schedule: Annotated[
        list[Path] | None,
        typer.Option(help="A .schedule file to measure beside the default, for every case."),
    ] = None,
    target: Annotated[str, typer.Option(help="The GPU to prepare for.")] = "cuda:sm_90a",
    seconds: Annotated[float, typer.Option(help="How long to time each problem.")] = 2.0,
    seed: Annotated[int, typer.Option(help="Of the random operands.")] = 0,
) -> None:
    """Prepare a folder of kernels, or measure one."""
    if (prepare is None) == (run is None):
        raise typer.BadParameter("give --prepare DIR or --run DIR")
    if prepare is not None:
        write_folder(prepare, target, case or CASES, schedule or [])
        return
    assert run is not None
    without_front_door()
    from race import race

    found = race(run, json.loads((run / MANIFEST).read_text()), seconds=seconds, seed=seed)
    text = json.dumps(found, indent=1) + "\n"
    if output is None:
        typer.echo(text, nl=False)
    else:
        output.write_text(text)
    if any(row["wrong"] for row in found["rows"]):
        raise typer.Exit(WRONG_RESULT)


def without_front_door() -> None:
    """Let the parts of gemmir be imported without its front door, which imports xDSL."""
    if "gemmir" in sys.modules:
        return
    package = ModuleType("gemmir")
    package.__path__ = [str(Path(__file__).parent.parent / "gemmir")]
    sys.modules["gemmir"] = package


def write_folder(
    folder: Path, target: str, cases: Sequence[str], schedules: Sequence[Path]
) -> None:
    """Lower every case by every schedule; one that does not fit is noted and left out."""
    from gemmir.backend import backend_for
    from gemmir.compiler import lower
    from gemmir.errors import GemmirError

    folder.mkdir(parents=True, exist_ok=True)
    listed: list[dict[str, Any]] = []
    for number, text in enumerate(cases):
        gemm = problem(text)
        kernels: dict[str, dict[str, Any]] = {}
        for path in (None, *schedules):
            name = DEFAULT if path is None else path.stem
            try:
                lowered = lower(gemm, target, path)
                code = backend_for("ptx").assemble(lowered.artifact)
            except GemmirError as error:
                typer.echo(f"{text} {name}: {error}", err=True)
                continue
            file = f"{number:02}-{name}.image"
            (folder / file).write_bytes(code)
            assert lowered.artifact.launch is not None
            kernels[name] = {
                "file": file,
                "signature": lowered.artifact.signature.to_json(),
                "launch": asdict(lowered.artifact.launch),
                "schedule": list(lowered.schedule.steps),
            }
            typer.echo(f"{text} {name}: {len(code)} bytes", err=True)
        listed.append({"case": text, "problem": described(gemm), "kernels": kernels})
    manifest = {"target": target, **versions(), "cases": listed}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def versions() -> dict[str, str]:
    """What made the code: gemmir, by its commit where it is known, LLVM and ptxas."""
    from gemmir.backends.ptx.assemble import find_ptxas
    from gemmir.llvm import versions as of_llvm

    ptxas = find_ptxas()
    said = _said([ptxas, "--version"]) if ptxas else ""
    return {
        "commit": _said(["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]),
        "llvm": " ".join(("llvmlite", *of_llvm())),
        "ptxas": said.splitlines()[-1] if said else "none: the driver assembles",
    }


def _said(command: Sequence[str]) -> str:
    """What a command prints, "" where it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def problem(text: str) -> Gemm:
    """The problem of TYPE:MxNxK, TYPE:MxNxK:nt or TYPE:MxNxK:nt:OUT."""
    from gemmir.gemm import Gemm

    dtype, sizes, *rest = text.split(":")
    order, out = (*rest, *("nn", "")[len(rest) :])
    try:
        m, n, k = map(int, sizes.split("x"))
    except ValueError:
        raise typer.BadParameter(f"--case {text}: write TYPE:MxNxK") from None
    if order not in ("nn", "nt", "tn", "tt"):
        raise typer.BadParameter(f"--case {text}: the order is nn, nt, tn or tt")
    return Gemm(
        m=m,
        n=n,
        k=k,
        dtype=dtype,
        out=out or None,
        trans_a=order[0] == "t",
        trans_b=order[1] == "t",
    )


def described(gemm: Gemm) -> dict[str, Any]:
    """What the other computer must know of a problem."""
    return {
        "m": gemm.m,
        "n": gemm.n,
        "k": gemm.k,
        "dtype": gemm.dtype,
        "trans_a": gemm.trans_a,
        "trans_b": gemm.trans_b,
        "flops": gemm.flops,
    }


if __name__ == "__main__":
    typer.run(main)
