"""gemmir explain: what was decided and what it means on the machine."""

from __future__ import annotations

from gemmir.cli.crash import reproducible
from gemmir.cli.options import Json, ProblemOptions
from gemmir.cli.output import put, put_json


def explain(*, problem: ProblemOptions, json: Json = False) -> None:
    """Say what the schedule does: tiles and caches, registers, order of sums, and limits.

    Nothing is run: instructions are counted in the assembly. Of a GPU: its launch, and, where
    ptxas and nvdisasm are found, registers, spills, occupancy and the main loop in machine code.
    """
    from gemmir.explain import explain as explain_text
    from gemmir.explain import facts

    job = problem.job()
    with reproducible(job):
        lowered = job.lower()
        if json:
            put_json(facts(lowered))
        else:
            put(explain_text(lowered))
