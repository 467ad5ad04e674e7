"""Times that were stored for other purposes: of a GPU, and libtpu's static profile of TPUs.

There each problem has one schedule, the default one, so that nothing is known of the order of
schedules of a problem. What can be said is how far predictions are from the times, and whether
problems come in the same order; that is much easier, since problems differ by more than schedules.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from gemmir.compiler import prepare
from gemmir.cost import Prediction, predict_schedule
from gemmir.errors import GemmirError, ParseError
from gemmir.gemm import Gemm
from gemmir.machine import TpuMachine
from gemmir.search.quality.ranking import Quality, Ranking, ranking, summary

GPU_SUITES: Final = ("square", "case", "llm", "tf32")
TRANSPOSED: Final[Mapping[str, tuple[bool, bool]]] = {
    "nn": (False, False),
    "nt": (False, True),
    "tn": (True, False),
}
"""Whether A and B are, by the letters of BLAS."""


def stored_quality(path: Path) -> Iterator[Quality]:
    """The quality on the times of a results file of a GPU, or on those in one of TPUs.

    Raises `ParseError` GEM1455 where it is neither.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        rows = list(_times(found))
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError, GemmirError) as error:
        raise ParseError(
            "GEM1455",
            f"{path} holds no times: {error}",
            "give what gemmir cost measure wrote, or gpu-h200.json or tpu-static.json",
        ) from error
    for kind in dict.fromkeys(target.split(":")[0] for target, _, _, _ in rows):
        these = [row for row in rows if row[0].startswith(kind)]
        targets = dict.fromkeys(row[0] for row in these)
        yield _quality(", ".join(targets), these, found)


def _quality(
    target: str, rows: list[tuple[str, str, float, float]], found: Mapping[str, Any]
) -> Quality:
    predicted, measured = [row[2] for row in rows], [row[3] for row in rows]
    across = ranking("problems, one schedule each", f"{len(rows)} problems", predicted, measured)
    what = found.get("label", f"measured on {found.get('gpu', 'a GPU')}")
    rankings: tuple[Ranking, ...] = (across,)
    return Quality(
        target=target,
        about={"times": what, "problems": [row[1] for row in rows]},
        rankings=rankings,
        classes=(),
        whole=summary(f"{len(rows)} problems, one schedule each", rankings),
    )


def _times(found: Mapping[str, Any]) -> Iterator[tuple[str, str, float, float]]:
    """Target, problem, predicted and stored seconds of each row that has all of it."""
    if "label" in found:
        yield from (_tpu_row(row) for row in found["rows"])
        return
    for row in found["rows"]:
        wanted = row["suite"] in GPU_SUITES and row["name"] == "default"
        gemm = _gpu_problem(row["case"]) if wanted else None
        if gemm is not None and row.get("schedule") and "seconds" in row:
            made = _predicted(gemm, found["target"], row["schedule"])[0]
            yield found["target"], row["case"], made.seconds, row["seconds"]["median"]


def _tpu_row(row: Mapping[str, Any]) -> tuple[str, str, float, float]:
    target, dtype, shape = row["case"].split("/")
    m, n, k = map(int, shape.split("x"))
    made, clock = _predicted(Gemm(m=m, n=n, k=k, dtype=dtype), target, row["schedule"])
    return target, row["case"], made.seconds, row["ours"]["cycles"][row["method"]] / clock


def _gpu_problem(case: str) -> Gemm | None:
    """The problem that the name of a case says; None where it says more than a product."""
    dtype, shape, *rest = case.split(":")
    m, n, k = map(int, shape.split("x"))
    if not rest:
        return Gemm(m=m, n=n, k=k, dtype=dtype)
    if len(rest) != 2 or rest[0] not in TRANSPOSED:
        return None
    trans_a, trans_b = TRANSPOSED[rest[0]]
    return Gemm(m=m, n=n, k=k, dtype=dtype, out=rest[1], trans_a=trans_a, trans_b=trans_b)


def _predicted(gemm: Gemm, target: str, schedule: list[str]) -> tuple[Prediction, float]:
    job = prepare(gemm, target, ",".join(schedule))
    made = predict_schedule(job.source, job.schedule, job.machine)
    clock = job.machine.clock_hz if isinstance(job.machine, TpuMachine) else 1.0
    return made, float(clock)
