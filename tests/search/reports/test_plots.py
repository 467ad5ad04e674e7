"""The figures: what they say is what the numbers are."""

from __future__ import annotations

import dataclasses
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any, cast

import pytest

from gemmir.machine import machine_for
from gemmir.machine.tpu import TpuMachine
from gemmir.search.reports import bandwidth
from gemmir.search.reports.bench_file import products_at_once, run_of
from gemmir.search.reports.convergence import convergence
from gemmir.search.reports.drawing import COLOURS, Figure, image, short, svg
from gemmir.search.reports.heatmap import heat_maps
from gemmir.search.reports.measured import Case, Run, Speed, Study, Trial
from gemmir.search.reports.ratios import ratios
from gemmir.search.reports.roofline import roofline
from gemmir.search.reports.samples import samples
from gemmir.search.reports.speeds import speeds
from gemmir.search.reports.tables import Column, Table, cell
from tests.search.reports.conftest import HOSTILE, document


def run() -> Run:
    return run_of(document(), Path("r.json"))


def column(table: Table, name: str) -> list[Any]:
    place = [c.name for c in table.columns].index(name)
    return [row[place] for row in table.rows]


def study(count: int = 20) -> Study:
    """Trials of three holes, of which `mr` decides most; each is a little slower than the last."""
    trials = [
        Trial(
            number=number,
            point={"mr": 1 + number % 4, "kc": 64 << number % 3, "way": HOSTILE[: number % 2]},
            status="ok" if number % 5 else "illegal",
            value=1e-3 * (10 - 2 * (number % 4)) + 1e-5 * number if number % 5 else None,
            detail="" if number % 5 else f"GEM0300: {HOSTILE}",
        )
        for number in range(count)
    ]
    timed = [trial for trial in trials if trial.value is not None]
    return Study(
        name="a-study",
        title="A study",
        target="cpu",
        command="gemmir tune",
        facts=(),
        unit="s",
        trials=tuple(trials),
        winner=min(timed, key=lambda t: t.value or 0),
        baseline=9e-3,
    )


def figures() -> list[Figure]:
    found = run()
    sampled = dataclasses.replace(
        found.classes["rows"][0],
        speeds={"gemmir": Speed(name="gemmir", gflops=1, lower=1, upper=1, samples=(1e-6, 2e-6))},
    )
    maybe = [
        ratios(found),
        roofline(found, measure=False),
        *(speeds(found, name, number) for number, name in enumerate(found.classes)),
        samples(found, "rows", sampled, 0),
        convergence(study()),
        *heat_maps(study()),
    ]
    return [figure for figure in maybe if figure is not None]


@pytest.mark.parametrize("figure", figures(), ids=lambda figure: cast("Figure", figure).slug)
def test_a_figure_is_well_formed_says_what_it_shows_and_stands_alone(figure: Figure) -> None:
    text = svg(figure)
    root = ElementTree.fromstring(text)
    assert root.get("role") == "img" and figure.alt and figure.alt in (root.get("aria-label") or "")
    identities = [one.get("id") for one in root.iter() if one.get("id")]
    assert len(identities) == len(set(identities))
    assert all((one or "").startswith(figure.slug) for one in identities)
    assert not re.findall(r"(?:href|src|url\()\W*https?:", text)
    assert not any(colour.light in text for colour in COLOURS), "the page decides colours"
    alone = ElementTree.fromstring(image(figure, "svg"))
    assert "prefers-color-scheme: dark" in "".join(alone.itertext())
    assert image(figure, "png").startswith(b"\x89PNG")
    assert figure.table.rows and figure.caption and figure.title


def test_text_is_text() -> None:
    text = "".join(ElementTree.fromstring(svg(speeds(run(), "rows", 1))).itertext())
    for word in ("numpy", "mkl", "gemmir", "1 x 256 x 256 f32", "GFLOP/s", "physical limit"):
        assert word in text


def test_the_axis_of_speeds_ends_at_the_physical_limit() -> None:
    text = "".join(ElementTree.fromstring(svg(speeds(run(), "cubes", 0))).itertext())
    ticks = [float(t) for t in re.findall(r"^\s*(\d+)\s*$", text, re.M)]
    assert 100 in ticks and max(t for t in ticks if t not in (64, 128, 256)) == 100


def test_speeds_and_ratios_are_those_of_the_file() -> None:
    found = run()
    case = found.classes["rows"][0]
    assert (case.best_peer, case.ratio, case.limit) == ("mkl", pytest.approx(90 / 80), 100.0)
    assert case.percent_of_limit == pytest.approx(90)
    assert "fma peak" not in case.speeds
    speed = case.speeds["numpy"]
    assert (speed.lower, speed.upper) == (pytest.approx(50), pytest.approx(60 / 0.9))
    table = speeds(found, "rows", 0).table
    assert column(table, "mkl") == [80.0]
    assert column(table, "without a figure") == ["blis: it is not here"]
    figure = ratios(found)
    assert figure is not None
    assert column(figure.table, "problems") == [3, 1]
    assert column(figure.table, "least")[0] == pytest.approx(68 / 80)


def test_times_of_several_threads_are_wall_times() -> None:
    found: dict[str, Any] = {**document(), "threads": 2}
    entry = found["classes"]["rows"][0]["results"]["numpy"]
    entry["wall_seconds"] = [1.0, 0.5, 4.0]
    speed = run_of(found, Path("r.json")).classes["rows"][0].speeds["numpy"]
    assert (speed.lower, speed.upper) == (60 / 4, 60 / 0.5)


def test_instructions_that_add_several_products_raise_the_limit() -> None:
    assert products_at_once("vectorize{with=fma width=16}") == 1
    assert products_at_once("promote{layout=panel:32x4},vectorize{with=dot width=16}") == 4
    found = document()
    found["classes"]["rows"][0]["results"]["gemmir"]["schedule"] = [
        "promote{operand=b to=l2 layout=panel:32x2}",
        "vectorize{with=dot width=16}",
    ]
    case = run_of(found, Path("r.json")).classes["rows"][0]
    assert case.limit == 200.0 and "2 products" in case.limit_is


def test_a_roofline_has_the_intensity_of_operands_moved_once() -> None:
    figure = roofline(run(), measure=False)
    assert figure is not None
    row: Any = next(r for r in figure.table.rows if r[0] == "256 x 256 x 256 f32")
    assert row[2] == pytest.approx(2 * 256**3 / (3 * 4 * 256**2))
    assert row[4] == pytest.approx((60 + 256 / 8) / row[2])
    assert "not known here" in figure.caption


def test_a_roofline_of_a_tpu_has_the_figures_of_its_record() -> None:
    machine = machine_for("tpu:v6e")
    assert isinstance(machine, TpuMachine)
    found: dict[str, Any] = {**document(), "target": "tpu:v6e"}
    for entries in found["classes"].values():
        for entry in entries:
            entry["problem"]["dtype"] = "bf16"
            del entry["results"]["fma peak"]
    figure = roofline(run_of(found, Path("r.json")), measure=False)
    assert figure is not None
    by_name = {row[0]: row for row in figure.table.rows}
    assert by_name["limit: bf16"][3] == machine.mxu_flops_per_second("bf16") / 1e9
    assert by_name["limit: HBM"][4] == machine.hbm_bytes_per_second / 1e9


def test_a_roofline_of_this_computer_has_its_measured_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = bandwidth.Bandwidth(level="L1", bytes_per_second=3e11, area_bytes=1)
    monkeypatch.setattr("gemmir.search.reports.roofline.bandwidths", lambda: (fake,))
    monkeypatch.setattr("gemmir.search.reports.roofline.cpu_model", lambda: "A CPU")
    figure = roofline(run(), measure=True)
    assert figure is not None and ("limit: L1", "memory") in [r[:2] for r in figure.table.rows]
    monkeypatch.setattr("gemmir.search.reports.roofline.cpu_model", lambda: "Another CPU")
    other = roofline(run(), measure=True)
    assert other is not None and not any(r[1] == "memory" for r in other.table.rows)


def test_memory_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandwidth, "SAMPLE_SECONDS", 1e-5)
    monkeypatch.setattr(bandwidth, "MOST_BYTES", 1 << 20)
    bandwidth.bandwidths.cache_clear()
    found = bandwidth.bandwidths()
    bandwidth.bandwidths.cache_clear()
    assert found[0].level == "L1" and found[-1].level == "memory"
    assert all(one.bytes_per_second > 0 and one.area_bytes > 0 for one in found)


def test_convergence_counts_and_finds_the_best() -> None:
    figure = convergence(study())
    assert figure is not None
    assert "16 ok" in figure.alt and "4 illegal" in figure.alt and "trial 3" in figure.alt
    assert column(figure.table, "ms")[3] == pytest.approx(4.03)
    assert column(figure.table, "ms")[0] is None
    assert convergence(dataclasses.replace(study(), trials=(), winner=None)) is None


def test_nothing_timed_is_a_plot_too() -> None:
    trials = tuple(dataclasses.replace(t, value=None, status="wrong") for t in study().trials)
    found = dataclasses.replace(study(), trials=trials, winner=None)
    figure = convergence(found)
    assert figure is not None and svg(figure) and not heat_maps(found)


def test_a_map_has_the_best_of_each_cell_and_the_holes_that_decide_come_first() -> None:
    first, *others = heat_maps(study())
    assert {"mr", "way"} & {c.name for c in first.table.columns[:2]}
    assert len(others) <= 2
    by_cell: dict[Any, Any] = {row[:2]: row[2] for row in first.table.rows if row[2]}
    for trial in study().trials:
        names = tuple(c.name for c in first.table.columns[:2])
        place = tuple(trial.point[n] for n in names)
        if trial.value is not None:
            assert by_cell[place] <= trial.value * 1e3 + 1e-9


def test_samples_are_all_there() -> None:
    case = Case(
        label="x",
        gemm=None,
        own="gemmir",
        peers=("numpy",),
        speeds={
            name: Speed(name=name, gflops=g, lower=g, upper=g, samples=(1 / g, 1.5 / g, 2 / g))
            for name, g in (("gemmir", 2.0), ("numpy", 1.0))
        },
    )
    figure = samples(run(), "rows", case, 0)
    assert figure is not None and svg(figure).count("<title>") == 6
    assert column(figure.table, "median") == [1.5e6 / 2.0, 1.5e6]
    assert samples(run(), "rows", run().classes["rows"][0], 0) is None


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (3.14159, "3.14"), (1234.5, "1,234"), (0.00123, "0.00123")]
)
def test_labels_have_three_digits(value: float, text: str) -> None:
    assert short(value) == text


def test_cells() -> None:
    assert cell(None, Column(name="x")).text == cell(float("nan"), Column(name="x")).text == "·"
    assert cell(True, Column(name="x")).text == "yes"
    number = cell(1234.567, Column(name="x", form=",.1f"))
    assert (number.text, number.key, number.is_number) == ("1,234.6", "1234.567", True)
    assert json.loads(number.key) == 1234.567
    form = Column(name="x", form=",.4g")
    texts = [cell(value, form).text for value in (16_670.4, 2.0, 0.0123456, 2e15)]
    assert texts == ["16,670", "2", "0.01235", "2e+15"]
