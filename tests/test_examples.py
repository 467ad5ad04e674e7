"""The studies in examples: specs parse, schedules lower, pages say what was measured."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

import pytest

import gemmir
from gemmir.search.experiments.spec import Spec, read_spec
from gemmir.search.experiments.store import Store
from gemmir.search.spaces import Space

EXAMPLES: Final = Path(__file__).parents[1] / "examples"
SPECS: Final = sorted(EXAMPLES.glob("*/*.toml"))
STUDIES: Final = sorted({path.parent for path in SPECS})
PAGES: Final = cast("Callable[[Path], str]", runpy.run_path(str(EXAMPLES / "pages.py"))["page"])
AVX512: Final = "cpu:znver5"
"""In place of the host, which may have other vectors."""


def named(path: Path) -> str:
    return str(path.relative_to(EXAMPLES))


def target_of(spec: Spec, targets: tuple[str, ...] | None) -> str:
    (target, *_) = targets or spec.targets
    return AVX512 if target == "cpu" else target


@pytest.mark.parametrize("path", SPECS, ids=named)
def test_specs_parse_and_their_schedules_lower(path: Path) -> None:
    spec = read_spec(path)
    gemm = spec.problems[0]
    for entry in spec.schedules:
        target = target_of(spec, entry.targets)
        if entry.space is None:
            assert gemmir.lower(gemm, target, entry.text).artifact.text
            continue
        bound = Space.read(entry.space).bind(gemm, target)
        assert bound.refusal(bound.first) is None
        assert len(bound.sample(2, seed=1)) == 2
        assert bound.count().legal == bound.size


@pytest.mark.parametrize("folder", STUDIES, ids=named)
def test_results_are_those_of_the_specs(folder: Path) -> None:
    specs = {spec.name: spec for spec in map(read_spec, folder.glob("*.toml"))}
    with Store.reader(folder / "results.db") as store:
        runs = {run.name: run for run in store.runs()}
        assert {*runs} == {*specs}
        for name, run in runs.items():
            assert run.done == run.cells > 0
            assert run.spec == specs[name].source
            assert {cell.outcome.status for cell in store.cells(run.number)} == {"ok"}


@pytest.mark.parametrize("folder", STUDIES, ids=named)
def test_pages_say_what_was_measured(folder: Path) -> None:
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert "<!-- end -->" in page
    assert page == PAGES(folder), "run `python examples/pages.py`"
    assert (folder / "plot.png").stat().st_size > 10_000
    assert "](plot.png)" in page


def test_the_difference_that_is_no_accident() -> None:
    pytest.importorskip("scipy", reason="SciPy is not installed")
    made: dict[str, Any] = runpy.run_path(str(EXAMPLES / "blocking" / "plot.py"))
    assert made["chance"](EXAMPLES / "blocking" / "results.db") < 1e-5
