"""The IR is the only message: the last stage, read in a new process, gives the same PTX."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given

import gemmir
from gemmir import Gemm, Schedule
from gemmir.dtypes import PRODUCTS
from gemmir.machine.gpu import SHIPPED_GPUS, SM_80, GpuMachine
from tests.gpu_strategies import gpu_cases, gpu_dtypes
from tests.strategies import examples

FINISH: Final = """
import hashlib, json, sys
import gemmir
target, texts = json.load(open(sys.argv[1]))
made = [gemmir.lower_text(text, target=target).artifact for text in texts]
json.dump([hashlib.sha256(a.text.encode()).hexdigest() for a in made], sys.stdout)
"""
"""Takes the stages in a file to the end and prints a hash of the PTX of each."""


def in_a_new_process(folder: Path, target: str, texts: list[str]) -> list[str]:
    """The hashes of the PTX of printed stages."""
    stored = folder / "stages.json"
    stored.write_text(json.dumps([target, texts]))
    command = [sys.executable, "-c", FINISH, str(stored)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return json.loads(done.stdout)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("machine", SHIPPED_GPUS, ids=lambda m: m.name)
def test_default_schedules(machine: GpuMachine, tmp_path: Path) -> None:
    texts: list[str] = []
    expected: list[str] = []
    for dtype in gpu_dtypes(machine):
        steps = "bias+relu" if PRODUCTS[dtype].element.is_integer else "bias+gelu"
        gemm = Gemm(m=40, n=35, k=56, dtype=dtype, lda=64, trans_b=True, beta=1.0, epilogue=steps)
        lowered = gemmir.lower(replace(gemm, batch=2), target=machine.target)
        texts.append(lowered.stages["vectorized"].text)
        expected.append(digest(lowered.artifact.text))
    assert in_a_new_process(tmp_path, machine.target, texts) == expected


def test_every_stage_of_drawn_schedules(tmp_path: Path) -> None:
    texts: list[str] = []
    expected: list[str] = []

    @given(gpu_cases(SM_80))
    @examples(0.15)
    def collect(case: tuple[Gemm, Schedule]) -> None:
        lowered = gemmir.lower(case[0], target=SM_80.target, schedule=case[1])
        for stage in lowered.stages.values():
            texts.append(stage.text)
            expected.append(digest(lowered.artifact.text))

    collect()
    assert in_a_new_process(tmp_path, SM_80.target, texts) == expected


def test_a_stage_names_no_problem_and_no_machine() -> None:
    """So that the text of one machine can be finished for another."""
    lowered = gemmir.lower(Gemm(m=64, n=64, k=64, dtype="bf16"), target="cuda:sm_80")
    text = lowered.stages["vectorized"].text
    assert "sm_80" not in text
    other = gemmir.lower_text(text, target="cuda:sm_90a").artifact
    assert ".target sm_90a" in other.text
