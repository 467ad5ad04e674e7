"""gemmir explain: what was decided and what it means on the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gemmir.cli.crash import reproducible
from gemmir.cli.options import Json, ProblemOptions
from gemmir.cli.output import note, put, put_json

if TYPE_CHECKING:
    from gemmir.compiler import Job, Lowered
    from gemmir.tpu_profile import Comparison


def explain(
    *,
    problem: ProblemOptions,
    profile: Annotated[
        bool,
        typer.Option(
            "--profile", help="Of a TPU: libtpu's static profile, beside that of XLA's own product."
        ),
    ] = False,
    edits: Annotated[
        int,
        typer.Option(min=0, help="Changes of the schedule to show that the cost model likes best."),
    ] = 3,
    json: Json = False,
) -> None:
    """Say what the schedule does: tiles and caches, registers, order of sums, limits, what it is
    predicted to take, and which small changes of it are predicted to gain most.

    Nothing is run: instructions are counted in the assembly, and the cost model reckons with the
    loops of the last stage. Of a GPU: its launch, and, where
    ptxas and nvdisasm are found, registers, spills, occupancy and the main loop in machine code. Of
    a TPU: grid, blocks, VMEM and traffic, and, where libtpu is installed, its static profile, which
    is not measured.
    """
    from gemmir.explain import explain as explain_text
    from gemmir.explain import facts

    job = problem.job()
    if profile:
        _require_tpu(job)
    with reproducible(job):
        lowered = job.lower()
        found = _profile(lowered) if profile else None
        if json:
            put_json(facts(lowered, found, edits, note))
        else:
            put(explain_text(lowered, found, edits, note))


def _require_tpu(job: Job) -> None:
    """A usage error where no libtpu could profile the target."""
    from gemmir.machine import TpuMachine

    if not isinstance(job.machine, TpuMachine):
        raise typer.BadParameter(
            f"--profile is libtpu's, and {job.target} is no TPU; use a target such as tpu:v5e"
        )


def _profile(lowered: Lowered) -> Comparison:
    from gemmir.cache import ObjectCache, default_path
    from gemmir.tpu_profile import compare

    return compare(lowered, cache=ObjectCache(default_path()), say=note)
