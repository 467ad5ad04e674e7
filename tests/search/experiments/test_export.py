"""Exports: every sample is in CSV and Parquet, and T4 is what its schema says."""

from __future__ import annotations

import csv
import importlib.util
import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import jsonschema
import pytest

from gemmir.search.experiments.export import COLUMNS, INVALIDITY, bytes_of
from gemmir.search.experiments.records import STATUSES, Cell, Run, Session, status_of
from gemmir.search.experiments.store import Store
from tests.search.experiments.examples import WORKER, outcome, small_plan

HERE = Path(__file__).parent


@pytest.fixture
def run(tmp_path: Path) -> tuple[Run, list[Cell], list[Session]]:
    """A run with cells of every status."""
    with Store.writer(tmp_path / "x.db", create=True) as store:
        number = store.add_run(small_plan())
        session = store.begin(number, WORKER.environment)
        for at, cell in enumerate(store.pending(number)):
            status = STATUSES[at] if at < len(STATUSES) else "ok"
            seconds = (1e-3 + at * 1e-6, 1 / 3) if status == "ok" else ()
            odd = replace(outcome(status, *seconds), detail='two\nlines, "quoted"')
            store.finish(cell.row, session, WORKER, odd if at == 1 else outcome(status, *seconds))
        return store.run(number), store.cells(number), store.sessions(number)


def test_csv_has_every_sample_with_all_digits(run: tuple[Run, list[Cell], list[Session]]) -> None:
    text = bytes_of("csv", *run)[""].decode()
    rows = list(csv.DictReader(text.splitlines(keepends=True)))
    assert list(rows[0]) == list(COLUMNS)
    timed = [row for row in rows if row["seconds"]]
    wanted = [s for cell in run[1] for s in cell.seconds]
    assert [float(row["seconds"]) for row in timed] == wanted
    assert len(rows) == len(wanted) + sum(not cell.seconds for cell in run[1])
    assert rows[2]["detail"] == 'two\nlines, "quoted"'
    assert rows[0]["affinity_before"] == "[1]" and rows[0]["mhz_before"] == ""
    first = run[1][0].point.problem
    assert float(rows[0]["gflops"]) == first.flops / wanted[0] / 1e9


def test_parquet_has_the_same_with_types(
    run: tuple[Run, list[Cell], list[Session]], tmp_path: Path
) -> None:
    (tmp_path / "x.parquet").write_bytes(bytes_of("parquet", *run)[""])
    table: Any = duckdb.sql(f"SELECT * FROM '{tmp_path / 'x.parquet'}'")
    types = {name: str(kind) for name, kind in zip(table.columns, table.types, strict=True)}
    assert types == dict(COLUMNS)
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.fetchall()]
    seconds = [row["seconds"] for row in rows if row["seconds"] is not None]
    assert seconds == [s for cell in run[1] for s in cell.seconds]
    assert rows[2]["detail"] == 'two\nlines, "quoted"'
    assert {row["m"] for row in rows} == {8, 16}


def test_t4_is_what_its_schema_says(run: tuple[Run, list[Cell], list[Session]]) -> None:
    made = {name: json.loads(data) for name, data in bytes_of("t4", *run).items()}
    for name, kind in (("", "results"), ("-metadata", "metadata")):
        own = json.loads((HERE / f"t4-{kind}.schema.json").read_text())
        for schema in (own, *published_schemas(kind)):
            validator: Any = jsonschema.Draft202012Validator(schema)
            assert [str(error) for error in validator.iter_errors(made[name])] == []


def published_schemas(name: str) -> list[Any]:
    """That of Kernel Tuner, where it is installed."""
    found = importlib.util.find_spec("kernel_tuner")
    if found is None or found.origin is None:
        return []
    path = Path(found.origin).parent / "schema" / "T4" / "1.0.0" / f"{name}-schema.json"
    return [json.loads(path.read_text())]


def test_t4_has_an_entry_for_each_point(run: tuple[Run, list[Cell], list[Session]]) -> None:
    found = json.loads(bytes_of("t4", *run)[""])["results"]
    cells: dict[tuple[str, ...], list[Cell]] = {}
    for cell in run[1]:
        cells.setdefault(cell.point.words, []).append(cell)
    assert len(found) == len(cells) == 6
    for entry, those in zip(found, cells.values(), strict=True):
        wanted = [1e3 * s for cell in those for s in cell.seconds]
        assert entry["times"]["runtimes"] == wanted
        assert entry["configuration"]["m"] == those[0].point.problem.m
        assert entry["configuration"].get("mr") == (those[0].point.candidate.point or {}).get("mr")
        values = {m["name"]: m["value"] for m in entry["measurements"]}
        assert values["time"] == statistics.median(wanted)
        assert values["registers"] == 40.0
        assert entry["invalidity"] == INVALIDITY[status_of(those)]


def test_t4_metadata_says_where_and_with_what(run: tuple[Run, list[Cell], list[Session]]) -> None:
    found = json.loads(bytes_of("t4", *run)["-metadata"])["metadata"]
    assert found["hardware"] == {
        "hardware_description": [{"host": "h", "cpu": "a CPU", "cpus": 2}],
        "operating_system": "a system",
    }
    assert found["environment"]["requirements"] == ["gemmir==1"]
    assert found["environment"]["gemmir_revisions"] == ["abc+"]
