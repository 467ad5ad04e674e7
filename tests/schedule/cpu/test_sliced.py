"""What sliced schedules ask for ahead: from memory, and by many rows from L3."""

from __future__ import annotations

import re

import pytest

from gemmir import Gemm
from gemmir.schedule.cpu.classes import plain_class_of
from gemmir.schedule.cpu.sliced import SLICED
from gemmir.schedule.default import default_schedule
from tests.schedule.cpus import cpu

ASKED = ["b loop=n ahead=2 to=l2 during=m"]


@pytest.mark.parametrize(
    ("name", "gemm", "asked"),
    [
        ("znver4", Gemm(m=48, n=2560, k=1024), ASKED),
        ("znver4", Gemm(m=32, n=2560, k=1024), []),  # little is computed between two tiles
        ("znver4", Gemm(m=64, n=1000, k=1000), []),  # an eighth of L3
        ("znver5", Gemm(m=48, n=1000, k=3000), []),  # B is in L3
        ("znver5", Gemm(m=48, n=2600, k=4000), ASKED),  # and here in memory
    ],
)
def test_what_is_asked_for(name: str, gemm: Gemm, asked: list[str]) -> None:
    assert plain_class_of(gemm, cpu(name)) is SLICED
    found = re.findall(r"prefetch\{operand=([^}]*)\}", str(default_schedule(gemm, cpu(name), 1)))
    assert found == asked
