"""What libtpu makes of sharded products for a slice of 16 TPUs: no TPU is needed.

A ring must run its kernels while its transfers are under way, which the schedule shows: it is the
order in which the device begins what it does.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from tests.sharded.conftest import ROOT
from tests.sharded.test_mesh import RULES

SCRIPT: Final = Path(__file__).parent / "ahead.py"

SECONDS: Final = 300
"""After which libtpu is taken to hang."""

START: Final = "collective-permute-start"
DONE: Final = "collective-permute-done"

CASES: Final[dict[str, tuple[str, bool | None, bool]]] = {
    "ring by rows": ("gather x by rows", None, False),
    "ring along k": ("gather x along k", None, False),
    "ring of sums": ("scatter rows", None, False),
    "ring of sums for all": ("reduce", None, False),
    "plain gather": ("gather x by rows", False, False),
    "plain scatter": ("scatter rows", False, False),
    "plain reduce": ("reduce", False, False),
    "derivative of a ring": ("gather x by rows", None, True),
}
"""By what is compiled: the rule, `overlap`, and whether it is the derivative."""

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: pip install 'gemmir[tpu-aot]'",
)


@pytest.fixture(scope="module")
def schedules() -> dict[str, list[str]]:
    """What a device does in each case, compiled in one process."""
    cases: list[dict[str, Any]] = [
        {
            "mesh": {"e": 4, "d": 4},
            "specs": RULES[rule],
            "sizes": [2048, 2048, 2048],
            "dtype": "bf16",
            "overlap": overlap,
            "gradient": gradient,
        }
        for rule, overlap, gradient in CASES.values()
    ]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "v5e:4x4"],
        input=json.dumps(cases),
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
            "TPU_ACCELERATOR_TYPE": "v5litepod-16",
            "TPU_WORKER_HOSTNAMES": "localhost",
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(zip(CASES, json.loads(done.stdout.splitlines()[-1]), strict=True))


def under_way(steps: list[str]) -> list[int]:
    """How many transfers are under way when each kernel begins."""
    found: list[int] = []
    count = 0
    for step in steps:
        count += {START: 1, DONE: -1}.get(step, 0)
        if step == "kernel":
            found.append(count)
    return found


@pytest.mark.parametrize("case", ["ring by rows", "ring along k"])
def test_a_gather_is_under_way_while_all_kernels_but_the_last_run(
    schedules: dict[str, list[str]], case: str
) -> None:
    steps = schedules[case]
    assert steps.count(START) == steps.count(DONE) == 3
    assert steps[:3] == [START, START, "kernel"], "the first product waits for nothing"
    *before, last = under_way(steps)
    assert len(before) == 3
    assert min(before) >= 1
    assert max(before) == 2, "both directions are used at once"
    assert last == 0
    assert set(steps) == {START, DONE, "kernel"}


@pytest.mark.parametrize("case", ["ring of sums", "ring of sums for all"])
def test_sums_are_under_way_while_all_kernels_but_the_first_run(
    schedules: dict[str, list[str]], case: str
) -> None:
    steps = schedules[case]
    assert steps.count(START) == steps.count(DONE) == 3
    first, *after = under_way(steps)
    assert len(after) == 3
    assert first == 0
    assert min(after) >= 1
    assert set(steps) - {"all-gather"} == {START, DONE, "kernel"}
    assert ("all-gather" in steps) == (case == "ring of sums for all")


@pytest.mark.parametrize(
    ("case", "collective"),
    [
        ("plain gather", "all-gather"),
        ("plain scatter", "reduce-scatter"),
        ("plain reduce", "all-reduce"),
    ],
)
def test_without_a_ring_there_is_one_kernel_and_one_collective(
    schedules: dict[str, list[str]], case: str, collective: str
) -> None:
    steps = [step for step in schedules[case] if not step.startswith("collective-permute")]
    kernel = steps.index("kernel")
    assert steps.count("kernel") == 1
    assert any(step.startswith(collective) for step in steps)
    before = [step for step in steps[:kernel] if step.startswith(collective)]
    assert bool(before) == (collective == "all-gather")


def test_the_derivative_overlaps_too(schedules: dict[str, list[str]]) -> None:
    """Three products of four kernels; the operand goes round again, and the sums do."""
    steps = schedules["derivative of a ring"]
    assert steps.count("kernel") == 12
    assert steps.count(START) >= 6
    assert sum(count > 0 for count in under_way(steps)) >= 9
