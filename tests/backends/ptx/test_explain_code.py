"""What is explained of machine code for a GPU, by fake tools and by those found."""

from __future__ import annotations

from pathlib import Path

import pytest

from gemmir import Gemm, lower
from gemmir.backends.ptx.assemble import find_ptxas, resources_by_kernel
from gemmir.backends.ptx.occupancy import occupancy
from gemmir.backends.ptx.sass import find_nvdisasm
from gemmir.explain import facts
from gemmir.launch import KernelLaunch
from gemmir.machine.gpu import SM_75, SM_80, SM_90A, GpuMachine
from tests.backends.ptx.conftest import tool

GEMM = Gemm(m=64, n=64, k=64)
TARGET = "cuda:sm_80"

TAKES = """
echo "ptxas info    : Compiling entry function 'gemm' for 'sm_80'"
echo "    0 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads"
echo "ptxas info    : Used 40 registers, 4096 bytes smem"
"""

LOOPS = """#!/bin/sh
cat << 'EOF'
.L_x_0:
        /*0010*/                   LDS.128 R4, [R5+0x10] ;
        /*0020*/                   FFMA R1, R2, R3, R1 ;
        /*0030*/                   FFMA R1, R2, R3, R1 ;
        /*0040*/              @!P1 BRA `(.L_x_0) ;
EOF
"""


@pytest.mark.parametrize(
    ("machine", "threads", "registers", "shared", "blocks_by", "bound_by"),
    [
        (SM_80, 128, 216, 98304, (2, 1, 16, 32), ("shared memory",)),
        (SM_90A, 128, 216, 98304, (2, 2, 16, 32), ("registers", "shared memory")),
        (SM_80, 256, 128, 70784, (2, 2, 8, 32), ("registers", "shared memory")),
        (SM_80, 1024, 32, 0, (2, 164, 2, 32), ("registers", "threads")),
        (SM_80, 32, 80, 0, (24, 164, 64, 32), ("registers",)),
        (SM_75, 64, 16, 0, (64, 65536, 16, 16), ("threads", "blocks")),
        (SM_80, 96, 255, 163 * 1024, (2, 1, 21, 32), ("shared memory",)),
    ],
)
def test_occupancy(
    machine: GpuMachine,
    threads: int,
    registers: int,
    shared: int,
    blocks_by: tuple[int, ...],
    bound_by: tuple[str, ...],
) -> None:
    launch = KernelLaunch(symbol="gemm", blocks=1, threads=threads, dynamic_shared_bytes=shared)
    found = occupancy(launch, registers, machine)
    assert tuple(found.blocks_by.values()) == blocks_by
    assert found.bound_by == bound_by
    assert found.blocks == min(blocks_by)
    assert found.warps == found.blocks * -(-threads // 32) <= found.max_warps


def test_what_each_kernel_takes() -> None:
    said = (
        "ptxas info    : Compiling entry function 'gemm_0' for 'sm_80'\n"
        "ptxas info    : Used 94 registers, used 1 barriers, 24576 bytes smem\n"
        "ptxas info    : Compiling entry function 'gemm_1' for 'sm_80'\n"
        "    16 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n"
        "ptxas info    : Used 72 registers\n"
    )
    found = resources_by_kernel(said)
    assert [found[name].registers for name in ("gemm_0", "gemm_1")] == [94, 72]
    assert [found[name].shared_bytes for name in ("gemm_0", "gemm_1")] == [24576, 0]
    assert found["gemm_1"].stack_bytes == 16


def test_without_ptxas_it_is_named(nowhere: None) -> None:
    lowered = lower(GEMM, TARGET)
    assert "not known  GEM0608: ptxas is not on PATH" in lowered.explain()
    assert "gemmir[ptxas]" in lowered.explain()
    assert facts(lowered)["code"]["kernels"] == ()


def test_without_nvdisasm_the_loop_alone_is_not_known(ptxas: Path) -> None:
    tool(ptxas.parent, "ptxas", TAKES)
    said = lower(GEMM, TARGET).explain()
    assert (
        "registers  40 of a thread, 20 bytes spilled, 0 bytes of stack; shared memory 4096 bytes "
        "static + " in said
    )
    assert "blocks a multiprocessor" in said
    assert "not known  GEM0612: nvdisasm is not on PATH" in said
    assert "SASS" not in said


def test_with_both_the_loop_is_counted(ptxas: Path) -> None:
    tool(ptxas.parent, "ptxas", TAKES)
    tool(ptxas.parent, "nvdisasm").write_text(LOOPS)
    lowered = lower(GEMM, TARGET)
    assert (
        "SASS loop  2 FFMA: 50.0% of 4 instructions, 1.00 others for each (1 LDS, 1 BRA)"
        in lowered.explain()
    )
    code = facts(lowered)["code"]
    assert code["loop"]["opcodes"] == {"FFMA": 2, "LDS": 1, "BRA": 1}
    assert (code["loop"]["share"], code["loop"]["others_per_product"]) == (0.5, 1.0)
    assert code["missing"] == ()


def test_a_ptxas_that_refuses_is_quoted(ptxas: Path) -> None:
    tool(ptxas.parent, "ptxas", "echo 'fatal: unsupported' >&2; echo .version >&2; exit 1")
    said = lower(GEMM, TARGET).explain()
    assert "not known  GEM0444: ptxas refuses the text: " in said
    assert "fatal: unsupported .version\n" in said


def test_the_loop_of_tensor_cores_is_counted_in_ptx() -> None:
    loop = facts(lower(Gemm(m=4096, n=4096, k=4096, dtype="f16"), "cuda:sm_80"))["loop"]
    assert loop["multiply-adds"] == 64
    assert loop["loads from shared memory"] == 16
    assert loop["asynchronous copies"] == 8


@pytest.mark.skipif(None in (find_ptxas(), find_nvdisasm()), reason="no ptxas or no nvdisasm")
def test_what_the_tools_found_here_say() -> None:
    lowered = lower(Gemm(m=64, n=64, k=8192, dtype="bf16"), "cuda:sm_90a")
    code = facts(lowered)["code"]
    assert [kernel["symbol"] for kernel in code["kernels"]] == ["gemm_0", "gemm_1"]
    for kernel in code["kernels"]:
        assert kernel["occupancy"]["blocks"] >= 1
    assert code["loop"]["opcodes"]["HMMA"]
    assert "(gemm_1)" in lowered.explain()
