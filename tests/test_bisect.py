"""bisect: the first wrong pass, its first wrong element, a small problem, a file that shows it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

import gemmir.backends.cpu.emit as cpu_emit
from gemmir.backend import Artifact
from gemmir.bisect import WRONG, Outcome, bisect
from gemmir.compiler import prepare
from gemmir.errors import MismatchError, ParseError, ScheduleError
from gemmir.gemm import Gemm
from gemmir.ir.dialect import EpilogueOp, OuterProductOp, memref_type
from gemmir.machine import Machine
from gemmir.passes.fuse_epilogue import FuseEpilogue
from gemmir.passes.unroll import Unroll
from gemmir.sizes import ANY

BIASED = Gemm(m=13, n=19, k=11, epilogue="bias+relu")
DIRECT = (
    "tile{loops=n,m sizes=8,4 edges=peel},promote{operand=c to=registers},fuse-epilogue,"
    "vectorize{with=fma width=8},unroll{loop=k factor=2}"
)

Apply = Callable[[Any, Context, ModuleOp], None]


def loses_epilogue(least_rows: int) -> Apply:
    """A pass that drops the epilogue of a C of at least so many rows."""
    right = FuseEpilogue.apply

    def apply(self: FuseEpilogue, ctx: Context, op: ModuleOp) -> None:
        epilogues = [o for o in op.walk() if isinstance(o, EpilogueOp)]
        if memref_type(epilogues[-1].output).get_shape()[0] < least_rows:
            right(self, ctx, op)
            return
        epilogues[-1].detach()
        epilogues[-1].erase()

    return apply


def loses_product(self: Unroll, ctx: Context, op: ModuleOp) -> None:
    """An unrolling that leaves out what it should repeat."""
    for product in [o for o in op.walk() if isinstance(o, OuterProductOp)]:
        product.result.replace_all_uses_with(product.acc)
        product.detach()
        product.erase()


def run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A reproducer in a process of its own, in a folder of its own."""
    path = folder / "again.py"
    path.write_text(script)
    return subprocess.run(
        [sys.executable, "-P", str(path)], capture_output=True, text=True, cwd=folder, check=False
    )


def test_all_is_right() -> None:
    outcome = bisect(BIASED, schedule=DIRECT)
    assert outcome.found is None
    assert outcome.ran == ("05-unroll of 13 x 19 x 11", "machine-code of 13 x 19 x 11")
    outcome.require_ok()


def test_first_wrong_pass_element_and_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gemmir.check.SHRINK_SECONDS", 60.0)
    monkeypatch.setattr(FuseEpilogue, "apply", loses_epilogue(5))
    found = bisect(BIASED, schedule=DIRECT).found
    assert found is not None
    assert (found.stage, found.right, found.step) == (
        "03-fuse-epilogue",
        "02-promote",
        "fuse-epilogue",
    )
    assert found.problem == Gemm(m=5, n=1, k=2, epilogue="bias+relu")
    assert found.row.first_wrong is not None
    assert found.row.first_wrong.index == (0, 0)
    assert found.command.startswith("gemmir bisect --m 5 --n 1 --k 2 --epilogue bias+relu")
    with pytest.raises(MismatchError, match="fuse-epilogue is at fault") as raised:
        Outcome(found=found, problems=(), ran=()).require_ok()
    assert raised.value.code == "GEM1443"


def test_few_stages_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of six stages: the last, the first, and two in between."""
    monkeypatch.setattr(FuseEpilogue, "apply", loses_epilogue(1))
    outcome = bisect(BIASED, schedule=DIRECT, shrink=False)
    names = [line.split(" of ")[0] for line in outcome.ran]
    assert names == ["05-unroll", "00-gemm", "02-promote", "03-fuse-epilogue"]


def test_large_problems_are_tried_small_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Unroll, "apply", loses_product)
    outcome = bisect(Gemm(m=512, n=512, k=512), schedule=DIRECT.replace("fuse-epilogue,", ""))
    assert outcome.problems == ("5 x 11 x 5",)
    assert outcome.found is not None
    assert outcome.found.step == "unroll{loop=k factor=2}"


def test_a_pass_that_breaks_down_is_at_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(self: Unroll, ctx: Context, op: ModuleOp) -> None:
        raise IndexError("list index out of range")

    monkeypatch.setattr(Unroll, "apply", breaks)
    found = bisect(BIASED, schedule=DIRECT).found
    assert found is not None
    assert found.stage == "05-unroll"
    assert "broke down: IndexError: list index" in found.row.fault


def test_the_backend_is_at_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    right = cpu_emit.emit

    def wrong(module: ModuleOp, machine: Machine) -> Artifact:
        made = right(module, machine)
        return replace(made, text=made.text.replace(" fadd ", " fsub "))

    monkeypatch.setattr(cpu_emit, "emit", wrong)
    found = bisect(BIASED, schedule=DIRECT, shrink=False).found
    assert found is not None
    assert (found.stage, found.right) == ("machine-code", "05-unroll")
    again = run(found.script, tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "machine-code: ok" in again.stdout


@pytest.mark.parametrize("epilogue", ["", "bias+relu"])
def test_a_reproducer_shows_what_was_replaced(tmp_path: Path, epilogue: str) -> None:
    gemm = Gemm(m=9, n=11, k=7, epilogue=epilogue)
    schedule = (
        "tile{loops=m,n sizes=4,8},promote{operand=c to=registers},vectorize{with=fma width=8}"
    )
    text = prepare(gemm, schedule=schedule).stages["01-tile"].text
    wrong = text.replace("alpha 1.000000e+00", "alpha 2.000000e+00")
    found = bisect(gemm, schedule=schedule, replace={"tile": wrong}).found
    assert found is not None
    assert (found.stage, found.right) == ("01-tile", "00-gemm")
    again = run(found.script, tmp_path)
    assert again.returncode == WRONG, again.stderr
    assert again.stdout.startswith("before: ok\n01-tile: wrong: element [0, 0] is ")


def test_a_reproducer_runs_the_pass_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a process whose pass is right it finds nothing."""
    monkeypatch.setattr(FuseEpilogue, "apply", loses_epilogue(1))
    found = bisect(BIASED, schedule=DIRECT).found
    assert found is not None
    again = run(found.script, tmp_path)
    assert (again.returncode, again.stdout) == (0, "before: ok\n03-fuse-epilogue: ok\n")
    broken = found.script.replace("import sys\n", "import sys\n" + BREAK, 1)
    again = run(broken, tmp_path)
    assert again.returncode == WRONG, again.stderr
    assert "03-fuse-epilogue: wrong: element [0, 0] is" in again.stdout


BREAK = """
from gemmir.ir.dialect import EpilogueOp
from gemmir.machine import Machine
from gemmir.passes.fuse_epilogue import FuseEpilogue

def apply(self, ctx, op):
    last = [o for o in op.walk() if isinstance(o, EpilogueOp)][-1]
    last.detach()
    last.erase()

FuseEpilogue.apply = apply
"""


def test_what_is_refused() -> None:
    with pytest.raises(ParseError, match="m known in a call only") as found:
        bisect(Gemm(m=ANY, n=8, k=8))
    assert found.value.code == "GEM1444"
    with pytest.raises(ScheduleError, match="GEM0381"):
        bisect(Gemm(m=8, n=8, k=8), schedule="unroll{loop=k factor=2}")
