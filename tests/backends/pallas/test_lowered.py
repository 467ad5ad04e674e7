"""What Pallas and libtpu say of the default schedules of every generation of TPUs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

import gemmir
from gemmir import Gemm
from gemmir.backend import Artifact
from gemmir.backends.pallas.export import stablehlo
from gemmir.backends.pallas.profile import Array, Program, compile_for
from gemmir.dtypes import ELEMENTS
from gemmir.machine.tpu import SHIPPED_TPUS, TpuMachine
from tests.backends.pallas.interpreted import default_problems
from tests.backends.pallas.profile.programs import needs_libtpu

CASES: Final = [(machine, dtype) for machine in SHIPPED_TPUS for dtype in machine.mxu_dtypes]


def names(case: tuple[TpuMachine, str]) -> str:
    return "-".join((case[0].name, case[1]))


@pytest.mark.parametrize("case", CASES, ids=names)
def test_pallas_lowers_default_schedules(case: tuple[TpuMachine, str]) -> None:
    """JAX makes Mosaic of them: blocks are whole tiles, and every operation exists."""
    machine, dtype = case
    for gemm in default_problems(machine, [dtype]):
        artifact = gemmir.lower(gemm, target=machine.target).artifact
        assert "tpu_custom_call" in stablehlo(artifact), gemm


def program(artifact: Artifact) -> Program:
    """A kernel with the arrays that it takes."""
    arguments = tuple(
        Array(shape=a.shape, dtype=ELEMENTS[a.dtype].numpy.name)
        for a in artifact.signature.arguments
        if a.access != "write"
    )
    return Program(text=artifact.text, function=artifact.signature.symbol, arguments=arguments)


def compiled(machine: TpuMachine) -> Iterator[Gemm]:
    """What libtpu compiles for a generation in seconds: ragged edges, and steps in parts."""
    other = "i8" if "i8" in machine.mxu_dtypes else machine.mxu_dtypes[-1]
    yield Gemm(m=250, n=384, k=520, dtype="bf16", trans_b=True, beta=1, epilogue="bias+gelu")
    yield Gemm(m=1024, n=1024, k=512, dtype=other, epilogue="relu")


@needs_libtpu
@pytest.mark.parametrize("machine", SHIPPED_TPUS, ids=lambda m: m.name)
def test_libtpu_compiles_default_schedules(machine: TpuMachine) -> None:
    """For a generation that is not there, with as much VMEM as the kernel says."""
    for gemm in compiled(machine):
        artifact = gemmir.lower(gemm, target=machine.target).artifact
        found = compile_for(machine, program(artifact))
        assert "tpu_custom_call" in found.hlo
        assert 0 < found.vmem_bytes <= machine.vmem_bytes_per_core
