"""Stored measurements of the repository: a problem of them, ranked again by the model as it is."""

from __future__ import annotations

from pathlib import Path

from gemmir.bench.suite import shape_of
from gemmir.search.quality.measurements import read
from gemmir.search.quality.ranking import ranked

FILE = Path(__file__).parents[3] / "bench/results/cost-cpu-znver5.json"


def test_the_model_ranks_what_was_measured() -> None:
    """The bars of docs/cost-model.md, on a problem that is quick to predict."""
    found = read(FILE)
    case = next(c for c in found.cases if shape_of(c.gemm) == "192x192x192")
    made = ranked(case, found.target)
    assert made.schedules >= 15
    assert made.tau >= 0.6
    assert made.regret[8] <= 0.05
    assert 0.5 < made.ratio < 2
