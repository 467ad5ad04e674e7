"""Default schedules of problems that have no size before they are called, on every CPU."""

from __future__ import annotations

import pytest

import gemmir
from gemmir.blas import problem
from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine, machine_for
from gemmir.machine.cpu import SHIPPED
from gemmir.schedule import Schedule, check_fits
from gemmir.schedule.cpu.any_size import unpacked
from gemmir.schedule.default import default_text
from gemmir.sizes import ANY

TRANSPOSES = ("nn", "nt", "tn", "tt")


@pytest.mark.parametrize("machine", SHIPPED, ids=lambda m: m.name)
@pytest.mark.parametrize("transposes", TRANSPOSES)
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_they_fit_the_machine(machine: CpuMachine, transposes: str, dtype: str) -> None:
    gemm = problem(dtype, transposes)
    check_fits(Schedule.parse(default_text(gemm, machine)), gemm, machine)
    check_fits(Schedule.parse(unpacked(gemm, machine)), gemm, machine)


@pytest.mark.parametrize("machine", SHIPPED, ids=lambda m: m.name)
@pytest.mark.parametrize("transposes", TRANSPOSES)
@pytest.mark.parametrize("dtype", ["bf16", "f16", "i8", "u8"])
def test_narrow_types_lower(machine: CpuMachine, transposes: str, dtype: str) -> None:
    trans_a, trans_b = (letter == "t" for letter in transposes)
    gemm = Gemm(m=ANY, n=ANY, k=ANY, dtype=dtype, trans_a=trans_a, trans_b=trans_b)
    gemmir.lower(gemm, machine.target)


@pytest.mark.parametrize("transposes", TRANSPOSES)
def test_the_spare_product_allocates_nothing(transposes: str) -> None:
    text = unpacked(problem("f32", transposes), SHIPPED[0])
    assert "promote{operand=a" not in text
    assert "promote{operand=b" not in text


def versions(gemm: Gemm) -> list[str]:
    machine = machine_for("cpu:znver5")
    return [x for x in default_text(gemm, machine).splitlines() if x.startswith("version")]


def test_there_are_versions_of_what_is_unknown() -> None:
    assert versions(problem("f32", "nn")) == [
        "version{loops=m,n,k most=512,512,512}",
        "version{loops=m most=8}",
        "version{loops=n most=48}",
        "version{loops=n,k most=512,512}",
    ]
    assert versions(problem("f32", "tn")) == versions(problem("f32", "nn"))[:3]
    assert versions(problem("f32", "nt")) == ["version{loops=n most=16}"]
    assert versions(problem("f64", "tt")) == [
        "version{loops=n most=8}",
        "version{loops=m,n,k most=512,512,512}",
    ]
    assert versions(Gemm(m=ANY, n=64, k=ANY)) == [
        "version{loops=m,k most=512,512}",
        "version{loops=m most=8}",
        "version{loops=k most=512}",
    ]
    assert versions(Gemm(m=ANY, n=4096, k=ANY)) == ["version{loops=m most=8}"]
