"""The IR is the only message: a stage, printed, parsed and taken on, gives the same bytes."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from xdsl.dialects import arith, memref
from xdsl.dialects.builtin import DenseIntOrFPElementsAttr

import gemmir
from gemmir import ANY, Gemm, Schedule
from gemmir.ir.attributes import PanelAttr
from gemmir.ir.build import build
from gemmir.ir.context import parse_module
from gemmir.ir.dialect import memref_type, static_strides
from gemmir.ir.problem import problem_of
from gemmir.ir.views import offsets_of
from gemmir.lowering import LEVELS, level_of, run_pass, take_remaining
from gemmir.machine.gpu import SM_90A
from tests.hopper_strategies import hopper_cases
from tests.strategies import examples, problems, scheduled

FINISH = """
import hashlib, json, sys
import gemmir
texts = json.load(open(sys.argv[1]))
target = sys.argv[2]
lowered = (gemmir.lower_text(text, target) for text in texts)
found = [hashlib.sha256(one.artifact.text.encode()).hexdigest() for one in lowered]
json.dump(found, sys.stdout)
"""
"""Takes the stages in a file to the end for a target and prints a hash of the text of each."""


def finished(text: str) -> str:
    """What the backend emits for a printed stage."""
    return gemmir.lower_text(text).artifact.text


@given(scheduled(40))
@examples(0.25)
def test_every_stage_goes_on_to_the_same_text(case: tuple[Gemm, Schedule]) -> None:
    gemm, schedule = case
    lowered = gemmir.lower(gemm, schedule=schedule)
    for name, stage in lowered.stages.items():
        assert finished(stage.text) == lowered.artifact.text, name


@given(problems(40))
@examples(0.15)
def test_every_stage_of_the_default_schedule_goes_on_to_the_same_text(gemm: Gemm) -> None:
    lowered = gemmir.lower(gemm)
    for name, stage in lowered.stages.items():
        assert finished(stage.text) == lowered.artifact.text, name


KNOWN_IN_A_CALL = [
    Gemm(m=12, n=16, k=8, lda=ANY, ldb=ANY, ldc=ANY, alpha=ANY, beta=ANY, epilogue="residual"),
    Gemm(m=1, n=19, k=ANY, trans_a=True, trans_b=True),
    Gemm(m=ANY, n=16, k=ANY, epilogue="bias+residual"),
]
"""Problems with sizes, leading dimensions or factors that the IR takes as arguments."""


@pytest.mark.parametrize("gemm", KNOWN_IN_A_CALL)
def test_the_ir_says_what_is_known_in_a_call_only(gemm: Gemm) -> None:
    assert problem_of(build(gemm)) == gemm


@pytest.mark.parametrize("gemm", KNOWN_IN_A_CALL)
def test_every_stage_of_what_is_known_in_a_call_goes_on_to_the_same_text(gemm: Gemm) -> None:
    tile = "tile{loops=m,n sizes=4,8 edges=peel},promote{operand=c to=registers},fuse-epilogue"
    steps = [tile, "vectorize{with=fma width=8}"]
    if not gemm.steps:
        steps[0] = steps[0].removesuffix(",fuse-epilogue")
    if "m" in gemm.unknown:
        steps = ["version{loops=m most=8}", *steps, "otherwise", *steps]
    lowered = gemmir.lower(gemm, schedule=",".join(steps))
    for name, stage in lowered.stages.items():
        assert finished(stage.text) == lowered.artifact.text, name


@given(scheduled(40))
@examples(0.25)
def test_print_and_parse_are_inverse_at_every_stage(case: tuple[Gemm, Schedule]) -> None:
    gemm, schedule = case
    for number, stage in enumerate(gemmir.lower(gemm, schedule=schedule).stages.values()):
        module = parse_module(stage.text)
        assert str(module) + "\n" == stage.text
        assert (take_remaining(module) or Schedule()).passes == schedule.passes[number:]
        assert level_of(module) == stage.level


@given(scheduled(40))
@examples(0.25)
def test_levels_come_in_order(case: tuple[Gemm, Schedule]) -> None:
    gemm, schedule = case
    stages = list(gemmir.lower(gemm, schedule=schedule).stages.values())
    numbers = [LEVELS.index(stage.level) for stage in stages]
    assert numbers == sorted(numbers)
    assert (stages[0].level, stages[-1].level) == ("gemm", "vectorized")


def test_every_stage_goes_on_to_the_same_text_in_a_new_process(tmp_path: Path) -> None:
    texts: list[str] = []
    expected: list[str] = []

    @given(scheduled(40), problems(40))
    @examples(0.07)
    def collect(case: tuple[Gemm, Schedule], other: Gemm) -> None:
        for lowered in (gemmir.lower(case[0], schedule=case[1]), gemmir.lower(other)):
            digest = hashlib.sha256(lowered.artifact.text.encode()).hexdigest()
            for stage in lowered.stages.values():
                texts.append(stage.text)
                expected.append(digest)

    collect()
    assert finished_elsewhere(texts, "cpu", tmp_path) == expected


def finished_elsewhere(texts: list[str], target: str, folder: Path) -> list[str]:
    """Hashes of what a new process makes of stages."""
    stored = folder / "stages.json"
    stored.write_text(json.dumps(texts))
    command = [sys.executable, "-c", FINISH, str(stored), target]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    found: list[str] = json.loads(done.stdout)
    return found


def test_every_stage_of_warpgroups_goes_on_to_the_same_text_in_a_new_process(
    tmp_path: Path,
) -> None:
    texts: list[str] = []
    expected: list[str] = []

    @given(hopper_cases(SM_90A))
    @examples(0.1)
    def collect(case: tuple[Gemm, Schedule]) -> None:
        lowered = gemmir.lower(case[0], "cuda:sm_90a", case[1])
        digest = hashlib.sha256(lowered.artifact.text.encode()).hexdigest()
        for number, stage in enumerate(lowered.stages.values()):
            module = parse_module(stage.text)
            assert str(module) + "\n" == stage.text
            assert (take_remaining(module) or Schedule()).passes == case[1].passes[number:]
            texts.append(stage.text)
            expected.append(digest)

    collect()
    assert finished_elsewhere(texts, "cuda:sm_90a", tmp_path) == expected


def test_lowering_twice_gives_the_same_text() -> None:
    gemm = Gemm(m=37, n=43, k=29, beta=0.5, epilogue="bias+gelu")
    first, second = gemmir.lower(gemm), gemmir.lower(gemm)
    assert first.artifact == second.artifact
    assert [s.text for s in first.stages.values()] == [s.text for s in second.stages.values()]


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("alpha", [12582912.0, 16777215.0, 1e-40, 1 / 3, 3.4e38])
def test_constants_are_printed_to_the_bit(dtype: str, alpha: float) -> None:
    """xDSL prints whole numbers of many digits as the bits of a float."""
    lowered = gemmir.lower(Gemm(m=4, n=8, k=3, dtype=dtype, alpha=alpha, beta=-alpha))
    for name, stage in lowered.stages.items():
        assert finished(stage.text) == lowered.artifact.text, name


@pytest.mark.parametrize(
    ("literal", "expected"),
    [
        ("0x4B400000", [12582912.0] * 3),
        ("[0x4B400000, -1.5, 2.0e-3]", [12582912.0, -1.5, float(np.float32(2e-3))]),
        ('"0x0000404B"', [12582912.0] * 3),
        ("-1.25e+02", [-125.0] * 3),
    ],
)
def test_dense_floats_may_be_written_as_bits(literal: str, expected: list[float]) -> None:
    text = (
        f"func.func @f() {{\n%c = arith.constant dense<{literal}> : vector<3xf32>\nfunc.return\n}}"
    )
    module = parse_module(text)
    (constant,) = (op for op in module.walk() if isinstance(op, arith.ConstantOp))
    assert isinstance(constant.value, DenseIntOrFPElementsAttr)
    assert list(constant.value.get_values()) == expected
    assert str(parse_module(str(module))) == str(module)


def stated_offset(view: memref.SubviewOp) -> int | None:
    """The offset in the type of `view`, None where it is dynamic."""
    return memref_type(view.result).get_offset()


def inferred_offset(view: memref.SubviewOp) -> int | None:
    """The offset that follows from the source of `view` and from its offsets."""
    source = memref_type(view.source)
    total = source.get_offset()
    for offset, stride in zip(offsets_of(view), static_strides(source), strict=True):
        if stride and not isinstance(offset, int):
            return None
        if total is not None and isinstance(offset, int):
            total += offset * stride
    return total


@given(scheduled(40))
@examples(0.5)
def test_types_of_views_state_the_offset_that_mlir_infers(case: tuple[Gemm, Schedule]) -> None:
    """The evaluator and the backend do not read it; MLIR's verifier does."""
    gemm, schedule = case
    module = build(gemm)
    for p in schedule.passes:
        run_pass(p, module, verify=True)
        for view in [op for op in module.walk() if isinstance(op, memref.SubviewOp)]:
            if not isinstance(memref_type(view.source).layout, PanelAttr):
                assert stated_offset(view) == inferred_offset(view), str(view)
