"""Read what bench/tpu.py writes: libtpu's static profiles of gemmir's kernels and of XLA's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from gemmir.search.reports.bench_file import spelled_value
from gemmir.search.reports.measured import Run, Static

SIDES: Final = {"ours": "gemmir", "xla": "XLA"}

UTILISATION: Final = "MXU utilisation"
FIGURES: Final = {
    "mxu_utilisation_with_copies": ("MXU utilisation, copies included", ""),
    "vmem_bytes": ("VMEM", "bytes"),
    "copy_bytes": ("bytes copied within the kernel", "bytes"),
    "bundles": ("bundles of instructions", "bundles"),
    "spills": ("spills", "spills"),
}


def run_of_tpu(found: Mapping[str, Any], path: Path) -> Run:
    """The run in the JSON `found`; KeyError, TypeError or ValueError where it is none."""
    rows: list[Mapping[str, Any]] = found["rows"]
    statics = tuple(static for row in rows for static in _statics(row))
    if not statics:
        raise ValueError("it has no profiles")
    versions = dict.fromkeys(spelled_value(row["versions"]) for row in rows)
    return Run(
        name=path.stem,
        title="Static profiles on TPUs",
        target="",
        command=str(found.get("command", "")),
        facts=(("label", str(found["label"])), ("versions", "; ".join(versions))),
        classes={},
        statics=statics,
    )


def _statics(row: Mapping[str, Any]) -> Iterator[Static]:
    label, method = str(row["case"]), str(row["method"])
    yield Static(
        label=label,
        contestant="gemmir",
        name="speed over that of XLA",
        value=float(row["ratio"]),
        unit="",
    )
    for side, name in SIDES.items():
        about: Mapping[str, Any] = row[side]
        whole = "mxu_utilisation" if side == "ours" else f"{side}_mxu_utilisation"
        values = [
            (UTILISATION, row[whole], ""),
            ("cycles", about["cycles"][method], "cycles"),
            *((title, about[key], unit) for key, (title, unit) in FIGURES.items()),
        ]
        for title, value, unit in values:
            yield Static(label=label, contestant=name, name=title, value=float(value), unit=unit)
