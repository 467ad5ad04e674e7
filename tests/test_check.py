"""check: right stages pass, and each kind of wrong stage is found, named and made small."""

import re
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp

import gemmir.backends.cpu.emit as cpu_emit
import gemmir.check as check_module
from gemmir.backend import Artifact
from gemmir.check import MACHINE_CODE, Report, check, command_line, find_stage, stage_names
from gemmir.cli import main
from gemmir.compiler import Job, prepare, prepare_text
from gemmir.errors import BackendError, MismatchError, ParseError, ScheduleError
from gemmir.evaluate import evaluate
from gemmir.gemm import Gemm
from gemmir.ir.dialect import EpilogueOp, memref_type
from gemmir.machine import Machine
from gemmir.passes.fuse_epilogue import FuseEpilogue
from gemmir.schedule import Schedule

BIASED = Gemm(m=13, n=19, k=11, epilogue="bias+relu")
DIRECT = (
    "tile{loops=n,m sizes=8,4 edges=peel},promote{operand=c to=registers},fuse-epilogue,"
    "vectorize{with=fma width=8}"
)
PACKED = (
    "tile{loops=n,k sizes=16,8},promote{operand=b to=l3 layout=panel:16},tile{loops=m sizes=12},"
    "promote{operand=a to=l2 layout=panel:6},tile{loops=n,m sizes=16,6},"
    "promote{operand=c to=registers},fuse-epilogue,vectorize{with=fma width=8},"
    "unroll{loop=k factor=2}"
)


@pytest.mark.parametrize(
    "gemm",
    [
        BIASED,
        Gemm(m=7, n=5, k=9, dtype="f64", alpha=0.5, beta=-2.0, trans_a=True, trans_b=True),
        Gemm(m=6, n=17, k=4, batch=3, batch_stride_b=0, epilogue="residual+silu"),
        Gemm(m=9, n=10, k=5, lda=8, ldb=13, ldc=12, beta=1.0),
        Gemm(m=5, n=3, k=0, epilogue="bias"),
        Gemm(m=0, n=3, k=2),
    ],
    ids=lambda g: f"{g.m}x{g.n}x{g.k}",
)
def test_right_stages_are_ok(gemm: Gemm) -> None:
    report = check(gemm)
    assert report.ok, report.first_wrong
    assert [row.name for row in report.rows[:-1]] == list(prepare(gemm).stages)
    assert report.rows[-1].name == MACHINE_CODE
    assert {row.status for row in report.rows} == {"ok"}
    assert report.reference.startswith("Gemm.reference in ")
    report.require_ok()


def test_every_stage_within_five_seconds() -> None:
    start = time.perf_counter()
    report = check(Gemm(m=48, n=40, k=56, epilogue="bias+gelu"), schedule=PACKED + ",expand-math")
    assert report.ok, report.first_wrong
    assert len(report.rows) == 12
    assert time.perf_counter() - start < 5


def test_rows_are_seen_as_they_come() -> None:
    seen: list[str] = []
    report = check(BIASED, watch=lambda row: seen.append(row.name))
    assert seen == [row.name for row in report.rows]


Apply = Callable[[FuseEpilogue, Context, ModuleOp], None]


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


def test_wrong_pass_is_named_with_the_smallest_problem(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(FuseEpilogue, "apply", loses_epilogue(5))
    report = check(BIASED, schedule=DIRECT)
    wrong = report.first_wrong
    assert wrong is not None
    assert (wrong.name, wrong.step) == ("03-fuse-epilogue", "fuse-epilogue")
    assert [row.status for row in report.rows] == ["ok"] * 3 + ["wrong"] * 3
    element = wrong.first_wrong
    assert element is not None
    assert element.index == (0, 0)
    assert element.error == pytest.approx(abs(element.got - element.expected), rel=1e-3)
    assert element.error > element.bound
    words = shlex.split(report.smallest)
    assert words[:8] == ["gemmir", "check", "--m", "5", "--n", "1", "--k", "1"]
    assert words[8:] == ["--epilogue", "bias+relu", "--schedule", DIRECT]
    assert main(words[1:]) == 3
    error = capsys.readouterr().err
    assert (
        "error GEM0801: stage 03-fuse-epilogue (after fuse-epilogue): element [0, 0] is " in error
    )
    assert report.smallest in error
    monkeypatch.undo()
    assert main(words[1:]) == 0


def test_smaller_problem_is_legal_throughout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Panels of 16 cannot be read by tiles of fewer columns, so n stays at 16 or more."""
    monkeypatch.setattr(check_module, "SHRINK_SECONDS", 1.0)
    monkeypatch.setattr(FuseEpilogue, "apply", loses_epilogue(5))
    words = shlex.split(check(BIASED, schedule=PACKED).smallest)
    monkeypatch.undo()
    assert main(words[1:]) == 0


def test_pass_that_fails_on_a_wrong_stage_is_wrong_too(monkeypatch: pytest.MonkeyPatch) -> None:
    job = prepare(BIASED, schedule=DIRECT)
    text = prepare(BIASED).stages["00-gemm"].text.replace("arith.addf", "arith.subf")
    report = check(job, replace={"02-promote": text})
    assert [row.status for row in report.rows] == ["ok", "ok", *["wrong"] * 3]
    assert report.rows[-1].name == "04-vectorize"
    assert "GEM0372" in report.rows[-1].fault


def test_wrong_report_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FuseEpilogue, "apply", loses_epilogue(1))
    report = check(BIASED, shrink=False)
    assert report.smallest == ""
    assert not report.ok
    with pytest.raises(MismatchError, match="GEM0801: stage 03-fuse-epilogue") as caught:
        report.require_ok()
    assert caught.value.exit_code == 3
    assert report.to_dict()["rows"][3]["status"] == "wrong"


def test_pass_that_leaves_invalid_ir_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def drop_return(self: FuseEpilogue, ctx: Context, op: ModuleOp) -> None:
        (function,) = (o for o in op.ops if isinstance(o, func.FuncOp))
        assert function.body.block.last_op is not None
        function.body.block.last_op.detach()

    monkeypatch.setattr(FuseEpilogue, "apply", drop_return)
    report = check(BIASED, shrink=False)
    assert [row.status for row in report.rows] == ["ok"] * 3 + ["wrong"]
    assert "GEM0390" in report.rows[-1].fault


def test_illegal_schedule_is_not_a_wrong_stage() -> None:
    with pytest.raises(ScheduleError, match="GEM0385"):
        check(Gemm(m=4, n=8, k=4), schedule="promote{operand=c to=registers},expand-math")


def edited(job: Job, stage: str, pattern: str, by: str) -> str:
    """The text of a stage with one place changed."""
    text, count = re.subn(pattern, by, job.stages[stage].text, count=1)
    assert count == 1
    return text


def test_replaced_stage_is_found_wrong() -> None:
    job = prepare(BIASED)
    text = edited(job, "02-promote", r"arith\.addf", "arith.subf")
    report = check(job, replace={"promote": text})
    wrong = report.first_wrong
    assert wrong is not None
    assert wrong.name == "02-promote"
    assert [row.ok for row in report.rows] == [True, True] + [False] * (len(report.rows) - 2)
    assert report.smallest == ""


def test_replaced_stage_that_is_right_is_ok() -> None:
    job = prepare(BIASED)
    assert check(job, replace={"02-promote": job.stages["02-promote"].text}).ok


def test_rest_is_run_from_the_replaced_stage() -> None:
    """A stage of another schedule takes the place of this one's."""
    other = prepare(BIASED, schedule="tile{loops=n,m sizes=8,3},promote{operand=c to=registers}")
    report = check(prepare(BIASED), replace={"promote": other.stages["02-promote"].text})
    assert report.ok, report.first_wrong


def test_stage_that_cannot_run_is_wrong() -> None:
    job = prepare(BIASED, schedule=PACKED)
    text = edited(job, "04-promote", r" *memref\.dealloc[^\n]*\n", "")
    report = check(job, replace={"04-promote": text})
    wrong = report.first_wrong
    assert wrong is not None
    assert wrong.name == "04-promote"
    assert "GEM0905" in wrong.fault
    assert wrong.largest is None


@pytest.mark.parametrize("stage", ["nosuch", "tile"])
def test_stage_to_replace_must_be_one(stage: str) -> None:
    with pytest.raises(ParseError, match="GEM0207") as caught:
        check(prepare(BIASED, schedule=PACKED), replace={stage: ""})
    assert "01-tile, 02-promote" in caught.value.message


def test_stage_names_are_those_of_the_lowering() -> None:
    job = prepare(BIASED, schedule=PACKED)
    assert stage_names(job.schedule) == tuple(job.stages)
    assert find_stage(job.schedule, "vectorize") == "08-vectorize"


def test_wrong_machine_code_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = cpu_emit.emit

    def wrong_emit(module: ModuleOp, machine: Machine) -> Artifact:
        made = right(module, machine)
        return replace(made, text=made.text.replace(" fadd ", " fsub "))

    monkeypatch.setattr(cpu_emit, "emit", wrong_emit)
    report = check(BIASED, schedule=DIRECT)
    assert [row.status for row in report.rows] == ["ok"] * 5 + ["wrong"]
    assert report.smallest.startswith("gemmir check --m 1 --n 1 --k 1 ")


def test_text_that_cannot_be_emitted_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(module: ModuleOp, machine: Machine) -> Artifact:
        raise BackendError("GEM0400", "no such instruction")

    monkeypatch.setattr(cpu_emit, "emit", refuse)
    assert check(BIASED, shrink=False).rows[-1].fault == "GEM0400: no such instruction"


@pytest.mark.parametrize("place", ["input", "gap"])
def test_writing_elsewhere_is_wrong(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    def careless(module: ModuleOp, arrays: Sequence[Any]) -> None:
        evaluate(module, arrays)
        if place == "input":
            arrays[0][1, 2] = 3
        else:
            wider = (arrays[-1].shape[0], arrays[-1].shape[1] + 1)
            np.lib.stride_tricks.as_strided(arrays[-1], wider, arrays[-1].strides)[0, -1] = 3

    monkeypatch.setattr(check_module, "evaluate", careless)
    wrong = check(Gemm(m=4, n=5, k=3, ldc=7), shrink=False).first_wrong
    assert wrong is not None
    assert wrong.name == "00-gemm"
    where = {"input": "a", "gap": "c"}[place]
    assert wrong.fault == f"memory outside the output was written, at {where}"


def test_code_for_another_computer_is_skipped() -> None:
    report = check(Gemm(m=6, n=8, k=5), target="cpu:neoverse-n1")
    row = report.rows[-1]
    if row.status == "ok":
        pytest.skip("this computer is a Neoverse N1")
    assert report.ok
    assert (row.status, row.message) == ("skipped", "this computer lacks aarch64")


MLIR = """
func.func @layer(%x: memref<6x9xf32>, %w: memref<9x11xf32>, %y: memref<6x11xf32>) {
  linalg.matmul ins(%x, %w : memref<6x9xf32>, memref<9x11xf32>) outs(%y : memref<6x11xf32>)
  func.return
}
"""


def test_imported_text_is_checked_by_its_ir() -> None:
    report = check(prepare_text(MLIR))
    assert report.ok, report.first_wrong
    assert report.reference == "the gemm-level IR in float64, with running error bounds"


def test_wrong_pass_on_imported_text_is_made_small(monkeypatch: pytest.MonkeyPatch) -> None:
    right = cpu_emit.emit

    def wrong_emit(module: ModuleOp, machine: Machine) -> Artifact:
        made = right(module, machine)
        return replace(made, text=made.text.replace(" fadd ", " fsub "))

    monkeypatch.setattr(cpu_emit, "emit", wrong_emit)
    report = check(prepare_text(MLIR, schedule=DIRECT.replace("fuse-epilogue,", "")))
    assert report.smallest.startswith("gemmir check --m 1 --n 1 --k 1 --beta 1.0 --schedule ")


def later_stage() -> str:
    return prepare(BIASED).stages["02-promote"].text


def test_later_stage_needs_the_problem() -> None:
    with pytest.raises(ParseError, match="GEM0209"):
        check(prepare_text(later_stage()))


def test_later_stage_is_checked_against_the_problem() -> None:
    report: Report = check(prepare_text(later_stage()), gemm=BIASED)
    assert report.ok, report.first_wrong
    assert len(report.rows) == len(prepare(BIASED).stages) - 1
    wrong = check(prepare_text(later_stage()), gemm=replace(BIASED, epilogue="bias+silu"))
    assert not wrong.ok


def test_problem_must_fit_the_stage() -> None:
    with pytest.raises(ParseError, match=r"GEM0210.*bias 19.*bias 20"):
        check(prepare_text(later_stage()), gemm=replace(BIASED, n=20))


@pytest.mark.parametrize(
    ("gemm", "words"),
    [
        (Gemm(m=1, n=2, k=3), "--m 1 --n 2 --k 3"),
        (
            Gemm(m=1, n=2, k=3, dtype="f64", trans_b=True, beta=0.5, batch=4, batch_stride_b=0),
            "--m 1 --n 2 --k 3 --dtype f64 --beta 0.5 --trans-b --batch 4 --batch-stride-b 0",
        ),
    ],
)
def test_command_line_says_the_whole_problem(gemm: Gemm, words: str) -> None:
    job = prepare(gemm, "cpu:x86-64-v3", Schedule.parse("promote{operand=c to=registers}"))
    assert command_line(gemm, job, 7) == (
        f"gemmir check {words} --target cpu:x86-64-v3 --seed 7 "
        "--schedule 'promote{operand=c to=registers}'"
    )
