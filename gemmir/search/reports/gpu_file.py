"""Read what bench/gpu.py writes on a GPU: speeds beside PyTorch, and what calls cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from gemmir.bench.report import spelled
from gemmir.dtypes import ELEMENTS
from gemmir.epilogue_steps import EPILOGUE_STEPS
from gemmir.errors import ProblemError
from gemmir.gemm import Gemm
from gemmir.machine import GpuMachine, machine_for
from gemmir.search.reports.bench_file import spelled_value
from gemmir.search.reports.limits import recorded_gflops
from gemmir.search.reports.measured import Case, Run, Speed, Static

OWN: Final = "default"
PEER: Final = "torch"
ORDERS: Final = ("nn", "nt", "tn", "tt")


def run_of_gpu(found: Mapping[str, Any], path: Path) -> Run:
    """The run in the JSON `found`; KeyError, TypeError or ValueError where it is none."""
    target = str(found["target"])
    rows: list[Mapping[str, Any]] = [row for row in found["rows"] if not row.get("wrong")]
    timed = [row for row in rows if "seconds" in row]
    if not timed:
        raise ValueError("it has no times")
    suites = dict.fromkeys(str(row["suite"]) for row in timed)
    return Run(
        name=path.stem,
        title=f"Speeds on {found.get('gpu', target)}",
        target=target,
        command=str(found.get("command", "")),
        facts=tuple(_facts(found)),
        classes={s: _cases([row for row in timed if row["suite"] == s], target) for s in suites},
        statics=tuple(_statics(rows)),
    )


def _facts(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in found.items():
        if name not in ("rows", "summary", "command"):
            yield name.replace("_", " "), spelled_value(value)
    checks = [row for row in found["rows"] if "error_by_bound" in row]
    wrong = sum(bool(row.get("wrong")) for row in found["rows"])
    worst = max((float(row["error_by_bound"]) for row in checks), default=0.0)
    yield "checked", f"{len(checks)} results, {wrong} wrong, largest error {worst:.3f} of its bound"


def _cases(rows: Sequence[Mapping[str, Any]], target: str) -> tuple[Case, ...]:
    texts = dict.fromkeys(str(row["case"]) for row in rows)
    return tuple(_case(t, [row for row in rows if row["case"] == t], target) for t in texts)


def _case(text: str, rows: Sequence[Mapping[str, Any]], target: str) -> Case:
    gemm = _problem(text)
    speeds = {str(row["name"]): _speed(row) for row in rows}
    machine = machine_for(target)
    limit = None
    if gemm is not None and isinstance(machine, GpuMachine):
        limit = recorded_gflops(machine, gemm.dtype)
    return Case(
        label=text if gemm is None else spelled(gemm),
        gemm=gemm,
        own=OWN,
        peers=tuple(name for name in speeds if name.startswith(PEER)),
        speeds=speeds,
        limit=limit,
        limit_is=f"record of {machine.product}, at its boost clock"
        if limit is not None and isinstance(machine, GpuMachine)
        else "",
    )


def _speed(row: Mapping[str, Any]) -> Speed:
    seconds = row["seconds"]
    gflops, median = 1e3 * float(row["tflops"]), float(seconds["median"])
    return Speed(
        name=str(row["name"]),
        gflops=gflops,
        lower=gflops * median / float(seconds["upper"]),
        upper=gflops * median / float(seconds["lower"]),
        schedule=", ".join(str(step) for step in row.get("schedule", ())),
    )


def _problem(text: str) -> Gemm | None:
    """The problem of TYPE:MxNxK:WORD:WORD…; None where a word is none that is known here."""
    dtype, sizes, *words = text.split(":")
    fields: dict[str, Any] = {"dtype": dtype}
    for word in words:
        name, equals, value = word.partition("=")
        if word in ORDERS:
            fields |= {"trans_a": word[0] == "t", "trans_b": word[1] == "t"}
        elif word in ELEMENTS:
            fields["out"] = word
        elif all(step in EPILOGUE_STEPS for step in word.split("+")):
            fields["epilogue"] = word
        elif equals:
            fields[name] = float(value) if name in ("alpha", "beta") else int(value)
        else:
            return None
    try:
        return Gemm(**dict(zip("mnk", map(int, sizes.split("x")), strict=True)), **fields)
    except (ProblemError, TypeError):
        return None


def _statics(rows: Sequence[Mapping[str, Any]]) -> Iterator[Static]:
    """What a call costs the CPU: no speed of a kernel."""
    for row in rows:
        if "microseconds" in row:
            yield Static(
                label=str(row["case"]),
                contestant=str(row["name"]),
                name="time of a call on the CPU",
                value=float(row["microseconds"]["median"]),
                unit="µs",
                is_measured=True,
            )
