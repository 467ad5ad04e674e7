"""The IR is the only message: a stage, read in a new process, gives the same Pallas file."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import hypothesis.strategies as st
from hypothesis import given

import gemmir
from gemmir import Gemm, Schedule
from gemmir.machine.tpu import SHIPPED_TPUS, V5E
from tests.backends.pallas.interpreted import default_problems
from tests.strategies import examples
from tests.tpu_strategies import tpu_problems, tpu_schedules

FINISH: Final = """
import hashlib, json, sys
import gemmir
pairs = json.load(open(sys.argv[1]))
made = [gemmir.lower_text(text, target=target).artifact for target, text in pairs]
json.dump([hashlib.sha256(a.text.encode()).hexdigest() for a in made], sys.stdout)
"""
"""Takes the stages in a file to the end and prints a hash of the Pallas file of each."""


def in_a_new_process(folder: Path, pairs: list[tuple[str, str]]) -> list[str]:
    """The hashes of the Pallas files of printed stages, each with its target."""
    stored = folder / "stages.json"
    stored.write_text(json.dumps(pairs))
    command = [sys.executable, "-c", FINISH, str(stored)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return json.loads(done.stdout)


def scheduled(gemm: Gemm) -> st.SearchStrategy[tuple[Gemm, Schedule]]:
    """`gemm`, and a schedule of blocks that a TPU has."""
    return st.tuples(st.just(gemm), tpu_schedules(gemm, V5E))


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_default_schedules_of_every_machine_and_type(tmp_path: Path) -> None:
    pairs: list[tuple[str, str]] = []
    expected: list[str] = []
    for machine in SHIPPED_TPUS:
        for gemm in default_problems(machine):
            lowered = gemmir.lower(gemm, target=machine.target)
            pairs.append((machine.target, lowered.stages["vectorized"].text))
            expected.append(digest(lowered.artifact.text))
    assert len(pairs) > 100
    assert in_a_new_process(tmp_path, pairs) == expected


def test_every_stage_of_drawn_schedules(tmp_path: Path) -> None:
    pairs: list[tuple[str, str]] = []
    expected: list[str] = []

    @given(tpu_problems(V5E, 300).flatmap(scheduled))
    @examples(0.4)
    def collect(case: tuple[Gemm, Schedule]) -> None:
        lowered = gemmir.lower(case[0], target=V5E.target, schedule=case[1])
        for stage in lowered.stages.values():
            pairs.append((V5E.target, stage.text))
            expected.append(digest(lowered.artifact.text))

    collect()
    assert in_a_new_process(tmp_path, pairs) == expected


def test_a_stage_names_no_machine() -> None:
    """So that the text of one machine can be finished for another."""
    lowered = gemmir.lower(Gemm(m=64, n=256, k=256, dtype="bf16"), target="tpu:v5e")
    text = lowered.stages["vectorized"].text
    assert "v5e" not in text
    assert "v6e" in gemmir.lower_text(text, target="tpu:v6e").artifact.text
