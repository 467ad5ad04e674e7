"""gemmir bisect: which pass is at fault, and a file that shows it again."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gemmir.cli.check import replacement
from gemmir.cli.options import Json, ProblemOptions
from gemmir.cli.output import note, progress, put, put_json, write_file

if TYPE_CHECKING:
    from gemmir.bisect import Outcome


def bisect(
    *,
    problem: ProblemOptions,
    replace: Annotated[
        list[str] | None,
        typer.Option(help="Take the IR of a stage from a file.", metavar="STAGE=FILE.mlir"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random arrays.")] = 0,
    shrink: Annotated[
        bool, typer.Option(help="Look for the smallest problem that is wrong, for 3 s.")
    ] = True,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The reproducer: bisect-STAGE.py if not said.", metavar="FILE.py"
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Find the pass at fault, and write a Python file that shows it again.

    The stages of the lowering are searched as a sorted list is: each is run by the evaluator on
    random arrays and compared with wider arithmetic, and so is the code behind them. Large problems
    are tried small first, with the same schedule. What is found is the first wrong pass, its first
    wrong element and the smallest problem that shows it; the file runs just that pass on the IR
    before it, in any Python that has gemmir.

    The exit status is 3 where a pass is wrong, and 0 where none is.
    """
    from gemmir.bisect import bisect as search
    from gemmir.jax_modules import stay_on_cpu

    stay_on_cpu()
    texts = dict(replacement(pair) for pair in replace or [])
    is_stage = problem.file is not None and bool(problem.given)
    gemm = problem.gemm() if is_stage else None
    job = problem.job(both=True)
    with progress() as watch:
        outcome = search(job, gemm=gemm, replace=texts, seed=seed, shrink=shrink, watch=watch)
    path = None
    if outcome.found is not None:
        path = output or Path(f"bisect-{outcome.found.stage}.py")
    if json:
        put_json(_plain(outcome, path))
    else:
        put(_text(outcome))
    if outcome.found is not None and path is not None:
        write_file(path, outcome.found.script.encode())
        note(f"wrote {path}: {shlex.join(['python', str(path)])} shows it again")
    outcome.require_ok()


def _plain(outcome: Outcome, path: Path | None) -> dict[str, object]:
    return {
        "ok": outcome.found is None,
        "problems": list(outcome.problems),
        "ran": list(outcome.ran),
        "found": None if outcome.found is None else outcome.found.to_dict(),
        "reproducer": None if path is None else str(path),
    }


def _text(outcome: Outcome) -> str:
    found = outcome.found
    ran = f"ran {len(outcome.ran)} stages: {', '.join(outcome.ran)}"
    if found is None:
        return (
            f"all is right: the last stage and the code of {', '.join(outcome.problems)}\n{ran}\n"
        )
    lines = [f"first wrong   {found.stage}", f"at fault      {found.step or found.stage}"]
    if found.right:
        lines.append(f"still right   {found.right}")
    lines.append(f"fault         {found.row.fault}")
    if found.problem is not None:
        gemm = found.problem
        lines.append(
            f"problem       m={gemm.m} n={gemm.n} k={gemm.k} {gemm.dtype} on {found.target}"
        )
    lines.append(ran)
    return "\n".join(lines) + "\n"
