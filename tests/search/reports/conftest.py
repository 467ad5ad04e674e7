"""Results to make reports of, small and hostile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
pytest.importorskip("pygments")

HOSTILE: Final = "<script>alert(1)</script>&\"'><img src=x onerror=alert(2)>"


def result(gflops: float, flops: int, **more: Any) -> dict[str, Any]:
    """What a results file says of one contestant."""
    seconds = flops / gflops / 1e9
    times = [seconds, 0.9 * seconds, 1.2 * seconds]
    return {
        "gflops": gflops,
        "calls": 3,
        "rounds": 5,
        "cpu_seconds": times,
        "wall_seconds": [2 * t for t in times],
        **more,
    }


def race(m: int, n: int, k: int, speeds: dict[str, float], **problem: Any) -> dict[str, Any]:
    """What a results file says of one problem."""
    flops = 2 * m * n * k
    return {
        "spelled": f"{m} x {n} x {k} f32",
        "problem": {"m": m, "n": n, "k": k, "dtype": "f32", **problem},
        "best_peer": "numpy",
        "ratio": 1.0,
        "percent_of_peak": 50.0,
        "unable": {"blis": "it is not here"},
        "wrong": {},
        "results": {name: result(g, flops) for name, g in speeds.items()},
    }


def document() -> dict[str, Any]:
    """A results file of two classes."""
    speeds = {"gemmir": 90.0, "numpy": 60.0, "mkl": 80.0, "fma peak": 100.0}
    cubes = [race(s, s, s, {**speeds, "gemmir": 60.0 + s / 8}) for s in (64, 128, 256)]
    return {
        "command": "gemmir bench --suite s.toml -o r.json",
        "started": "2026-01-02T03:04:05Z",
        "cpu": "A CPU, 2 CPUs",
        "target": "cpu",
        "threads": 1,
        "rounds": 5,
        "seed": 7,
        "versions": {"gemmir": "0.1.0", "commit": "abcdef1"},
        "contestants": {"gemmir": {"version": "0.1.0"}, "numpy": {"version": "2"}},
        "missing": {"jax": "it is not installed"},
        "classes": {"cubes": cubes, "rows": [race(1, 256, 256, speeds)]},
        "bars": [
            {"what": "cubes", "value": 1.1, "bar": 1.02, "most": False, "is_met": True},
            {"what": "rows", "value": 0.9, "bar": 0.95, "most": False, "is_met": False},
        ],
    }


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A results file."""
    path = tmp_path / "results.json"
    path.write_text(json.dumps(document()))
    return path


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A results file in which every text is markup."""
    found = document()
    entry = found["classes"].pop("rows")[0]
    entry["spelled"] = HOSTILE
    entry["unable"] = {HOSTILE: HOSTILE}
    entry["results"]["gemmir"]["schedule"] = [HOSTILE]
    entry["results"][HOSTILE] = entry["results"].pop("mkl")
    found["classes"][HOSTILE] = [entry]
    found["bars"][0]["what"] = HOSTILE
    found |= {"cpu": HOSTILE, "command": HOSTILE, "target": HOSTILE}
    found["versions"][HOSTILE] = HOSTILE
    path = tmp_path / "a<b>&\"'.json"
    path.write_text(json.dumps(found))
    return path
